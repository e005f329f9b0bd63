// uninitialised: grid 1, block 64
// The index that follows is out of bounds, but the cause is the fault to report.
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
