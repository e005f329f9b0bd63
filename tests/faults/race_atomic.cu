// race: grid 1, block 64
// The count is read while others still add to it.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    if (x[threadIdx.x] > 0.5f) atomicAdd(&count, 1);  // FAULT
#ifdef MENDED
    __syncthreads();
#endif
    if (threadIdx.x == 63) y[0] = count;  // FAULT
}
