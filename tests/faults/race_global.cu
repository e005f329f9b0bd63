// race: grid 1, block 64
// Threads of a block exchange values through global memory.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    y[threadIdx.x] = x[threadIdx.x];  // FAULT
#ifdef MENDED
    __syncthreads();
#endif
    float other = y[63 - threadIdx.x];  // FAULT
    __syncthreads();
    y[threadIdx.x] = other;
}
