// race: grid 1, block 64
// Overwrites a tile that slower threads still read: a loop over tiles needs two barriers.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[64];
    float sum = 0;
    for (int step = 0; step < 3; step++) {
        tile[threadIdx.x] = x[threadIdx.x] + step;  // FAULT
        __syncthreads();
        sum += tile[63 - threadIdx.x];  // FAULT
#ifdef MENDED
        __syncthreads();
#endif
    }
    y[threadIdx.x] = sum;
}
