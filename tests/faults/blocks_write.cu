// race between blocks: grid 2, block 64
// The index lacks the block's number.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
#else
    const int i = threadIdx.x;
#endif
    y[i] = x[i];  // FAULT FAULT
}
