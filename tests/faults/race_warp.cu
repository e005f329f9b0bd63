// race: grid 1, block 32
// A sum in shared memory by one warp. Its lanes do not keep step by themselves.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    __shared__ float part[32];
    const int lane = threadIdx.x;
    part[lane] = x[lane];
    __syncwarp();
    for (int distance = 16; distance > 0; distance /= 2) {
        if (lane < distance) part[lane] += part[lane + distance];  // FAULT FAULT
#ifdef MENDED
        __syncwarp();
#endif
    }
    if (lane == 0) y[0] = part[0];
}
