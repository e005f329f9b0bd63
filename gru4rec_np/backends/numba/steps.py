"""Many training steps in one compiled call: network.train_window for the usual network.

Covered is what the published configurations use: one recurrent layer and nothing after it, bptt
= 1, no L2 and no limit on the gradient. It computes what network.py does, up to rounding, but for
its dropout masks, and is faster for four reasons: no Python between steps, no temporary arrays, an
item that was drawn several times is scored once and weighted, and two threads where there are two
cores. For these a step is cut into parts, the same ones however many threads do them. A part owns
half of the items and half of the units: their weights stay in one core's cache, and what travels
between cores is what the lanes make of them, which is less. Imports the other Numba kernels.

Letters are those of network.py: B lanes, H units, I items, X width of the input; n the step's
lanes; K a part's units, from lo to hi; U its distinct items, of which the first `scored` are
targets and samples. Matrices of a step are (units, n) or (items, n), so that the rows of a part lie
together and the lanes fill vectors; _T marks the transpose, (n, units).
"""

from __future__ import annotations

import time
from collections import namedtuple
from itertools import pairwise
from threading import Thread
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from threadpoolctl import threadpool_info

from gru4rec_np.backends.base import Memory, Weights, coded, multiplications
from gru4rec_np.backends.numba.kernels import (
    apart,
    blend_backward,
    candidate,
    fetch_ahead,
    gate,
    reset_backward,
    update_rows,
)
from gru4rec_np.backends.numba.maths import at, exp, inner, jit, lane_loss, type_of
from gru4rec_np.backends.numba.matrices import (
    add_columns,
    add_dot,
    dot,
    line,
    rows_of,
    sum_rows,
    transpose,
)
from gru4rec_np.backends.numba.threads import LINE, Pace, finish, new_counters, take
from gru4rec_np.data.batches import Batches
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.losses import LOSSES

INPUTS = ("onehot", "embedding", "shared")
ONEHOT, EMBEDDING, SHARED = range(len(INPUTS))

# Weights, or Adagrad's sums, or velocities. E is the input's table: of a 1-of-N input that is W_x.
# From W_x to c they are tuples of what each part owns, transposed: a row for each of its units'
# r, then for each z, then for each n. Biases are columns.
Parameters = namedtuple("Parameters", "E W_x U_rz U_n b c V_y b_y")

Settings = namedtuple(
    "Settings",
    "input reset_after hidden_act hidden_a loss final_act final_a bpreg smoothing logq "
    "sample_alpha batch_size adagrad learning_rate momentum dropout_embed dropout_hidden small "
    "parts",
)

# All that a step writes beside the weights, made once. Flat are the matrices whose columns are the
# step's lanes, see rows_of. What is (PARTS, ...) has a row for each part: `own` to `scores` of the
# items that it owns, `counts` and `weights` of all scored items, as its lanes use them; dout_T, drh
# and de_T are what its items and units add to a sum over all. Where scores were, dy comes.
Work = namedtuple(
    "Work",
    "every sizes own rows fed_rows fed count weight log_weights bias a_bias v_bias V scores "
    "counts weights target log_own y g term db h e e_mask e_T xW hU_rz hU_n rz n rh out h_mask "
    "dout_T dout dxW drh dr g_n de_T scratch tile db_gates loss",
)

# Of the items that a part owns, in Work.sizes: those scored, those scored or fed, and how many
# distinct rows are fed where the input has a table of its own.
SCORED, DISTINCT, FED = range(3)

# The phases of a step, see _train.
COLLECT, GATES, STATE, SCORE, LOSS, SCORE_BACK, STATE_BACK, GATES_BACK, UPDATE, PHASES = range(10)

# Parts of a phase where a step is large enough to gain by it: that many multiplications in all.
PARTS = 2  # a power of two
WORTH_PARTS = 2**20

# At most so many rows of a table or a matrix have their gradient made and used at once: it is still
# in the cache when the optimiser reads it.
TILE = 128


