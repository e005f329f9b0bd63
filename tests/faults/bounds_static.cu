// out of bounds: grid 1, block 64
// The tile has 32 elements, one for each of 32 threads.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    __shared__ float tile[64];
#else
    __shared__ float tile[32];
#endif
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
