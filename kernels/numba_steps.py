"""Many training steps in one compiled call: network.train_window for the usual network.

Covered is what the published configurations use: one recurrent layer and nothing after it, bptt
= 1, no L2 and no limit on the gradient. It computes what network.py does, up to rounding, but for
its dropout masks, and is faster for four reasons: no Python between steps, no temporary arrays, an
item that was drawn several times is scored once and weighted, and two threads where there are two
cores. A step is three phases (`_train`), each of parts that are the same however many threads do
them; a part owns half of the items and half of each matrix's rows, and only it changes them.
Imports the other Numba kernels.

Letters are those of network.py: B lanes, H units, I items, X width of the input; n the step's
lanes, of which a part has those from lo to hi; U a part's distinct items, of which the first
`scored` are targets and samples.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable
from threading import Thread
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from threadpoolctl import threadpool_info

from gru4rec_np.kernels import coded, usual
from gru4rec_np.kernels.numba_cpu import (
    apart,
    blend_backward,
    candidate,
    gates,
    reset_backward,
    update_rows,
)
from gru4rec_np.kernels.numba_math import at, exp, jit, lane_loss, type_of
from gru4rec_np.kernels.numba_threads import LINE, Pace, finish, new_counters, take
from gru4rec_np.losses import LOSSES

INPUTS = ("onehot", "embedding", "shared")
ONEHOT, EMBEDDING, SHARED = range(len(INPUTS))

# Weights, or Adagrad's sums, or velocities: U in two parts, each contiguous; biases as rows.
Parameters = namedtuple("Parameters", "E W_x U_rz U_n b c V_y b_y")

Settings = namedtuple(
    "Settings",
    "input reset_after hidden_act hidden_a loss final_act final_a bpreg smoothing logq "
    "sample_alpha batch_size adagrad learning_rate momentum dropout_embed dropout_hidden small "
    "small_T flip parts",
)

# All that a step writes beside the weights, made once. Of (B, ...) the first n rows are in use; y,
# g, dy, scratch and tile are flat, since their rows have another length at each use.
# What is (PARTS, ...) has a row for each part: `own` to `V` of the items that it owns, `counts` and
# `weights` of all scored items, as its lanes use them.
Work = namedtuple(
    "Work",
    "every sizes own rows fed_rows fed count weight log_weights bias a_bias v_bias V counts "
    "weights target log_own h y g dy db term e e_mask de xW dxW hU_rz hU_n g_rz g_n r z n h_mask "
    "out dout dout_part rh scratch tile db_gates loss",
)

# Of the items that a part owns, in Work.sizes: those scored, those scored or fed, and how many
# distinct rows are fed where the input has a table of its own.
SCORED, DISTINCT, FED = range(3)

# The phases of a step.
COLLECT, PASS, UPDATE, PHASES = range(4)

# Parts of a phase where a step is large enough to gain by it: that many multiplications in all.
PARTS = 2  # a power of two
WORTH_PARTS = 2**20

# At most so many rows of a table or a matrix have their gradient made and used at once: it is still
# in the cache when the optimiser reads it.
TILE = 256


def _workspace(B: int, H: int, X: int, most: int, dtype: type) -> Work:
    """Arrays for steps of at most B lanes and `most` distinct items."""
    ints = {
        "own": (PARTS, most), "rows": (PARTS, most), "fed_rows": (PARTS, B), "fed": (PARTS, B),
        "target": (B,), "sizes": (PARTS, LINE),
    }  # fmt: skip
    floats = {
        "count": (PARTS, most), "weight": (PARTS, most), "bias": (PARTS, most),
        "a_bias": (PARTS, most), "v_bias": (PARTS, most), "V": (PARTS, most, H),
        "counts": (PARTS, most), "weights": (PARTS, most), "log_own": (B,),
        "term": (PARTS, most), "db": (PARTS, most), "y": (B * most,), "g": (B * most,),
        "dy": (B * most,), "h": (B, H), "e": (B, X), "e_mask": (B, X), "de": (B, X),
        "xW": (B, 3 * H), "dxW": (B, 3 * H), "hU_rz": (B, 2 * H), "hU_n": (B, H),
        "g_rz": (B, 2 * H), "g_n": (B, H), "r": (B, H), "z": (B, H), "n": (B, H),
        "h_mask": (B, H), "out": (B, H), "dout": (B, H), "dout_part": (B, H), "rh": (B, H),
        "scratch": (PARTS, B * max(X, H)), "tile": (PARTS, TILE * 3 * H), "db_gates": (1, 3 * H),
        "loss": (PARTS,), "log_weights": (PARTS,),
    }  # fmt: skip
    return Work(
        every=np.arange(max(H, X)),
        **{name: apart(shape, np.int64) for name, shape in ints.items()},
        **{name: apart(shape, dtype) for name, shape in floats.items()},
    )


# --- small pieces ---------------------------------------------------------------------------------


@jit
def _tile(inner, columns, s):
    """How many rows of a product (rows, inner) (inner, columns) to make at once, see _ways."""
    rows = s.small // (inner * columns) // 16 * 16
    return min(rows, TILE) if rows else TILE


@jit
def _product(a, b, out, s):
    """out <- a b, some rows of a at a time, see _ways."""
    rows = s.small // b.size // 4 * 4
    step = rows if rows else len(a)
    for i in range(0, len(a), step):
        np.dot(a[i : i + step], b, out[i : i + step])


@jit
def _product_flipped(a, b, out, scratch):
    """out <- a b by way of its transpose, b^T a^T."""
    out_T = scratch[: out.size].reshape(out.shape[1], len(out))
    np.dot(b.T, a.T, out_T)
    for i in range(len(out)):
        for k in range(out.shape[1]):
            out[i, k] = out_T[k, i]


@jit
def _product_T(a, b, out, scratch, s):
    """out <- a b^T, flipped or some rows of a at a time, see _ways."""
    if s.flip:
        _product_flipped(a, b.T, out, scratch)
        return
    rows = s.small_T // len(b) // 4 * 4
    step = rows if rows else len(a)
    for i in range(0, len(a), step):
        np.dot(a[i : i + step], b.T, out[i : i + step])


@intrinsic
def _hash(typingctx, start, place):
    """A hash of two uint32: the finaliser of MurmurHash3 (Appleby), as in cuda/common.cuh.

    Written in LLVM's terms, since Numba would multiply with 64 bits, at less than half the speed.
    """

    def codegen(context, builder, signature, args):
        def mixed(x, shift, factor):
            x = builder.xor(x, builder.lshr(x, ir.Constant(x.type, shift))) if shift else x
            return builder.mul(x, ir.Constant(x.type, factor))

        x = builder.xor(args[0], mixed(args[1], 0, 0x85EBCA77))
        x = mixed(mixed(x, 16, 0x85EBCA6B), 13, 0xC2B2AE35)
        return mixed(x, 16, 1)

    return types.uint32(types.uint32, types.uint32), codegen


@jit
def _fill_mask(mask, first, seed, step, p):
    """Inverted dropout, 0 or 1/(1-p); mask (n, width) of the lanes from `first`, seed a uint32.

    Whether a place is kept is a hash of its counters, so it does not depend on the order of
    drawing.
    """
    f = type_of(mask[0, 0])
    scale = f(1 / (1 - p))
    limit = np.uint32(p * 4294967295.0)
    start = seed ^ np.uint32(step * 0x9E3779B1)
    width = mask.shape[1]
    for i in range(len(mask)):
        for k in range(width):
            kept = _hash(start, np.uint32((first + i) * width + k)) >= limit
            mask[i, k] = scale if kept else f(0)


@jit
def _enter_step(out, keep, reset, before, lo, hi, h):
    """As network.enter_step: h (B, H) from what the `before` lanes of the last step put out.

    Only lanes lo to hi of the new step.
    """
    lane, zero = 0, type_of(h[0, 0])(0)
    for i in range(before):
        if keep[i]:
            if lo <= lane < hi:
                fresh = reset[lane]
                for k in range(h.shape[1]):
                    h[lane, k] = zero if fresh else out[i, k]
            lane += 1


@jit
def _gather(table, rows, out):
    """out (1, n) <- the rows of a table (I, 1); of none, (1, 0), nothing."""
    if table.size > 0:
        for j in range(len(rows)):
            out[0, j] = table[rows[j], 0]


@jit
def _scatter(values, rows, table):
    """The way back from _gather."""
    if table.size > 0:
        for j in range(len(rows)):
            table[rows[j], 0] = values[0, j]


@jit
def _owner(item, s):
    """The part that alone changes the item's rows.

    It has every other 16 items: the biases of so many are as long as a line of the cache.
    """
    return item >> 4 & (s.parts - 1)


@jit
def _slot(item, stamp, n, mark, rows):
    """The item's slot among this step's distinct ones, a new one if it has none; their number.

    Without a branch, which the processor would guess wrong for every other item.
    """
    new = mark[item, 0] != stamp
    slot = n if new else mark[item, 1]
    mark[item, 0], mark[item, 1], rows[slot] = stamp, slot, item
    return slot, n + new


@jit
def _collect(part, x, y, samples, stamp, mark, log_support, s, w):
    """The step's distinct items that the part owns, how often each is scored, and what that weighs.

    With logQ, a column of item i weighs e^-log_q: as a target 1/support^logq, as a sample
    1/support^(alpha logq); an item's weight is the sum over its columns (see lane_loss).

    Args:
        x, y: (n,) the lanes' items and targets. samples: (S,). mark: (I, 2) stamp and slot.

    Fills rows, count, weight, sizes; log_weights, the sum of the columns' log weights; of the
    lanes whose target it owns, target and log_own; and fed: the place of each x that it owns among
    `rows` if the table is shared, else among `fed_rows`; -1 of others.
    """
    f = type_of(w.log_own[0])
    n, scored, log_weights, m = len(y), 0, f(0), 0
    rows, count, weight, own = w.rows[part], w.count[part], w.weight[part], w.own[part]
    count[:] = 0
    weight[:] = 0  # at first the columns as a target
    for i in range(n):
        if _owner(y[i], s) == part:
            slot, scored = _slot(y[i], stamp, scored, mark, rows)
            w.target[i] = slot
            w.log_own[i] = -f(s.logq) * f(log_support[y[i]])
            weight[slot] += f(1)
            count[slot] += f(1)
    for i in range(len(samples)):  # apart, and without a branch, as in _slot
        own[m] = samples[i]
        m += _owner(samples[i], s) == part
    for i in range(m):
        slot, scored = _slot(own[i], stamp, scored, mark, rows)
        count[slot] += f(1)
    if s.logq > 0:
        alpha, logs = f(s.sample_alpha), w.term[part]
        for j in range(scored):  # apart, so that the next loop becomes vector instructions
            logs[j] = f(s.logq) * f(log_support[rows[j]])
        for j in range(scored):
            log_q = logs[j]
            as_target, as_sample = weight[j], count[j] - weight[j]
            weight[j] = as_target * exp(-log_q) + as_sample * exp(-alpha * log_q)
            log_weights -= (as_target + alpha * as_sample) * log_q
    else:
        weight[:scored] = count[:scored]
    w.log_weights[part] = log_weights
    distinct, n_fed, fed, fed_rows = scored, 0, w.fed[part], w.fed_rows[part]
    for i in range(n):
        fed[i] = -1
        if _owner(x[i], s) == part:
            if s.input == SHARED:
                fed[i], distinct = _slot(x[i], stamp, distinct, mark, rows)
            else:
                fed[i] = n_fed
                for j in range(n_fed):
                    if fed_rows[j] == x[i]:
                        fed[i] = j
                if fed[i] == n_fed:
                    fed_rows[n_fed] = x[i]
                    n_fed += 1
    w.sizes[part, SCORED], w.sizes[part, DISTINCT], w.sizes[part, FED] = scored, distinct, n_fed


@jit
def _gather_rows(part, W, w):
    """The scored rows that the part owns, side by side."""
    rows, V, bias = w.rows[part, : w.sizes[part, SCORED]], w.V[part], w.bias[part]
    for j in range(len(rows)):
        row = rows[j]
        for k in range(V.shape[1]):  # a loop, since a copied slice takes three times as long
            V[j, k] = W.V_y[row, k]
        bias[j] = W.b_y[row, 0]


@jit
def _first(part, w):
    """Where the part's scored items begin, when those of all parts stand one after the other."""
    first = 0
    for q in range(part):
        first += w.sizes[q, SCORED]
    return first


