// What a step needs besides its mathematics: the distinct items of each step of a chunk, the state
// that it starts from, and the counters `now`, in device memory, which tell all kernels where they
// are. So nothing is sent for the next step, and one captured graph of launches serves every step.
#include "common.cuh"

#define EMPTY -1  // the item of an empty bucket
#define FIELD(bucket, name) buckets[(bucket) * BUCKET_SIZE + BUCKET_##name]

// --- the distinct items of each step -------------------------------------------------------------
// A block takes a step. Its columns are the n targets, the S samples and, where the input shares
// the output table, the n input items. Slots are numbered by first appearance, so they do not
// depend on the order in which threads run.
//
//   1. Each column looks up its item in a hash table with open addressing. atomicCAS puts the item
//      into an empty bucket; later columns with the same item find it there. Which bucket an item
//      gets may differ from run to run, but no two items share one.
//   2. atomicMin leaves the item's first column in its bucket.
//   3. An item's slot is the number of first columns before its own: a running count over the
//      columns, by ballots in a warp and the warps' totals in shared memory.
//   4. Integer atomics count an item's target and sample columns. Their order has no effect.
//
// With logQ a column weighs e^-log_q, so an item's weight is (its target columns) support^-logq +
// (its samples) support^(-alpha logq). It is computed from the two counts, since a sum over columns
// would depend on their order.
//
// xs, ys (T, B) of the epoch, lanes (T,); samples (C, S) of the chunk, whose first step is `first`.
// Per step of the chunk: rows, count, weight (most,); target, own, fed (B,), fed is -1 if the input
// has its own table; sizes (2,): scored and distinct. Scratch: buckets (n_buckets, BUCKET_SIZE),
// with n_buckets a power of two > 2B + S, and bucket_of (2B + S,), each column's bucket. Grid C.

extern "C" __global__ void collect(
    const int *xs, const int *ys, const int *lanes, const int *samples, const real *log_support,
    int first, int B, int S, int most, int tied, real logq, int corrects, real alpha,
    int n_buckets, int *buckets, int *bucket_of, int *rows, real *count, real *weight, int *target,
    real *own, int *fed, int *sizes, real *log_weights
) {
    __shared__ int of_warp[WARP];
    const int place = blockIdx.x, step = first + place, n = lanes[step];
    const int scored_columns = n + S, columns = scored_columns + (tied ? n : 0);
    const int thread = threadIdx.x, in_warp = thread % WARP, warp = thread / WARP;
    buckets += (long long)place * n_buckets * BUCKET_SIZE;
    bucket_of += place * most;
    rows += place * most;
    count += place * most;
    weight += place * most;
    target += place * B;
    own += place * B;
    fed += place * B;

    for (int i = thread; i < n_buckets; i += blockDim.x) {
        FIELD(i, ITEM) = EMPTY;
        FIELD(i, FIRST) = columns;
        FIELD(i, TARGETS) = FIELD(i, SAMPLES) = 0;
    }
    __syncthreads();

    real log_weight = 0;  // of this thread's columns
    for (int column = thread; column < columns; column += blockDim.x) {
        int item;
        if (column < n) item = ys[step * B + column];
        else if (column < scored_columns) item = samples[place * S + column - n];
        else item = xs[step * B + column - scored_columns];
        int bucket = (unsigned)item * 0x9E3779B1u & (n_buckets - 1);
        while (true) {
            const int there = atomicCAS(&FIELD(bucket, ITEM), EMPTY, item);
            if (there == EMPTY || there == item) break;
            bucket = (bucket + 1) & (n_buckets - 1);
        }
        bucket_of[column] = bucket;
        atomicMin(&FIELD(bucket, FIRST), column);
        if (column < n) atomicAdd(&FIELD(bucket, TARGETS), 1);
        else if (column < scored_columns) atomicAdd(&FIELD(bucket, SAMPLES), 1);
        if (column < scored_columns && logq > 0)
            log_weight -= logq * (column < n ? real(1) : alpha) * log_support[item];
    }
    __syncthreads();

    // The running count, blockDim.x columns at a time.
    int before = 0, scored = 0;
    for (int column0 = 0; column0 < columns; column0 += blockDim.x) {
        const int column = column0 + thread;
        const int bucket = column < columns ? bucket_of[column] : 0;
        const bool is_first = column < columns && FIELD(bucket, FIRST) == column;
        const unsigned firsts = __ballot_sync(FULL_WARP, is_first);
        if (in_warp == 0) of_warp[warp] = __popc(firsts);
        scored += __syncthreads_count(is_first && column < scored_columns);
        int slot = before + __popc(firsts & ((1u << in_warp) - 1));
        for (int w = 0; w < blockDim.x / WARP; w++) {
            if (w < warp) slot += of_warp[w];
            before += of_warp[w];
        }
        if (is_first) {
            const int item = FIELD(bucket, ITEM);
            const int t = FIELD(bucket, TARGETS), s = FIELD(bucket, SAMPLES);  // columns
            rows[slot] = item;
            count[slot] = t + s;
            weight[slot] = t + s;
            if (logq > 0)
                weight[slot] = t * exp(-logq * log_support[item]) +
                               s * exp(-logq * alpha * log_support[item]);
            FIELD(bucket, SLOT) = slot;
        }
        __syncthreads();
    }

    for (int i = thread; i < n; i += blockDim.x) {
        target[i] = FIELD(bucket_of[i], SLOT);
        own[i] = logq > 0 && !corrects ? exp(-logq * log_support[ys[step * B + i]]) : real(1);
        fed[i] = tied ? FIELD(bucket_of[scored_columns + i], SLOT) : -1;
    }
    log_weight = block_sum(log_weight);
    if (thread == 0) {
        sizes[2 * place] = scored;
        sizes[2 * place + 1] = before;
        log_weights[place] = log_weight;
    }
}

