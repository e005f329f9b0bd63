// Each loss of losses.py fused with its gradient, over the distinct items of a step.
//
// An item drawn c times is one column that counts c times: the loss and the gradients are those of
// the c equal columns (kernels/numba_math.py, lane_loss, is the same on one core). y (n, U) are the
// scores; a lane's target is its column target[lane], of whose copies one is the target and the
// others negatives. The numbers in the comments are for n = 32 lanes and U = 1,100 items in float:
// y 141 KB. Times are those of an H200.
#include "common.cuh"

// === Cross-entropy, version 1, plain: one thread, one lane =======================================
// Three passes over the lane's row. 32 threads in all, and threads side by side read rows
// U numbers apart: a GPU at a standstill, for 199 us. Grid 1, block n.
// Writes the lanes' losses and g (n, U), the gradient of their sum.

extern "C" __global__ void cross_entropy_plain(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    const int lane = blockIdx.x * blockDim.x + threadIdx.x, U = now[SCORED];
    if (lane >= now[LANES]) return;
    const real *row = y + lane * stride;
    real top = row[0], total = 0;
    for (int u = 1; u < U; u++) top = fmax(top, row[u]);
    for (int u = 0; u < U; u++) total += exp(row[u] - top);
    for (int u = 0; u < U; u++)
        g[lane * stride + u] = exp(row[u] - top) / total - (u == target[lane] ? 1 : 0);
    losses[lane] = log(total) - (row[target[lane]] - top);
}

// === Version 2: one block, one lane; sums by a tree in shared memory =============================
// Threads side by side read numbers side by side. Each reduction halves the threads that work, with
// a barrier for each halving: 7 of them for 128 threads, twice. 3.6 us. Grid n, a power of two of
// threads.

#define TREE 128

