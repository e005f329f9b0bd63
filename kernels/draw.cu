// The extra negatives of a chunk of steps, drawn where they are used. The draws are those of
// data/batches.py, draw_negatives, bit for bit: u of each comes from NumPy's generator, and the item
// is the first whose cumulative probability is above u.
//
// The generator is PCG64 (O'Neill 2014, "PCG: a family of simple fast space-efficient statistically
// good algorithms for random number generation", XSL-RR output). Its state, 128 bits, goes from s to
// s MULTIPLIER + inc. n such steps are one step with another multiplier and another addend, found in
// log2 n rounds (Brown 1994, "Random number generation with arbitrary strides"). So every thread
// jumps to its place in the sequence.
//
// On the CPU, drawing took 13 of the 70 us of a step of 2,048 negatives (setting B of
// docs/performance-gpu.md), while the GPU waited.
#include "common.cuh"

struct Wide {  // 128 bits, modulo 2^128
    unsigned long long high, low;
};

__device__ inline Wide operator*(Wide a, Wide b) {
    return {__umul64hi(a.low, b.low) + a.high * b.low + a.low * b.high, a.low * b.low};
}

__device__ inline Wide operator+(Wide a, Wide b) {
    const unsigned long long low = a.low + b.low;
    return {a.high + b.high + (low < a.low), low};
}

#define MULTIPLIER Wide{0x2360ED051FC65DA4ull, 0x4385DF649FCCF645ull}

// The state after n steps.
__device__ inline Wide jump(Wide state, Wide inc, unsigned n) {
    Wide factor = MULTIPLIER, addend = inc;  // of 2^i steps, in round i
    for (; n; n >>= 1) {
        if (n & 1) state = state * factor + addend;
        addend = (factor + Wide{0, 1}) * addend;
        factor = factor * factor;
    }
    return state;
}

// u of [0, 1), from the upper 53 bits of the state's output.
__device__ inline double uniform(Wide state) {
    const unsigned long long mixed = state.high ^ state.low;
    const int turn = state.high >> 58;
    const unsigned long long bits = mixed >> turn | mixed << (-turn & 63);
    return (bits >> 11) * (1 / 9007199254740992.0);
}

// generator (4,): state and inc, upper halves first. distribution (I,): cumulative. guide
// (parts + 1,): of each of `parts` equal parts of [0, 1), the first item that a u in it can give. A
// thread draws DRAWS numbers in turn. Grid ceil(n / (DRAWS block)).
extern "C" __global__ void draw_negatives(
    const unsigned long long *generator, const double *distribution, const int *guide, int parts,
    int I, int n, int *drawn
) {
    const int first = (blockIdx.x * blockDim.x + threadIdx.x) * DRAWS;
    const Wide inc = {generator[2], generator[3]};
    Wide state = jump({generator[0], generator[1]}, inc, first);
    for (int i = first; i < min(first + DRAWS, n); i++) {
        state = state * MULTIPLIER + inc;
        const double u = uniform(state);
        const int part = u * parts;
        int low = guide[part], high = guide[part + 1];
        while (low < high) {
            const int middle = (low + high) / 2;
            if (distribution[middle] <= u) low = middle + 1;
            else high = middle;
        }
        drawn[i] = min(low, I - 1);
    }
}
