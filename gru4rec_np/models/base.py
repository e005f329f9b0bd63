"""`Model`: what all recommenders share.

Evaluation, recommendation and model files are implemented here, once. A model's hyperparameters are
in estimator.py. Models with weights derive from `Network` (neural.py), the others from `Baseline`
(baselines.py).
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gru4rec_np.backends import load as load_backend
from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.sessions import (
    Sessions,
    check_cut_offs,
    check_k,
    index_of,
    item_list,
    places_of,
)
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint
from gru4rec_np.models.estimator import Estimator
from gru4rec_np.ops.ranking import MAX_SCORES, metrics, ranks, top_k, top_k_rows

MANY = 256  # sessions that `recommend_many` computes side by side

# Takes sessions and the numbers (n,) of at most MANY of them, returns scores (n, I).
Scorer = Callable[[Sessions, np.ndarray], np.ndarray]

M = TypeVar("M", bound="Model")


class Model(Estimator, ABC):
    """A recommender for sessions, with hyperparameters.

    Attributes:
        hp: the checked hyperparameters. Each is also an attribute of the model, see `Estimator`.
        item_ids: (I,) the catalogue, after `fit`.
    """

    item_ids: np.ndarray
    _index: dict[str, int]

    # --- evaluation and recommendation ------------------------------------------------------------

    def _is_trained(self) -> bool:
        return hasattr(self, "item_ids")

    def _require_fit(self) -> None:
        if not self._is_trained():
            raise InputError(f"{self.name}: the model is not trained, call fit or load first")

    def _set_catalogue(self, item_ids: np.ndarray) -> None:
        self.item_ids = item_ids
        self._index = index_of(item_ids)

    @abstractmethod
    def fit(self, train: Any) -> Model:
        """Train on sessions."""

    @abstractmethod
    def fit_more(self, new: Any) -> Model:
        """Go on with new sessions. Items that the model does not know are added to its catalogue.

        New items come after the known ones, whose order stays.
        """

    @contextmanager
    def _unchanged_after(self, error: type[BaseException]) -> Iterator[None]:
        """The model stays what it was if the block raises such an error."""
        before = vars(self).copy()
        try:
            yield
        except error:
            vars(self).clear()
            vars(self).update(before)
            raise

    @abstractmethod
    def _ranks(
        self, test: Sessions, ties: str, watch: Watch | None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """(cases,) ranks among all items or `rows`, ascending. test: over the model's catalogue.

        Of a case whose target is none of `rows`, any rank.
        """

    @abstractmethod
    def _scorer(self, rows: np.ndarray) -> Scorer:
        """What scores the items `rows` after the last event of some sessions."""

    @abstractmethod
    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        """(I,) scores of all items after a session of items (n,), n >= 1."""

    def ranks(
        self,
        test: Any,
        ties: str = "conservative",
        watch: Watch | None = None,
        candidates: Iterable[Any] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rank of the true next item among all items, for each case of the test sessions.

        Args:
            test: sessions over any catalogue, see `Sessions.restrict`; or a frame, as for `fit`.
            ties: how equal scores are ranked, see `ranking.ranks`.
            watch: called now and then with the number of cases ranked, and the number of all.
            candidates: ids of the only items to rank. A case whose item is none of them is a miss:
                its rank is infinite.

        Returns:
            ranks (cases,) float64, and the number of events before each case's item (cases,), >= 1.

        Raises:
            InputError: the model is not trained, there is no case, or no candidate is known.
        """
        self._require_fit()
        test = as_sessions(test).restrict(self.item_ids)
        before = test.positions[test.cases] + 1
        if candidates is None:
            return self._ranks(test, ties, watch), before
        rows = np.unique(np.array(self._indices(candidates, "candidates"), np.int64))
        if len(rows) == 0:
            raise InputError("candidates: none of them is known to the model")
        found = self._ranks(test, ties, watch, rows)
        found[~np.isin(test.items[test.cases + 1], rows)] = np.inf
        return found, before

    def evaluate(
        self, test: Any, k: int | Sequence[int] = (20,), ties: str = "conservative"
    ) -> dict[str, float]:
        """Recall@K and MRR@K of the next item, over the whole catalogue (Hidasi et al. 2016, §4).

        Args:
            test: as for `ranks`. Events of items that are not in the catalogue are dropped, then
                sessions shorter than 2.
            k: one cut-off, or several. ties: see `ranking.ranks`.

        Returns:
            {"recall@20": ..., "mrr@20": ...}

        Raises:
            InputError: the model is not trained, there is no case, or a cut-off is < 1.
        """
        check_cut_offs(k)
        return metrics(self.ranks(test, ties)[0], k)

    def score(self, test: Any, y: None = None) -> float:
        """Recall@20 on test sessions: the default score of scikit-learn's searches."""
        return self.evaluate(test)["recall@20"]

    def _known(self, session: Any) -> tuple[np.ndarray, np.ndarray]:
        """The places (n,) in a session of the items in the catalogue, and their indices (n,) int32.

        Raises:
            InputError: the model is not trained, the session is not a list of items, or the
                catalogue has none of them.
        """
        self._require_fit()
        items = item_list(session)
        if not items:
            raise InputError("recommend: the session has no items")
        indices = places_of(items, self._index)
        places = np.flatnonzero(indices >= 0)
        if len(places) == 0:
            raise InputError(
                f"recommend: none of the {len(items)} items is known to the model: "
                f"{_side_by_side(items[0], self.item_ids[0])}"
            )
        return places, indices[places]

    def recommend(
        self,
        session: Sequence[Any],
        k: int = 20,
        exclude: str | Iterable[Any] = (),
        candidates: Iterable[Any] | None = None,
    ) -> list[tuple[Any, float]]:
        """The k items with the highest scores as the next click.

        Args:
            session: item ids, oldest first. Items that are not in the catalogue are ignored.
            exclude: ids of items that are not recommended, or "seen" for those of the session.
            candidates: ids of the only items that may be recommended; None for all.

        Returns:
            (item id, score), best first; fewer than k if fewer items are left. Equal scores keep
            the order of `item_ids`.

        Raises:
            InputError: the model is not trained, the session is not a list of items, the catalogue
                has none of them, k < 1, or exclude or candidates are no ids.
        """
        check_k(k)
        items = self._known(session)[1]
        return self._best(self._scores_after(items), items, k, exclude, candidates)

    def _best(
        self,
        scores: np.ndarray,
        seen: Any,
        k: int,
        exclude: str | Iterable[Any],
        candidates: Iterable[Any] | None,
    ) -> list[tuple[Any, float]]:
        """What `recommend` returns, from scores (I,) and the indices of the session's items."""
        if candidates is None and isinstance(exclude, tuple) and not exclude:
            return top_k(scores, self.item_ids, k)  # the usual case, without a copy of the scores
        allowed, is_seen = self._allowed(exclude, candidates)
        if is_seen:
            allowed[list(seen)] = False
        rows = np.flatnonzero(allowed)
        best = top_k(scores[rows], rows, k) if len(rows) else []
        ids = self.item_ids[np.array([row for row, _ in best], np.int64)].tolist()
        return [(item, score) for item, (_, score) in zip(ids, best, strict=True)]

    def _allowed(
        self, exclude: str | Iterable[Any], candidates: Iterable[Any] | None
    ) -> tuple[np.ndarray, bool]:
        """(I,) bool, the items that may be recommended; and whether those of a session may not.

        Raises:
            InputError: exclude or candidates are no ids.
        """
        allowed = np.full(len(self.item_ids), candidates is None)
        if candidates is not None:
            allowed[self._indices(candidates, "candidates")] = True
        is_seen = isinstance(exclude, str) and exclude == "seen"
        if not is_seen:
            allowed[self._indices(exclude, "exclude")] = False
        return allowed, is_seen

    def _indices(self, items: Any, what: str) -> list[int]:
        """The indices of those items that are in the catalogue.

        Raises:
            InputError: they are no ids.
        """
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise InputError(f"{what}: must be item ids in a list or a set, not {items!r:.60}")
        return [self._index[str(item)] for item in items if str(item) in self._index]

    # --- many sessions ----------------------------------------------------------------------------

    def _known_sessions(self, sessions: Any) -> tuple[Sessions, np.ndarray]:
        """Those with an item of the catalogue, over it; and which of the given ones (S,) they are.

        Raises:
            InputError: the model is not trained, or these are no sessions.
        """
        self._require_fit()
        log = as_sessions(sessions, as_text=True).over(self.item_ids, self._index)
        answerable = log.lengths > 0
        return log.keep_sessions(answerable), answerable

    @one_blas_thread
    def recommend_many(
        self,
        sessions: Any,
        k: int = 20,
        exclude: str | Iterable[Any] = (),
        candidates: Iterable[Any] | None = None,
        watch: Watch | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`recommend` for many sessions at once, many times as fast as one by one.

        The items are those of `recommend`. A network's scores may differ from its scores in the
        last bits, because BLAS adds in an order that depends on the number of rows. Items whose
        scores are that close may then change places. The result does not depend on the number of
        threads.

        Args:
            sessions: `Sessions`, a frame as for `fit`, or lists of items.
            k, exclude, candidates: as in `recommend`.
            watch: called now and then with the number of sessions done, and the number of all.

        Returns:
            places of items in `item_ids` (S, k) int64, best first, and their scores (S, k). Where
            fewer than k items are left, or the catalogue has none of a session's items: -1 and NaN.

        Raises:
            InputError: as `recommend`, but for sessions of unknown items.
        """
        check_k(k)
        known, answerable = self._known_sessions(sessions)
        allowed, is_seen = self._allowed(exclude, candidates)
        rows = np.flatnonzero(allowed)
        S, width = len(answerable), min(k, len(self.item_ids))
        items, best = np.full((S, width), -1), np.full((S, width), np.nan)
        if len(rows) == 0:
            return items, best
        score, where, done = self._scorer(rows), np.flatnonzero(answerable), 0

        @one_blas_thread
        def answer(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            scores = score(known, block)
            if is_seen:
                seen = known[block]
                row = np.repeat(np.arange(len(block)), seen.lengths)
                place = places_in(rows, seen.items)
                there = rows[place] == seen.items
                scores[row[there], place[there]] = -np.inf
            return block, *top_k_rows(scores, k)

        size = max(1, min(MANY, MAX_SCORES // 4 // len(self.item_ids)))
        # BLAS and NumPy run without the GIL. Each block has one thread, so the bits stay the same.
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for block, found, scores in pool.map(answer, by_length(known.lengths, size)):
                n = found.shape[1]
                items[where[block], :n] = np.where(found < 0, -1, rows[found])
                best[where[block], :n] = scores
                done += len(block)
                if watch:
                    watch(done, len(where))
        return items, best

    # --- model files ------------------------------------------------------------------------------

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """What was learnt, by the names that a file has."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The inverse of `_arrays`, once `item_ids` is set.

        Raises:
            KeyError: an array is missing. ValueError: one has another shape or type.
        """

    def save(self, path: str | Path) -> None:
        """Write the trained model to one .npz file, see `checkpoint.save`.

        Raises:
            InputError: the model is not trained, or has weights that are NaN or infinite.
        """
        self._require_fit()
        about = {"model": self.name, "hyperparameters": self.hyperparameters()}
        checkpoint.save(path, about, {**self._arrays(), **checkpoint.pack_ids(self.item_ids)})

    @classmethod
    def load(cls: type[M], path: str | Path, backend: str | None = None) -> M:
        """Read a model that `save` wrote.

        Args:
            path: the .npz file, or the directory that holds it as model.npz.
            backend: what a network runs on, see `backends.load`; None for its default.

        Raises:
            InputError: the file is missing, damaged or of another model, its parts do not fit
                together, or the backend is not available.
        """
        more = {} if backend is None else {"backend": backend}
        if backend is not None:
            load_backend(backend)  # refused here, the error does not blame the file
        about, arrays = checkpoint.load(path)
        try:
            if about["model"] != cls.name:
                raise ValueError(f"it holds {about['model']}, not {cls.name}")
            # Files of the baselines in version 0.1 have "parameters".
            key = "hyperparameters" if "hyperparameters" in about else "parameters"
            model = cls(**cls.Hyperparameters.earlier | about[key], **more)
            model._set_catalogue(checkpoint.unpack_ids(arrays))
            model._restore(arrays)
        except (KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise InputError(f"{path}: the model file does not fit together: {error}") from error
        return model


def rank_blocks(
    scored: Iterable[tuple[slice, np.ndarray]],
    test: Sessions,
    ties: str,
    watch: Watch | None,
    rows: np.ndarray | None,
) -> np.ndarray:
    """`Model._ranks`. scored: blocks of the cases, in order, and their scores (n, I)."""
    targets = test.items[test.cases + 1]
    targets = targets if rows is None else places_in(rows, targets)
    found = []
    for block, scores in scored:
        scores = scores if rows is None else scores[:, rows]
        found.append(ranks(scores, targets[block], ties))
        if watch:
            watch(block.stop, len(targets))
    return np.concatenate(found)


def _side_by_side(item: Any, known: Any) -> str:
    """An unknown item and one that a model knows, with their types where these matter."""
    pair = [v.item() if isinstance(v, np.generic) else v for v in (item, known)]
    kinds = {type(value) for value in pair}
    # A number and its text are one id. Other types are not: pandas turns 280 into 280.0.
    typed = len(kinds) > 1 and not kinds <= {int, str}
    first, other = (f"{v!r:.60}" + f" ({type(v).__name__})" * typed for v in pair)
    return f"the first is {first}, the model's ids are like {other}"


def places_in(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The place in rows, ascending, of each item; any place of those that are not in it."""
    return np.searchsorted(rows, items).clip(max=len(rows) - 1)


def by_length(lengths: np.ndarray, size: int = MANY) -> list[np.ndarray]:
    """The numbers of all sessions, in blocks of similar lengths, the longest first."""
    longest_first = np.argsort(-lengths, kind="stable")
    # Not np.split, which gives one empty block where there is no session.
    return [longest_first[i : i + size] for i in range(0, len(longest_first), size)]


def cut_off_of(metric: str) -> int:
    """K of recall@K or mrr@K.

    Raises:
        InputError: the metric is neither.
    """
    name, _, cut = metric.partition("@")
    if name not in ("recall", "mrr") or not re.fullmatch(r"[1-9]\d{0,8}", cut):
        raise InputError(f"primary_metric: must be recall@K or mrr@K, not {metric[:60]!r}")
    return int(cut)
