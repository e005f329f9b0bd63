// Each loss of ops/losses.py fused with its gradient, over the distinct items of a step.
//
// An item that was drawn c times is one column with count c; loss and gradients are those of c
// equal columns (backends/numba/maths.py, lane_losses, does the same on a CPU). y (n, N) are the
// scores. A lane's target is column target[lane]: one of its copies is the target, the others are
// negatives.
//
// Figures in the comments: n = 32 lanes, N = 1,100 items, float (y 141 KB), on an H200.
#include "common.cuh"

// === Cross-entropy, version 1, plain: one thread, one lane =======================================
// Three passes over the lane's row. Only 32 threads, and neighbouring threads read rows N numbers
// apart: 199 us, with most of the GPU idle. Writes the lanes' losses and g (n, N), the gradient of
// their sum. Grid 1, block n.

extern "C" __global__ void cross_entropy_plain(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x, N = now[NOW_SCORED];
    if (lane >= now[NOW_LANES]) return;
    const real *row = y + lane * stride;
    real highest = row[0], total = 0;
    for (int u = 1; u < N; u++) highest = fmax(highest, row[u]);
    for (int u = 0; u < N; u++) total += exp(row[u] - highest);
    for (int u = 0; u < N; u++)
        g[lane * stride + u] = exp(row[u] - highest) / total - (u == target[lane] ? 1 : 0);
    losses[lane] = log(total) - (row[target[lane]] - highest);
}

// === Version 2: one block, one lane; sums by a tree in shared memory =============================
// Reads are coalesced. Each round of a reduction halves the working threads and ends with a
// barrier: 7 barriers for 128 threads, twice. 3.6 us. Grid n, block TREE_THREADS, a power of two.

