// A matrix transposed through tiles in shared memory.
#include <cstdio>
#include <vector>

constexpr int SIDE = 16;

__global__ void transpose(const int *in, int *out, int rows, int columns) {
    __shared__ int tile[SIDE][SIDE + 1];
    int x = blockIdx.x * SIDE + threadIdx.x, y = blockIdx.y * SIDE + threadIdx.y;
    if (y < rows && x < columns) tile[threadIdx.y][threadIdx.x] = in[y * columns + x];
    __syncthreads();
    x = blockIdx.y * SIDE + threadIdx.x;
    y = blockIdx.x * SIDE + threadIdx.y;
    if (y < columns && x < rows) out[y * rows + x] = tile[threadIdx.x][threadIdx.y];
}

int main() {
    const int rows = 45, columns = 70, bytes = rows * columns * sizeof(int);
    std::vector<int> in(rows * columns), out(rows * columns);
    for (int i = 0; i < rows * columns; i++) in[i] = i * i;
    int *d_in, *d_out;
    cudaMalloc(&d_in, bytes);
    cudaMalloc(&d_out, bytes);
    cudaMemcpy(d_in, in.data(), bytes, cudaMemcpyHostToDevice);
    dim3 block(SIDE, SIDE), grid((columns + SIDE - 1) / SIDE, (rows + SIDE - 1) / SIDE);
    transpose<<<grid, block>>>(d_in, d_out, rows, columns);
    cudaMemcpy(out.data(), d_out, bytes, cudaMemcpyDeviceToHost);
    cudaFree(d_in);
    cudaFree(d_out);
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns; x++)
            if (out[x * rows + y] != in[y * columns + x]) return printf("wrong at %d, %d\n", y, x), 1;
    return 0;
}
