// The GRU step and its backward pass, as ops/cells.py defines them. xW (n, 3H) is encode.cu's.
//
//     r = s(xW_r + h U_r + b_r)    z = s(xW_z + h U_z + b_z)
//     n = act(xW_n + b_n + (r*h) U_n)        reset before the product (gru), or
//     n = act(xW_n + b_n + r*(h U_n + c_n))  after it (gru_reset_after)
//     h' = (1-z) h + z n
//
// Ladder: gru_plain_* -> gru_coalesced_* -> gru_tiled_* -> gru. Figures in the comments: B = 32
// lanes, H = 100 units, float (U is 120 KB, h 12.8 KB), on an H200.
#include "tile.cuh"

// === Version 1, plain: one thread, one output ====================================================
// Two launches, because the candidate needs r of all units. Neighbouring threads are lanes, so they
// read h[lane][j] 400 bytes apart: 32 sectors for 32 numbers. 16.1 us.
// Grid (H, ceil(n / 32)), block 32.

extern "C" __global__ void gru_plain_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    const int lane = blockIdx.y * blockDim.x + threadIdx.x, k = blockIdx.x;
    if (lane >= now[NOW_LANES]) return;
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
    if (lane >= now[NOW_LANES]) return;
    real a = xW[lane * 3 * H + 2 * H + k] + b[2 * H + k];
    for (int j = 0; j < H; j++)
        a += r[lane * H + j] * h[lane * H + j] * U[j * 3 * H + 2 * H + k];
    a = activate(a, act, act_a);
    n[lane * H + k] = a;
    h_new[lane * H + k] = (1 - z[lane * H + k]) * h[lane * H + k] + z[lane * H + k] * a;
}

// === Version 2, coalesced: neighbouring threads are units ========================================
// A warp reads 32 adjacent numbers of U, 4 sectors instead of 32, and one h[j] for all its threads.
// Each lane still reads all of U: 32 x 120 KB. 15.8 us, hardly faster. Sectors are not the
// bottleneck, since the cache serves them. Each thread's H dependent additions are, with a wait for
// memory before every few. Grid (ceil(H / 32), n).

extern "C" __global__ void gru_coalesced_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[NOW_LANES] || k >= H) return;
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
    if (lane >= now[NOW_LANES] || k >= H) return;
    real a = xW[lane * 3 * H + 2 * H + k] + b[2 * H + k];
    for (int j = 0; j < H; j++)
        a += r[lane * H + j] * h[lane * H + j] * U[j * 3 * H + 2 * H + k];
    a = activate(a, act, act_a);
    n[lane * H + k] = a;
    h_new[lane * H + k] = (1 - z[lane * H + k]) * h[lane * H + k] + z[lane * H + k] * a;
}

// === Version 3, tiled: a block takes TILE_LANES lanes ============================================
// The tile's states stay in shared memory, and each number of U that is read serves TILE_LANES
// lanes: a quarter of the traffic, but 41.8 us. Memory traffic was not the bottleneck: 128 warps
// became 16, each with the same H dependent additions. Still to save: those, the second launch, and
// the write and read of r. Grid ceil(n / TILE_LANES), dynamic shared memory TILE_LANES * H.

// sums[lane] = tile[.].of[lane] times column k of a matrix with `stride` numbers a row.
__device__ inline void whole_column(
    const Lanes *tile, int height, const real *matrix, int stride, int k, real *sums
) {
    for (int j = 0; j < height; j++) {
        const real weight = matrix[j * stride + k];
#pragma unroll
        for (int lane = 0; lane < TILE_LANES; lane++) sums[lane] += tile[j].of[lane] * weight;
    }
}

