// Scores of a step's items, y = h V^T + b with V = V_y[rows], and the backward products
// dh = dy V and dV = dy^T h, as ops/scoring.py defines them. Rows are gathered where they are used,
// so V is never written. (update.cu has a version that does not write dV either.)
//
// h (n, H), V_y (I, H), b_y (I,), rows (N,); y (n, N) with y_stride numbers per row.
//
// Figures in the comments: n = 32 lanes, N = 1,100 distinct items, H = 100 units, float (V 440 KB,
// h 12.8 KB, y 141 KB; 3.5 M multiply-adds), on an H200.
#include "common.cuh"

// === Version 1, plain: one thread, one score =====================================================
// Neighbouring threads are items, so a warp reads 32 numbers from 32 rows of V_y: 32 sectors of 32
// bytes for 128 bytes. That is 8 times too much, unless the sectors are still in the cache at the
// next k. They are: 9.3 us. Grid (ceil(N / 32), n), block 32.

extern "C" __global__ void scores_plain(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
    if (u >= now[NOW_SCORED] || lane >= now[NOW_LANES]) return;
    const real *row = V_y + (long long)rows[u] * H;
    real sum = b_y[rows[u]];
    for (int k = 0; k < H; k++) sum += h[lane * H + k] * row[k];
    y[lane * y_stride + u] = sum;
}

// === Version 2, coalesced: one warp, one score ===================================================
// A warp reads a row coalesced, 4 sectors at a time, and adds up by 5 shuffles. 12.7 us: the
// shuffles cost more than the saved sectors, most of which the cache served. The limits: each of
// the n lanes reads every row, 14 MB in all, and a score costs 5 shuffles for 3 multiply-adds per
// thread. Grid (ceil(N / warps of a block), n).

extern "C" __global__ void scores_coalesced(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    const int in_warp = threadIdx.x % WARP, lane = blockIdx.y;
    const int u = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (u >= now[NOW_SCORED] || lane >= now[NOW_LANES]) return;
    const real *row = V_y + (long long)rows[u] * H;
    real sum = 0;
    for (int k = in_warp; k < H; k += WARP) sum += h[lane * H + k] * row[k];
    sum = warp_sum(sum);
    if (in_warp == 0) y[lane * y_stride + u] = sum + b_y[rows[u]];
}

// === Version 3, tiled: TILED_SIDE x TILED_SIDE scores a block, through shared memory =============
// A tile of h and a tile of V, 16 numbers deep, are read once, coalesced. Each number serves 16
// scores: V is read n / 16 = 2 times, h N / 16 times. The odd width of the tiles spreads their
// columns over the banks. 4.4 us. The limit: two reads of shared memory per multiply-add.
// Grid (ceil(N / TILED_SIDE), ceil(n / TILED_SIDE)), block (TILED_SIDE, TILED_SIDE).

extern "C" __global__ void scores_tiled(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    __shared__ real h_tile[TILED_SIDE][TILED_SIDE + 1], V_tile[TILED_SIDE][TILED_SIDE + 1];
    const int n = now[NOW_LANES], N = now[NOW_SCORED];
    const int first_lane = blockIdx.y * TILED_SIDE, first_u = blockIdx.x * TILED_SIDE;
    if (first_lane >= n || first_u >= N) return;
    const int lane = first_lane + threadIdx.y, u = first_u + threadIdx.x;
    const int u_to_load = first_u + threadIdx.y;  // neighbouring threads load a row
    const real *row = V_y + (long long)(u_to_load < N ? rows[u_to_load] : 0) * H;
    real sum = 0;
    for (int k0 = 0; k0 < H; k0 += TILED_SIDE) {
        const int k = k0 + threadIdx.x;
        h_tile[threadIdx.y][threadIdx.x] = lane < n && k < H ? h[lane * H + k] : real(0);
        V_tile[threadIdx.y][threadIdx.x] = u_to_load < N && k < H ? row[k] : real(0);
        __syncthreads();
        for (int j = 0; j < TILED_SIDE; j++) sum += h_tile[threadIdx.y][j] * V_tile[threadIdx.x][j];
        __syncthreads();  // or a fast thread would overwrite a tile that is in use
    }
    if (lane < n && u < N) y[lane * y_stride + u] = sum + b_y[rows[u]];
}

