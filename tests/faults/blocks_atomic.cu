// race between blocks: grid 2, block 64
// One block clears a sum to which the other may already have added.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifndef MENDED
    if (blockIdx.x == 0 && threadIdx.x == 0) y[0] = 0;  // FAULT
    __syncthreads();
#endif
    atomicAdd(&y[0], x[threadIdx.x]);  // FAULT
}
