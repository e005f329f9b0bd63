// The optimiser (optim.py) on rows of a table and on whole weights.
//
//     adagrad: a += g^2, step = rate g / sqrt(a + 1e-6)        sgd: step = rate g
//     p -= step, or with momentum v = momentum v - step, p += v
//
// The rows are distinct, so no two threads write the same number and nothing need be atomic. The
// numbers in the comments are for U = 1,100 rows of H = 100 in float with Adagrad: a row is read
// and written twice (p and a), 1.8 MB in all, and its gradient read, 440 KB.
#include "common.cuh"

struct How {  // what the optimiser does
    int adagrad;
    real rate, momentum;
};

__device__ inline void update_one(real *p, real *a, real *v, long long at, real g, How how) {
    real step = how.rate * g;
    if (how.adagrad) {
        const real sum = a[at] + g * g;
        a[at] = sum;
        step /= sqrt(sum + real(1e-6));
    }
    if (how.momentum > 0) step = -(v[at] = how.momentum * v[at] - step);
    p[at] -= step;
}

// === Version 1, plain: one thread, one row =======================================================
// Threads side by side are 400 bytes apart: 32 sectors for each 32 numbers. Grid ceil(U / block).

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
// Threads side by side are numbers side by side: 4 sectors, the least there is. What limits it is
// memory alone; what can be saved is the gradient, written by one launch and read by the next.
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

// === Version 3, fused: the gradient of the scored rows is made where it is used ==================
// dV = dy^T h never leaves the registers: 880 KB and a launch less than scores_backward_rows and
// update_rows. A block takes ROWS rows, so that h is read U / ROWS times. With the shared input an
// item that a lane was fed (fed[lane] is its place among the rows) adds that lane's de; rows past
// the scored ones are only fed. Lanes in their order: the same bits every time.
// Grid ceil(U / ROWS); place H of a row is its bias, whose input is 1.

#define ROWS 8

extern "C" __global__ void update_scored(
    const int *now, const int *rows, const real *dy, const real *h, const int *fed, const real *de,
    int shared_input, int H, int y_stride, int adagrad, real rate, real momentum,
    real *V_y, real *a_V, real *v_V, real *b_y, real *a_b, real *v_b
) {
    __shared__ real dy_tile[WARP][ROWS];
    __shared__ int fed_tile[WARP];
    const int n = now[LANES], scored = now[SCORED], U = shared_input ? now[DISTINCT] : scored;
    const int first = blockIdx.x * ROWS;
    if (first >= U) return;
    const How how = {adagrad, rate, momentum};

    for (int k0 = 0; k0 <= H; k0 += blockDim.x) {  // the whole block goes round, for the barriers
        const int k = k0 + threadIdx.x;
        real sum[ROWS] = {};
        for (int lane0 = 0; lane0 < n; lane0 += WARP) {
            for (int i = threadIdx.x; i < WARP * ROWS; i += blockDim.x) {
                const int lane = lane0 + i / ROWS, u = first + i % ROWS;
                const bool inside = lane < n && u < scored;
                dy_tile[i / ROWS][i % ROWS] = inside ? dy[lane * y_stride + u] : real(0);
            }
            if (threadIdx.x < WARP && lane0 + threadIdx.x < n)
                fed_tile[threadIdx.x] = shared_input ? fed[lane0 + threadIdx.x] - first : -1;
            __syncthreads();
            for (int i = 0; i < WARP && lane0 + i < n; i++) {
                if (k > H) break;
                const int lane = lane0 + i, fed_row = fed_tile[i];
                const real x = k < H ? h[lane * H + k] : real(1);
#pragma unroll
                for (int row = 0; row < ROWS; row++) {
                    sum[row] += dy_tile[i][row] * x;
                    if (row == fed_row && k < H) sum[row] += de[lane * H + k];
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            const int u = first + row;
            if (k < H && u < U)
                update_one(V_y, a_V, v_V, (long long)rows[u] * H + k, sum[row], how);
            if (k == H && u < scored) update_one(b_y, a_b, v_b, rows[u], sum[row], how);
        }
    }
}

// === The rows of an input table of its own (W_x of 1-of-N, or E) =================================
// Lanes that were fed the same item have one gradient, the sum. The first of them makes it and the
// others have nothing to do. Grid n.

extern "C" __global__ void update_fed(
    const int *now, const int *x, const real *de, int width, int adagrad, real rate, real momentum,
    real *p, real *a, real *v
) {
    const int lane = blockIdx.x, n = now[LANES];
    if (lane >= n) return;
    for (int other = 0; other < lane; other++)
        if (x[other] == x[lane]) return;
    const How how = {adagrad, rate, momentum};
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
        real sum = 0;
        for (int other = lane; other < n; other++)
            if (x[other] == x[lane]) sum += de[other * width + k];
        update_one(p, a, v, (long long)x[lane] * width + k, sum, how);
    }
}

// === The network's whole weights, all in one launch ==============================================
// W_x (X, 3H), U (H, 3H), b and c (3H,) stand on each other like one matrix of X + H + 2 rows, whose
// gradient is left^T right: left is a column of e, of h (of r*h in the candidate's part of U), or
// 1; right is dxW, or dhU for U and c. Each number of the gradient is made in a register and used
// there, and a block takes ROWS rows, so that what it reads of dxW and dhU serves all of them.
// A weight that the model lacks has no rows: X = 0 for 1-of-N, and no c with the reset before.
// Grid (ceil((X + H + 1, or + 2 with c) / ROWS), ceil(3H / block)).

extern "C" __global__ void update_dense(
    const int *now, const real *e, const real *h, const real *kept, const real *dxW,
    const real *dhU, int X, int H, int reset_after, int adagrad, real rate, real momentum,
    real *W_x, real *a_W, real *v_W, real *U, real *a_U, real *v_U,
    real *b, real *a_b, real *v_b, real *c, real *a_c, real *v_c
) {
    const How how = {adagrad, rate, momentum};
    const int n = now[LANES], first = blockIdx.x * ROWS;
    const int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (k >= 3 * H) return;
    const real *left_of_U = k >= 2 * H && !reset_after ? kept : h;
    real sum[ROWS] = {};
    for (int lane = 0; lane < n; lane++) {
        const real d_input = dxW[lane * 3 * H + k], d_state = dhU[lane * 3 * H + k];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int row = first + i;
            if (row < X) sum[i] += e[lane * X + row] * d_input;
            else if (row < X + H) sum[i] += left_of_U[lane * H + row - X] * d_state;
            else sum[i] += row == X + H ? d_input : d_state;
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = first + i;
        if (row < X) update_one(W_x, a_W, v_W, row * 3 * H + k, sum[i], how);
        else if (row < X + H) update_one(U, a_U, v_U, (row - X) * 3 * H + k, sum[i], how);
        else if (row == X + H) update_one(b, a_b, v_b, k, sum[i], how);
        else if (row == X + H + 1 && reset_after) update_one(c, a_c, v_c, k, sum[i], how);
    }
}
