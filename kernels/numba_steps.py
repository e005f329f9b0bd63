"""Many training steps in one compiled call: network.train_window for the usual network.

Covered is what the published configurations use: one recurrent layer and nothing after it, bptt
= 1, no L2 and no limit on the gradient. It computes what network.py does, up to rounding, but for
its dropout masks, and is faster for three reasons: no Python between steps, no temporary arrays,
and an item that was drawn several times is scored once and weighted. Imports the other Numba
kernels.

Letters are those of network.py: B lanes, H units, I items, X width of the input; n the step's
lanes, U its distinct items, of which the first `scored` are targets and samples.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from gru4rec_np.kernels.numba_cpu import (
    blend_backward,
    candidate,
    coded,
    gates,
    reset_backward,
    update_row,
    update_rows,
)
from gru4rec_np.kernels.numba_math import exp, jit, lane_loss, type_of
from gru4rec_np.losses import LOSSES

INPUTS = ("onehot", "embedding", "shared")
ONEHOT, EMBEDDING, SHARED = range(len(INPUTS))

# Weights, or Adagrad's sums, or velocities: U in two parts, each contiguous; biases as rows.
Parameters = namedtuple("Parameters", "E W_x U_rz U_n b c V_y b_y")

Settings = namedtuple(
    "Settings",
    "input reset_after hidden_act hidden_a loss final_act final_a bpreg smoothing logq "
    "sample_alpha batch_size adagrad learning_rate momentum dropout_embed dropout_hidden",
)

# All that a step writes beside the weights, made once. Of (B, ...) the first n rows are in use; y
# and g are flat, since their rows have another length at each step.
Work = namedtuple(
    "Work",
    "rows fed_rows count weight target own fed V bias dV y g db term e e_mask de xW dxW hU_rz hU_n "
    "g_rz g_n r z n h_mask out dout rh dW_x dU_rz dU_n db_gates",
)


def _workspace(B: int, H: int, X: int, most: int, dtype: type) -> Work:
    """Arrays for steps of at most B lanes and `most` distinct items."""
    ints = {"rows": most, "fed_rows": B, "target": B, "fed": B}
    floats = {
        "count": (most,), "weight": (most,), "own": (B,), "term": (most,),
        "V": (most, H), "bias": (most,), "dV": (most, H), "db": (most, 1),
        "y": (B * most,), "g": (B * most,),
        "e": (B, X), "e_mask": (B, X), "de": (B, X),
        "xW": (B, 3 * H), "dxW": (B, 3 * H), "hU_rz": (B, 2 * H), "hU_n": (B, H),
        "g_rz": (B, 2 * H), "g_n": (B, H), "r": (B, H), "z": (B, H), "n": (B, H),
        "h_mask": (B, H), "out": (B, H), "dout": (B, H), "rh": (B, H),
        "dW_x": (X, 3 * H), "dU_rz": (H, 2 * H), "dU_n": (H, H), "db_gates": (3 * H,),
    }  # fmt: skip
    return Work(
        **{name: np.empty(size, np.int64) for name, size in ints.items()},
        **{name: np.ones(shape, dtype) for name, shape in floats.items()},
    )


# --- small pieces ---------------------------------------------------------------------------------


@jit
def _fill_mask(mask, seed, step, p):
    """Inverted dropout, 0 or 1/(1-p); mask (n, width), seed a uint32.

    Whether a place is kept is a hash of its counters (the finaliser of MurmurHash3, Appleby), so
    it does not depend on the order of drawing.
    """
    f = type_of(mask[0, 0])
    scale = f(1 / (1 - p))
    limit = np.uint32(p * 4294967295.0)
    start = seed ^ np.uint32(step * 0x9E3779B1)
    width = mask.shape[1]
    for i in range(len(mask)):
        for k in range(width):
            # Cast after each operation: Numba's unsigned products are 64 bits wide.
            x = start ^ np.uint32((i * width + k) * 0x85EBCA77)
            x = np.uint32((x ^ (x >> 16)) * 0x85EBCA6B)
            x = np.uint32((x ^ (x >> 13)) * 0xC2B2AE35)
            x = np.uint32(x ^ (x >> 16))
            mask[i, k] = scale if x >= limit else f(0)


@jit
def _enter_step(h, keep, reset, before):
    """As network.enter_step, in place: h (B, H), its first `before` rows lanes of the last step."""
    n = 0
    for i in range(before):
        if keep[i]:
            if reset[n]:
                h[n] = 0
            else:
                h[n] = h[i]
            n += 1


@jit
def _slot(item, stamp, n, mark, rows):
    """The item's slot among this step's distinct ones, a new one if it has none; their number."""
    if mark[item, 0] != stamp:
        mark[item, 0] = stamp
        mark[item, 1] = n
        rows[n] = item
        n += 1
    return mark[item, 1], n


@jit
def _collect(x, y, samples, stamp, mark, log_support, s, w):
    """The step's distinct items, how often each is scored, and what that weighs.

    With logQ, a column of item i weighs e^-log_q: as a target 1/support^logq, as a sample
    1/support^(alpha logq); an item's weight is the sum over its columns (see lane_loss).

    Args:
        x, y: (n,) the lanes' items and targets. samples: (S,). mark: (I, 2) stamp and slot.

    Returns:
        scored, U, the sum of the columns' log weights, and how many distinct rows are fed where
        the input has a table of its own. Fills rows, count, weight, target, own, and fed: the
        place of each x among `rows` if the table is shared, else among `fed_rows`.
    """
    f = type_of(w.count[0])
    n, scored, log_weights = len(y), 0, f(0)
    for i in range(n + len(samples)):
        item = y[i] if i < n else samples[i - n]
        slot, scored_now = _slot(item, stamp, scored, mark, w.rows)
        if scored_now > scored:
            w.count[slot], w.weight[slot] = f(0), f(0)
            scored = scored_now
        own = f(1)
        if s.logq > 0:
            alpha = 1.0 if i < n else s.sample_alpha
            log_weight = f(-s.logq * alpha * log_support[item])
            own = exp(log_weight)
            log_weights += log_weight
        w.count[slot] += f(1)
        w.weight[slot] += own
        if i < n:
            w.target[i], w.own[i] = slot, own
    if s.input == SHARED:
        U = scored
        for i in range(n):
            w.fed[i], U = _slot(x[i], stamp, U, mark, w.rows)
        return scored, U, log_weights, 0
    fed = 0
    for i in range(n):
        w.fed[i] = fed
        for j in range(fed):
            if w.fed_rows[j] == x[i]:
                w.fed[i] = j
        if w.fed[i] == fed:
            w.fed_rows[fed] = x[i]
            fed += 1
    return scored, scored, log_weights, fed


# --- one step -------------------------------------------------------------------------------------


@jit
def _forward(x, h, W, s, w, seed, step):
    """As network.recurrent, from the items x (n,) and the state h (n, H) to w.out (n, H)."""
    n, H = h.shape
    e, e_mask, xW, hU_rz, hU_n = w.e[:n], w.e_mask[:n], w.xW[:n], w.hU_rz[:n], w.hU_n[:n]
    r, z, rh, out, h_mask = w.r[:n], w.z[:n], w.rh[:n], w.out[:n], w.h_mask[:n]

    if s.dropout_embed > 0:
        _fill_mask(e_mask, seed, 2 * step, s.dropout_embed)
    if s.input == ONEHOT:
        for i in range(n):
            for k in range(3 * H):
                xW[i, k] = W.W_x[x[i], k] * e_mask[i, k]
    else:
        for i in range(n):
            row = W.V_y[x[i]] if s.input == SHARED else W.E[x[i]]
            for k in range(len(row)):
                e[i, k] = row[k] * e_mask[i, k]
        np.dot(e, W.W_x, xW)

    np.dot(h, W.U_rz, hU_rz)
    if s.reset_after:
        np.dot(h, W.U_n, hU_n)
        for i in range(n):
            for k in range(2 * H):
                hU_rz[i, k] += W.c[0, k]
            for k in range(H):
                hU_n[i, k] += W.c[0, 2 * H + k]
    gates(xW, hU_rz, W.b[0], r, z)
    if not s.reset_after:
        for i in range(n):
            for k in range(H):
                rh[i, k] = r[i, k] * h[i, k]
        np.dot(rh, W.U_n, hU_n)
    act = (s.hidden_act, s.hidden_a)
    candidate(xW, hU_n, W.b[0], r, z, h, s.reset_after, act, w.n[:n], out)
    if s.dropout_hidden > 0:
        _fill_mask(h_mask, seed, 2 * step + 1, s.dropout_hidden)
        for i in range(n):
            for k in range(H):
                out[i, k] *= h_mask[i, k]


@jit
def _loss(n, scored, log_weights, s, w):
    """The step's loss, and from it w.dout (n, H), w.dV (scored, H) and w.db (scored, 1)."""
    f = type_of(w.own[0])
    scale, loss = f(1 / s.batch_size), f(0)
    V, out, db = w.V[:scored], w.out[:n], w.db[:scored]
    y, g = w.y[: n * scored].reshape(n, scored), w.g[: n * scored].reshape(n, scored)
    np.dot(out, V.T, y)
    db[:] = 0
    for i in range(n):
        for j in range(scored):
            y[i, j] += w.bias[j]
        loss += lane_loss(
            y[i], g[i], w.term[:scored], w.target[i], w.count[:scored], w.weight[:scored],
            w.own[i], log_weights, s.loss, s.final_act, s.final_a, s.bpreg, s.smoothing,
        )  # fmt: skip
        for j in range(scored):
            g[i, j] *= scale
            db[j, 0] += g[i, j]
    np.dot(g, V, w.dout[:n])
    np.dot(g.T, out, w.dV[:scored])
    return loss * scale


