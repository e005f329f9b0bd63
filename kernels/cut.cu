// Scores and their cross-entropy in one, "cut" cross-entropy: the scores (n, N) are never written
// (Wijmans et al. 2024, arXiv 2411.09009). losses.cut_cross_entropy has the mathematics.
//
// The loss needs only two numbers of a lane's row of scores: its maximum and Σ e^(r - maximum).
// Both can be updated as scores come. The gradient needs each score again. It is computed again,
// for H multiply-adds. Stored scores would be written once and read several times: 4.8 MB each time
// with 32 lanes and 37,483 items in float.
//
// h (n, H), V (N, H), b (N,), y (n,) each lane's target column. dh (n, H), dV (N, H), db (N,) are
// the gradients of the sum of the losses.
//
// Times in the comments: all kernels of a version, n = 32, N = 37,483, H = 100, float, on an H200.
// With stored scores, the four kernels of scores.cu and loss.cu take 317 us.
#include "common.cuh"

// === Version 1, plain: one thread, one lane; one thread, one item ================================
// A thread computes its lane's scores one after the other and keeps maximum and sum (Milakov &
// Gimelshein 2018, arXiv 1805.02867). Every thread reads all of V, and there are only n threads: 32
// for the loss and for dh, where a GPU runs thousands. Neighbouring threads read the same row of V,
// but rows of h that are H numbers apart. dh is summed in memory. 23.6 M sectors requested, counted
// by the emulator with n = 32, N = 1,024, H = 100. 506 ms.
// cut_plain_loss and cut_plain_h: grid ceil(n / 32); cut_plain_rows: grid ceil(N / 32). Block 32.

__device__ inline real plain_score(const real *x, const real *v, real b, int H) {
    real sum = 0;
    for (int k = 0; k < H; k++) sum += x[k] * v[k];
    return sum + b;
}

extern "C" __global__ void cut_plain_loss(
    const real *h, const real *V, const real *b, const int *y, int n, int N, int H, real *losses,
    real *maxima, real *inverses
) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= n) return;
    real so_far = real(-3e38), total = 0, of_target = 0;
    for (int u = 0; u < N; u++) {
        const real r = plain_score(h + (long long)lane * H, V + (long long)u * H, b[u], H);
        const real higher = fmax(so_far, r);
        total = total * exp(so_far - higher) + exp(r - higher);
        so_far = higher;
        if (u == y[lane]) of_target = r;
    }
    losses[lane] = log(total) - (of_target - so_far);
    maxima[lane] = so_far;
    inverses[lane] = 1 / total;
}

extern "C" __global__ void cut_plain_h(
    const real *h, const real *V, const real *b, const int *y, const real *maxima,
    const real *inverses, int n, int N, int H, real *dh
) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= n) return;
    real *mine = dh + (long long)lane * H;
    for (int k = 0; k < H; k++) mine[k] = 0;
    for (int u = 0; u < N; u++) {
        const real *row = V + (long long)u * H;
        const real r = plain_score(h + (long long)lane * H, row, b[u], H);
        const real g = exp(r - maxima[lane]) * inverses[lane] - (u == y[lane] ? 1 : 0);
        for (int k = 0; k < H; k++) mine[k] += g * row[k];
    }
}

extern "C" __global__ void cut_plain_rows(
    const real *h, const real *V, const real *b, const int *y, const real *maxima,
    const real *inverses, int n, int N, int H, real *dV, real *db
) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u >= N) return;
    real *mine = dV + (long long)u * H, sum = 0;
    for (int k = 0; k < H; k++) mine[k] = 0;
    for (int lane = 0; lane < n; lane++) {
        const real *row = h + (long long)lane * H;
        const real r = plain_score(row, V + (long long)u * H, b[u], H);
        const real g = exp(r - maxima[lane]) * inverses[lane] - (u == y[lane] ? 1 : 0);
        for (int k = 0; k < H; k++) mine[k] += g * row[k];
        sum += g;
    }
    db[u] = sum;
}

// === Version 2, tiled: CUT_SIDE x CUT_SIDE scores a block, in registers ==========================
// As version 4 of scores.cu: a thread has one column and 4 rows, both through shared memory. Rows
// are lanes and columns items, or the other way around for dV. Products are summed in the same
// order in all kernels, so a score that is computed again has the same bits, even at 1e4.
//
// - cut_loss: a block takes CUT_SIDE lanes and a part of the items. A thread keeps maximum and sum
//   of its 4 lanes over every 32nd item in registers; only at the end does a warp join its 32.
//   cut_join joins the parts in order.
// - cut_backward_h: takes CUT_COLUMNS items at a time: their gradients g = softmax - 1 at the
//   target go to shared memory, 4 rows a warp, then g V is added to the block's part of dh.
//   cut_join_h adds the parts in order.
// - cut_backward_rows: the same with a tile of items and all lanes. It needs no parts.
//
// Both backward kernels compute the scores, so there are 5 products of n N H multiply-adds where
// stored scores need 3. In return memory has V, h, their gradients, and the parts of dh. With H =
// 100 these are at most 3.4 MB however large N is (CUT_BLOCKS of 32 rows). The scores of 32 lanes
// and 37,483 items are 4.8 MB, and their gradient as much again. 0.40 M sectors requested, counted
// as above; scores.cu and loss.cu with stored scores request 0.78 M. 166 us, 1.9 times as fast as
// with stored scores. The limit is expected to be shared memory, two reads for four multiply-adds;
// this was not profiled.
//
// Block CUT_THREADS. Static shared memory in float: 8.8 KB, and 9.2 more of the backward kernels.

