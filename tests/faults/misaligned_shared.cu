// misaligned: grid 1, block 16, shared 512
// The doubles come after an odd number of floats.
extern "C" __global__ void kernel(const float *x, float *y, int n) {
    extern __shared__ double raw[];
    float *floats = reinterpret_cast<float *>(raw);
#ifdef MENDED
    double *doubles = reinterpret_cast<double *>(floats + n - 112);
#else
    double *doubles = reinterpret_cast<double *>(floats + n - 113);
#endif
    doubles[threadIdx.x] = x[threadIdx.x];  // FAULT
    y[threadIdx.x] = doubles[threadIdx.x];
}
