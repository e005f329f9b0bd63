// The recurrent step and its backward, as cells.py defines them. xW (n, 3H) holds x W already.
//
//     r = s(xW_r + h U_r + b_r)    z = s(xW_z + h U_z + b_z)
//     n = act(xW_n + b_n + (r*h) U_n)        reset before the product (gru), or
//     n = act(xW_n + b_n + r*(h U_n + c_n))  after it (gru_reset_after)
//     h' = (1-z) h + z n
//
// A ladder: gru_plain_* -> gru_coalesced_* -> gru_tiled_* -> gru. The numbers in its comments are
// for B = 32 lanes and H = 100 units in float: U is 120 KB, h 12.8 KB.
#include "common.cuh"

#define TILE 4  // lanes of a block

// === Version 1, plain: one thread, one output ====================================================
// Two launches, since the candidate needs r of all units. Threads side by side are lanes, so they
// read h[lane][j] with 400 bytes between them, 32 sectors for 32 numbers: that limits it.
// Grid (H, ceil(n / 32)), block 32.

extern "C" __global__ void gru_plain_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    const int lane = blockIdx.y * blockDim.x + threadIdx.x, k = blockIdx.x;
    if (lane >= now[LANES]) return;
    real a_r = xW[lane * 3 * H + k] + b[k], a_z = xW[lane * 3 * H + H + k] + b[H + k];
    for (int j = 0; j < H; j++) {
        a_r += h[lane * H + j] * U[j * 3 * H + k];
        a_z += h[lane * H + j] * U[j * 3 * H + H + k];
    }
    r[lane * H + k] = sigmoid(a_r);
    z[lane * H + k] = sigmoid(a_z);
}

extern "C" __global__ void gru_plain_candidate(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H, int act,
    real act_a, const real *r, const real *z, real *n, real *h_new
) {
    const int lane = blockIdx.y * blockDim.x + threadIdx.x, k = blockIdx.x;
    if (lane >= now[LANES]) return;
    real a = xW[lane * 3 * H + 2 * H + k] + b[2 * H + k];
    for (int j = 0; j < H; j++)
        a += r[lane * H + j] * h[lane * H + j] * U[j * 3 * H + 2 * H + k];
    a = activate(a, act, act_a);
    n[lane * H + k] = a;
    h_new[lane * H + k] = (1 - z[lane * H + k]) * h[lane * H + k] + z[lane * H + k] * a;
}

// === Version 2, coalesced: threads side by side are units ========================================
// Now a warp reads 32 numbers of U that lie side by side, 4 sectors instead of 32, and one h[j] for
// all. What limits it: each lane reads all of U again, 32 x 120 KB. Grid (ceil(H / 32), n).

extern "C" __global__ void gru_coalesced_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= H) return;
    real a_r = xW[lane * 3 * H + k] + b[k], a_z = xW[lane * 3 * H + H + k] + b[H + k];
    for (int j = 0; j < H; j++) {
        a_r += h[lane * H + j] * U[j * 3 * H + k];
        a_z += h[lane * H + j] * U[j * 3 * H + H + k];
    }
    r[lane * H + k] = sigmoid(a_r);
    z[lane * H + k] = sigmoid(a_z);
}

extern "C" __global__ void gru_coalesced_candidate(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H, int act,
    real act_a, const real *r, const real *z, real *n, real *h_new
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= H) return;
    real a = xW[lane * 3 * H + 2 * H + k] + b[2 * H + k];
    for (int j = 0; j < H; j++)
        a += r[lane * H + j] * h[lane * H + j] * U[j * 3 * H + 2 * H + k];
    a = activate(a, act, act_a);
    n[lane * H + k] = a;
    h_new[lane * H + k] = (1 - z[lane * H + k]) * h[lane * H + k] + z[lane * H + k] * a;
}

// === Version 3, tiled: a block takes TILE lanes ==================================================
// The tile's states wait in shared memory, and a number of U, once read, serves TILE lanes: a
// quarter of the traffic. What is left to save: the second launch, and r, which goes out to memory
// and comes back. Grid ceil(n / TILE), dynamic shared memory TILE * H.

// The rows of the block's lanes, zero past the last lane in use.
__device__ inline void load_tile(real *tile, const real *x, int first, int n, int width) {
    for (int i = threadIdx.x; i < TILE * width; i += blockDim.x)
        tile[i] = first + i / width < n ? x[first * width + i] : real(0);
}

