// The rank of each case's target over the whole catalogue, as counts: how many items score below
// the target, and how many score the same (itself included). ranking.from_counts makes the rank. A
// NaN counts as neither.
//
// h (n, H), V_y (I, H), b_y (I,), targets (n,). Figures in the comments: n = 2,048 cases, I =
// 37,483 items, H = 100 units, float (V_y 15 MB), on an H200. The scores would be 307 MB; the rank
// kernels never write them.
#include "common.cuh"

// Every score is this sum, in this order, with this rounding. The target's score must be
// bit-identical wherever it is computed, or an item could fail to tie with itself.
__device__ inline real add_product(real sum, real a, real b) { return fma(a, b, sum); }

// The score of an item in a case.
__device__ inline real score(
    const real *h, const real *V_y, const real *b_y, int c, int item, int H
) {
    real sum = 0;
    for (int k = 0; k < H; k++)
        sum = add_product(sum, h[(long long)c * H + k], V_y[(long long)item * H + k]);
    return sum + b_y[item];
}

// === The scores themselves =======================================================================
// For serving: bit-identical to the scores that all versions below compare. One thread computes one
// score and, as in version 2, reads its own row of V_y. Grid (ceil(I / block), n).

extern "C" __global__ void catalogue_scores(
    const real *h, const real *V_y, const real *b_y, int I, int H, real *scores
) {
    const int c = blockIdx.y, item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= I) return;
    scores[(long long)c * I + item] = score(h, V_y, b_y, c, item, H);
}

// === Version 1, plain: one thread, one case ======================================================
// Each thread scores the whole catalogue. The threads of a warp read the same number of V_y, 4
// bytes of a 32-byte sector, and their cases' h 400 bytes apart. 2,048 threads are a fraction of
// what a GPU holds. 92 ms. Grid ceil(n / block).

extern "C" __global__ void rank_plain(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int I, int H,
    int *below, int *level
) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n) return;
    const real of_target = score(h, V_y, b_y, c, targets[c], H);
    int less = 0, same = 0;
    for (int item = 0; item < I; item++) {
        const real of_item = score(h, V_y, b_y, c, item, H);
        less += of_item < of_target;
        same += of_item == of_target;
    }
    below[c] = less;
    level[c] = same;
}

// === Version 2, spread: one thread, one case and one part of the catalogue =======================
// Neighbouring threads are items, gridDim.x * WARP of them for each case. Shuffles and one atomic
// add up the warp's counts (integers, so the order has no effect). There are enough threads now.
// But they read rows of V_y 400 bytes apart, 32 sectors for 32 numbers, and every case reads all of
// V_y. 14.2 ms. below and level must be 0 at the start. Grid (any, n), block WARP.

extern "C" __global__ void rank_spread(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int I, int H,
    int *below, int *level
) {
    const int c = blockIdx.y;
    const real of_target = score(h, V_y, b_y, c, targets[c], H);
    int less = 0, same = 0;
    for (int item = blockIdx.x * WARP + threadIdx.x; item < I; item += gridDim.x * WARP) {
        const real of_item = score(h, V_y, b_y, c, item, H);
        less += of_item < of_target;
        same += of_item == of_target;
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        less += __shfl_xor_sync(FULL_WARP, less, distance);
        same += __shfl_xor_sync(FULL_WARP, same, distance);
    }
    if (threadIdx.x == 0) {
        atomicAdd(&below[c], less);
        atomicAdd(&level[c], same);
    }
}

// === Version 3, tiled and fused: the product in tiles, compared in registers =====================
// As in scores.cu, with coalesced reads into shared memory, but 4 x 4 scores a thread, because
// there are enough blocks here. V_y is read once for RANK_SIDE cases. A score stays in a register
// until it is compared. 1.26 ms: 12 of the 67 TFLOP/s of an H200's data sheet. target_scores is
// launched first, so that no block computes the targets' scores again. below and level must be 0 at
// the start.
// Grid (any, ceil(n / RANK_SIDE)): blocks along x split the catalogue. Block RANK_THREADS.

