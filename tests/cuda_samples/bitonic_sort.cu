// A bitonic sort in global memory, a launch for each step.
#include <algorithm>
#include <cstdio>
#include <vector>

__global__ void compare(unsigned *values, unsigned distance, unsigned length) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, other = i ^ distance;
    if (other <= i) return;
    const bool ascending = (i & length) == 0;
    const unsigned a = values[i], b = values[other];
    if ((a > b) == ascending) {
        values[i] = b;
        values[other] = a;
    }
}

int main() {
    const unsigned n = 256;
    std::vector<unsigned> values(n), expected;
    unsigned state = 7;
    for (auto &value : values) value = state = state * 1103515245 + 12345;
    expected = values;
    std::sort(expected.begin(), expected.end());
    unsigned *d_values;
    cudaMalloc(&d_values, n * sizeof(unsigned));
    cudaMemcpy(d_values, values.data(), n * sizeof(unsigned), cudaMemcpyHostToDevice);
    for (unsigned length = 2; length <= n; length *= 2)
        for (unsigned distance = length / 2; distance > 0; distance /= 2)
            compare<<<n / 128, 128>>>(d_values, distance, length);
    cudaDeviceSynchronize();
    cudaMemcpy(values.data(), d_values, n * sizeof(unsigned), cudaMemcpyDeviceToHost);
    if (values != expected) return printf("not sorted\n"), 1;
    return 0;
}