// sums[lane] += tile[lane] times column k of a matrix with `stride` numbers a row.
__device__ inline void times_column(
    const real *tile, int height, const real *matrix, int stride, int k, real *sums
) {
    for (int j = 0; j < height; j++) {
        const real weight = matrix[j * stride + k];
#pragma unroll
        for (int lane = 0; lane < TILE; lane++) sums[lane] += tile[lane * height + j] * weight;
    }
}

extern "C" __global__ void gru_tiled_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    extern __shared__ real h_tile[];
    const int n = now[LANES], first = blockIdx.x * TILE;
    if (first >= n) return;
    load_tile(h_tile, h, first, n, H);
    __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a_r[TILE] = {}, a_z[TILE] = {};
        times_column(h_tile, H, U, 3 * H, k, a_r);
        times_column(h_tile, H, U, 3 * H, H + k, a_z);
        for (int i = 0; i < TILE && first + i < n; i++) {
            const real *x = xW + (first + i) * 3 * H;
            r[(first + i) * H + k] = sigmoid(a_r[i] + x[k] + b[k]);
            z[(first + i) * H + k] = sigmoid(a_z[i] + x[H + k] + b[H + k]);
        }
    }
}

extern "C" __global__ void gru_tiled_candidate(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H, int act,
    real act_a, const real *r, const real *z, real *n, real *h_new
) {
    extern __shared__ real rh_tile[];
    const int lanes = now[LANES], first = blockIdx.x * TILE;
    if (first >= lanes) return;
    for (int i = threadIdx.x; i < TILE * H; i += blockDim.x)
        rh_tile[i] = first + i / H < lanes ? r[first * H + i] * h[first * H + i] : real(0);
    __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a[TILE] = {};
        times_column(rh_tile, H, U, 3 * H, 2 * H + k, a);
        for (int i = 0; i < TILE && first + i < lanes; i++) {
            const int at = (first + i) * H + k;
            const real value =
                activate(a[i] + xW[(first + i) * 3 * H + 2 * H + k] + b[2 * H + k], act, act_a);
            n[at] = value;
            h_new[at] = (1 - z[at]) * h[at] + z[at] * value;
        }
    }
}

// === Version 4, fused: both halves in one launch =================================================
// A block holds its lanes whole, so the candidate needs nothing of other blocks: a barrier stands
// where the second launch was, and r*h never leaves shared memory but for the backward step. It
// also takes in the reset after the product, and dropout of the new state. What limits it: few
// blocks, n / TILE, each bound by the latency of reading U, about 20 us of chained loads at worst.
// Fewer lanes a block would spread it wider and read U more often.
//
// Arrays (n, H): in h; out r, z, n, h_new, and `kept` for the backward step, which is r*h, or
// h U_n + c_n with the reset after. Grid ceil(n / TILE), dynamic shared memory 2 * TILE * H.

template <bool RESET_AFTER>
__device__ inline void gru_step(
    const int *now, const real *xW, const real *h, const real *U, const real *b, const real *c,
    int H, int act, real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    extern __shared__ real shared[];
    real *h_tile = shared, *rh_tile = shared + TILE * H;
    const int lanes = now[LANES], first = blockIdx.x * TILE;
    if (first >= lanes) return;
    load_tile(h_tile, h, first, lanes, H);
    __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a_r[TILE] = {}, a_z[TILE] = {};
        times_column(h_tile, H, U, 3 * H, k, a_r);
        times_column(h_tile, H, U, 3 * H, H + k, a_z);
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            if (first + i >= lanes) {
                rh_tile[i * H + k] = 0;
                continue;
            }
            const real *x = xW + (first + i) * 3 * H;
            const int at = (first + i) * H + k;
            const real c_r = RESET_AFTER ? c[k] : 0, c_z = RESET_AFTER ? c[H + k] : 0;
            const real r_k = sigmoid(a_r[i] + x[k] + b[k] + c_r);
            r[at] = r_k;
            z[at] = sigmoid(a_z[i] + x[H + k] + b[H + k] + c_z);
            // The candidate's half below reads what this thread wrote here, but for this:
            if (!RESET_AFTER) kept[at] = rh_tile[i * H + k] = r_k * h_tile[i * H + k];
        }
    }
    if (!RESET_AFTER) __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a[TILE] = {};
        times_column(RESET_AFTER ? h_tile : rh_tile, H, U, 3 * H, 2 * H + k, a);
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            if (first + i >= lanes) continue;
            const int at = (first + i) * H + k;
            if (RESET_AFTER) {
                kept[at] = a[i] + c[2 * H + k];
                a[i] = r[at] * kept[at];
            }
            const real x = xW[(first + i) * 3 * H + 2 * H + k] + b[2 * H + k];
            const real value = activate(a[i] + x, act, act_a);
            n[at] = value;
            h_new[at] = ((1 - z[at]) * h_tile[i * H + k] + z[at] * value) *
                        dropout(p, now[SEED], 2 * now[PLACE] + 1, at);
        }
    }
}

