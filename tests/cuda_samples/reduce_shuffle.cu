// A sum by shuffles within warps, then of the warps' sums.
#include <cstdio>
#include <vector>

__device__ int warp_sum(int v) {
    for (int by = warpSize / 2; by > 0; by /= 2) v += __shfl_down_sync(0xffffffff, v, by);
    return v;
}

__global__ void sum(const int *x, int *total, int n) {
    __shared__ int warps[32];
    const int lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
    int v = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        v += x[i];
    v = warp_sum(v);
    if (lane == 0) warps[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = lane < blockDim.x / warpSize ? warps[lane] : 0;
        v = warp_sum(v);
        if (lane == 0) atomicAdd(total, v);
    }
}

int main() {
    const int n = 5000;
    std::vector<int> x(n);
    int expected = 0, result = 0;
    for (int i = 0; i < n; i++) expected += x[i] = i % 100 - 20;
    int *d_x, *d_total;
    cudaMalloc(&d_x, n * sizeof(int));
    cudaMalloc(&d_total, sizeof(int));
    cudaMemcpy(d_x, x.data(), n * sizeof(int), cudaMemcpyHostToDevice);
    cudaMemset(d_total, 0, sizeof(int));
    sum<<<6, 128>>>(d_x, d_total, n);
    cudaMemcpy(&result, d_total, sizeof(int), cudaMemcpyDeviceToHost);
    if (result != expected) return printf("%d, not %d\n", result, expected), 1;
    return 0;
}
