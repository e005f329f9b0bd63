"""The interface of the methods that GRU4Rec is measured against, and the plainest of them.

Each scores the whole catalogue after a session's events so far; all else, ranks, recommendations
and files, is written once, in `Baseline`. Here are popularity, a Markov chain and the oracle of the
simulated shop; neighbours.py and factors.py have the others. Imports the data layer and ranking.
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
from gru4rec_np.models.base import Model
from gru4rec_np.models.hyperparameters import MOST, Checked
from gru4rec_np.ops.ranking import MAX_SCORES, ranks

B = TypeVar("B", bound="Baseline")


class Baseline(Model):
    """A model that only has scores; everything else is written once, here and in `Model`.

    A method defines
        name: in tables and files.
        Hyperparameters: its parameters, if it has some.
        parts: what it has learnt, attribute to shape, "I" standing for the size of the catalogue
            and None for any; arrays or sparse arrays, and all that a file need hold.
        _learn(train, watch): sets them; watch is told how much is done, and of how much.
        scores(sessions, cases): the score of every item after each case's events so far, (n, I)
            floats, for sessions over the training catalogue and (n,) cases as in `Sessions.cases`.
            A case's scores do not depend on the other cases.
    """

    parts: ClassVar[dict[str, tuple]]

    def fit(self: B, train: Any, watch: Watch | None = None) -> B:
        """Learn from training sessions, or a frame as for GRU4Rec.fit; returns self.

        Sessions of a single event count, too, and their items are in the catalogue. Networks leave
        them out: `protocols.clean` first, and all methods rank among the same items.

        Args:
            watch: called now and then with how much is done, and of how much.

        Raises:
            InputError: there is no session.
        """
        train = as_sessions(train).compact()
        if train.n_sessions == 0:
            raise InputError(f"{self.name}: there is no session to learn from")
        self._learn(train, watch or (lambda done, of: None))
        self._set_catalogue(train.item_ids)
        self._derive()
        return self

    @abstractmethod
    def _learn(self, train: Sessions, watch: Watch) -> None:
        """Set `parts`."""

    @abstractmethod
    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        """(n, I), see the class."""

    def _derive(self) -> None:
        """Make what `scores` needs beside the parts; called after fit and load."""

    def _ranks(self, test: Sessions, ties: str, watch: Watch | None) -> np.ndarray:
        cases = test.cases
        size = max(1, MAX_SCORES // 2 // len(self.item_ids))
        blocks = []
        for i in range(0, len(cases), size):
            block = cases[i : i + size]
            blocks.append(ranks(self.scores(test, block), test.items[block + 1], ties))
            if watch:
                watch(i + len(block), len(cases))
        return np.concatenate(blocks)

    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        offsets, times = np.array([0, len(items)]), np.zeros(len(items))
        one = Sessions(items, offsets, times, self.item_ids, np.zeros(1))
        return self.scores(one, np.array([len(items) - 1]))[0]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name in self.parts:
            part = getattr(self, name)
            if issparse(part):
                for field in SPARSE:
                    arrays[f"learnt/{name}/{field}"] = getattr(part, field)
            else:
                arrays[f"learnt/{name}"] = part
        return arrays

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        for name, shape in self.parts.items():
            wanted = tuple(len(self.item_ids) if n == "I" else n for n in shape)
            setattr(self, name, _unpack(arrays, f"learnt/{name}", wanted))
        self._derive()


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


def _shop(value: Any) -> Shop:
    """A `Shop`, or one from its fields as a file has them."""
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
    """The best possible ranking on a simulated shop: by the true probability of the next item."""

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """Attributes: shop: which one; or its fields by name, as a file has them."""

        fixed: ClassVar = ("shop",)
        shop: Shop = dataclasses.field(metadata={"check": _shop})

    hp: Hyperparameters
    name = "oracle"
    parts: ClassVar = {}

    def __init__(self, shop: Shop | dict[str, Any]) -> None:
        super().__init__(shop=shop)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        pass  # it knows

    def _derive(self) -> None:
        index = index_of(self.hp.shop.item_ids)
        names = [str(item) for item in self.item_ids.tolist()]
        strangers = [name for name in names if name not in index]
        if strangers:
            raise InputError(f"{self.name}: the shop has no item {strangers[0][:60]!r}")
        self._at = np.array([index[name] for name in names], np.int32)

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        in_shop = dataclasses.replace(sessions, items=self._at[sessions.items])
        return self.hp.shop.next_item_probabilities(in_shop, cases)[:, self._at]
