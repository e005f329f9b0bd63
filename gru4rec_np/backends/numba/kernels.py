"""The compiled pieces of the hot operations. Matrix products stay with BLAS.

operations.py calls them one operation at a time, step.py many steps at once: the same machine code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from gru4rec_np.backends.numba.compiled import (
    Doubles,
    Ints,
    Items,
    Matrix,
    Vector,
    inner,
    intrinsic,
    kernel,
)
from gru4rec_np.backends.numba.maths import activate, activate_backward, sigmoid, type_of, uint
from gru4rec_np.backends.numba.matrices import (
    dot,
    line,
    matrix_at,
    rows_of,
    tile_of,
    vector_at,
    zero,
)
from gru4rec_np.ops import optim

# --- negatives ------------------------------------------------------------------------------------


@kernel
def search(distribution: Doubles, guide: Items, u: Doubles, drawn: Items) -> None:
    """drawn (n,) <- of each u the first item whose cumulative probability is above it."""
    K = len(guide) - 1
    for i in range(len(u)):
        k = int(u[i] * K)
        low, high = guide[k], guide[k + 1]
        while low < high:
            middle = (low + high) // 2
            if distribution[middle] <= u[i]:
                low = middle + 1
            else:
                high = middle
        drawn[i] = min(low, len(distribution) - 1)


# --- the recurrent step ---------------------------------------------------------------------------
# Everything but the products. All arrays of a call are flat, lanes and units in either order.
# `act` is an activation as `coded` gives it: its index in ACTIVATIONS and its parameter.


@kernel
def gate(x: Vector, hU: Vector, y: Vector) -> None:
    """y <- σ(x + h U), the bias within one of them."""
    for j in range(len(y)):
        y[j] = sigmoid(x[j] + hU[j])


@kernel
def candidate(
    x: Vector, hU: Vector, r: Vector, z: Vector, h: Vector, reset_after: bool, act: Doubles,
    n: Vector, h_new: Vector,
) -> None:  # fmt: skip
    """n <- act(x + h U), the last times r if the reset comes after; h' from it."""
    one = type_of(h[0])(1)
    for j in range(len(n)):
        n[j] = x[j] + (r[j] * hU[j] if reset_after else hU[j])
    activate(n, act)
    for j in range(len(n)):
        h_new[j] = (one - z[j]) * h[j] + z[j] * n[j]


@kernel
def blend_backward(
    dh_new: Vector, h: Vector, z: Vector, n: Vector, act: Doubles, da_z: Vector, da_n: Vector
) -> None:
    """da_z and da_n, the gradients of what went into z and n, from h' = (1-z) h + z n."""
    one = type_of(h[0])(1)
    for j in range(len(h)):
        dz = dh_new[j] * (n[j] - h[j])
        da_z[j] = dz * z[j] * (one - z[j])
        da_n[j] = dh_new[j] * z[j]
    activate_backward(da_n, n, act)


@kernel
def reset_backward(dr: Vector, r: Vector, da_r: Vector) -> None:
    """da_r, the gradient of what went into r."""
    one = type_of(r[0])(1)
    for j in range(len(r)):
        da_r[j] = dr[j] * r[j] * (one - r[j])


# --- dropout --------------------------------------------------------------------------------------


@intrinsic
def _hash(typingctx, start, place):
    """A hash of two uint32: the finaliser of MurmurHash3 (Appleby), as in kernels/common.cuh.

    Written in LLVM's terms: Numba would multiply with 64 bits, at less than half the speed.
    """

    def codegen(context, builder, signature, args):
        def mixed(x, shift, factor):
            x = builder.xor(x, builder.lshr(x, ir.Constant(x.type, shift))) if shift else x
            return builder.mul(x, ir.Constant(x.type, factor))

        x = builder.xor(args[0], mixed(args[1], 0, 0x85EBCA77))
        x = mixed(mixed(x, 16, 0x85EBCA6B), 13, 0xC2B2AE35)
        return mixed(x, 16, 1)

    return types.uint32(types.uint32, types.uint32), codegen


