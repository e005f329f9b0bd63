// race: grid 1, block 64
// A byte for each thread, four in a word: no race, unless two threads have the same byte.
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
