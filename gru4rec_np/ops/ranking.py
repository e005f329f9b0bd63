"""Rank of the true item over the whole catalogue, and Recall and MRR from ranks.

Ranks are counted, never sorted. A score that is not a number counts against the target, so a
model that has diverged never looks good. Imports NumPy only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TIES = ("conservative", "standard", "median")

# What must not depend on how many are asked about at once is multiplied in this many rows, some of
# them empty: BLAS adds in another order for other numbers of rows. And it treats 8 rows alike: they
# fill its registers evenly, where of 16 or 32 some fall to another loop.
ROWS = 8
# Scores are held for as many cases at once as fit in about this many numbers (128 MB in float32).
BLOCK = 2**25
# A part of the cases has about this many scores, half a second, or a number of cases.
PART, LEAST = 2**29, 512


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
    """Ranks, from how many items score below each target and how many the same, itself included.

    Counted from below: a comparison with NaN is false, so NaN leaves the target at the end.

    Args:
        below, level: (n,) counts. n_items: of the catalogue. ties: one of `TIES`.

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
    """x (n, ...), n <= `ROWS`, with rows of 0 after it: (ROWS, ...)."""
    return np.concatenate([x, np.zeros((ROWS - len(x), *x.shape[1:]), x.dtype)])


def catalogue_scores(h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
    """Scores h V_y^T + b_y of the whole catalogue: to the bit those that `rank_targets` compares.

    Args:
        h: (n, H) the network's last hidden vector before each case.
        V_y: (I, H), b_y: (I,) the output table.

    Returns:
        (n, I).
    """
    none = np.empty((0, len(V_y)), V_y.dtype)
    parts = [_scores_of_rows(h[i : i + ROWS], V_y, b_y) for i in range(0, len(h), ROWS)]
    return np.concatenate([none, *parts])


def _scores_of_rows(h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
    """`catalogue_scores` of at most ROWS cases."""
    # The table first: BLAS does a tall product a fifth faster than a wide one.
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
    """Rank of each case's target by the scores h V_y^T + b_y, `ROWS` cases at a time.

    Args:
        h: (n, H) the network's last hidden vector before each case.
        V_y: (I, H), b_y: (I,) the output table.
        targets: (n,) item indices.
        ties: one of `TIES`.

    Returns:
        (n,) float64.
    """
    found = [np.empty(0)]
    for i in range(0, len(h), ROWS):
        part = slice(i, i + ROWS)
        found.append(ranks(_scores_of_rows(h[part], V_y, b_y), targets[part], ties))
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
    """`rank_targets`, a backend's or the one here, with a word after each part of the cases.

    Args:
        rank: what ranks. h, V_y, b_y, targets, ties: its arguments.
        watch: called with the number of cases done, and of all.

    Returns:
        (n,) float64.
    """
    size, found = max(LEAST, PART // len(V_y)), [np.empty(0)]
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
        k: the cut-offs, or one.

    Returns:
        {"recall@5": ..., "mrr@5": ..., ...}, in k's order.
    """
    out = {}
    for cut in np.atleast_1d(k).tolist():
        hit = ranks <= cut
        out[f"recall@{cut}"] = float(hit.mean())
        out[f"mrr@{cut}"] = float(np.where(hit, 1 / ranks, 0).mean())
    return out


def ndcg(ranks: np.ndarray, k: int) -> float:
    """NDCG@K with one relevant item: the mean of 1 / log2(1 + rank), 0 past K.

    Järvelin, Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".

    Args:
        ranks: (n,) as in `metrics`. k: the cut-off.
    """
    return float(np.where(ranks <= k, 1 / np.log2(1 + ranks), 0).mean())


def top(scores: np.ndarray, item_ids: np.ndarray, k: int) -> list[tuple[Any, float]]:
    """The k best items and their scores, plain objects, best first; of equals the first.

    What is not a number comes last.

    Args:
        scores: (I,), item_ids: (I,).
        k: how many, at least 1; more than I gives I.
    """
    negative = -scores  # so that the best come first, and NaN last
    kth = min(k, len(scores)) - 1
    last = np.partition(negative, kth)[kth]
    rows = np.flatnonzero(~(negative > last))  # few of a large catalogue: only these are sorted
    best = rows[np.argsort(negative[rows], kind="stable")[:k]]
    return list(zip(item_ids[best].tolist(), scores[best].tolist(), strict=True))
