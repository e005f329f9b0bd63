// deadlock: grid 1, block 32
// The halves of a warp wait with different masks, each for threads that wait with the other.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const unsigned mask = 0xffffffff;
#else
    const unsigned mask = threadIdx.x < 16 ? 0xffffffff : 0xfffffff0;
#endif
    y[threadIdx.x] = __shfl_xor_sync(mask, x[threadIdx.x], 1);  // FAULT
}
