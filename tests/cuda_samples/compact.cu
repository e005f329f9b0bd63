// Keeps the positive numbers in their order: places by ballots and prefix sums over the warps.
#include <cstdio>
#include <vector>

constexpr int BLOCK = 128;

__global__ void compact(const int *x, int *kept, int *count, int n) {
    __shared__ int warps[BLOCK / 32];
    __shared__ int before;
    if (threadIdx.x == 0) before = 0;
    for (int first = 0; first < n; first += BLOCK) {
        const int i = first + threadIdx.x, warp = threadIdx.x / 32;
        const int value = i < n ? x[i] : 0;
        const unsigned keep = __ballot_sync(0xffffffff, value > 0);
        if (threadIdx.x % 32 == 0) warps[warp] = __popc(keep);
        __syncthreads();
        int place = before + __popc(keep & ((1u << threadIdx.x % 32) - 1)), sum = 0;
        for (int w = 0; w < BLOCK / 32; w++) {
            if (w < warp) place += warps[w];
            sum += warps[w];
        }
        if (value > 0) kept[place] = value;
        __syncthreads();
        if (threadIdx.x == 0) before += sum;
    }
    if (threadIdx.x == 0) *count = before;
}

int main() {
    const int n = 1500;
    std::vector<int> x(n), expected;
    for (int i = 0; i < n; i++) {
        x[i] = i * 7919 % 211 - 100;
        if (x[i] > 0) expected.push_back(x[i]);
    }
    int *d_x, *d_kept, *d_count, count = 0;
    cudaMalloc(&d_x, n * sizeof(int));
    cudaMalloc(&d_kept, n * sizeof(int));
    cudaMalloc(&d_count, sizeof(int));
    cudaMemcpy(d_x, x.data(), n * sizeof(int), cudaMemcpyHostToDevice);
    compact<<<1, BLOCK>>>(d_x, d_kept, d_count, n);
    cudaMemcpy(&count, d_count, sizeof(int), cudaMemcpyDeviceToHost);
    if (count != (int)expected.size()) return printf("%d are kept\n", count), 1;
    std::vector<int> kept(count);
    cudaMemcpy(kept.data(), d_kept, count * sizeof(int), cudaMemcpyDeviceToHost);
    cudaFree(d_x);
    cudaFree(d_kept);
    cudaFree(d_count);
    return kept != expected;
}
