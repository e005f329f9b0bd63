"""The hot operations compiled for the CPU by Numba. Matrix products stay with BLAS.

The operations one by one, with the arguments of the NumPy functions that define them; from the
same parts numba_steps.py runs many steps at once. Imports the mathematics.
"""

from __future__ import annotations

import math
from threading import Lock
from types import EllipsisType

import numpy as np
from numba import prange

from gru4rec_np import optim, ranking
from gru4rec_np.kernels import OWN_OPTIMISERS, coded
from gru4rec_np.kernels.numba_math import (
    activate,
    activate_backward,
    at,
    jit,
    lane_loss,
    sigmoid,
    type_of,
)
from gru4rec_np.losses import LOSSES

# --- the recurrent step ---------------------------------------------------------------------------
# Everything but the products, fused. The products come split: hU_rz (B, 2H), and hU_n (B, H).


@jit
def gates(xW, hU_rz, b, r, z):
    """r, z (B, H) <- σ(x W + h U + b)."""
    B, H = r.shape
    for lane in range(B):
        for k in range(H):
            r[lane, k] = sigmoid(xW[lane, k] + hU_rz[lane, k] + b[k])
        for k in range(H):
            z[lane, k] = sigmoid(xW[lane, at(H + k)] + hU_rz[lane, at(H + k)] + b[at(H + k)])


@jit
def candidate(xW, hU_n, b, r, z, h, reset_after, act, n, h_new):
    """n <- act(x W_n + b_n + h U_n), the last times r if the reset comes after; h' from it."""
    B, H = n.shape
    one = type_of(h[0, 0])(1)
    for lane in range(B):
        for k in range(H):
            hU = r[lane, k] * hU_n[lane, k] if reset_after else hU_n[lane, k]
            n[lane, k] = xW[lane, at(2 * H + k)] + b[at(2 * H + k)] + hU
        activate(n[lane], act[0], act[1])
        for k in range(H):
            h_new[lane, k] = (one - z[lane, k]) * h[lane, k] + z[lane, k] * n[lane, k]


@jit
def blend_backward(dh_new, h, z, n, act, dxW):
    """The z and n parts of dxW (B, 3H), from h' = (1-z) h + z n."""
    one = type_of(h[0, 0])(1)
    B, H = h.shape
    for lane in range(B):
        for k in range(H):
            d = dh_new[lane, k]
            dz = d * (n[lane, k] - h[lane, k])
            dxW[lane, at(H + k)] = dz * z[lane, k] * (one - z[lane, k])
            dxW[lane, at(2 * H + k)] = d * z[lane, k]
        activate_backward(dxW[lane, 2 * H :], n[lane], act[0], act[1])


@jit
def reset_backward(dr, r, dxW):
    """The r part of dxW (B, 3H), from dr (B, H)."""
    one = type_of(r[0, 0])(1)
    for lane in range(len(r)):
        for k in range(r.shape[1]):
            dxW[lane, k] = dr[lane, k] * r[lane, k] * (one - r[lane, k])


def gru(xW, h, U, b, hidden_act=("tanh", 0.0)):
    """As `cells.gru`."""
    H = h.shape[1]
    r, z, n, h_new = (np.empty_like(h) for _ in range(4))
    xW = np.ascontiguousarray(xW)
    gates(xW, h @ U[:, : 2 * H], b, r, z)
    rh = r * h
    candidate(xW, rh @ U[:, 2 * H :], b, r, z, h, False, coded(hidden_act), n, h_new)
    return h_new, (h, r, z, n, rh)


def gru_backward(dh_new, cache, U, hidden_act=("tanh", 0.0)):
    """As `cells.gru_backward`."""
    h, r, z, n, rh = cache
    H = h.shape[1]
    dxW = np.empty((len(h), 3 * H), h.dtype)
    blend_backward(dh_new, h, z, n, coded(hidden_act), dxW)
    drh = dxW[:, 2 * H :] @ U[:, 2 * H :].T
    reset_backward(drh * h, r, dxW)
    dh = dh_new * (1 - z) + drh * r + dxW[:, : 2 * H] @ U[:, : 2 * H].T
    dU = np.hstack([h.T @ dxW[:, : 2 * H], rh.T @ dxW[:, 2 * H :]])
    return dxW, dh, dU, dxW.sum(axis=0)


