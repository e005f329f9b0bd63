// misaligned: grid 1, block 16
// A load of 16 bytes must start at a multiple of 16.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
#ifdef MENDED
    const float *from = x + 4;
#else
    const float *from = x + 1;
#endif
    float4 v = reinterpret_cast<const float4 *>(from)[threadIdx.x];  // FAULT
    y[threadIdx.x] = v.x + v.y + v.z + v.w;
}
