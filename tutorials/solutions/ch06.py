"""Solutions of notebook 6, ranking losses."""

import numpy as np

from gru4rec_np.ops.activations import sigmoid

# exercise 6.1


def cross_entropy(r):
    top = r.max(axis=1, keepdims=True)
    lse = top + np.log(np.exp(r - top).sum(axis=1, keepdims=True))
    return lse[:, 0] - np.diagonal(r)


# exercise 6.2


def cross_entropy_gradient(r):
    e = np.exp(r - r.max(axis=1, keepdims=True))
    dr = e / e.sum(axis=1, keepdims=True)
    lanes = np.arange(len(r))
    dr[lanes, lanes] -= 1
    return dr


# exercise 6.3


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# exercise 6.4


def bpr(r):
    n = r.shape[1] - 1
    d = r - np.diagonal(r)[:, None]
    loss, dr = softplus(d), sigmoid(d) / n
    np.fill_diagonal(loss, 0)
    np.fill_diagonal(dr, 0)
    np.fill_diagonal(dr, -dr.sum(axis=1))
    return loss.sum(axis=1) / n, dr


# exercise 6.5


def top1(r):
    n = r.shape[1] - 1
    above, size = sigmoid(r - np.diagonal(r)[:, None]), sigmoid(r * r)
    loss, slope = above + size, above * (1 - above)
    np.fill_diagonal(loss, 0)
    np.fill_diagonal(slope, 0)
    dr = slope + 2 * r * size * (1 - size)
    np.fill_diagonal(dr, -slope.sum(axis=1))
    return loss.sum(axis=1) / n, dr / n


# exercise 6.6


def negatives_softmax(r):
    r = r.copy()
    np.fill_diagonal(r, -np.inf)
    e = np.exp(r - r.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# exercise 6.7


def bpr_max(r, bpreg):
    def logsumexp(a):
        top = a.max(axis=1, keepdims=True)
        return (top + np.log(np.exp(a - top).sum(axis=1, keepdims=True)))[:, 0]

    q = r.copy()
    np.fill_diagonal(q, -np.inf)
    loss = logsumexp(q) - logsumexp(q - softplus(r - np.diagonal(r)[:, None]))
    return loss + bpreg * (negatives_softmax(r) * r * r).sum(axis=1)


# exercise 6.8


def bpr_max_gradient(r, bpreg):
    r_i = np.diagonal(r)[:, None]
    s = negatives_softmax(r)
    p = negatives_softmax(r - softplus(r - r_i))
    size = (s * r * r).sum(axis=1, keepdims=True)
    dr = s - p * sigmoid(r_i - r) + bpreg * s * (2 * r + r * r - size)
    np.fill_diagonal(dr, -(p * sigmoid(r - r_i)).sum(axis=1))
    return dr
