// race: grid 1, block 64, shared 512
// Two arrays overlap in dynamic shared memory by mistake.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    extern __shared__ float memory[];
    float *a = memory;
#ifdef MENDED
    float *b = memory + 64;
#else
    float *b = memory + 32;
#endif
    a[threadIdx.x] = x[threadIdx.x];  // FAULT
    b[threadIdx.x] = x[threadIdx.x];  // FAULT
    __syncthreads();
    y[threadIdx.x] = a[63 - threadIdx.x] + b[63 - threadIdx.x];
}
