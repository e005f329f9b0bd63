// y = A x, a warp for each row.
#include <cmath>
#include <cstdio>
#include <vector>

__global__ void multiply(const double *A, const double *x, double *y, int rows, int columns) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (row >= rows) return;
    double sum = 0;
    for (int j = lane; j < columns; j += 32) sum += A[row * columns + j] * x[j];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (lane == 0) y[row] = sum;
}

int main() {
    const int rows = 37, columns = 75;
    std::vector<double> A(rows * columns), x(columns), y(rows);
    for (int i = 0; i < rows * columns; i++) A[i] = i % 19 - 9.5;
    for (int j = 0; j < columns; j++) x[j] = 1.0 / (1 + j);
    double *d_A, *d_x, *d_y;
    cudaMalloc(&d_A, A.size() * sizeof(double));
    cudaMalloc(&d_x, x.size() * sizeof(double));
    cudaMalloc(&d_y, y.size() * sizeof(double));
    cudaMemcpy(d_A, A.data(), A.size() * sizeof(double), cudaMemcpyDefault);
    cudaMemcpy(d_x, x.data(), x.size() * sizeof(double), cudaMemcpyDefault);
    multiply<<<(rows + 3) / 4, dim3(32, 4)>>>(d_A, d_x, d_y, rows, columns);
    cudaMemcpy(y.data(), d_y, y.size() * sizeof(double), cudaMemcpyDefault);
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int j = 0; j < columns; j++) sum += A[i * columns + j] * x[j];
        if (std::fabs(y[i] - sum) > 1e-10) return printf("y[%d] is %g, not %g\n", i, y[i], sum), 1;
    }
    return 0;
}
