"""The hot operations compiled for the CPU by Numba. Matrix products stay with BLAS.

The operations one by one, with the arguments of the NumPy functions that define them; from the
same parts numba_steps.py runs many steps at once. Imports the mathematics.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gru4rec_np import batches, optim, ranking
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

# --- negatives ------------------------------------------------------------------------------------


@jit
def _search(distribution, guide, u, drawn):
    """drawn (n,) <- of each u the first item whose cumulative probability is above it."""
    K = len(guide) - 1
    for i in range(len(u)):
        part = int(u[i] * K)
        low, high = guide[part], guide[part + 1]
        while low < high:
            middle = (low + high) // 2
            if distribution[middle] <= u[i]:
                low = middle + 1
            else:
                high = middle
        drawn[i] = min(low, len(distribution) - 1)


def draw_negatives(rng, distribution, shape, guide=None):
    """As `batches.draw_negatives`: the same draws."""
    if guide is None:
        return batches.draw_negatives(rng, distribution, shape)
    u = rng.random(shape)
    drawn = np.empty(u.shape, np.int32)
    _search(distribution, guide, u.reshape(-1), drawn.reshape(-1))
    return drawn


# --- the recurrent step ---------------------------------------------------------------------------
# Everything but the products, fused; all arrays of a call have the same shape, lanes and units in
# either order.


@jit
def gate(x, hU, y):
    """y <- σ(x + h U), the bias within one of them."""
    for i in range(len(y)):
        for k in range(y.shape[1]):
            y[i, k] = sigmoid(x[i, k] + hU[i, k])


@jit
def candidate(x, hU, r, z, h, reset_after, act, n, h_new):
    """n <- act(x + h U), the last times r if the reset comes after; h' from it."""
    one = type_of(h[0, 0])(1)
    for i in range(len(n)):
        for k in range(n.shape[1]):
            n[i, k] = x[i, k] + (r[i, k] * hU[i, k] if reset_after else hU[i, k])
        activate(n[i], act[0], act[1])
        for k in range(n.shape[1]):
            h_new[i, k] = (one - z[i, k]) * h[i, k] + z[i, k] * n[i, k]


@jit
def blend_backward(dh_new, h, z, n, act, da_z, da_n):
    """da_z and da_n, the gradients of what went into z and n, from h' = (1-z) h + z n."""
    one = type_of(h[0, 0])(1)
    for i in range(len(h)):
        for k in range(h.shape[1]):
            d = dh_new[i, k]
            dz = d * (n[i, k] - h[i, k])
            da_z[i, k] = dz * z[i, k] * (one - z[i, k])
            da_n[i, k] = d * z[i, k]
        activate_backward(da_n[i], n[i], act[0], act[1])


@jit
def reset_backward(dr, r, da_r):
    """da_r, the gradient of what went into r."""
    one = type_of(r[0, 0])(1)
    for i in range(len(r)):
        for k in range(r.shape[1]):
            da_r[i, k] = dr[i, k] * r[i, k] * (one - r[i, k])


def _columns(a, block, H):
    """One of a's blocks of H columns."""
    return np.ascontiguousarray(a[:, block * H : (block + 1) * H])


def gru(xW, h, U, b, hidden_act=("tanh", 0.0)):
    """As `cells.gru`."""
    H = h.shape[1]
    r, z, n, h_new = (np.empty_like(h) for _ in range(4))
    x, hU = xW + b, h @ U[:, : 2 * H]
    gate(_columns(x, 0, H), _columns(hU, 0, H), r)
    gate(_columns(x, 1, H), _columns(hU, 1, H), z)
    rh = r * h
    hU_n = rh @ U[:, 2 * H :]
    candidate(_columns(x, 2, H), hU_n, r, z, h, False, coded(hidden_act), n, h_new)
    return h_new, (h, r, z, n, rh)


def gru_backward(dh_new, cache, U, hidden_act=("tanh", 0.0)):
    """As `cells.gru_backward`."""
    h, r, z, n, rh = cache
    H = h.shape[1]
    da_r, da_z, da_n = (np.empty_like(h) for _ in range(3))
    blend_backward(dh_new, h, z, n, coded(hidden_act), da_z, da_n)
    drh = da_n @ U[:, 2 * H :].T
    reset_backward(drh * h, r, da_r)
    da_rz = np.hstack([da_r, da_z])
    dxW = np.hstack([da_rz, da_n])
    dh = dh_new * (1 - z) + drh * r + da_rz @ U[:, : 2 * H].T
    dU = np.hstack([h.T @ da_rz, rh.T @ da_n])
    return dxW, dh, dU, dxW.sum(axis=0)


