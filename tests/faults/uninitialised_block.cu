// uninitialised: grid 2, block 64
// Shared memory does not keep what the block before left there.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float scale;
#ifdef MENDED
    if (threadIdx.x == 0) scale = 2;
#else
    if (blockIdx.x == 0 && threadIdx.x == 0) scale = 2;
#endif
    __syncthreads();
    const int i = blockIdx.x * 64 + threadIdx.x;
    y[i] = scale * x[i];  // FAULT
}
