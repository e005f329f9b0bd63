// A sum by halves in dynamic shared memory; the blocks' sums by the same kernel.
#include <cstdio>
#include <vector>

__global__ void sum(const long long *x, long long *sums, int n) {
    extern __shared__ long long part[];
    const int t = threadIdx.x;
    long long own = 0;
    for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) own += x[i];
    part[t] = own;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}

int main() {
    const int n = 4000, blocks = 8, threads = 64;
    std::vector<long long> x(n);
    long long expected = 0, result = 0;
    for (int i = 0; i < n; i++) expected += x[i] = 1000003LL * i % 777;
    long long *d_x, *d_sums, *d_result;
    cudaMalloc(&d_x, n * sizeof(long long));
    cudaMalloc(&d_sums, blocks * sizeof(long long));
    cudaMalloc(&d_result, sizeof(long long));
    cudaMemcpy(d_x, x.data(), n * sizeof(long long), cudaMemcpyHostToDevice);
    sum<<<blocks, threads, threads * sizeof(long long)>>>(d_x, d_sums, n);
    sum<<<1, threads, threads * sizeof(long long)>>>(d_sums, d_result, blocks);
    cudaMemcpy(&result, d_result, sizeof result, cudaMemcpyDeviceToHost);
    if (result != expected) return printf("%lld, not %lld\n", result, expected), 1;
    return 0;
}
