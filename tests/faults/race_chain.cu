// race: grid 1, block 32
// Thread 0 syncs with 1, which syncs with 2. In the other order thread 2 learns nothing of 0.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float value;
    const int in_warp = threadIdx.x;
    if (in_warp == 0) value = x[0];  // FAULT
#ifdef MENDED
    if (in_warp == 0 || in_warp == 1) __syncwarp(0x3);
    if (in_warp == 1 || in_warp == 2) __syncwarp(0x6);
#else
    if (in_warp == 1 || in_warp == 2) __syncwarp(0x6);
    if (in_warp == 0 || in_warp == 1) __syncwarp(0x3);
#endif
    if (in_warp == 2) y[0] = value;  // FAULT
}
