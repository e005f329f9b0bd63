"""`Network`: a model with weights, which runs on a backend. Its progress bar.

GRU4Rec and NARM derive from it.
"""

from __future__ import annotations

import sys
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gru4rec_np.backends import Memory, Ops, one_blas_thread, quiet
from gru4rec_np.backends import load as load_backend
from gru4rec_np.data.sessions import Sessions, check_k
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint
from gru4rec_np.models.base import Model, Scorer, by_length, places_in
from gru4rec_np.ops.ranking import Lifted

# `ranks` reports its progress after about so many scores (half a second), and so many cases.
SCORES_PER_REPORT, FEWEST_CASES, MOST_CASES = 2**29, 512, 2**16

EXPLODED = 1000  # a loss of this many times the first one counts as diverged

N = TypeVar("N", bound="Network")

# Called during training with: the epoch, from 1, its events done, its events in all, and the mean
# loss over the events done.
OnChunk = Callable[[int, int, int, float], None]


class Network(Model):
    """A model with weights, which runs on a backend.

    Attributes:
        backend: see `backends.load`; "auto" stays "auto". ops: the hot operations of the backend.
        weights: name to array, after `fit`.
        losses: (updates,) float64, the mean loss over the events of each update, in order.
        history: one dict per epoch: epoch, loss (mean over its events), events, seconds,
            events_per_second.
        support: (I,) int64, the events of each item that the last training counted, for its
            sampler and logQ. None in a model from an older file, which has no counts.
        memory: the optimiser's, after `fit`, see `optim.init_memory`; None in a model from a file.
    """

    ops: Ops
    weights: dict[str, np.ndarray]
    support: np.ndarray | None = None
    memory: Memory | None = None
    losses: np.ndarray
    history: list[dict[str, float]]

    def __init__(self, *, backend: str = "auto", **hyperparameters: Any) -> None:
        super().__init__(**hyperparameters)
        self.ops = load_backend(backend)
        self._given["backend"] = backend

    @property
    def backend(self) -> str:
        return self._given["backend"]

    def set_params(self: N, **values: Any) -> N:
        """As `Model.set_params`; `backend` changes `ops` too."""
        backend = values.pop("backend", self.backend)
        ops = self.ops if backend == self.backend else load_backend(backend)
        super().set_params(**values)
        self.ops, self._given["backend"] = ops, backend
        return self

    @abstractmethod
    def _last_vectors(self, sessions: Sessions) -> np.ndarray:
        """(cases, D): the vector that scores the next item, for every case."""

    @abstractmethod
    def _vectors(self, sessions: Sessions, which: np.ndarray) -> np.ndarray:
        """(n, D): those after the last event of n <= MANY sessions, the longest first."""

    @abstractmethod
    def _output(self) -> tuple[np.ndarray, np.ndarray]:
        """The table (I, D) and the biases (I,) that score a vector."""

    def _lifted(
        self, sessions: Sessions, events: np.ndarray, rows: np.ndarray | None
    ) -> Lifted | None:
        """The items of `rows` whose scores after these events (n,) are lifted, by places in it."""
        return None

    @one_blas_thread
    def _ranks(
        self, test: Sessions, ties: str, watch: Watch | None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        h, (V, b), targets = self._last_vectors(test), self._output(), test.items[test.cases + 1]
        if rows is not None:
            V, b, targets = V[rows], b[rows], places_in(rows, targets)
        V, b = self.ops.resident(V, b)
        size = min(max(FEWEST_CASES, SCORES_PER_REPORT // len(V)), MOST_CASES)
        found = []
        for i in range(0, len(h), size):
            part = slice(i, min(i + size, len(h)))
            lifted = self._lifted(test, test.cases[part], rows)
            found.append(self.ops.rank_targets(h[part], V, b, targets[part], ties, lifted))
            if watch:
                watch(part.stop, len(h))
        return np.concatenate(found)

    def _scorer(self, rows: np.ndarray) -> Scorer:
        V, b = self._output()
        if len(rows) < len(V):
            V, b = V[rows], b[rows]

        def score(sessions: Sessions, which: np.ndarray) -> np.ndarray:
            with self.ops.lock:
                vectors = self._vectors(sessions, which)
            scores = vectors @ V.T
            scores += b
            lifted = self._lifted(sessions, sessions.offsets[which + 1] - 1, rows)
            if lifted is not None:
                lifted.apply(scores)
            return scores

        return score

    @one_blas_thread
    def session_vectors(self, sessions: Any) -> np.ndarray:
        """The vector that scores the next item, after the last click of each session.

        Args:
            sessions: as for `recommend_many`.

        Returns:
            (sessions, D) float32; NaN where the catalogue has none of a session's items.

        Raises:
            InputError: the model is not trained, or these are no sessions.
        """
        known, answerable = self._known_sessions(sessions)
        V = self._output()[0]
        out = np.full((len(answerable), V.shape[1]), np.nan, V.dtype)
        where = np.flatnonzero(answerable)
        for block in by_length(known.lengths):
            out[where[block]] = self._vectors(known, block)
        return out

    def similar(self, item: Any, k: int = 20) -> list[tuple[Any, float]]:
        """The k items whose output rows point in the direction of this item's row.

        Returns:
            (item id, cosine of the two rows), the most similar first, without the item itself.

        Raises:
            InputError: the model is not trained or does not know the item, or k < 1.
        """
        check_k(k)
        self._require_fit()
        if str(item) not in self._index:
            raise InputError(f"similar: item {str(item)[:60]!r} is not known to the model")
        V, index = self._output()[0].astype(np.float64), self._index[str(item)]
        V /= np.maximum(np.linalg.norm(V, axis=1, keepdims=True), np.finfo(float).tiny)
        return self._best(V @ V[index], [index], k, "seen", None)

    def __getstate__(self) -> dict[str, Any]:
        """For `copy` and for other processes: without `ops`, which may hold a GPU's memory."""
        return {name: value for name, value in vars(self).items() if name != "ops"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.ops = load_backend(self.backend)

    @abstractmethod
    def _shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by name."""

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        return arrays if self.support is None else {**arrays, "support": self.support}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.weights = checkpoint.take_weights(arrays, self._shapes(len(self.item_ids)))
        self.support = arrays.get("support")
        if self.support is not None:
            kind, shape = self.support.dtype, self.support.shape
            if kind != np.int64 or shape != self.item_ids.shape or (self.support < 0).any():
                raise ValueError(f"support is {kind} {shape}, no count for each item")

    def _more(self, new: Any, keep_counts: bool) -> tuple[Sessions, np.ndarray]:
        """What `fit_more` trains on.

        Returns:
            sessions of 2 events or more, over the model's catalogue and the new items after it;
            and the support of each item (I,) int64, with that of the model if keep_counts.

        Raises:
            InputError: the model is not trained or has no support to keep, or ids do not fit.
        """
        self._require_fit()
        new = as_sessions(new)
        new = new.keep_sessions(new.lengths >= 2).compact().extend(self.item_ids)
        support = new.support
        if keep_counts:
            if self.support is None:
                raise InputError(
                    "keep_counts: the model is from an older file, which has no counts; go on "
                    "without keep_counts"
                )
            support[: len(self.support)] += self.support
        return new, support


def highest_loss(first: float) -> float:
    """Above it, or where a loss is NaN, a training has diverged. first: its first loss."""
    return EXPLODED * max(1.0, first)


def history_row(epoch: int, loss: float, events: int, seconds: float) -> dict[str, float]:
    """An epoch's entry in `Network.history`; loss: the sum over its events."""
    return {
        "epoch": epoch,
        "loss": loss / events,
        "events": events,
        "seconds": seconds,
        "events_per_second": events / seconds,
    }


@contextmanager
def progress(n_epochs: int, verbose: bool | None) -> Iterator[OnChunk]:
    """A progress bar over the events of all epochs of a training.

    Args:
        verbose: True shows it, False does not, None shows it on a terminal and in a notebook.

    Yields:
        the `on_chunk` that moves it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns in a notebook without ipywidgets
        from tqdm.auto import tqdm
    # tqdm itself decides for None, but it takes a notebook without ipywidgets for a file.
    hide = None if verbose is None and "ipykernel" not in sys.modules else verbose is False
    before = quiet.set(verbose is False)
    with tqdm(unit=" events", unit_scale=True, dynamic_ncols=True, disable=hide) as bar:

        def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
            bar.total = total * n_epochs
            bar.set_description(f"epoch {epoch}/{n_epochs}", refresh=False)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update((epoch - 1) * total + done - bar.n)

        try:
            yield on_chunk
        finally:
            quiet.reset(before)