# --- one step -------------------------------------------------------------------------------------


@jit
def _forward(lo, hi, x, W, s, w, seed, step):
    """As network.recurrent, from the items x (n,) and the state w.h (n, H) to w.out (n, H)."""
    x, h = x[lo:hi], w.h[lo:hi]
    n, H = h.shape
    e, e_mask, xW = w.e[lo:hi], w.e_mask[lo:hi], w.xW[lo:hi]
    hU_rz, hU_n = w.hU_rz[lo:hi], w.hU_n[lo:hi]
    r, z, rh, out, h_mask = w.r[lo:hi], w.z[lo:hi], w.rh[lo:hi], w.out[lo:hi], w.h_mask[lo:hi]

    if s.dropout_embed > 0:
        _fill_mask(e_mask, lo, seed, 2 * step, s.dropout_embed)
    if s.input == ONEHOT:
        for i in range(n):
            item = x[i]
            for k in range(3 * H):
                xW[i, k] = W.W_x[item, k] * e_mask[i, k]
    else:
        for i in range(n):
            item = x[i]
            for k in range(e.shape[1]):
                e[i, k] = (W.V_y[item, k] if s.input == SHARED else W.E[item, k]) * e_mask[i, k]
        _product(e, W.W_x, xW, s)

    _product(h, W.U_rz, hU_rz, s)
    if s.reset_after:
        _product(h, W.U_n, hU_n, s)
        for i in range(n):
            for k in range(2 * H):
                hU_rz[i, k] += W.c[0, k]
            for k in range(H):
                hU_n[i, k] += W.c[0, at(2 * H + k)]
    gates(xW, hU_rz, W.b[0], r, z)
    if not s.reset_after:
        for i in range(n):
            for k in range(H):
                rh[i, k] = r[i, k] * h[i, k]
        _product(rh, W.U_n, hU_n, s)
    act = (s.hidden_act, s.hidden_a)
    candidate(xW, hU_n, W.b[0], r, z, h, s.reset_after, act, w.n[lo:hi], out)
    if s.dropout_hidden > 0:
        _fill_mask(h_mask, lo, seed, 2 * step + 1, s.dropout_hidden)
        for i in range(n):
            for k in range(H):
                out[i, k] *= h_mask[i, k]