extern "C" __global__ void gru_tiled_gates(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H,
    real *r, real *z
) {
    extern __shared__ Lanes h_tile[];
    const int n = now[NOW_LANES], first = blockIdx.x * TILE_LANES;
    if (first >= n) return;
    load_tile(h_tile, h, first, n, H);
    __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a_r[TILE_LANES] = {}, a_z[TILE_LANES] = {};
        whole_column(h_tile, H, U, 3 * H, k, a_r);
        whole_column(h_tile, H, U, 3 * H, H + k, a_z);
        for (int i = 0; i < TILE_LANES && first + i < n; i++) {
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
    extern __shared__ Lanes rh_tile[];
    const int lanes = now[NOW_LANES], first = blockIdx.x * TILE_LANES;
    if (first >= lanes) return;
    for (int i = threadIdx.x; i < TILE_LANES * H; i += blockDim.x)
        rh_tile[i % H].of[i / H] =
            first + i / H < lanes ? r[first * H + i] * h[first * H + i] : real(0);
    __syncthreads();
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        real a[TILE_LANES] = {};
        whole_column(rh_tile, H, U, 3 * H, 2 * H + k, a);
        for (int i = 0; i < TILE_LANES && first + i < lanes; i++) {
            const int at = (first + i) * H + k;
            const real value =
                activate(a[i] + xW[(first + i) * 3 * H + 2 * H + k] + b[2 * H + k], act, act_a);
            n[at] = value;
            h_new[at] = (1 - z[at]) * h[at] + z[at] * value;
        }
    }
}

// === Version 4, fused and split: both halves in one launch, each sum in parts ====================
// A block has all units of its lanes, so the candidate needs no other block. A barrier replaces the
// second launch, and r*h stays in shared memory (it is also written, for the backward pass). Reset
// after the product and dropout of the new state are fused too.
//
// A block has 1,024 threads. TILE_PARTS of them share each sum (times_column), and each requests
// all its numbers of U before it uses the first. 7.5 us; with 128 threads, each walking down U
// alone, 19. The limit is latency: one wait for U per TILE_COLUMNS of the gates' 2H columns and of
// the candidate's H, three here.
//
// Arrays (n, H): in h; out r, z, n, h_new and `kept`, which the backward pass needs: r*h, or
// h U_n + c_n with reset after. Grid ceil(n / TILE_LANES), block (TILE_COLUMNS, TILE_PARTS), dynamic
// shared memory 2 * TILE_LANES * H.

template <bool RESET_AFTER>
__device__ inline void gru_step(
    const int *now, const real *xW, const real *h, const real *U, const real *b, const real *c,
    int H, int act, real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    extern __shared__ Lanes shared[];
    Lanes *h_tile = shared, *rh_tile = shared + H;
    const int lanes = now[NOW_LANES], first = blockIdx.x * TILE_LANES;
    if (first >= lanes) return;
    const int tile_lane = threadIdx.y, lane = first + tile_lane;
    const bool has_lane = tile_lane < TILE_LANES && lane < lanes;
    load_tile(h_tile, h, first, lanes, H);
    __syncthreads();
    for (int column0 = 0; column0 < 2 * H; column0 += TILE_COLUMNS) {
        const int column = column0 + threadIdx.x, k = column % H, at = lane * H + k;
        const bool is_r = column < H, mine = has_lane && column < 2 * H;
        // Read before the product, whose time hides the latency.
        const real x = mine ? xW[lane * 3 * H + column] + b[column] : real(0);
        const real more = RESET_AFTER && mine ? c[column] : real(0);
        const real gate = sigmoid(times_column(h_tile, H, U, 3 * H, column, 2 * H) + x + more);
        if (mine) (is_r ? r : z)[at] = gate;
        if (!RESET_AFTER && is_r && tile_lane < TILE_LANES) {
            const real rh = mine ? gate * h_tile[k].of[tile_lane] : real(0);
            rh_tile[k].of[tile_lane] = rh;
            if (mine) kept[at] = rh;
        }
    }
    __syncthreads();
    for (int k0 = 0; k0 < H; k0 += TILE_COLUMNS) {
        const int k = k0 + threadIdx.x, column = 2 * H + k, at = lane * H + k;
        const bool mine = has_lane && k < H;
        const real x = mine ? xW[lane * 3 * H + column] + b[column] : real(0);
        const real z_k = mine ? z[at] : real(0), r_k = RESET_AFTER && mine ? r[at] : real(0);
        real a = times_column(RESET_AFTER ? h_tile : rh_tile, H, U, 3 * H, column, 3 * H);
        if (!mine) continue;
        if (RESET_AFTER) {
            kept[at] = a += c[column];
            a *= r_k;
        }
        const real value = activate(a + x, act, act_a);
        n[at] = value;
        h_new[at] = ((1 - z_k) * h_tile[k].of[tile_lane] + z_k * value) *
                    dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE] + 1, at);
    }
}