@kernel
def dropout_mask(
    mask: Matrix, first: int, by_row: int, by_column: int, seed: int, number: int, p: float
) -> None:
    """Inverted dropout, 0 or 1/(1-p); mask[i, k] is of the place first + i by_row + k by_column.

    A place is lane * width + unit, for a width of all units. Whether it is kept is a hash of it,
    of the mask's number and of the seed: the order of drawing does not matter.
    """
    f = type_of(mask[0, 0])
    scale = f(1 / (1 - p))
    limit = np.uint32(p * 4294967295.0)
    start = np.uint32(seed) ^ np.uint32(number * 0x9E3779B1)
    for i in range(len(mask)):
        for k in range(mask.shape[1]):
            kept = _hash(start, np.uint32(first + i * by_row + k * by_column)) >= limit
            mask[i, k] = scale if kept else f(0)


# --- arrays -------------------------------------------------------------------------------------


def apart(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in cache lines of its own, with nothing else within 512 bytes after them.

    Two threads that write side by side slow each other. And where a loop reads one array and writes
    another, compiled code first asks whether the second begins so close behind the first that a
    vector instruction could read what it has yet to write. Then it goes number by number, and a sum
    in the loop has other last bits: of short arrays, the allocator's mood would decide.
    """
    line, size = 64, math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + line + 512, np.uint8)
    start = -memory.__array_interface__["data"][0] % line  # `ctypes.data` takes 5 µs
    return memory[start : start + size].view(dtype).reshape(shape)


def copy_apart(a: np.ndarray) -> np.ndarray:
    """A contiguous copy, see `apart`."""
    copy = apart(a.shape, a.dtype)
    copy[:] = a
    return copy


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


@inner
def fetch_ahead(table, rows, i):
    """Prefetch a row that comes soon, before row rows[i] of a contiguous table is used.

    The rows of a step lie anywhere. Of a table that no cache holds, each would be waited for.
    """
    if table.size > LARGE and i + AHEAD < len(rows):
        row = rows[i + AHEAD]
        for k in range(0, table.shape[1], 16):  # 16 float32 fill a cache line
            _fetch(table, row, k)


@kernel
def update_rows(p: Matrix, rows: Ints, g: Matrix, a: Matrix, v: Matrix, how: Doubles) -> None:
    """optim.update on distinct rows (n,) of a table p (I, D), g (n, D).

    a and v are as p; empty for sgd, without momentum. how: (adagrad, learning_rate, momentum).
    """
    f = type_of(p[0, 0])
    adagrad, rate, m, eps = how[0] > 0, f(how[1]), f(how[2]), f(optim.EPSILON)
    D = p.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        fetch_ahead(p, rows, i)
        fetch_ahead(a, rows, i)
        fetch_ahead(v, rows, i)
        if adagrad and m > 0:
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                v[row, k] = m * v[row, k] - rate * g[i, k] / np.sqrt(a[row, k] + eps)
                p[row, k] += v[row, k]
        elif adagrad:
            for k in range(D):
                a[row, k] += g[i, k] * g[i, k]
                p[row, k] -= rate * g[i, k] / np.sqrt(a[row, k] + eps)
        elif m > 0:
            for k in range(D):
                v[row, k] = m * v[row, k] - rate * g[i, k]
                p[row, k] += v[row, k]
        else:
            for k in range(D):
                p[row, k] -= rate * g[i, k]


@kernel
def adam_rows(
    p: Matrix, rows: Ints, g: Matrix, m: Matrix, a: Matrix, t: Matrix, learning_rate: float
) -> None:
    """optim.update by Adam on distinct rows (n,) of a table p (I, D), g (n, D); t is (I, 1)."""
    f = type_of(p[0, 0])
    zero, one, eps = f(0), f(1), f(optim.ADAM_EPSILON)
    keep_m, new_m = f(optim.ADAM_DECAY_M), f(1 - optim.ADAM_DECAY_M)
    keep_a, new_a = f(optim.ADAM_DECAY_A), f(1 - optim.ADAM_DECAY_A)
    last, rate, scale = zero, zero, zero
    for i in range(len(rows)):
        row = rows[i]
        fetch_ahead(p, rows, i)
        fetch_ahead(m, rows, i)
        fetch_ahead(a, rows, i)
        t[row, 0] += one
        if t[row, 0] != last:  # else as for the row before
            last = t[row, 0]
            rate, scale = f(learning_rate) / (one - keep_m**last), one / (one - keep_a**last)
        for k in range(p.shape[1]):
            m[row, k] = keep_m * m[row, k] + new_m * g[i, k]
            a[row, k] = keep_a * a[row, k] + new_a * (g[i, k] * g[i, k])
            p[row, k] -= rate * m[row, k] / (np.sqrt(a[row, k] * scale) + eps)


@kernel
def adam_catch_up(
    p: Matrix, rows: Ints, m: Matrix, a: Matrix, t: Matrix, step: int, moved: Doubles
) -> None:
    """optim.adam_catch_up for distinct rows (n,) of a table p (I, D); t is (I, 1)."""
    f = type_of(p[0, 0])
    eps, keep_m, keep_a = f(optim.ADAM_EPSILON), f(optim.ADAM_DECAY_M), f(optim.ADAM_DECAY_A)
    for i in range(len(rows)):
        row = rows[i]
        fetch_ahead(p, rows, i)
        fetch_ahead(m, rows, i)
        fetch_ahead(a, rows, i)
        waits, by = f(step) - t[row, 0], f(moved[int(t[row, 0])])
        of_m, of_a = keep_m**waits, keep_a**waits
        for k in range(p.shape[1]):
            p[row, k] -= by * m[row, k] / (np.sqrt(a[row, k]) + eps)
            m[row, k] *= of_m
            a[row, k] *= of_a
        t[row, 0] = f(step)


@kernel
def update_matrix(
    p: Matrix, left: Matrix, right_T: Matrix, a: Matrix, v: Matrix, how: Doubles, small: int,
    tile: Vector, first_row: Ints,
) -> None:  # fmt: skip
    """Update p (rows, columns) by the gradient left right_T, left (rows, n), right_T (n, columns).

    tile is scratch, see `tile_of`; first_row is (0,): a tile is updated as one long row, since
    the remainder beside full vectors is short.
    """
    n, columns = right_T.shape
    some = tile_of(n, columns, small)
    for start in range(0, len(left), some):
        end = min(start + some, len(left))
        d = matrix_at(tile, 0, end - start, columns)
        dot(rows_of(left, start, end), right_T, d)
        a_rows, v_rows = line(rows_of(a, start, end)), line(rows_of(v, start, end))
        update_rows(line(rows_of(p, start, end)), first_row, line(d), a_rows, v_rows, how)


# --- scores of the catalogue, and ranks -----------------------------------------------------------
# A score is always the same sum, k = 0, 1, 2 ... in order, whatever other cases and items are
# beside it: so equal items tie, and a session served alone gets the scores of the evaluation, to
# the bit. BLAS promises no order. Vector instructions go over items, whose sums do not meet, and
# all loops over them have one length, without a remainder that might be compiled differently.
#
# Scores are made and counted a tile at a time, CASES times COLUMNS: it stays in the cache between
# the product that writes it and the count that reads it; CHUNK rows of V^T stay in the L1 cache.
CASES, COLUMNS, CHUNK = 256, 512, 16


@inner(fastmath=False)
def _count(scores, bias, target):
    """How many scores + bias, each (n,), are below `target`, and how many equal it."""
    below = level = np.int32(0)
    for j in range(len(scores)):
        score = scores[j] + bias[j]
        # In 32 bits, as wide as a float32: twice as many fit into a vector as in 64.
        below = np.int32(below + np.int32(score < target))
        level = np.int32(level + np.int32(score == target))
    return below, level


def scratch(h: np.ndarray) -> tuple[np.ndarray, ...]:
    """h with zeros appended: cases to an even number n, units to a multiple of 4, K.

    And room for a tile: V^T (K, COLUMNS), of which rows past H stay 0, and s (n, COLUMNS). All are
    aligned to cache lines: loops take twice as long where each vector lies on two.
    """
    n, H = h.shape
    n_even, K = (n + 1) // 2 * 2, (H + 3) // 4 * 4
    cases, V_T = apart((n_even, K), h.dtype), apart((K, COLUMNS), h.dtype)
    cases[:], V_T[:] = 0, 0
    cases[:n, :H] = h
    return cases, V_T, apart((n_even, COLUMNS), h.dtype)


@kernel(fastmath={"contract"})  # not "reassoc": the order of a sum is the point
def products(cases: Matrix, V: Matrix, V_T: Matrix, s: Matrix) -> None:
    """s[:, :m] <- cases V^T for V (m, H), m <= COLUMNS; the others come from `scratch`."""
    m, H = V.shape
    n, K = cases.shape
    width = s.shape[1]
    whole = m // 8 * 8
    for j in range(0, whole, 8):  # in eights: rows that are read stay in the cache
        for k in range(H):
            for i in range(8):
                V_T[k, uint(j + i)] = V[uint(j + i), k]
    for j in range(whole, m):
        for k in range(H):
            V_T[k, j] = V[j, k]
    zero(s)
    # Two cases and four k at a time: a number that is read from V^T or s is used more than once.
    for chunk in range(0, K, CHUNK):
        for i in range(0, n, 2):
            s0, s1 = vector_at(s, i * width, width), vector_at(s, (i + 1) * width, width)
            for k in range(chunk, min(chunk + CHUNK, K), 4):
                a0, a1, a2, a3 = cases[i, k], cases[i, k + 1], cases[i, k + 2], cases[i, k + 3]
                i1 = i + 1
                b0, b1, b2, b3 = cases[i1, k], cases[i1, k + 1], cases[i1, k + 2], cases[i1, k + 3]
                v0, v1 = vector_at(V_T, k * width, width), vector_at(V_T, (k + 1) * width, width)
                v2 = vector_at(V_T, (k + 2) * width, width)
                v3 = vector_at(V_T, (k + 3) * width, width)
                for j in range(width):  # not COLUMNS: LLVM would unroll it, for seconds
                    s0[j] = s0[j] + a0 * v0[j] + a1 * v1[j] + a2 * v2[j] + a3 * v3[j]
                    s1[j] = s1[j] + b0 * v0[j] + b1 * v1[j] + b2 * v2[j] + b3 * v3[j]


@kernel(fastmath=False)
def score_catalogue(
    cases: Matrix, V: Matrix, b: Vector, V_T: Matrix, s: Matrix, scores: Matrix
) -> None:
    """scores (n, I) of n cases <- cases V^T + b; V_T and s come from `scratch`."""
    for start in range(0, len(V), COLUMNS):
        end = min(start + COLUMNS, len(V))
        products(cases, rows_of(V, start, end), V_T, s)
        for i in range(len(scores)):
            for j in range(end - start):
                scores[i, start + j] = s[i, j] + b[start + j]


@kernel(fastmath=False)
def score_pairs(
    cases: Matrix, V_T: Matrix, s: Matrix, V: Matrix, b: Vector, scores: Vector
) -> None:
    """scores (n,) <- case i's score of the item with row V[i] (n, H) and bias b[i]."""
    products(cases, V, V_T, s)  # of each case with all these items: by far the most are not used
    for i in range(len(scores)):
        scores[i] = s[i, i] + b[i]


@kernel(fastmath=False)
def count_scores(
    cases: Matrix, V_T: Matrix, s: Matrix, V: Matrix, b: Vector, of_targets: Vector, below: Ints,
    level: Ints,
) -> None:  # fmt: skip
    """below and level (n,) <- items that score less than each case's target, and as much."""
    n = len(of_targets)
    for i in range(n):
        below[i] = level[i] = 0
    for start in range(0, len(V), COLUMNS):
        size = min(COLUMNS, len(V) - start)
        products(cases, rows_of(V, start, start + size), V_T, s)
        for i in range(n):
            scores = vector_at(s, i * COLUMNS, size)
            less, same = _count(scores, vector_at(b, start, size), of_targets[i])
            below[i] += less
            level[i] += same
