"""A simulated web shop: a data set without a download, whose best possible ranking is known.

Every item is on two ladders, one of its kind and one of its brand. A ladder is a ring of items in
order of price. A shopper has a hidden intent: a ladder and a direction, cheaper or dearer. Each
click is one of three:
  - with probability `repeat`, one of the session's earlier events, chosen uniformly;
  - else, with probability `walk` and if the last item is on the ladder, one of the next `stride`
    items in the direction, where near and popular items are more likely;
  - else an item of the ladder, chosen by popularity.
Before each click except the first, the intent changes with probability `change`.

One item leaves two ladders and two directions possible; the order of a session tells which it is. A
first-order Markov chain cannot use that, a recurrent network can. Intents follow a hidden Markov
chain with known probabilities, so filtering gives the exact distribution of the next item. Ranking
by it is optimal for Recall@K and for MRR@K: the oracle. Knows no model.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from gru4rec_np.data.sessions import DAY, Sessions, id_array
from gru4rec_np.errors import InputError

KIND, BRAND = 0, 1
LADDER = 50  # items on a ladder, about
NEARER = 0.85  # the probability of a rung relative to the rung before it
FIRST_DAY = 1_700_000_000.0 // DAY * DAY


@dataclasses.dataclass(frozen=True)
class Shop:
    """A shop's catalogue and the probabilities of its shoppers' clicks.

    Attributes:
        n_items: size of the catalogue, at least 4.
        seed: of the catalogue; `simulate` takes another for the sessions.
        repeat, walk, change, stride: see the module's docstring.
        tail: the item of popularity rank k has weight 1/k^tail.
    """

    n_items: int = 1000
    seed: int = 0
    repeat: float = 0.12
    walk: float = 0.85
    change: float = 0.03
    stride: int = 8
    tail: float = 1.1

    # Set from the fields above, and not saved with them: no fields themselves.
    if TYPE_CHECKING:
        ladder: np.ndarray = dataclasses.field(init=False)
        jump: np.ndarray = dataclasses.field(init=False)
        goes_to: np.ndarray = dataclasses.field(init=False)
        follow: np.ndarray = dataclasses.field(init=False)
        prior: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.n_items < 4:
            raise InputError(f"shop: n_items must be at least 4, not {self.n_items}")
        if self.stride < 1:
            raise InputError(f"shop: stride must be at least 1, not {self.stride}")
        for name in ("repeat", "walk", "change"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"shop: {name} must be in [0, 1], not {getattr(self, name)}")
        rng = np.random.default_rng(self.seed)
        I, n_ladders = self.n_items, max(2, self.n_items // LADDER)  # noqa: E741
        weight = rng.permutation(1.0 / np.arange(1, I + 1) ** self.tail)
        # ladder[side, i]: the ladder of this side that item i is on. Kinds are numbered 0 ... n-1,
        # brands n ... 2n-1.
        ladder = np.empty((2, I), np.int64)
        # jump[side, i]: the probability of i for a jump on that ladder.
        jump = np.empty((2, I))
        # goes_to[side, direction, i, d]: the item d + 1 rungs from i along the ladder.
        # follow[side, direction, i, d]: the probability of walking there.
        goes_to = np.empty((2, 2, I, self.stride), np.int32)
        for side in (KIND, BRAND):
            for number, ring in enumerate(np.array_split(rng.permutation(I), n_ladders)):
                ladder[side, ring] = side * n_ladders + number
                jump[side, ring] = weight[ring] / weight[ring].sum()
                for direction, sign in enumerate((1, -1)):
                    rungs = np.arange(len(ring))[:, None] + sign * np.arange(1, self.stride + 1)
                    goes_to[side, direction, ring] = ring[rungs % len(ring)]
        follow = NEARER ** np.arange(self.stride) * np.sqrt(weight[goes_to])
        follow /= follow.sum(axis=-1, keepdims=True)
        # A ladder is drawn by the weight of its items. An intent is 2 * ladder + direction.
        prior = np.bincount(ladder.ravel(), np.tile(weight, 2)) / (2 * weight.sum())
        prior = np.repeat(prior / 2, 2)
        vars(self).update(ladder=ladder, jump=jump, goes_to=goes_to, follow=follow, prior=prior)

    @property
    def item_ids(self) -> np.ndarray:
        """(I,) names that show both ladders: kind03.brand11.0042."""
        kind, brand = self.ladder[KIND], self.ladder[BRAND] - self.ladder[BRAND].min()
        digits = len(str(kind.max()))
        return id_array(
            f"kind{k:0{digits}}.brand{b:0{digits}}.{i:0{len(str(self.n_items - 1))}}"
            for i, (k, b) in enumerate(zip(kind.tolist(), brand.tolist(), strict=True))
        )

    def simulate(self, n_sessions: int, seed: int = 1, days: float = 10) -> Sessions:
        """Sessions of this shop, of 2 events or more (4.6 on average), over some days.

        Args:
            n_sessions: how many, at least 1.
            seed: the same seed gives the same sessions.
            days: session starts are uniform over this many days.

        Returns:
            Sessions ordered by start time, with the shop's whole catalogue.

        Raises:
            InputError: n_sessions is below 1.
        """
        if n_sessions < 1:
            raise InputError(f"shop: n_sessions must be at least 1, not {n_sessions}")
        rng = np.random.default_rng(seed)
        lengths = np.minimum(1 + rng.geometric(0.28, n_sessions), 100)
        clicks = np.empty((n_sessions, lengths.max()), np.int32)
        intent = self._draw_intents(rng, n_sessions)
        # An item drawn by `jump` on a ladder: the ladders' distributions laid end to end.
        by_ladder = np.argsort(self.ladder, axis=1, kind="stable")
        order = by_ladder.ravel()
        ends = np.cumsum(np.take_along_axis(self.jump, by_ladder, axis=1).ravel())
        walks = np.cumsum(self.follow, axis=-1)

        for t in range(clicks.shape[1]):
            live = np.flatnonzero(lengths > t)
            if t:
                changed = live[rng.random(len(live)) < self.change]
                intent[changed] = self._draw_intents(rng, len(changed))
            k, n = intent[live], len(live)
            # Jump: each ladder's probabilities sum to 1, so ladder m occupies (m, m + 1].
            place = np.searchsorted(ends, k // 2 + rng.random(n))
            nxt = order[np.minimum(place, len(order) - 1)]
            if t:
                last = clicks[live, t - 1]
                side = (k // 2 >= len(self.prior) // 4).astype(np.int64)
                on = self.ladder[side, last] == k // 2
                d = (rng.random(n)[:, None] > walks[side, k % 2, last]).sum(axis=1)
                walked = self.goes_to[side, k % 2, last, np.minimum(d, self.stride - 1)]
                nxt = np.where(on & (rng.random(n) < self.walk), walked, nxt)
                again = clicks[live, (rng.random(n) * t).astype(np.int64)]
                nxt = np.where(rng.random(n) < self.repeat, again, nxt)
            clicks[live, t] = nxt

        starts = FIRST_DAY + np.sort(rng.random(n_sessions)) * days * DAY
        exists = np.arange(clicks.shape[1]) < lengths[:, None]
        gaps = np.where(np.arange(clicks.shape[1]) > 0, rng.exponential(60, clicks.shape), 0)
        return Sessions(
            items=clicks[exists],
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            times=(starts[:, None] + np.cumsum(gaps, axis=1))[exists],
            item_ids=self.item_ids,
            session_ids=np.arange(1, n_sessions + 1),
        )

    def _draw_intents(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n,) int64 intents, drawn from the prior."""
        return rng.choice(len(self.prior), size=n, p=self.prior)

    def next_item_probabilities(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        """P(next item | session so far), exact: the hidden intent filtered by Bayes' rule.

        Args:
            sessions: with this shop's own `item_ids`.
            cases: (n,) events; case e predicts the item after items[e].

        Returns:
            (n, I) float64, rows summing to 1.
        """
        return self._mixture(self.intent_probabilities(sessions, cases), *_so_far(sessions, cases))

    def intent_probabilities(self, sessions: Sessions, cases: np.ndarray) -> np.ndarray:
        """P(intent of the next click | session so far), exact.

        The belief b over intents starts as the prior. Each click x multiplies it by the
        probability of x under each intent. Before each next click the intent may change:
        b <- (1 - change) b + change prior (Rabiner 1989, the forward recursion).

        Args:
            sessions, cases: as for `next_item_probabilities`.

        Returns:
            (n, intents) float64, rows summing to 1. Intent 2 m + d is ladder m in direction d.
        """
        x, position = _so_far(sessions, cases)
        belief = np.tile(self.prior, (len(cases), 1))
        for t in range(x.shape[1]):
            rows = np.flatnonzero(position >= t)
            if t:
                belief[rows] *= 1 - self.change
                belief[rows] += self.change * self.prior
            b = belief[rows] * self._likelihood(x[rows, : t + 1])
            total = b.sum(axis=1, keepdims=True)
            # The shop cannot produce this session: start again from the prior.
            belief[rows] = np.where(total > 0, b / np.where(total > 0, total, 1), self.prior)
        return (1 - self.change) * belief + self.change * self.prior

    def _likelihood(self, x: np.ndarray) -> np.ndarray:
        """(n, intents): probability of the last click in x (n, t + 1), given the others."""
        n, t = x.shape[0], x.shape[1] - 1
        new = x[:, -1]
        out = np.zeros((n, len(self.prior)))
        if t:
            out += self.repeat * (x[:, :-1] == new[:, None]).mean(axis=1, keepdims=True)
        rows = np.arange(n)
        for side in (KIND, BRAND):
            m, jump = self.ladder[side, new], self.jump[side, new]
            for direction in (0, 1):
                p = jump
                if t:
                    last = x[:, -2]
                    hit = self.goes_to[side, direction, last] == new[:, None]
                    walked = (self.follow[side, direction, last] * hit).sum(axis=1)
                    on = self.ladder[side, last] == m
                    p = np.where(on, self.walk * walked + (1 - self.walk) * jump, jump)
                    p = (1 - self.repeat) * p
                out[rows, 2 * m + direction] += p
        return out

    def _mixture(self, belief: np.ndarray, x: np.ndarray, position: np.ndarray) -> np.ndarray:
        """(n, I): the distribution of the next click, given the belief about its intent."""
        n = len(belief)
        rows, last = np.arange(n), x[:, -1]
        p = np.zeros((n, self.n_items))
        for side in (KIND, BRAND):
            m = self.ladder[side, last]
            on_ladder = belief.reshape(n, len(self.prior) // 2, 2).sum(axis=2)  # (n, ladders)
            on_ladder[rows, m] *= 1 - self.walk
            p += on_ladder[:, self.ladder[side]] * self.jump[side]
            for direction in (0, 1):
                walks = self.walk * belief[rows, 2 * m + direction]
                np.add.at(
                    p,
                    (rows[:, None], self.goes_to[side, direction, last]),
                    walks[:, None] * self.follow[side, direction, last],
                )
        p *= 1 - self.repeat
        seen = np.arange(x.shape[1]) <= position[:, None]
        b, t = np.nonzero(seen)
        np.add.at(p, (b, x[b, t]), self.repeat / (position[b] + 1))
        return p


def _so_far(sessions: Sessions, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The events up to each case (n, longest), the last one repeated, and the position (n,)."""
    position = sessions.positions[cases]
    steps = np.minimum(np.arange(int(position.max(initial=0)) + 1), position[:, None])
    return sessions.items[(cases - position)[:, None] + steps], position
