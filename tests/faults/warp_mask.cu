// warp: grid 1, block 32
// The mask leaves out threads that call.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const unsigned mask = 0xffffffff;
#else
    const unsigned mask = 0x0000ffff;
#endif
    y[threadIdx.x] = __ballot_sync(mask, x[threadIdx.x] > 0.5f);  // FAULT
}
