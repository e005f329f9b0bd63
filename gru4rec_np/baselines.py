"""The methods that GRU4Rec is measured against, and the oracle of the simulated shop.

Each scores the whole catalogue after a session's events so far; all else, ranks and
recommendations, is written once, in `Baseline`. Imports the data layer and ranking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from gru4rec_np.errors import InputError
from gru4rec_np.ranking import BLOCK, metrics, ranks, top
from gru4rec_np.sessions import Sessions, as_sessions, check_k, index_of, item_list
from gru4rec_np.shop import Shop


class Baseline:
    """fit, evaluate, recommend: the interface of the models, for methods that only need scores.

    A method has a `name` and the function scores(sessions, cases): the score of every item after
    each case's events so far, (n, I) float64, for sessions over the training catalogue and (n,)
    cases as in `Sessions.cases`.

    Attributes after `fit`: item_ids (I,), the training catalogue.
    """

    def fit(self, train: Any) -> Baseline:
        """Learn from training sessions, or a frame as for GRU4Rec.fit; returns self."""
        train = as_sessions(train).compact()
        self.item_ids = train.item_ids
        self._learn(train)
        return self

    def ranks(self, test: Sessions, ties: str = "conservative") -> tuple[np.ndarray, np.ndarray]:
        """Rank of the true next item and the events before it, for every case, as GRU4Rec.ranks."""
        test = test.restrict(self.item_ids)
        cases = test.cases
        size = max(1, BLOCK // 2 // len(self.item_ids))
        blocks = [
            ranks(self.scores(test, block), test.items[block + 1], ties)
            for block in np.split(cases, range(size, len(cases), size))
        ]
        return np.concatenate(blocks), test.positions[cases] + 1

    def evaluate(
        self, test: Any, k: int | Sequence[int] = (20,), ties: str = "conservative"
    ) -> dict[str, float]:
        """Recall@K and MRR@K, as GRU4Rec.evaluate."""
        return metrics(self.ranks(as_sessions(test), ties)[0], k)

    def recommend(self, session: Sequence[Any], k: int = 20) -> list[tuple[Any, float]]:
        """The k best next items with their scores, as GRU4Rec.recommend.

        Raises:
            InputError: the session is no list of items or has none that is known, or k < 1.
        """
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


class POP(Baseline):
    """The most popular items, whatever the session: support/(1+support), the best 100 only."""

    name = "POP"

    def _learn(self, train: Sessions) -> None:
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

    def _learn(self, train: Sessions) -> None:
        cases = train.cases
        pairs = train.items[cases], train.items[cases + 1]
        # Duplicate entries of a sparse matrix are summed: a count.
        self.follows = csr_array((np.ones(len(cases)), pairs), shape=2 * (train.n_items,))

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.follows[sessions.items[cases]].toarray()


@dataclasses.dataclass(eq=False)
class ItemKNN(Baseline):
    """The items most often in the same sessions as the last one.

    sim(i, j) = c_ij / ((s_i + lmbd)^alpha (s_j + lmbd)^(1 - alpha)), c_ij the sum over sessions of
    count_i count_j, s the support; the `neighbours` nearest of each item (Hidasi et al. 2016, §4.1;
    Davidson et al. 2010).

    Attributes:
        neighbours: how many an item keeps.
        lmbd: damps the similarity of items that are rarely seen.
        alpha: 0.5 is the cosine; a lower one favours rare neighbours less.
    """

    neighbours: int = 100
    lmbd: float = 20.0
    alpha: float = 0.5
    name = "Item-KNN"

    def _learn(self, train: Sessions) -> None:
        session = np.repeat(np.arange(train.n_sessions), train.lengths)
        counts = csr_array(
            (np.ones(train.n_events), (session, train.items)), (train.n_sessions, train.n_items)
        )
        by_item = counts.T.tocsr()
        size = train.support + self.lmbd
        keep = min(self.neighbours, train.n_items)
        rows, columns, values = [], [], []
        block = max(1, BLOCK // 8 // train.n_items)
        for first in range(0, train.n_items, block):
            c = (by_item[first : first + block] @ counts).toarray()
            i = np.arange(first, first + len(c))
            c[np.arange(len(c)), i] = 0  # an item is no neighbour of its own
            c /= size[i, None] ** self.alpha * size ** (1 - self.alpha)
            nearest = np.argpartition(-c, keep - 1, axis=1)[:, :keep]
            rows.append(np.repeat(i, keep))
            columns.append(nearest.ravel())
            values.append(np.take_along_axis(c, nearest, axis=1).ravel())
        self.similarity = csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=2 * (train.n_items,),
        )

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.similarity[sessions.items[cases]].toarray()


@dataclasses.dataclass(eq=False)
class Oracle(Baseline):
    """The best possible ranking on a simulated shop: by the true probability of the next item."""

    shop: Shop
    name = "oracle"

    def _learn(self, train: Sessions) -> None:
        index = index_of(self.shop.item_ids)
        self.in_shop = np.array([index[item] for item in train.item_ids.tolist()], np.int32)

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        in_shop = dataclasses.replace(sessions, items=self.in_shop[sessions.items])
        return self.shop.next_item_probabilities(in_shop, cases)[:, self.in_shop]
