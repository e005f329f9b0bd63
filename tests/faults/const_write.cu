// const: grid 1, block 64
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    y[threadIdx.x] = 0;
#else
    const_cast<float *>(x)[threadIdx.x] = 0;  // FAULT
#endif
}
