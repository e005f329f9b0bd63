// warp: grid 1, block 48
// The last warp has 16 threads. What comes from the others is undefined.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    float v = x[threadIdx.x];
#ifdef MENDED
    for (int distance = 8; distance > 0; distance /= 2)
#else
    for (int distance = 16; distance > 0; distance /= 2)
#endif
        v += __shfl_xor_sync(0xffffffff, v, distance);  // FAULT
    y[threadIdx.x] = v;
}