def gru_reset_after(xW, h, U, b, c, hidden_act=("tanh", 0.0)):
    """As `cells.gru_reset_after`."""
    H = h.shape[1]
    r, z, n, h_new = (np.empty_like(h) for _ in range(4))
    xW = np.ascontiguousarray(xW)
    hU = h @ U + c
    hU_n = np.ascontiguousarray(hU[:, 2 * H :])
    gates(xW, np.ascontiguousarray(hU[:, : 2 * H]), b, r, z)
    candidate(xW, hU_n, b, r, z, h, True, coded(hidden_act), n, h_new)
    return h_new, (h, r, z, n, hU_n)


def gru_reset_after_backward(dh_new, cache, U, hidden_act=("tanh", 0.0)):
    """As `cells.gru_reset_after_backward`."""
    h, r, z, n, hU_n = cache
    H = h.shape[1]
    dxW = np.empty((len(h), 3 * H), h.dtype)
    blend_backward(dh_new, h, z, n, coded(hidden_act), dxW)
    reset_backward(dxW[:, 2 * H :] * hU_n, r, dxW)
    dhU = dxW.copy()
    dhU[:, 2 * H :] *= r
    return dxW, dh_new * (1 - z) + dhU @ U.T, h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)


# --- the loss -------------------------------------------------------------------------------------