#define THREAD_ROWS (CUT_SIDE * CUT_SIDE / CUT_THREADS)  // rows of a thread, and of its warp
#define CUT_DEPTH 32                                     // numbers of a row at a time
#define LOAD_STRIDE (CUT_THREADS / CUT_DEPTH)            // between the rows that a thread loads
static_assert(CUT_SIDE == WARP, "a warp has a thread for each column of a tile");
static_assert(CUT_COLUMNS % CUT_SIDE == 0, "whole tiles");

// One number of each row of a thread: 16 bytes in float, read at once.
struct __align__(16) ThreadRows {
    real of[THREAD_ROWS];
};

// The gradient of the scores of a block's rows and CUT_COLUMNS columns. A warp reads only what it
// has written itself, and the barriers of `products` stand before it writes again. One more than is
// used, so that the numbers of a column are in different banks.
typedef ThreadRows Columns[CUT_COLUMNS][CUT_SIDE / THREAD_ROWS + 1];

// sum[i] = row first_row + 4 warp + i of A times row first_column + in_warp of B; past their
// ends 0.
__device__ inline void products(
    const real *A, int first_row, int n_rows, const real *B, int first_column, int n_columns, int H,
    real *sum
) {
    __shared__ ThreadRows A_tile[CUT_DEPTH][CUT_SIDE / THREAD_ROWS + 1];
    __shared__ real B_tile[CUT_DEPTH][CUT_SIDE + 1];
    const int warp = threadIdx.x / WARP, in_warp = threadIdx.x % WARP;
    const int depth = threadIdx.x % CUT_DEPTH, first = threadIdx.x / CUT_DEPTH;
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++) sum[i] = 0;
    for (int k0 = 0; k0 < H; k0 += CUT_DEPTH) {
        const int k = k0 + depth;
#pragma unroll
        for (int i = first; i < CUT_SIDE; i += LOAD_STRIDE) {
            const int row = first_row + i, column = first_column + i;
            A_tile[depth][i / THREAD_ROWS].of[i % THREAD_ROWS] =
                row < n_rows && k < H ? A[(long long)row * H + k] : real(0);
            B_tile[depth][i] = column < n_columns && k < H ? B[(long long)column * H + k] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < CUT_DEPTH; j++) {
            const ThreadRows a = A_tile[j][warp];
            const real v = B_tile[j][in_warp];
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; i++) sum[i] += a.of[i] * v;
        }
        __syncthreads();  // or a fast thread would overwrite a tile that is in use
    }
}

// Adds g times `count` rows of B to the block's rows of `out`, or writes it with `fresh`. A thread
// takes every 32nd number of 4 rows. A warp reads the rows of B coalesced; its lines are in L1
// after the first warp.
__device__ inline void add_product(
    const Columns g, const real *B, int count, int H, bool fresh, int first_row, int n_rows,
    real *out
) {
    const int warp = threadIdx.x / WARP;
    for (int k = threadIdx.x % WARP; k < H; k += WARP) {
        real sum[THREAD_ROWS] = {};
#pragma unroll 8
        for (int j = 0; j < count; j++) {
            const ThreadRows of_g = g[j][warp];
            const real v = B[(long long)j * H + k];
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; i++) sum[i] += of_g.of[i] * v;
        }
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; i++) {
            const int row = first_row + THREAD_ROWS * warp + i;
            if (row >= n_rows) continue;
            real *at = out + (long long)row * H + k;
            *at = fresh ? sum[i] : *at + sum[i];
        }
    }
}

// Gradient of the loss with respect to lane's score r + b of item u; 0 past their ends.
__device__ inline real gradient(
    real r, int u, int end, int lane, int n, const real *b, const int *y, const real *highest,
    const real *inverse
) {
    if (u >= end || lane >= n) return 0;
    return exp(r + b[u] - highest[lane]) * inverse[lane] - (u == y[lane] ? 1 : 0);
}

// Items of a part, whole tiles.
__device__ inline int items_of_part(int N) {
    const int tiles = (N + CUT_SIDE - 1) / CUT_SIDE;
    return (tiles + gridDim.x - 1) / gridDim.x * CUT_SIDE;
}

