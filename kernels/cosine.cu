// Scores that are cosines: r = cosine * top V_u / (|top| |V_u|), without biases, as
// network.compare_sampled defines them. The products come from scores.cu and their gradients go back
// through it; here are the lengths. A squared length is a sum plus TINY.
//
// Times in the comments: a step of the package's defaults (docs/performance-gpu.md), on an H200.
#include "common.cuh"

// 1 / |V_u| of each scored row: a warp a row. 2.4 us. Grid ceil(N / warps of a block).
extern "C" __global__ void row_inverses(
    const int *now, const int *rows, const real *V_y, int H, real *inverse
) {
    const int u = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, in_warp = threadIdx.x % WARP;
    if (u >= now[NOW_SCORED]) return;
    real square = 0;
    for (int k = in_warp; k < H; k += WARP) {
        const real v = V_y[(long long)rows[u] * H + k];
        square += v * v;
    }
    square = warp_sum(square);
    if (in_warp == 0) inverse[u] = 1 / sqrt(square + real(TINY));
}

// scaled = cosine * top / |top|, and 1 / |top| of each lane. 1.7 us. Grid n, block a multiple of
// WARP.
extern "C" __global__ void of_length(
    const int *now, const real *top, int H, real cosine, real *scaled, real *inverse
) {
    const int lane = blockIdx.x;
    if (lane >= now[NOW_LANES]) return;
    real square = 0;
    for (int k = threadIdx.x; k < H; k += blockDim.x)
        square += top[lane * H + k] * top[lane * H + k];
    square = block_sum(square);
    const real of_lane = 1 / sqrt(square + real(TINY));
    for (int k = threadIdx.x; k < H; k += blockDim.x)
        scaled[lane * H + k] = cosine * of_lane * top[lane * H + k];
    if (threadIdx.x == 0) inverse[lane] = of_lane;
}

// From products with V_u to scores, in place; r keeps them, because y will be activated. A thread
// takes an item, so neighbouring threads are adjacent. 1.5 us. Grid (ceil(N / block), n).
extern "C" __global__ void cosines(const int *now, const real *inverse, int stride, real *y, real *r) {
    const int u = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
    if (u >= now[NOW_SCORED] || lane >= now[NOW_LANES]) return;
    y[lane * stride + u] = r[lane * stride + u] = y[lane * stride + u] * inverse[u];
}

// From the gradient of the scores to that of the products, in place. along_rows (N,): times V_u it
// is the part of the gradient of V_u that would only change the length. A warp takes every
// COSINE_LANES-th lane, each of its threads an item; the warps' sums are added in order. 2.0 us; one
// thread for all lanes of an item took 11.1. Grid ceil(N / WARP), block (WARP, COSINE_LANES).
extern "C" __global__ void cosines_backward(
    const int *now, const real *inverse, const real *r, int stride, real *dy, real *along_rows
) {
    __shared__ real of_warp[COSINE_LANES][WARP];
    const int x = threadIdx.x, y = threadIdx.y, u = blockIdx.x * WARP + x, n = now[NOW_LANES];
    const bool mine = u < now[NOW_SCORED];
    const real of_row = mine ? inverse[u] : real(0);
    real sum = 0;
#pragma unroll 4
    for (int lane = y; lane < n && mine; lane += COSINE_LANES) {
        const int at = lane * stride + u;
        const real d = dy[at];
        sum += d * r[at];
        dy[at] = d * of_row;
    }
    of_warp[y][x] = sum;
    __syncthreads();
    if (y > 0 || !mine) return;
    for (int other = 1; other < COSINE_LANES; other++) sum += of_warp[other][x];
    along_rows[u] = sum * of_row * of_row;
}

// The gradient of top from that of `scaled`, the sum of n_parts parts; it replaces the first part.
// 2.9 us. Grid n, block a multiple of WARP.
extern "C" __global__ void of_length_backward(
    const int *now, const real *scaled, const real *inverse, int n_parts, int part_size, int H,
    real cosine, real *parts
) {
    const int lane = blockIdx.x;
    if (lane >= now[NOW_LANES]) return;
    real along = 0;
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        const int at = lane * H + k;
        real d = 0;
#pragma unroll 16
        for (int part = 0; part < n_parts; part++) d += parts[part * part_size + at];
        along += d * scaled[at];
        parts[at] = d;  // no other thread reads it
    }
    along = block_sum(along) / (cosine * cosine);
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        const int at = lane * H + k;
        parts[at] = cosine * inverse[lane] * (parts[at] - along * scaled[at]);
    }
}