def _workspace(B: int, S: int, H: int, X: int, dtype: type) -> Work:
    """Arrays for steps of at most B lanes and S samples."""
    scored = B + S
    most = scored + B  # distinct items
    ints = {
        "own": (PARTS, most), "rows": (PARTS, most), "fed_rows": (PARTS, B), "fed": (PARTS, B),
        "target": (B,), "sizes": (PARTS, LINE),
    }  # fmt: skip
    floats = {
        "count": (PARTS, scored), "weight": (PARTS, scored), "bias": (PARTS, scored),
        "a_bias": (PARTS, scored), "v_bias": (PARTS, scored), "V": (PARTS, scored, H),
        "scores": (PARTS, scored * B), "counts": (PARTS, scored),
        "weights": (PARTS, scored), "log_own": (B,), "y": (B, scored), "g": (B, scored),
        "term": (PARTS, scored), "db": (PARTS, scored), "h": (H * B,), "e": (B, X),
        "e_mask": (B, X), "e_T": (PARTS, X * B), "xW": (3 * H * B,), "hU_rz": (2 * H * B,),
        "hU_n": (H * B,),
        "rz": (2 * H * B,), "n": (H * B,), "rh": (H * B,), "out": (H * B,), "h_mask": (H * B,),
        "dout_T": (PARTS, B, H), "dout": (H * B,), "dxW": (3 * H * B,), "drh": (PARTS, H * B),
        "dr": (H * B,), "g_n": (H * B,), "de_T": (PARTS, B, X),
        "scratch": (PARTS, B * 3 * max(X, H)), "tile": (PARTS, TILE * max(H, X)),
        "db_gates": (PARTS, 3 * H), "loss": (PARTS,), "log_weights": (PARTS,),
    }  # fmt: skip
    w = Work(
        every=np.arange(max(H, X)),
        **{name: apart(shape, np.int64) for name, shape in ints.items()},
        **{name: apart(shape, dtype) for name, shape in floats.items()},
    )
    w.e_mask[:] = 1  # and so it stays where nothing is dropped
    w.de_T[:] = 0  # of a 1-of-N input each part writes its units' columns only
    return w


# --- small pieces ---------------------------------------------------------------------------------


@inner
def _share(part, size, s):
    """What a part has of so many units or lanes: from, to."""
    return part * size // s.parts, (part + 1) * size // s.parts


@jit(inline="always")
def _gate_of(a, gate_, lo, hi, H):
    """Of a (n, 3H) the columns of some units' r, z or n, which is gate 0, 1 or 2."""
    return a[:, gate_ * H + lo : gate_ * H + hi]


@inner
def _tile(inner, columns, s):
    """How many rows of a product (rows, inner) (inner, columns) to make at once, see _small."""
    rows = s.small // (inner * columns) // 16 * 16
    return min(rows, TILE) if rows else TILE


@inner
def _product(a, b, out, s):
    """out <- a b, some rows of a at a time."""
    tile = _tile(len(b), b.shape[1], s)
    for start in range(0, len(a), tile):
        end = min(start + tile, len(a))
        dot(a[start:end], b, out[start:end])


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
def _fill_mask(mask, first, by_row, by_column, seed, step, p):
    """Inverted dropout, 0 or 1/(1-p); mask[i, k] is of the place first + i by_row + k by_column.

    That is lane * width + unit, for a width of all units. Whether a place is kept is a hash of it,
    the step and the seed, a uint32, so it does not depend on the order of drawing.
    """
    f = type_of(mask[0, 0])
    scale = f(1 / (1 - p))
    limit = np.uint32(p * 4294967295.0)
    start = seed ^ np.uint32(step * 0x9E3779B1)
    for i in range(len(mask)):
        for k in range(mask.shape[1]):
            kept = _hash(start, np.uint32(first + i * by_row + k * by_column)) >= limit
            mask[i, k] = scale if kept else f(0)


@inner
def _enter_step(out, keep, reset, h):
    """As network.enter_step: h (K, n) from what the lanes of the last step put out, (K, before)."""
    K, n = h.shape
    zero = type_of(h[0, 0])(0)
    if out.shape[1] == n:  # all lanes go on, as nearly always
        for k in range(K):
            for i in range(n):
                h[k, i] = zero if reset[i] else out[k, i]
        return
    lane = 0
    for i in range(out.shape[1]):
        if keep[i]:
            for k in range(K):
                h[k, lane] = zero if reset[lane] else out[k, i]
            lane += 1


