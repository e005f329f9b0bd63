// A picture blurred by 5 by 5 weights in constant memory; pixels outside count as the nearest one.
#include <cstdio>
#include <vector>

constexpr int R = 2, SIDE = 2 * R + 1;
__constant__ int weights[SIDE][SIDE];

__host__ __device__ inline int clamped(int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; }

__global__ void blur(const unsigned char *in, int *out, int width, int height) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    int sum = 0;
    for (int dy = -R; dy <= R; dy++)
        for (int dx = -R; dx <= R; dx++)
            sum += weights[dy + R][dx + R] *
                   in[clamped(y + dy, height) * width + clamped(x + dx, width)];
    out[y * width + x] = sum;
}

int main() {
    const int width = 40, height = 27, n = width * height;
    int w[SIDE][SIDE];
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) w[y][x] = (x + 1) * (SIDE - y);
    std::vector<unsigned char> in(n);
    for (int i = 0; i < n; i++) in[i] = i * 89 % 251;
    std::vector<int> out(n);
    unsigned char *d_in;
    int *d_out;
    cudaMalloc(&d_in, n);
    cudaMalloc(&d_out, n * sizeof(int));
    cudaMemcpyToSymbol(weights, w, sizeof w);
    cudaMemcpy(d_in, in.data(), n, cudaMemcpyHostToDevice);
    blur<<<dim3((width + 15) / 16, (height + 7) / 8), dim3(16, 8)>>>(d_in, d_out, width, height);
    cudaMemcpy(out.data(), d_out, n * sizeof(int), cudaMemcpyDeviceToHost);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int sum = 0;
            for (int dy = -R; dy <= R; dy++)
                for (int dx = -R; dx <= R; dx++)
                    sum += w[dy + R][dx + R] *
                           in[clamped(y + dy, height) * width + clamped(x + dx, width)];
            if (out[y * width + x] != sum) return printf("wrong at %d, %d\n", x, y), 1;
        }
    return 0;
}
