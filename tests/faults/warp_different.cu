// warp: grid 1, block 32
// The halves of the warp vote at two places, each with the whole warp's mask.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    int vote;
#ifdef MENDED
    if (n > 0)
#else
    if (threadIdx.x < 16)
#endif
        vote = __any_sync(0xffffffff, x[threadIdx.x] > 0.5f);  // FAULT
    else
        vote = __any_sync(0xffffffff, x[threadIdx.x] > 0.7f);  // FAULT
    y[threadIdx.x] = vote;
}
