"""Session-parallel mini-batches, a whole epoch as arrays, and the sampler of negatives.

Imports the data layer and NumPy; knows no model.
"""

import dataclasses
import heapq

import numpy as np

from gru4rec_np.data.sessions import Sessions


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """An epoch of T steps over at most B lanes. Lane b is column b.

    Attributes:
        x: (T, B) int32, the item that each lane feeds in; -1 past the step's last lane.
        y: (T, B) int32, the item that follows it, the lane's target; -1 likewise.
        lanes: (T,) int64, how many lanes the step has.
        reset: (T, B) bool, the lane starts a session: its state is zero before the step.
        keep: (T, B) bool, which of the *previous* step's lanes are still there; those stand
            side by side, in their old order, in this step. Only its first lanes[t - 1] columns
            mean anything (B for the first step); all True until sessions run out.
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

    Lane b starts with session b. Each step feeds every lane's current event and asks for its
    next one. A lane whose session has nothing left to predict takes the next unused session; when
    there is none the lane goes.

    Args:
        sessions: sessions shorter than 2 have nothing to predict and are passed over.
        batch_size: B, the number of lanes to start with. Fewer sessions make fewer lanes.
        min_lanes: the epoch ends when fewer are left: 2 where the lanes are each other's only
            negatives, 1 where there are extra samples.
        order: (sessions,) the order in which sessions are used; by start time if None.
    """
    if order is None:
        order = np.argsort(sessions.starts, kind="stable")
    order = order[sessions.lengths[order] >= 2]
    steps = sessions.lengths[order] - 1  # a session of n events asks n - 1 questions
    B = min(batch_size, len(order))

    # Which lane takes which session at which step: always the lane that is free first, of several
    # the leftmost.
    free = [(0, b) for b in range(B)]
    start, lane = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    for i, n in enumerate(steps.tolist()):
        start[i], lane[i] = free[0]
        heapq.heapreplace(free, (free[0][0] + n, free[0][1]))

    # Every question at its place, step * B + lane. (One number for both: these arrays are the
    # largest that an epoch needs.)
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

    # Once the sessions have run out, close the gaps that leaving lanes make.
    alive = x >= 0
    lanes = alive.sum(axis=1)
    for t in np.flatnonzero(lanes < B):
        before = alive[t - 1] if t else np.ones(B, bool)
        keep[t] = False
        keep[t, : lanes[t - 1] if t else B] = alive[t][before]
        for array in (x, y):
            array[t, : lanes[t]] = array[t][alive[t]]
            array[t, lanes[t] :] = -1
        # reset needs no move: of lanes that are free, the leftmost takes the last session, so none
        # to the right of one that leaves starts another.
    T = int(np.count_nonzero(lanes >= min_lanes))  # lanes only ever become fewer
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
    """Where among the items to search for a draw, by the draw's first bits.

    For each of K equal parts of [0, 1) the first item that a draw there can give (Chen & Asau
    1974, the method of guide tables): most parts leave but one, so the search is over.

    Returns:
        (K + 1,) int32. K is a power of two, so that u K is exact.
    """
    K = 2**18  # the table is 1 MB and stays in the cache
    return np.searchsorted(distribution, np.arange(K + 1) / K, side="right").astype(np.int32)


def draw_negatives(
    rng: np.random.Generator,
    distribution: np.ndarray,
    shape: tuple[int, ...],
    guide: np.ndarray | None = None,
) -> np.ndarray:
    """Items drawn independently from `distribution`, int32: a binary search for each.

    Args:
        distribution: from `negative_distribution`.
        shape: of the result, (steps, n_sample).
        guide: from `guide_table`; the same draws ten times as fast.
    """
    u = rng.random(shape)
    if guide is None:
        drawn = np.searchsorted(distribution, u, side="right").astype(np.int32)
    else:
        part = (u * (len(guide) - 1)).astype(np.int32)
        drawn, last = guide[part], guide[part + 1]
        unsure = np.nonzero(drawn < last)
        low, high, u = drawn[unsure], last[unsure], u[unsure]
        while (low < high).any():  # one binary search, all of them side by side
            middle = (low + high) // 2
            past = distribution[middle] <= u
            low, high = np.where(past, middle + 1, low), np.where(past, high, middle)
        drawn[unsure] = low
    return np.minimum(drawn, len(distribution) - 1)
