"""BPR-MF: matrix factorisation. A session's vector is the mean of its items' vectors.

The loss and, right under it, its gradient, written by hand.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import Sessions, recent
from gru4rec_np.data.tables import Watch
from gru4rec_np.errors import InputError
from gru4rec_np.models.baselines import Baseline, by_session
from gru4rec_np.models.checked import Checked, declare, number, whole
from gru4rec_np.ops.activations import sigmoid


def bpr_mf(V: np.ndarray, C: csr_array, P: csr_array) -> tuple[np.ndarray, tuple]:
    """-log σ(x), x = u·(v_i - v_j), for a session u, its item i and another item j.

    Rendle et al. 2009 (arXiv 1205.2618), §4: BPR-Opt of a matrix factorisation. New sessions have
    no learnt vector, so u is the mean of the items' vectors (Hidasi et al. 2016, arXiv 1511.06939,
    §4.1).

    Args:
        V: (I, D) the items' vectors.
        C: (B, I) the weights of the means: u = C V.
        P: (B, I) 1 at i and -1 at j: v_i - v_j = P V.

    Returns:
        loss of each triple (B,), and the cache that `bpr_mf_backward` takes.
    """
    u, d = C @ V, P @ V  # (B, D)
    x = (u * d).sum(axis=1)
    return np.logaddexp(0, -x), (u, d, x)


def bpr_mf_backward(C: csr_array, P: csr_array, cache: tuple) -> np.ndarray:
    """dV = C^T (dx d) + P^T (dx u), dx = -σ(-x), (I, D): through u, and through d as i or j."""
    u, d, x = cache
    dx = -sigmoid(-x)[:, None]
    return C.T @ (dx * d) + P.T @ (dx * u)


class BPRMF(Baseline):
    """The items whose vectors have the largest product with the session's vector.

    Trained on `bpr_mf` by stochastic gradient descent over triples: a session, one of its events,
    and another item, drawn uniformly. In training, u is the mean over the session's other events.
    With its own event in u, an item's product with itself would dominate. A step sums the gradients
    of `batch_size` triples.

    `fit_more` goes on by SGD on the new sessions, from the vectors of the known items and fresh
    ones of the new. Unlike that of the other methods, its result is not that of both logs at once.

    The defaults were best on the last day of RSC15's first 100,000 clicks, without their test set
    (docs/results.md).
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """The hyperparameters of BPR-MF."""

        fixed: ClassVar = ("factors",)
        factors: int = declare(100, "D, the width of a vector", whole(1))
        n_epochs: int = declare(10, "passes over the events", whole(1))
        learning_rate: float = declare(0.2, "step size", number(0, above=True))
        batch_size: int = declare(256, "triples a step", whole(1))
        lmbd: float = declare(
            0.002, "L2 regularisation of the distinct vectors that a step uses", number(0)
        )
        seed: int = declare(0, "seed of everything random", whole(0, np.inf))

    hp: Hyperparameters
    name = "BPR-MF"
    parts: ClassVar = {"V": ("I", None)}
    V: np.ndarray = np.zeros((0, 1), np.float32)

    @np.errstate(over="ignore", invalid="ignore")  # V is checked after each epoch
    def _learn(self, train: Sessions, watch: Watch) -> None:
        rng = np.random.default_rng(self.hp.seed)
        n_items, rate = train.n_items, self.hp.learning_rate
        V = rng.normal(0, 0.1, (n_items, self.hp.factors)).astype(np.float32)
        known = self.V.any(axis=1)  # a new item's row is 0
        V[known] = self.V[known]
        self.V = V
        counts = by_session(train, np.float32)
        of_events = np.flatnonzero(np.repeat(train.lengths > 1, train.lengths))
        for epoch in range(1, self.hp.n_epochs + 1):
            order = rng.permutation(of_events)
            for first in range(0, len(order), self.hp.batch_size):
                events = order[first : first + self.hp.batch_size]
                others = rng.integers(0, n_items, len(events))
                C, P = _triples(train, counts, events, others)
                # Only the step's rows: the gradient of the whole table would be mostly zeros.
                used = np.concatenate([C.indices, P.indices])
                rows, column = np.unique(used, return_inverse=True)
                C, P = (
                    csr_array((m.data, i, m.indptr), (len(events), len(rows)))
                    for m, i in ((C, column[: C.nnz]), (P, column[C.nnz :]))
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
        row, item, _ = recent(sessions, cases)
        lengths = np.bincount(row, minlength=len(cases))
        weights = (1 / lengths[row]).astype(np.float32)
        C = csr_array((weights, (row, item)), (len(cases), len(self.V)))
        return (C @ self.V) @ self.V.T


def _triples(
    train: Sessions, counts: csr_array, events: np.ndarray, others: np.ndarray
) -> tuple[csr_array, csr_array]:
    """C and P of `bpr_mf`, (B, I) float32.

    Args:
        counts: `by_session` of train. events: (B,) events i of sessions of 2 or more. others: (B,)
            items j.
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