@jit
def _backward(h, W, s, w):
    """From w.dout (n, H) back to the gates, w.dxW, w.g_rz, w.g_n, and the input, w.de.

    The old state h (n, H) is a constant, for bptt = 1.
    """
    n, H = h.shape
    dout, dxW, g_rz, g_n = w.dout[:n], w.dxW[:n], w.g_rz[:n], w.g_n[:n]
    r, hU_n, de, e_mask = w.r[:n], w.hU_n[:n], w.de[:n], w.e_mask[:n]
    if s.dropout_hidden > 0:
        for i in range(n):
            for k in range(H):
                dout[i, k] *= w.h_mask[i, k]
    blend_backward(dout, h, w.z[:n], w.n[:n], (s.hidden_act, s.hidden_a), dxW)
    for i in range(n):
        for k in range(H):
            g_n[i, k] = dxW[i, 2 * H + k]
    dr = dout  # its memory is free now
    if s.reset_after:
        for i in range(n):
            for k in range(H):
                dr[i, k] = g_n[i, k] * hU_n[i, k]
                g_n[i, k] *= r[i, k]
    else:
        np.dot(g_n, W.U_n.T, dr)
        for i in range(n):
            for k in range(H):
                dr[i, k] *= h[i, k]
    reset_backward(dr, r, dxW)
    for i in range(n):
        for k in range(2 * H):
            g_rz[i, k] = dxW[i, k]
    if s.input == ONEHOT:
        for i in range(n):
            for k in range(3 * H):
                de[i, k] = dxW[i, k] * e_mask[i, k]
    else:
        np.dot(dxW, W.W_x.T, de)
        for i in range(n):
            for k in range(de.shape[1]):
                de[i, k] *= e_mask[i, k]


