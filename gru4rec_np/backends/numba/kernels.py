"""The compiled pieces of the hot operations. Matrix products stay with BLAS.

operations.py calls them one operation at a time, steps.py many steps at once, so both compute the
same. Imports maths.py, the name of the optimiser's constant, and nothing above.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gru4rec_np.backends.numba.maths import (
    activate,
    activate_backward,
    at,
    jit,
    lane_loss,
    sigmoid,
    type_of,
)
from gru4rec_np.ops import optim

# --- negatives ------------------------------------------------------------------------------------


@jit
def search(distribution, guide, u, drawn):
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
def lane_losses(
    y, g, term, count, weight, log_own, log_weights, kind, act, bpreg, smoothing, lanes
):
    """lanes (B,), g (B, N) <- loss and gradient of each lane's scores y (B, N); see lane_loss."""
    for b in range(len(y)):
        lanes[b] = lane_loss(
            y[b], g[b], term, b, count, weight, log_own[b], log_weights, kind, act[0], act[1],
            bpreg, smoothing,
        )  # fmt: skip


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


def scratch(h: np.ndarray) -> tuple[np.ndarray, ...]:
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
    """s[:, :m] <- cases V^T for V (m, H), m <= TILE; the others come from `scratch`."""
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
def score_catalogue(cases, V, b, V_T, s, scores):
    """scores (n, I) <- cases V^T + b."""
    for start in range(0, len(V), TILE):
        tile = V[start : start + TILE]
        _products(cases, tile, V_T, s)
        for i in range(len(scores)):
            for j in range(len(tile)):
                scores[i, start + j] = s[i, j] + b[start + j]


@jit(fastmath=False)
def count_ranks(cases, V, b, V_targets, b_targets, V_T, s, target, below, level):
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
