// The softmax of each row, a block for each. Shared memory holds a row and then its exponentials.
#include <cmath>
#include <cstdio>
#include <vector>

struct Largest {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};

template <class Op> __device__ float over_block(float v, Op op) {
    __shared__ float part[64];
    part[threadIdx.x] = v;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] = op(part[threadIdx.x], part[threadIdx.x + half]);
        __syncthreads();
    }
    v = part[0];
    __syncthreads();
    return v;
}

__global__ void softmax(const float *scores, float *p, int n) {
    extern __shared__ float row[];
    const float *own = scores + blockIdx.x * n;
    float most = -INFINITY, sum = 0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        row[j] = own[j];
        most = fmaxf(most, row[j]);
    }
    most = over_block(most, Largest());
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += row[j] = expf(row[j] - most);
    sum = over_block(sum, Sum());
    for (int j = threadIdx.x; j < n; j += blockDim.x) p[blockIdx.x * n + j] = row[j] / sum;
}

int main() {
    const int rows = 7, n = 150;
    std::vector<float> scores(rows * n), p(rows * n);
    for (int i = 0; i < rows * n; i++) scores[i] = 100 + 0.37f * (i * 31 % 57);
    float *d_scores, *d_p;
    cudaMalloc(&d_scores, rows * n * sizeof(float));
    cudaMalloc(&d_p, rows * n * sizeof(float));
    cudaMemcpy(d_scores, scores.data(), rows * n * sizeof(float), cudaMemcpyHostToDevice);
    softmax<<<rows, 64, n * sizeof(float)>>>(d_scores, d_p, n);
    cudaMemcpy(p.data(), d_p, rows * n * sizeof(float), cudaMemcpyDeviceToHost);
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++) sum += std::exp((double)scores[i * n + j]);
        for (int j = 0; j < n; j++) {
            double expected = std::exp((double)scores[i * n + j]) / sum;
            if (std::fabs(p[i * n + j] - expected) > 1e-6) return printf("row %d\n", i), 1;
        }
    }
    return 0;
}
