"""GRU4Rec, the model: training, evaluation, and sessions that are fed click by click.

Hidasi et al. 2016 (arXiv 1511.06939). network.py has the mathematics, training.py the training
loop, base.py what all models share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import Sessions, check_k
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import hyperparameters, network
from gru4rec_np.models.base import Network, OnChunk, progress
from gru4rec_np.models.training import Training
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.ranking import EVAL_LANES, padded, rank_in_parts, top


class GRU4Rec(Network):
    """Session-based recommendation with a recurrent network of GRU, LSTM or simple units.

        model = GRU4Rec(layers=[100], loss="bpr-max").fit(train)
        model.evaluate(test, k=(5, 20))            {"recall@5": ..., "mrr@5": ..., ...}
        model.recommend(["a12", "b7"], k=20)       [(item, score), ...]

    The arguments are the fields of `Hyperparameters`, and `backend`, see `backends.load`. `Network`
    has the attributes, network.py the names and shapes of the weights.
    """

    name = "GRU4Rec"
    Hyperparameters = hyperparameters.Hyperparameters
    hp: hyperparameters.Hyperparameters

    def _shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        return network.shapes(self.hp, n_items)

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        on_chunk: OnChunk | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        validation: Any = None,
        patience: int = 0,
        resume: str | Path | None = None,
        verbose: bool | None = None,
    ) -> GRU4Rec:
        """Train from new weights, or resume a run.

        Args:
            train: `Sessions`, or a Polars or pandas frame with the columns SessionId, ItemId,
                Time.
            on_chunk: called every 64 to 512 steps, or `bptt` if that is more, with the epoch, from
                1, its events done, its events in all, and the mean loss over the events done. It
                may call `self.training.save(path)`, and raise `training.Stopped`.
            on_epoch: called after each epoch with its dict of `history`.
            validation: sessions to choose the epoch by. Their Recall@20 and MRR@20 are added to
                `history`. At the end the weights are those of the epoch with the best Recall@20.
            patience: with `validation`, stop after this many epochs without a better Recall@20; 0:
                never.
            resume: a checkpoint that `training.save` wrote, of the same log, hyperparameters and
                backend; n_epochs may be larger. The weights become bit-identical to those of a run
                that was never stopped.
            verbose: show a progress bar: True, False, or None for only on a terminal or in a
                notebook.

        Returns:
            self.

        Raises:
            InputError: nothing to train on, the loss diverged, or the checkpoint does not fit.
        """
        train = as_sessions(train)
        train = train.keep_sessions(train.lengths >= 2).compact()
        if patience < 0 or (patience and validation is None):
            raise InputError(
                f"patience: must be a whole number >= 0, and 0 without validation, not {patience}"
            )
        self.training = Training(self.hp, self.ops, train)
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
            with progress(self.hp.n_epochs, verbose) as show:

                def after_chunk(epoch: int, done: int, total: int, loss: float) -> None:
                    show(epoch, done, total, loss)
                    if on_chunk:
                        on_chunk(epoch, done, total, loss)

                self.training.run(after_chunk, on_epoch, judge, patience)
        finally:
            self.losses = np.concatenate([self.losses, *self.training.losses])
            del self.training
        return self

    # --- evaluation and recommendation ------------------------------------------------------------

    @one_blas_thread
    def _ranks(self, test: Sessions, ties: str, watch: Watch | None) -> np.ndarray:
        h, targets = self._last_vectors(test), test.items[test.cases + 1]
        table = self.weights["V_y"], self.weights["b_y"]
        return rank_in_parts(self.ops.rank_targets, h, *table, targets, ties, watch)

    def _last_vectors(self, sessions: Sessions) -> np.ndarray:
        """(cases, D): the vector that scores the next item, for each case."""
        D = self.weights["V_y"].shape[1]
        at_event = np.empty((sessions.n_events, D), self.weights["V_y"].dtype)
        longest_first = np.argsort(-sessions.lengths, kind="stable")
        for block in np.split(longest_first, range(EVAL_LANES, sessions.n_sessions, EVAL_LANES)):
            first, questions = sessions.offsets[block], sessions.lengths[block] - 1
            state = network.zero_state(self.hp, len(block))
            for t in range(max(questions, default=0)):
                n = int(np.count_nonzero(questions > t))
                state = State([h[:n] for h in state.h], state.history[:n])
                x = sessions.items[first[:n] + t]
                at_event[first[:n] + t], state = self._feed(x, state)
        return at_event[sessions.cases]

    def _feed(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """One step of `network.recurrent`, bit-identical for a session in any batch.

        The batch is padded to `EVAL_LANES` lanes, so that products always have the same shape.

        Args:
            x: (n,) item indices, n <= EVAL_LANES. state: of the n sessions.

        Returns:
            the vectors that score items (n, D), and the new state.
        """
        n, lanes = len(x), State([padded(h) for h in state.h], padded(state.history))
        out, lanes, _ = network.recurrent(self.weights, self.hp, self.ops, padded(x), lanes)
        # Copies, so that a waiting session does not keep the padding in memory.
        state = State([h[:n].copy() for h in lanes.h], lanes.history[:n].copy())
        return out[:n].copy(), state

    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        live = self.session()
        for item in items:
            live.feed_index(int(item))
        return live.scores()

    def session(self) -> LiveSession:
        """A new session, to be fed click by click."""
        return LiveSession(self)


class LiveSession:
    """One user's session: feed a click, get the ranking.

    live = model.session()
    live.feed("a12")
    live.recommend(k=5)
    """

    def __init__(self, model: GRU4Rec) -> None:
        model._require_fit()
        self.model = model
        self._state = network.zero_state(model.hp, 1)
        self._out: np.ndarray | None = None

    def feed(self, item: Any) -> bool:
        """Feed a click on an item, matched as in `sessions.index_of`.

        Returns:
            whether the catalogue has the item. If not, nothing changes.
        """
        index = self.model._index.get(str(item))
        if index is None:
            return False
        self.feed_index(index)
        return True

    @one_blas_thread
    def feed_index(self, index: int) -> None:
        """Feed a click on item `item_ids[index]`."""
        x = np.array([index], np.int32)
        self._out, self._state = self.model._feed(x, self._state)

    @one_blas_thread
    def scores(self) -> np.ndarray:
        """(I,) the score of each item as the next click.

        Bit-identical to the scores in `GRU4Rec.ranks` on the same backend.

        Raises:
            InputError: no item of the catalogue has been fed yet.
        """
        if self._out is None:
            raise InputError("session: feed it an item that the model knows first")
        weights = self.model.weights
        return self.model.ops.catalogue_scores(self._out, weights["V_y"], weights["b_y"])[0]

    def recommend(self, k: int = 20) -> list[tuple[Any, float]]:
        """The k items with the highest scores, as from `GRU4Rec.recommend`."""
        check_k(k)
        return top(self.scores(), self.model.item_ids, k)
