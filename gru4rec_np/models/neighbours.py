"""Nearest neighbours: items that were seen together, and past sessions like the current one.

Both are sparse products, in blocks that bound the memory. Imports baselines.py and what is below.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import Watch
from gru4rec_np.models.baselines import Baseline, by_session, recent
from gru4rec_np.models.hyperparameters import Checked, declare, flag, number, whole
from gru4rec_np.ops.ranking import MAX_SCORES


class ItemKNN(Baseline):
    """The items most often in the same sessions as the last one.

    sim(i, j) = c_ij / ((s_i + lmbd)^alpha (s_j + lmbd)^(1 - alpha)), c_ij the sum over sessions of
    count_i count_j, s the support; the `neighbours` nearest of each item (Hidasi et al. 2016, §4.1;
    Davidson et al. 2010), of equals the first. Time and memory go with the pairs of items that were
    seen together, not with all pairs.
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """Attributes:
        neighbours: how many an item keeps.
        lmbd: damps the similarity of items that are rarely seen.
        alpha: 0.5 is the cosine; a lower one favours rare neighbours less.
        """

        fixed: ClassVar = ("neighbours", "lmbd", "alpha")
        neighbours: int = declare(100, "nearest that an item keeps", whole(1))
        lmbd: float = declare(20.0, "damping", number(0))
        alpha: float = declare(0.5, "share of the item's own support", number(0, most=1))

    hp: Hyperparameters
    name = "Item-KNN"
    parts: ClassVar = {"similarity": ("I", "I")}

    def _learn(self, train: Sessions, watch: Watch) -> None:
        counts = by_session(train, np.float64)
        by_item = counts.T.tocsr()
        size = train.support + self.hp.lmbd
        own, others = size**self.hp.alpha, size ** (1 - self.hp.alpha)
        parts = []
        # An item's row of c has at most as many items as its sessions have clicks, all together.
        clicks = np.minimum(by_item.astype(bool) @ train.lengths, train.n_items).cumsum()
        blocks = np.searchsorted(clicks, np.arange(MAX_SCORES // 8, clicks[-1], MAX_SCORES // 8))
        for first, last in itertools.pairwise(np.unique([0, *blocks, train.n_items]).tolist()):
            c = (by_item[first:last] @ counts).tocoo()
            other = c.col != c.row + first  # an item is no neighbour of its own
            i, j, c = c.row[other] + first, c.col[other], c.data[other]
            c /= own[i] * others[j]
            order = np.lexsort((j, -c, i))  # item by item, as before, each one's nearest first
            place = np.arange(len(i)) - np.searchsorted(i, i)
            nearest = order[place < self.hp.neighbours]
            parts.append((c[nearest], i[nearest], j[nearest]))
            watch(last, train.n_items)
        values, rows, columns = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self.similarity = csr_array((values, (rows, columns)), shape=2 * (train.n_items,))

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.similarity[sessions.items[cases]].toarray()


# A similarity and the place of the last shared click, in one number that a sparse product adds up:
# click p of a session counts p + 2^(PLACES + p - 1). The low bits hold Σp, the high ones the set of
# places, one bit each; with 40 clicks the sum is below 2^50.
CLICKS = 40
PLACES = 10  # bits of Σp <= 820


class VSKNN(Baseline):
    """The items of past sessions that are like the current one: vector multiplication session kNN.

    Click p of a current session of L distinct and repeated clicks weighs p/L, the last one 1 (an
    item that was clicked twice, its last click): w. Of the training sessions, sets of items, that
    share one with the current session, the `sample` most recent are compared with it,
        sim(n) = Σ over items i of n of w_i,
    and the k most similar, of equals the most recent, vote for their items:
        score(i) = (1 + idf log(S / S_i)) Σ over neighbours n with i of sim(n) / d(n),
    d(n) = 1 where n has the last click, 2 where the one before it is the last that n has, and so
    on; S training sessions, S_i with item i. (Ludewig & Jannach 2018, arXiv 1803.09587, §3.2, has
    all of this but two factors, which their published code offers: d, and one by the rarity of an
    item. decay=False, idf=0 is the paper's.)

    Neighbours are training sessions only; the most recent are those that ended last. Of a current
    session the last `CLICKS` clicks count.

    The defaults are what was best on the last day of RSC15's first 100,000 clicks without their
    test set (docs/results.md).
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """Attributes:
        k: neighbours.
        sample: the most recent sessions that are compared, at least k.
        idf: weight of an item's rarity.
        decay: whether there is d.
        """

        fixed: ClassVar = ("sample",)
        k: int = declare(100, "neighbours", whole(1))
        sample: int = declare(500, "recent sessions that are compared", whole(1))
        idf: float = declare(1.0, "weight of an item's rarity", number(0))
        decay: bool = declare(True, "d", flag)

    hp: Hyperparameters
    name = "V-SKNN"
    parts: ClassVar = {"sessions": (None, "I"), "rarity": ("I",)}

    def _learn(self, train: Sessions, watch: Watch) -> None:
        train = train.keep_sessions(train.lengths > 0)
        sets = by_session(train, np.float32)
        sets.data[:] = 1
        ended = train.times[train.offsets[1:] - 1]
        sets = sets[np.argsort(ended, kind="stable")]
        n_with = np.bincount(sets.indices, minlength=train.n_items)
        self.rarity = np.log(train.n_sessions / n_with)
        # A session that is among the `sample` most recent of those that share some item is so for
        # each item that it shares: the others are never needed.
        kept = np.unique(self._latest(sets).indices)
        self.sessions = sets[kept]

    def _derive(self) -> None:
        self.sessions = self.sessions.astype(np.float32, copy=False)  # a file may have float64
        self._candidates = self._latest(self.sessions)

    def _latest(self, sets: csr_array) -> csr_array:
        """(I, sessions): the `sample` most recent sessions of each item, of sets (sessions, I)."""
        by_item = sets.T.tocsr()  # each item's sessions in ascending order
        end = np.repeat(by_item.indptr[1:], np.diff(by_item.indptr))
        latest = np.arange(by_item.nnz) >= end - self.hp.sample
        counts = np.minimum(np.diff(by_item.indptr), self.hp.sample)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(by_item.indptr.dtype)
        columns = by_item.indices[latest]
        return csr_array((np.ones(len(columns), np.int64), columns, indptr), shape=by_item.shape)

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        row, item, place = recent(sessions, cases, CLICKS)
        lengths = np.bincount(row, minlength=len(cases))
        # An item's last click only: of equal keys np.unique finds the first, so from the end.
        key, last = np.unique((row * len(self.rarity) + item)[::-1], return_index=True)
        place = place[::-1][last]
        row, item = np.divmod(key, len(self.rarity))
        value = place + (1 << (PLACES + place - 1))
        # Indices as narrow as the other matrices', or each product would widen those first.
        item = item.astype(np.int32)
        indptr = np.searchsorted(row, np.arange(len(cases) + 1)).astype(np.int32)
        current = csr_array((value, item, indptr), shape=(len(cases), len(self.rarity)))
        # Blocks of cases whose candidates, counted with repetition, fit in memory.
        shared = np.cumsum(np.diff(self._candidates.indptr)[item])
        shared = np.concatenate([[0], shared])[indptr[1:]]
        ends = np.flatnonzero(np.diff(shared // (MAX_SCORES // 4))) + 1
        out = np.empty((len(cases), len(self.rarity)), np.float32)
        for first, end in itertools.pairwise([0, *ends.tolist(), len(cases)]):
            neighbours = self._neighbours(current[first:end], lengths[first:end])
            (neighbours @ self.sessions).toarray(out=out[first:end])
        out *= (1 + self.hp.idf * self.rarity).astype(np.float32)
        return out

    def _neighbours(self, current: csr_array, lengths: np.ndarray) -> csr_array:
        """(n, sessions): sim / d of the k nearest, for clicks (n, I) of sessions of some lengths.

        Rows are sorted, so that a case's votes are added in the same order in any batch.
        """
        shared = current @ self._candidates
        shared.sort_indices()
        row = np.repeat(np.arange(len(lengths)), np.diff(shared.indptr))
        age = shared.indptr[row + 1] - 1 - np.arange(shared.nnz)  # 0 the most recent
        recent_ones = age < self.hp.sample
        row, age, column, code = (a[recent_ones] for a in (row, age, shared.indices, shared.data))
        similarity = code & ((1 << PLACES) - 1)
        if self.hp.k < self.hp.sample:
            order = np.full((len(lengths), self.hp.sample), -1)
            order[row, age] = similarity * self.hp.sample - age  # distinct in a row: no ties
            kth = self.hp.sample - self.hp.k
            least = np.partition(order, kth, axis=1)[:, kth]
            nearest = order[row, age] >= least[row]
            row, column, code, similarity = (a[nearest] for a in (row, column, code, similarity))
        value = similarity / lengths[row]
        if self.hp.decay:
            value /= lengths[row] - np.frexp(code >> PLACES)[1] + 1  # the highest bit's place
        indptr = np.searchsorted(row, np.arange(len(lengths) + 1)).astype(column.dtype)
        shape = len(lengths), shared.shape[1]
        return csr_array((value.astype(np.float32), column, indptr), shape=shape)
