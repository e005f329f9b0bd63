"""GRU4Rec, the model: fit, evaluate, recommend, save, load, and a session fed click by click.

Hidasi et al. 2016 (arXiv 1511.06939). Imports the network, the data layer and the kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np import checkpoint, network
from gru4rec_np.errors import InputError
from gru4rec_np.hyperparameters import Hyperparameters
from gru4rec_np.kernels import load, one_blas_thread
from gru4rec_np.ranking import ROWS, metrics, padded, rank_in_parts, top
from gru4rec_np.sessions import Sessions, check_cut_offs, check_k, index_of, item_list
from gru4rec_np.tables import Watch, as_sessions
from gru4rec_np.training import Training


@dataclasses.dataclass(eq=False)
class GRU4Rec(Hyperparameters):
    """Session-based recommendation with a recurrent network: GRUs, LSTMs or simple units.

        model = GRU4Rec(layers=[100], loss="bpr-max").fit(train)
        model.evaluate(test, k=(5, 20))            {"recall@5": ..., "mrr@5": ..., ...}
        model.recommend(["a12", "b7"], k=20)       [(item, score), ...]

    Arguments are the hyperparameters, see `Hyperparameters`, and the backend, see `kernels.load`.

    Attributes after `fit`:
        weights: name to array, see network.py.
        item_ids: (I,) the catalogue.
        losses: (updates,) float64, the mean loss over the events of every update, in order.
        history: one dict for each epoch: epoch, loss (mean over its events), events, seconds,
            events_per_second.
    """

    backend: str = "auto"
    name = "GRU4Rec"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ops = load(self.backend)

    def _set_catalogue(self, item_ids: np.ndarray) -> None:
        self.item_ids = item_ids
        self._index = index_of(item_ids)

    def _require_fit(self) -> None:
        if not hasattr(self, "weights"):
            raise InputError("GRU4Rec: the model has no weights yet, call fit or load first")

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        on_chunk: Callable[[int, int, int, float], None] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        validation: Any = None,
        patience: int = 0,
        resume: str | Path | None = None,
    ) -> GRU4Rec:
        """Train from fresh weights, or go on with a training that was stopped.

        Args:
            train: `Sessions`, or a Polars or pandas frame with the columns SessionId, ItemId,
                Time.
            on_chunk: called every 64 to 512 steps, or `bptt` if that is more, with the epoch, from
                1, its events done so far, its events in all, and their mean loss so far. It may
                call `self.training.save(path)`, and raise `training.Stopped`.
            on_epoch: called after each epoch with what it added to `history`.
            validation: sessions that are not trained on; Recall@20 and MRR@20 on them join
                `history`, and the weights at the end are those of the epoch with the best
                Recall@20.
            patience: with `validation`, stop after this many epochs without a better one; 0: never.
            resume: a file that `training.save` wrote, of the same log and hyperparameters (n_epochs
                may be larger) on the same backend; the weights at the end are to the bit those of a
                training that was never stopped.

        Returns:
            self.

        Raises:
            InputError: nothing to train on, the loss stopped being a number or exploded, or the
                file to go on from does not fit.
        """
        train = as_sessions(train)
        train = train.keep_sessions(train.lengths >= 2).compact()
        if patience < 0 or (patience and validation is None):
            raise InputError(
                f"patience: must be a whole number >= 0, and 0 without validation, not {patience}"
            )
        self.training = Training(self, self.ops, train)
        if resume is not None:
            self.training.load(resume)
        self._set_catalogue(train.item_ids)
        self.weights, self.history = self.training.weights, self.training.history
        self.losses = np.empty(0)
        judge = None
        if validation is not None:
            known = as_sessions(validation).restrict(self.item_ids)

            def judge() -> dict[str, float]:
                return self.evaluate(known)

        try:
            self.training.run(on_chunk, on_epoch, judge, patience)
        finally:
            self.losses = np.concatenate([self.losses, *self.training.losses])
            del self.training
        return self

    # --- evaluation and recommendation ------------------------------------------------------------

    @one_blas_thread
    def ranks(
        self, test: Sessions, ties: str = "conservative", watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank of the true next item among all items, for every case of the test sessions.

        Args:
            test: sessions over any catalogue; see `Sessions.restrict`. ties: see `ranking.ranks`.
            watch: called now and then with the number of cases ranked so far, and of all.

        Returns:
            ranks (cases,) float64, and how many events the session had before each case's item
            (cases,), 1 or more.
        """
        self._require_fit()
        test = test.restrict(self.item_ids)
        h = self._last_vectors(test)
        cases = test.cases
        table, targets = (self.weights["V_y"], self.weights["b_y"]), test.items[cases + 1]
        ranks = rank_in_parts(self.ops.rank_targets, h, *table, targets, ties, watch)
        return ranks, test.positions[cases] + 1

    def _last_vectors(self, sessions: Sessions) -> np.ndarray:
        """(cases, D): the vector that scores the next item, for every case."""
        D = self.weights["V_y"].shape[1]
        at_event = np.empty((sessions.n_events, D), self.weights["V_y"].dtype)
        longest_first = np.argsort(-sessions.lengths, kind="stable")
        for block in np.split(longest_first, range(ROWS, sessions.n_sessions, ROWS)):
            first, questions = sessions.offsets[block], sessions.lengths[block] - 1
            state = network.zero_state(self, len(block))
            for t in range(max(questions, default=0)):
                n = int(np.count_nonzero(questions > t))
                state = network.State([h[:n] for h in state.h], state.history[:n])
                x = sessions.items[first[:n] + t]
                at_event[first[:n] + t], state = self._feed(x, state)
        return at_event[sessions.cases]

    def _feed(self, x: np.ndarray, state: network.State) -> tuple[np.ndarray, network.State]:
        """`network.recurrent` of a few sessions, to the bit the same whatever others are beside.

        So that products always have the same shape, there are `ROWS` lanes; the rest run idle.

        Args:
            x: (n,) item indices, n <= ROWS. state: of the n sessions.

        Returns:
            the vectors that score items (n, D), and the new state.
        """
        n, lanes = len(x), network.State([padded(h) for h in state.h], padded(state.history))
        out, lanes, _ = network.recurrent(self.weights, self, self.ops, padded(x), lanes)
        # Copies, for a session that waits need not hold the idle lanes.
        state = network.State([h[:n].copy() for h in lanes.h], lanes.history[:n].copy())
        return out[:n].copy(), state

    def evaluate(
        self, test: Any, k: int | Sequence[int] = (20,), ties: str = "conservative"
    ) -> dict[str, float]:
        """Recall@K and MRR@K of the next item, over the whole catalogue (Hidasi et al. 2016, §4).

        Args:
            test: `Sessions` or a frame, as for `fit`. Events of items that training did not have
                are dropped, then sessions shorter than 2.
            k: the cut-offs, or one. ties: see `ranking.ranks`.

        Returns:
            {"recall@20": ..., "mrr@20": ...}

        Raises:
            InputError: nothing is left to evaluate, or a cut-off < 1.
        """
        check_cut_offs(k)
        return metrics(self.ranks(as_sessions(test), ties)[0], k)

    def session(self) -> LiveSession:
        """A session to be fed click by click, for serving."""
        return LiveSession(self)

    def recommend(self, session: Sequence[Any], k: int = 20) -> list[tuple[Any, float]]:
        """The k items that are most likely next.

        Args:
            session: item ids, oldest first; those that training did not have are passed over.
            k: how many.

        Returns:
            (item id, score), best first. Of equal scores the one that comes first in `item_ids`.

        Raises:
            InputError: the session is no list of items or has none that is known, or k < 1.
        """
        check_k(k)
        live = self.session()
        known = [live.feed(item) for item in item_list(session)]
        if not any(known):
            raise InputError(f"recommend: none of the {len(known)} items is known to the model")
        return live.recommend(k)

    # --- on disk ----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the trained model to one .npz file, see `checkpoint.save`."""
        self._require_fit()
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        about = {"model": "GRU4Rec", "hyperparameters": self.hyperparameters()}
        checkpoint.save(path, about, {**arrays, **checkpoint.pack_ids(self.item_ids)})

    @classmethod
    def load(cls, path: str | Path, backend: str = "auto") -> GRU4Rec:
        """Read a model that `save` wrote.

        Args:
            path: the .npz file or the directory that holds it as model.npz.
            backend: what it runs on from now on.

        Raises:
            InputError: the file is missing, damaged, not ours, or its parts do not fit together.
        """
        about, arrays = checkpoint.load(path)
        try:
            model = cls(**about["hyperparameters"], backend=backend)
            model._set_catalogue(checkpoint.unpack_ids(arrays))
            shapes = network.shapes(model, len(model.item_ids))
            model.weights = checkpoint.take_weights(arrays, shapes)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: the model file does not fit together: {error}") from error
        return model


