// race: grid 1, block 32
// Each half of the warp waits for itself alone.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float tile[32];
    const int lane = threadIdx.x;
    tile[lane] = x[lane];  // FAULT
#ifdef MENDED
    __syncwarp();
#else
    __syncwarp(lane < 16 ? 0x0000ffff : 0xffff0000);
#endif
    y[lane] = tile[31 - lane];  // FAULT
}
