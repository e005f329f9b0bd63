// race: grid 1, block 32
// A shuffle makes the threads of a warp wait for one another, but does not order memory.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[32];
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT
    float sum = __shfl_xor_sync(0xffffffff, x[threadIdx.x], 1);
#ifdef MENDED
    __syncwarp();
#endif
    y[threadIdx.x] = sum + tile[31 - threadIdx.x];  // FAULT
}
