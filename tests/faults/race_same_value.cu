// race: grid 1, block 64
// All write the same value to the same place. Today's GPUs allow it, but it is a race.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    if (threadIdx.x == 0)
#endif
        y[0] = n;  // FAULT FAULT
}
