"""Rank of the true item among all items, and Recall and MRR from ranks.

Ranks are counted, without sorting. NaN scores count against the target, so a diverged model gets
bad ranks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

TIES = ("conservative", "standard", "median")

# BLAS adds in an order that depends on the number of rows. To get the same bits for any number of
# cases, products always have this many rows, padded with 0. BLAS computes all 8 rows in the same
# loop; of 16 or 32 it computes some in another.
PADDED_ROWS = 8
# At most about this many scores are in memory at once (128 MB in float32).
MAX_SCORES = 2**25


class Lifted(NamedTuple):
    """Some cases' items whose scores are lifted before they are ranked, see `lift`.

    Attributes:
        case: (p,) each one's case, ascending. items: (p,) item indices, distinct within a case.
        floors: (p,) float64.
    """

    case: np.ndarray
    items: np.ndarray
    floors: np.ndarray

    def apply(self, scores: np.ndarray) -> None:
        """Lift their scores, of all items' (cases, I), in place."""
        at = self.case, self.items
        scores[at] = lift(scores[at], self.floors)


def lift(scores: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """log(e^score + e^floor): a score that is about the floor at least. Both are (p,).

    With the floor log Z + log p, where Z is the sum of e^score over the catalogue, it is the score
    of a mixture of the softmax and a repeat, which gives the item the probability p. Ren et al.
    2019, "RepeatNet" (AAAI), learn such a mixture with a network of its own.
    """
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp(scores, floors.astype(scores.dtype))


def ranks(scores: np.ndarray, targets: np.ndarray, ties: str = "conservative") -> np.ndarray:
    """Rank of each row's target among all items, 1 the best.

    conservative: the number of items that score >= the target, itself included
    standard:     one more than the number of items strictly above
    median:       the mean of the two

    Args:
        scores: (n, I) floats.
        targets: (n,) item indices.
        ties: one of `TIES`. `standard` counts every tie as a win. That flatters models which
            give most items the same score, such as a Markov chain.

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
    """Ranks from counts: see `ranks` for the formulas.

    Comparisons with NaN are false. Counting the items below the target therefore ranks NaN last.

    Args:
        below: (n,) number of items that score below the target.
        level: (n,) number of items with the target's score, itself included.
        n_items: of the catalogue. ties: one of `TIES`.

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


def padded(x: np.ndarray, rows: int = PADDED_ROWS) -> np.ndarray:
    """x (n, ...), n <= rows, padded with rows of 0: (rows, ...)."""
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])