@jit
def _loss(part, n, lo, hi, y_items, s, w):
    """The loss of lanes lo to hi of n, and from it w.dout (n, H), w.dy, and, added, w.db[part].

    `scored` are the items of all parts here, one part's after the other's; y_items (n,) the
    targets.

    w.dy holds the gradient of the scores on return: for each tile of items a contiguous matrix
    (lanes of all parts, items), as the products take it.
    """
    f = type_of(w.log_own[0])
    m, scored, log_weights = hi - lo, _first(s.parts, w), f(0)
    scale, loss = f(1 / s.batch_size), f(0)
    out, dout, dout_part = w.out[lo:hi], w.dout[lo:hi], w.dout_part[lo:hi]
    mine = slice(lo * scored, hi * scored)
    y, g = w.y[mine].reshape(m, scored), w.g[mine].reshape(m, scored)
    count, weight = w.counts[part, :scored], w.weights[part, :scored]
    term, db = w.term[part, :scored], w.db[part, :scored]
    for q in range(s.parts):
        first, has = _first(q, w), w.sizes[q, SCORED]
        log_weights += w.log_weights[q]
        for i in range(lo, hi):
            if _owner(y_items[i], s) == q:
                w.target[i] += first
        if has == 0:
            continue
        # BLAS makes V out^T faster than out V^T, even with the way back.
        y_T = w.g[lo * scored : lo * scored + has * m].reshape(has, m)
        np.dot(w.V[q, :has], out.T, y_T)
        bias = w.bias[q]
        for j in range(has):
            for i in range(m):
                y[i, at(first + j)] = y_T[j, i] + bias[j]
        count[first : first + has] = w.count[q, :has]
        weight[first : first + has] = w.weight[q, :has]
    for i in range(m):
        loss += lane_loss(
            y[i], g[i], term, w.target[lo + i], count, weight, w.log_own[lo + i], log_weights,
            s.loss, s.final_act, s.final_a, s.bpreg, s.smoothing,
        )  # fmt: skip
    dout[:] = 0
    tile = _tile(n, out.shape[1], s)
    for q in range(s.parts):
        first, has = _first(q, w), w.sizes[q, SCORED]
        for start in range(0, has, tile):
            end = min(start + tile, has)
            V, here = w.V[q, start:end], first + start
            dy = w.dy[n * here : n * (first + end)].reshape(n, end - start)[lo:hi]
            for i in range(m):
                for j in range(end - start):
                    dy[i, j] = g[i, at(here + j)] * scale
                    db[at(here + j)] += dy[i, j]
            if s.flip:
                _product_flipped(dy, V, dout_part, w.scratch[part])
            else:
                np.dot(dy, V, dout_part)
            for i in range(m):
                for k in range(out.shape[1]):
                    dout[i, k] += dout_part[i, k]
    w.loss[part] = loss * scale


