// out of bounds: grid 1, block 64
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    float best[4] = {0, 0, 0, 0};
    for (int i = 0; i < 64; i++)
#ifdef MENDED
        best[i % 4] += x[i];
#else
        best[i % 5] += x[i];  // FAULT
#endif
    y[threadIdx.x] = best[threadIdx.x % 4];
}
