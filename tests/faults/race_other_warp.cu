// race: grid 1, block 64
// A warp waits for itself, and then reads what the other warp writes.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT
#ifdef MENDED
    __syncthreads();
#else
    __syncwarp();
#endif
    y[threadIdx.x] = tile[threadIdx.x ^ 32];  // FAULT
}