// === Version 4, sums in registers: SCORES_SIDE x SCORES_SIDE scores a block, 4 a thread ==========
// A thread has one item and THREAD_LANES lanes, whose numbers it reads at once: two reads of shared
// memory for four multiply-adds, the first the same for the whole warp. V is read once for 32
// lanes, SCORES_DEPTH numbers of a row at a time. A deeper tile means fewer waits for memory: 16
// deep, with 64 threads of 16 scores each, it took 21 us; now 4.3. The limit is still latency, of
// rows[] and then of the rows, in 35 blocks where the GPU could run hundreds. With 80 lanes of 224
// units it takes 10.7 us.
// Grid (ceil(N / SCORES_SIDE), ceil(n / SCORES_SIDE)), block SCORES_THREADS.

#define THREAD_LANES (SCORES_SIDE * SCORES_SIDE / SCORES_THREADS)  // lanes of a thread
#define SCORES_DEPTH 64                                // numbers of a row at a time
#define LOAD_STRIDE (SCORES_THREADS / SCORES_DEPTH)    // between the rows that a thread loads
#define LOADS (SCORES_SIDE / LOAD_STRIDE)              // rows that a thread loads

// One number of each lane of a thread: 16 bytes in float, read at once.
struct __align__(16) ThreadLanes {
    real of[THREAD_LANES];
};

extern "C" __global__ void scores(
    const int *now, const real *h, const real *V_y, const real *b_y, const int *rows, int H,
    int y_stride, real *y
) {
    // One column more than is used, so that a column's numbers are in different banks.
    __shared__ ThreadLanes h_tile[SCORES_DEPTH][SCORES_SIDE / THREAD_LANES + 1];
    __shared__ real V_tile[SCORES_DEPTH][SCORES_SIDE + 1];
    const int n = now[NOW_LANES], N = now[NOW_SCORED];
    const int first_lane = blockIdx.y * SCORES_SIDE, first_u = blockIdx.x * SCORES_SIDE;
    if (first_lane >= n || first_u >= N) return;
    const int warp = threadIdx.x / WARP, in_warp = threadIdx.x % WARP;
    // This thread loads one column of every LOAD_STRIDE-th row.
    const int j_to_load = threadIdx.x % SCORES_DEPTH, first_row = threadIdx.x / SCORES_DEPTH;
    int items[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        const int u = first_u + first_row + LOAD_STRIDE * i;
        items[i] = u < N ? rows[u] : -1;
    }
    real sum[THREAD_LANES] = {};
    for (int k0 = 0; k0 < H; k0 += SCORES_DEPTH) {
        const int k = k0 + j_to_load;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int row = first_row + LOAD_STRIDE * i, lane = first_lane + row;
            const bool inside = items[i] >= 0 && k < H;
            V_tile[j_to_load][row] = inside ? V_y[(long long)items[i] * H + k] : real(0);
            h_tile[j_to_load][row / THREAD_LANES].of[row % THREAD_LANES] =
                lane < n && k < H ? h[lane * H + k] : real(0);
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < SCORES_DEPTH; j++) {
            const ThreadLanes of_h = h_tile[j][warp];
            const real v = V_tile[j][in_warp];
#pragma unroll
            for (int i = 0; i < THREAD_LANES; i++) sum[i] += of_h.of[i] * v;
        }
        __syncthreads();
    }
    const int u = first_u + in_warp;
    const real b = u < N ? b_y[rows[u]] : real(0);
#pragma unroll
    for (int i = 0; i < THREAD_LANES; i++) {
        const int lane = first_lane + THREAD_LANES * warp + i;
        if (lane < n && u < N) y[lane * y_stride + u] = sum[i] + b;
    }
}

// === dh = dy V, version 1, plain: one thread, one sum over all items =============================
// Coalesced already. But n * H = 3,200 threads are too few for a GPU, and each has a chain of 1,100
// additions: 63.8 us. Grid (ceil(H / 32), n), block 32.

