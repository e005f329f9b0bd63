// order: grid 1, block 64
// The last thread wins. Variables outside of kernels are not watched, but the result shows it.
__device__ int chosen;
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    if (threadIdx.x == 0)
#endif
        chosen = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = chosen;
}
