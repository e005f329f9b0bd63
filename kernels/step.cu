// What stands around a step's mathematics: the distinct items of a chunk of steps, the state that a
// step starts from, and the counters that tell all kernels where they are (now, see common.cuh).
#include "common.cuh"

#define EMPTY -1

// --- the distinct items of each step -------------------------------------------------------------
// A block takes a step. Its columns are the n targets, the S samples and, where the input shares
// the output table, the n items that are fed. Slots go by first appearance: the same whatever the
// order in which threads get their turn.
//
//   1. Each column looks for its item in a hash table with open addresses: atomicCAS puts the item
//      where nothing is; whoever comes later with the same item finds it. Where an item lands may
//      differ from run to run; that nobody else has it does not.
//   2. atomicMin leaves the item's first column beside it, the lowest whatever the order.
//   3. An item's slot is the number of first columns before its own: a running count over the
//      columns, by ballots in a warp and the warps' totals in shared memory.
//   4. Columns are counted into the slots by integer atomics, whose order cannot show.
//
// With logQ a column weighs e^-log_q, so an item's weight is (its target columns) support^-logq +
// (its samples) support^(-alpha logq): from the two counts, not as a sum in some order.
//
// xs, ys (T, B) of the epoch, lanes (T,); samples (C, S) of the chunk whose first step is `first`.
// Per step of the chunk: rows, count, weight (most,), target, own, fed (B,), fed -1 if the input
// has a table of its own, sizes (2,): scored and distinct. table (size) and entry (2B + S,) are
// scratch, size a power of two > 2B + S; the table holds the item, its first column, the counts of
// its targets and its samples, and its slot. Grid C.

#define ITEM 0
#define FIRST 1
#define TARGETS 2
#define SAMPLES 3
#define SLOT 4
#define FIELDS 5

extern "C" __global__ void collect(
    const int *xs, const int *ys, const int *lanes, const int *samples, const real *log_support,
    int first, int B, int S, int most, int shared_input, real logq, real alpha, int size,
    int *table, int *entry, int *rows, real *count, real *weight, int *target, real *own,
    int *fed, int *sizes, real *log_weights
) {
    __shared__ int of_warp[WARP];
    const int place = blockIdx.x, step = first + place, n = lanes[step];
    const int scored_columns = n + S, columns = scored_columns + (shared_input ? n : 0);
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    table += (long long)place * size * FIELDS;
    entry += place * most;
    rows += place * most;
    count += place * most;
    weight += place * most;
    target += place * B;
    own += place * B;
    fed += place * B;

    for (int i = thread; i < size; i += blockDim.x) {
        table[i * FIELDS + ITEM] = EMPTY;
        table[i * FIELDS + FIRST] = columns;
        table[i * FIELDS + TARGETS] = table[i * FIELDS + SAMPLES] = 0;
    }
    __syncthreads();

    real log_weight = 0;  // of this thread's columns
    for (int column = thread; column < columns; column += blockDim.x) {
        int item;
        if (column < n) item = ys[step * B + column];
        else if (column < scored_columns) item = samples[place * S + column - n];
        else item = xs[step * B + column - scored_columns];
        int at = (unsigned)item * 0x9E3779B1u & (size - 1);
        while (true) {
            const int there = atomicCAS(&table[at * FIELDS + ITEM], EMPTY, item);
            if (there == EMPTY || there == item) break;
            at = (at + 1) & (size - 1);
        }
        entry[column] = at;
        atomicMin(&table[at * FIELDS + FIRST], column);
        if (column < n) atomicAdd(&table[at * FIELDS + TARGETS], 1);
        else if (column < scored_columns) atomicAdd(&table[at * FIELDS + SAMPLES], 1);
        if (column < scored_columns && logq > 0)
            log_weight -= logq * (column < n ? real(1) : alpha) * log_support[item];
    }
    __syncthreads();

    // The running count, a block's width of columns at a time.
    int before = 0, scored = 0;
    for (int column0 = 0; column0 < columns; column0 += blockDim.x) {
        const int column = column0 + thread;
        const int at = column < columns ? entry[column] : 0;
        const bool is_first = column < columns && table[at * FIELDS + FIRST] == column;
        const unsigned firsts = __ballot_sync(ALL_LANES, is_first);
        if (lane == 0) of_warp[warp] = __popc(firsts);
        scored += __syncthreads_count(is_first && column < scored_columns);
        int slot = before + __popc(firsts & ((1u << lane) - 1));
        for (int w = 0; w < blockDim.x / WARP; w++) {
            if (w < warp) slot += of_warp[w];
            before += of_warp[w];
        }
        if (is_first) {
            const int item = table[at * FIELDS + ITEM];
            const int t = table[at * FIELDS + TARGETS], s = table[at * FIELDS + SAMPLES];
            rows[slot] = item;
            count[slot] = t + s;
            weight[slot] = t + s;
            if (logq > 0)
                weight[slot] = t * exp(-logq * log_support[item]) +
                               s * exp(-logq * alpha * log_support[item]);
            table[at * FIELDS + SLOT] = slot;
        }
        __syncthreads();
    }

    for (int i = thread; i < n; i += blockDim.x) {
        target[i] = table[entry[i] * FIELDS + SLOT];
        own[i] = logq > 0 ? exp(-logq * log_support[ys[step * B + i]]) : real(1);
        fed[i] = shared_input ? table[entry[scored_columns + i] * FIELDS + SLOT] : -1;
    }
    log_weight = block_sum(log_weight);
    if (thread == 0) {
        sizes[2 * place] = scored;
        sizes[2 * place + 1] = before;
        log_weights[place] = log_weight;
    }
}

// --- the beginning and the end of a step ---------------------------------------------------------
// The step's lists come out of the chunk's to where all kernels look for them, and each lane takes
// its state from where it was: `from` (T, B) is the lane's place in the step before, or -1 where
// a session starts. Grid: any number of blocks.

extern "C" __global__ void begin_step(
    int *now, const int *lanes, const int *xs, const int *from, const real *state, int B, int H,
    int most, const int *rows, const real *count, const real *weight, const int *target,
    const real *own, const int *fed, const int *sizes, const real *log_weights,
    int *x_now, real *h_now, int *rows_now, real *count_now, real *weight_now, int *target_now,
    real *own_now, int *fed_now, real *log_weights_now
) {
    const int step = now[STEP], place = now[PLACE], n = lanes[step];
    const int distinct = sizes[2 * place + 1];
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, n_threads = gridDim.x * blockDim.x;
    for (int i = thread; i < n * H; i += n_threads) {
        const int source = from[step * B + i / H];
        h_now[i] = source < 0 ? real(0) : state[source * H + i % H];
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
        now[LANES] = n;
        now[SCORED] = sizes[2 * place];
        now[DISTINCT] = distinct;
    }
}

// The step's loss, the sum over its lanes times `scale`, and on to the next step. Grid 1.

extern "C" __global__ void end_step(int *now, const real *of_lanes, real scale, real *losses) {
    real sum = 0;
    for (int lane = threadIdx.x; lane < now[LANES]; lane += blockDim.x) sum += of_lanes[lane];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        losses[now[PLACE]] = sum * scale;
        now[STEP]++;
        now[PLACE]++;
    }
}
