"""BPR-MF: items as vectors, a session as the mean of its items', learnt from pairs of items.

The loss and, right under it, its gradient by hand. Imports baselines.py and what is below.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import Watch
from gru4rec_np.errors import InputError
from gru4rec_np.models.baselines import Baseline, by_session, recent
from gru4rec_np.models.hyperparameters import Checked, declare, number, whole
from gru4rec_np.ops.activations import sigmoid

CLICKS = 40  # of a session that is asked about, the last so many count


def bpr_mf(V: np.ndarray, C: csr_array, P: csr_array) -> tuple[np.ndarray, tuple]:
    """-log σ(x), x = u·(v_i - v_j): item i is of the session, whose vector is u, and j is not.

    Rendle et al. 2009 (arXiv 1205.2618), §4: BPR-Opt of a matrix factorisation. Sessions have no
    vector of their own, which a new one would lack: u is the mean of its items' (Hidasi et al.
    2016, arXiv 1511.06939, §4.1).

    Args:
        V: (I, D) the items' vectors.
        C: (B, I) weights of the mean, u = C V.
        P: (B, I) 1 at i and -1 at j, v_i - v_j = P V.

    Returns:
        loss of each triple (B,), and the cache that `bpr_mf_backward` takes.
    """
    u, d = C @ V, P @ V  # (B, D)
    x = (u * d).sum(axis=1)
    return np.logaddexp(0, -x), (u, d, x)


def bpr_mf_backward(C: csr_array, P: csr_array, cache: tuple) -> np.ndarray:
    """dV = C^T (dx d) + P^T (dx u), dx = -σ(-x): each v is in u and, as i or j, in d. (I, D)."""
    u, d, x = cache
    dx = -sigmoid(-x)[:, None]
    return C.T @ (dx * d) + P.T @ (dx * u)


class BPRMF(Baseline):
    """The items whose vectors have the largest mean product with those of the session.

    Stochastic gradient descent on `bpr_mf` over triples (session, one of its events, another item):
    u is the mean over the session's other events, since an item's product with itself would
    otherwise be what grows; the other item is any of the catalogue with the same probability.
    Steps of `batch_size` triples add up their gradients.

    The defaults are what was best on the last day of RSC15's first 100,000 clicks without their
    test set (docs/results.md).
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """Attributes:
        factors: D. n_epochs: passes over the events. learning_rate, batch_size: of a step.
        lmbd: L2 on the distinct vectors that a step uses.
        seed: of the first vectors, the order and the other items.
        """

        fixed: ClassVar = ("factors",)
        factors: int = declare(100, "D", whole(1))
        n_epochs: int = declare(10, "passes over the events", whole(1))
        learning_rate: float = declare(0.2, "step size", number(0, above=True))
        batch_size: int = declare(256, "triples a step", whole(1))
        lmbd: float = declare(0.002, "L2", number(0))
        seed: int = declare(0, "seed of everything random", whole(0, np.inf))

    hp: Hyperparameters
    name = "BPR-MF"
    parts: ClassVar = {"V": ("I", None)}

    @np.errstate(over="ignore", invalid="ignore")  # looked at after each epoch
    def _learn(self, train: Sessions, watch: Watch) -> None:
        rng = np.random.default_rng(self.hp.seed)
        n_items, rate = train.n_items, self.hp.learning_rate
        self.V = rng.normal(0, 0.1, (n_items, self.hp.factors)).astype(np.float32)
        counts = by_session(train, np.float32)
        of_events = np.flatnonzero(np.repeat(train.lengths > 1, train.lengths))
        for epoch in range(1, self.hp.n_epochs + 1):
            order = rng.permutation(of_events)
            for first in range(0, len(order), self.hp.batch_size):
                events = order[first : first + self.hp.batch_size]
                others = rng.integers(0, n_items, len(events))
                C, P = _triples(train, counts, events, others)
                # On the step's own rows: a gradient of the whole catalogue would be mostly zeros.
                rows, at = np.unique(np.concatenate([C.indices, P.indices]), return_inverse=True)
                C, P = (
                    csr_array((m.data, i, m.indptr), (len(events), len(rows)))
                    for m, i in ((C, at[: C.nnz]), (P, at[C.nnz :]))
                )
                V = self.V[rows]
                dV = bpr_mf_backward(C, P, bpr_mf(V, C, P)[1])
                self.V[rows] = V - np.float32(rate) * (dV + np.float32(self.hp.lmbd) * V)
                watch((epoch - 1) * len(order) + first + len(events), self.hp.n_epochs * len(order))
            if not np.isfinite(self.V).all():
                raise InputError(
                    f"{self.name}: training diverged in epoch {epoch}; try a lower learning_rate "
                    f"than {rate:g}"
                )

    @one_blas_thread
    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        row, item, _ = recent(sessions, cases, CLICKS)
        lengths = np.bincount(row, minlength=len(cases))
        weights = (1 / lengths[row]).astype(np.float32)
        C = csr_array((weights, (row, item)), (len(cases), len(self.V)))
        return (C @ self.V) @ self.V.T


def _triples(
    train: Sessions, counts: csr_array, events: np.ndarray, others: np.ndarray
) -> tuple[csr_array, csr_array]:
    """C and P of `bpr_mf`, float32: for each event the mean of its session's others, and the pair.

    Args:
        counts: `by_session` of train. events: (B,) of sessions of 2 or more. others: (B,) items.
    """
    session = np.searchsorted(train.offsets, events, side="right") - 1
    shape = len(events), train.n_items
    row, ones = np.arange(len(events)), np.ones(len(events), np.float32)
    items = train.items[events]
    C = counts[session] - csr_array((ones, (row, items)), shape)
    C.data /= np.repeat(train.lengths[session] - 1, np.diff(C.indptr)).astype(np.float32)
    pairs = np.stack([items, others], axis=1).ravel()
    signs = np.tile(np.array([1, -1], np.float32), len(events))
    return C, csr_array((signs, pairs, np.arange(0, 2 * len(events) + 1, 2)), shape)
