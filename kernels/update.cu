// The optimiser (ops/optim.py) on rows of a table and on whole weights.
//
//     adagrad: a += g^2, step = rate g / sqrt(a + EPSILON)      sgd: step = rate g
//     p -= step, or with momentum v = momentum v - step, p += v
//
// The rows are distinct, so no two threads write the same number and atomics are not needed.
//
// In a training step the rate is rates[now[NOW_PLACE]], that of the step's place in its chunk.
//
// Figures in the comments: U = 1,100 rows of H = 100, float, Adagrad, on an H200. p and a are read
// and written, 1.8 MB in all; the gradient is read, 440 KB.
#include "common.cuh"

struct How {  // the optimiser's settings
    int adagrad;
    real rate, momentum;
};

struct Number {  // one number of a weight, its sum of squares and its velocity, where used
    real p, a, v;
};

__device__ inline Number read(
    const real *p, const real *a, const real *v, long long at, How how
) {
    return {p[at], how.adagrad ? a[at] : real(0), how.momentum > 0 ? v[at] : real(0)};
}

__device__ inline void write(
    Number old, real *p, real *a, real *v, long long at, real g, How how
) {
    real step = how.rate * g;
    if (how.adagrad) {
        const real sum = old.a + g * g;
        a[at] = sum;
        step /= sqrt(sum + real(EPSILON));
    }
    if (how.momentum > 0) step = -(v[at] = how.momentum * old.v - step);
    p[at] = old.p - step;
}

__device__ inline void update_one(real *p, real *a, real *v, long long at, real g, How how) {
    write(read(p, a, v, at, how), p, a, v, at, g, how);
}

// === Version 1, plain: one thread, one row =======================================================
// Neighbouring threads are 400 bytes apart: 32 sectors for 32 numbers. 21.6 us.
// Grid ceil(U / block).

extern "C" __global__ void update_plain(
    const int *rows, const real *g, int n_rows, int width, int adagrad, real rate, real momentum,
    real *p, real *a, real *v
) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u >= n_rows) return;
    const How how = {adagrad, rate, momentum};
    for (int k = 0; k < width; k++)
        update_one(p, a, v, (long long)rows[u] * width + k, g[(long long)u * width + k], how);
}

// === Version 2, coalesced: one thread, one number ================================================
// Neighbouring threads are adjacent numbers: 4 sectors, the minimum. 1.8 us, of which the launch is
// 1.4. Still to save: the gradient, which one launch writes and the next reads.
// Grid ceil(U width / block).

extern "C" __global__ void update_rows(
    const int *rows, const real *g, int n_rows, int width, int adagrad, real rate, real momentum,
    real *p, real *a, real *v
) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)n_rows * width) return;
    const How how = {adagrad, rate, momentum};
    update_one(p, a, v, (long long)rows[i / width] * width + i % width, g[i], how);
}

// === Version 3, fused: the gradient of the scored rows is computed where it is used ==============
// dV = dy^T h stays in registers: 880 KB and a launch less than scores_backward_rows and
// update_rows. A block takes UPDATE_ROWS rows, so h is read once for each block. Lanes are added
// in order, so results are bit-identical from run to run.
//
// Where the input shares the table, fed[lane] is the row of the lane's input item, to which the
// lane's de is added; else it is -1. Rows past the scored ones are input items only. k = H is a
// row's bias, whose input is 1.
//
// With cosine, biases stay. along_rows[u] times the row is taken out of its gradient, see cosine.cu.
//
// All weights are read first. The compiler must assume that two rows may be the same, so a thread
// that alternates reads and writes waits for each of them. 7.6 us in a step of setting B of
// docs/performance.md; 14.1 in C, with 80 lanes, 224 units and momentum.
// Grid ceil(distinct / UPDATE_ROWS).

