"""NARM's two encoders of whole sessions, forward and backward: GRU and attention.

A batch holds whole sessions, the longest first. The lanes that still have an event at step t are
therefore the first ones, and padding is never computed. The E events of a batch are stored step
after step. `there` (T, B) is True where a lane has an event at a step.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gru4rec_np.ops.activations import exp_or_zero, sigmoid


def _steps(there: np.ndarray) -> Iterator[tuple[slice, int]]:
    """For each step, the slice of its events in (E,) and their number: that of its lanes."""
    first = 0
    for n in there.sum(axis=1).tolist():
        yield slice(first, first + n), n
        first += n


def _spread(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(E, H) rows arranged as (T, B, H). Places without an event are not initialised."""
    out = np.empty((*there.shape, rows.shape[1]), rows.dtype)
    out[there] = rows
    return out


# --- the global encoder ---------------------------------------------------------------------------


def unroll(
    xW: np.ndarray, there: np.ndarray, U: np.ndarray, b: np.ndarray, ops: Any
) -> tuple[np.ndarray, list]:
    """The GRU over whole sessions, from state 0.

    Args:
        xW: (E, 3H), see `cells.gru`. there: (T, B). ops: has `gru` and `gru_backward`, see
            `backends.Ops`.

    Returns:
        h (E, H) after each event, and the cache of `unroll_backward`.
    """
    state = np.zeros((there.shape[1], len(U)), xW.dtype)
    h, caches = np.empty((len(xW), len(U)), xW.dtype), []
    for events, n in _steps(there):
        state, cache = ops.gru(xW[events], state[:n], U, b)
        h[events] = state
        caches.append(cache)
    return h, caches


def unroll_backward(
    dh: np.ndarray, caches: list, there: np.ndarray, U: np.ndarray, ops: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `unroll`: backpropagation through time to the start of the sessions.

    Args:
        dh: (E, H) gradient with respect to each h, without the part from the next step.

    Returns:
        dxW (E, 3H), dU (H, 3H), db (3H,).
    """
    dxW, dU = np.empty((len(dh), U.shape[1]), dh.dtype), np.zeros_like(U)
    db = np.zeros(U.shape[1], U.dtype)
    dstate = np.zeros((there.shape[1], len(U)), dh.dtype)  # stays 0 after a session's end
    for (events, n), cache in zip(reversed(list(_steps(there))), reversed(caches), strict=True):
        dxW[events], dstate[:n], dU_t, db_t = ops.gru_backward(dh[events] + dstate[:n], cache, U)
        dU += dU_t
        db += db_t
    return dxW, dU, db


# --- the local encoder ----------------------------------------------------------------------------


def attend(
    q: np.ndarray, k: np.ndarray, h: np.ndarray, v: np.ndarray, normalise: bool = False
) -> tuple[np.ndarray, tuple]:
    """c_l = Σ_j α_j h_j with α_j = v·σ(q + k_j): one step, over the J events so far.

    Li et al. 2017 (arXiv 1711.04725), the local encoder. The paper does not normalise α.

    Args:
        q: (n, H) h_t A1. k: (J, n, H) h_j A2. h: (J, n, H), the hidden states. v: (H,).
        normalise: α is the softmax of v·σ(q + k_j) over the J events.

    Returns:
        c_l (n, H), and the cache (σ, α) of `attend_backward`; α is (J, n).
    """
    s = sigmoid(q + k)
    a = s @ v
    if normalise:
        a = exp_or_zero(a - a.max(axis=0))
        a /= a.sum(axis=0)
    return np.einsum("jn,jnh->nh", a, h), (s, a)


def attend_backward(
    dc: np.ndarray, cache: tuple, h: np.ndarray, v: np.ndarray, normalise: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `attend`: dq (n, H), dk (J, n, H), dh (J, n, H), dv (H,).

    Args:
        dc: (n, H) gradient with respect to c_l; cache, h, v, normalise as in the forward step.
    """
    s, a = cache
    da = np.einsum("nh,jnh->jn", dc, h)
    if normalise:
        da = a * (da - (a * da).sum(axis=0))
    dv = da.ravel() @ s.reshape(-1, s.shape[2])
    dk = da[:, :, None] * v * (s * (1 - s))
    return dk.sum(axis=0), dk, a[:, :, None] * dc, dv


def local(
    h: np.ndarray,
    there: np.ndarray,
    A1: np.ndarray,
    A2: np.ndarray,
    v: np.ndarray,
    normalise: bool = False,
) -> tuple[np.ndarray, tuple]:
    """The local encoder: `attend` at each step, over the events up to its own.

    Args:
        h: (E, H). there: (T, B). A1, A2: (H, H), v: (H,).

    Returns:
        c_l (E, H), and the cache of `local_backward`. It does not hold σ, (T, T, B, H) numbers:
        `local_backward` computes σ again, step by step.
    """
    q, k, states = h @ A1, _spread(h @ A2, there), _spread(h, there)
    c = np.empty_like(h)
    for t, (events, n) in enumerate(_steps(there)):
        so_far = np.s_[: t + 1, :n]  # no padding: these lanes have an event at each step up to t
        c[events], _ = attend(q[events], k[so_far], states[so_far], v, normalise)
    return c, (h, q, k, states)


def local_backward(
    dc: np.ndarray,
    cache: tuple,
    there: np.ndarray,
    A1: np.ndarray,
    A2: np.ndarray,
    v: np.ndarray,
    normalise: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `local`: dh (E, H), dA1 (H, H), dA2 (H, H), dv (H,)."""
    h, q, k, states = cache
    dq, dk, dstates, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(k), np.zeros_like(v)
    for t, (events, n) in enumerate(_steps(there)):
        so_far = np.s_[: t + 1, :n]
        _, step = attend(q[events], k[so_far], states[so_far], v, normalise)
        dq[events], dk_t, dh_t, dv_t = attend_backward(
            dc[events], step, states[so_far], v, normalise
        )
        dk[so_far] += dk_t
        dstates[so_far] += dh_t
        dv += dv_t
    dk = dk[there]
    return dstates[there] + dq @ A1.T + dk @ A2.T, h.T @ dq, h.T @ dk, dv