@jit
def _update_matrix(p, left, right, d, a, v, how):
    """Update p by the gradient left^T right, left (n, rows), right (n, columns); d scratch."""
    np.dot(left.T, right, d)
    for k in range(len(p)):
        update_row(p[k], d[k], a[min(k, len(a) - 1)], v[min(k, len(v) - 1)], how)


@jit
def _update(h, scored, U, n_fed, W, A, M, s, w):
    """All weights, from what the step left in w; equal rows are summed first."""
    n, H = h.shape
    how = (s.adagrad, s.learning_rate, s.momentum)
    dxW = w.dxW[:n]
    if s.input != ONEHOT:
        _update_matrix(W.W_x, w.e[:n], dxW, w.dW_x, A.W_x, M.W_x, how)
    # Sums over lanes that were fed the same item. xW and e are spent and lend their memory.
    sums = w.dV if s.input == SHARED else w.xW if s.input == ONEHOT else w.e
    if s.input == SHARED:
        w.dV[scored:U] = 0
    else:
        sums[:n_fed] = 0
    for i in range(n):
        for k in range(w.de.shape[1]):
            sums[w.fed[i], k] += w.de[i, k]
    if s.input == ONEHOT:
        update_rows(W.W_x, w.fed_rows[:n_fed], sums, A.W_x, M.W_x, how)
    elif s.input == EMBEDDING:
        update_rows(W.E, w.fed_rows[:n_fed], sums, A.E, M.E, how)
    update_rows(W.V_y, w.rows[:U], w.dV, A.V_y, M.V_y, how)
    update_rows(W.b_y, w.rows[:scored], w.db, A.b_y, M.b_y, how)

    _update_matrix(W.U_rz, h, w.g_rz[:n], w.dU_rz, A.U_rz, M.U_rz, how)
    left = h if s.reset_after else w.rh[:n]
    _update_matrix(W.U_n, left, w.g_n[:n], w.dU_n, A.U_n, M.U_n, how)
    db = w.db_gates
    db[:] = 0
    for i in range(n):
        for k in range(3 * H):
            db[k] += dxW[i, k]
    update_row(W.b[0], db, A.b[0], M.b[0], how)
    if s.reset_after:  # c takes b's gradient, but for the candidate's part, which r has scaled
        db[2 * H :] = 0
        for i in range(n):
            for k in range(H):
                db[2 * H + k] += w.g_n[i, k]
        update_row(W.c[0], db, A.c[0], M.c[0], how)


