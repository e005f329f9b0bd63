// uninitialised: grid 1, block 64
// Adds to a sum that no thread has set to zero.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float sum[64];
#ifdef MENDED
    sum[threadIdx.x] = 0;
#endif
    sum[threadIdx.x] += x[threadIdx.x];  // FAULT
    y[threadIdx.x] = sum[threadIdx.x];
}
