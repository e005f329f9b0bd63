"""Scores of sampled items, and their backward pass.

The functions read only the listed rows of the output table, so the cost of a step does not depend
on the number of items.
"""

import numpy as np


def scores(
    h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """r = h V_y[items]^T + b_y[items]: the score of each listed item in each lane.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1.2: only the lanes' targets and the shared negative
    samples are scored.

    Args:
        h: (B, H) the vector that scores items, see `network.recurrent`.
        V_y: (I, H), b_y: (I,) the output table: one row and one bias for each item.
        items: (N,) item indices; an item may occur more than once.

    Returns:
        r: (B, N), and the rows V: (N, H), which `scores_backward` takes.
    """
    V = V_y[items]
    return h @ V.T + b_y[items], V


def scores_backward(
    dr: np.ndarray, h: np.ndarray, V: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `scores`.

    Args:
        dr: (B, N) gradient with respect to r; h: (B, H) and V: (N, H) from the forward step.

    Returns:
        dh (B, H), dV (N, H), db (N,): one row for each *occurrence* in `items`. Sum the rows of
        the same item (`optim.sum_rows`) before updating the table.
    """
    return dr @ V, dr.T @ h, dr.sum(axis=0)


TINY = 1e-8  # added to a squared length, so that a vector of zeros has one


def inverse_length(x: np.ndarray) -> np.ndarray:
    """1 / |x| of each row of x (n, D), (n, 1)."""
    return 1 / np.sqrt((x * x).sum(axis=1, keepdims=True) + x.dtype.type(TINY))


def of_length(x: np.ndarray, length: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """length x / |x|, row by row: between such vectors a product is a cosine, times the lengths.

    Gupta et al. 2019 (arXiv 1909.04276, NISER), §3: scores by cosine do not grow with an item's
    popularity, as the lengths of vectors do. Their scale is what `length` is here.

    Args:
        x: (n, D).

    Returns:
        (n, D), and 1 / |x| (n, 1), which `of_length_backward` takes.
    """
    inverse = inverse_length(x)
    return x * (inverse * x.dtype.type(length)), inverse


def of_length_backward(
    du: np.ndarray, x: np.ndarray, inverse: np.ndarray, length: float = 1.0
) -> np.ndarray:
    """dx = length / |x| (du - x (x·du) / |x|²), (n, D)."""
    return (inverse * du.dtype.type(length)) * across(du, x, inverse)


def across(d: np.ndarray, x: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """d - x (x·d) / |x|²: a gradient without what would only change the length of x, (n, D)."""
    return d - x * ((d * x).sum(axis=1, keepdims=True) * inverse**2)


def log_proposal(
    log_support: np.ndarray, targets: np.ndarray, samples: np.ndarray, sample_alpha: float
) -> np.ndarray:
    """log q of each scored item, q its probability of being sampled, up to a constant.

    The lanes' targets come from the data, so q ∝ support. Extra samples are drawn with
    q ∝ support^sample_alpha. With log q subtracted from the scores, a softmax over samples
    estimates the softmax over all items (Bengio & Senécal 2008, "Adaptive importance sampling").
    As in the reference implementation, neither group is normalised.

    Args:
        log_support: (I,) log of each item's number of training events.
        targets: (B,), samples: (S,) item indices.
        sample_alpha: exponent of the samples' distribution.

    Returns:
        (B + S,), in the order of the scored columns.
    """
    return np.concatenate([log_support[targets], sample_alpha * log_support[samples]])


def expected_columns(chances: np.ndarray, n_targets: int, n_samples: int) -> np.ndarray:
    """c of each item, the number of its columns that a lane expects among its negatives.

    Weighted by 1/c, the drawn columns, targets and samples, estimate a sum over all items without
    bias (Veach & Guibas 1995, the balance heuristic).

    Args:
        chances: (2, n) each item's probability as another lane's target, and as a sample.
        n_targets: those of the other lanes. n_samples: those of the step.

    Returns:
        (n,).
    """
    return n_targets * chances[0] + n_samples * chances[1]


def corrected(log_c: np.ndarray, items: np.ndarray, n: int) -> np.ndarray:
    """log q of each lane's columns (n, N) for the corrected logQ: its target's own column has 0.

    The target is not drawn, so nothing corrects its score, and its other columns are no negatives:
    they have +inf (Khrylchenko et al. 2025, "Correcting the LogQ Correction", arXiv 2507.09331).
    Their weight 1 - P(target) of a lane's gradient follows from the softmax.

    Args:
        log_c: (N,) log of the columns' `expected_columns`. items: (N,), first the n lanes' targets.
    """
    log_q = np.where(items == items[:n, None], np.inf, log_c).astype(log_c.dtype)
    np.fill_diagonal(log_q, 0)
    return log_q
