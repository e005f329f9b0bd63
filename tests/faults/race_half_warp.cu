// race: grid 1, block 32
// Each half of the warp waits for itself alone.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[32];
    const int in_warp = threadIdx.x;
    tile[in_warp] = x[in_warp];  // FAULT
#ifdef MENDED
    __syncwarp();
#else
    __syncwarp(in_warp < 16 ? 0x0000ffff : 0xffff0000);
#endif
    y[in_warp] = tile[31 - in_warp];  // FAULT
}