extern "C" __global__ void gru(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H, int act,
    real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    gru_step<false>(now, xW, h, U, b, nullptr, H, act, act_a, p, r, z, n, kept, h_new);
}

extern "C" __global__ void gru_reset_after(
    const int *now, const real *xW, const real *h, const real *U, const real *b, const real *c,
    int H, int act, real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    gru_step<true>(now, xW, h, U, b, c, H, act, act_a, p, r, z, n, kept, h_new);
}

// === Backward, version 1: the formulas of cells.gru_backward, one thread, one output =============
// Three launches, for each product needs the gates' gradients of all units. Threads side by side
// are units k, and in the products each reads a row of U of its own, 1,200 bytes apart: 32 sectors
// for 32 numbers. Grid (ceil(H / 32), n).

extern "C" __global__ void gru_backward_plain_blend(
    const int *now, const real *dh_new, const real *h, const real *z, const real *n, int H,
    int act, real act_a, real *dxW
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= H) return;
    const int at = lane * H + k;
    dxW[lane * 3 * H + H + k] = dh_new[at] * (n[at] - h[at]) * z[at] * (1 - z[at]);
    dxW[lane * 3 * H + 2 * H + k] = dh_new[at] * z[at] * slope(n[at], act, act_a);
}

// dh holds drh*r on return, for the last of the three.
extern "C" __global__ void gru_backward_plain_reset(
    const int *now, const real *h, const real *r, const real *U, int H, real *dxW, real *dh
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= H) return;
    real drh = 0;
    for (int j = 0; j < H; j++)
        drh += dxW[lane * 3 * H + 2 * H + j] * U[k * 3 * H + 2 * H + j];
    const real r_k = r[lane * H + k];
    dxW[lane * 3 * H + k] = drh * h[lane * H + k] * r_k * (1 - r_k);
    dh[lane * H + k] = drh * r_k;
}

extern "C" __global__ void gru_backward_plain_state(
    const int *now, const real *dh_new, const real *z, const real *U, const real *dxW, int H,
    real *dh
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[LANES] || k >= H) return;
    real sum = dh[lane * H + k] + dh_new[lane * H + k] * (1 - z[lane * H + k]);
    for (int j = 0; j < 2 * H; j++) sum += dxW[lane * 3 * H + j] * U[k * 3 * H + j];
    dh[lane * H + k] = sum;
}

// === Backward, version 2, fused: a block takes TILE lanes, a warp one row of U ===================
// The 32 lanes of a warp read a row of U side by side, 4 sectors, and add up by shuffles; what was
// read serves TILE lanes; gradients wait in shared memory and barriers replace launches. It starts
// from the partial sums that scores_backward_h leaves (`parts` arrays of (B, H), `part_size`
// numbers apart), so that no launch is spent on adding them. With one step of time the state
// before is a constant: dh is then left out (want_dh = 0), a third of the work.
//
// dhU is the gradient of h U + c, and equals dxW but for the candidate's part with the reset after.
// Grid ceil(n / TILE), dynamic shared memory 4 * TILE * H.

// sums[lane] = row (of `width` numbers) times tile[lane], in every lane of the warp.
__device__ inline void times_row(
    const real *tile, int stride, int width, const real *row, real *sums
) {
#pragma unroll
    for (int i = 0; i < TILE; i++) sums[i] = 0;
    for (int j = threadIdx.x % WARP; j < width; j += WARP) {
        const real weight = row[j];
#pragma unroll
        for (int i = 0; i < TILE; i++) sums[i] += tile[i * stride + j] * weight;
    }
#pragma unroll
    for (int i = 0; i < TILE; i++) sums[i] = warp_sum(sums[i]);
}