extern "C" __global__ void __launch_bounds__(TILE_COLUMNS * TILE_PARTS) gru(
    const int *now, const real *xW, const real *h, const real *U, const real *b, int H, int act,
    real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    gru_step<false>(now, xW, h, U, b, nullptr, H, act, act_a, p, r, z, n, kept, h_new);
}

extern "C" __global__ void __launch_bounds__(TILE_COLUMNS * TILE_PARTS) gru_reset_after(
    const int *now, const real *xW, const real *h, const real *U, const real *b, const real *c,
    int H, int act, real act_a, real p, real *r, real *z, real *n, real *kept, real *h_new
) {
    gru_step<true>(now, xW, h, U, b, c, H, act, act_a, p, r, z, n, kept, h_new);
}

// === Backward, version 1: the formulas of cells.gru_backward, one thread, one output =============
// Three launches, because each product needs the gates' gradients of all units. Neighbouring
// threads are units k. In the products each reads its own row of U, 1,200 bytes apart: 32 sectors
// for 32 numbers. 12.6 us. Grid (ceil(H / 32), n).

extern "C" __global__ void gru_backward_plain_blend(
    const int *now, const real *dh_new, const real *h, const real *z, const real *n, int H,
    int act, real act_a, real *dxW
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[NOW_LANES] || k >= H) return;
    const int at = lane * H + k;
    dxW[lane * 3 * H + H + k] = dh_new[at] * (n[at] - h[at]) * z[at] * (1 - z[at]);
    dxW[lane * 3 * H + 2 * H + k] = dh_new[at] * z[at] * slope(n[at], act, act_a);
}

// Writes drh*r into dh, for the third launch.
extern "C" __global__ void gru_backward_plain_reset(
    const int *now, const real *h, const real *r, const real *U, int H, real *dxW, real *dh
) {
    const int lane = blockIdx.y, k = blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= now[NOW_LANES] || k >= H) return;
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
    if (lane >= now[NOW_LANES] || k >= H) return;
    real sum = dh[lane * H + k] + dh_new[lane * H + k] * (1 - z[lane * H + k]);
    for (int j = 0; j < 2 * H; j++) sum += dxW[lane * 3 * H + j] * U[k * 3 * H + j];
    dh[lane * H + k] = sum;
}

// === Backward, version 2, fused: a block takes TILE_LANES lanes, a warp one row of U =============
// A warp reads a row of U coalesced, 4 sectors, for TILE_LANES lanes, and adds up by shuffles.
// Gradients stay in shared memory, and barriers replace launches. It reads the partial sums of
// scores_backward_h (n_parts arrays of (B, H), part_size numbers apart) and adds them itself, which
// saves a launch.
//
// With bptt = 1 the previous state is a constant and dh is not needed (want_dh = 0). That saves two
// thirds of the products; with reset after, all of them. gru_backward takes 10.6 us with dh, 6.3
// without; in blocks of 4 warps instead of 32 it took 26. The limit: three or four rows of U per
// warp in turn, with 20 shuffles per row.
//
// dhU is the gradient of h U + c. It equals dxW, except for the candidate's part with reset after.
// Grid ceil(n / TILE_LANES), block up to MAX_THREADS, so that 32 rows of U are requested at once,
// dynamic shared memory 4 * TILE_LANES * H.

