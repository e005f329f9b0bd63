// Prefix sums of any length: in each block, of the blocks' sums, and both added.
#include <cstdio>
#include <vector>

constexpr int BLOCK = 128;

// Inclusive sums of each block's part, and its whole sum.
__global__ void scan_blocks(const int *x, int *y, int *sums, int n) {
    __shared__ int part[BLOCK];
    const int t = threadIdx.x, i = blockIdx.x * BLOCK + t;
    part[t] = i < n ? x[i] : 0;
    __syncthreads();
    for (int by = 1; by < BLOCK; by *= 2) {
        int before = t >= by ? part[t - by] : 0;
        __syncthreads();
        part[t] += before;
        __syncthreads();
    }
    if (i < n) y[i] = part[t];
    if (sums && t == BLOCK - 1) sums[blockIdx.x] = part[t];
}

__global__ void add_sums(int *y, const int *sums, int n) {
    const int i = blockIdx.x * BLOCK + threadIdx.x;
    if (blockIdx.x > 0 && i < n) y[i] += sums[blockIdx.x - 1];
}

int main() {
    const int n = 3000, blocks = (n + BLOCK - 1) / BLOCK;
    std::vector<int> x(n), y(n);
    for (int i = 0; i < n; i++) x[i] = i * 7 % 13 - 5;
    int *d_x, *d_y, *d_sums;
    cudaMalloc(&d_x, n * sizeof(int));
    cudaMalloc(&d_y, n * sizeof(int));
    cudaMalloc(&d_sums, blocks * sizeof(int));
    cudaMemcpy(d_x, x.data(), n * sizeof(int), cudaMemcpyHostToDevice);
    scan_blocks<<<blocks, BLOCK>>>(d_x, d_y, d_sums, n);
    scan_blocks<<<1, BLOCK>>>(d_sums, d_sums, nullptr, blocks);
    add_sums<<<blocks, BLOCK>>>(d_y, d_sums, n);
    cudaMemcpy(y.data(), d_y, n * sizeof(int), cudaMemcpyDeviceToHost);
    int sum = 0;
    for (int i = 0; i < n; i++)
        if (y[i] != (sum += x[i])) return printf("y[%d] is %d, not %d\n", i, y[i], sum), 1;
    return 0;
}
