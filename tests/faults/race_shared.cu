// race: grid 1, block 64
// Reads what another thread writes, without a barrier between.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT
#ifdef MENDED
    __syncthreads();
#endif
    y[threadIdx.x] = tile[63 - threadIdx.x];  // FAULT
}
