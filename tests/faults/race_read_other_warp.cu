// race: grid 1, block 64
// Its own warp has read the sum before one thread overwrites it; the other warp may not have.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float sum;
    if (threadIdx.x == 0) sum = n;
    __syncthreads();
    y[threadIdx.x] = sum;  // FAULT
#ifdef MENDED
    __syncthreads();
#else
    __syncwarp();
#endif
    if (threadIdx.x == 63) sum = 0;  // FAULT
}
