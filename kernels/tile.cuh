// A block's few lanes times a matrix, for gru.cu and encode.cu: the lanes wait in shared memory, so
// that a number of the matrix, once read, serves all of them.
#pragma once
#include "common.cuh"

#define TILE 4       // lanes of a block
#define COLUMNS 128  // of the matrix at a time, threadIdx.x
#define PARTS 8      // of each sum, threadIdx.y
#define AHEAD (64 / (int)sizeof(real))  // numbers that a thread asks for before it needs the first

// A number of each of the block's lanes: 16 bytes in float, read at once.
struct __align__(16) Lanes {
    real of[TILE];
};

// The rows of the block's lanes, by columns; zero past the last lane in use.
__device__ inline void load_tile(Lanes *tile, const real *x, int first, int n, int width) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < TILE * width; i += threads) {
        const int lane = i / width, k = i % width;
        tile[k].of[lane] = first + lane < n ? x[(first + lane) * width + k] : real(0);
    }
}

// Lane threadIdx.y of the tile times a column of a matrix, for the first TILE of threadIdx.y; the
// others get 0. All threads of a block of (COLUMNS, PARTS) must call; those whose column is not
// below `end` have none. Each part of the block takes every eighth row, so PARTS * AHEAD rows are
// under way at once instead of one after the other, and the parts' sums are added in order: always
// the same bits.
__device__ inline real times_column(
    const Lanes *tile, int height, const real *matrix, int stride, int column, int end
) {
    __shared__ real of_parts[PARTS][TILE][COLUMNS];
    const int x = threadIdx.x, y = threadIdx.y;
    real sums[TILE] = {};
    for (int first = y; first < height; first += AHEAD * PARTS) {
        real weights[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int j = first + i * PARTS;
            weights[i] = j < height && column < end ? matrix[j * stride + column] : real(0);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int j = first + i * PARTS;
            if (j >= height) break;
            const Lanes row = tile[j];
#pragma unroll
            for (int lane = 0; lane < TILE; lane++) sums[lane] += row.of[lane] * weights[i];
        }
    }
#pragma unroll
    for (int i = 0; i < TILE; i++) of_parts[y][i][x] = sums[i];
    __syncthreads();
    real total = 0;
    if (y < TILE)
#pragma unroll
        for (int part = 0; part < PARTS; part++) total += of_parts[part][y][x];
    __syncthreads();  // or the next call would write before the last warp has read
    return total;
}

// sums[i] = lane i of the tile times a row of a matrix, in every thread of the warp, which reads
// the row side by side.
__device__ inline void times_row(const Lanes *tile, int width, const real *row, real *sums) {
#pragma unroll
    for (int i = 0; i < TILE; i++) sums[i] = 0;
    for (int first = threadIdx.x % WARP; first < width; first += 4 * WARP) {
        real weights[4];  // asked for before the first is needed
#pragma unroll
        for (int i = 0; i < 4; i++)
            weights[i] = first + i * WARP < width ? row[first + i * WARP] : real(0);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (first + i * WARP >= width) break;
            const Lanes column = tile[first + i * WARP];
#pragma unroll
            for (int lane = 0; lane < TILE; lane++) sums[lane] += column.of[lane] * weights[i];
        }
    }
#pragma unroll
    for (int i = 0; i < TILE; i++) sums[i] = warp_sum(sums[i]);
}

// sums[lane], by constant places: an array of registers has no address.
__device__ inline real of_lane(const real *sums, int lane) {
    real mine = 0;
#pragma unroll
    for (int i = 0; i < TILE; i++) mine = i == lane ? sums[i] : mine;
    return mine;
}
