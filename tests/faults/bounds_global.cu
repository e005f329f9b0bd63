// out of bounds: grid 3, block 64
// The last block has more threads than there is work left.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef MENDED
    if (i < n)
#endif
        y[i] = 1;  // FAULT
}