def gru_reset_after(xW, h, U, b, c, hidden_act=("tanh", 0.0)):
    """As `cells.gru_reset_after`."""
    H = h.shape[1]
    r, z, n, h_new = (np.empty_like(h) for _ in range(4))
    x, hU = xW + b, h @ U + c
    gate(_columns(x, 0, H), _columns(hU, 0, H), r)
    gate(_columns(x, 1, H), _columns(hU, 1, H), z)
    hU_n = _columns(hU, 2, H)
    candidate(_columns(x, 2, H), hU_n, r, z, h, True, coded(hidden_act), n, h_new)
    return h_new, (h, r, z, n, hU_n)


def gru_reset_after_backward(dh_new, cache, U, hidden_act=("tanh", 0.0)):
    """As `cells.gru_reset_after_backward`."""
    h, r, z, n, hU_n = cache
    da_r, da_z, da_n = (np.empty_like(h) for _ in range(3))
    blend_backward(dh_new, h, z, n, coded(hidden_act), da_z, da_n)
    reset_backward(da_n * hU_n, r, da_r)
    dxW, dhU = np.hstack([da_r, da_z, da_n]), np.hstack([da_r, da_z, da_n * r])
    return dxW, dh_new * (1 - z) + dhU @ U.T, h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)


# --- the loss -------------------------------------------------------------------------------------


