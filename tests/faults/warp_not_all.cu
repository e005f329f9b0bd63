// warp: grid 1, block 32
// The mask names threads that have returned.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifndef MENDED
    if (threadIdx.x >= 20) return;
#endif
    float sum = x[threadIdx.x];
    sum += __shfl_xor_sync(0xffffffff, sum, 1);  // FAULT
    y[threadIdx.x] = sum;
}
