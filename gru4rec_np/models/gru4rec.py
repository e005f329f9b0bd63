"""GRU4Rec, the model: fit, ranks, and a session fed click by click.

Hidasi et al. 2016 (arXiv 1511.06939).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import CLICKS, Sessions, check_k, own_items
from gru4rec_np.data.tables import as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import hyperparameters, network
from gru4rec_np.models.base import MANY, by_length, cut_off_of, places_in
from gru4rec_np.models.neural import Network, OnChunk, progress
from gru4rec_np.models.training import Stopped, Training, read_memory
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.losses import logsumexp
from gru4rec_np.ops.ranking import PADDED_ROWS, Lifted, lift, padded
from gru4rec_np.ops.scoring import of_length

LONG = 1000  # clicks; a longer session is fed by itself, not among MANY lanes
# Repeats are counted in the last REPEAT_CASES cases of a training. With fewer than FEW_ITEMS pairs
# of a case and an item of its session, `fit_more` keeps the scores of the model. log Σ e^r over the
# catalogue is averaged over SUMMED_CASES cases, the last ones of the first SUMMED_CLICKS clicks of
# as many sessions. Its standard deviation was 0.4 (rsc15-100k, defaults).
REPEAT_CASES, FEW_ITEMS = 100_000, 1000
SUMMED_CASES, SUMMED_CLICKS = 128, 10
NEVER = -1e30  # a floor that lifts no score


class GRU4Rec(Network):
    """Session-based recommendation with a recurrent network: GRUs, LSTMs or simple units.

        model = GRU4Rec(layers=[100], loss="bpr-max").fit(train)
        model.evaluate(test, k=(5, 20))            {"recall@5": ..., "mrr@5": ..., ...}
        model.recommend(["a12", "b7"], k=20)       [(item, score), ...]

    Arguments are the fields of `Hyperparameters`, and the backend, see `backends.load`. For the
    attributes after `fit` see `Network`; network.py has the names and shapes of the weights.

    With `repeat`, the score r of an item of the session becomes log(e^r + repeat e^s), see
    `ranking.lift`, where s is one of `repeat_scores`: a click that comes back often may still be
    improbable to the network. `repeat` may be changed after `fit`.

    Attributes:
        repeat_scores: (2,) float64, after `fit` with cross-entropy: the mean of log Σ e^r over the
            catalogue, plus the logarithm of the share of the session's items that followed, of the
            last click's item first, then of earlier ones. With such a score an item is as probable
            as such items were in training. `NEVER` where none followed; None where nothing repeats.
        lifts: False in a `Hybrid`, whose repeats have shares of their own.
    """

    name = "GRU4Rec"
    Hyperparameters = hyperparameters.Hyperparameters
    hp: hyperparameters.Hyperparameters
    repeat_scores: np.ndarray | None = None
    lifts: bool = True
    _scaled: tuple[np.ndarray, np.ndarray] | None = None  # with cosine: V_y, and of_length(V_y)

    @classmethod
    def published(cls, **values: Any) -> GRU4Rec:
        """The model of the papers and the reference implementation, where the defaults differ.

        Scores are products and not cosines, no embedding is added to the vector that scores items
        (`skip`, `fade`), the session's own items have no lowest score (`repeat`), the embedding's
        dropout is 0.1, and a step has 2,048 negative samples.
        """
        return cls(**hyperparameters.PUBLISHED | values)

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
        primary: str = "recall@20",
    ) -> GRU4Rec:
        """Train from fresh weights, or go on with a training that was stopped.

        Args:
            train: `Sessions`, or a Polars or pandas frame with the columns SessionId, ItemId,
                Time.
            on_chunk: called at chunk boundaries, every 64 to 512 steps (or `bptt` if that is more),
                with the epoch, from 1, its events done so far, its events in all, and their mean
                loss so far. It may call `self.training.save(path)`, and raise `training.Stopped`.
            on_epoch: called after each epoch with what it added to `history`.
            validation: sessions to validate on after each epoch. Recall@20 and MRR@20 on them join
                `history`, and the final weights are those of the epoch that is best by `primary`.
            patience: with `validation`, stop after this many epochs without a better one; 0: never.
            verbose: show a progress bar: True, False, or None for only on a terminal or in a
                notebook.
            primary: the metric that decides which epoch is best, recall@K or mrr@K.
            resume: a checkpoint that `training.save` wrote, of the same log, hyperparameters
                (n_epochs may be larger) and backend. The final weights are bit-identical to those
                of a training that never stopped.

        Returns:
            self.

        Raises:
            InputError: nothing to train on, the loss stopped being a number or exploded, or the
                file to go on from does not fit.
        """
        train = as_sessions(train)
        train = train.keep_sessions(train.lengths >= 2).compact()
        training = Training(self.hp, self.ops, train)
        with self._unchanged_after(InputError):
            self.repeat_scores = None
            return self._train(
                training, on_chunk, on_epoch, validation, patience, resume, verbose, primary
            )

    def fit_more(self, new: Any, keep_counts: bool = False, **options: Any) -> GRU4Rec:
        """Go on with new sessions: weights and optimiser memory continue, items are added.

        A new item starts from the mean of the items that it shares sessions with, see
        `going_on.start_from`. `n_epochs` counts passes over the new sessions. `history` and
        `losses` are those of this training alone. `repeat_scores` are learnt anew, unless the new
        sessions have few cases.

        A model from a file has no optimiser memory, unless `read_memory` has read it. With fresh
        memory Adagrad's first steps are so large that the model may become worse.

        Args:
            new: as `train` of `fit`. Items that the model does not know join `item_ids`, at its
                end.
            keep_counts: the sampler and logQ count the events of the trainings before, too; else
                those of the new sessions alone.
            options: on_chunk, on_epoch, validation, patience, resume, verbose, primary, as in
                `fit`. To resume, the model must be the one that the stopped training started from.

        Returns:
            self.

        Raises:
            InputError: as in `fit`; the model stays what it was. Or the model is not trained, has
                no counts to keep, or ids of new items are of another type.
        """
        new, support = self._more(new, keep_counts)
        training = Training(self.hp, self.ops, new, support)
        training.start_from(self.weights, self.memory)
        with self._unchanged_after(InputError):
            return self._train(training, **options)

    def read_memory(self, path: str | Path) -> None:
        """Take the optimiser's memory from the checkpoint of the training that gave the model.

        Raises:
            InputError: the model is not trained, or the file is no checkpoint of such a training.
        """
        self._require_fit()
        self.memory = read_memory(path, self.weights, self.hp)

    def set_params(self, **values: Any) -> GRU4Rec:
        """As `Network.set_params`. Another optimiser forgets the memory of the one before."""
        before = self.hp.adapt
        loss = values.get("loss", self.hp.loss)
        if self._is_trained() and self.hp.cosine_in_use and loss != self.hp.loss:
            raise InputError(
                f"loss: cannot become {loss!r}, the model is trained to score by cosines, which "
                f"goes with {self.hp.loss!r}; make a new model instead"
            )
        super().set_params(**values)
        if self.hp.adapt != before:
            self.memory = None
        return self

    def _train(
        self,
        training: Training,
        on_chunk: OnChunk | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        validation: Any = None,
        patience: int = 0,
        resume: str | Path | None = None,
        verbose: bool | None = None,
        primary: str = "recall@20",
    ) -> GRU4Rec:
        """Run a training and take its results; see `fit`."""
        if patience < 0 or (patience and validation is None):
            raise InputError(
                f"patience: must be a whole number >= 0, and 0 without validation, not {patience}"
            )
        if resume is not None:
            training.load(resume)
        self.training = training
        self._set_catalogue(training.train.item_ids)
        self.weights, self.memory = training.weights, training.memory
        self.support, self.history = training.support, training.history
        self.losses = np.empty(0)
        judge, before = None, self.repeat_scores
        if validation is not None:
            known = as_sessions(validation).restrict(self.item_ids)
            cut_offs = sorted({20, cut_off_of(primary)})

            def judge() -> dict[str, float]:
                self._learn_repeats(training.train, before)
                found = self.evaluate(known, cut_offs)
                return {primary: found[primary], **found}

        kept = False  # whether the weights are of use
        try:
            with progress(self.hp.n_epochs, verbose) as show:

                def after_chunk(epoch: int, done: int, total: int, loss: float) -> None:
                    show(epoch, done, total, loss)
                    if on_chunk:
                        on_chunk(epoch, done, total, loss)

                self.training.run(after_chunk, on_epoch, judge, patience)
            kept = True
        except (Stopped, KeyboardInterrupt):
            kept = True
            raise
        finally:
            self.losses = np.concatenate([self.losses, *self.training.losses])
            del self.training
            if kept:
                self._learn_repeats(training.train, before)
        return self

    # --- evaluation and recommendation ------------------------------------------------------------

    @one_blas_thread
    def _learn_repeats(self, train: Sessions, before: np.ndarray | None) -> None:
        """Set `repeat_scores`, from the last sessions of a training; `before` if they are few."""
        self.repeat_scores = None
        if not self.lifts or self.hp.loss != "cross-entropy":
            return
        cases = train.cases[-REPEAT_CASES:]
        row, items = own_items(train, cases)
        if len(items) < FEW_ITEMS and before is not None:
            self.repeat_scores = before
            return
        follows = items == train.items[cases + 1][row]
        is_last = items == train.items[cases][row]
        rates = [follows[kind].mean() if kind.any() else 0.0 for kind in (is_last, ~is_last)]
        few = train[-SUMMED_CASES:]
        few = few.keep_events(few.positions < SUMMED_CLICKS)
        h, (V, b) = self._last_vectors(few)[-SUMMED_CASES:], self.ops.resident(*self._output())
        log_totals = []
        for i in range(0, len(h), PADDED_ROWS):
            scores = self.ops.catalogue_scores(h[i : i + PADDED_ROWS], V, b).astype(np.float64)
            log_totals.append(logsumexp(scores)[:, 0])
        log_total = np.concatenate(log_totals).mean()
        if any(rates) and np.isfinite(log_total):
            self.repeat_scores = np.array(
                [log_total + math.log(rate) if rate else NEVER for rate in rates]
            )

    @property
    def _floors(self) -> np.ndarray | None:
        """(2,) floors of `ranking.lift` for the items of a session, the last click's and others.

        None where no score is lifted.
        """
        if self.repeat_scores is None or not self.hp.repeat_in_use or not self.lifts:
            return None
        return self.repeat_scores + math.log(self.hp.repeat_in_use)

    def _lifted(
        self, sessions: Sessions, events: np.ndarray, rows: np.ndarray | None
    ) -> Lifted | None:
        floors = self._floors
        if floors is None:
            return None
        row, items = own_items(sessions, events)
        kind = np.where(items == sessions.items[events][row], 0, 1)
        if rows is not None:
            place = places_in(rows, items)
            there = rows[place] == items
            row, items, kind = row[there], place[there], kind[there]
        return Lifted(row, items, floors[kind])

    def _arrays(self) -> dict[str, np.ndarray]:
        more = {} if self.repeat_scores is None else {"repeat_scores": self.repeat_scores}
        return super()._arrays() | more

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        found = arrays.get("repeat_scores")
        if found is not None and (found.dtype != np.float64 or found.shape != (2,)):
            raise ValueError(
                f"repeat_scores is {found.dtype} {found.shape}, not two float64 numbers"
            )
        self.repeat_scores = found

    def _zero_state(self, n: int) -> State:
        """The state of n sessions before their first click."""
        return network.zero_state(self.hp, n, self.weights["V_y"].dtype)

    def _last_vectors(self, sessions: Sessions) -> np.ndarray:
        D = self.weights["V_y"].shape[1]
        at_event = np.empty((sessions.n_events, D), self.weights["V_y"].dtype)
        for block in by_length(sessions.lengths, self.ops.fed_lanes):
            first, n_of_each = sessions.offsets[block], sessions.lengths[block] - 1
            state = self._zero_state(len(block))
            for t in range(max(n_of_each, default=0)):
                n = int(np.count_nonzero(n_of_each > t))
                state = State([h[:n] for h in state.h], state.history[:n])
                x = sessions.items[first[:n] + t]
                at_event[first[:n] + t], state = self._feed(x, state, self.ops.fed_lanes)
        return at_event[sessions.cases]

    def _feed(
        self, x: np.ndarray, state: State, rows: int = PADDED_ROWS
    ) -> tuple[np.ndarray, State]:
        """`network.recurrent` of a few sessions, bit-identical whatever other sessions are beside.

        Products always have the same shape: there are `rows` lanes, unused ones run idle.

        Args:
            x: (n,) item indices, n <= rows. state: of the n sessions.

        Returns:
            the vectors that score items (n, D), and the new state.
        """
        n = len(x)
        wide = State([padded(h, rows) for h in state.h], padded(state.history, rows))
        padded_x = padded(x, rows)
        out, wide, _ = network.recurrent(self.weights, self.hp, self.ops, padded_x, wide)
        # Copies, so that a waiting session does not keep the idle lanes in memory.
        state = State([h[:n].copy() for h in wide.h], wide.history[:n].copy())
        return out[:n].copy(), state

    def _vectors(self, sessions: Sessions, which: np.ndarray) -> np.ndarray:
        V_y = self.weights["V_y"]
        vectors = np.empty((len(which), V_y.shape[1]), V_y.dtype)
        alone = int(np.count_nonzero(sessions.lengths[which] > LONG))  # too long for idle lanes
        for i, s in enumerate(which[:alone]):
            live = self.session()
            for item in sessions.items[sessions.offsets[s] : sessions.offsets[s + 1]]:
                live.feed_index(int(item))
            vectors[i] = live.vector
        # Always MANY lanes, so that the bits do not depend on the sessions beside.
        first, lengths = sessions.offsets[which[alone:]], sessions.lengths[which[alone:]]
        state = self._zero_state(MANY)
        for t in range(max(lengths, default=0)):
            going, go_on = (int(np.count_nonzero(lengths > e)) for e in (t, t + 1))
            x = np.zeros(MANY, np.int32)
            x[:going] = sessions.items[first[:going] + t]
            out, state, _ = network.recurrent(self.weights, self.hp, self.ops, x, state)
            vectors[alone + go_on : alone + going] = out[go_on:going]
        return vectors

    def _output(self) -> tuple[np.ndarray, np.ndarray]:
        V_y, b_y = self.weights["V_y"], self.weights["b_y"]
        if not self.hp.cosine_in_use:
            return V_y, b_y
        if hasattr(self, "training"):  # the weights change between two calls
            return of_length(V_y)[0], b_y
        if self._scaled is None or self._scaled[0] is not V_y:
            self._scaled = V_y, of_length(V_y)[0]
        return self._scaled[1], b_y

    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        live = self.session()
        for item in items:
            live.feed_index(int(item))
        return live.scores()

    def session(self) -> LiveSession:
        """A session to be fed click by click, for serving."""
        return LiveSession(self)


class LiveSession:
    """One shopper's session: feed a click, get the ranking.

    live = model.session()
    live.feed("a12")
    live.recommend(k=5)
    """

    def __init__(self, model: Any) -> None:
        model._require_fit()
        self.served = model
        self._state = self.model._zero_state(1)
        self._out: np.ndarray | None = None
        self._seen: set[int] = set()
        self._last: deque[int] = deque(maxlen=CLICKS)

    @property
    def model(self) -> GRU4Rec:
        """The network that is fed."""
        return self.served

    def feed(self, item: Any) -> bool:
        """Take in a click; items are matched as `sessions.index_of` says.

        An item that training did not have changes nothing: returns False.
        """
        index = self.model._index.get(str(item))
        if index is None:
            return False
        self.feed_index(index)
        return True

    @one_blas_thread
    def feed_index(self, index: int) -> None:
        """Take in a click on item `item_ids[index]`."""
        x = np.array([index], np.int32)
        self._seen.add(index)
        self._last.append(index)
        self._out, self._state = self.model._feed(x, self._state)

    @property
    def vector(self) -> np.ndarray:
        """(D,) the vector that scores the next item, after the last click.

        Raises:
            InputError: no known item has been fed yet.
        """
        if self._out is None:
            raise InputError("session: feed it an item that the model knows first")
        return self._out[0].copy()

    @one_blas_thread
    def scores(self) -> np.ndarray:
        """(I,) score of each item of the catalogue as the next click.

        Bit-identical to the scores that `GRU4Rec.ranks` compares on the same backend; on a GPU up
        to rounding.

        Raises:
            InputError: no known item has been fed yet.
        """
        scores = self.model.ops.catalogue_scores(self.vector[None], *self.model._output())[0]
        floors = self.model._floors
        if floors is not None:
            own = np.array(list(set(self._last)))
            scores[own] = lift(scores[own], floors[np.where(own == self._last[-1], 0, 1)])
        return scores

    def recommend(
        self,
        k: int = 20,
        exclude: str | Iterable[Any] = (),
        candidates: Iterable[Any] | None = None,
    ) -> list[tuple[Any, float]]:
        """The k best next items, as `GRU4Rec.recommend` returns them."""
        check_k(k)
        return self.model._best(self.scores(), self._seen, k, exclude, candidates)
