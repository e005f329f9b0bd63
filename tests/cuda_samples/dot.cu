// A dot product: the blocks' sums are added by atomics to a variable of the device.
#include <cmath>
#include <cstdio>
#include <vector>

__device__ float total;

__global__ void dot(const float *x, const float *y, int n) {
    __shared__ float part[128];
    float sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += x[i] * y[i];
    part[threadIdx.x] = sum;
    for (int half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    if (threadIdx.x == 0) atomicAdd(&total, part[0]);
}

int main() {
    const int n = 2500;
    std::vector<float> x(n), y(n);
    double expected = 0;
    for (int i = 0; i < n; i++) {
        x[i] = 0.001f * i;
        y[i] = i % 7 - 3.5f;
        expected += (double)x[i] * y[i];
    }
    float *d_x, *d_y, result = 0;
    cudaMalloc(&d_x, n * sizeof(float));
    cudaMalloc(&d_y, n * sizeof(float));
    cudaMemcpy(d_x, x.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpy(d_y, y.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpyToSymbol(total, &result, sizeof result);
    dot<<<4, 128>>>(d_x, d_y, n);
    cudaMemcpyFromSymbol(&result, total, sizeof result);
    if (std::fabs(result - expected) > 1e-2) return printf("%g, not %g\n", result, expected), 1;
    return 0;
}
