// The rank of each case's target over the whole catalogue, counted: how many items score below the
// target and how many the same (itself included), from which cuda.py makes the rank of ranking.py.
// A score that is not a number is neither.
//
// h (n, H), V_y (I, H), b_y (I,), targets (n,). The numbers in the comments are for n = 2,048
// cases, I = 37,483 items, H = 100 units in float: V_y 15 MB; the scores themselves would be 307 MB
// and are never written when ranks are counted.
#include "common.cuh"

// A score is always this sum in this order, with these roundings: the target's must be the very
// number that other scores are compared with, or an item could tie with itself and lose.
__device__ inline real add_product(real sum, real a, real b) { return fma(a, b, sum); }

// === The scores themselves =======================================================================
// For a session that is served: to the bit those that all versions below compare. One thread makes
// one score; like version 2 it reads a row of V_y alone, which a single case cannot share anyway.
// Grid (ceil(I / block), n).

extern "C" __global__ void catalogue_scores(
    const real *h, const real *V_y, const real *b_y, int I, int H, real *scores
) {
    const int c = blockIdx.y, item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= I) return;
    real sum = 0;
    for (int k = 0; k < H; k++)
        sum = add_product(sum, h[(long long)c * H + k], V_y[(long long)item * H + k]);
    scores[(long long)c * I + item] = sum + b_y[item];
}

// === Version 1, plain: one thread, one case ======================================================
// Each thread walks through the catalogue alone. All threads of a warp read the same number of V_y
// at a time, 4 bytes of a sector of 32, and their cases' h 400 bytes apart; 2,048 threads are a
// fraction of what a GPU holds. 92 ms on an H200. Grid ceil(n / block).

extern "C" __global__ void rank_plain(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int I, int H,
    int *below, int *level
) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n) return;
    real of_target = 0;
    for (int k = 0; k < H; k++)
        of_target = add_product(of_target, h[(long long)c * H + k],
                                V_y[(long long)targets[c] * H + k]);
    of_target += b_y[targets[c]];
    int less = 0, same = 0;
    for (int item = 0; item < I; item++) {
        real score = 0;
        for (int k = 0; k < H; k++)
            score = add_product(score, h[(long long)c * H + k], V_y[(long long)item * H + k]);
        score += b_y[item];
        less += score < of_target;
        same += score == of_target;
    }
    below[c] = less;
    level[c] = same;
}

// === Version 2, spread: one thread, one case and one part of the catalogue =======================
// Threads side by side are items now, gridDim.x * 32 of them for each case, and the warp's counts
// meet in a shuffle and one atomic (of integers: their order cannot show). Enough threads; but they
// read rows of V_y 400 bytes apart, 32 sectors for 32 numbers, and every case reads all of V_y.
// 14.2 ms.
// below and level start at 0. Grid (parts, n), block 32.

extern "C" __global__ void rank_spread(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int I, int H,
    int *below, int *level
) {
    const int c = blockIdx.y;
    real of_target = 0;
    for (int k = 0; k < H; k++)
        of_target = add_product(of_target, h[(long long)c * H + k],
                                V_y[(long long)targets[c] * H + k]);
    of_target += b_y[targets[c]];
    int less = 0, same = 0;
    for (int item = blockIdx.x * WARP + threadIdx.x; item < I; item += gridDim.x * WARP) {
        real score = 0;
        for (int k = 0; k < H; k++)
            score = add_product(score, h[(long long)c * H + k], V_y[(long long)item * H + k]);
        score += b_y[item];
        less += score < of_target;
        same += score == of_target;
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        less += __shfl_xor_sync(ALL_LANES, less, distance);
        same += __shfl_xor_sync(ALL_LANES, same, distance);
    }
    if (threadIdx.x == 0) {
        atomicAdd(&below[c], less);
        atomicAdd(&level[c], same);
    }
}

// === Version 3, tiled and fused: the product in tiles, compared in registers =====================
// As in scores.cu, with coalesced reads into shared memory, but 4 x 4 scores a thread: there are
// blocks enough here. V_y is read once for 32 cases. A score lives in a register until it is
// compared, and is gone. 1.26 ms: 12 of the 67 TFLOP/s that an H200's data sheet has. The targets'
// scores come first, by a launch of their own, so that no block makes them again. Grid (any, ceil(n
// / 32)): blocks side by side share the catalogue. Block 64.

#define BLOCK 32
#define PER_THREAD 4
#define DEPTH 16

extern "C" __global__ void target_scores(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int H, real *scores
) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n) return;
    real sum = 0;
    for (int k = 0; k < H; k++)
        sum = add_product(sum, h[(long long)c * H + k], V_y[(long long)targets[c] * H + k]);
    scores[c] = sum + b_y[targets[c]];
}

extern "C" __global__ void rank(
    const real *h, const real *V_y, const real *b_y, const real *of_targets, int n, int I, int H,
    int *below, int *level
) {
    __shared__ real h_tile[DEPTH][BLOCK + 1], V_tile[DEPTH][BLOCK + 1];
    const int first_case = blockIdx.y * BLOCK, ty = threadIdx.x / 8, tx = threadIdx.x % 8;
    real of_target[PER_THREAD];
    int less[PER_THREAD] = {}, same[PER_THREAD] = {};
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        const int c = first_case + ty + 8 * i;
        of_target[i] = c < n ? of_targets[c] : real(0);
    }
    for (int item0 = blockIdx.x * BLOCK; item0 < I; item0 += gridDim.x * BLOCK) {
        real sum[PER_THREAD][PER_THREAD] = {};
        for (int k0 = 0; k0 < H; k0 += DEPTH) {
            for (int i = threadIdx.x; i < BLOCK * DEPTH; i += blockDim.x) {
                const int row = i / DEPTH, j = i % DEPTH, k = k0 + j;
                const int c = first_case + row, item = item0 + row;
                h_tile[j][row] = c < n && k < H ? h[(long long)c * H + k] : real(0);
                V_tile[j][row] = item < I && k < H ? V_y[(long long)item * H + k] : real(0);
            }
            __syncthreads();
            for (int j = 0; j < DEPTH && k0 + j < H; j++) {
                real a[PER_THREAD], b[PER_THREAD];
#pragma unroll
                for (int i = 0; i < PER_THREAD; i++) {
                    a[i] = h_tile[j][ty + 8 * i];
                    b[i] = V_tile[j][tx + 8 * i];
                }
#pragma unroll
                for (int i = 0; i < PER_THREAD; i++)
#pragma unroll
                    for (int l = 0; l < PER_THREAD; l++)
                        sum[i][l] = add_product(sum[i][l], a[i], b[l]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++)
#pragma unroll
            for (int l = 0; l < PER_THREAD; l++) {
                const int item = item0 + tx + 8 * l;
                const real score = item < I ? sum[i][l] + b_y[item] : real(0);
                less[i] += item < I && score < of_target[i];
                same[i] += item < I && score == of_target[i];
            }
    }
    // The 8 threads of a case are side by side in a warp.
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        for (int distance = 4; distance > 0; distance /= 2) {
            less[i] += __shfl_xor_sync(ALL_LANES, less[i], distance);
            same[i] += __shfl_xor_sync(ALL_LANES, same[i], distance);
        }
        const int c = first_case + ty + 8 * i;
        if (tx == 0 && c < n) {
            atomicAdd(&below[c], less[i]);
            atomicAdd(&level[c], same[i]);
        }
    }
}