extern "C" __global__ void update_scored(
    const int *now, const int *rows, const real *dy, const real *h, const int *fed, const real *de,
    const real *along_rows, int cosine, int H, int y_stride, int adagrad, const real *rates,
    real momentum, real *V_y, real *a_V, real *v_V, real *b_y, real *a_b, real *v_b
) {
    __shared__ __align__(16) real dy_tile[WARP][UPDATE_ROWS];
    const int n = now[NOW_LANES], scored = now[NOW_SCORED], distinct = now[NOW_DISTINCT];
    const int first = blockIdx.x * UPDATE_ROWS;
    if (first >= distinct) return;
    const How how = {adagrad, rates[now[NOW_PLACE]], momentum};

    for (int k0 = 0; k0 <= H; k0 += blockDim.x) {  // every thread, for the barriers
        const int k = k0 + threadIdx.x;
        real *p = k < H ? V_y : b_y, *a = k < H ? a_V : a_b, *v = k < H ? v_V : v_b;
        long long at[UPDATE_ROWS];  // what this thread changes in each row; -1: nothing
        Number old[UPDATE_ROWS];
#pragma unroll
        for (int row = 0; row < UPDATE_ROWS; row++) {
            const int u = first + row;
            at[row] = -1;
            if (k < H && u < distinct) at[row] = (long long)rows[u] * H + k;
            if (k == H && u < scored && !cosine) at[row] = rows[u];
            if (at[row] >= 0) old[row] = read(p, a, v, at[row], how);
        }
        real sum[UPDATE_ROWS] = {};
        for (int lane0 = 0; lane0 < n; lane0 += WARP) {
            for (int i = threadIdx.x; i < WARP * UPDATE_ROWS; i += blockDim.x) {
                const int lane = lane0 + i / UPDATE_ROWS, u = first + i % UPDATE_ROWS;
                const bool inside = lane < n && u < scored;
                dy_tile[i / UPDATE_ROWS][i % UPDATE_ROWS] =
                    inside ? dy[lane * y_stride + u] : real(0);
            }
            __syncthreads();
#pragma unroll 8
            for (int i = 0; i < WARP; i++) {  // lanes past the last have dy = 0
                const int lane = lane0 + i;
                const real x = lane < n && k < H ? h[lane * H + k] : real(1);
#pragma unroll
                for (int row = 0; row < UPDATE_ROWS; row++) sum[row] += dy_tile[i][row] * x;
            }
            // The lanes whose input item is one of these rows: few.
            const int mine = lane0 + threadIdx.x % WARP;
            const int fed_row = mine < n && fed[mine] >= 0 ? fed[mine] - first : -1;
            unsigned left = __ballot_sync(FULL_WARP, fed_row >= 0 && fed_row < UPDATE_ROWS);
            for (; left; left &= left - 1) {
                const int i = __ffs(left) - 1, row_of = __shfl_sync(FULL_WARP, fed_row, i);
                const real d = k < H ? de[(lane0 + i) * H + k] : real(0);
#pragma unroll
                for (int row = 0; row < UPDATE_ROWS; row++) sum[row] += row == row_of ? d : real(0);
            }
            __syncthreads();
        }
#pragma unroll
        for (int row = 0; row < UPDATE_ROWS; row++) {
            const int u = first + row;
            if (cosine && at[row] >= 0 && u < scored) sum[row] -= along_rows[u] * old[row].p;
            if (at[row] >= 0) write(old[row], p, a, v, at[row], sum[row], how);
        }
    }
}

// === The rows of an input table of its own (W_x of 1-of-N, or E) =================================
// Lanes with the same input item have one gradient, their sum. The block of the first of them
// computes it; the others' blocks return. Each warp looks for these lanes itself, WARP lanes at a
// time. de (n, width) is the gradient of the lanes' rows after dropout with rate p, whose mask is
// applied here; p = 0 where it has been. A 1-of-N input needs no other backward pass. Grid n.

extern "C" __global__ void update_fed(
    const int *now, const int *x, const real *de, int width, real p, int adagrad, const real *rates,
    real momentum, real *w, real *a, real *v
) {
    const int lane = blockIdx.x, n = now[NOW_LANES], in_warp = threadIdx.x % WARP;
    if (lane >= n) return;
    const How how = {adagrad, rates[now[NOW_PLACE]], momentum};
    const int item = x[lane];
    for (int lane0 = 0; lane0 < lane; lane0 += WARP) {
        const int other = lane0 + in_warp;
        if (__any_sync(FULL_WARP, other < lane && x[other] == item)) return;
    }
    for (int k0 = 0; k0 < width; k0 += blockDim.x) {  // whole warps, for the ballots
        const int k = k0 + threadIdx.x;
        const long long at = (long long)item * width + k;
        Number old;
        if (k < width) old = read(w, a, v, at, how);
        real sum = 0;
        for (int lane0 = lane / WARP * WARP; lane0 < n; lane0 += WARP) {
            const int other = lane0 + in_warp;
            const bool same = lane <= other && other < n && x[other] == item;
            unsigned left = __ballot_sync(FULL_WARP, same);
            for (; left; left &= left - 1) {
                const int from = (lane0 + __ffs(left) - 1) * width + k;
                if (k < width)
                    sum += de[from] * dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE], from);
            }
        }
        if (k < width) write(old, w, a, v, at, sum, how);
    }
}

// === The skip's weights s and s_m, and what reaches e past the gates =============================
// With d the gradient of top = state + s e + s_m m, summed from its parts: ds = sum of d e over the
// lanes, ds_m = sum of d m, and d s is added to de, times the dropout mask. A warp takes
// every SKIP_LANES-th lane, and each of its threads a unit. The warps' sums are added in
// order, so results are bit-identical from run to run. Every thread reads s before one changes it.
// 2.9 us in a step of the defaults; one thread for all lanes of a unit took 15.8.
// Grid ceil(H / WARP), block (WARP, SKIP_LANES). That is few blocks, so one may have all registers
// of a multiprocessor: for two, doubles would not fit.