#define RANK_PER_THREAD 4                          // cases of a thread, and items
#define RANK_STRIDE (RANK_SIDE / RANK_PER_THREAD)  // between the cases of a thread, and its items
#define RANK_DEPTH 16                              // numbers of a row at a time
static_assert(RANK_STRIDE * RANK_STRIDE == RANK_THREADS, "a thread for each RANK_PER_THREAD^2");

extern "C" __global__ void target_scores(
    const real *h, const real *V_y, const real *b_y, const int *targets, int n, int H, real *scores
) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < n) scores[c] = score(h, V_y, b_y, c, targets[c], H);
}

extern "C" __global__ void rank(
    const real *h, const real *V_y, const real *b_y, const real *of_targets, int n, int I, int H,
    int *below, int *level
) {
    __shared__ real h_tile[RANK_DEPTH][RANK_SIDE + 1], V_tile[RANK_DEPTH][RANK_SIDE + 1];
    const int first_case = blockIdx.y * RANK_SIDE;
    const int ty = threadIdx.x / RANK_STRIDE, tx = threadIdx.x % RANK_STRIDE;
    real of_target[RANK_PER_THREAD];
    int less[RANK_PER_THREAD] = {}, same[RANK_PER_THREAD] = {};
#pragma unroll
    for (int i = 0; i < RANK_PER_THREAD; i++) {
        const int c = first_case + ty + RANK_STRIDE * i;
        of_target[i] = c < n ? of_targets[c] : real(0);
    }
    for (int item0 = blockIdx.x * RANK_SIDE; item0 < I; item0 += gridDim.x * RANK_SIDE) {
        real sum[RANK_PER_THREAD][RANK_PER_THREAD] = {};
        for (int k0 = 0; k0 < H; k0 += RANK_DEPTH) {
            for (int i = threadIdx.x; i < RANK_SIDE * RANK_DEPTH; i += blockDim.x) {
                const int row = i / RANK_DEPTH, j = i % RANK_DEPTH, k = k0 + j;
                const int c = first_case + row, item = item0 + row;
                h_tile[j][row] = c < n && k < H ? h[(long long)c * H + k] : real(0);
                V_tile[j][row] = item < I && k < H ? V_y[(long long)item * H + k] : real(0);
            }
            __syncthreads();
            for (int j = 0; j < RANK_DEPTH && k0 + j < H; j++) {
                real a[RANK_PER_THREAD], b[RANK_PER_THREAD];
#pragma unroll
                for (int i = 0; i < RANK_PER_THREAD; i++) {
                    a[i] = h_tile[j][ty + RANK_STRIDE * i];
                    b[i] = V_tile[j][tx + RANK_STRIDE * i];
                }
#pragma unroll
                for (int i = 0; i < RANK_PER_THREAD; i++)
#pragma unroll
                    for (int l = 0; l < RANK_PER_THREAD; l++)
                        sum[i][l] = add_product(sum[i][l], a[i], b[l]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < RANK_PER_THREAD; i++)
#pragma unroll
            for (int l = 0; l < RANK_PER_THREAD; l++) {
                const int item = item0 + tx + RANK_STRIDE * l;
                const real of_item = item < I ? sum[i][l] + b_y[item] : real(0);
                less[i] += item < I && of_item < of_target[i];
                same[i] += item < I && of_item == of_target[i];
            }
    }
    // The RANK_STRIDE threads of a case are neighbours in a warp.
#pragma unroll
    for (int i = 0; i < RANK_PER_THREAD; i++) {
        for (int distance = RANK_STRIDE / 2; distance > 0; distance /= 2) {
            less[i] += __shfl_xor_sync(FULL_WARP, less[i], distance);
            same[i] += __shfl_xor_sync(FULL_WARP, same[i], distance);
        }
        const int c = first_case + ty + RANK_STRIDE * i;
        if (tx == 0 && c < n) {
            atomicAdd(&below[c], less[i]);
            atomicAdd(&level[c], same[i]);
        }
    }
}