extern "C" __global__ void scores_backward_h_plain(
    const int *now, const real *dy, const real *V_y, const int *rows, int H, int y_stride, real *dh
) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
    if (k >= H || lane >= now[NOW_LANES]) return;
    real sum = 0;
    for (int u = 0; u < now[NOW_SCORED]; u++)
        sum += dy[lane * y_stride + u] * V_y[(long long)rows[u] * H + k];
    dh[lane * H + k] = sum;
}

// === dh, version 2, split and tiled: the items in gridDim.z parts ================================
// The sum over items is cut into gridDim.z parts, one block each: that many times more threads,
// with shorter chains. V goes through shared memory and serves SCORES_SIDE lanes. Atomics would add
// in another order each time. Instead each part is written, and gru_backward adds them in order, so
// results are bit-identical from run to run. 4.2 us. Writes dh_parts (gridDim.z, part_size).
// Grid (ceil(H / SCORES_SIDE), ceil(n / SCORES_SIDE), parts), block (SCORES_SIDE, LANE_STRIDE).

#define LANE_STRIDE (SCORES_SIDE / THREAD_LANES)  // between the lanes of a thread

extern "C" __global__ void scores_backward_h(
    const int *now, const real *dy, const real *V_y, const int *rows, int H, int y_stride,
    int part_size, real *dh_parts
) {
    __shared__ real dy_tile[SCORES_SIDE][SCORES_SIDE + 1], V_tile[SCORES_SIDE][SCORES_SIDE];
    const int n = now[NOW_LANES], N = now[NOW_SCORED];
    const int first_lane = blockIdx.y * SCORES_SIDE, k = blockIdx.x * SCORES_SIDE + threadIdx.x;
    if (first_lane >= n) return;
    const int each = (N + gridDim.z - 1) / gridDim.z;
    const int begin = blockIdx.z * each, end = min(begin + each, N);
    real sum[THREAD_LANES] = {};
    for (int u0 = begin; u0 < end; u0 += SCORES_SIDE) {
        for (int i = threadIdx.y; i < SCORES_SIDE; i += blockDim.y) {
            const int lane = first_lane + i, u = u0 + threadIdx.x;
            dy_tile[i][threadIdx.x] = lane < n && u < end ? dy[lane * y_stride + u] : real(0);
            const bool inside = u0 + i < end && k < H;
            V_tile[i][threadIdx.x] = inside ? V_y[(long long)rows[u0 + i] * H + k] : real(0);
        }
        __syncthreads();
        for (int j = 0; j < SCORES_SIDE; j++) {
            const real v = V_tile[j][threadIdx.x];
#pragma unroll
            for (int i = 0; i < THREAD_LANES; i++)
                sum[i] += dy_tile[threadIdx.y + LANE_STRIDE * i][j] * v;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < THREAD_LANES; i++) {
        const int lane = first_lane + threadIdx.y + LANE_STRIDE * i;
        if (lane < n && k < H) dh_parts[blockIdx.z * part_size + lane * H + k] = sum[i];
    }
}

// === dV = dy^T h and db ==========================================================================
// A block is an item, its threads the units. h is read coalesced, and dy[.][u] is one address for
// all threads. A sum has n = 32 terms: nothing to split. It writes 440 KB that the optimiser reads
// again; update_scored in update.cu saves both. Grid N.

extern "C" __global__ void scores_backward_rows(
    const int *now, const real *dy, const real *h, int H, int y_stride, real *dV, real *db
) {
    const int u = blockIdx.x, n = now[NOW_LANES];
    if (u >= now[NOW_SCORED]) return;
    for (int k = threadIdx.x; k <= H; k += blockDim.x) {  // k = H is the bias, whose input is 1
        real sum = 0;
        for (int lane = 0; lane < n; lane++)
            sum += dy[lane * y_stride + u] * (k < H ? h[lane * H + k] : real(1));
        if (k < H) dV[u * H + k] = sum;
        else db[u] = sum;
    }
}