extern "C" __global__ void __launch_bounds__(WARP * SKIP_LANES, 1) skip_backward(
    const int *now, const real *dtop_parts, int n_parts, int part_size, const real *e,
    const real *m, int H, real p, int fades, int adagrad, const real *rates, real momentum,
    real *de, real *s, real *a_s, real *v_s, real *s_m, real *a_m, real *v_m
) {
    __shared__ real of_s[SKIP_LANES][WARP], of_m[SKIP_LANES][WARP];
    const int x = threadIdx.x, y = threadIdx.y, k = blockIdx.x * WARP + x, n = now[NOW_LANES];
    const How how = {adagrad, rates[now[NOW_PLACE]], momentum};
    const real s_k = k < H ? s[k] : real(0);
    real ds = 0, ds_m = 0;
    for (int lane = y; lane < n && k < H; lane += SKIP_LANES) {
        const int at = lane * H + k;
        real d = 0;
#pragma unroll 16
        for (int part = 0; part < n_parts; part++) d += dtop_parts[part * part_size + at];
        ds += d * e[at];
        if (fades) ds_m += d * m[at];
        de[at] += d * s_k * dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE], at);
    }
    of_s[y][x] = ds;
    of_m[y][x] = ds_m;
    __syncthreads();
    if (y > 0 || k >= H) return;
    for (int other = 1; other < SKIP_LANES; other++) {
        ds += of_s[other][x];
        ds_m += of_m[other][x];
    }
    update_one(s, a_s, v_s, k, ds, how);
    if (fades) update_one(s_m, a_m, v_m, k, ds_m, how);
}

// === The network's whole weights, all in one launch ==============================================
// The gradient of a matrix is left^T right: e^T dxW for W_x (X, 3H), h^T dhU for U (H, 3H). With
// reset before, the candidate's columns of U take r*h for h. A block takes UPDATE_ROWS rows of one
// matrix and columns of one gate. What it reads of the right serves all its rows, and each number
// of the gradient stays in a register. The last blocks along x update the biases, whose left is 1.
// A weight that the model lacks has no blocks: X = 0 for 1-of-N.
// Grid (ceil(X / UPDATE_ROWS) + ceil(H / UPDATE_ROWS) + 1, 3 ceil(H / block)).

extern "C" __global__ void update_dense(
    const int *now, const real *e, const real *h, const real *kept, const real *dxW,
    const real *dhU, int X, int H, int reset_after, int adagrad, const real *rates, real momentum,
    real *W_x, real *a_W, real *v_W, real *U, real *a_U, real *v_U,
    real *b, real *a_b, real *v_b, real *c, real *a_c, real *v_c
) {
    __shared__ __align__(16) real left_tile[WARP][UPDATE_ROWS];
    const How how = {adagrad, rates[now[NOW_PLACE]], momentum};
    const int n = now[NOW_LANES], gate = blockIdx.y % 3;
    const int unit = blockIdx.y / 3 * blockDim.x + threadIdx.x, k = gate * H + unit;
    const int blocks_of_W = (X + UPDATE_ROWS - 1) / UPDATE_ROWS;
    const int blocks_of_U = (H + UPDATE_ROWS - 1) / UPDATE_ROWS;

    if (blockIdx.x == blocks_of_W + blocks_of_U) {
        if (unit >= H) return;
        real of_b = 0, of_c = 0;
#pragma unroll 8
        for (int lane = 0; lane < n; lane++) {
            of_b += dxW[lane * 3 * H + k];
            if (reset_after) of_c += dhU[lane * 3 * H + k];
        }
        update_one(b, a_b, v_b, k, of_b, how);
        if (reset_after) update_one(c, a_c, v_c, k, of_c, how);
        return;
    }

    const bool is_W = blockIdx.x < blocks_of_W;
    const int first = (blockIdx.x - (is_W ? 0 : blocks_of_W)) * UPDATE_ROWS, height = is_W ? X : H;
    const real *left = is_W ? e : gate == 2 && !reset_after ? kept : h;
    const real *right = is_W ? dxW : dhU;
    real *w = is_W ? W_x : U, *a = is_W ? a_W : a_U, *v = is_W ? v_W : v_U;
    Number old[UPDATE_ROWS];
#pragma unroll
    for (int row = 0; row < UPDATE_ROWS; row++)
        if (first + row < height && unit < H)
            old[row] = read(w, a, v, (first + row) * 3 * H + k, how);
    real sum[UPDATE_ROWS] = {};
    for (int lane0 = 0; lane0 < n; lane0 += WARP) {
        for (int i = threadIdx.x; i < WARP * UPDATE_ROWS; i += blockDim.x) {
            const int lane = lane0 + i / UPDATE_ROWS, row = first + i % UPDATE_ROWS;
            const bool inside = lane < n && row < height;
            left_tile[i / UPDATE_ROWS][i % UPDATE_ROWS] =
                inside ? left[lane * height + row] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int i = 0; i < WARP; i++) {  // lanes past the last have left = 0
            const int lane = lane0 + i;
            const real d = lane < n && unit < H ? right[lane * 3 * H + k] : real(0);
#pragma unroll
            for (int row = 0; row < UPDATE_ROWS; row++) sum[row] += left_tile[i][row] * d;
        }
        __syncthreads();
    }
#pragma unroll
    for (int row = 0; row < UPDATE_ROWS; row++)
        if (first + row < height && unit < H)
            write(old[row], w, a, v, (first + row) * 3 * H + k, sum[row], how);
}