template <bool RESET_AFTER>
__device__ inline void gru_step_backward(
    const int *now, const real *dh_parts, int n_parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    extern __shared__ Lanes shared[];
    Lanes *dhU_tile = shared;       // (3H,): gradients of h U + c
    Lanes *drh_r = shared + 3 * H;  // (H,): what reaches h through r*h
    const int lanes = now[NOW_LANES], first = blockIdx.x * TILE_LANES;
    const int warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    if (first >= lanes) return;

    // h' = (1-z) h + z n, and with reset after also r*(h U_n + c_n): these need no product.
    for (int i = threadIdx.x; i < TILE_LANES * H; i += blockDim.x) {
        const int tile_lane = i / H, k = i % H, lane = first + tile_lane, at = lane * H + k;
        real da_r = 0, da_z = 0, dhU_n = 0;
        if (lane < lanes) {
            const real z_k = z[at], r_k = r[at], n_k = n[at];
            real dh_new = 0;
#pragma unroll 16
            for (int part = 0; part < n_parts; part++) dh_new += dh_parts[part * part_size + at];
            dh_new *= dropout(p, now[NOW_SEED], 2 * now[NOW_PLACE] + 1, at);
            da_z = dh_new * (n_k - h[at]) * z_k * (1 - z_k);
            const real da_n = dh_new * z_k * slope(n_k, act, act_a);
            dxW[lane * 3 * H + H + k] = da_z;
            dxW[lane * 3 * H + 2 * H + k] = da_n;
            dhU_n = RESET_AFTER ? da_n * r_k : da_n;
            if (RESET_AFTER) da_r = dxW[lane * 3 * H + k] = da_n * kept[at] * r_k * (1 - r_k);
            if (want_dh) dh[at] = dh_new * (1 - z_k);
        }
        dhU_tile[k].of[tile_lane] = da_r;  // without RESET_AFTER it is set below
        dhU_tile[H + k].of[tile_lane] = da_z;
        dhU_tile[2 * H + k].of[tile_lane] = dhU_n;
    }
    __syncthreads();

    if (!RESET_AFTER) {
        // n = act(... + (r*h) U_n)
        for (int k = warp; k < H; k += n_warps) {
            real sums[TILE_LANES];
            times_row(dhU_tile + 2 * H, H, U + k * 3 * H + 2 * H, sums);
            const int in_warp = threadIdx.x % WARP, lane = first + in_warp, at = lane * H + k;
            if (in_warp < TILE_LANES) {
                const real drh = of_lane(sums, in_warp), r_k = lane < lanes ? r[at] : real(0);
                const real da_r = lane < lanes ? drh * h[at] * r_k * (1 - r_k) : real(0);
                if (lane < lanes) dxW[lane * 3 * H + k] = da_r;
                dhU_tile[k].of[in_warp] = da_r;
                drh_r[k].of[in_warp] = drh * r_k;
            }
        }
        __syncthreads();
    }

    const int size = TILE_LANES * 3 * H;
    for (int i = threadIdx.x; i < size && first + i / (3 * H) < lanes; i += blockDim.x)
        dhU[first * 3 * H + i] = dhU_tile[i % (3 * H)].of[i / (3 * H)];
    if (!want_dh) return;
    for (int k = warp; k < H; k += n_warps) {
        real sums[TILE_LANES];
        times_row(dhU_tile, RESET_AFTER ? 3 * H : 2 * H, U + k * 3 * H, sums);
        const int in_warp = threadIdx.x % WARP, lane = first + in_warp;
        if (in_warp < TILE_LANES && lane < lanes)
            dh[lane * H + k] +=
                of_lane(sums, in_warp) + (RESET_AFTER ? real(0) : drh_r[k].of[in_warp]);
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS) gru_backward(
    const int *now, const real *dh_parts, int n_parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    gru_step_backward<false>(
        now, dh_parts, n_parts, part_size, h, r, z, n, kept, U, H, act, act_a, p, want_dh, dxW, dhU,
        dh
    );
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS) gru_reset_after_backward(
    const int *now, const real *dh_parts, int n_parts, int part_size, const real *h, const real *r,
    const real *z, const real *n, const real *kept, const real *U, int H, int act, real act_a,
    real p, int want_dh, real *dxW, real *dhU, real *dh
) {
    gru_step_backward<true>(
        now, dh_parts, n_parts, part_size, h, r, z, n, kept, U, H, act, act_a, p, want_dh, dxW, dhU,
        dh
    );
}
