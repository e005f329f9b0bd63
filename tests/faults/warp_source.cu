// warp: grid 1, block 32
// Reads from a thread that the mask does not name.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    if (threadIdx.x < 16) {
#ifdef MENDED
        y[threadIdx.x] = __shfl_down_sync(0x0000ffff, x[threadIdx.x], 8, 16);
#else
        y[threadIdx.x] = __shfl_down_sync(0x0000ffff, x[threadIdx.x], 8);  // FAULT
#endif
    }
}
