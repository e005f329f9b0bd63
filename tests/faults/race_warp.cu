// race: grid 1, block 32
// A sum in shared memory by one warp. Its threads do not run in step by themselves.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float part[32];
    const int in_warp = threadIdx.x;
    part[in_warp] = x[in_warp];
    __syncwarp();
    for (int distance = 16; distance > 0; distance /= 2) {
        if (in_warp < distance) part[in_warp] += part[in_warp + distance];  // FAULT FAULT
#ifdef MENDED
        __syncwarp();
#endif
    }
    if (in_warp == 0) y[0] = part[0];
}
