"""Rank of the true item among all items, and Recall and MRR from ranks.

Ranks are counted, without sorting. A NaN counts against the target, so a diverged model never
scores well. Imports NumPy only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TIES = ("conservative", "standard", "median")

# In evaluation, matrix products always have this many rows, padded with zeros. The order in which
# BLAS adds depends on the number of rows, so this makes scores independent of the batch. BLAS
# treats 8 rows alike; of 16 or 32 rows, some go through another loop.
EVAL_LANES = 8
# The largest number of scores to hold at once: 128 MB in float32.
SCORES_AT_ONCE = 2**25
# Progress is reported after about this many scores, half a second, but at least so many cases.
SCORES_PER_REPORT, CASES_PER_REPORT = 2**29, 512


def ranks(scores: np.ndarray, targets: np.ndarray, ties: str = "conservative") -> np.ndarray:
    """Rank of each row's target among all items, 1 the best.

    conservative: the number of items that score >= the target, itself included
    standard:     one more than the number of items strictly above
    median:       the mean of the two

    Args:
        scores: (n, I) floats.
        targets: (n,) item indices.
        ties: one of `TIES`. `standard` makes every tie a win: a Markov chain, which scores most
            items 0, then looks far better than it is.

    Returns:
        (n,) float64 (`median` gives halves).

    Raises:
        ValueError: `ties` is not in `TIES`.
    """
    I = scores.shape[1]  # noqa: E741 - the project's letter for the number of items
    target = np.take_along_axis(scores, targets[:, None], axis=1)
    below = np.count_nonzero(scores < target, axis=1)
    level = np.count_nonzero(scores == target, axis=1)
    return from_counts(below, level, I, ties)


def from_counts(below: np.ndarray, level: np.ndarray, n_items: int, ties: str) -> np.ndarray:
    """Ranks from the numbers of items below each target, and level with it.

    Items below are counted, because comparisons with NaN are false: NaN then makes the rank worse.

    Args:
        below: (n,) items that score less than the target. level: (n,) items that score the same,
            the target included. n_items: I. ties: one of `TIES`.

    Returns:
        (n,) float64.

    Raises:
        ValueError: `ties` is not in `TIES`.
    """
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}, not {ties!r}")
    conservative = n_items - np.asarray(below, np.float64)
    if ties == "conservative":
        return conservative
    standard = np.minimum(conservative - level + 1, n_items)
    return standard if ties == "standard" else (conservative + standard) / 2


def padded(x: np.ndarray) -> np.ndarray:
    """x (n, ...), n <= `EVAL_LANES`, padded with zeros: (EVAL_LANES, ...)."""
    return np.concatenate([x, np.zeros((EVAL_LANES - len(x), *x.shape[1:]), x.dtype)])


def catalogue_scores(h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
    """Scores h V_y^T + b_y of all items, bit-identical to those that `rank_targets` compares.

    Args:
        h: (n, H) the network's last hidden vector before each case.
        V_y: (I, H), b_y: (I,) the output table.

    Returns:
        (n, I).
    """
    none = np.empty((0, len(V_y)), V_y.dtype)
    lanes = (h[i : i + EVAL_LANES] for i in range(0, len(h), EVAL_LANES))
    return np.concatenate([none, *(_scores_of_lanes(part, V_y, b_y) for part in lanes)])


def _scores_of_lanes(h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
    """`catalogue_scores` of at most EVAL_LANES cases."""
    # V_y h^T, not h V_y^T: BLAS computes a tall product a fifth faster than a wide one.
    scores = np.ascontiguousarray((V_y @ padded(h).T).T[: len(h)])
    scores += b_y
    return scores


def rank_targets(
    h: np.ndarray,
    V_y: np.ndarray,
    b_y: np.ndarray,
    targets: np.ndarray,
    ties: str = "conservative",
) -> np.ndarray:
    """Rank of each case's target by the scores h V_y^T + b_y, `EVAL_LANES` cases at a time.

    Args:
        h: (n, H) the network's last hidden vector before each case.
        V_y: (I, H), b_y: (I,) the output table.
        targets: (n,) item indices.
        ties: one of `TIES`.

    Returns:
        (n,) float64.
    """
    found = [np.empty(0)]
    for i in range(0, len(h), EVAL_LANES):
        part = slice(i, i + EVAL_LANES)
        found.append(ranks(_scores_of_lanes(h[part], V_y, b_y), targets[part], ties))
    return np.concatenate(found)


def rank_in_parts(
    rank: Callable[..., np.ndarray],
    h: np.ndarray,
    V_y: np.ndarray,
    b_y: np.ndarray,
    targets: np.ndarray,
    ties: str,
    watch: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Rank the cases in parts, and report progress after each.

    Args:
        rank: `rank_targets`, a backend's or the one here. h, V_y, b_y, targets, ties: its
            arguments.
        watch: called with the number of cases done, and the number of all.

    Returns:
        (n,) float64.
    """
    size, found = max(CASES_PER_REPORT, SCORES_PER_REPORT // len(V_y)), [np.empty(0)]
    for i in range(0, len(h), size):
        found.append(rank(h[i : i + size], V_y, b_y, targets[i : i + size], ties))
        if watch:
            watch(min(i + size, len(h)), len(h))
    return np.concatenate(found)


def metrics(ranks: np.ndarray, k: int | Sequence[int] = (20,)) -> dict[str, float]:
    """Recall@K, the share of cases with rank <= K, and MRR@K, the mean of 1/rank, 0 past K.

    Hidasi et al. 2016 (arXiv 1511.06939), §4.

    Args:
        ranks: (n,) from `ranks` or `rank_targets`, n >= 1.
        k: one cut-off, or several.

    Returns:
        {"recall@5": ..., "mrr@5": ..., ...}, in k's order.
    """
    out = {}
    for cut in np.atleast_1d(k).tolist():
        hit = ranks <= cut
        out[f"recall@{cut}"] = float(hit.mean())
        out[f"mrr@{cut}"] = float(np.where(hit, 1 / ranks, 0).mean())
    return out


def top(scores: np.ndarray, item_ids: np.ndarray, k: int) -> list[tuple[Any, float]]:
    """The k best items and their scores as Python objects, best first.

    Equal scores keep the order of the items. NaN comes last.

    Args:
        scores: (I,), item_ids: (I,).
        k: >= 1; at most I are returned.
    """
    negative = -scores  # sorts the best first and NaN last
    kth = min(k, len(scores)) - 1
    last = np.partition(negative, kth)[kth]
    rows = np.flatnonzero(~(negative > last))  # sort only these few of a large catalogue
    best = rows[np.argsort(negative[rows], kind="stable")[:k]]
    return list(zip(item_ids[best].tolist(), scores[best].tolist(), strict=True))