@inner
def _gather(table, rows, out):
    """out (1, n) <- the rows of a table (I, 1); of none, (1, 0), nothing."""
    if table.size > 0:
        for j in range(len(rows)):
            out[0, j] = table[rows[j], 0]


@inner
def _scatter(values, rows, table):
    """The way back from _gather."""
    if table.size > 0:
        for j in range(len(rows)):
            table[rows[j], 0] = values[0, j]


@inner
def _owner(item, s):
    """The part that alone changes the item's rows.

    It has every other 16 items: the biases of so many are as long as a line of the cache.
    """
    return item >> 4 & (s.parts - 1)


@inner
def _slot(item, stamp, n, mark, rows):
    """The item's slot among this step's distinct ones, a new one if it has none; their number.

    Without a branch, which the processor would guess wrong for every other item.
    """
    seen, old = mark[item, 0], mark[item, 1]
    new = seen != stamp
    slot = n if new else old
    mark[item, 0], mark[item, 1], rows[slot] = stamp, slot, item
    return slot, n + new


@inner
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
        own[i], scored = _slot(own[i], stamp, scored, mark, rows)
    for i in range(m):  # apart: a count would have to wait for its slot, and all after it too
        count[own[i]] += f(1)
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
        for j in range(scored):
            weight[j] = count[j]
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


@inner
def _gather_rows(part, start, end, W, w):
    """Some of the scored rows that the part owns, side by side."""
    rows, V, bias = w.rows[part, : w.sizes[part, SCORED]], w.V[part], w.bias[part]
    for j in range(start, end):
        row = rows[j]
        fetch_ahead(W.V_y, rows, j)
        for k in range(V.shape[1]):  # a loop, since a copied slice takes three times as long
            V[j, k] = W.V_y[row, k]
        bias[j] = W.b_y[row, 0]


@inner
def _feed(part, x, W, s, w, seed, step):
    """w.e (n, X): what enters of the fed items that the part owns, their dropout included."""
    for i in range(len(x)):
        if w.fed[part, i] >= 0:
            item = x[i]
            if s.dropout_embed > 0:
                X = w.e.shape[1]
                _fill_mask(w.e_mask[i : i + 1], i * X, X, 1, seed, 2 * step, s.dropout_embed)
            for k in range(w.e.shape[1]):
                row = W.V_y[item, k] if s.input == SHARED else W.E[item, k]
                w.e[i, k] = row * w.e_mask[i, k]


@inner
def _first(part, w):
    """Where the part's scored items begin, when those of all parts stand one after the other."""
    first = 0
    for q in range(part):
        first += w.sizes[q, SCORED]
    return first


# --- one step forward -----------------------------------------------------------------------------


@inner
def _gates(part, n, W, s, w):
    """r and z of the part's units, and before the product with U_n the state that r lets through.

    As cells.gru, and cells.gru_reset_after.
    """
    H = W.V_y.shape[1]
    lo, hi = _share(part, H, s)
    K, x, b = hi - lo, rows_of(w.xW, 3 * lo, 3 * hi, n), W.b[part]
    if s.input == ONEHOT:
        for gate_ in range(3):
            transpose(_gate_of(w.e[:n], gate_, lo, hi, H), x[gate_ * K : (gate_ + 1) * K])
    else:
        X = w.e.shape[1]
        e_T = rows_of(w.e_T[part], 0, X, n)
        transpose(w.e[:n], e_T)
        _product(W.W_x[part], e_T, x, s)
    add_columns(x, b)
    hU, rz, h = rows_of(w.hU_rz, 2 * lo, 2 * hi, n), rows_of(w.rz, 2 * lo, 2 * hi, n), w.h
    _product(W.U_rz[part], rows_of(h, 0, H, n), hU, s)
    if s.reset_after:
        add_columns(hU, W.c[part])
    gate(line(x[: 2 * K]), line(hU), line(rz))
    if not s.reset_after:
        r, h, rh = rz[:K], rows_of(w.h, lo, hi, n), rows_of(w.rh, lo, hi, n)
        for k in range(K):
            for i in range(n):
                rh[k, i] = r[k, i] * h[k, i]