def apart(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array in cache lines of its own, with nothing else within 512 bytes after them.

    Two threads that write side by side slow each other. And where a loop reads one array and writes
    another, compiled code first asks whether the second begins so close behind the first that a
    vector instruction could read what it has yet to write. Then it goes number by number, and a sum
    in the loop has other last bits: of short arrays, the allocator's mood would decide.
    """
    line, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + line + 512, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(shape)


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
    y[:], count[:] = raw, 1
    logs[:] = 0 if log_q is None else -log_q
    weight[:] = np.exp(logs)
    _lane_losses(
        y, g, term, count, weight, logs, float(logs.sum()), LOSSES.index(loss), coded(final_act),
        bpreg, smoothing, lanes,
    )  # fmt: skip
    return lanes, g


# --- the optimiser --------------------------------------------------------------------------------


AHEAD = 16  # rows: these take longer than memory does to answer
LARGE = 2**20  # numbers of a table that near caches do not hold; else asking costs time for nothing


@intrinsic
def _fetch(typingctx, table, row, column):
    """Ask the second cache for table[row, column]: the first takes few requests at a time."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        width = builder.extract_value(array.shape, 1)
        place = builder.gep(array.data, [builder.add(builder.mul(args[1], width), args[2])])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        hints = [ir.Constant(number, x) for x in (0, 2, 1)]  # to read, second cache, data
        builder.call(call, [builder.bitcast(place, byte), *hints])
        return context.get_dummy_value()

    return types.void(table, types.intp, types.intp), codegen


@jit
def fetch_ahead(table, rows, i):
    """Before row rows[i] of a contiguous table is used: ask for one that comes soon.

    The rows of a step lie anywhere. Of a table that no cache holds, the next one would be waited
    for each time.
    """
    if table.size > LARGE and i + AHEAD < len(rows):
        row = rows[i + AHEAD]
        for k in range(0, table.shape[1], 16):  # float32: 16 of them are a line of the cache
            _fetch(table, row, k)


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
            fetch_ahead(p, rows, i)
            fetch_ahead(a, rows, i)
            fetch_ahead(v, rows, i)
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                v[row, k] = m * v[row, k] - rate * g[i, k] / np.sqrt(a[row, k] + eps)
                p[row, k] += v[row, k]
    elif how[0]:
        for i in range(len(rows)):
            row = rows[i]
            fetch_ahead(p, rows, i)
            fetch_ahead(a, rows, i)
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                p[row, k] -= rate * g[i, k] / np.sqrt(a[row, k] + eps)
    elif how[2] > 0:
        for i in range(len(rows)):
            row = rows[i]
            fetch_ahead(p, rows, i)
            fetch_ahead(v, rows, i)
            for k in range(D):
                v[row, k] = m * v[row, k] - rate * g[i, k]
                p[row, k] += v[row, k]
    else:
        for i in range(len(rows)):
            row = rows[i]
            fetch_ahead(p, rows, i)
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


# --- scores of the catalogue, and ranks -----------------------------------------------------------
# A score is always the same sum, k = 0, 1, 2 ... in order, whatever other cases and items are
# beside it: so equal items tie, and a session served alone gets the scores of the evaluation, to
# the bit. BLAS promises no order. Vector instructions go over items, whose sums do not meet, and
# all loops over them have one length, without a remainder that might be compiled differently.
#
# Scores are made and counted a tile at a time, CASES times TILE: it stays in the cache between the
# product that writes it and the count that reads it; CHUNK rows of V^T stay in the nearest one.
CASES, TILE, CHUNK = 256, 512, 16


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


def _scratch(h: np.ndarray) -> tuple[np.ndarray, ...]:
    """h with zeros appended: cases to an even number n, units to a multiple of 4, K.

    And room for a tile: V^T (K, TILE), of which rows past H stay 0, and s (n, TILE). All begin at
    a line of the cache, since the same loops take twice as long where each vector lies on two.
    """
    n, H = h.shape
    n_even, K = (n + 1) // 2 * 2, (H + 3) // 4 * 4
    cases, V_T = apart((n_even, K), h.dtype), apart((K, TILE), h.dtype)
    cases[:], V_T[:] = 0, 0
    cases[:n, :H] = h
    return cases, V_T, apart((n_even, TILE), h.dtype)


@jit(fastmath={"contract"})  # not "reassoc": the order of a sum is the point
def _products(cases, V, V_T, s):
    """s[:, :m] <- cases V^T for V (m, H), m <= TILE; the others come from `_scratch`."""
    m, H = V.shape
    n, K = cases.shape
    whole = m // 8 * 8
    for j in range(0, whole, 8):  # in eights: rows that are read stay in the cache
        for k in range(H):
            for i in range(8):
                V_T[k, at(j + i)] = V[at(j + i), k]
    for j in range(whole, m):
        for k in range(H):
            V_T[k, j] = V[j, k]
    s[:] = 0
    # Two cases and four k at a time: a number that is read from V^T or s is used more than once.
    for chunk in range(0, K, CHUNK):
        for i in range(0, n, 2):
            s0, s1 = s[i], s[i + 1]
            for k in range(chunk, min(chunk + CHUNK, K), 4):
                a0, a1, a2, a3 = cases[i, k], cases[i, k + 1], cases[i, k + 2], cases[i, k + 3]
                i1 = i + 1
                b0, b1, b2, b3 = cases[i1, k], cases[i1, k + 1], cases[i1, k + 2], cases[i1, k + 3]
                v0, v1, v2, v3 = V_T[k], V_T[k + 1], V_T[k + 2], V_T[k + 3]
                for j in range(s.shape[1]):  # not TILE: LLVM would unroll it, for seconds
                    s0[j] = s0[j] + a0 * v0[j] + a1 * v1[j] + a2 * v2[j] + a3 * v3[j]
                    s1[j] = s1[j] + b0 * v0[j] + b1 * v1[j] + b2 * v2[j] + b3 * v3[j]


@jit(fastmath=False)
def _score_catalogue(cases, V, b, V_T, s, scores):
    """scores (n, I) <- cases V^T + b."""
    for start in range(0, len(V), TILE):
        tile = V[start : start + TILE]
        _products(cases, tile, V_T, s)
        for i in range(len(scores)):
            for j in range(len(tile)):
                scores[i, start + j] = s[i, j] + b[start + j]


def catalogue_scores(h, V_y, b_y):
    """As `ranking.catalogue_scores`."""
    scores = np.empty((len(h), len(V_y)), V_y.dtype)
    cases, V_T, s = _scratch(h)
    _score_catalogue(cases, np.ascontiguousarray(V_y), b_y, V_T, s, scores)
    return scores


@jit(fastmath=False)
def _count_ranks(cases, V, b, V_targets, b_targets, V_T, s, target, below, level):
    """below and level (n,) <- items under each target, and level with it, itself included.

    V_targets (n, H), b_targets (n,): the rows of the cases' targets; `target` (n,) is scratch.
    """
    n = len(target)
    # The targets' scores: of each case with all targets, the one with its own.
    _products(cases, V_targets, V_T, s)
    for i in range(n):
        target[i] = s[i, i] + b_targets[i]
        below[i] = level[i] = 0
    for start in range(0, len(V), TILE):
        tile = V[start : start + TILE]
        _products(cases, tile, V_T, s)
        for i in range(n):
            less, same = _count(s[i, : len(tile)], b[start : start + TILE], target[i])
            below[i] += less
            level[i] += same


def rank_targets(h, V_y, b_y, targets, ties="conservative"):
    """As `ranking.rank_targets`, a block of cases on each core."""
    below, level = np.empty(len(h), np.int64), np.empty(len(h), np.int64)
    V_y = np.ascontiguousarray(V_y)

    def count(first: int) -> None:
        block = slice(first, first + CASES)
        items = targets[block]
        cases, V_T, s = _scratch(h[block])
        _count_ranks(
            cases, V_y, b_y, V_y[items], b_y[items], V_T, s, np.empty(len(items), h.dtype),
            below[block], level[block],
        )  # fmt: skip

    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        list(pool.map(count, range(0, len(h), CASES)))  # a list, so that an error is raised here
    return ranking.from_counts(below, level, len(V_y), ties)
