// The input's part in the gates, xW = x W_x, and its backward, as network.encode defines them:
// the item's row of W_x (1-of-N), or its row e of a table times W_x, dropout on what was looked up.
// The numbers in the comments are for n = 32 lanes and X = H = 100 in float: W_x is 120 KB.
#include "common.cuh"

#define TILE 4  // lanes of a block

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

// The way back: dropout once more. Grid n.
extern "C" __global__ void encode_onehot_backward(
    const int *now, const real *dxW, int H, real p, real *de
) {
    const int lane = blockIdx.x;
    if (lane >= now[LANES]) return;
    for (int k = threadIdx.x; k < 3 * H; k += blockDim.x) {
        const int at = lane * 3 * H + k;
        de[at] = dxW[at] * dropout(p, now[SEED], 2 * now[PLACE], at);
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
// The rows wait in shared memory, and a number of W_x, once read, serves TILE lanes. e (n, X) is
// written out for the gradient of W_x. Grid ceil(n / TILE), dynamic shared memory TILE * X.

extern "C" __global__ void encode(
    const int *now, const int *x, const real *table, const real *W_x, int X, int H, real p,
    real *e, real *xW
) {
    extern __shared__ real tile[];
    const int n = now[LANES], first = blockIdx.x * TILE;
    if (first >= n) return;
    for (int i = threadIdx.x; i < TILE * X; i += blockDim.x) {
        const int lane = first + i / X, k = i % X, at = lane * X + k;
        tile[i] = 0;
        if (lane < n) {
            tile[i] = table[(long long)x[lane] * X + k] *
                      dropout(p, now[SEED], 2 * now[PLACE], at);
            e[at] = tile[i];
        }
    }
    __syncthreads();
    for (int k = threadIdx.x; k < 3 * H; k += blockDim.x) {
        real sum[TILE] = {};
        for (int j = 0; j < X; j++) {
            const real weight = W_x[j * 3 * H + k];
#pragma unroll
            for (int i = 0; i < TILE; i++) sum[i] += tile[i * X + j] * weight;
        }
#pragma unroll
        for (int i = 0; i < TILE; i++)
            if (first + i < n) xW[(first + i) * 3 * H + k] = sum[i];
    }
}

// de = (dxW W_x^T) times the mask: a warp takes a row of W_x, reads it side by side, and it serves
// TILE lanes. Grid ceil(n / TILE), dynamic shared memory TILE * 3H.

extern "C" __global__ void encode_backward(
    const int *now, const real *dxW, const real *W_x, int X, int H, real p, real *de
) {
    extern __shared__ real tile[];
    const int n = now[LANES], first = blockIdx.x * TILE, width = 3 * H;
    const int warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP, mine = threadIdx.x % WARP;
    if (first >= n) return;
    for (int i = threadIdx.x; i < TILE * width; i += blockDim.x)
        tile[i] = first + i / width < n ? dxW[first * width + i] : real(0);
    __syncthreads();
    for (int k = warp; k < X; k += n_warps) {
        real sum[TILE] = {};
        for (int j = mine; j < width; j += WARP) {
            const real weight = W_x[k * width + j];
#pragma unroll
            for (int i = 0; i < TILE; i++) sum[i] += tile[i * width + j] * weight;
        }
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            const int lane = first + i, at = lane * X + k;
            const real total = warp_sum(sum[i]);
            if (mine == 0 && lane < n)
                de[at] = total * dropout(p, now[SEED], 2 * now[PLACE], at);
        }
    }
}
