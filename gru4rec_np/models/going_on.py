"""Going on from a trained model: what its weights and the optimiser's memory become.

A model's items keep their places in the catalogue. New items come after them.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from gru4rec_np.backends import Memory, Weights
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.models.baselines import by_session


def start_from(
    weights: Weights,
    memory: Memory,
    old_weights: Weights,
    old_memory: Memory | None,
    sessions: Sessions,
) -> None:
    """Copy a model's weights and memory into fresh ones, in place.

    A new item's row in a table becomes the mean of the rows of known items, see `shares`. Its
    memory, and its row if it shares no session with a known item, stay fresh.

    Args:
        weights, memory: fresh, by name; tables have a row for each item of `sessions`.
        old_weights: of the same names; tables may have fewer rows.
        old_memory: likewise, or None for fresh memory.
        sessions: those to train on, over the catalogue with the new items.
    """
    mean: csr_array | None = None
    for name, old in old_weights.items():
        known, fresh = len(old), weights[name]
        fresh[:known] = old
        if known < len(fresh):
            mean = shares(sessions, known) if mean is None else mean
            has_mean = np.diff(mean.indptr) > 0
            rows = (mean @ old.astype(np.float64))[has_mean]
            fresh[known:][has_mean] = rows
        for part, array in memory[name].items():
            if old_memory and part in old_memory[name]:  # else momentum is new
                array[:known] = old_memory[name][part]


def shares(sessions: Sessions, known: int) -> csr_array:
    """The weights of known items in the mean for each new item, by the sessions that they share.

    Args:
        known: the number of known items; items[known:] are new.

    Returns:
        (I - known, known) float64: the sessions with both items, over the sum of the row. The row
        of a new item that shares no session with a known one is empty.
    """
    has = by_session(sessions, np.float64)
    has.data[:] = 1
    shared = (has[:, known:].T @ has[:, :known]).tocsr()
    shared.data /= np.repeat(shared.sum(axis=1), np.diff(shared.indptr))
    return shared
