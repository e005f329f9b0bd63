// The input's part of the gates, xW = x W_x, and its backward pass, as network.encode defines them.
// A 1-of-N input looks up the item's row of W_x. Other inputs look up its row e of a table and
// multiply it by W_x. Dropout applies to the row that was looked up.
//
// Figures in the comments: n = 32 lanes, X = H = 100, float (W_x is 120 KB), on an H200.
#include "tile.cuh"

// === 1-of-N: a gather ============================================================================
// Reads and writes one row of 3H numbers per lane, coalesced. Nothing to reuse. Grid n.

extern "C" __global__ void encode_onehot(
    const int *now, const int *x, const real *W_x, int H, real p, real *xW
) {
    const int lane = blockIdx.x;
    if (lane >= now[NOW_LANES]) return;
    for (int k = threadIdx.x; k < 3 * H; k += blockDim.x) {
        const int at = lane * 3 * H + k;
        xW[at] = W_x[(long long)x[lane] * 3 * H + k] *
                 dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE], at);
    }
}

// === A table, version 1, plain: one thread, one output ===========================================
// Each of a lane's 3H threads reads the item's whole row. Each lane reads all of W_x: 3.8 MB in
// all. No dropout. Grid (ceil(3H / 32), n), block 32.

extern "C" __global__ void encode_plain(
    const int *now, const int *x, const real *table, const real *W_x, int X, int H, real *xW
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[NOW_LANES] || k >= 3 * H) return;
    real sum = 0;
    for (int j = 0; j < X; j++) sum += table[(long long)x[lane] * X + j] * W_x[j * 3 * H + k];
    xW[lane * 3 * H + k] = sum;
}

// === A table, version 2: gather, dropout and product fused, TILE_LANES lanes a block =============
// The rows stay in shared memory, and each number of W_x that is read serves TILE_LANES lanes.
// TILE_PARTS threads share each sum; neighbouring blocks split the columns. 3.6 us; 8 blocks of 128
// threads, each with its own sums, took 20. e (n, X) is written for the gradient of W_x.
//
// Grid (ceil(n / TILE_LANES), ceil(3H / TILE_COLUMNS)), block (TILE_COLUMNS, TILE_PARTS), dynamic
// shared memory TILE_LANES * X.

extern "C" __global__ void __launch_bounds__(TILE_COLUMNS * TILE_PARTS) encode(
    const int *now, const int *x, const real *table, const real *W_x, int X, int H, real p,
    real *e, real *xW
) {
    extern __shared__ Lanes tile[];
    const int n = now[NOW_LANES], first = blockIdx.x * TILE_LANES;
    if (first >= n) return;
    const int thread = threadIdx.y * TILE_COLUMNS + threadIdx.x;
    for (int i = thread; i < TILE_LANES * X; i += TILE_COLUMNS * TILE_PARTS) {
        const int lane = first + i / X, k = i % X, at = lane * X + k;
        real value = 0;
        if (lane < n) {
            value = table[(long long)x[lane] * X + k] *
                    dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE], at);
            if (blockIdx.y == 0) e[at] = value;
        }
        tile[k].of[i / X] = value;
    }
    __syncthreads();
    const int column = blockIdx.y * TILE_COLUMNS + threadIdx.x, lane = first + threadIdx.y;
    const real sum = times_column(tile, X, W_x, 3 * H, column, 3 * H);
    if (threadIdx.y < TILE_LANES && lane < n && column < 3 * H) xW[lane * 3 * H + column] = sum;
}

// de = (dxW W_x^T) times the dropout mask. A warp reads a row of W_x, coalesced, for TILE_LANES
// lanes. With two rows per warp it takes 4.2 us; one block for all rows of its lanes took 24.
//
// Grid (ceil(n / TILE_LANES), any): blocks along y split the rows. Dynamic shared memory
// TILE_LANES * 3H.

extern "C" __global__ void encode_backward(
    const int *now, const real *dxW, const real *W_x, int X, int H, real p, real *de
) {
    extern __shared__ Lanes tile[];
    const int n = now[NOW_LANES], first = blockIdx.x * TILE_LANES, width = 3 * H;
    const int n_warps = blockDim.x / WARP, warp = blockIdx.y * n_warps + threadIdx.x / WARP;
    if (first >= n) return;
    load_tile(tile, dxW, first, n, width);
    __syncthreads();
    for (int k = warp; k < X; k += gridDim.y * n_warps) {
        real sums[TILE_LANES];
        times_row(tile, width, W_x + k * width, sums);
        const int in_warp = threadIdx.x % WARP, lane = first + in_warp, at = lane * X + k;
        if (in_warp < TILE_LANES && lane < n)
            de[at] = of_lane(sums, in_warp) * dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE], at);
    }
}

// === The skip: top = state + s e + s_m m, what scores items ======================================
// m sums the session's earlier embeddings, and m_new is the next step's m; without fade there is
// none. One thread, one number; neighbouring threads are units. Here X = H. Grid ceil(n H / block).

extern "C" __global__ void skip(
    const int *now, const real *state, const real *e, const real *m, const real *s,
    const real *s_m, int H, real fade, real *m_new, real *top
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= now[NOW_LANES] * H) return;
    real sum = state[i] + s[i % H] * e[i];
    if (fade > 0) {
        sum += s_m[i % H] * m[i];
        m_new[i] = fade * (m[i] + e[i]);
    }
    top[i] = sum;
}
