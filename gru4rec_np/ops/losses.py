"""The five ranking losses over sampled scores, each with its gradient right below it.

Scores r are (B, N), N >= 2, one row for each lane. The first B columns are the lanes' own targets,
the rest are shared negative samples. Row b's target i is column b; its other columns j are
negatives. In float32, scores up to 1e4 cause neither overflow nor log 0. At the end stands the
cross-entropy over all items, which needs no samples.
"""

from collections.abc import Callable

import numpy as np

from gru4rec_np.ops.activations import (
    LINEAR,
    Activation,
    activate,
    activate_backward,
    exp_or_zero,
    sigmoid,
)


def _target(r: np.ndarray) -> np.ndarray:
    """(B, 1): each row's target score."""
    return np.diagonal(r)[:, None]


def _add_to_target(dr: np.ndarray, g: np.ndarray) -> None:
    """dr[b, b] += g[b], in place."""
    own = np.arange(len(dr))
    dr[own, own] += g


def _without_target(x: np.ndarray, fill: float) -> np.ndarray:
    """x, changed in place: `fill` in each row's target column."""
    np.fill_diagonal(x, fill)
    return x


def _softmax(r: np.ndarray) -> np.ndarray:
    """Softmax over each row; a score of -inf gets 0. Subtracts the maximum, so e^x <= 1."""
    e = exp_or_zero(r - r.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


def logsumexp(r: np.ndarray) -> np.ndarray:
    """log Σ e^r over each row, (B, 1)."""
    highest = r.max(axis=1, keepdims=True)
    return highest + np.log(exp_or_zero(r - highest).sum(axis=1, keepdims=True))


def _softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + e^x) = -log σ(-x). Computes e^-|x| only, so nothing overflows."""
    return np.maximum(x, 0) + np.log1p(exp_or_zero(-np.abs(x)))


# --- cross-entropy --------------------------------------------------------------------------------


def cross_entropy(r: np.ndarray, smoothing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """-Σ_k q_k log softmax(r)_k, with q the target's 1-of-N vector, smoothed on request.

    Hidasi & Karatzoglou 2018 (arXiv 1706.03847), §2.2. Label smoothing moves `smoothing` of the
    target's weight evenly to the N-1 negatives: q_i = 1-smoothing, q_j = smoothing/(N-1).

    Args:
        r: (B, N) scores.
        smoothing: in [0, 1).

    Returns:
        loss of each lane (B,), and softmax(r) (B, N), which `cross_entropy_backward` takes.
    """
    shifted = r - r.max(axis=1, keepdims=True)  # e^x <= 1, and no cancellation of large scores
    p = exp_or_zero(shifted)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    log_p = shifted - np.log(total)
    share = smoothing / max(1, r.shape[1] - 1)
    loss = -(1 - smoothing - share) * np.diagonal(log_p)
    if smoothing:
        loss -= share * log_p.sum(axis=1)
    return loss, p


def cross_entropy_backward(p: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """dr = p - q, (B, N), with p = softmax(r)."""
    share = smoothing / max(1, p.shape[1] - 1)
    dr = p - share
    _add_to_target(dr, -(1 - smoothing - share))
    return dr


# --- BPR ------------------------------------------------------------------------------------------


def bpr(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-(1/n) Σ_j log σ(r_i - r_j), over the n = N-1 negatives.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1.3.

    Args:
        r: (B, N) scores.

    Returns:
        loss of each lane (B,), and r_j - r_i (B, N), which `bpr_backward` takes.
    """
    d = r - _target(r)  # (B, N): r_j - r_i
    return _without_target(_softplus(d), 0).sum(axis=1) / (r.shape[1] - 1), d


def bpr_backward(d: np.ndarray) -> np.ndarray:
    """dr_j = σ(d_j) / n with d_j = r_j - r_i, and dr_i = -Σ_j dr_j. (B, N)."""
    dr = _without_target(sigmoid(d), 0) / (d.shape[1] - 1)
    _add_to_target(dr, -dr.sum(axis=1))
    return dr


# --- TOP1 -----------------------------------------------------------------------------------------