@jit
def _train(
    W, A, M, s, w, xs, ys, lanes, resets, keeps, before, first, samples, log_support, mark, stamp,
    h, seed, losses,
):  # fmt: skip
    """The steps first, first + 1, ... of an epoch; h (B, H) is the state, in and out."""
    for step in range(len(losses)):
        t = first + step
        n = lanes[t]
        _enter_step(h, keeps[t], resets[t], before)
        before = n
        scored, U, log_weights, n_fed = _collect(
            xs[t, :n], ys[t, :n], samples[step], stamp + step, mark, log_support, s, w
        )
        for j in range(scored):
            w.V[j] = W.V_y[w.rows[j]]
            w.bias[j] = W.b_y[w.rows[j], 0]
        _forward(xs[t, :n], h[:n], W, s, w, seed, step)
        losses[step] = _loss(n, scored, log_weights, s, w)
        _backward(h[:n], W, s, w)
        _update(h[:n], scored, U, n_fed, W, A, M, s, w)
        h[:n] = w.out[:n]


# --- the face to Python ---------------------------------------------------------------------------


def stepper(
    hp: Any,
    W: dict[str, np.ndarray],
    memory: dict[str, dict[str, np.ndarray]],
    log_support: np.ndarray,
) -> Callable | None:
    """As `network.stepper`, compiled; None if the model is not a usual one (see the module)."""
    usual = len(hp.layers) == 1 and not hp.feedforward and hp.bptt == 1
    if not usual or hp.input not in INPUTS or hp.lmbd or hp.grad_cap:
        return None
    n_items, H, dtype = len(W["b_y"]), hp.layers[0], W["V_y"].dtype
    s = Settings(
        INPUTS.index(hp.input), hp.reset_after, *coded(hp.hidden_activation),
        LOSSES.index(hp.loss), *coded(hp.final_activation), hp.bpreg, hp.smoothing,
        hp.logq if hp.loss == "cross-entropy" else 0.0, hp.sample_alpha, float(hp.batch_size),
        hp.adapt == "adagrad", hp.learning_rate, hp.momentum, hp.dropout_p_embed,
        hp.dropout_p_hidden,
    )  # fmt: skip
    X = 3 * H if hp.input == "onehot" else len(W["W_x"])
    w = _workspace(hp.batch_size, H, X, 2 * hp.batch_size + hp.n_sample, dtype)
    mark = np.full((n_items, 2), -1, np.int64)
    stamp = 0  # of the next step: never the same twice, so that mark needs no clearing
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
        h = np.zeros((hp.batch_size, H), dtype)
        h[: len(state.h[0])] = state.h[0]
        losses = np.empty(len(steps))
        _train(
            *parts, s, w, batches.x, batches.y, batches.lanes, batches.reset, batches.keep,
            len(state.h[0]), steps[0], samples, log_support, mark, stamp, h,
            np.uint32(rng.integers(2**32)), losses,
        )  # fmt: skip
        stamp += len(steps)
        for arrays, part in zip(kinds, parts, strict=True):
            if "U0" in arrays:
                arrays["U0"][:] = np.hstack([part.U_rz, part.U_n])
        n = batches.lanes[steps[-1]]
        return losses, state._replace(h=[h[:n]], history=state.history[:n])

    return run