template <bool RESET_AFTER>
__device__ inline void gru_step_backward(
    const int *now, const real *dh_parts, int parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    extern __shared__ real shared[];
    real *d_rzn = shared;                   // (TILE, 3H): gradients of h U + c
    real *drh_r = shared + TILE * 3 * H;    // (TILE, H): what reaches h through r*h
    const int lanes = now[LANES], first = blockIdx.x * TILE;
    const int warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    if (first >= lanes) return;

    // h' = (1-z) h + z n, and with the reset after, r*(h U_n + c_n) too: no product stands between.
    for (int i = threadIdx.x; i < TILE * H; i += blockDim.x) {
        const int tile_lane = i / H, k = i % H, lane = first + tile_lane, at = lane * H + k;
        real *d = d_rzn + tile_lane * 3 * H;
        if (lane >= lanes) {
            d[k] = d[H + k] = d[2 * H + k] = drh_r[i] = 0;
            continue;
        }
        real dh_new = 0;
        for (int part = 0; part < parts; part++) dh_new += dh_parts[part * part_size + at];
        dh_new *= dropout(p, now[SEED], 2 * now[PLACE] + 1, at);
        const real z_k = z[at], r_k = r[at];
        const real dz = dh_new * (n[at] - h[at]) * z_k * (1 - z_k);
        const real dn = dh_new * z_k * slope(n[at], act, act_a);
        d[H + k] = dxW[lane * 3 * H + H + k] = dz;
        dxW[lane * 3 * H + 2 * H + k] = dn;
        d[2 * H + k] = RESET_AFTER ? dn * r_k : dn;
        if (RESET_AFTER) d[k] = dxW[lane * 3 * H + k] = dn * kept[at] * r_k * (1 - r_k);
        if (want_dh) dh[at] = dh_new * (1 - z_k);
    }
    __syncthreads();

    if (!RESET_AFTER) {
        // n = act(... + (r*h) U_n)
        for (int k = warp; k < H; k += n_warps) {
            real drh[TILE];
            times_row(d_rzn + 2 * H, 3 * H, H, U + k * 3 * H + 2 * H, drh);
            const int i = threadIdx.x % WARP, lane = first + i, at = lane * H + k;
            if (i < TILE && lane < lanes) {
                real mine = 0;  // drh[i], by constant places: an array of registers has no address
#pragma unroll
                for (int j = 0; j < TILE; j++) mine = i == j ? drh[j] : mine;
                const real r_k = r[at];
                d_rzn[i * 3 * H + k] = dxW[lane * 3 * H + k] = mine * h[at] * r_k * (1 - r_k);
                drh_r[i * H + k] = mine * r_k;
            }
        }
        __syncthreads();
    }

    for (int i = threadIdx.x; i < TILE * 3 * H && first + i / (3 * H) < lanes; i += blockDim.x)
        dhU[first * 3 * H + i] = d_rzn[i];
    if (!want_dh) return;
    const int width = RESET_AFTER ? 3 * H : 2 * H;
    for (int k = warp; k < H; k += n_warps) {
        real sums[TILE];
        times_row(d_rzn, 3 * H, width, U + k * 3 * H, sums);
        const int i = threadIdx.x % WARP, lane = first + i;
        if (i < TILE && lane < lanes) {
            real mine = 0;
#pragma unroll
            for (int j = 0; j < TILE; j++) mine = i == j ? sums[j] : mine;
            dh[lane * H + k] += mine + (RESET_AFTER ? 0 : drh_r[i * H + k]);
        }
    }
}

extern "C" __global__ void gru_backward(
    const int *now, const real *dh_parts, int parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    gru_step_backward<false>(
        now, dh_parts, parts, part_size, h, r, z, n, kept, U, H, act, act_a, p, want_dh, dxW, dhU,
        dh
    );
}

extern "C" __global__ void gru_reset_after_backward(
    const int *now, const real *dh_parts, int parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    gru_step_backward<true>(
        now, dh_parts, parts, part_size, h, r, z, n, kept, U, H, act, act_a, p, want_dh, dxW, dhU,
        dh
    );
}