@jit
def _backward(part, lo, hi, W, s, w):
    """From w.dout (n, H) back to the gates, w.dxW, w.g_rz, w.g_n, and an embedding's input, w.de.

    The old state w.h (n, H) is a constant, for bptt = 1.
    """
    h = w.h[lo:hi]
    n, H = h.shape
    dout, dxW, g_rz, g_n = w.dout[lo:hi], w.dxW[lo:hi], w.g_rz[lo:hi], w.g_n[lo:hi]
    r, z, hU_n, de, e_mask = w.r[lo:hi], w.z[lo:hi], w.hU_n[lo:hi], w.de[lo:hi], w.e_mask[lo:hi]
    h_mask, scratch = w.h_mask[lo:hi], w.scratch[part]
    if s.dropout_hidden > 0:
        for i in range(n):
            for k in range(H):
                dout[i, k] *= h_mask[i, k]
    blend_backward(dout, h, z, w.n[lo:hi], (s.hidden_act, s.hidden_a), dxW)
    for i in range(n):
        for k in range(H):
            g_n[i, k] = dxW[i, at(2 * H + k)]
    dr = dout  # its memory is free now
    if s.reset_after:
        for i in range(n):
            for k in range(H):
                dr[i, k] = g_n[i, k] * hU_n[i, k]
                g_n[i, k] *= r[i, k]
    else:
        _product_T(g_n, W.U_n, dr, scratch, s)
        for i in range(n):
            for k in range(H):
                dr[i, k] *= h[i, k]
    reset_backward(dr, r, dxW)
    for i in range(n):
        for k in range(2 * H):
            g_rz[i, k] = dxW[i, k]
    if s.input != ONEHOT:
        _product_T(dxW, W.W_x, de, scratch, s)
        for i in range(n):
            for k in range(de.shape[1]):
                de[i, k] *= e_mask[i, k]


