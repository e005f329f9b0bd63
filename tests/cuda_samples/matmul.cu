// C = A B by tiles in shared memory; sizes need not be multiples of the tile.
#include <cmath>
#include <cstdio>
#include <vector>

template <int SIDE>
__global__ void __launch_bounds__(SIDE *SIDE)
multiply(const float *A, const float *B, float *C, int M, int N, int K) {
    __shared__ float a[SIDE][SIDE], b[SIDE][SIDE];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * SIDE + y, column = blockIdx.x * SIDE + x;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += SIDE) {
        a[y][x] = row < M && k0 + x < K ? A[row * K + k0 + x] : 0;
        b[y][x] = k0 + y < K && column < N ? B[(k0 + y) * N + column] : 0;
        __syncthreads();
        for (int k = 0; k < SIDE; k++) sum += a[y][k] * b[k][x];
        __syncthreads();
    }
    if (row < M && column < N) C[row * N + column] = sum;
}

static float *on_device(const std::vector<float> &values) {
    float *copy;
    cudaMalloc(&copy, values.size() * sizeof(float));
    cudaMemcpy(copy, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice);
    return copy;
}

int main() {
    const int M = 19, N = 25, K = 30;
    std::vector<float> A(M * K), B(K * N), C(M * N);
    for (int i = 0; i < M * K; i++) A[i] = 0.01f * (i % 37);
    for (int i = 0; i < K * N; i++) B[i] = 0.02f * (i % 23) - 0.2f;
    float *d_A = on_device(A), *d_B = on_device(B), *d_C = on_device(C);
    multiply<8><<<dim3((N + 7) / 8, (M + 7) / 8), dim3(8, 8)>>>(d_A, d_B, d_C, M, N, K);
    cudaMemcpy(C.data(), d_C, C.size() * sizeof(float), cudaMemcpyDeviceToHost);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++) sum += A[i * K + k] * B[k * N + j];
            if (std::fabs(C[i * N + j] - sum) > 1e-4f) return printf("wrong at %d, %d\n", i, j), 1;
        }
    return 0;
}
