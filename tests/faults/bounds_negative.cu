// out of bounds: grid 1, block 64
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    const int i = threadIdx.x;
#ifdef MENDED
    y[i] = i > 0 ? x[i - 1] : 0;
#else
    y[i] = x[i - 1];  // FAULT
#endif
}
