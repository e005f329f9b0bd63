// Scores of a step's items, y = h V^T + b with V = V_y[rows], and the backward products
// dh = dy V and dV = dy^T h, as scoring.py defines them. The rows are gathered where they are used:
// V is never written out. (update.cu has the version that does not write dV out either.)
//
// h (n, H), V_y (I, H), b_y (I,), rows (U,); y (n, U) with y_stride numbers a row.
// The numbers in the comments are for n = 32 lanes, U = 1,100 distinct items, H = 100 units in
// float: V 440 KB, h 12.8 KB, y 141 KB; 3.5 M multiply-adds. Times are those of an H200.
#include "common.cuh"

// === Version 1, plain: one thread, one score =====================================================
// Threads side by side are items, so the 32 numbers that a warp reads at once lie in 32 rows of
// V_y: 32 sectors of 32 bytes for 128 bytes, and only the cache, if the row is still there at the
// next k, saves it from reading 8 times too much. It is: 9.3 us. Grid (ceil(U / 32), n), block 32.

extern "C" __global__ void scores_plain(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
    if (u >= now[SCORED] || lane >= now[LANES]) return;
    const real *row = V_y + (long long)rows[u] * H;
    real sum = b_y[rows[u]];
    for (int k = 0; k < H; k++) sum += h[lane * H + k] * row[k];
    y[lane * y_stride + u] = sum;
}

// === Version 2, coalesced: one warp, one score ===================================================
// The lanes of a warp read a row side by side, 4 sectors at a time, and add up by 5 shuffles. What
// limits it: every row is read by all n lanes again, 14 MB in all, and a score costs 5 shuffles
// for 3 multiply-adds a thread. 12.7 us: the shuffles cost more than the sectors that are saved, of
// which the cache had most. Grid (ceil(U / warps of a block), n).

extern "C" __global__ void scores_coalesced(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    const int thread = threadIdx.x % WARP, lane = blockIdx.y;
    const int u = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (u >= now[SCORED] || lane >= now[LANES]) return;
    const real *row = V_y + (long long)rows[u] * H;
    real sum = 0;
    for (int k = thread; k < H; k += WARP) sum += h[lane * H + k] * row[k];
    sum = warp_sum(sum);
    if (thread == 0) y[lane * y_stride + u] = sum + b_y[rows[u]];
}

// === Version 3, tiled: 16 x 16 scores a block, through shared memory =============================
// A tile of h and one of V, 16 numbers deep, are read once, coalesced, and serve 16 scores each:
// V is read n / 16 = 2 times, h U / 16 times. The odd width of the tiles spreads their columns over
// the banks. 4.4 us. What limits it: two reads of shared memory for each multiply-add.
// Grid (ceil(U / 16), ceil(n / 16)), block (16, 16).

#define SIDE 16

extern "C" __global__ void scores_tiled(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    __shared__ real h_tile[SIDE][SIDE + 1], V_tile[SIDE][SIDE + 1];
    const int n = now[LANES], U = now[SCORED];
    const int first_lane = blockIdx.y * SIDE, first_u = blockIdx.x * SIDE;
    if (first_lane >= n || first_u >= U) return;
    const int lane = first_lane + threadIdx.y, u = first_u + threadIdx.x;
    const int u_to_load = first_u + threadIdx.y;  // threads side by side load a row
    const real *row = V_y + (long long)(u_to_load < U ? rows[u_to_load] : 0) * H;
    real sum = 0;
    for (int k0 = 0; k0 < H; k0 += SIDE) {
        const int k = k0 + threadIdx.x;
        h_tile[threadIdx.y][threadIdx.x] = lane < n && k < H ? h[lane * H + k] : real(0);
        V_tile[threadIdx.y][threadIdx.x] = u_to_load < U && k < H ? row[k] : real(0);
        __syncthreads();
        for (int j = 0; j < SIDE; j++) sum += h_tile[threadIdx.y][j] * V_tile[threadIdx.x][j];
        __syncthreads();  // or a fast thread would load the next tile over one that is in use
    }
    if (lane < n && u < U) y[lane * y_stride + u] = sum + b_y[rows[u]];
}

// === Version 4, sums in registers: 32 x 32 scores a block, 4 a thread ============================
// A thread has an item and four lanes, whose numbers it reads at once: two reads of shared memory
// for four multiply-adds, the first the same for the whole warp. V is read once for 32 lanes, in
// pieces of DEPTH numbers of a row: the fewer pieces, the less often a block waits for memory. 16
// deep, with 64 threads of 16 scores each, it took 21 us; now 4.3. What limits it: waiting still,
// for rows[] and then for the rows, in 35 blocks where the GPU could run hundreds. With 80 lanes of
// 224 units it is 10.7 us. Grid (ceil(U / 32), ceil(n / 32)), block 256.

#define BLOCK 32      // scores of a block, each way
#define PER_THREAD 4  // and of a thread: its lanes
#define DEPTH 64      // numbers of a row at a time
#define APART (256 / DEPTH)    // rows between those that a thread brings
#define LOADS (BLOCK / APART)  // and how many these are

struct __align__(16) Lanes {
    real of[PER_THREAD];
};