@inner
def _state(part, n, W, s, w, seed, step):
    """The new state of the part's units, which is what the layer puts out."""
    H = W.V_y.shape[1]
    lo, hi = _share(part, H, s)
    K, hU_n, rz = hi - lo, rows_of(w.hU_n, lo, hi, n), rows_of(w.rz, 2 * lo, 2 * hi, n)
    out = rows_of(w.out, lo, hi, n)
    if s.reset_after:
        _product(W.U_n[part], rows_of(w.h, 0, H, n), hU_n, s)
        add_columns(hU_n, W.c[part][2 * K :])
    else:
        _product(W.U_n[part], rows_of(w.rh, 0, H, n), hU_n, s)
    x_n = rows_of(w.xW, 3 * lo + 2 * K, 3 * hi, n)
    h, act = rows_of(w.h, lo, hi, n), (s.hidden_act, s.hidden_a)
    candidate(
        line(x_n), line(hU_n), line(rz[:K]), line(rz[K:]), line(h), s.reset_after, act,
        line(rows_of(w.n, lo, hi, n)), line(out),
    )  # fmt: skip
    if s.dropout_hidden > 0:
        h_mask = rows_of(w.h_mask, lo, hi, n)
        _fill_mask(h_mask, lo, 1, H, seed, 2 * step + 1, s.dropout_hidden)
        for k in range(K):
            for i in range(n):
                out[k, i] *= h_mask[k, i]


@inner
def _score(part, n, W, s, w):
    """The scores of the part's items, before their biases; their rows are gathered for it."""
    U, H = w.sizes[part, SCORED], w.V.shape[2]
    y, out, tile = rows_of(w.scores[part], 0, U, n), rows_of(w.out, 0, H, n), _tile(n, H, s)
    for start in range(0, U, tile):
        end = min(start + tile, U)
        _gather_rows(part, start, end, W, w)
        dot(w.V[part, start:end], out, y[start:end])


@inner
def _loss(part, n, y_items, s, w):
    """The loss of the part's lanes, with their targets y_items, and the gradient of their scores.

    That takes the scores' place; summed over the lanes, for the biases, it is w.db[part]. `scored`
    are the items of all parts here, one part's after the other's.
    """
    f = type_of(w.log_own[0])
    lo, hi = _share(part, n, s)
    scored, log_weights = _first(s.parts, w), f(0)
    scale, loss = f(1 / s.batch_size), f(0)
    y, g = w.y[lo:hi], w.g[lo:hi]
    count, weight = w.counts[part, :scored], w.weights[part, :scored]
    term, db = w.term[part, :scored], w.db[part, :scored]
    for q in range(s.parts):
        first, U, bias = _first(q, w), w.sizes[q, SCORED], w.bias[q]
        transpose(rows_of(w.scores[q], 0, U, n)[:, lo:hi], y[:, first : first + U])
        for i in range(hi - lo):
            for j in range(U):
                y[i, at(first + j)] += bias[j]
        for j in range(U):
            count[at(first + j)], weight[at(first + j)] = w.count[q, j], w.weight[q, j]
        log_weights += w.log_weights[q]
        for i in range(lo, hi):
            if _owner(y_items[i], s) == q:
                w.target[i] += first
    for i in range(hi - lo):
        loss += lane_loss(
            y[i, :scored], g[i, :scored], term, w.target[lo + i], count, weight, w.log_own[lo + i],
            log_weights, s.loss, s.final_act, s.final_a, s.bpreg, s.smoothing,
        )  # fmt: skip
    db[:] = 0
    for i in range(hi - lo):
        for j in range(scored):
            g[i, j] *= scale
            db[j] += g[i, j]
    for turn in range(s.parts):  # each part begins elsewhere: lines of the cache lie across lanes
        q = (part + turn) % s.parts
        first, U = _first(q, w), w.sizes[q, SCORED]
        transpose(g[:, first : first + U], rows_of(w.scores[q], 0, U, n)[:, lo:hi])
    w.loss[part] = loss * scale


# --- and back -------------------------------------------------------------------------------------


