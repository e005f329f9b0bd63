"""The interface of the methods that GRU4Rec is measured against, and the plainest of them.

Each scores the whole catalogue after a session's events so far; all else, ranks, recommendations
and files, is written once, in `Baseline`. Here are popularity, a Markov chain and the oracle of the
simulated shop; neighbours.py and factors.py have the others. Imports the data layer and ranking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array, issparse

from gru4rec_np import checkpoint
from gru4rec_np.errors import InputError
from gru4rec_np.hyperparameters import MOST
from gru4rec_np.ranking import BLOCK, metrics, ranks, top
from gru4rec_np.sessions import Sessions, check_cut_offs, check_k, index_of, item_list
from gru4rec_np.shop import Shop
from gru4rec_np.tables import Watch, as_sessions


class Baseline:
    """fit, evaluate, recommend, save, load: the interface of the models, for what only has scores.

    A method is a dataclass of its parameters with
        name: in tables and files.
        parts: what it has learnt, attribute to shape, "I" standing for the size of the catalogue
            and None for any; arrays or sparse arrays, and all that a file need hold.
        _learn(train, watch): sets them; watch is told how much is done, and of how much.
        scores(sessions, cases): the score of every item after each case's events so far, (n, I)
            floats, for sessions over the training catalogue and (n,) cases as in `Sessions.cases`.
            A case's scores do not depend on the other cases.

    Attributes after `fit`: item_ids (I,), the training catalogue.
    """

    name: ClassVar[str]
    parts: ClassVar[dict[str, tuple]]

    def fit(self, train: Any, watch: Watch | None = None) -> Baseline:
        """Learn from training sessions, or a frame as for GRU4Rec.fit; returns self.

        Sessions of a single event count, too, and their items are in the catalogue. Networks leave
        them out: `sessions.clean` first, and all methods rank among the same items.

        Args:
            watch: called now and then with how much is done, and of how much.

        Raises:
            InputError: there is no session.
        """
        train = as_sessions(train).compact()
        if train.n_sessions == 0:
            raise InputError(f"{self.name}: there is no session to learn from")
        self.item_ids = train.item_ids
        self._learn(train, watch or (lambda done, of: None))
        self._derive()
        return self

    def _derive(self) -> None:
        """Make what `scores` needs beside the parts; called after fit and load."""

    def _require_fit(self) -> None:
        if not hasattr(self, "item_ids"):
            raise InputError(f"{self.name}: has learnt nothing yet, call fit or load first")

    def ranks(
        self, test: Sessions, ties: str = "conservative", watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank of the true next item and the events before it, for every case, as GRU4Rec.ranks."""
        self._require_fit()
        test = test.restrict(self.item_ids)
        cases = test.cases
        size = max(1, BLOCK // 2 // len(self.item_ids))
        blocks = []
        for i in range(0, len(cases), size):
            block = cases[i : i + size]
            blocks.append(ranks(self.scores(test, block), test.items[block + 1], ties))
            if watch:
                watch(i + len(block), len(cases))
        return np.concatenate(blocks), test.positions[cases] + 1

    def evaluate(
        self, test: Any, k: int | Sequence[int] = (20,), ties: str = "conservative"
    ) -> dict[str, float]:
        """Recall@K and MRR@K, as GRU4Rec.evaluate."""
        check_cut_offs(k)
        return metrics(self.ranks(as_sessions(test), ties)[0], k)

    def recommend(self, session: Sequence[Any], k: int = 20) -> list[tuple[Any, float]]:
        """The k best next items with their scores, as GRU4Rec.recommend.

        Raises:
            InputError: the session is no list of items or has none that is known, or k < 1.
        """
        self._require_fit()
        check_k(k)
        index = index_of(self.item_ids)
        names = [str(item) for item in item_list(session)]
        items = np.array([index[name] for name in names if name in index], np.int32)
        if len(items) == 0:
            raise InputError(f"recommend: none of the {len(names)} items is known to the model")
        one = Sessions(
            items, np.array([0, len(items)]), np.zeros(len(items)), self.item_ids, np.zeros(1)
        )
        return top(self.scores(one, np.array([len(items) - 1]))[0], self.item_ids, k)

    def save(self, path: str | Path) -> None:
        """Write what was learnt to one .npz file, see `checkpoint.save`."""
        self._require_fit()
        arrays = checkpoint.pack_ids(self.item_ids)
        for name in self.parts:
            part = getattr(self, name)
            if issparse(part):
                for field in SPARSE:
                    arrays[f"learnt/{name}/{field}"] = getattr(part, field)
            else:
                arrays[f"learnt/{name}"] = part
        fields = dataclasses.asdict(self) if dataclasses.is_dataclass(self) else {}
        checkpoint.save(path, {"model": self.name, "parameters": fields}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Read a method that `save` wrote; it gives the same scores to the last bit.

        Args:
            path: the .npz file or the directory that holds it as model.npz.

        Raises:
            InputError: the file is missing, damaged, not of this method, or its parts do not fit
                together.
        """
        about, arrays = checkpoint.load(path)
        try:
            if about["model"] != cls.name:
                raise ValueError(f"it holds {about['model']}, not {cls.name}")
            _check_parameters(cls, about["parameters"])
            method = cls(**about["parameters"])
            method.item_ids = checkpoint.unpack_ids(arrays)
            for name, shape in cls.parts.items():
                wanted = tuple(len(method.item_ids) if n == "I" else n for n in shape)
                setattr(method, name, _unpack(arrays, f"learnt/{name}", wanted))
            method._derive()
        except (KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
            raise InputError(f"{path}: the model file does not fit together: {error}") from error
        return method


def _check_parameters(cls: type, parameters: dict[str, Any]) -> None:
    """Raise ValueError for a number of a file that is none, or beyond all sense."""
    for name, value in parameters.items():
        kind = type(getattr(cls, name, None))  # of the default
        kinds = {bool: bool, int: int, float: int | float}.get(kind)
        if kinds and (not isinstance(value, kinds) or not -MOST <= value <= MOST):
            raise ValueError(f"{name} is {str(value)[:60]}")


SPARSE = ("data", "indices", "indptr")  # the arrays of a sparse array


def _unpack(arrays: dict[str, np.ndarray], name: str, shape: tuple) -> Any:
    """A part of a method as an array, or a sparse one if its three arrays are there.

    Raises:
        KeyError: it is missing. ValueError: it has another shape, or indices that point outside.
    """
    if f"{name}/indptr" in arrays:
        data, indices, indptr = (arrays[f"{name}/{field}"] for field in SPARSE)
        # SciPy's compiled loops trust the indices.
        part = csr_array((data, indices, indptr), shape=(len(indptr) - 1, shape[1]))
        part.check_format(full_check=True)
        if part.nnz != len(data):
            raise ValueError(f"{name} has {len(data)} values, its rows {part.nnz}")
    else:
        part = arrays[name]
    fits = len(part.shape) == len(shape) and all(
        wanted in (None, n) for wanted, n in zip(shape, part.shape, strict=True)
    )
    if not fits or part.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} is {part.dtype} {part.shape}, not floats {shape}")
    return part


def recent(
    sessions: Sessions, cases: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last events of each case's session, up to and with the case's own.

    Args:
        cases: (n,) events. most: how many of each at most, which bounds a long session's cost.

    Returns:
        row (events,): which case, ascending; item (events,); place (events,): 1 for the oldest of
        a case's, and so on.
    """
    session = np.searchsorted(sessions.offsets, cases, side="right") - 1
    lengths = np.minimum(cases - sessions.offsets[session] + 1, most)
    row = np.repeat(np.arange(len(cases)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    return row, sessions.items[cases[row] - lengths[row] + place], place


def by_session(sessions: Sessions, dtype: Any) -> csr_array:
    """(sessions, I): how often each session has each item."""
    # Items and offsets are a CSR array's already. Copied, since duplicates are summed in place, and
    # both of one type, or SciPy makes the wider one of them.
    kind = np.int32 if sessions.n_events < 2**31 else np.int64
    counts = csr_array(
        (
            np.ones(sessions.n_events, dtype),
            sessions.items.astype(kind, copy=True),
            sessions.offsets.astype(kind, copy=True),
        ),
        shape=(sessions.n_sessions, sessions.n_items),
    )
    counts.sum_duplicates()
    return counts


class POP(Baseline):
    """The most popular items, whatever the session: support/(1+support), the best 100 only."""

    name = "POP"
    parts: ClassVar = {"pop": ("I",)}

    def _learn(self, train: Sessions, watch: Watch) -> None:
        self.pop = train.support / (1 + train.support)
        self.pop[np.argsort(-train.support, kind="stable")[100:]] = 0

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.pop, (len(cases), len(self.pop)))


class SPOP(POP):
    """The items most frequent in the session so far, ties by POP (which stays below 1)."""

    name = "S-POP"

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        count = np.zeros((len(cases), len(self.pop)))
        position = sessions.positions[cases]
        # A row counts its session's events up to cases[i]; one whose session stands in the row
        # above counts only those since, and takes over the rest. So each event is counted once.
        follows = (np.diff(cases - position) == 0) & (np.diff(cases) >= 0)
        new = position + 1
        new[1:][follows] = np.diff(cases)[follows]
        row = np.repeat(np.arange(len(cases)), new)
        back = np.arange(len(row)) - np.repeat(np.cumsum(new) - new, new)
        np.add.at(count, (row, sessions.items[cases[row] - back]), 1)
        for i in np.flatnonzero(follows) + 1:
            count[i] += count[i - 1]
        count += self.pop
        return count


class Markov(Baseline):
    """First-order Markov chain: how often each item followed the last one."""

    name = "Markov"
    parts: ClassVar = {"follows": ("I", "I")}

    def _learn(self, train: Sessions, watch: Watch) -> None:
        cases = train.cases
        pairs = train.items[cases], train.items[cases + 1]
        # Duplicate entries of a sparse matrix are summed: a count.
        self.follows = csr_array((np.ones(len(cases)), pairs), shape=2 * (train.n_items,))

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.follows[sessions.items[cases]].toarray()


@dataclasses.dataclass(eq=False)
class Oracle(Baseline):
    """The best possible ranking on a simulated shop: by the true probability of the next item.

    Attributes:
        shop: which one; what a file has of it, its fields, will do.
    """

    shop: Shop
    name = "oracle"
    parts: ClassVar = {}

    def __post_init__(self) -> None:
        if isinstance(self.shop, dict):
            _check_parameters(Shop, self.shop)
            self.shop = Shop(**self.shop)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        pass  # it knows

    def _derive(self) -> None:
        index = index_of(self.shop.item_ids)
        names = [str(item) for item in self.item_ids.tolist()]
        strangers = [name for name in names if name not in index]
        if strangers:
            raise InputError(f"{self.name}: the shop has no item {strangers[0][:60]!r}")
        self._at = np.array([index[name] for name in names], np.int32)

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        in_shop = dataclasses.replace(sessions, items=self._at[sessions.items])
        return self.shop.next_item_probabilities(in_shop, cases)[:, self._at]
