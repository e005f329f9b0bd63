// The product of a block's TILE_LANES lanes and a matrix, for gru.cu and encode.cu. The lanes' rows
// stay in shared memory, so that a number of the matrix, once read, serves all of them.
#pragma once
#include "common.cuh"

#define READ_AHEAD (64 / (int)sizeof(real))  // numbers a thread requests before it uses the first

// One number of each lane of the block: 16 bytes in float, read at once.
struct __align__(16) Lanes {
    real of[TILE_LANES];
};

// The rows of the block's lanes, by columns; zero past the last lane in use.
__device__ inline void load_tile(Lanes *tile, const real *x, int first, int n, int width) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < TILE_LANES * width; i += threads) {
        const int lane = i / width, k = i % width;
        tile[k].of[lane] = first + lane < n ? x[(first + lane) * width + k] : real(0);
    }
}

// Lane threadIdx.y of the tile times a column of a matrix, where threadIdx.y < TILE_LANES; other
// threads get 0. All threads of a block of (TILE_COLUMNS, TILE_PARTS) must call, also those whose
// column is not below `end`.
//
// Each sum is cut into TILE_PARTS parts: part threadIdx.y takes every TILE_PARTS-th row. So
// TILE_PARTS * READ_AHEAD rows are requested at once. The parts are added in order, so results are
// bit-identical from run to run.
__device__ inline real times_column(
    const Lanes *tile, int height, const real *matrix, int stride, int column, int end
) {
    __shared__ real of_part[TILE_PARTS][TILE_LANES][TILE_COLUMNS];
    const int x = threadIdx.x, y = threadIdx.y;
    real sums[TILE_LANES] = {};
    for (int first = y; first < height; first += READ_AHEAD * TILE_PARTS) {
        real weights[READ_AHEAD];
#pragma unroll
        for (int i = 0; i < READ_AHEAD; i++) {
            const int j = first + i * TILE_PARTS;
            weights[i] = j < height && column < end ? matrix[j * stride + column] : real(0);
        }
#pragma unroll
        for (int i = 0; i < READ_AHEAD; i++) {
            const int j = first + i * TILE_PARTS;
            if (j >= height) break;
            const Lanes row = tile[j];
#pragma unroll
            for (int lane = 0; lane < TILE_LANES; lane++) sums[lane] += row.of[lane] * weights[i];
        }
    }
#pragma unroll
    for (int i = 0; i < TILE_LANES; i++) of_part[y][i][x] = sums[i];
    __syncthreads();
    real total = 0;
    if (y < TILE_LANES)
#pragma unroll
        for (int part = 0; part < TILE_PARTS; part++) total += of_part[part][y][x];
    __syncthreads();  // or the next call would write before the last warp has read
    return total;
}

// sums[i] = lane i of the tile times a row of a matrix, in every thread of the warp. The warp reads
// the row coalesced.
__device__ inline void times_row(const Lanes *tile, int width, const real *row, real *sums) {
#pragma unroll
    for (int i = 0; i < TILE_LANES; i++) sums[i] = 0;
    for (int first = threadIdx.x % WARP; first < width; first += 4 * WARP) {
        real weights[4];  // requested before the first is used
#pragma unroll
        for (int i = 0; i < 4; i++)
            weights[i] = first + i * WARP < width ? row[first + i * WARP] : real(0);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (first + i * WARP >= width) break;
            const Lanes column = tile[first + i * WARP];
#pragma unroll
            for (int lane = 0; lane < TILE_LANES; lane++)
                sums[lane] += column.of[lane] * weights[i];
        }
    }
#pragma unroll
    for (int i = 0; i < TILE_LANES; i++) sums[i] = warp_sum(sums[i]);
}

// sums[lane] with a constant index in each round: an array of registers cannot be indexed.
__device__ inline real of_lane(const real *sums, int lane) {
    real mine = 0;
#pragma unroll
    for (int i = 0; i < TILE_LANES; i++) mine = i == lane ? sums[i] : mine;
    return mine;
}