@jit
def _update_matrix(part, p, left, right, a, v, how, s, w):
    """The part's rows of p, by the gradient left^T right, left (n, rows), right (n, columns)."""
    n, columns = right.shape
    tile = _tile(n, columns, s)
    lo, hi = part * len(p) // s.parts, (part + 1) * len(p) // s.parts
    left_T = w.scratch[part, : n * (hi - lo)].reshape(hi - lo, n)  # whose rows can be cut
    for i in range(n):
        for k in range(hi - lo):
            left_T[k, i] = left[i, at(lo + k)]
    for start in range(lo, hi, tile):
        end = min(start + tile, hi)
        d = w.tile[part, : (end - start) * columns].reshape(end - start, columns)
        np.dot(left_T[start - lo : end - lo], right, d)
        update_rows(p, w.every[start:end], d, a, v, how)


@jit
def _update_output(part, n, W, A, M, how, s, w):
    """The part's rows of the output table; as the input's table too, if it is shared."""
    first, scored, U = _first(part, w), w.sizes[part, SCORED], w.sizes[part, DISTINCT]
    out, H, fed = w.out[:n], w.out.shape[1], w.fed[part]
    tile = _tile(n, H, s)
    for start in range(0, U, tile):
        end = min(start + tile, U)
        has = max(0, min(end, scored) - start)  # rows that are scored; the others are only fed
        dV = w.tile[part, : (end - start) * H].reshape(end - start, H)
        if has:
            here = first + start
            dy = w.dy[n * here : n * (here + has)].reshape(n, has)
            np.dot(dy.T, out, dV[:has])
        dV[has:] = 0
        if s.input == SHARED:
            for i in range(n):
                row = fed[i] - start
                if 0 <= row < end - start:
                    for k in range(H):
                        dV[row, k] += w.de[i, k]
        update_rows(W.V_y, w.rows[part, start:end], dV, A.V_y, M.V_y, how)