@inner
def _score_back(part, n, s, w):
    """What the part's items add to the gradient of what the layer put out."""
    U, H = w.sizes[part, SCORED], w.V.shape[2]
    dy, tile = rows_of(w.scores[part], 0, U, n), _tile(n, H, s)
    dout_T = w.dout_T[part, :n]
    dout_T[:] = 0
    for start in range(0, U, tile):
        end = min(start + tile, U)
        add_dot(dy[start:end].T, w.V[part, start:end], dout_T)


@inner
def _state_back(part, n, W, s, w):
    """From w.dout_T to the z and n parts of w.dxW; with these units' share of the way through U_n.

    The old state is a constant, for bptt = 1.
    """
    H = W.V_y.shape[1]
    lo, hi = _share(part, H, s)
    K, dout = hi - lo, rows_of(w.dout, lo, hi, n)
    sums_T = w.scratch[part, : n * K].reshape(n, K)
    sums_T[:] = 0
    for q in range(s.parts):
        for i in range(n):
            for k in range(K):
                sums_T[i, k] += w.dout_T[q, i, at(lo + k)]
    transpose(sums_T, dout)
    if s.dropout_hidden > 0:
        h_mask = rows_of(w.h_mask, lo, hi, n)
        for k in range(K):
            for i in range(n):
                dout[k, i] *= h_mask[k, i]
    dx, z = rows_of(w.dxW, 3 * lo, 3 * hi, n), rows_of(w.rz, 2 * lo + K, 2 * hi, n)
    act = (s.hidden_act, s.hidden_a)
    blend_backward(
        line(dout), line(rows_of(w.h, lo, hi, n)), line(z), line(rows_of(w.n, lo, hi, n)), act,
        line(dx[K : 2 * K]), line(dx[2 * K :]),
    )  # fmt: skip
    if not s.reset_after:
        dot(W.U_n[part].T, dx[2 * K :], rows_of(w.drh[part], 0, H, n))


@inner
def _gates_back(part, n, W, s, w):
    """The r part of w.dxW; w.g_n; and what these units add to the gradient of what entered."""
    H = W.V_y.shape[1]
    lo, hi = _share(part, H, s)
    K, dx, dr = hi - lo, rows_of(w.dxW, 3 * lo, 3 * hi, n), rows_of(w.dr, lo, hi, n)
    r, g_n, dx_n = rows_of(w.rz, 2 * lo, 2 * hi, n)[:K], rows_of(w.g_n, lo, hi, n), dx[2 * K :]
    if s.reset_after:
        hU_n = rows_of(w.hU_n, lo, hi, n)
        for k in range(K):
            for i in range(n):
                dr[k, i] = dx_n[k, i] * hU_n[k, i]
                g_n[k, i] = dx_n[k, i] * r[k, i]
    else:
        h = rows_of(w.h, lo, hi, n)
        dr[:] = 0
        for q in range(s.parts):
            drh = rows_of(w.drh[q], lo, hi, n)
            for k in range(K):
                for i in range(n):
                    dr[k, i] += drh[k, i]
        for k in range(K):
            for i in range(n):
                dr[k, i] *= h[k, i]
                g_n[k, i] = dx_n[k, i]
    reset_backward(line(dr), line(r), line(dx[:K]))
    if s.input == ONEHOT:
        for gate_ in range(3):
            de_T = _gate_of(w.de_T[part, :n], gate_, lo, hi, H)
            transpose(dx[gate_ * K : (gate_ + 1) * K], de_T)
    else:
        X, W_x = w.e.shape[1], W.W_x[part]
        de_T, tile = w.de_T[part, :n], _tile(n, X, s)
        de_T[:] = 0
        for start in range(0, 3 * K, tile):
            end = min(start + tile, 3 * K)
            add_dot(dx[start:end].T, W_x[start:end], de_T)


