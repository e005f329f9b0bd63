// out of bounds: grid 1, block 64
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    atomicAdd(&y[n - 1], 1.0f);
#else
    atomicAdd(&y[n], 1.0f);  // FAULT
#endif
}
