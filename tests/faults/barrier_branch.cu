// barrier: grid 1, block 64
// Two branches with a barrier each. All threads must come to the same one.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const bool first = n > 0;
#else
    const bool first = threadIdx.x < 10;
#endif
    if (first) {
        __syncthreads();  // FAULT
        y[threadIdx.x] = 1;
    } else {
        __syncthreads();  // FAULT
        y[threadIdx.x] = 2;
    }
}
