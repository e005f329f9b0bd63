"""Solutions of notebook 10, fast on a CPU."""

import numpy as np

# exercise 10.1


def step_flops(B, H, N):
    forward = 2 * B * H * 3 * H + 2 * B * H * N
    return 3 * forward


# exercise 10.2


def step_bytes(B, H, N):
    numbers = N * H + N + B * 3 * H + H * 3 * H + 3 * H
    return 4 * numbers * 2 * 2  # 4 bytes; weights and Adagrad's sums; read and written


# exercise 10.3


def roof(q, peak, bandwidth):
    return np.minimum(peak, q * bandwidth)


# exercise 10.4


def counted_cross_entropy(t, r, m):
    top = np.maximum(t, r.max(axis=1))
    total = np.exp(t - top) + (m * np.exp(r - top[:, None])).sum(axis=1)
    return top + np.log(total) - t


# exercise 10.5


def adagrad_rows(p, a, rows, g, lr, eps):
    for k in range(len(rows)):
        i = rows[k]
        for j in range(p.shape[1]):
            a[i, j] += g[k, j] * g[k, j]
            p[i, j] -= lr * g[k, j] / np.sqrt(a[i, j] + eps)


# exercise 10.6


def reduce(x):
    n = np.floor(x / np.log(2) + 0.5)
    return n, x - n * np.log(2)
