"""Nearest neighbours: of items by their sessions, and of sessions by their items.

Both are sparse matrix products, in blocks that bound the memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array, vstack

from gru4rec_np.data.sessions import Sessions, recent
from gru4rec_np.data.tables import Watch
from gru4rec_np.models.baselines import Baseline, by_session
from gru4rec_np.models.checked import Checked, declare, flag, number, whole

# The largest number of pairs (of items, or of case and candidate session) to compare at once.
PAIRS_AT_ONCE = 2**22


class ItemKNN(Baseline):
    """The items that are most often in the same sessions as the last item.

    sim(i, j) = c_ij / ((s_i + lmbd)^alpha (s_j + lmbd)^(1 - alpha)), where c_ij is the sum over
    sessions of count_i count_j, and s the support (Hidasi et al. 2016, §4.1; Davidson et al. 2010).
    Each item keeps its `neighbours` nearest; equals keep the order of the items. Time and memory
    grow with the pairs of items that share a session, not with all pairs. All c_ij of these are
    kept, for `fit_more`.
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """The hyperparameters of Item-KNN."""

        fixed: ClassVar = ("neighbours", "lmbd", "alpha")
        neighbours: int = declare(100, "nearest neighbours that an item keeps", whole(1))
        lmbd: float = declare(20.0, "damps the similarity of rare items", number(0))
        alpha: float = declare(
            0.5,
            "0.5 gives the cosine; a lower value favours rare neighbours less",
            number(0, most=1),
        )

    hp: Hyperparameters
    name = "Item-KNN"
    parts: ClassVar = {"similarity": ("I", "I")}
    kept: ClassVar = {"together": ("I", "I"), "support": ("I",)}
    together: csr_array = csr_array((0, 0))  # c
    support: np.ndarray = np.zeros(0)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        counts = by_session(train, np.float64)
        by_item = counts.T.tocsr()
        self.support = self.support + train.support
        size = self.support + self.hp.lmbd
        own, others = size**self.hp.alpha, size ** (1 - self.hp.alpha)
        parts, together = [], []
        # An item's row of c has at most as many items as all its sessions have clicks.
        clicks = np.minimum(by_item.astype(bool) @ train.lengths, train.n_items).cumsum()
        blocks = np.searchsorted(clicks, np.arange(PAIRS_AT_ONCE, clicks[-1], PAIRS_AT_ONCE))
        for first, last in itertools.pairwise(np.unique([0, *blocks, train.n_items]).tolist()):
            block = self.together[first:last] + by_item[first:last] @ counts
            block.sort_indices()
            together.append(block)
            c = block.tocoo()
            other = c.col != c.row + first  # an item is not its own neighbour
            i, j, c = c.row[other] + first, c.col[other], c.data[other]
            c /= own[i] * others[j]
            order = np.lexsort((j, -c, i))  # by item, the nearest first
            place = np.arange(len(i)) - np.searchsorted(i, i)
            nearest = order[place < self.hp.neighbours]
            parts.append((c[nearest], i[nearest], j[nearest]))
            watch(last, train.n_items)
        values, rows, columns = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self.similarity = csr_array((values, (rows, columns)), shape=2 * (train.n_items,))
        self.together = vstack(together, format="csr")

    def scores(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        return self.similarity[sessions.items[cases]].toarray()


# V-SKNN needs two things of the shared clicks: the similarity Σp, and the last shared place p. One
# sparse product computes both, if click p counts p + 2^(PLACES + p - 1): the low bits of the sum
# hold Σp, the high bits the set of places. With CLICKS = 40 the sum is below 2^50.
PLACES = 10  # bits of Σp <= 820


class VSKNN(Baseline):
    """The items of the training sessions that are most similar to the current one.

    Vector multiplication session kNN (Ludewig & Jannach 2018, arXiv 1803.09587, §3.2). Click p of
    the current session's L clicks has the weight w = p/L, so the last one weighs 1. An item that
    was clicked twice has the weight of its last click. A training session n is a set of items, and
        sim(n) = Σ over items i of n of w_i.
    It is computed for the `sample` most recent training sessions that share an item with the
    current one. The k most similar, of equals the most recent, vote for their items:
        score(i) = (1 + idf log(S / S_i)) Σ over neighbours n with i of sim(n) / d(n).
    d(n) is 1 if n has the last click, 2 if the click before it is the last that n has, and so on. S
    is the number of training sessions, S_i of those with item i. d and the factor of rarity are
    from the published code of the paper's authors. decay=False, idf=0 is the paper's formula.
    For `fit_more`, S, S_i and the times at which the sessions ended are kept.

    The most recent sessions are those that ended last. Only the last `CLICKS` clicks of the current
    session count. The defaults were best on the last day of RSC15's first 100,000 clicks, without
    their test set (docs/results.md).
    """

    @dataclasses.dataclass(frozen=True)
    class Hyperparameters(Checked):
        """The hyperparameters of V-SKNN."""

        fixed: ClassVar = ("sample",)
        k: int = declare(100, "the number of neighbours", whole(1))
        sample: int = declare(500, "the number of recent sessions to compare", whole(1))
        idf: float = declare(1.0, "the weight of an item's rarity", number(0))
        decay: bool = declare(True, "divide by d", flag)

    hp: Hyperparameters
    name = "V-SKNN"
    parts: ClassVar = {"sessions": (None, "I"), "rarity": ("I",)}
    kept: ClassVar = {"ended": (None,), "n_with": ("I",), "n_sessions": (1,)}
    sessions: csr_array = csr_array((0, 0), dtype=np.float32)
    ended, n_with, n_sessions = np.zeros(0), np.zeros(0), np.zeros(1)

    def _learn(self, train: Sessions, watch: Watch) -> None:
        train = train.keep_sessions(train.lengths > 0)
        sets = by_session(train, np.float32)
        sets.data[:] = 1
        self.n_with = self.n_with + np.bincount(sets.indices, minlength=train.n_items)
        self.n_sessions = self.n_sessions + train.n_sessions
        self.rarity = np.log(self.n_sessions / self.n_with)
        # Sessions dropped before are not among the most recent of the longer log either.
        sets = vstack([self.sessions, sets], format="csr")
        ended = np.concatenate([self.ended, train.ends])
        order = np.argsort(ended, kind="stable")
        sets, ended = sets[order], ended[order]
        # A session that is not among the `sample` most recent of one of its items is never used.
        recent_ones = np.unique(self._latest(sets).indices)
        self.sessions, self.ended = sets[recent_ones], ended[recent_ones]

    def _derive(self) -> None:
        if self.ended is not None and len(self.ended) != self.sessions.shape[0]:
            raise ValueError(f"{len(self.ended)} times for {self.sessions.shape[0]} sessions")
        self.sessions = self.sessions.astype(np.float32, copy=False)  # files may have float64
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
        row, item, place = recent(sessions, cases)
        lengths = np.bincount(row, minlength=len(cases))
        # Each item's last click only. np.unique finds the first of equals, so reverse the order.
        key, last = np.unique((row * len(self.rarity) + item)[::-1], return_index=True)
        place = place[::-1][last]
        row, item = np.divmod(key, len(self.rarity))
        value = place + (1 << (PLACES + place - 1))
        # SciPy copies the other matrices to int64 in each product unless these indices are int32.
        item = item.astype(np.int32)
        indptr = np.searchsorted(row, np.arange(len(cases) + 1)).astype(np.int32)
        current = csr_array((value, item, indptr), shape=(len(cases), len(self.rarity)))
        # Blocks of cases by the number of their candidates, counted once for each shared item.
        shared = np.cumsum(np.diff(self._candidates.indptr)[item])
        shared = np.concatenate([[0], shared])[indptr[1:]]
        ends = np.flatnonzero(np.diff(shared // PAIRS_AT_ONCE)) + 1
        out = np.empty((len(cases), len(self.rarity)), np.float32)
        for first, end in itertools.pairwise([0, *ends.tolist(), len(cases)]):
            neighbours = self._neighbours(current[first:end], lengths[first:end])
            (neighbours @ self.sessions).toarray(out=out[first:end])
        out *= (1 + self.hp.idf * self.rarity).astype(np.float32)
        return out

    def _neighbours(self, current: csr_array, lengths: np.ndarray) -> csr_array:
        """(n, sessions): sim / d of each case's k nearest sessions, else 0.

        Rows are sorted, so that votes are added in the same order in any batch.

        Args:
            current: (n, I) the code of each click. lengths: (n,) clicks of the sessions.
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
            order[row, age] = similarity * self.hp.sample - age  # without ties
            kth = self.hp.sample - self.hp.k
            least = np.partition(order, kth, axis=1)[:, kth]
            nearest = order[row, age] >= least[row]
            row, column, code, similarity = (a[nearest] for a in (row, column, code, similarity))
        value = similarity / lengths[row]
        if self.hp.decay:
            value /= lengths[row] - np.frexp(code >> PLACES)[1] + 1  # place of the highest bit
        indptr = np.searchsorted(row, np.arange(len(lengths) + 1)).astype(column.dtype)
        shape = len(lengths), shared.shape[1]
        return csr_array((value.astype(np.float32), column, indptr), shape=shape)