extern "C" __global__ void cross_entropy_tree(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    __shared__ real part[TREE];
    const int lane = blockIdx.x, U = now[SCORED], t = threadIdx.x;
    if (lane >= now[LANES]) return;
    const real *row = y + lane * stride;

    part[t] = row[0];
    for (int u = t; u < U; u += TREE) part[t] = fmax(part[t], row[u]);
    __syncthreads();
    for (int half = TREE / 2; half > 0; half /= 2) {
        if (t < half) part[t] = fmax(part[t], part[t + half]);
        __syncthreads();
    }
    const real top = part[0];
    __syncthreads();

    part[t] = 0;
    for (int u = t; u < U; u += TREE) part[t] += exp(row[u] - top);
    __syncthreads();
    for (int half = TREE / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    const real total = part[0];

    for (int u = t; u < U; u += TREE)
        g[lane * stride + u] = exp(row[u] - top) / total - (u == target[lane] ? 1 : 0);
    if (t == 0) losses[lane] = log(total) - (row[target[lane]] - top);
}

// === Version 3: maximum and sum in one pass, reductions by shuffles ==============================
// A thread keeps the maximum that it has seen and the sum relative to it, and scales the sum when
// the maximum grows (Milakov & Gimelshein 2018, arXiv 1805.02867): one pass over y less. Shuffles
// exchange registers: 2 barriers a reduction instead of 8. 4.6 us, so it does not pay here: a row
// of 4.4 KB waits in the cache, and to read it once more costs less than two exponentials for one.
// What is left: the pass that reads y and writes g, which must be. Grid n.

extern "C" __global__ void cross_entropy_online(
    const int *now, const real *y, const int *target, int stride, real *g, real *losses
) {
    const int lane = blockIdx.x, U = now[SCORED];
    if (lane >= now[LANES]) return;
    const real *row = y + lane * stride;
    real top = row[0], total = 0;
    for (int u = threadIdx.x; u < U; u += blockDim.x) {
        const real higher = fmax(top, row[u]);
        total = total * exp(top - higher) + exp(row[u] - higher);
        top = higher;
    }
    const real highest = block_max(top);
    total = block_sum(total * exp(top - highest));
    const real log_total = log(total);
    for (int u = threadIdx.x; u < U; u += blockDim.x)
        g[lane * stride + u] = exp(row[u] - highest) / total - (u == target[lane] ? 1 : 0);
    if (threadIdx.x == 0) losses[lane] = log_total - (row[target[lane]] - highest);
}

// === Version 4, fused: all five losses, with all that stands between scores and gradient =========
// The output activation and its backward, the counts of the items, logQ and label smoothing in the
// same passes: instead of a launch each, reading and writing y or g. Cross-entropy takes 5.2 us, a
// launch of nothing 1.4. Grid n, block a multiple of 32.

enum Loss { CROSS_ENTROPY, BPR, TOP1, BPR_MAX, TOP1_MAX };  // in the order of losses.LOSSES

// One lane, as all threads of its block see it.
struct Lane {
    real *y, *g;           // (U,) scores, activated in place; gradients
    const real *count;     // (U,) columns of each item
    const real *weight;    // (U,) cross-entropy: each item's sum of e^-log_q, else the counts
    int U, t;              // t: the target's place

    // The copies of item u that are negatives.
    __device__ real negatives(int u) const { return count[u] - (u == t ? 1 : 0); }
};

// For each u that is this thread's.
#define EACH(u, lane) for (int u = threadIdx.x; u < lane.U; u += blockDim.x)

// The highest score of the items with a negative, and log of their Σ e^(y - top).
__device__ inline real highest_negative(const Lane &lane) {
    real top = real(-3e38);
    EACH(u, lane) if (lane.negatives(u) > 0) top = fmax(top, lane.y[u]);
    return block_max(top);
}

// Each of the five writes g and returns the loss and, in `pull`, what the negatives together do to
// the target's score; both in every thread.

__device__ inline real cross_entropy(
    const Lane &lane, real smoothing, real own, real log_weights, real n, real *pull
) {
    real top = real(-3e38);
    EACH(u, lane) top = fmax(top, lane.y[u]);
    top = block_max(top);
    real total = 0;
    EACH(u, lane) total += lane.g[u] = lane.weight[u] * exp(lane.y[u] - top);
    total = block_sum(total);
    const real log_total = log(total), share = smoothing / fmax(real(1), n);
    real log_p = 0;
    EACH(u, lane) {
        log_p += lane.count[u] * (lane.y[u] - top - log_total);
        lane.g[u] = lane.g[u] / total - share * lane.count[u];
    }
    *pull = 1 - smoothing - share;
    real loss = -*pull * (log(own) + lane.y[lane.t] - top - log_total);
    if (smoothing > 0) loss -= share * (block_sum(log_p) + log_weights);
    return loss;
}

__device__ inline real bpr(const Lane &lane, real n, real *pull) {
    const real of_target = lane.y[lane.t];
    real loss = 0, sum = 0;
    EACH(u, lane) {
        const real c = lane.negatives(u) / n, d = lane.y[u] - of_target;
        loss += c * softplus(d);
        sum += lane.g[u] = c * sigmoid(d);
    }
    *pull = block_sum(sum);
    return block_sum(loss);
}

__device__ inline real top1(const Lane &lane, real n, real *pull) {
    const real of_target = lane.y[lane.t];
    real loss = 0, sum = 0;
    EACH(u, lane) {
        const real c = lane.negatives(u) / n, y = lane.y[u];
        const real above = sigmoid(y - of_target), size = sigmoid(y * y);
        const real slope = c * above * (1 - above);
        loss += c * (above + size);
        sum += slope;
        lane.g[u] = slope + c * 2 * y * size * (1 - size);
    }
    *pull = block_sum(sum);
    return block_sum(loss);
}

__device__ inline real bpr_max(const Lane &lane, real bpreg, real *pull) {
    // log Σ s_j σ(r_i - r_j) as a logsumexp. y - softplus(y - y_t) grows with y, so its largest
    // term is that of the highest y.
    const real of_target = lane.y[lane.t], top = highest_negative(lane);
    const real lift = softplus(top - of_target);
    real total = 0, chosen = 0, size = 0;
    EACH(u, lane) {
        const real c = lane.negatives(u), y = lane.y[u];
        const real e = c > 0 ? c * exp(y - top) : 0;
        total += e;
        size += e * y * y;
        chosen += c > 0 ? c * exp((y - top) + (lift - softplus(y - of_target))) : 0;
    }
    total = block_sum(total);
    chosen = block_sum(chosen);
    size = block_sum(size) / total;
    real sum = 0;
    EACH(u, lane) {
        const real c = lane.negatives(u), y = lane.y[u], above = sigmoid(y - of_target);
        const real s = c > 0 ? c * exp(y - top) / total : 0;
        const real p =
            c > 0 ? c * exp((y - top) + (lift - softplus(y - of_target))) / chosen : 0;
        sum += p * above;
        lane.g[u] = s + bpreg * s * (2 * y + y * y - size) - p * (1 - above);
    }
    *pull = block_sum(sum);
    return log(total) + lift - log(chosen) + bpreg * size;
}

__device__ inline real top1_max(const Lane &lane, real *pull) {
    const real of_target = lane.y[lane.t], top = highest_negative(lane);
    real total = 0, loss = 0;
    EACH(u, lane) {
        const real c = lane.negatives(u), y = lane.y[u];
        const real e = c > 0 ? c * exp(y - top) : 0;
        total += lane.g[u] = e;
        loss += e * (sigmoid(y - of_target) + sigmoid(y * y));
    }
    total = block_sum(total);
    loss = block_sum(loss) / total;
    real sum = 0;
    EACH(u, lane) {
        const real s = lane.g[u] / total, y = lane.y[u];
        const real above = sigmoid(y - of_target), size = sigmoid(y * y);
        const real slope = s * above * (1 - above);
        sum += slope;
        lane.g[u] = s * (above + size - loss + 2 * y * size * (1 - size)) + slope;
    }
    *pull = block_sum(sum);
    return loss;
}

// own (n,): e^-log_q of each lane's target column; log_weights (1,): the sum of log e^-log_q over
// all columns, for smoothing. Both are 1 and 0 without correction. `scale` multiplies g, not the
// losses.
extern "C" __global__ void loss(
    const int *now, real *y, const int *target, const real *count, const real *weight,
    const real *own, const real *log_weights, int stride, int kind, int act, real act_a,
    real bpreg, real smoothing, real scale, real *g, real *losses
) {
    const int of = blockIdx.x;
    if (of >= now[LANES]) return;
    const Lane lane = {y + of * stride, g + of * stride, count, weight, now[SCORED], target[of]};
    real columns = 0;
    EACH(u, lane) {
        lane.y[u] = activate(lane.y[u], act, act_a);
        columns += count[u];
    }
    const real n = block_sum(columns) - 1;  // its barriers also make y whole for all threads
    real pull, result;
    switch (kind) {
        case CROSS_ENTROPY:
            result = cross_entropy(lane, smoothing, own[of], log_weights[0], n, &pull);
            break;
        case BPR: result = bpr(lane, n, &pull); break;
        case TOP1: result = top1(lane, n, &pull); break;
        case BPR_MAX: result = bpr_max(lane, bpreg, &pull); break;
        default: result = top1_max(lane, &pull);
    }
    EACH(u, lane)
        lane.g[u] = (lane.g[u] - (u == lane.t ? pull : 0)) * slope(lane.y[u], act, act_a) * scale;
    if (threadIdx.x == 0) losses[of] = result;
}