@jit
def _update_output_bias(part, W, A, M, how, s, w):
    """Biases lie alone, each at another place: side by side they fill a vector."""
    first, scored = _first(part, w), w.sizes[part, SCORED]
    rows, db = w.rows[part, :scored], w.db[0, first : first + scored].reshape(1, scored)
    for other in range(1, s.parts):  # from all lanes
        for j in range(scored):
            db[0, j] += w.db[other, at(first + j)]
    b = w.bias[part, :scored].reshape(1, scored)
    a, v = w.a_bias[part, :scored].reshape(1, scored), w.v_bias[part, :scored].reshape(1, scored)
    _gather(A.b_y, rows, a)
    _gather(M.b_y, rows, v)
    update_rows(b, w.every[:1], db, a, v, how)
    _scatter(b, rows, W.b_y)
    _scatter(a, rows, A.b_y)
    _scatter(v, rows, M.b_y)


@jit
def _update_input(part, n, W, A, M, how, s, w):
    """W_x, and the rows of a table of its own that were fed; equal rows are summed first."""
    if s.input != ONEHOT:
        _update_matrix(part, W.W_x, w.e[:n], w.dxW[:n], A.W_x, M.W_x, how, s, w)
    if s.input != SHARED:
        # Sums over lanes that were fed the same item.
        n_fed, X, fed = w.sizes[part, FED], w.e.shape[1], w.fed[part]
        rows, sums = w.fed_rows[part, :n_fed], w.scratch[part, : n_fed * X].reshape(n_fed, X)
        sums[:] = 0
        for i in range(n):
            row = fed[i]
            if row >= 0:
                for k in range(X):
                    de = w.dxW[i, k] * w.e_mask[i, k] if s.input == ONEHOT else w.de[i, k]
                    sums[row, k] += de
        if s.input == ONEHOT:
            update_rows(W.W_x, rows, sums, A.W_x, M.W_x, how)
        else:
            update_rows(W.E, rows, sums, A.E, M.E, how)


@jit
def _update_cell(part, n, W, A, M, how, s, w):
    """U_rz and U_n; one part, b and c."""
    H, h, dxW, db = w.h.shape[1], w.h[:n], w.dxW[:n], w.db_gates
    _update_matrix(part, W.U_rz, h, w.g_rz[:n], A.U_rz, M.U_rz, how, s, w)
    left = h if s.reset_after else w.rh[:n]
    _update_matrix(part, W.U_n, left, w.g_n[:n], A.U_n, M.U_n, how, s, w)
    if part < s.parts - 1:
        return
    db[:] = 0
    for i in range(n):
        for k in range(3 * H):
            db[0, k] += dxW[i, k]
    update_rows(W.b, w.every[:1], db, A.b, M.b, how)
    if s.reset_after:  # c takes b's gradient, but for the candidate's part, which r has scaled
        db[0, 2 * H :] = 0
        for i in range(n):
            for k in range(H):
                db[0, at(2 * H + k)] += w.g_n[i, k]
        update_rows(W.c, w.every[:1], db, A.c, M.c, how)


@jit
def _train(
    first_part, W, A, M, s, w, xs, ys, lanes, resets, keeps, before, first, samples, log_support,
    mark, stamp, seed, losses, counters,
):  # fmt: skip
    """The steps first, first + 1, ... of an epoch; the `before` lanes' state is w.out, in and out.

    Each thread calls this with the same arguments but the first, and takes parts until there are no
    more:

    COLLECT  the parts share the items: the distinct ones, the scored rows; the lanes' states
    PASS     the parts share the lanes: forward, loss, backward
    UPDATE   the parts share the items and the rows of the matrices
    """
    how = (s.adagrad, s.learning_rate, s.momentum)
    while True:
        number, part = take(counters, s.parts, len(losses) * PHASES, first_part)
        if part < 0:
            return
        step, phase = number // PHASES, number % PHASES
        t = first + step
        n = lanes[t]
        lo, hi = part * n // s.parts, (part + 1) * n // s.parts
        if phase == COLLECT:
            if step > 0:
                before = lanes[t - 1]
            _enter_step(w.out, keeps[t], resets[t], before, lo, hi, w.h)
            x, y = xs[t, :n], ys[t, :n]
            _collect(part, x, y, samples[step], stamp + step, mark, log_support, s, w)
            _gather_rows(part, W, w)
        elif phase == PASS:
            w.loss[part] = 0
            w.db[part] = 0
            if lo < hi:  # of the last lane of an epoch one part has nothing
                _forward(lo, hi, xs[t], W, s, w, seed, step)
                _loss(part, n, lo, hi, ys[t], s, w)
                _backward(part, lo, hi, W, s, w)
        else:
            if part == 0:
                losses[step] = w.loss[: s.parts].sum()
            _update_output(part, n, W, A, M, how, s, w)
            _update_output_bias(part, W, A, M, how, s, w)
            _update_input(part, n, W, A, M, how, s, w)
            _update_cell(part, n, W, A, M, how, s, w)
        finish(counters)


