// race: grid 1, block 32
// Lane 0 tells lane 1, which tells lane 2; the other way round, lane 2 learns nothing.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float value;
    const int lane = threadIdx.x;
    if (lane == 0) value = x[0];  // FAULT
#ifdef MENDED
    if (lane == 0 || lane == 1) __syncwarp(0x3);
    if (lane == 1 || lane == 2) __syncwarp(0x6);
#else
    if (lane == 1 || lane == 2) __syncwarp(0x6);
    if (lane == 0 || lane == 1) __syncwarp(0x3);
#endif
    if (lane == 2) y[0] = value;  // FAULT
}