@inner
def _update_matrix(part, p, left, right_T, a, v, how, s, w):
    """p (rows, columns) by the gradient left right_T, left (rows, n), right_T (n, columns)."""
    n, columns = right_T.shape
    tile = _tile(n, columns, s)
    for start in range(0, len(left), tile):
        end = min(start + tile, len(left))
        d = w.tile[part, : (end - start) * columns].reshape(end - start, columns)
        dot(left[start:end], right_T, d)
        here = slice(start, end)  # as one row, whose remainder beside full vectors is short
        update_rows(line(p[here]), w.every[:1], line(d), line(a[here]), line(v[here]), how)


@inner
def _update_units(part, n, W, A, M, how, s, w):
    """The part's rows of W_x, U, b and c. Nobody else reads them, so they can change at once."""
    H = W.V_y.shape[1]
    lo, hi = _share(part, H, s)
    K, dx, g_n = hi - lo, rows_of(w.dxW, 3 * lo, 3 * hi, n), rows_of(w.g_n, lo, hi, n)
    size = n * H
    h_T = w.scratch[part, :size].reshape(n, H)
    rh_T = w.scratch[part, size : 2 * size].reshape(n, H)
    transpose(rows_of(w.h, 0, H, n), h_T)
    if not s.reset_after:
        transpose(rows_of(w.rh, 0, H, n), rh_T)
    # A loop over what is unlike, since each call would be compiled on its own, for seconds.
    p = (W.W_x[part], W.U_rz[part], W.U_n[part])
    a = (A.W_x[part], A.U_rz[part], A.U_n[part])
    v = (M.W_x[part], M.U_rz[part], M.U_n[part])
    left = (dx, dx[: 2 * K], g_n)
    right_T = (w.e[:n], h_T, h_T if s.reset_after else rh_T)
    for i in range(1 if s.input == ONEHOT else 0, 3):
        _update_matrix(part, p[i], left[i], right_T[i], a[i], v[i], how, s, w)
    db = w.db_gates[part : part + 1, : 3 * K]
    sum_rows(dx, db)
    row = w.every[:1]
    update_rows(line(W.b[part]), row, db, line(A.b[part]), line(M.b[part]), how)
    if s.reset_after:  # c takes b's gradient, but for the candidate's part, which r has scaled
        sum_rows(g_n, db[:, 2 * K :])
        update_rows(line(W.c[part]), row, db, line(A.c[part]), line(M.c[part]), how)


@inner
def _add_de(i, s, w, total):
    """total (X,) += the gradient of what entered in lane i."""
    for q in range(s.parts):
        for k in range(len(total)):
            total[k] += w.de_T[q, i, k] * w.e_mask[i, k]


@inner
def _update_output(part, n, W, A, M, how, s, w):
    """The part's rows of the output table; as the input's table too, if it is shared."""
    scored, U = w.sizes[part, SCORED], w.sizes[part, DISTINCT]
    H, fed, dy = W.V_y.shape[1], w.fed[part], rows_of(w.scores[part], 0, scored, n)
    tile = _tile(n, H, s)
    out_T = w.scratch[part, : n * H].reshape(n, H)
    transpose(rows_of(w.out, 0, H, n), out_T)
    for start in range(0, U, tile):
        end = min(start + tile, U)
        has = max(0, min(end, scored) - start)  # rows that are scored; the others are only fed
        dV = w.tile[part, : (end - start) * H].reshape(end - start, H)
        if has:
            dot(dy[start : start + has], out_T, dV[:has])
        dV[has:] = 0
        if s.input == SHARED:
            for i in range(n):
                row = fed[i] - start
                if 0 <= row < end - start:
                    _add_de(i, s, w, dV[row])
        update_rows(W.V_y, w.rows[part, start:end], dV, A.V_y, M.V_y, how)


@inner
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


@inner
def _update_input(part, n, W, A, M, how, s, w):
    """The part's rows of a table of its own that were fed; equal rows are summed first."""
    n_fed, X, fed = w.sizes[part, FED], w.e.shape[1], w.fed[part]
    sums = w.scratch[part, : n_fed * X].reshape(n_fed, X)
    sums[:] = 0
    for i in range(n):
        if fed[i] >= 0:
            _add_de(i, s, w, sums[fed[i]])
    update_rows(W.E, w.fed_rows[part, :n_fed], sums, A.E, M.E, how)