// --- the beginning and the end of a step ---------------------------------------------------------
// Copies the step's lists out of the chunk's, to where all kernels read them, and each lane's state
// and m (with fade) from the step before: `from` (T, B) is the lane that its session had there, or
// -1 where a session starts. Grid: any number of blocks.

extern "C" __global__ void begin_step(
    int *now, const int *lanes, const int *xs, const int *from, const real *state,
    const real *m_new, int fades, int B, int H, int most, const int *rows, const real *count,
    const real *weight, const int *target, const real *own, const int *fed, const int *sizes,
    const real *log_weights,
    int *x_now, real *h_now, real *m, int *rows_now, real *count_now, real *weight_now,
    int *target_now, real *own_now, int *fed_now, real *log_weights_now
) {
    const int step = now[NOW_STEP], place = now[NOW_PLACE], n = lanes[step];
    const int distinct = sizes[2 * place + 1];
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, n_threads = gridDim.x * blockDim.x;
    for (int i = thread; i < n * H; i += n_threads) {
        const int source = from[step * B + i / H];
        h_now[i] = source < 0 ? real(0) : state[source * H + i % H];
        if (fades) m[i] = source < 0 ? real(0) : m_new[source * H + i % H];
    }
    for (int i = thread; i < distinct; i += n_threads) {
        rows_now[i] = rows[place * most + i];
        count_now[i] = count[place * most + i];
        weight_now[i] = weight[place * most + i];
    }
    for (int i = thread; i < n; i += n_threads) {
        x_now[i] = xs[step * B + i];
        target_now[i] = target[place * B + i];
        own_now[i] = own[place * B + i];
        fed_now[i] = fed[place * B + i];
    }
    if (thread == 0) {
        log_weights_now[0] = log_weights[place];
        now[NOW_LANES] = n;
        now[NOW_SCORED] = sizes[2 * place];
        now[NOW_DISTINCT] = distinct;
    }
}

// Writes the step's loss, the sum over its lanes times `scale`, and counts on to the next step.
// Grid 1.

extern "C" __global__ void end_step(int *now, const real *of_lanes, real scale, real *losses) {
    real sum = 0;
    for (int lane = threadIdx.x; lane < now[NOW_LANES]; lane += blockDim.x) sum += of_lanes[lane];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        losses[now[NOW_PLACE]] = sum * scale;
        now[NOW_STEP]++;
        now[NOW_PLACE]++;
    }
}
