// deadlock: grid 1, block 64
// Some threads wait for their warp, its other threads for the block.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    __syncwarp();
#else
    if (threadIdx.x % 32 < 16) __syncwarp();  // FAULT
#endif
    __syncthreads();  // FAULT
    y[threadIdx.x] = 1;
}
