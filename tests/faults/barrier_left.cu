// barrier: grid 1, block 64
// The first threads have nothing to do and return.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifndef MENDED
    if (threadIdx.x < 10) return;
#endif
    __syncthreads();  // FAULT
    y[threadIdx.x] = n;
}
