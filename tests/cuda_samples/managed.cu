// Memory that host and device share: a list of particles, moved on the device.
#include <cmath>
#include <cstdio>

struct Particle {
    float position, speed;
};

__global__ void move(Particle *particles, int n, float time) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Particle p = particles[i];
    p.position += p.speed * time;
    if (p.position > 10) {
        p.position = 20 - p.position;
        p.speed = -p.speed;
    }
    particles[i] = p;
}

int main() {
    const int n = 500, steps = 3;
    Particle *particles;
    if (cudaMallocManaged(&particles, n * sizeof(Particle)) != cudaSuccess) return 1;
    for (int i = 0; i < n; i++) particles[i] = {0.02f * i, 1 + i % 3 * 0.5f};
    for (int step = 0; step < steps; step++) move<<<(n + 63) / 64, 64>>>(particles, n, 0.5f);
    cudaDeviceSynchronize();
    int wrong = 0;
    for (int i = 0; i < n; i++) {
        float position = 0.02f * i, speed = 1 + i % 3 * 0.5f;
        for (int step = 0; step < steps; step++) {
            position += speed * 0.5f;
            if (position > 10) {
                position = 20 - position;
                speed = -speed;
            }
        }
        wrong += std::fabs(particles[i].position - position) > 1e-4f || particles[i].speed != speed;
    }
    cudaFree(particles);
    if (wrong) printf("%d wrong\n", wrong);
    return wrong != 0;
}
