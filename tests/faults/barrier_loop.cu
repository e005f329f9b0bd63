// barrier: grid 1, block 64
// A barrier in a loop that some threads run more often than others.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    float sum = 0;
#ifdef MENDED
    for (int i = threadIdx.x & ~63; i < 100; i += 64) {
#else
    for (int i = threadIdx.x; i < 100; i += 64) {
#endif
        sum += x[i];
        __syncthreads();  // FAULT
    }
    y[threadIdx.x] = sum;
}