def apart(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Ones in cache lines of their own, with nothing else within 512 bytes after them.

    Two threads that write side by side slow each other. And where a loop reads one array and writes
    another, compiled code first asks whether the second begins so close behind the first that a
    vector instruction could read what it has yet to write. Then it goes number by number, and a sum
    in the loop has other last bits: of short arrays, the allocator's mood would decide.
    """
    line, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + line + 512, np.uint8)
    start = -memory.ctypes.data % line
    array = memory[start : start + size].view(dtype).reshape(shape)
    array[:] = 1
    return array


@jit
def _lane_losses(
    y, g, term, count, weight, log_own, log_weights, kind, act, bpreg, smoothing, lanes
):
    for b in range(len(y)):
        lanes[b] = lane_loss(
            y[b], g[b], term, b, count, weight, log_own[b], log_weights, kind, act[0], act[1],
            bpreg, smoothing,
        )  # fmt: skip


def loss_and_gradient(raw, loss, final_act=("linear", 0.0), bpreg=1.0, smoothing=0.0, log_q=None):
    """As `losses.loss_and_gradient`: here each column is an item of its own, counted once."""
    B, N = raw.shape
    shapes = ((B, N), (B, N), (N,), (N,), (N,), (N,), (B,))
    y, g, term, count, weight, logs, lanes = (apart(shape, raw.dtype) for shape in shapes)
    y[:] = raw
    logs[:] = 0 if log_q is None else -log_q
    weight[:] = np.exp(logs)
    _lane_losses(
        y, g, term, count, weight, logs, float(logs.sum()), LOSSES.index(loss), coded(final_act),
        bpreg, smoothing, lanes,
    )  # fmt: skip
    return lanes, g


# --- the optimiser --------------------------------------------------------------------------------


@jit
def update_rows(p, rows, g, a, v, how):
    """optim.update on distinct rows (n,) of a table p (I, D), g (n, D).

    how: (adagrad, learning_rate, momentum). a and v are as p; empty for sgd, without momentum.
    Loops are whole in each branch, and take no slices: a call and the counting of references
    would cost as much as a row.
    """
    f = type_of(p[0, 0])
    rate, m, eps = f(how[1]), f(how[2]), f(optim.EPSILON)
    D = p.shape[1]
    if how[0] and how[2] > 0:
        for i in range(len(rows)):
            row = rows[i]
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                v[row, k] = m * v[row, k] - rate * g[i, k] / np.sqrt(a[row, k] + eps)
                p[row, k] += v[row, k]
    elif how[0]:
        for i in range(len(rows)):
            row = rows[i]
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                p[row, k] -= rate * g[i, k] / np.sqrt(a[row, k] + eps)
    elif how[2] > 0:
        for i in range(len(rows)):
            row = rows[i]
            for k in range(D):
                v[row, k] = m * v[row, k] - rate * g[i, k]
                p[row, k] += v[row, k]
    else:
        for i in range(len(rows)):
            row = rows[i]
            for k in range(D):
                p[row, k] -= rate * g[i, k]


def _as_table(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def update(
    p: np.ndarray,
    g: np.ndarray,
    state: dict[str, np.ndarray],
    adapt: str,
    learning_rate: float,
    momentum: float = 0.0,
    rows: np.ndarray | EllipsisType = ...,
) -> None:
    """As `optim.update`."""
    if adapt not in OWN_OPTIMISERS:
        return optim.update(p, g, state, adapt, learning_rate, momentum, rows)
    none = np.empty((1, 0), p.dtype)
    a, v = (_as_table(state[name]) if name in state else none for name in "av")
    rows = np.arange(len(p)) if rows is ... else rows
    how = adapt == "adagrad", learning_rate, momentum
    update_rows(_as_table(p), rows, np.ascontiguousarray(_as_table(g)), a, v, how)


# --- ranks ----------------------------------------------------------------------------------------
# Scores are made and counted a tile at a time, CASES times TILE: it stays in the cache between the
# product that writes it and the count that reads it.
#
# Equal items must tie, so equal scores must have equal bits. BLAS adds in an order of its own at
# the edge of a matrix whose sides are no multiples of its registers. So all products here have the
# same shape without such edges, for which the last block of cases and the last tile of items reach
# back; and a target's score is taken from the very product in which it is counted.
CASES, TILE = 256, 512

# One of Numba's ways to share a loop among cores, the one it takes where there is no OpenMP or TBB,
# ends the process when two threads enter such a loop at once.
_counting = Lock()


@jit(fastmath=False)
def _count(scores, bias, target):
    """How many scores + bias, each (n,), are below the target, and how many equal it."""
    below = level = np.int32(0)
    for j in range(len(scores)):
        score = scores[j] + bias[j]
        # In 32 bits, as wide as a float32: twice as many fit into a vector as in 64.
        below = np.int32(below + np.int32(score < target))
        level = np.int32(level + np.int32(score == target))
    return below, level


@jit(parallel=True, fastmath=False)
def _count_ranks(h, V, b, targets, below, level):
    """Add to below and level (n,): items under each target, and level with it, itself included.

    Cases come sorted by target; n >= CASES, I >= TILE.
    """
    n, I = len(h), len(V)  # noqa: E741
    for block in prange((n + CASES - 1) // CASES):
        first = min(block * CASES, n - CASES)
        cases = h[first : first + CASES]
        s, target = np.empty((CASES, TILE), h.dtype), np.empty(CASES, h.dtype)
        # The targets' scores. Sorted, they lie in few tiles: little is multiplied twice.
        at, have = 0, -1
        for i in range(CASES):
            item = targets[first + i]
            if item // TILE != have:
                have = item // TILE
                at = min(have * TILE, I - TILE)
                np.dot(cases, V[at : at + TILE].T, s)
            target[i] = s[i, item - at] + b[item]
        for start in range(0, I, TILE):
            at = min(start, I - TILE)
            np.dot(cases, V[at : at + TILE].T, s)
            for i in range(block * CASES - first, CASES):  # the block before counted the others
                less, same = _count(s[i, start - at :], b[start : at + TILE], target[i])
                below[first + i] += less
                level[first + i] += same


def _at_least(x: np.ndarray, rows: int, fill: float) -> np.ndarray:
    """x, with rows of `fill` appended if it has fewer than `rows`."""
    missing = max(0, rows - len(x))
    return np.concatenate([x, np.full((missing, *x.shape[1:]), fill, x.dtype)]) if missing else x


def rank_targets(h, V_y, b_y, targets, ties="conservative"):
    """As `ranking.rank_targets`, a block of cases on each core."""
    n, I = len(h), len(V_y)  # noqa: E741
    order = np.argsort(targets, kind="stable")
    cases, wanted = _at_least(h[order], CASES, 0), _at_least(targets[order], CASES, 0)
    below, level = np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)
    # A score of NaN is neither below a target nor level with it: so are items that only fill up.
    V_y, b_y = _at_least(np.ascontiguousarray(V_y), TILE, 0), _at_least(b_y, TILE, np.nan)
    with _counting:
        _count_ranks(cases, V_y, b_y, wanted, below, level)
    ranks = np.empty(n)
    ranks[order] = ranking.from_counts(below[:n], level[:n], I, ties)
    return ranks