def catalogue_scores(h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
    """Scores h V_y^T + b_y of all items, bit-identical to those that `rank_targets` compares.

    Args:
        h: (n, H) the vector that scores items, after the event of each case.
        V_y: (I, H), b_y: (I,) the output table.

    Returns:
        (n, I).
    """
    scores = np.empty((len(h), len(V_y)), V_y.dtype)
    for i in range(0, len(h), PADDED_ROWS):
        part = slice(i, i + PADDED_ROWS)
        # V_y h^T, not h V_y^T: BLAS computes a tall product a fifth faster than a wide one.
        scores[part] = (V_y @ padded(h[part]).T).T[: len(h[part])]
    scores += b_y
    return scores


def rank_targets(
    h: np.ndarray,
    V_y: np.ndarray,
    b_y: np.ndarray,
    targets: np.ndarray,
    ties: str = "conservative",
    lifted: Lifted | None = None,
) -> np.ndarray:
    """Rank of each case's target by the scores h V_y^T + b_y, `PADDED_ROWS` cases at a time.

    Args:
        h: (n, H) the vector that scores items, after the event of each case.
        V_y: (I, H), b_y: (I,) the output table.
        targets: (n,) item indices.
        ties: one of `TIES`.
        lifted: items whose scores are lifted; None: no items.

    Returns:
        (n,) float64.
    """
    found = [np.empty(0)]
    for i in range(0, len(h), PADDED_ROWS):
        part = slice(i, i + PADDED_ROWS)
        scores = catalogue_scores(h[part], V_y, b_y)
        if lifted is not None:
            some = slice(*np.searchsorted(lifted.case, [i, i + PADDED_ROWS]))
            Lifted(lifted.case[some] - i, lifted.items[some], lifted.floors[some]).apply(scores)
        found.append(ranks(scores, targets[part], ties))
    return np.concatenate(found)


def rank_by_counts(
    score_pairs: Callable[[np.ndarray, np.ndarray], np.ndarray],
    count: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    targets: np.ndarray,
    n_items: int,
    ties: str,
    lifted: Lifted | None,
) -> np.ndarray:
    """`rank_targets` for a backend that counts scores without storing them.

    Args:
        score_pairs: takes cases (p,) and items (p,), returns their scores (p,).
        count: takes a score for each case (n,), returns how many items score below it, and how many
            the same, (n,) integers; without lifting. Its scores have the bits of `score_pairs`.
        targets, ties, lifted: as for `rank_targets`. n_items: of the catalogue.

    Returns:
        (n,) float64.
    """
    n = len(targets)
    of_targets = score_pairs(np.arange(n), targets)
    if lifted is None or len(lifted.case) == 0:
        return from_counts(*count(of_targets), n_items, ties)
    case = lifted.case
    before = score_pairs(case, lifted.items)
    after, is_target = lift(before, lifted.floors), lifted.items == targets[case]
    of_targets[case[is_target]] = after[is_target]
    below, level = (counts.astype(np.int64) for counts in count(of_targets))
    for scores, change in ((before, -1), (after, 1)):
        below += change * np.bincount(case[scores < of_targets[case]], minlength=n)
        level += change * np.bincount(case[scores == of_targets[case]], minlength=n)
    return from_counts(below, level, n_items, ties)


def metrics(ranks: np.ndarray, k: int | Sequence[int] = (20,)) -> dict[str, float]:
    """Recall@K: share of cases with rank <= K. MRR@K: mean of 1/rank, 0 for ranks above K.

    Hidasi et al. 2016 (arXiv 1511.06939), §4.

    Args:
        ranks: (n,) from `ranks` or `rank_targets`, n >= 1.
        k: one cut-off K or several.

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


def top_k_rows(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each row and their scores, as `top_k` orders them.

    The k-th best of the maxima of groups of items bounds the k-th best item from below. Few items
    reach that bound, so few are sorted.

    Args:
        scores: (n, I) floats; -inf or NaN for an item that is not to be given. k: at least 1.

    Returns:
        items (n, min(k, I)) int64 and scores (n, min(k, I)); -1 and NaN where an item is missing.
    """
    n, I = scores.shape  # noqa: E741
    k = min(k, I)
    items, best = np.full((n, k), -1), np.full((n, k), np.nan, scores.dtype)
    size = max(1, min(64, I // (8 * k)))  # enough groups that few items reach the bound
    groups = I // size
    in_groups = scores[:, : groups * size].reshape(n, size, groups)
    maxima = np.fmax.reduce(in_groups, axis=1, initial=-np.inf)  # without NaN
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    for row in range(n):
        few = np.flatnonzero(scores[row] >= bound[row])
        order = few[np.argsort(-scores[row, few], kind="stable")[:k]]
        order = order[scores[row, order] > -np.inf]
        items[row, : len(order)], best[row, : len(order)] = order, scores[row, order]
    return items, best


def top_k(scores: np.ndarray, item_ids: np.ndarray, k: int) -> list[tuple[Any, float]]:
    """The k best items and their scores, best first. Equal scores keep their order, NaN is last.

    Args:
        scores: (I,), item_ids: (I,).
        k: how many, at least 1; if k > I, all I items.

    Returns:
        pairs of item id and score, as Python objects.
    """
    negative = -scores  # ascending order puts the best first and NaN last
    kth = min(k, len(scores)) - 1
    last = np.partition(negative, kth)[kth]
    rows = np.flatnonzero(~(negative > last))  # sort only these few
    best = rows[np.argsort(negative[rows], kind="stable")[:k]]
    return list(zip(item_ids[best].tolist(), scores[best].tolist(), strict=True))
