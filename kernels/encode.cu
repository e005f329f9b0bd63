// The input's part in the gates, xW = x W_x, and its backward, as network.encode defines them:
// the item's row of W_x (1-of-N), or its row e of a table times W_x, dropout on what was looked up.
// The numbers in the comments are for n = 32 lanes and X = H = 100 in float: W_x is 120 KB.
#include "tile.cuh"

// === 1-of-N: a gather ============================================================================
// Nothing to reuse: a row of 3H numbers read and written, coalesced. Grid n.

extern "C" __global__ void encode_onehot(
    const int *now, const int *x, const real *W_x, int H, real p, real *xW
) {
    const int lane = blockIdx.x;
    if (lane >= now[LANES]) return;
    for (int k = threadIdx.x; k < 3 * H; k += blockDim.x) {
        const int at = lane * 3 * H + k;
        xW[at] = W_x[(long long)x[lane] * 3 * H + k] * dropout(p, now[SEED], 2 * now[PLACE], at);
    }
}

// === A table, version 1, plain: one thread, one output ===========================================
// Each of the 3H threads of a lane reads the item's row again, and each lane all of W_x: 3.8 MB.
// Grid (ceil(3H / 32), n), block 32. No dropout.

extern "C" __global__ void encode_plain(
    const int *now, const int *x, const real *table, const real *W_x, int X, int H, real *xW
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= 3 * H) return;
    real sum = 0;
    for (int j = 0; j < X; j++) sum += table[(long long)x[lane] * X + j] * W_x[j * 3 * H + k];
    xW[lane * 3 * H + k] = sum;
}

// === A table, version 2: gather, dropout and product fused, TILE lanes a block ===================
// The rows wait in shared memory, and a number of W_x, once read, serves TILE lanes; eight threads
// share each sum, and blocks side by side the columns: 3.6 us on an H200, where 8 blocks of 128
// threads, each with sums of its own, took 20. e (n, X) is written out for the gradient of W_x.
// Grid (ceil(n / TILE), ceil(3H / COLUMNS)), block (COLUMNS, PARTS), dynamic shared memory TILE *
// X.

extern "C" __global__ void __launch_bounds__(COLUMNS * PARTS) encode(
    const int *now, const int *x, const real *table, const real *W_x, int X, int H, real p,
    real *e, real *xW
) {
    extern __shared__ Lanes tile[];
    const int n = now[LANES], first = blockIdx.x * TILE;
    if (first >= n) return;
    const int thread = threadIdx.y * COLUMNS + threadIdx.x;
    for (int i = thread; i < TILE * X; i += COLUMNS * PARTS) {
        const int lane = first + i / X, k = i % X, at = lane * X + k;
        real value = 0;
        if (lane < n) {
            value = table[(long long)x[lane] * X + k] * dropout(p, now[SEED], 2 * now[PLACE], at);
            if (blockIdx.y == 0) e[at] = value;
        }
        tile[k].of[i / X] = value;
    }
    __syncthreads();
    const int column = blockIdx.y * COLUMNS + threadIdx.x, lane = first + threadIdx.y;
    const real sum = times_column(tile, X, W_x, 3 * H, column, 3 * H);
    if (threadIdx.y < TILE && lane < n && column < 3 * H) xW[lane * 3 * H + column] = sum;
}

// de = (dxW W_x^T) times the mask: a warp takes a row of W_x, reads it side by side, and it serves
// TILE lanes. Grid (ceil(n / TILE), any): blocks side by side share the rows. With two rows a warp
// 4.2 us; one block for all rows of its lanes took 24. Dynamic shared memory TILE * 3H.

extern "C" __global__ void encode_backward(
    const int *now, const real *dxW, const real *W_x, int X, int H, real p, real *de
) {
    extern __shared__ Lanes tile[];
    const int n = now[LANES], first = blockIdx.x * TILE, width = 3 * H;
    const int n_warps = blockDim.x / WARP, warp = blockIdx.y * n_warps + threadIdx.x / WARP;
    if (first >= n) return;
    load_tile(tile, dxW, first, n, width);
    __syncthreads();
    for (int k = warp; k < X; k += gridDim.y * n_warps) {
        real sums[TILE];
        times_row(tile, width, W_x + k * width, sums);
        const int i = threadIdx.x % WARP, lane = first + i, at = lane * X + k;
        if (i < TILE && lane < n)
            de[at] = of_lane(sums, i) * dropout(p, now[SEED], 2 * now[PLACE], at);
    }
}
