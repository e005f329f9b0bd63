"""GRU4Rec beside simple methods: a mixture whose shares are learnt on sessions held out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from gru4rec_np.backends import Ops, one_blas_thread
from gru4rec_np.data.protocols import split
from gru4rec_np.data.sessions import Sessions, recent
from gru4rec_np.data.tables import Watch, as_sessions
from gru4rec_np.errors import InputError, naming
from gru4rec_np.models import hyperparameters
from gru4rec_np.models.base import Model, Scorer, rank_blocks
from gru4rec_np.models.baselines import Markov, alone
from gru4rec_np.models.gru4rec import GRU4Rec, LiveSession
from gru4rec_np.models.neighbours import VSKNN
from gru4rec_np.ops.activations import exp_or_zero
from gru4rec_np.ops.ranking import MAX_SCORES

HELD_OUT = 0.1  # share of the sessions, the last ones, on which the parts' shares are learnt
LEAST = 0.001  # a part with a smaller share is left out, with the time that it would take


def mixture_shares(p: np.ndarray) -> np.ndarray:
    """The shares of a mixture under which the cases are most probable, by EM.

    Dempster, Laird & Rubin 1977, "Maximum likelihood from incomplete data", §4.3. The logarithm of
    the likelihood is concave in the shares, so where EM ends does not depend on where it begins.

    Args:
        p: (n, K) the probability of what happened in each of n cases, by each of K parts.

    Returns:
        (K,) float64 >= 0, sum 1; below `LEAST` it is 0.
    """
    K = p.shape[1]
    shares, p = np.full(K, 1 / K), p.astype(np.float64) + np.finfo(np.float32).tiny
    for _ in range(1000):
        before, of_part = shares, shares * p
        shares = (of_part / of_part.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(shares - before).max() < 1e-6:
            break
    shares[shares < LEAST] = 0
    return shares / shares.sum()


def hold_out(train: Sessions) -> tuple[Sessions, Sessions]:
    """The sessions before the last tenth (`HELD_OUT`), and those of it, to learn the shares on.

    Raises:
        InputError: there are too few.
    """
    with naming("hybrid: the shares need validation"):
        return split(train, share=HELD_OUT)


class Hybrid(Model):
    """A mixture of GRU4Rec, V-SKNN, a Markov chain and the session's own items.

    Each part m gives the next item i a probability p_m(i). An item's score is
        p(i) = Σ_m share_m p_m(i).
    p_m is the softmax of GRU4Rec's scores; V-SKNN's votes and the chain's counts, over their sums;
    an item's share of the session's last `sessions.CLICKS` clicks; and the same with the weight 1/n
    for the n-th last click. The shares are those of maximum likelihood on sessions that the parts
    have not seen (`mixture_shares`). Where a log has many repeated clicks, the last two get a part
    of them; a method that knows nothing of its own gets none and costs nothing.

    Jannach & Ludewig 2017, "When recurrent neural networks meet the neighborhood for session-based
    recommendation" (RecSys), mix a GRU and neighbours by hand-set weights.

    Arguments are those of `GRU4Rec`, of which training with cross-entropy gives probabilities.

    Attributes:
        network: the GRU4Rec. methods: V-SKNN and the Markov chain.
        shares: (5,) float64, after `fit`, in the order of `PARTS`.
    """

    PARTS: ClassVar = ("GRU4Rec", "V-SKNN", "Markov", "repeats", "recent repeats")

    name = "hybrid"
    Hyperparameters = hyperparameters.Hyperparameters
    hp: hyperparameters.Hyperparameters
    network: GRU4Rec
    methods: tuple[VSKNN, Markov]
    shares: np.ndarray

    def __init__(self, *, backend: str = "auto", **hyperparameters: Any) -> None:
        super().__init__(**hyperparameters)
        self.network = GRU4Rec(backend=backend, **hyperparameters)
        self.network.lifts = False
        self.methods = VSKNN(), Markov()
        self._given["backend"] = backend

    @property
    def backend(self) -> str:
        """That of the network."""
        return self.network.backend

    @property
    def ops(self) -> Ops:
        """Those of the network."""
        return self.network.ops

    def set_params(self, **values: Any) -> Hybrid:
        """As `GRU4Rec.set_params`."""
        self.network.set_params(**values)
        self.hp, self._given = self.network.hp, {**self._given, **values}
        return self

    # --- training ---------------------------------------------------------------------------------

    def fit(self, train: Any, validation: Any = None, **options: Any) -> Hybrid:
        """Train the network, fit the methods, learn the shares.

        Without validation the network is trained twice: to learn the shares, without the last tenth
        of the sessions (`HELD_OUT`); and on all of them.

        Args:
            train: as in `GRU4Rec.fit`.
            validation: sessions to learn the shares on, and to choose the network's epoch by.
            options: on_chunk, on_epoch, patience, resume, verbose, primary, see `GRU4Rec.fit`.

        Returns:
            self.

        Raises:
            InputError: as in `GRU4Rec.fit`, or the log is too short to hold out sessions; the model
                stays what it was.
        """
        train = as_sessions(train)
        if validation is None:
            hold_out(train)  # refuses a log that is too short before it is trained on
        with self._unchanged_after(InputError):
            for name in ("shares", "item_ids"):  # of an earlier fit
                vars(self).pop(name, None)
            self.network = copy.copy(self.network)  # the one before stays what it was
            self.network.fit(train, validation=validation, **options)
            return self.join(train, validation, options.get("verbose"))

    def fit_more(self, new: Any, keep_counts: bool = False, **options: Any) -> Hybrid:
        """Go on with new sessions, network and methods; the shares stay. See `GRU4Rec.fit_more`.

        If it is interrupted or refused, the model stays what it was.
        """
        new = as_sessions(new)
        with self._unchanged_after(BaseException):  # parts of two catalogues would not fit together
            self.network = copy.copy(self.network)
            self.network.fit_more(new, keep_counts, **options)
            return self.join(new)

    def join(self, train: Any, validation: Any = None, verbose: bool | None = None) -> Hybrid:
        """Learn all but `network`, which has been trained on these sessions.

        A hybrid that has its shares keeps them: its methods go on with the sessions.

        Args:
            train, validation: as in `fit`. verbose: as in `fit`, for the second network.

        Returns:
            self.

        Raises:
            InputError: the log is too short to hold out sessions.
        """
        train = as_sessions(train)
        train = train.keep_sessions(train.lengths >= 2).compact()
        self.network = copy.copy(self.network)  # it may be another's, who lifts repeats
        self.network.lifts, self.network.repeat_scores = False, None
        knn, markov = self.methods
        self.methods = copy.copy(knn), copy.copy(markov)
        if hasattr(self, "shares"):
            for method in self.methods:
                method.fit_more(train)
        else:
            if validation is None:
                train_less, held_out = hold_out(train)
                less = copy.copy(self)
                less.network = GRU4Rec(**self.network.get_params()).fit(train_less, verbose=verbose)
                less.methods = VSKNN().fit(train_less), Markov().fit(train_less)
                self.shares = less._shares_on(held_out)
            for method in self.methods:
                method.fit(train)
            if validation is not None:
                self.shares = self._shares_on(as_sessions(validation))
        self._set_catalogue(self.network.item_ids)
        return self

    @one_blas_thread
    def _shares_on(self, sessions: Sessions) -> np.ndarray:
        """The shares of maximum likelihood on sessions that no part has seen."""
        known = sessions.restrict(self.network.item_ids)
        cases, targets = known.cases, known.items[known.cases + 1]
        p = np.empty((len(targets), len(self.PARTS)))
        for block, scores in self._scores(known):
            for k, only in enumerate(np.eye(len(self.PARTS))):
                mixed = self._mixture(scores.copy(), known, cases[block], only)
                p[block, k] = np.take_along_axis(mixed, targets[block, None], axis=1)[:, 0]
        return mixture_shares(p)

    # --- evaluation and recommendation ------------------------------------------------------------

    def _scores(self, test: Sessions) -> Iterator[tuple[slice, np.ndarray]]:
        """The network's scores (n, I) for all cases of some sessions, in blocks of cases."""
        h, output = self.network._last_vectors(test), self.network._output()
        size = max(1, MAX_SCORES // 4 // test.n_items)
        for i in range(0, len(h), size):
            block = slice(i, min(i + size, len(h)))
            yield block, self.ops.catalogue_scores(h[block], *output)

    def _mixture(
        self, scores: np.ndarray, sessions: Sessions, cases: np.ndarray, shares: np.ndarray
    ) -> np.ndarray:
        """The mixture's probabilities (n, I) float32.

        Args:
            scores: (n, I) of the network; overwritten. cases: (n,) as in `Sessions.cases`.
            shares: (5,) in the order of `PARTS`.
        """
        share = shares.astype(scores.dtype)
        scores -= scores.max(axis=1, keepdims=True)
        p = exp_or_zero(scores, out=scores)
        p *= share[0] / p.sum(axis=1, keepdims=True)
        for of_method, method in zip(share[1:], self.methods, strict=False):
            if of_method:
                votes = method.scores(sessions, cases)
                total = votes.sum(axis=1, keepdims=True)
                total[total == 0] = 1  # the method knows nothing of this session
                p += (votes * (of_method / total)).astype(p.dtype, copy=False)
        if share[3:].any():
            row, item, place = recent(sessions, cases)
            n = np.bincount(row)
            weight = 1 / (n[row] - place + 1)
            recently = weight / np.bincount(row, weight)[row]
            np.add.at(p, (row, item), (shares[3] / n[row] + shares[4] * recently).astype(p.dtype))
        return p

    @one_blas_thread
    def _ranks(
        self, test: Sessions, ties: str, watch: Watch | None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        cases = test.cases
        mixed = (
            (block, self._mixture(scores, test, cases[block], self.shares))
            for block, scores in self._scores(test)
        )
        return rank_blocks(mixed, test, ties, watch, rows)

    def _scorer(self, rows: np.ndarray) -> Scorer:
        of_network = self.network._scorer(np.arange(len(self.item_ids)))

        def score(sessions: Sessions, which: np.ndarray) -> np.ndarray:
            last, scores = sessions.offsets[which + 1] - 1, of_network(sessions, which)
            return self._mixture(scores, sessions, last, self.shares)[:, rows]

        return score

    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        return self._mixed(self.network._scores_after(items), items)

    def _mixed(self, scores: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The probabilities (I,) after a session; `scores`, the network's, are overwritten."""
        last = np.array([len(items) - 1])
        return self._mixture(scores[None], alone(items, self.item_ids), last, self.shares)[0]

    def session(self) -> LiveSession:
        """A session to be fed click by click, for serving: a click costs a step of the network."""
        self._require_fit()
        return _LiveMixture(self)

    # --- model files ------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {part.name: part for part in (self.network, *self.methods)}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"shares": self.shares}
        for of_part, part in self._parts().items():
            arrays |= {f"{of_part}/{name}": array for name, array in part._arrays().items()}
        return arrays

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.shares = arrays["shares"]
        kind, shape = self.shares.dtype, self.shares.shape
        if kind != np.float64 or shape != (len(self.PARTS),) or not np.all(self.shares >= 0):
            raise ValueError(f"shares is {kind} {shape}, no share for each part")
        for of_part, part in self._parts().items():
            own = {
                name.removeprefix(f"{of_part}/"): array
                for name, array in arrays.items()
                if name.startswith(f"{of_part}/")
            }
            part._set_catalogue(self.item_ids)
            part._restore(own)
        for method in self.methods:
            lacking = [name for name in method.kept if getattr(method, name) is None]
            if lacking:
                raise ValueError(f"{method.name} lacks {', '.join(lacking)}")


class _LiveMixture(LiveSession):
    """A `LiveSession` of the network, whose scores are mixed with those of the other parts."""

    @property
    def model(self) -> GRU4Rec:
        return self.served.network  # another one after `fit_more`

    def scores(self) -> np.ndarray:
        """As `LiveSession.scores`, bit-identical to those of `Hybrid.recommend`."""
        return self.served._mixed(super().scores(), np.array(self._last))
