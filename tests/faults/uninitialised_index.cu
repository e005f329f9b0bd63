// uninitialised: grid 1, block 64
// What comes of it, an index out of bounds, is not the fault to look for.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ int first;
#ifdef MENDED
    if (threadIdx.x == 0) first = 0;
    __syncthreads();
#endif
    const int i = first + threadIdx.x;  // FAULT
    __syncthreads();
    if (threadIdx.x == 0) first = 64;
    y[i] = 1;
    __syncthreads();
    y[first + threadIdx.x] = 2;
}
