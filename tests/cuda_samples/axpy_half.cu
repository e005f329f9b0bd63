// y = a x + y in half precision, by a fused multiply-add.
#include <cuda_fp16.h>

#include <cmath>
#include <cstdio>
#include <vector>

__global__ void axpy(__half a, const __half *x, __half *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __hfma(a, x[i], y[i]);
}

int main() {
    const int n = 700;
    const float a = 1.5f;
    std::vector<__half> x(n), y(n), result(n);
    for (int i = 0; i < n; i++) {
        x[i] = __float2half(0.01f * i);
        y[i] = __float2half(3 - 0.1f * i);
    }
    __half *d_x, *d_y;
    cudaMalloc(&d_x, n * sizeof(__half));
    cudaMalloc(&d_y, n * sizeof(__half));
    cudaMemcpy(d_x, x.data(), n * sizeof(__half), cudaMemcpyHostToDevice);
    cudaMemcpy(d_y, y.data(), n * sizeof(__half), cudaMemcpyHostToDevice);
    axpy<<<(n + 127) / 128, 128>>>(__float2half(a), d_x, d_y, n);
    cudaMemcpy(result.data(), d_y, n * sizeof(__half), cudaMemcpyDeviceToHost);
    for (int i = 0; i < n; i++) {
        float exact = a * __half2float(x[i]) + __half2float(y[i]);
        float error = std::fabs(__half2float(result[i]) - exact);
        if (error > 0.0005f * std::fabs(exact) + 1e-7f)
            return printf("y[%d] is %g, not %g\n", i, __half2float(result[i]), exact), 1;
    }
    return 0;
}
