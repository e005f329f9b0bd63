// How often each byte occurs: counted in shared memory, then added to the result.
#include <cstdio>
#include <vector>

constexpr int BINS = 256;

__global__ void histogram(const unsigned char *data, unsigned *counts, int n) {
    __shared__ unsigned own[BINS];
    for (int b = threadIdx.x; b < BINS; b += blockDim.x) own[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&own[data[i]], 1u);
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += blockDim.x) atomicAdd(&counts[b], own[b]);
}

int main() {
    const int n = 6000;
    std::vector<unsigned char> data(n);
    std::vector<unsigned> counts(BINS), expected(BINS);
    unsigned state = 1;
    for (auto &byte : data) {
        state = state * 1664525 + 1013904223;
        byte = state >> 24;
        expected[byte]++;
    }
    unsigned char *d_data;
    unsigned *d_counts;
    cudaMalloc(&d_data, n);
    cudaMalloc(&d_counts, BINS * sizeof(unsigned));
    cudaMemcpy(d_data, data.data(), n, cudaMemcpyHostToDevice);
    cudaMemset(d_counts, 0, BINS * sizeof(unsigned));
    histogram<<<5, 64>>>(d_data, d_counts, n);
    cudaMemcpy(counts.data(), d_counts, BINS * sizeof(unsigned), cudaMemcpyDeviceToHost);
    if (counts != expected) return printf("a count is wrong\n"), 1;
    return 0;
}
