// out of bounds: grid 1, block 64, shared 256
// The launch gives memory for 64 floats.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    extern __shared__ float tile[];
#ifdef MENDED
    const int i = threadIdx.x;
#else
    const int i = 2 * threadIdx.x;
#endif
    tile[i] = x[threadIdx.x];  // FAULT
    y[threadIdx.x] = tile[i];
}
