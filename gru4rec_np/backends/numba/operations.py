"""`NumbaOps`: the hot operations compiled for the CPU, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache as once
from types import EllipsisType
from typing import Any

import numba
import numpy as np

from gru4rec_np.backends.base import (
    OWN_OPTIMISERS,
    Memory,
    Ops,
    Part,
    Result,
    Stepper,
    Weights,
    can_fuse_steps,
    coded,
)
from gru4rec_np.backends.blas import one_blas_thread
from gru4rec_np.backends.numba import encoders
from gru4rec_np.backends.numba.compiled import float_type, prepare
from gru4rec_np.backends.numba.kernels import (
    CASES,
    adam_catch_up,
    adam_rows,
    apart,
    blend_backward,
    candidate,
    copy_apart,
    count_scores,
    gate,
    reset_backward,
    score_catalogue,
    score_pairs,
    scratch,
    search,
    update_rows,
)
from gru4rec_np.backends.numba.maths import lane_losses, softmax_loss
from gru4rec_np.ops import ranking
from gru4rec_np.ops.activations import LINEAR, TANH, Activation
from gru4rec_np.ops.losses import LOSSES

STEP_BY_STEP = (
    search, gate, candidate, blend_backward, reset_backward, lane_losses, update_rows, adam_rows,
)  # fmt: skip


WHOLE_SESSIONS = (
    encoders.unroll, encoders.unroll_backward, encoders.attention, encoders.attention_backward,
    softmax_loss, adam_rows, adam_catch_up,
)  # fmt: skip


class NumbaOps(Ops):
    """Each operation as in `Ops`; fused steps by `backends.numba.steps`."""

    name = "numba"
    parts = 2

    def draw_negatives(
        self,
        rng: np.random.Generator,
        distribution: np.ndarray,
        shape: tuple[int, ...],
        guide: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same draws as `batches.draw_negatives`."""
        if guide is None:
            return super().draw_negatives(rng, distribution, shape)
        u = rng.random(shape)
        drawn = np.empty(u.shape, np.int32)
        search(distribution, guide, u.reshape(-1), drawn.reshape(-1))
        return drawn

    # --- the recurrent step -----------------------------------------------------------------------

    def gru(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """As `cells.gru`."""
        H = h.shape[1]
        r, z, n, h_new = (np.empty_like(h) for _ in range(4))
        x, hU = xW + b, h @ U[:, : 2 * H]
        gate(_columns(x, 0, H), _columns(hU, 0, H), _flat(r))
        gate(_columns(x, 1, H), _columns(hU, 1, H), _flat(z))
        rh = r * h
        hU_n = rh @ U[:, 2 * H :]
        candidate(
            _columns(x, 2, H), _flat(hU_n), _flat(r), _flat(z), _flat(h), False,
            _coded(hidden_act), _flat(n), _flat(h_new),
        )  # fmt: skip
        return h_new, (h, r, z, n, rh)

    def gru_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `cells.gru_backward`."""
        h, r, z, n, rh = cache
        H = h.shape[1]
        da_r, da_z, da_n = (np.empty_like(h) for _ in range(3))
        old = _flat(dh_new), _flat(h), _flat(z), _flat(n)
        blend_backward(*old, _coded(hidden_act), _flat(da_z), _flat(da_n))
        drh = da_n @ U[:, 2 * H :].T
        reset_backward(_flat(drh * h), _flat(r), _flat(da_r))
        da_rz = np.hstack([da_r, da_z])
        dxW = np.hstack([da_rz, da_n])
        dh = dh_new * (1 - z) + drh * r + da_rz @ U[:, : 2 * H].T
        dU = np.hstack([h.T @ da_rz, rh.T @ da_n])
        return dxW, dh, dU, dxW.sum(axis=0)

    def gru_reset_after(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        c: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """As `cells.gru_reset_after`."""
        H = h.shape[1]
        r, z, n, h_new = (np.empty_like(h) for _ in range(4))
        x, hU = xW + b, h @ U + c
        gate(_columns(x, 0, H), _columns(hU, 0, H), _flat(r))
        gate(_columns(x, 1, H), _columns(hU, 1, H), _flat(z))
        hU_n = _columns(hU, 2, H)
        candidate(
            _columns(x, 2, H), hU_n, _flat(r), _flat(z), _flat(h), True, _coded(hidden_act),
            _flat(n), _flat(h_new),
        )  # fmt: skip
        return h_new, (h, r, z, n, hU_n.reshape(h.shape))

    def gru_reset_after_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `cells.gru_reset_after_backward`."""
        h, r, z, n, hU_n = cache
        da_r, da_z, da_n = (np.empty_like(h) for _ in range(3))
        old = _flat(dh_new), _flat(h), _flat(z), _flat(n)
        blend_backward(*old, _coded(hidden_act), _flat(da_z), _flat(da_n))
        reset_backward(_flat(da_n * hU_n), _flat(r), _flat(da_r))
        dxW, dhU = np.hstack([da_r, da_z, da_n]), np.hstack([da_r, da_z, da_n * r])
        return dxW, dh_new * (1 - z) + dhU @ U.T, h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)

    # --- whole sessions ---------------------------------------------------------------------------

    def unroll(
        self, xW: np.ndarray, there: np.ndarray, U: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        """As `encoders.unroll`, all steps in one call."""
        (E, _), H, starts = xW.shape, len(U), _starts(there)
        U_rz, U_n = copy_apart(U[:, : 2 * H]), copy_apart(U[:, 2 * H :])
        before, rh, n, h = (apart((E, H), xW.dtype) for _ in range(4))
        rz, hU = apart((E, 2 * H), xW.dtype), apart((there.shape[1], 2 * H), xW.dtype)
        xW = np.ascontiguousarray(xW)
        encoders.unroll(xW, starts, U_rz, U_n, b, hU, before, rz, rh, n, h)
        return h, (starts, before, rz, rh, n)

    def unroll_backward(
        self, dh: np.ndarray, cache: Any, there: np.ndarray, U: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `encoders.unroll_backward`: one product makes dU, over all steps."""
        starts, before, rz, rh, n = cache
        (E, H), B = dh.shape, there.shape[1]
        U_rz_T, U_n_T = copy_apart(U[:, : 2 * H].T), copy_apart(U[:, 2 * H :].T)
        dstate, da_n, drh = (apart((B, H), dh.dtype) for _ in range(3))
        da_rz, dxW, dU = apart((B, 2 * H), dh.dtype), apart((E, 3 * H), dh.dtype), np.empty_like(U)
        dstate[:] = 0
        encoders.unroll_backward(
            np.ascontiguousarray(dh), starts, U_rz_T, U_n_T, before, rz, n, dstate, da_n, drh,
            da_rz, dxW,
        )  # fmt: skip
        later = slice(B, None)  # the state before a first event is 0
        dU[:, : 2 * H] = before[later].T @ dxW[later, : 2 * H]
        dU[:, 2 * H :] = rh[later].T @ dxW[later, 2 * H :]
        return dxW, dU, dxW.sum(axis=0)

    def local(
        self,
        h: np.ndarray,
        there: np.ndarray,
        A1: np.ndarray,
        A2: np.ndarray,
        v: np.ndarray,
        normalise: bool = False,
    ) -> tuple[np.ndarray, tuple]:
        """As `encoders.local`, session by session."""
        starts, h, v = _starts(there), np.ascontiguousarray(h), np.ascontiguousarray(v)
        A = np.hstack([A1, A2])
        qk, c = h @ A, apart(h.shape, h.dtype)
        encoders.attention(qk, h, v, starts, normalise, apart((len(there),), h.dtype), c)
        return c, (starts, h, qk, A)

    def local_backward(
        self,
        dc: np.ndarray,
        cache: tuple,
        there: np.ndarray,
        A1: np.ndarray,
        A2: np.ndarray,
        v: np.ndarray,
        normalise: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `encoders.local_backward`."""
        starts, h, qk, A = cache
        (T, _), H, dc, v = there.shape, len(v), np.ascontiguousarray(dc), np.ascontiguousarray(v)
        dqk, dh, dv = (apart(like.shape, dc.dtype) for like in (qk, h, v))
        s, a, da = (apart(shape, dc.dtype) for shape in ((T, H), (T,), (T,)))
        encoders.attention_backward(dc, qk, h, v, starts, normalise, s, a, da, dqk, dh, dv)
        dh += dqk @ A.T
        dA = h.T @ dqk
        return dh, dA[:, :H], dA[:, H:], dv

    # --- loss and optimiser -----------------------------------------------------------------------

    def loss_and_gradient(
        self,
        raw: np.ndarray,
        loss: str,
        final_act: Activation = LINEAR,
        bpreg: float = 1.0,
        smoothing: float = 0.0,
        log_q: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `losses.loss_and_gradient`: here each column is an item of its own, counted once."""
        if log_q is not None and log_q.ndim == 2:
            return super().loss_and_gradient(raw, loss, final_act, bpreg, smoothing, log_q)
        B, N = raw.shape
        shapes = ((B, N), (B, N), (N,), (N,), (N,), (N,), (B,))
        y, g, term, count, weight, logs, losses = (apart(shape, raw.dtype) for shape in shapes)
        y[:], count[:] = raw, 1
        logs[:] = 0 if log_q is None else -log_q
        weight[:] = np.exp(logs)
        lane_losses(
            y, g, N, term, np.arange(B), count, weight, logs, float(logs.sum()),
            LOSSES.index(loss), _coded(final_act), bpreg, smoothing, False, losses,
        )  # fmt: skip
        return losses, g

    def softmax_loss(self, r: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `losses.softmax_loss`."""
        losses = np.empty(len(r), r.dtype)
        softmax_loss(r, y.astype(np.int64, copy=False), losses)
        return losses, r

    def update(
        self,
        p: np.ndarray,
        g: np.ndarray,
        memory: dict[str, np.ndarray],
        adapt: str,
        learning_rate: float,
        momentum: float = 0.0,
        rows: np.ndarray | EllipsisType = ...,
    ) -> None:
        """As `optim.update`."""
        adam = adapt == "adam" and not momentum
        if adapt not in OWN_OPTIMISERS and not adam:
            return super().update(p, g, memory, adapt, learning_rate, momentum, rows)
        none = np.empty((1, 0), p.dtype)
        rows = np.arange(len(p)) if rows is ... else rows.astype(np.int64, copy=False)
        g = np.ascontiguousarray(_as_table(g))
        if adam:
            m, a, t = (_as_table(memory[name]) for name in "mat")
            return adam_rows(_as_table(p), rows, g, m, a, t, learning_rate)
        a, v = (_as_table(memory[name]) if name in memory else none for name in "av")
        how = np.array([adapt == "adagrad", learning_rate, momentum], np.float64)
        update_rows(_as_table(p), rows, g, a, v, how)

    def adam_catch_up(
        self,
        p: np.ndarray,
        memory: dict[str, np.ndarray],
        rows: np.ndarray,
        step: int,
        moved: np.ndarray,
    ) -> None:
        """As `optim.adam_catch_up`."""
        rows = rows.astype(np.int64, copy=False)
        adam_catch_up(p, rows, memory["m"], memory["a"], memory["t"], step, moved)

    # --- the whole catalogue ----------------------------------------------------------------------

    def catalogue_scores(self, h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
        """As `ranking.catalogue_scores`."""
        scores = np.empty((len(h), len(V_y)), V_y.dtype)
        cases, V_T, s = scratch(h)
        score_catalogue(cases, np.ascontiguousarray(V_y), b_y, V_T, s, scores)
        return scores

    def rank_targets(
        self,
        h: np.ndarray,
        V_y: np.ndarray,
        b_y: np.ndarray,
        targets: np.ndarray,
        ties: str = "conservative",
        lifted: ranking.Lifted | None = None,
    ) -> np.ndarray:
        """As `ranking.rank_targets`, a block of cases on each core."""
        V_y = np.ascontiguousarray(V_y)

        def in_blocks(work: Callable[[slice], None], n: int) -> None:
            blocks = [slice(first, first + CASES) for first in range(0, n, CASES)]
            with ThreadPoolExecutor(numba.get_num_threads()) as pool:
                list(pool.map(work, blocks))  # a list, to raise errors here

        def pairs(row: np.ndarray, items: np.ndarray) -> np.ndarray:
            scores = np.empty(len(row), h.dtype)

            def work(block: slice) -> None:
                of = items[block]
                score_pairs(*scratch(h[row[block]]), V_y[of], b_y[of], scores[block])

            in_blocks(work, len(row))
            return scores

        def count(of_targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            below, level = np.empty(len(h), np.int64), np.empty(len(h), np.int64)

            def work(block: slice) -> None:
                of = of_targets[block], below[block], level[block]
                count_scores(*scratch(h[block]), V_y, b_y, *of)

            in_blocks(work, len(h))
            return below, level

        return ranking.rank_by_counts(pairs, count, targets, len(V_y), ties, lifted)

    # --- parts of a batch -------------------------------------------------------------------------

    def each(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """As `Ops.each`, in as many threads as Numba may use."""
        pool = _pool(os.getpid(), numba.get_num_threads())
        return list(pool.map(one_blas_thread(function), parts))

    def prepare(self, dtype: Any) -> None:
        """As `Ops.prepare`."""
        prepare(WHOLE_SESSIONS, float_type(dtype))

    # --- many steps at once -----------------------------------------------------------------------

    fuses = staticmethod(can_fuse_steps)

    def stepper(
        self, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray
    ) -> Stepper | None:
        """As `Ops.stepper`."""
        if can_fuse_steps(hp):
            from gru4rec_np.backends.numba.steps import FusedSteps

            return FusedSteps(self, hp, W, memory, log_support)
        prepare(STEP_BY_STEP, float_type(W["V_y"].dtype))  # before the first epoch's time begins
        return None


@once
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work. A forked process needs its own."""
    return ThreadPoolExecutor(threads)


def _starts(there: np.ndarray) -> np.ndarray:
    """The first event of each step, and the number of all; see numba/encoders.py."""
    return np.append(0, np.cumsum(there.sum(axis=1)))


def _flat(a: np.ndarray) -> np.ndarray:
    """As kernels take it; of a contiguous array it is a view."""
    return np.ascontiguousarray(a).reshape(-1)


def _columns(a: np.ndarray, i: int, H: int) -> np.ndarray:
    """The i-th H columns of a, flat."""
    return _flat(a[:, i * H : (i + 1) * H])


def _coded(act: Activation) -> np.ndarray:
    """An activation as kernels take it."""
    return np.array(coded(act))


def _as_table(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)
