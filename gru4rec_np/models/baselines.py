"""The interface of the methods that GRU4Rec is compared with, and the simplest of them.

A method scores all items after the events of a session so far. `Baseline` does the rest: ranks,
recommendations, files. Here are popularity, a Markov chain and the oracle of the simulated shop.
The others are in neighbours.py and factors.py.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
from scipy.sparse import csr_array, issparse

from gru4rec_np.data.sessions import Sessions, index_of
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models.base import Model, Scorer, rank_blocks
from gru4rec_np.models.checked import MOST, Checked
from gru4rec_np.ops.ranking import MAX_SCORES

B = TypeVar("B", bound="Baseline")


class Baseline(Model):
    """A model that is defined by its scores.

    A method defines
        name: in tables and files.
        Hyperparameters: if it has some.
        parts: what it learns and saves: attribute name to shape, with "I" for the number of items
            and None for any number. Each is an array or a sparse array.
        kept: parts that only `fit_more` needs. They are None in a model from an older file.
        _learn(train, watch): sets the parts, and calls watch with the work done and the total. A
            part that it adds to is a class attribute too, empty. It has zeros for new items.
        scores(sessions, cases): (n, I) floats, the score of each item after the events of each case
            so far; sessions over the training catalogue, (n,) cases as in `Sessions.cases`. A
            case's scores do not depend on the other cases.
    """

    parts: ClassVar[dict[str, tuple]]
    kept: ClassVar[dict[str, tuple]] = {}

    def fit(self: B, train: Any, watch: Watch | None = None) -> B:
        """Learn from training sessions.

        Sessions of a single event are used, and their items are in the catalogue. Networks drop
        them. Call `sessions.clean` first, so that all methods rank the same items.

        Args:
            train: `Sessions`, or a frame as for GRU4Rec.fit.
            watch: called now and then with the work done and the total.

        Returns:
            self.

        Raises:
            InputError: there is no session.
        """
        train = as_sessions(train).compact()
        with self._unchanged_after(InputError):
            for name in self.parts | self.kept:
                vars(self).pop(name, None)
            return self._take_in(train, watch)

    def fit_more(self: B, new: Any, watch: Watch | None = None) -> B:
        """Learn from new sessions too. Items that are not known join `item_ids`, at its end.

        The result equals that of `fit` on the old sessions followed by the new ones, for the same
        order of items. BPR-MF alone goes on by SGD on the new sessions, from its vectors.

        Args:
            new, watch: as `train` and `watch` of `fit`.

        Returns:
            self.

        Raises:
            InputError: there is no session, the model is not trained or is from an older file, or
                ids of new items are of another type. The model stays what it was.
        """
        self._require_fit()
        for name in self.kept:
            if getattr(self, name) is None:
                raise InputError(
                    f"{self.name}: the model is from an older file, which lacks {name}: fit it "
                    "anew on both logs"
                )
        new = as_sessions(new).compact().extend(self.item_ids)
        with self._unchanged_after(InputError):
            return self._take_in(new, watch)

    def _take_in(self: B, train: Sessions, watch: Watch | None) -> B:
        if train.n_sessions == 0:
            raise InputError(f"{self.name}: there is no session to learn from")
        for name, shape in (self.parts | self.kept).items():
            if hasattr(self, name):
                setattr(self, name, _grown(getattr(self, name), shape, train.n_items))
        self._learn(train, watch or (lambda done, of: None))
        self._set_catalogue(train.item_ids)
        self._derive()
        return self

    @abstractmethod
    def _learn(self, train: Sessions, watch: Watch) -> None:
        """Set `parts` and `kept`, see the class."""

    @abstractmethod
    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        """(n, I), see the class."""

    def _derive(self) -> None:
        """Compute from the parts what else `scores` needs; called after fit and load."""

    def _ranks(
        self, test: Sessions, ties: str, watch: Watch | None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        cases = test.cases
        size = max(1, MAX_SCORES // 2 // len(self.item_ids))  # of float64
        blocks = (slice(i, min(i + size, len(cases))) for i in range(0, len(cases), size))
        scored = ((block, self.scores(test, cases[block])) for block in blocks)
        return rank_blocks(scored, test, ties, watch, rows)

    def _scorer(self, rows: np.ndarray) -> Scorer:
        return lambda sessions, which: self.scores(sessions, sessions.offsets[which + 1] - 1)[
            :, rows
        ]

    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        return self.scores(alone(items, self.item_ids), np.array([len(items) - 1]))[0]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.parts | self.kept:
            part = getattr(self, name)
            if part is None:
                continue
            if issparse(part):
                for field in SPARSE:
                    arrays[f"learnt/{name}/{field}"] = getattr(part, field)
            else:
                arrays[f"learnt/{name}"] = part
        return arrays

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, shape in (self.parts | self.kept).items():
            wanted = tuple(len(self.item_ids) if n == "I" else n for n in shape)
            older = name in self.kept and not any(a.startswith(f"learnt/{name}") for a in arrays)
            setattr(self, name, None if older else _unpack(arrays, f"learnt/{name}", wanted))
        self._derive()


SPARSE = ("data", "indices", "indptr")  # the arrays of a sparse array


def _grown(part: Any, shape: tuple, n_items: int) -> Any:
    """A part of a method, with zeros for new items in each dimension that is one of items."""
    wanted = tuple(n_items if n == "I" else m for n, m in zip(shape, part.shape, strict=True))
    if issparse(part):
        indptr = np.pad(part.indptr, (0, wanted[0] - part.shape[0]), "edge")
        return csr_array((part.data, part.indices, indptr), shape=wanted)
    more = [(0, new - old) for new, old in zip(wanted, part.shape, strict=True)]
    return np.pad(part, more)


def _unpack(arrays: dict[str, np.ndarray], name: str, shape: tuple) -> Any:
    """A part of a method: an array, or a sparse array if the file has its three arrays.

    Raises:
        KeyError: it is missing. ValueError: another shape or type, or indices out of range.
    """
    if f"{name}/indptr" in arrays:
        data, indices, indptr = (arrays[f"{name}/{field}"] for field in SPARSE)
        # SciPy's compiled loops do not check indices.
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


def alone(items: np.ndarray, item_ids: np.ndarray) -> Sessions:
    """A log of one session of items (n,), without times."""
    offsets, times = np.array([0, len(items)]), np.zeros(len(items))
    return Sessions(items, offsets, times, item_ids, np.zeros(1))


def by_session(sessions: Sessions, dtype: Any) -> csr_array:
    """(sessions, I): how often each session has each item."""
    # Items and offsets already are the arrays of a CSR array. Copy them, because duplicates are
    # summed in place. Give both one type: SciPy would otherwise widen both.
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
    """The most popular items: support/(1+support), for the 100 best, else 0."""

    name = "POP"
    parts: ClassVar = {"pop": ("I",)}
    kept: ClassVar = {"support": ("I",)}
    support: np.ndarray = np.zeros(0)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        self.support = self.support + train.support
        self.pop = self.support / (1 + self.support)
        self.pop[np.argsort(-self.support, kind="stable")[100:]] = 0

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.pop, (len(cases), len(self.pop)))


class SPOP(POP):
    """The most frequent items of the session so far, ties by POP, whose scores are below 1."""

    name = "S-POP"

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        count = np.zeros((len(cases), len(self.pop)))
        position = sessions.positions[cases]
        # Row i counts the events of its session up to cases[i]. If row i-1 is an earlier case of
        # the same session, row i counts the new events and adds row i-1: linear, not quadratic.
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
    follows: csr_array = csr_array((0, 0))

    def _learn(self, train: Sessions, watch: Watch) -> None:
        cases = train.cases
        pairs = train.items[cases], train.items[cases + 1]
        # SciPy sums duplicate entries, so these are counts.
        new = csr_array((np.ones(len(cases)), pairs), shape=2 * (train.n_items,))
        self.follows = self.follows + new

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.follows[sessions.items[cases]].toarray()


def _shop(value: Any) -> Shop:
    """A `Shop`, also from a dict of its fields, as in a file."""
    if isinstance(value, Shop):
        return value
    fields = {f.name: f.type for f in dataclasses.fields(Shop)}
    if not isinstance(value, dict) or not set(value) <= set(fields):
        raise ValueError("a shop, or its fields by name")
    for name, number in value.items():
        whole = fields[name] in (int, "int")
        if type(number) not in ((int,) if whole else (int, float)) or not abs(number) <= MOST:
            raise ValueError(f"a shop whose {name} is a number")
    return Shop(**value)


class Oracle(Baseline):
    """The best possible ranking for a simulated shop: by the true probability of the next item."""

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """Attributes: shop: the simulated shop, or a dict of its fields, as in a file."""

        fixed: ClassVar = ("shop",)
        shop: Shop = dataclasses.field(metadata={"check": _shop})

    hp: Hyperparameters
    name = "oracle"
    parts: ClassVar = {}

    def __init__(self, shop: Shop | dict[str, Any]) -> None:
        super().__init__(shop=shop)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        pass  # the shop has the probabilities

    def _derive(self) -> None:
        index = index_of(self.hp.shop.item_ids)
        names = [str(item) for item in self.item_ids.tolist()]
        strangers = [name for name in names if name not in index]
        if strangers:
            raise InputError(f"{self.name}: the shop has no item {strangers[0][:60]!r}")
        self._shop_item = np.array([index[name] for name in names], np.int32)

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        in_shop = dataclasses.replace(sessions, items=self._shop_item[sessions.items])
        return self.hp.shop.next_item_probabilities(in_shop, cases)[:, self._shop_item]
