// A maximum and a sum by cooperative groups: tiles of 16 threads, then the first tile of the block.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

#include <cstdio>
#include <vector>

namespace cg = cooperative_groups;
constexpr int TILE = 16, BLOCK = 256;

__global__ void most_and_sum(const int *x, int *most, int *sum) {
    __shared__ int tops[BLOCK / TILE], sums[BLOCK / TILE];
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<TILE> tile = cg::tiled_partition<TILE>(block);
    const int own = x[blockIdx.x * block.size() + block.thread_rank()];
    int top = own;
    for (int by = tile.size() / 2; by > 0; by /= 2) top = max(top, tile.shfl_xor(top, by));
    const int total = cg::reduce(tile, own, cg::plus<int>());
    if (tile.thread_rank() == 0) {
        tops[tile.meta_group_rank()] = top;
        sums[tile.meta_group_rank()] = total;
    }
    block.sync();
    if (tile.meta_group_rank() == 0) {
        top = cg::reduce(tile, tops[tile.thread_rank()], cg::greater<int>());
        const int whole = cg::reduce(tile, sums[tile.thread_rank()], cg::plus<int>());
        if (tile.thread_rank() == 0) {
            most[blockIdx.x] = top;
            sum[blockIdx.x] = whole;
        }
    }
}

int main() {
    const int blocks = 4, n = blocks * BLOCK;
    std::vector<int> x(n), most(blocks), sum(blocks);
    for (int i = 0; i < n; i++) x[i] = i * 7919 % 1009 - 500;
    int *d_x, *d_most, *d_sum;
    cudaMalloc(&d_x, n * sizeof(int));
    cudaMalloc(&d_most, blocks * sizeof(int));
    cudaMalloc(&d_sum, blocks * sizeof(int));
    cudaMemcpy(d_x, x.data(), n * sizeof(int), cudaMemcpyHostToDevice);
    most_and_sum<<<blocks, BLOCK>>>(d_x, d_most, d_sum);
    cudaMemcpy(most.data(), d_most, blocks * sizeof(int), cudaMemcpyDeviceToHost);
    cudaMemcpy(sum.data(), d_sum, blocks * sizeof(int), cudaMemcpyDeviceToHost);
    for (int b = 0; b < blocks; b++) {
        int top = x[b * BLOCK], total = 0;
        for (int i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
            top = x[i] > top ? x[i] : top;
            total += x[i];
        }
        if (most[b] != top || sum[b] != total) return printf("block %d is wrong\n", b), 1;
    }
    return 0;
}