def top1(r: np.ndarray) -> tuple[np.ndarray, tuple]:
    """(1/n) Σ_j [σ(r_j - r_i) + σ(r_j²)]: relative rank of the target, and regularised scores.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1.3.

    Args:
        r: (B, N) scores.

    Returns:
        loss of each lane (B,), and the cache that `top1_backward` takes.
    """
    above = sigmoid(r - _target(r))  # (B, N): near 1 if the negative scores above the target
    size = sigmoid(r * r)  # (B, N)
    loss = _without_target(above + size, 0).sum(axis=1) / (r.shape[1] - 1)
    return loss, (r, above, size)


def top1_backward(cache: tuple) -> np.ndarray:
    """dr_j = [σ'(r_j - r_i) + 2 r_j σ'(r_j²)] / n, and dr_i = -(1/n) Σ_j σ'(r_j - r_i). (B, N)."""
    r, above, size = cache
    n = r.shape[1] - 1
    d_above = _without_target(above * (1 - above), 0)
    dr = d_above + _without_target(2 * r * size * (1 - size), 0)
    _add_to_target(dr, -d_above.sum(axis=1))
    return dr / n


# --- BPR-max --------------------------------------------------------------------------------------


def bpr_max(r: np.ndarray, bpreg: float = 1.0) -> tuple[np.ndarray, tuple]:
    """-log Σ_j s_j σ(r_i - r_j) + bpreg Σ_j s_j r_j², s the softmax over the negatives.

    Hidasi & Karatzoglou 2018 (arXiv 1706.03847), §3.2. The logarithm is computed as
    logsumexp_j(log s_j + log σ(r_i - r_j)), which stays finite if each σ underflows.

    Args:
        r: (B, N) scores.
        bpreg: weight of the score regularisation, >= 0.

    Returns:
        loss of each lane (B,), and the cache that `bpr_max_backward` takes.
    """
    d = r - _target(r)
    negatives = _without_target(r.copy(), -np.inf)
    # Two logsumexps are subtracted below. Smaller scores reduce the cancellation.
    negatives -= negatives.max(axis=1, keepdims=True)
    s = _softmax(negatives)
    a = negatives - _softplus(d)  # log s_j + log σ(r_i - r_j), plus a constant
    loss = logsumexp(negatives) - logsumexp(a)
    size = (s * r * r).sum(axis=1, keepdims=True)
    return (loss + bpreg * size)[:, 0], (r, s, _softmax(a), d, size)


def bpr_max_backward(cache: tuple, bpreg: float = 1.0) -> np.ndarray:
    """Gradient of `bpr_max`, (B, N).

    With p_j = s_j σ(r_i - r_j) / Σ_k s_k σ(r_i - r_k), negative j's share of the sum:
    dr_j = s_j - p_j σ(r_i - r_j) + bpreg s_j (2 r_j + r_j² - Σ_k s_k r_k²),
    dr_i = -Σ_j p_j σ(r_j - r_i).
    """
    r, s, p, d, size = cache
    dr = s - p * sigmoid(-d) + bpreg * s * (2 * r + r * r - size)
    _add_to_target(dr, -(p * sigmoid(d)).sum(axis=1))
    return dr


# --- TOP1-max -------------------------------------------------------------------------------------


