// Heat that spreads on a plate: each step reads one array and writes the other.
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

__global__ void spread(const float *from, float *to, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    int i = y * width + x;
    if (x == 0 || y == 0 || x == width - 1 || y == height - 1) {
        to[i] = from[i];
        return;
    }
    to[i] = from[i] + 0.2f * (from[i - 1] + from[i + 1] + from[i - width] + from[i + width] -
                              4 * from[i]);
}

int main() {
    const int width = 50, height = 33, n = width * height, steps = 4;
    std::vector<float> plate(n), next(n), result(n);
    for (int i = 0; i < n; i++) plate[i] = i % 11 == 0 ? 100 : 0;
    float *d_from, *d_to;
    cudaMalloc(&d_from, n * sizeof(float));
    cudaMalloc(&d_to, n * sizeof(float));
    cudaMemcpy(d_from, plate.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    const dim3 block(16, 8), grid((width + 15) / 16, (height + 7) / 8);
    for (int step = 0; step < steps; step++) {
        spread<<<grid, block>>>(d_from, d_to, width, height);
        std::swap(d_from, d_to);
    }
    cudaMemcpy(result.data(), d_from, n * sizeof(float), cudaMemcpyDeviceToHost);
    for (int step = 0; step < steps; step++) {
        next = plate;
        for (int y = 1; y < height - 1; y++)
            for (int x = 1; x < width - 1; x++) {
                int i = y * width + x;
                next[i] = plate[i] + 0.2f * (plate[i - 1] + plate[i + 1] + plate[i - width] +
                                             plate[i + width] - 4 * plate[i]);
            }
        plate = next;
    }
    for (int i = 0; i < n; i++)
        if (std::fabs(result[i] - plate[i]) > 1e-3f) return printf("wrong at %d\n", i), 1;
    return 0;
}
