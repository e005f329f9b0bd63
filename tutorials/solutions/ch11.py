"""Solutions of notebook 11, CUDA by puzzles."""

# exercise 11.1

sgd = r"""
extern "C" __global__ void sgd(const float *p, const float *g, float rate, int n, float *out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = p[i] - rate * g[i];
}
"""

# exercise 11.2

gather = r"""
extern "C" __global__ void gather(const float *E, const int *x, int H, float *out) {
    const int b = blockIdx.x, row = x[b];
    for (int k = threadIdx.x; k < H; k += blockDim.x) out[b * H + k] = E[row * H + k];
}
"""

# exercise 11.3

row_sums = r"""
extern "C" __global__ void row_sums(const float *x, int N, float *out) {
    __shared__ float part[128];  // a place for each thread of the block
    const int row = blockIdx.x, t = threadIdx.x;
    float mine = 0;
    for (int k = t; k < N; k += blockDim.x) mine += x[row * N + k];
    part[t] = mine;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) out[row] = part[0];
}
"""

# exercise 11.4

softmax = r"""
#include "common.cuh"  // block_sum, block_max

extern "C" __global__ void softmax(const float *y, int N, float *out) {
    y += blockIdx.x * N;  // this block's row
    out += blockIdx.x * N;
    float top = -INFINITY, sum = 0;
    for (int k = threadIdx.x; k < N; k += blockDim.x) top = fmaxf(top, y[k]);
    top = block_max(top);
    for (int k = threadIdx.x; k < N; k += blockDim.x) sum += expf(y[k] - top);
    sum = block_sum(sum);
    for (int k = threadIdx.x; k < N; k += blockDim.x) out[k] = expf(y[k] - top) / sum;
}
"""

# exercise 11.5

product = r"""
#define SIDE 16

extern "C" __global__ void product(const float *A, const float *B, int M, int K, int N, float *C) {
    __shared__ float A_tile[SIDE][SIDE], B_tile[SIDE][SIDE];
    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * SIDE + y, column = blockIdx.x * SIDE + x;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += SIDE) {
        A_tile[y][x] = row < M && k0 + x < K ? A[row * K + k0 + x] : 0;
        B_tile[y][x] = k0 + y < K && column < N ? B[(k0 + y) * N + column] : 0;
        __syncthreads();
        for (int j = 0; j < SIDE; j++) sum += A_tile[y][j] * B_tile[j][x];
        __syncthreads();
    }
    if (row < M && column < N) C[row * N + column] = sum;
}
"""

# exercise 11.6

scatter_add = r"""
extern "C" __global__ void scatter_add(const int *x, const float *d, int n, int H, float *G) {
    const int b = blockIdx.x;
    for (int other = 0; other < b; other++)
        if (x[other] == x[b]) return;
    for (int k = threadIdx.x; k < H; k += blockDim.x) {
        float sum = 0;
        for (int other = b; other < n; other++)
            if (x[other] == x[b]) sum += d[other * H + k];
        G[x[b] * H + k] = sum;
    }
}
"""

# exercise 11.7

gates = r"""
#include "common.cuh"  // sigmoid

extern "C" __global__ void gates(
    const float *xW, const float *hU, const float *h, int B, int H, float *h_new
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= B * H) return;
    const int at = i / H * 3 * H + i % H;
    const float r = sigmoid(xW[at] + hU[at]);
    const float z = sigmoid(xW[at + H] + hU[at + H]);
    const float n = tanhf(xW[at + 2 * H] + r * hU[at + 2 * H]);
    h_new[i] = (1 - z) * h[i] + z * n;
}
"""

# exercise 11.8

bpr = r"""
#include "common.cuh"  // sigmoid, softplus, block_sum

extern "C" __global__ void bpr(const float *r, int N, float *dr, float *losses) {
    const int b = blockIdx.x;
    r += b * N;  // this block's row, whose target is column b
    dr += b * N;
    const float of_target = r[b];
    float loss = 0, sum = 0;
    for (int j = threadIdx.x; j < N; j += blockDim.x) {
        if (j == b) continue;
        const float d = r[j] - of_target;
        loss += softplus(d) / (N - 1);
        sum += dr[j] = sigmoid(d) / (N - 1);
    }
    loss = block_sum(loss);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        losses[b] = loss;
        dr[b] = -sum;
    }
}
"""
