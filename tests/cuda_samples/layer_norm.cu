// Each row less its mean, over its standard deviation, scaled and shifted; a warp for each row.
#include <cmath>
#include <cstdio>
#include <vector>

__device__ __forceinline__ float warp_sum(float v) {
    for (int by = 16; by > 0; by >>= 1) v += __shfl_xor_sync(0xffffffff, v, by);
    return v;
}

__global__ void layer_norm(const float *x, const float2 *scale_shift, float *y, int n) {
    const float *row = x + blockIdx.x * n;
    float sum = 0, squares = 0;
    for (int j = threadIdx.x; j < n; j += 32) sum += row[j];
    const float mean = warp_sum(sum) / n;
    for (int j = threadIdx.x; j < n; j += 32) squares += (row[j] - mean) * (row[j] - mean);
    const float inverse = rsqrtf(warp_sum(squares) / n + 1e-5f);
    for (int j = threadIdx.x; j < n; j += 32) {
        float2 s = scale_shift[j];
        y[blockIdx.x * n + j] = (row[j] - mean) * inverse * s.x + s.y;
    }
}

int main() {
    const int rows = 6, n = 100;
    std::vector<float> x(rows * n), y(rows * n);
    std::vector<float2> scale_shift(n);
    for (int i = 0; i < rows * n; i++) x[i] = i * 37 % 101 * 0.1f;
    for (int j = 0; j < n; j++) scale_shift[j] = make_float2(1 + 0.01f * j, -0.5f * j);
    float *d_x, *d_y;
    float2 *d_scale_shift;
    cudaMalloc(&d_x, rows * n * sizeof(float));
    cudaMalloc(&d_y, rows * n * sizeof(float));
    cudaMalloc(&d_scale_shift, n * sizeof(float2));
    cudaMemcpy(d_x, x.data(), rows * n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpy(d_scale_shift, scale_shift.data(), n * sizeof(float2), cudaMemcpyHostToDevice);
    layer_norm<<<rows, 32>>>(d_x, d_scale_shift, d_y, n);
    cudaMemcpy(y.data(), d_y, rows * n * sizeof(float), cudaMemcpyDeviceToHost);
    for (int i = 0; i < rows; i++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < n; j++) mean += x[i * n + j] / double(n);
        for (int j = 0; j < n; j++) variance += std::pow(x[i * n + j] - mean, 2) / n;
        for (int j = 0; j < n; j++) {
            double expected = (x[i * n + j] - mean) / std::sqrt(variance + 1e-5);
            expected = expected * scale_shift[j].x + scale_shift[j].y;
            if (std::fabs(y[i * n + j] - expected) > 1e-3) return printf("row %d\n", i), 1;
        }
    }
    return 0;
}
