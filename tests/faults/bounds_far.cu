// out of bounds: grid 1, block 64
// So far off that on a GPU it would be in another array.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const int row = 0;
#else
    const int row = 20000;
#endif
    y[threadIdx.x] = x[row * 100 + threadIdx.x];  // FAULT
}