extern "C" __global__ void scores(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    // A place more than is used, or columns of both would lie in one bank.
    __shared__ Lanes h_tile[DEPTH][BLOCK / PER_THREAD + 1];
    __shared__ real V_tile[DEPTH][BLOCK + 1];
    const int n = now[LANES], U = now[SCORED];
    const int first_lane = blockIdx.y * BLOCK, first_u = blockIdx.x * BLOCK;
    if (first_lane >= n || first_u >= U) return;
    const int warp = threadIdx.x / WARP, thread = threadIdx.x % WARP;
    // What it brings: a place of each fourth row.
    const int j_to_load = threadIdx.x % DEPTH, first_row = threadIdx.x / DEPTH;
    int items[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int u = first_u + first_row + APART * i;
        items[i] = u < U ? rows[u] : -1;
    }
    real sum[PER_THREAD] = {};
    for (int k0 = 0; k0 < H; k0 += DEPTH) {
        const int k = k0 + j_to_load;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int row = first_row + APART * i, lane = first_lane + row;
            const bool inside = items[i] >= 0 && k < H;
            V_tile[j_to_load][row] = inside ? V_y[(long long)items[i] * H + k] : real(0);
            h_tile[j_to_load][row / PER_THREAD].of[row % PER_THREAD] =
                lane < n && k < H ? h[lane * H + k] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < DEPTH; j++) {
            const Lanes of_h = h_tile[j][warp];
            const real v = V_tile[j][thread];
#pragma unroll
            for (int i = 0; i < PER_THREAD; i++) sum[i] += of_h.of[i] * v;
        }
        __syncthreads();
    }
    const int u = first_u + thread;
    const real b = u < U ? b_y[rows[u]] : real(0);
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        const int lane = first_lane + PER_THREAD * warp + i;
        if (lane < n && u < U) y[lane * y_stride + u] = sum[i] + b;
    }
}

// === dh = dy V, version 1, plain: one thread, one sum over all items =============================
// Coalesced as it stands, but n * H = 3,200 threads are too few for a GPU, each with a chain of
// 1,100 additions: 63.8 us. Grid (ceil(H / 32), n), block 32.

extern "C" __global__ void scores_backward_h_plain(
    const int *now, const real *dy, const real *V_y, const int *rows, int H, int y_stride, real *dh
) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
    if (k >= H || lane >= now[LANES]) return;
    real sum = 0;
    for (int u = 0; u < now[SCORED]; u++)
        sum += dy[lane * y_stride + u] * V_y[(long long)rows[u] * H + k];
    dh[lane * H + k] = sum;
}

// === dh, version 2, split and tiled: the items in gridDim.z parts ================================
// The sum over items is cut into parts, each a block's: gridDim.z times as many threads, chains as
// much shorter. Within a block V goes through shared memory and serves 32 lanes. Adding by atomics
// would be one line, but in another order each time; instead each part is written out and whoever
// reads dh (gru_backward) adds them in order: the same bits every time. 4.2 us.
// Writes dh_parts (gridDim.z, part_size). Grid (ceil(H / 32), ceil(n / 32), parts), block (32, 8).

extern "C" __global__ void scores_backward_h(
    const int *now, const real *dy, const real *V_y, const int *rows, int H, int y_stride,
    int part_size, real *dh_parts
) {
    __shared__ real dy_tile[BLOCK][BLOCK + 1], V_tile[BLOCK][BLOCK];
    const int n = now[LANES], U = now[SCORED];
    const int first_lane = blockIdx.y * BLOCK, k = blockIdx.x * BLOCK + threadIdx.x;
    if (first_lane >= n) return;
    const int each = (U + gridDim.z - 1) / gridDim.z;
    const int begin = blockIdx.z * each, end = min(begin + each, U);
    real sum[PER_THREAD] = {};
    for (int u0 = begin; u0 < end; u0 += BLOCK) {
        for (int i = threadIdx.y; i < BLOCK; i += blockDim.y) {
            const int lane = first_lane + i, u = u0 + threadIdx.x;
            dy_tile[i][threadIdx.x] = lane < n && u < end ? dy[lane * y_stride + u] : real(0);
            const bool inside = u0 + i < end && k < H;
            V_tile[i][threadIdx.x] = inside ? V_y[(long long)rows[u0 + i] * H + k] : real(0);
        }
        __syncthreads();
        for (int j = 0; j < BLOCK; j++) {
            const real v = V_tile[j][threadIdx.x];
#pragma unroll
            for (int i = 0; i < PER_THREAD; i++) sum[i] += dy_tile[threadIdx.y + 8 * i][j] * v;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        const int lane = first_lane + threadIdx.y + 8 * i;
        if (lane < n && k < H) dh_parts[blockIdx.z * part_size + lane * H + k] = sum[i];
    }
}

// === dV = dy^T h and db ==========================================================================
// One block an item, its threads the units: h is read coalesced, and the items' gradients dy[.][u]
// are the same address for all. n = 32 terms a sum: nothing to split. It writes 440 KB that the
// optimiser reads again, which update_scored in update.cu saves. Grid U.

extern "C" __global__ void scores_backward_rows(
    const int *now, const real *dy, const real *h, int H, int y_stride, real *dV, real *db
) {
    const int u = blockIdx.x, n = now[LANES];
    if (u >= now[SCORED]) return;
    for (int k = threadIdx.x; k <= H; k += blockDim.x) {  // place H is the bias, whose input is 1
        real sum = 0;
        for (int lane = 0; lane < n; lane++)
            sum += dy[lane * y_stride + u] * (k < H ? h[lane * H + k] : real(1));
        if (k < H) dV[u * H + k] = sum;
        else db[u] = sum;
    }
}
