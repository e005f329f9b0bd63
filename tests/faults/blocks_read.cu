// race between blocks: grid 2, block 64
// A stencil in place: at the block's edge, another block may have written the neighbour.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef MENDED
    const float right = i + 1 < n ? x[i + 1] : 0;
#else
    const float right = i + 1 < n ? y[i + 1] : 0;  // FAULT
#endif
    __syncthreads();
    y[i] = x[i] + right;  // FAULT
}