extern "C" __global__ void cross_entropy_tree(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    __shared__ real part[TREE_THREADS];
    const int lane = blockIdx.x, N = now[NOW_SCORED], t = threadIdx.x;
    if (lane >= now[NOW_LANES]) return;
    const real *row = y + lane * stride;

    part[t] = row[0];
    for (int u = t; u < N; u += TREE_THREADS) part[t] = fmax(part[t], row[u]);
    __syncthreads();
    for (int half = TREE_THREADS / 2; half > 0; half /= 2) {
        if (t < half) part[t] = fmax(part[t], part[t + half]);
        __syncthreads();
    }
    const real highest = part[0];
    __syncthreads();

    part[t] = 0;
    for (int u = t; u < N; u += TREE_THREADS) part[t] += exp(row[u] - highest);
    __syncthreads();
    for (int half = TREE_THREADS / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    const real total = part[0];

    for (int u = t; u < N; u += TREE_THREADS)
        g[lane * stride + u] = exp(row[u] - highest) / total - (u == target[lane] ? 1 : 0);
    if (t == 0) losses[lane] = log(total) - (row[target[lane]] - highest);
}

// === Version 3: maximum and sum in one pass, reductions by shuffles ==============================
// A thread keeps the maximum so far and the sum relative to it, and rescales the sum when the
// maximum grows (Milakov & Gimelshein 2018, arXiv 1805.02867). That saves one pass over y. Shuffles
// exchange registers: 2 barriers a reduction instead of 8. 4.6 us, so it does not pay here: a row
// of 4.4 KB is in the cache, and reading it again costs less than a second exponential per number.
// Grid n.

extern "C" __global__ void cross_entropy_online(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    const int lane = blockIdx.x, N = now[NOW_SCORED];
    if (lane >= now[NOW_LANES]) return;
    const real *row = y + lane * stride;
    real so_far = row[0], total = 0;
    for (int u = threadIdx.x; u < N; u += blockDim.x) {
        const real higher = fmax(so_far, row[u]);
        total = total * exp(so_far - higher) + exp(row[u] - higher);
        so_far = higher;
    }
    const real highest = block_max(so_far);
    total = block_sum(total * exp(so_far - highest));
    const real log_total = log(total);
    for (int u = threadIdx.x; u < N; u += blockDim.x)
        g[lane * stride + u] = exp(row[u] - highest) / total - (u == target[lane] ? 1 : 0);
    if (threadIdx.x == 0) losses[lane] = log_total - (row[target[lane]] - highest);
}

// === Version 4, fused: all five losses, and everything between scores and gradient ===============
// The same passes also do the output activation and its backward pass, the counts of the items,
// logQ and label smoothing. Separate launches would each read and write y or g. Cross-entropy takes
// 5.2 us, an empty launch 1.4. Grid n, block a multiple of WARP.

// One lane's row of y and g.
struct Row {
    real *y, *g;           // (N,) scores, activated in place; gradients
    const real *count;     // (N,) columns of each item
    const real *weight;    // (N,) cross-entropy: each item's sum of e^-log_q, else the counts
    int N, t;              // t: the target's column
    bool corrects;         // cross-entropy: weigh the target's column, with all of its item, by 1

    // The copies of item u that are negatives.
    __device__ real negatives(int u) const { return count[u] - (u == t ? 1 : 0); }
};

// For each column u of this thread.
#define EACH(u, row) for (int u = threadIdx.x; u < row.N; u += blockDim.x)

// The highest score of the items that have a negative.
__device__ inline real highest_negative(const Row &row) {
    real so_far = real(-3e38);
    EACH(u, row) if (row.negatives(u) > 0) so_far = fmax(so_far, row.y[u]);
    return block_max(so_far);
}

// Each of the five writes g and returns the loss. `pull` is still to be subtracted from g at the
// target. Both are the same in every thread.

__device__ inline real cross_entropy(
    const Row &row, real smoothing, real own, real log_weights, real n, real *pull
) {
    real highest = real(-3e38);
    EACH(u, row) highest = fmax(highest, row.y[u]);
    highest = block_max(highest);
    real total = 0;
    EACH(u, row) {
        const real weight = row.corrects && u == row.t ? 1 : row.weight[u];
        total += row.g[u] = weight * exp(row.y[u] - highest);
    }
    total = block_sum(total);
    const real log_total = log(total), share = smoothing / fmax(real(1), n);
    real log_p = 0;
    EACH(u, row) {
        log_p += row.count[u] * (row.y[u] - highest - log_total);
        row.g[u] = row.g[u] / total - share * row.count[u];
    }
    *pull = 1 - smoothing - share;
    real loss = -*pull * (log(own) + row.y[row.t] - highest - log_total);
    if (smoothing > 0) loss -= share * (block_sum(log_p) + log_weights);
    return loss;
}

__device__ inline real bpr(const Row &row, real n, real *pull) {
    const real of_target = row.y[row.t];
    real loss = 0, sum = 0;
    EACH(u, row) {
        const real c = row.negatives(u) / n, d = row.y[u] - of_target;
        loss += c * softplus(d);
        sum += row.g[u] = c * sigmoid(d);
    }
    *pull = block_sum(sum);
    return block_sum(loss);
}

__device__ inline real top1(const Row &row, real n, real *pull) {
    const real of_target = row.y[row.t];
    real loss = 0, sum = 0;
    EACH(u, row) {
        const real c = row.negatives(u) / n, y = row.y[u];
        const real above = sigmoid(y - of_target), size = sigmoid(y * y);
        const real d_above = c * above * (1 - above);
        loss += c * (above + size);
        sum += d_above;
        row.g[u] = d_above + c * 2 * y * size * (1 - size);
    }
    *pull = block_sum(sum);
    return block_sum(loss);
}

__device__ inline real bpr_max(const Row &row, real bpreg, real *pull) {
    // log Σ s_j σ(r_i - r_j) as a logsumexp. y - softplus(y - y_t) grows with y, so the highest y
    // has the largest term.
    const real of_target = row.y[row.t], highest = highest_negative(row);
    const real lift = softplus(highest - of_target);
    real total = 0, chosen = 0, size = 0;
    EACH(u, row) {
        const real c = row.negatives(u), y = row.y[u];
        const real e = c > 0 ? c * exp(y - highest) : 0;
        total += e;
        size += e * y * y;
        chosen += c > 0 ? c * exp((y - highest) + (lift - softplus(y - of_target))) : 0;
    }
    total = block_sum(total);
    chosen = block_sum(chosen);
    size = block_sum(size) / total;
    real sum = 0;
    EACH(u, row) {
        const real c = row.negatives(u), y = row.y[u], above = sigmoid(y - of_target);
        const real s = c > 0 ? c * exp(y - highest) / total : 0;
        const real p =
            c > 0 ? c * exp((y - highest) + (lift - softplus(y - of_target))) / chosen : 0;
        sum += p * above;
        row.g[u] = s + bpreg * s * (2 * y + y * y - size) - p * (1 - above);
    }
    *pull = block_sum(sum);
    return log(total) + lift - log(chosen) + bpreg * size;
}

__device__ inline real top1_max(const Row &row, real *pull) {
    const real of_target = row.y[row.t], highest = highest_negative(row);
    real total = 0, loss = 0;
    EACH(u, row) {
        const real c = row.negatives(u), y = row.y[u];
        const real e = c > 0 ? c * exp(y - highest) : 0;
        total += row.g[u] = e;
        loss += e * (sigmoid(y - of_target) + sigmoid(y * y));
    }
    total = block_sum(total);
    loss = block_sum(loss) / total;
    real sum = 0;
    EACH(u, row) {
        const real s = row.g[u] / total, y = row.y[u];
        const real above = sigmoid(y - of_target), size = sigmoid(y * y);
        const real d_above = s * above * (1 - above);
        sum += d_above;
        row.g[u] = s * (above + size - loss + 2 * y * size * (1 - size)) + d_above;
    }
    *pull = block_sum(sum);
    return loss;
}

// own (n,): e^-log_q of each lane's target column, 1 without logQ. log_weights (1,): the sum of
// -log_q over all columns, for smoothing, 0 without logQ. `scale` multiplies g, not the losses.
extern "C" __global__ void loss(
    const int *now, real *y, const int *target, const real *count, const real *weight,
    const real *own, const real *log_weights, int stride, int kind, int act, real act_a,
    real bpreg, real smoothing, int corrects, real scale, real *g, real *losses
) {
    const int lane = blockIdx.x;
    if (lane >= now[NOW_LANES]) return;
    const Row row = {y + lane * stride, g + lane * stride, count, weight, now[NOW_SCORED],
                     target[lane], corrects != 0};
    real columns = 0;
    EACH(u, row) {
        row.y[u] = activate(row.y[u], act, act_a);
        columns += count[u];
    }
    const real n = block_sum(columns) - 1;  // its barriers also publish y
    real pull, result;
    switch (kind) {
        case LOSS_CROSS_ENTROPY:
            result = cross_entropy(row, smoothing, own[lane], log_weights[0], n, &pull);
            break;
        case LOSS_BPR: result = bpr(row, n, &pull); break;
        case LOSS_TOP1: result = top1(row, n, &pull); break;
        case LOSS_BPR_MAX: result = bpr_max(row, bpreg, &pull); break;
        default: result = top1_max(row, &pull);
    }
    EACH(u, row)
        row.g[u] = (row.g[u] - (u == row.t ? pull : 0)) * slope(row.y[u], act, act_a) * scale;
    if (threadIdx.x == 0) losses[lane] = result;
}
