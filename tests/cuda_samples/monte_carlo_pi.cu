// Pi from random points of a square: each thread has a generator of its own (xorshift).
#include <cmath>
#include <cstdio>

__host__ __device__ inline float next(unsigned &state) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (state >> 8) * (1.0f / (1 << 24));
}

__host__ __device__ inline unsigned long long within(unsigned thread, int points) {
    unsigned state = thread * 2654435761u + 12345;
    unsigned long long count = 0;
    for (int k = 0; k < points; k++) {
        float x = next(state), y = next(state);
        count += x * x + y * y < 1;
    }
    return count;
}

__global__ void estimate(unsigned long long *count, int points) {
    unsigned long long own = within(blockIdx.x * blockDim.x + threadIdx.x, points);
    atomicAdd(count, own);
}

int main() {
    const int blocks = 8, threads = 64, points = 100;
    unsigned long long *d_count, count = 0, expected = 0;
    cudaMalloc(&d_count, sizeof count);
    cudaMemset(d_count, 0, sizeof count);
    estimate<<<blocks, threads>>>(d_count, points);
    cudaMemcpy(&count, d_count, sizeof count, cudaMemcpyDeviceToHost);
    for (unsigned t = 0; t < blocks * threads; t++) expected += within(t, points);
    double pi = 4.0 * count / (blocks * threads * points);
    printf("pi is about %.3f\n", pi);
    // A GPU fuses x * x + y * y, so a point on the circle's edge may fall on its other side.
    return std::fabs((double)count - (double)expected) > 5 || std::fabs(pi - 3.14159265) > 0.05;
}
