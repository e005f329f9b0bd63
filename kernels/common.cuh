// What all kernels share: sums over a warp and a block, elementary functions, dropout.
//
// Every constant that a kernel shares with Python (sizes of blocks and tiles, NOW_*, BUCKET_*,
// ACT_*, LOSS_*, SELU_*, EPSILON) comes from the compiler's options, as does `real`, which is float
// or double. They stand in gru4rec_np/backends/cuda/device.py: compiler_options(dtype).
//
// Matrices are row-major, as in NumPy. Letters are those of the package: B lanes (sessions of the
// batch), of which the first n are in use; H units, I items, N distinct items that a step scores. A
// thread's place in its warp is `in_warp`.
#pragma once

#if !defined(real) || !defined(WARP)
#error "real or WARP is not defined: compile with compiler_options() of backends/cuda/device.py"
#endif

#define FULL_WARP 0xffffffffu  // the mask that names all threads of a warp

// --- sums ----------------------------------------------------------------------------------------
// Each adds in a fixed order, so results are bit-identical from run to run.

// Every thread of the warp gets the sum: 5 exchanges of registers, no memory.
__device__ inline real warp_sum(real x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(FULL_WARP, x, distance);
    return x;
}

__device__ inline real warp_max(real x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x = fmax(x, __shfl_xor_sync(FULL_WARP, x, distance));
    return x;
}

// The warps of a block exchange their results here.
__device__ inline real *results_of_warps() {
    __shared__ real of_warp[WARP];
    return of_warp;
}

// Every thread of the block gets the sum. blockDim.x is a multiple of WARP; all threads must call.
__device__ inline real block_sum(real x) {
    real *of_warp = results_of_warps();
    const int in_warp = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    if (in_warp == 0) of_warp[warp] = x;
    __syncthreads();
    x = warp_sum(in_warp < blockDim.x / WARP ? of_warp[in_warp] : real(0));
    __syncthreads();  // or the next call would write before the last warp has read
    return x;
}

__device__ inline real block_max(real x) {
    real *of_warp = results_of_warps();
    const int in_warp = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_max(x);
    if (in_warp == 0) of_warp[warp] = x;
    __syncthreads();
    x = warp_max(of_warp[in_warp < blockDim.x / WARP ? in_warp : 0]);
    __syncthreads();
    return x;
}

// --- elementary functions ------------------------------------------------------------------------

__device__ inline real sigmoid(real x) {  // e^-|x| <= 1 cannot overflow
    const real e = exp(-fabs(x));
    return (x >= 0 ? real(1) : e) / (1 + e);
}

__device__ inline real softplus(real x) {  // log(1 + e^x)
    return fmax(x, real(0)) + log1p(exp(-fabs(x)));
}

__device__ inline real activate(real x, int kind, real a) {
    switch (kind) {
        case ACT_TANH: return tanh(x);
        case ACT_SIGMOID: return sigmoid(x);
        case ACT_RELU: return x < 0 ? 0 : x;  // propagates NaN, as NumPy's does
        case ACT_LEAKY: return x > 0 ? x : a * x;
        case ACT_ELU: return x > 0 ? x : a * expm1(x);
        case ACT_SELU: return real(SELU_SCALE) * (x > 0 ? x : real(SELU_ALPHA) * expm1(x));
        default: return x;
    }
}

// f'(x), from the output y = f(x).
__device__ inline real slope(real y, int kind, real a) {
    switch (kind) {
        case ACT_TANH: return 1 - y * y;
        case ACT_SIGMOID: return y * (1 - y);
        case ACT_RELU: return y > 0 ? 1 : 0;
        case ACT_LEAKY: return y > 0 ? 1 : a;
        case ACT_ELU: return y > 0 ? 1 : y + a;
        case ACT_SELU:
            return y > 0 ? real(SELU_SCALE) : y + real(SELU_SCALE) * real(SELU_ALPHA);
        default: return 1;
    }
}

// Inverted dropout of element `at`: 0, or 1/(1-p). A hash of its counters decides (the finaliser of
// MurmurHash3, Appleby), so the backward pass computes it again instead of reading a mask.
__device__ inline real dropout(real p, unsigned seed, unsigned draw, unsigned at) {
    if (p == 0) return 1;
    unsigned x = seed ^ (draw * 0x9E3779B1u) ^ (at * 0x85EBCA77u);
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x ^= x >> 16;
    return x >= (unsigned)((double)p * 4294967295.0) ? 1 / (1 - p) : 0;
}