// Writes maxima, totals (parts, n), and of_targets (n,). Grid (parts, ceil(n / CUT_SIDE)).
extern "C" __global__ void cut_loss(
    const real *h, const real *V, const real *b, const int *y, int n, int N, int H, real *maxima,
    real *totals, real *of_targets
) {
    const int first_lane = blockIdx.y * CUT_SIDE, in_warp = threadIdx.x % WARP;
    const int lane0 = first_lane + THREAD_ROWS * (threadIdx.x / WARP);
    const int each = items_of_part(N), begin = blockIdx.x * each, end = min(begin + each, N);
    real so_far[THREAD_ROWS], total[THREAD_ROWS] = {};
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++) so_far[i] = real(-3e38);
    for (int u0 = begin; u0 < end; u0 += CUT_SIDE) {
        real r[THREAD_ROWS];
        products(h, first_lane, n, V, u0, end, H, r);
        const int u = u0 + in_warp;
        if (u >= end) continue;
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; i++) {
            r[i] += b[u];
            const real higher = fmax(so_far[i], r[i]);
            total[i] = total[i] * exp(so_far[i] - higher) + exp(r[i] - higher);
            so_far[i] = higher;
            if (lane0 + i < n && u == y[lane0 + i]) of_targets[lane0 + i] = r[i];
        }
    }
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++) {
        const real highest = warp_max(so_far[i]);
        const real sum = warp_sum(total[i] * exp(so_far[i] - highest));
        if (in_warp == 0 && lane0 + i < n) {
            maxima[blockIdx.x * n + lane0 + i] = highest;
            totals[blockIdx.x * n + lane0 + i] = sum;
        }
    }
}

// The loss of each lane, and what the backward kernels need: the maximum of its scores and
// 1 / Σ e^(r - maximum). Grid ceil(n / block).
extern "C" __global__ void cut_join(
    const real *maxima, const real *totals, const real *of_targets, int n, int parts, real *losses,
    real *highest, real *inverse
) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= n) return;
    real of_lane = real(-3e38), total = 0;
    for (int part = 0; part < parts; part++) of_lane = fmax(of_lane, maxima[part * n + lane]);
    for (int part = 0; part < parts; part++)
        total += totals[part * n + lane] * exp(maxima[part * n + lane] - of_lane);
    losses[lane] = log(total) - (of_targets[lane] - of_lane);
    highest[lane] = of_lane;
    inverse[lane] = 1 / total;
}

// Writes dh_parts (parts, n, H); no part may be empty. Grid (parts, ceil(n / CUT_SIDE)).
extern "C" __global__ void cut_backward_h(
    const real *h, const real *V, const real *b, const int *y, const real *highest,
    const real *inverse, int n, int N, int H, real *dh_parts
) {
    __shared__ Columns g;
    const int first_lane = blockIdx.y * CUT_SIDE, in_warp = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP, lane0 = first_lane + THREAD_ROWS * warp;
    const int each = items_of_part(N), begin = blockIdx.x * each, end = min(begin + each, N);
    for (int first = begin; first < end; first += CUT_COLUMNS) {
        const int count = min(CUT_COLUMNS, end - first);
        for (int u0 = 0; u0 < count; u0 += CUT_SIDE) {
            real r[THREAD_ROWS];
            products(h, first_lane, n, V, first + u0, end, H, r);
            const int u = first + u0 + in_warp;
            ThreadRows of_u;
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; i++)
                of_u.of[i] = gradient(r[i], u, end, lane0 + i, n, b, y, highest, inverse);
            g[u0 + in_warp][warp] = of_u;
        }
        __syncwarp();
        add_product(g, V + (long long)first * H, count, H, first == begin, first_lane, n,
                    dh_parts + (long long)blockIdx.x * n * H);
    }
}

// dh: the sum of the parts. Grid ceil(n H / block).
extern "C" __global__ void cut_join_h(const real *dh_parts, int size, int parts, real *dh) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size) return;
    real sum = 0;
    for (int part = 0; part < parts; part++) sum += dh_parts[(long long)part * size + at];
    dh[at] = sum;
}

// Writes dV and db. Grid ceil(N / CUT_SIDE).
extern "C" __global__ void cut_backward_rows(
    const real *h, const real *V, const real *b, const int *y, const real *highest,
    const real *inverse, int n, int N, int H, real *dV, real *db
) {
    __shared__ Columns g;
    const int first_u = blockIdx.x * CUT_SIDE, in_warp = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP, u0 = first_u + THREAD_ROWS * warp;
    real sum[THREAD_ROWS] = {};
    for (int first = 0; first < n; first += CUT_COLUMNS) {
        const int count = min(CUT_COLUMNS, n - first);
        for (int lane0 = 0; lane0 < count; lane0 += CUT_SIDE) {
            real r[THREAD_ROWS];
            products(V, first_u, N, h, first + lane0, n, H, r);
            const int lane = first + lane0 + in_warp;
            ThreadRows of_lane;
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; i++) {
                of_lane.of[i] = gradient(r[i], u0 + i, N, lane, n, b, y, highest, inverse);
                sum[i] += of_lane.of[i];
            }
            g[lane0 + in_warp][warp] = of_lane;
        }
        __syncwarp();
        add_product(g, h + (long long)first * H, count, H, first == 0, first_u, N, dV);
    }
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++) {
        const real total = warp_sum(sum[i]);
        if (in_warp == 0 && u0 + i < N) db[u0 + i] = total;
    }
}
