"""Solutions of notebook 9, NARM."""

import numpy as np

from gru4rec_np.ops.activations import sigmoid

# exercise 9.1


def attend(h, A1, A2, v):
    s = sigmoid(h[-1] @ A1 + h @ A2)
    a = s @ v
    return a @ h, s, a


# exercise 9.2


def look_back(h, A1, A2, v):
    q, k = h @ A1, h @ A2
    s = sigmoid(q[:, None] + k[None, :])
    a = np.tril(s @ v)
    return a @ h, a


# exercise 9.3


def attend_backward(dc, s, a, h, v):
    da, dh = h @ dc, np.outer(a, dc)
    ds, dv = np.outer(da, v), da @ s
    dk = ds * s * (1 - s)
    return dk.sum(axis=0), dk, dh, dv


# exercise 9.4


def causal_softmax(e):
    e = np.where(np.tri(len(e), dtype=bool), e, -np.inf)
    p = np.exp(e - e.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


# exercise 9.5


def softmax_backward(da, a):
    return a * (da - (a * da).sum(axis=1, keepdims=True))


# exercise 9.6


def session_backward(dc, h, A1, A2, v):
    T, H = h.shape
    dq, dk, dh, dv = np.zeros((T, H)), np.zeros((T, H)), dc[:, :H].copy(), np.zeros(H)
    for t in range(T):
        so_far = h[: t + 1]
        _, s, a = attend(so_far, A1, A2, v)
        dq[t], dk_t, dh_t, dv_t = attend_backward(dc[t, H:], s, a, so_far, v)
        dk[: t + 1] += dk_t
        dh[: t + 1] += dh_t
        dv += dv_t
    return dh + dq @ A1.T + dk @ A2.T, h.T @ dq, h.T @ dk, dv


# exercise 9.7


def decoder_backward(dr, c, B, emb):
    dout = dr @ emb
    return dout @ B, dout.T @ c, dr.T @ (c @ B.T)


# exercise 9.8


def padded_backward(p, y, n):
    there = np.arange(y.shape[1]) < n[:, None]
    dr = p.copy()
    b, t = np.indices(y.shape)
    dr[b, t, y] -= 1
    return dr * there[:, :, None] / there.sum()
