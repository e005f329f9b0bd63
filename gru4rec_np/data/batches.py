"""Session-parallel mini-batches, laid out as arrays for a whole epoch, and the negative sampler.

Knows no model.
"""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np

from gru4rec_np.data.sessions import Sessions


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An epoch of T steps over at most B lanes. Lane b is column b.

    Attributes:
        x: (T, B) int32, the input item of each lane; -1 from column lanes[t] on.
        y: (T, B) int32, the target, the item after it; -1 likewise.
        lanes: (T,) int64, the number of lanes of the step.
        reset: (T, B) bool, the lane starts a session: its hidden state is zero before the step.
        keep: (T, B) bool, which of the *previous* step's lanes remain. They move together to the
            left, in the same order. Only the first lanes[t - 1] columns count (B for the first
            step). All True until sessions run out.
    """

    x: np.ndarray
    y: np.ndarray
    lanes: np.ndarray
    reset: np.ndarray
    keep: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def session_parallel(
    sessions: Sessions,
    batch_size: int,
    min_lanes: int = 2,
    order: np.ndarray | None = None,
) -> Batches:
    """One epoch of session-parallel mini-batches (Hidasi et al. 2016, §3.1.1, figure 2).

    Lane b starts with session b. Each step takes every lane's current event as input and its next
    event as target. A lane at the end of its session takes the next unused session. If there is
    none, the lane is removed.

    Args:
        sessions: sessions shorter than 2 have no target and are skipped.
        batch_size: B, the number of lanes at the start. Fewer sessions make fewer lanes.
        min_lanes: the epoch ends when fewer lanes are left. 2 if the other lanes are the only
            negatives, 1 with extra negatives.
        order: (sessions,) the order in which sessions are used; by start time if None.
    """
    if order is None:
        order = np.argsort(sessions.starts, kind="stable")
    order = order[sessions.lengths[order] >= 2]
    steps = sessions.lengths[order] - 1  # a session of n events has n - 1 targets
    B = min(batch_size, len(order))

    # Which lane takes which session at which step: the lane that is free first, of several the
    # leftmost.
    free = [(0, b) for b in range(B)]
    start, lane = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    for i, n in enumerate(steps.tolist()):
        start[i], lane[i] = free[0]
        heapq.heapreplace(free, (free[0][0] + n, free[0][1]))

    # The place of each target, step * B + lane: one number, since these are an epoch's largest
    # arrays.
    nth = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    event = np.repeat(sessions.offsets[order], steps)
    event += nth
    at = np.repeat(start * B + lane, steps)
    nth *= B
    at += nth
    T = int((start + steps).max(initial=0))
    x, y = np.full((T, B), -1, np.int32), np.full((T, B), -1, np.int32)
    reset, keep = np.zeros((T, B), bool), np.ones((T, B), bool)
    x.ravel()[at] = sessions.items[event]
    event += 1
    y.ravel()[at] = sessions.items[event]
    del nth, event, at
    reset[start, lane] = True

    # After the sessions have run out, close the gaps of removed lanes.
    alive = x >= 0
    lanes = alive.sum(axis=1)
    for t in np.flatnonzero(lanes < B):
        before = alive[t - 1] if t else np.ones(B, bool)
        keep[t] = False
        keep[t, : lanes[t - 1] if t else B] = alive[t][before]
        for array in (x, y):
            array[t, : lanes[t]] = array[t][alive[t]]
            array[t, lanes[t] :] = -1
        # reset needs no move: the leftmost free lane takes the last session, so no lane right of a
        # removed one starts another.
    T = int(np.count_nonzero(lanes >= min_lanes))  # the number of lanes never grows
    return Batches(x[:T], y[:T], lanes[:T], reset[:T], keep[:T])


def negative_distribution(support: np.ndarray, sample_alpha: float) -> np.ndarray:
    """Cumulative distribution of the extra negatives: item i is drawn ∝ support_i^sample_alpha.

    Args:
        support: (I,) training events of each item.
        sample_alpha: 0 draws uniformly, 1 by popularity.

    Returns:
        (I,) float64, ascending to 1.
    """
    weights = np.ones(len(support))
    if sample_alpha:
        with np.errstate(divide="ignore"):  # log 0 = -inf: never drawn
            log = np.log(support.astype(np.float64))
        weights = np.exp(sample_alpha * (log - log.max()))  # the power itself may overflow
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def guide_table(distribution: np.ndarray) -> np.ndarray:
    """Where to search for a draw among the items, by the draw's first bits.

    For each of K equal parts of [0, 1), the first item that a draw in that part can give (Chen &
    Asau 1974, the method of guide tables). Most parts allow one item, so there is no search.

    Returns:
        (K + 1,) int32. K is a power of two, so that u K is exact.
    """
    # 1 MB, which stays in the cache. With more items than parts, a draw would search for long.
    K = 2 ** max(18, len(distribution).bit_length())
    return np.searchsorted(distribution, np.arange(K + 1) / K, side="right").astype(np.int32)


def draw_negatives(
    rng: np.random.Generator,
    distribution: np.ndarray,
    shape: tuple[int, ...],
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Items drawn independently from `distribution`, int32, each by a binary search.

    Args:
        distribution: from `negative_distribution`.
        shape: of the result, (steps, n_sample).
        guide: from `guide_table`: the same draws, ten times faster.
    """
    u = rng.random(shape)
    if guide is None:
        drawn = np.searchsorted(distribution, u, side="right").astype(np.int32)
    else:
        part = (u * (len(guide) - 1)).astype(np.int32)
        drawn, last = guide[part], guide[part + 1]
        unsure = np.nonzero(drawn < last)
        low, high, u = drawn[unsure], last[unsure], u[unsure]
        while (low < high).any():  # all binary searches at once
            middle = (low + high) // 2
            past = distribution[middle] <= u
            low, high = np.where(past, middle + 1, low), np.where(past, high, middle)
        drawn[unsure] = low
    return np.minimum(drawn, len(distribution) - 1)