@jit
def _train(
    first_part, W, A, M, s, w, xs, ys, lanes, resets, keeps, before, first, samples, log_support,
    mark, stamp, seed, losses, counters,
):  # fmt: skip
    """The steps first, first + 1, ... of an epoch; the `before` lanes' state is w.out, in and out.

    Each thread calls this with the same arguments but the first, and takes parts until there are no
    more. In a phase the parts share

    COLLECT     items: the distinct ones, and what enters; units: the lanes' states
    GATES       units: r and z
    STATE       units: the new state
    SCORE       items
    LOSS        lanes: the loss, and from it the gradient of the scores
    SCORE_BACK  items
    STATE_BACK  units
    GATES_BACK  units, whose weights change here
    UPDATE      items, whose rows change here
    """
    how, H = (s.adagrad, s.learning_rate, s.momentum), W.V_y.shape[1]
    while True:
        number, part = take(counters, s.parts, len(losses) * PHASES, first_part)
        if part < 0:
            return
        step, phase = number // PHASES, number % PHASES
        t = first + step
        n = lanes[t]
        if phase == COLLECT:
            if step > 0:
                before = lanes[t - 1]
            lo, hi = _share(part, H, s)
            out, h = rows_of(w.out, lo, hi, before), rows_of(w.h, lo, hi, n)
            _enter_step(out, keeps[t], resets[t], h)
            x, y = xs[t, :n], ys[t, :n]
            _collect(part, x, y, samples[step], stamp + step, mark, log_support, s, w)
            _feed(part, x, W, s, w, seed, step)
        elif phase == GATES:
            _gates(part, n, W, s, w)
        elif phase == STATE:
            _state(part, n, W, s, w, seed, step)
        elif phase == SCORE:
            _score(part, n, W, s, w)
        elif phase == LOSS:
            _loss(part, n, ys[t], s, w)
        elif phase == SCORE_BACK:
            _score_back(part, n, s, w)
        elif phase == STATE_BACK:
            _state_back(part, n, W, s, w)
        elif phase == GATES_BACK:
            _gates_back(part, n, W, s, w)
            _update_units(part, n, W, A, M, how, s, w)
        else:
            if part == 0:
                losses[step] = w.loss[: s.parts].sum()
            _update_output(part, n, W, A, M, how, s, w)
            _update_output_bias(part, W, A, M, how, s, w)
            if s.input != SHARED:
                _update_input(part, n, W, A, M, how, s, w)
        finish(counters)


# --- the face to Python ---------------------------------------------------------------------------


def _small() -> int:
    """The most multiplications of a matrix product that goes fastest in one piece.

    For processors with AVX-512, OpenBLAS has code for small products that is a fifth faster than
    its other. Elsewhere all should be as large as they can.
    """
    names = {lib.get("architecture") for lib in threadpool_info()}
    return 100**3 if names & {"SkylakeX", "Cooperlake", "SapphireRapids"} else 2**40


