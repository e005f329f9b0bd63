"""Solutions of notebook 8, training."""

import numpy as np

from gru4rec_np.ops.cells import gru, gru_backward
from gru4rec_np.ops.losses import loss_and_gradient
from gru4rec_np.ops.scoring import scores, scores_backward

# exercise 8.1


def adagrad(p, g, a, learning_rate):
    a = a + g * g
    return p - learning_rate * g / np.sqrt(a + 1e-6), a


# exercise 8.2


def sum_rows(rows, g):
    distinct, place = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), *g.shape[1:]), g.dtype)
    np.add.at(sums, place, g)
    return distinct, sums


# exercise 8.3


def update(p, a, v, rows, g, learning_rate, momentum):
    a[rows] += g * g
    step = learning_rate * g / np.sqrt(a[rows] + 1e-6)
    v[rows] = momentum * v[rows] - step
    p[rows] += v[rows]


# exercise 8.4


def init_block(rng, rows, widths):
    blocks = []
    for width in widths:
        s = np.sqrt(6 / (rows + width))
        blocks.append(rng.uniform(-s, s, (rows, width)))
    return np.hstack(blocks)


# exercise 8.5


def dropout_mask(u, p):
    return (u >= p).astype(u.dtype) / (1 - p)


# exercise 8.6


def forward(W, x, items, log_q, h, mask_e, mask_h):
    e = W["V_y"][x] * mask_e
    h_new, cell = gru(e @ W["W_x"], h, W["U0"], W["b0"])
    out = h_new * mask_h
    r, V = scores(out, W["V_y"], W["b_y"], items)
    losses, dr = loss_and_gradient(r, "cross-entropy", log_q=log_q)
    return losses, out, (e, cell, V, dr)


# exercise 8.7


def backward(W, out, mask_e, mask_h, cache, batch_size):
    e, cell, V, dr = cache
    dout, dV, db_y = scores_backward(dr / batch_size, out, V)
    dxW, _, dU0, db0 = gru_backward(dout * mask_h, cell, W["U0"])
    dE = (dxW @ W["W_x"].T) * mask_e
    return e.T @ dxW, dU0, db0, dE, dV, db_y


# exercise 8.8


def epoch(batches, h, samples, step):
    losses = []
    for t, extra in enumerate(samples):
        n = batches.lanes[t]
        h = h[batches.keep[t, : len(h)]] * ~batches.reset[t, :n, None]
        x, y = batches.x[t, :n], batches.y[t, :n]
        of_lanes, h = step(x, np.concatenate([y, extra]), h)
        losses.append(of_lanes.mean())
    return np.array(losses), h
