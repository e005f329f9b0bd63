// barrier: grid 2, block 64
// Threads without work return before the others reach a barrier.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[64];
    const int i = blockIdx.x * blockDim.x + threadIdx.x, work = n - 28;
#ifndef MENDED
    if (i >= work) return;
#endif
    tile[threadIdx.x] = i < work ? x[i] : 0;
    __syncthreads();  // FAULT
    if (i < work) y[i] = tile[threadIdx.x ^ 1];
}
