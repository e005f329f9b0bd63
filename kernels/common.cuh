// What all kernels share: the number type, sums over a warp and a block, the elementary functions.
//
// Compiled with -Dreal=float (training) or -Dreal=double (gradients against finite differences).
// Matrices lie row by row, as in NumPy. Letters are those of the package: B lanes, of which the
// first n are in use; H units, I items, U the distinct items of a step.
#pragma once

#ifndef real
#define real float
#endif

#define WARP 32
#define ALL_LANES 0xffffffffu

// Where the step stands, in memory of the device: nothing has to be sent for the next step, and
// a graph of launches that was captured once serves every step.
enum Now { STEP, PLACE, LANES, SCORED, DISTINCT, SEED, NOW_SIZE };
// STEP of the epoch, its PLACE in the chunk of steps under way, LANES in use; of the DISTINCT
// items of the step the first SCORED are targets and samples, the others are only fed; SEED of
// the chunk's dropout.

// --- sums ----------------------------------------------------------------------------------------
// Each in a fixed order: the same numbers in, the same bits out.

// Every lane of the warp gets the sum of all: 5 exchanges of registers, no memory.
__device__ inline real warp_sum(real x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

__device__ inline real warp_max(real x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x = fmax(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Where the warps of a block put their results for each other.
__device__ inline real *results_of_warps() {
    __shared__ real of_warp[WARP];
    return of_warp;
}

// Every thread of the block gets the sum of all. blockDim.x is a multiple of 32; all must call.
__device__ inline real block_sum(real x) {
    real *of_warp = results_of_warps();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    x = warp_sum(lane < blockDim.x / WARP ? of_warp[lane] : real(0));
    __syncthreads();  // or the next call would write before the last warp has read
    return x;
}

__device__ inline real block_max(real x) {
    real *of_warp = results_of_warps();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_max(x);
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    x = warp_max(of_warp[lane < blockDim.x / WARP ? lane : 0]);
    __syncthreads();
    return x;
}

// --- elementary functions ------------------------------------------------------------------------

__device__ inline real sigmoid(real x) {  // from e^-|x| <= 1
    const real e = exp(-fabs(x));
    return (x >= 0 ? real(1) : e) / (1 + e);
}

__device__ inline real softplus(real x) {  // log(1 + e^x)
    return fmax(x, real(0)) + log1p(exp(-fabs(x)));
}

// In the order of activations.ACTIVATIONS.
enum Activation { LINEAR, TANH, SIGMOID, RELU, LEAKY, ELU, SELU };
#define SELU_ALPHA real(1.6732632423543772)
#define SELU_SCALE real(1.0507009873554805)

__device__ inline real activate(real x, int kind, real a) {
    switch (kind) {
        case TANH: return tanh(x);
        case SIGMOID: return sigmoid(x);
        case RELU: return x < 0 ? 0 : x;  // and NaN stays NaN
        case LEAKY: return x > 0 ? x : a * x;
        case ELU: return x > 0 ? x : a * expm1(x);
        case SELU: return SELU_SCALE * (x > 0 ? x : SELU_ALPHA * expm1(x));
        default: return x;
    }
}

// f'(x), from the output y = f(x).
__device__ inline real slope(real y, int kind, real a) {
    switch (kind) {
        case TANH: return 1 - y * y;
        case SIGMOID: return y * (1 - y);
        case RELU: return y > 0 ? 1 : 0;
        case LEAKY: return y > 0 ? 1 : a;
        case ELU: return y > 0 ? 1 : y + a;
        case SELU: return y > 0 ? SELU_SCALE : y + SELU_SCALE * SELU_ALPHA;
        default: return 1;
    }
}

// Inverted dropout at one place: 0, or 1/(1-p). Whether it is kept is a hash of its counters (the
// finaliser of MurmurHash3, Appleby), so the backward step asks again instead of reading a mask.
__device__ inline real dropout(real p, unsigned seed, unsigned draw, unsigned place) {
    if (p == 0) return 1;
    unsigned x = seed ^ (draw * 0x9E3779B1u) ^ (place * 0x85EBCA77u);
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x ^= x >> 16;
    return x >= (unsigned)((double)p * 4294967295.0) ? 1 / (1 - p) : 0;
}
