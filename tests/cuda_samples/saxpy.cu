// y = a x + y by a loop over the grid, timed with events.
#include <cmath>
#include <cstdio>
#include <vector>

__global__ void saxpy(int n, float a, const float *__restrict__ x, float *__restrict__ y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = fmaf(a, x[i], y[i]);
}

int main() {
    const int n = 5000;
    std::vector<float> x(n), y(n), result(n);
    for (int i = 0; i < n; i++) {
        x[i] = i % 17;
        y[i] = i % 5;
    }
    float *d_x = nullptr, *d_y = nullptr;
    cudaMalloc((void **)&d_x, n * sizeof(float));
    cudaMalloc((void **)&d_y, n * sizeof(float));
    cudaMemcpy(d_x, x.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpy(d_y, y.data(), n * sizeof(float), cudaMemcpyHostToDevice);

    cudaEvent_t start, stop;
    cudaEventCreate(&start);
    cudaEventCreate(&stop);
    cudaEventRecord(start);
    saxpy<<<dim3(4), dim3(128), 0, 0>>>(n, 2.5f, d_x, d_y);
    cudaEventRecord(stop);
    cudaEventSynchronize(stop);
    float milliseconds = -1;
    cudaEventElapsedTime(&milliseconds, start, stop);
    cudaEventDestroy(start);
    cudaEventDestroy(stop);

    cudaMemcpy(result.data(), d_y, n * sizeof(float), cudaMemcpyDeviceToHost);
    cudaFree(d_x);
    cudaFree(d_y);
    int wrong = milliseconds < 0;
    for (int i = 0; i < n; i++) wrong += std::fabs(result[i] - (2.5f * x[i] + y[i])) > 1e-5f;
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