# --- the face to Python ---------------------------------------------------------------------------


def _ways() -> tuple[int, int, bool]:
    """How the BLAS at hand makes products fastest.

    For processors with AVX-512, OpenBLAS has code for small products that is a fifth faster than
    its other. Elsewhere all should be as large as they can; and the way back to 100 columns, from
    300 or 256, took 0.5 or 0.7 times as long by its transpose, where the lanes, a multiple of the
    registers, lie along these (32 lanes, OpenBLAS's Haswell code).

    Returns:
        the most multiplications of a product a b that is small, the most numbers in a product
        a b^T, and whether to flip the way back.
    """
    names = {lib.get("architecture") for lib in threadpool_info()}
    if names & {"SkylakeX", "Cooperlake", "SapphireRapids"}:
        return 100**3, 1200, False
    return 2**40, 2**40, True


def stepper(
    hp: Any,
    W: dict[str, np.ndarray],
    memory: dict[str, dict[str, np.ndarray]],
    log_support: np.ndarray,
) -> Callable | None:
    """As `network.stepper`, compiled; None if the model is not a usual one."""
    if not usual(hp):
        return None
    n_items, H, dtype = len(W["b_y"]), hp.layers[0], W["V_y"].dtype
    multiplications = 3 * hp.batch_size * H * (hp.batch_size + hp.n_sample + 3 * H)
    s = Settings(
        INPUTS.index(hp.input), hp.reset_after, *coded(hp.hidden_activation),
        LOSSES.index(hp.loss), *coded(hp.final_activation), hp.bpreg, hp.smoothing,
        hp.logq if hp.loss == "cross-entropy" else 0.0, hp.sample_alpha, float(hp.batch_size),
        hp.adapt == "adagrad", hp.learning_rate, hp.momentum, hp.dropout_p_embed,
        hp.dropout_p_hidden, *_ways(),
        PARTS if multiplications >= WORTH_PARTS else 1,
    )  # fmt: skip
    X = 3 * H if hp.input == "onehot" else len(W["W_x"])
    w = _workspace(hp.batch_size, H, X, 2 * hp.batch_size + hp.n_sample, dtype)
    mark = np.full((n_items, 2), -1, np.int64)
    stamp = 0  # of the next step: never the same twice, so that mark needs no clearing
    pace = Pace(s.parts)
    none = np.empty((1, 0), dtype)  # stands for what this model or optimiser has not

    def parameters(arrays: dict[str, np.ndarray]) -> Parameters:
        """Weights, or one kind of the optimiser's memory, as the compiled loop takes them."""
        table = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
        row = {name: array[None] for name, array in arrays.items()}
        U = table.get("U0", none)
        return Parameters(
            table.get("E", none), table.get("W_x", none), U[:, : 2 * H].copy(),
            U[:, 2 * H :].copy(), row.get("b0", none), row.get("c0", none),
            table.get("V_y", none), table.get("b_y", none),
        )  # fmt: skip

    def run(batches, steps, samples, state, rng):
        nonlocal stamp
        kinds = [W] + [{n: m[k] for n, m in memory.items() if k in m} for k in "av"]
        parts = [parameters(arrays) for arrays in kinds]
        before = len(state.h[0])
        w.out[:before] = state.h[0]
        losses = np.empty(len(steps))
        args = (
            *parts, s, w, batches.x, batches.y, batches.lanes, batches.reset, batches.keep, before,
            steps[0], samples, log_support, mark, stamp, np.uint32(rng.integers(2**32)), losses,
            new_counters(s.parts),
        )  # fmt: skip
        n_threads = pace.choose(min(s.parts, numba.get_num_threads()))
        threads = [Thread(target=_train, args=(i, *args)) for i in range(1, n_threads)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        _train(0, *args)
        for thread in threads:
            thread.join()
        pace.took(n_threads, (time.perf_counter() - began) / len(steps))
        stamp += len(steps)
        for arrays, part in zip(kinds, parts, strict=True):
            if "U0" in arrays:
                arrays["U0"][:] = np.hstack([part.U_rz, part.U_n])
        n = batches.lanes[steps[-1]]
        return losses, state._replace(h=[w.out[:n].copy()], history=state.history[:n])

    return run
