// race: grid 1, block 64
// One byte per thread, four in a word: a race only if two threads share a byte.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ unsigned char flags[64];
#ifdef MENDED
    const int i = threadIdx.x;
#else
    const int i = threadIdx.x / 2;
#endif
    flags[i] = x[threadIdx.x] > 0.5f;  // FAULT FAULT
    __syncthreads();
    y[threadIdx.x] = flags[i] + 1;
}
