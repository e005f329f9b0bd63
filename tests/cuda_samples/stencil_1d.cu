// Weighted sums of neighbours; a block loads its part and a halo of R on each side.
#include <cmath>
#include <cstdio>
#include <vector>

constexpr int R = 3, BLOCK = 64;
__constant__ float weights[2 * R + 1];

__global__ void stencil(const float *x, float *y, int n) {
    __shared__ float part[BLOCK + 2 * R];
    const int t = threadIdx.x, i = blockIdx.x * BLOCK + t;
    part[t + R] = i < n ? x[i] : 0;
    if (t < R) {
        part[t] = i >= R ? x[i - R] : 0;
        part[t + R + BLOCK] = i + BLOCK < n ? x[i + BLOCK] : 0;
    }
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int k = -R; k <= R; k++) sum += weights[k + R] * part[t + R + k];
    if (i < n) y[i] = sum;
}

int main() {
    const int n = 1000;
    const float w[2 * R + 1] = {0.1f, -0.2f, 0.3f, 1.0f, 0.3f, -0.2f, 0.1f};
    std::vector<float> x(n), y(n);
    for (int i = 0; i < n; i++) x[i] = std::sin(0.1f * i);
    float *d_x, *d_y;
    cudaMalloc(&d_x, n * sizeof(float));
    cudaMalloc(&d_y, n * sizeof(float));
    cudaMemcpyToSymbol(weights, w, sizeof w);
    cudaMemcpy(d_x, x.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    stencil<<<(n + BLOCK - 1) / BLOCK, BLOCK>>>(d_x, d_y, n);
    cudaMemcpy(y.data(), d_y, n * sizeof(float), cudaMemcpyDeviceToHost);
    for (int i = 0; i < n; i++) {
        float sum = 0;
        for (int k = -R; k <= R; k++)
            if (i + k >= 0 && i + k < n) sum += w[k + R] * x[i + k];
        if (std::fabs(y[i] - sum) > 1e-5f) return printf("y[%d] is %g, not %g\n", i, y[i], sum), 1;
    }
    return 0;
}
