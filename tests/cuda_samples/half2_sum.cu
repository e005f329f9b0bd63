// A sum of halves, two at a time: short sums in half2, longer ones in float.
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <vector>

__global__ void sum(const __half *x, float *total, int n) {
    const __half2 *pairs = reinterpret_cast<const __half2 *>(x);
    __half2 own = __float2half2_rn(0.0f);
    for (int i = threadIdx.x; i < n / 2; i += blockDim.x) own = __hadd2(own, pairs[i]);
    float2 both = __half22float2(own);
    float v = both.x + both.y;
    for (int by = 16; by > 0; by /= 2) v += __shfl_down_sync(0xffffffff, v, by);
    if (threadIdx.x % 32 == 0) atomicAdd(total, v);
}

int main() {
    const int n = 1024;
    std::vector<__half> x(n);
    float expected = 0, result = 0;
    for (int i = 0; i < n; i++) {
        x[i] = __float2half(0.25f * (i % 9) - 0.5f);
        expected += __half2float(x[i]);
    }
    __half *d_x;
    float *d_total;
    cudaMalloc(&d_x, n * sizeof(__half));
    cudaMalloc(&d_total, sizeof(float));
    cudaMemcpy(d_x, x.data(), n * sizeof(__half), cudaMemcpyHostToDevice);
    cudaMemset(d_total, 0, sizeof(float));
    sum<<<1, 128>>>(d_x, d_total, n);
    cudaMemcpy(&result, d_total, sizeof(float), cudaMemcpyDeviceToHost);
    if (std::fabs(result - expected) > 0.01f) return printf("%g, not %g\n", result, expected), 1;
    return 0;
}