class LiveSession:
    """One shopper's session: feed a click, get the ranking.

    live = model.session()
    live.feed("a12")
    live.recommend(k=5)
    """

    def __init__(self, model: GRU4Rec) -> None:
        model._require_fit()
        self.model = model
        self._state = network.zero_state(model, 1)
        self._out: np.ndarray | None = None

    @one_blas_thread
    def feed(self, item: Any) -> bool:
        """Take in a click; items are matched as `sessions.index_of` says.

        An item that training did not have changes nothing: returns False.
        """
        index = self.model._index.get(str(item))
        if index is None:
            return False
        x = np.array([index], np.int32)
        self._out, self._state = self.model._feed(x, self._state)
        return True

    @one_blas_thread
    def scores(self) -> np.ndarray:
        """(I,) score of each item of the catalogue as the next click.

        To the bit those by which `GRU4Rec.ranks` ranks, on the same backend.

        Raises:
            InputError: no known item has been fed yet.
        """
        if self._out is None:
            raise InputError("session: feed it an item that the model knows first")
        weights = self.model.weights
        return self.model.ops.catalogue_scores(self._out, weights["V_y"], weights["b_y"])[0]

    def recommend(self, k: int = 20) -> list[tuple[Any, float]]:
        """The k best next items, as `GRU4Rec.recommend` returns them."""
        check_k(k)
        return top(self.scores(), self.model.item_ids, k)