class FusedSteps:
    """Trains consecutive steps in one compiled call: a `backends.Stepper`.

    The loop works on copies of the dense weights, cut by part and transposed. `fetch` writes them
    back; it runs by itself after the last step of an epoch.

    Args:
        hp: hyperparameters for which `backends.can_fuse_steps` holds.
        W, memory: weights and optimiser memory. log_support: (I,) for logQ.
    """

    def __init__(self, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray) -> None:
        self.n_items, self.H, self.dtype = len(W["b_y"]), hp.layers[0], W["V_y"].dtype
        H = self.H
        self.settings = Settings(
            INPUTS.index(hp.input), hp.reset_after, *coded(hp.hidden_activation),
            LOSSES.index(hp.loss), *coded(hp.final_activation), hp.bpreg, hp.smoothing,
            hp.logq if hp.loss == "cross-entropy" else 0.0, hp.sample_alpha, float(hp.batch_size),
            hp.adapt == "adagrad", hp.learning_rate, hp.momentum, hp.dropout_p_embed,
            hp.dropout_p_hidden, _small(),
            PARTS if multiplications(hp) >= WORTH_PARTS and H > 1 else 1,
        )  # fmt: skip
        self.onehot = hp.input == "onehot"
        X = 3 * H if self.onehot else len(W["W_x"])
        self.work = _workspace(hp.batch_size, hp.n_sample, H, X, self.dtype)
        self.log_support = log_support
        self.mark = apart((self.n_items, 2), np.int32)
        self.mark[:] = -1
        self.drops = hp.dropout_p_embed > 0 or hp.dropout_p_hidden > 0
        self.stamp = 0  # of the next step. Never the same twice, so mark needs no clearing.
        self.pace = Pace(self.settings.parts)
        self.none = np.empty((1, 0), self.dtype)  # stands for what the model does not have
        self._copies: list[tuple[np.ndarray, np.ndarray]] = []  # (a part's copy, its original)
        kinds = [W] + [{name: of[k] for name, of in memory.items() if k in of} for k in "av"]
        self.owned = [self._parameters(arrays) for arrays in kinds]

    def _cut(self, a: np.ndarray, gates: slice) -> tuple[np.ndarray, ...]:
        """Of a (rows, 3H), or one row, the columns that each part owns, as rows (gates K, rows)."""
        H, parts = self.H, self.settings.parts
        cuts = [part * H // parts for part in range(parts)] + [H] * (PARTS - parts + 1)
        a, own = a.reshape(-1, 3, H)[:, gates], []
        for lo, hi in pairwise(cuts):
            whole = a[:, :, lo:hi]
            own.append(apart((whole[0].size, len(a)), self.dtype))
            self._copies.append((own[-1], whole))
            own[-1][:] = whole.reshape(len(a), -1).T
        return tuple(own)

    def _parameters(self, arrays: dict[str, np.ndarray]) -> Parameters:
        """Weights, or one kind of the optimiser's memory, as the compiled loop takes them."""
        none, nothing = self.none, (self.none,) * PARTS
        if not arrays:
            return Parameters(none, *(nothing,) * 5, none, none)
        biases = apart((self.n_items, 1), self.dtype)
        biases[:, 0] = arrays["b_y"]
        self._copies.append((biases, arrays["b_y"]))
        rz, n, all_gates = slice(2), slice(2, 3), slice(3)
        return Parameters(
            arrays.get("W_x" if self.onehot else "E", none),
            nothing if self.onehot else self._cut(arrays["W_x"], all_gates),
            self._cut(arrays["U0"], rz), self._cut(arrays["U0"], n),
            self._cut(arrays["b0"], all_gates),
            self._cut(arrays["c0"], all_gates) if "c0" in arrays else nothing,
            arrays["V_y"], biases,
        )  # fmt: skip

    def fetch(self) -> None:
        """As `Stepper.fetch`."""
        for own, whole in self._copies:
            whole[:] = own.T.reshape(whole.shape)

    def __call__(
        self,
        batches: Batches,
        steps: range,
        samples: np.ndarray,
        state: State,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, State]:
        """As `Stepper.__call__`."""
        H, w, parts = self.H, self.work, self.settings.parts
        if self.stamp + len(steps) > np.iinfo(self.mark.dtype).max:
            self.mark[:], self.stamp = -1, 0
        before = len(state.h[0])
        w.out[: before * H].reshape(H, before)[:] = state.h[0].T
        losses = np.empty(len(steps))
        # Drawn only where needed, so that without dropout all backends draw the same negatives.
        seed = rng.integers(2**32) if self.drops else 0
        args = (
            *self.owned, self.settings, w, batches.x, batches.y, batches.lanes, batches.reset,
            batches.keep, before, steps[0], samples, self.log_support, self.mark, self.stamp,
            np.uint32(seed), losses, new_counters(parts),
        )  # fmt: skip
        n_threads = self.pace.choose(min(parts, numba.get_num_threads()))
        threads = [Thread(target=_train, args=(i, *args)) for i in range(1, n_threads)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        _train(0, *args)
        for thread in threads:
            thread.join()
        self.pace.took(n_threads, (time.perf_counter() - began) / len(steps))
        self.stamp += len(steps)
        if steps.stop == len(batches):
            self.fetch()
        n = batches.lanes[steps[-1]]
        h = np.ascontiguousarray(w.out[: n * H].reshape(H, n).T)
        return losses, state._replace(h=[h], history=state.history[:n])
