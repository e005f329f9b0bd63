// out of bounds: grid 1, block 64
// Through a pointer, whose type does not tell the length.
__device__ __noinline__ void put(float *tile, int i, float value) {
    tile[i] = value;  // FAULT
}
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[64];
#ifdef MENDED
    put(tile, threadIdx.x, x[threadIdx.x]);
#else
    put(tile, threadIdx.x + 1, x[threadIdx.x]);
#endif
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
