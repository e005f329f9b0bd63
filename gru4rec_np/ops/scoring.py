"""Scores of sampled items: the only access of a training step to the output table.

Only the rows of the given items are read, so the cost of a step does not depend on the number of
items. Imports NumPy only.
"""

import numpy as np


def scores(
    h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """r = h V_y[items]^T + b_y[items]: the score of each of these items in each lane.

    Hidasi et al. 2016 (arXiv 1511.06939), §3.1.2: only the lanes' targets and the shared negative
    samples are scored.

    Args:
        h: (B, H) the network's last hidden vector.
        V_y: (I, H), b_y: (I,) one row and one bias for every item.
        items: (N,) item indices; an item may occur more than once.

    Returns:
        r: (B, N), and the rows V: (N, H), for `scores_backward`.
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
        dh (B, H), dV (N, H), db (N,), with a row for each occurrence in `items`. Sum those of the
        same item before the update (`optim.sum_rows`).
    """
    return dr @ V, dr.T @ h, dr.sum(axis=0)


def log_proposal(
    log_support: np.ndarray, targets: np.ndarray, samples: np.ndarray, sample_alpha: float
) -> np.ndarray:
    """log q of each scored item, where q is proportional to the probability of drawing it.

    Targets are drawn from the data, with q = support. Extra samples are drawn with
    q = support^sample_alpha. When log q is subtracted from the scores, the softmax over the samples
    estimates the softmax over all items (Bengio & Senécal 2008, "Adaptive importance sampling"). As
    in the reference implementation, neither group is normalised.

    Args:
        log_support: (I,) log of each item's number of training events.
        targets: (B,), samples: (S,) item indices.

    Returns:
        (B + S,), in the order of the scored columns.
    """
    return np.concatenate([log_support[targets], sample_alpha * log_support[samples]])
