// race between blocks: grid 2, block 64
// One block updates what all blocks read, so later ones see the new value.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const float scale = x[0];
#else
    const float scale = y[0];  // FAULT
#endif
    __syncthreads();
    if (blockIdx.x == 1 && threadIdx.x == 0) y[0] = scale + 1;  // FAULT
}
