// out of bounds: grid 1, block 64
// Within the tile's memory, but in its next row.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[3][64];
#ifdef MENDED
    const int column = threadIdx.x;
#else
    const int column = threadIdx.x + 1;
#endif
    tile[0][column] = x[threadIdx.x];  // FAULT
    y[threadIdx.x] = tile[0][column];
}