def top1_max(r: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Σ_j s_j [σ(r_j - r_i) + σ(r_j²)], s the softmax over the negatives.

    Hidasi & Karatzoglou 2018 (arXiv 1706.03847), §3.1.

    Args:
        r: (B, N) scores.

    Returns:
        loss of each lane (B,), and the cache that `top1_max_backward` takes.
    """
    s = _softmax(_without_target(r.copy(), -np.inf))  # 0 for the target
    above = sigmoid(r - _target(r))
    size = sigmoid(r * r)
    loss = (s * (above + size)).sum(axis=1)
    return loss, (r, s, above, size, loss)


def top1_max_backward(cache: tuple) -> np.ndarray:
    """Gradient of `top1_max`, (B, N).

    With t_j = σ(r_j - r_i) + σ(r_j²) and the loss L = Σ_k s_k t_k:
    dr_j = s_j [t_j - L + σ'(r_j - r_i) + 2 r_j σ'(r_j²)], dr_i = -Σ_j s_j σ'(r_j - r_i).
    """
    r, s, above, size, loss = cache
    d_above = s * above * (1 - above)
    dr = s * (above + size - loss[:, None]) + d_above + s * (2 * r * size * (1 - size))
    _add_to_target(dr, -d_above.sum(axis=1))
    return dr


# --- all of them, on raw scores -------------------------------------------------------------------

PAIRS: dict[str, tuple[Callable, Callable]] = {
    "cross-entropy": (cross_entropy, cross_entropy_backward),
    "bpr": (bpr, bpr_backward),
    "top1": (top1, top1_backward),
    "bpr-max": (bpr_max, bpr_max_backward),
    "top1-max": (top1_max, top1_max_backward),
}
LOSSES = tuple(PAIRS)


def loss_and_gradient(
    raw: np.ndarray,
    loss: str,
    final_act: Activation = LINEAR,
    bpreg: float = 1.0,
    smoothing: float = 0.0,
    log_q: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Output activation, logQ correction and loss, forward and backward.

    Args:
        raw: (B, N) scores before the activation.
        loss: one of `LOSSES`.
        final_act: the output activation as (kind, a), see `activations.activate`.
        bpreg: for bpr-max. smoothing: for cross-entropy.
        log_q: (N,) or (B, N) subtracted from the activated scores (cross-entropy), see
            `scoring.log_proposal` and `scoring.corrected`; +inf leaves a column out, and is
            not allowed with smoothing. None for no correction.

    Returns:
        loss of each lane (B,), and the gradient of their sum with respect to `raw`, (B, N).

    Raises:
        ValueError: `loss` is not in `LOSSES`.
    """
    activated = activate(raw, *final_act)
    r = activated if log_q is None else activated - log_q
    if loss not in PAIRS:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    forward, backward = PAIRS[loss]
    more = {"cross-entropy": (smoothing,), "bpr-max": (bpreg,)}.get(loss, ())
    losses, cache = forward(r, *more)
    return losses, activate_backward(backward(cache, *more), activated, *final_act)


def softmax_loss(r: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log softmax(r)_y over all items, and its gradient, softmax(r) - 1 at y.

    Args:
        r: (n, I) scores; overwritten. y: (n,) the targets.

    Returns:
        loss of each case (n,), dr (n, I).
    """
    r -= r.max(axis=1, keepdims=True)
    target = np.take_along_axis(r, y[:, None], axis=1)[:, 0]
    p = exp_or_zero(r, out=r)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    p[np.arange(len(y)), y] -= 1
    return np.log(total[:, 0]) - target, p


CUT_SCORES = 2**24  # scores that `cut_cross_entropy` holds at once


def cut_cross_entropy(
    h: np.ndarray,
    V: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    softmax: Callable[..., tuple[np.ndarray, np.ndarray]] = softmax_loss,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """-log softmax(h V^T + b)_y: scores, cross-entropy and all gradients in one call.

    Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language Models" (arXiv 2411.09009).
    A caller never sees the scores, so a backend need not store them. This form holds at most
    `CUT_SCORES` of them, for as many lanes as that allows.

    With V_y and b_y it is the loss over all items. With V_y[items], b_y[items] - log_q and
    y = arange(B) it is the sampled cross-entropy of `loss_and_gradient`, with a linear output and
    no smoothing. An item that is there twice counts as two columns, as it does there.

    Args:
        h: (B, D) float. V: (N, D), b: (N,) of the same dtype. y: (B,) int, each lane's target
            column.
        softmax: `softmax_loss`, or a backend's.

    Returns:
        loss (B,), and the gradients of the sum of the losses: dh (B, D), dV (N, D), db (N,).
    """
    loss, dh = np.empty(len(h), h.dtype), np.empty_like(h)
    dV, db = np.zeros_like(V), np.zeros_like(b)
    size = max(1, CUT_SCORES // len(V))
    for first in range(0, len(h), size):
        some = slice(first, first + size)
        r = h[some] @ V.T
        r += b
        loss[some], dr = softmax(r, y[some])
        dh[some] = dr @ V
        dV += dr.T @ h[some]
        db += dr.sum(axis=0)
    return loss, dh, dV, db
