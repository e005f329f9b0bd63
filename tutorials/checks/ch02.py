"""Exercises of notebook 2, measuring."""

import itertools

import numpy as np

from checks import Exercise
from checks.common import but, in_order, sessions_of
from gru4rec_np.models.baselines import SPOP
from gru4rec_np.ops.ranking import TIES, metrics, ranks

# --- 2.1 and 2.4 ----------------------------------------------------------------------------------


def _scores(rng):
    """Few distinct scores, so that many are equal, and some that are not."""
    scores = rng.integers(0, 5, (12, 9)).astype(float)
    scores[::3] = rng.normal(size=(4, 9))
    return scores, rng.integers(0, 9, 12)


def _of_targets(scores, targets):
    return np.take_along_axis(scores, targets[:, None], axis=1)


def _sorted_rank(scores, targets):
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argmax(order == targets[:, None], axis=1) + 1


def _above(scores, targets):
    return (scores > _of_targets(scores, targets)).sum(axis=1)


def _equal(scores, targets):
    return (scores == _of_targets(scores, targets)).sum(axis=1)


def _three(scores, targets):
    return tuple(ranks(scores, targets, ties) for ties in TIES)


def _three_from(a, e):
    return a + e, a + 1, (2 * a + e + 1) / 2


# --- 2.2 ------------------------------------------------------------------------------------------


def _metrics(ranks, k):
    return tuple(metrics(ranks, k).values())


# --- 2.3 ------------------------------------------------------------------------------------------


def _count(pairs, n_items):
    counts = np.zeros((n_items, n_items))
    np.add.at(counts, tuple(pairs), 1)
    return counts


def _followers(items, offsets, n_items):
    cases = sessions_of(items, offsets).cases
    return _count((items[cases], items[cases + 1]), n_items)


def _across(items, offsets, n_items):
    return _count((items[:-1], items[1:]), n_items)


def _once(items, offsets, n_items):
    return (_followers(items, offsets, n_items) > 0).astype(float)


def _once_a_session(items, offsets, n_items):
    return sum(
        _once(items[begin:end], np.array([0, end - begin]), n_items)
        for begin, end in itertools.pairwise(offsets)
    )


def _no_pairs_of_one(items, offsets, n_items):
    counts = _followers(items, offsets, n_items)
    np.fill_diagonal(counts, 0)
    return counts


def _all_later(items, offsets, n_items):
    pairs = [
        (items[e], items[f])
        for begin, end in itertools.pairwise(offsets)
        for e in range(begin, end)
        for f in range(e + 1, end)
    ]
    return _count(np.array(pairs).T, n_items)


def _probabilities(items, offsets, n_items):
    counts = _followers(items, offsets, n_items)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _log_cases(rng):
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 6, 20))])
    return [
        (np.array([0, 1, 0, 1, 2, 3, 3, 1]), np.array([0, 5, 8]), 5),
        (rng.integers(0, 4, offsets[-1]), offsets, 6),
    ]


# --- 2.5 ------------------------------------------------------------------------------------------


def _s_pop(session, pop):
    method = SPOP()
    method.pop = pop
    log = sessions_of(session, [0, len(session)], len(pop))
    return method.scores(log, np.array([len(session) - 1]))[0]


def _count_items(session, pop):
    return np.bincount(session, minlength=len(pop))


# --- 2.6 ------------------------------------------------------------------------------------------


def _without_diagonal(of):
    def similarity(c, size):
        sim = of(c, size)
        np.fill_diagonal(sim, 0)
        return sim

    return similarity


_similarity = _without_diagonal(lambda c, size: c / np.sqrt(size[:, None] * size))


def _joint_counts(rng):
    C = rng.poisson(0.6, (30, 7)).astype(float)
    return C.T @ C, C.sum(axis=0) + 20


EXERCISES = [
    Exercise(
        number="2.1",
        title="the rank, by counting",
        right=ranks,
        cases=lambda rng: [_scores(rng), _scores(rng)],
        mistakes={
            "items with the target's score are counted as worse; count them as "
            "better: >=, not >": lambda scores, targets: _above(scores, targets) + 1,
            "the best rank would be 0; the target itself is one of the items that score >= the "
            "target, so it is counted, too": lambda scores, targets: ranks(scores, targets) - 1,
            "the target itself is counted twice: it is among the items that score >= the target "
            "already": lambda scores, targets: ranks(scores, targets) + 1,
            "the best rank would be 0, and items with the target's score are counted as worse: "
            "count >=, not >, and the target with them": _above,
            "it counts the items that score less or the same; the highest score is the best": (
                lambda scores, targets: ranks(-scores, targets)
            ),
            "it compares with the target's item number; compare with the target's score, "
            "scores[row, targets[row]]": lambda scores, targets: (scores >= targets[:, None]).sum(
                axis=1
            ),
            "a sort orders items of equal score by their item number, so the number decides a "
            "tie; count instead": _sorted_rank,
            "argsort gives the item at each place; return the place of the target": (
                lambda scores, targets: np.take_along_axis(
                    np.argsort(-scores, axis=1), targets[:, None], axis=1
                )[:, 0]
            ),
            "it sums over the cases; each row has a rank of its own: sum(axis=1)": (
                lambda scores, targets: (scores >= _of_targets(scores, targets)).sum(axis=0)
            ),
        },
        hints=[
            "First the target's score of each row: scores[np.arange(n), targets].",
            "Compare the whole row with it: with shape (n, 1) it is broadcast to (n, I).",
            "t = scores[np.arange(len(targets)), targets][:, None]; then sum scores >= t along "
            "each row.",
        ],
    ),
    Exercise(
        number="2.2",
        title="Recall@K and MRR@K",
        right=_metrics,
        cases=lambda rng: [
            (np.array([1, 20, 21, 3, 400, 2]), 20),
            (rng.integers(1, 15, 50).astype(float), 5),
        ],
        mistakes={
            "rank K is still a hit: <=, not <": lambda ranks, k: _metrics(ranks, k - 1),
            "in MRR@K, ranks above K must count 0": but(
                _metrics, 1, lambda ranks, k: (1 / ranks).mean()
            ),
            "the mean is over the hits only; take it over all cases, where misses count 0": but(
                _metrics, 1, lambda ranks, k: (1 / ranks[ranks <= k]).mean()
            ),
            "it is 1 over the mean rank; take 1/rank of each case first, then the mean": but(
                _metrics, 1, lambda ranks, k: 1 / ranks.mean()
            ),
            "ranks begin at 1 here: 1/rank, not 1/(rank + 1)": but(
                _metrics, 1, lambda ranks, k: np.where(ranks <= k, 1 / (ranks + 1), 0).mean()
            ),
            "these are sums over the cases, not means: divide by the number of cases": (
                lambda ranks, k: tuple(mean * len(ranks) for mean in _metrics(ranks, k))
            ),
            "recall and MRR are swapped: return first recall, then MRR": (
                lambda ranks, k: _metrics(ranks, k)[::-1]
            ),
            "it divides by K (that would be precision); each case has one right answer, so its "
            "recall is 0 or 1": but(_metrics, 0, lambda ranks, k: _metrics(ranks, k)[0] / k),
        },
        parts=("recall", "mrr"),
        hints=[
            "hit = ranks <= k is an array of True and False; its mean is a share.",
            "For MRR, 1 / ranks where hit, else 0 (np.where, or times hit); then the mean.",
            "return hit.mean(), (hit / ranks).mean()",
        ],
    ),
    Exercise(
        number="2.3",
        title="which item followed which, and how often",
        right=_followers,
        cases=_log_cases,
        mistakes={
            "a session's first item is counted as following the last one of the session before: "
            "leave out pairs of two sessions": _across,
            "a pair that occurs several times is counted once: m[i, j] += 1 does that with arrays "
            "of indices; np.add.at(m, (i, j), 1) adds each time": _once,
            "a pair that occurs several times is counted once (np.add.at(m, (i, j), 1) adds each "
            "time), and a session's first item as following the last one of the session before": (
                lambda *args: (_across(*args) > 0).astype(float)
            ),
            "a pair that occurs several times in a session is counted once in it: m[i, j] += 1 "
            "does that with arrays of indices; np.add.at(m, (i, j), 1) adds each time": (
                _once_a_session
            ),
            "an item that follows itself counts, too; the diagonal is not 0": _no_pairs_of_one,
            "row and column are swapped: the row is i, the earlier item": (
                lambda *args: _followers(*args).T
            ),
            "every later item of the session is counted; count only the one right after": (
                _all_later
            ),
            "pairs are counted in both directions; count only j after i": (
                lambda *args: _followers(*args) + _followers(*args).T
            ),
            "these are probabilities, each row divided by its sum; return the counts "
            "themselves": _probabilities,
        },
        hints=[
            "Pairs are items[e], items[e + 1] for each case e: an event that has a next one.",
            "All events but the session's last are cases: a mask that is False at offsets[1:] - 1.",
            "m = np.zeros((n_items, n_items)); np.add.at(m, (items[e], items[e + 1]), 1), e an "
            "array of all cases.",
        ],
    ),
    Exercise(
        number="2.4",
        title="ties: conservative, standard, median",
        right=_three,
        cases=lambda rng: [_scores(rng), _scores(rng)],
        mistakes={
            "e includes the target, so a + e is the rank; one too many was added": but(
                _three, 0, lambda scores, targets: ranks(scores, targets) + 1
            ),
            "if no item scores more, the target has rank 1, not 0: a + 1": lambda scores, targets: (
                _three(scores, targets)[0],
                _above(scores, targets),
                _above(scores, targets) + _equal(scores, targets) / 2,
            ),
            "the order is (conservative, standard, median); the first two are swapped": in_order(
                _three, 1, 0, 2
            ),
            "it is rounded down: the mean of two ranks may end in .5": but(
                _three, 2, lambda *args: np.floor(_three(*args)[2])
            ),
            "more and less are swapped: a counts the items that score more": (
                lambda scores, targets: _three(-scores, targets)
            ),
            "a counts the items that score more, without those that score the same: >, not >=": (
                lambda scores, targets: _three_from(
                    _above(scores, targets) + _equal(scores, targets), _equal(scores, targets)
                )
            ),
            "the mean of the two is half of their sum": but(
                _three, 2, lambda *args: 2 * _three(*args)[2]
            ),
            "e does not include the target itself here; it should": lambda scores, targets: (
                _three_from(_above(scores, targets), _equal(scores, targets) - 1)
            ),
        },
        parts=("conservative", "standard", "median"),
        hints=[
            "As in 2.1, t is the target's score of each row, of shape (n, 1).",
            "a = (scores > t).sum(axis=1), e = (scores == t).sum(axis=1).",
            "return a + e, a + 1, (a + e + a + 1) / 2",
        ],
    ),
    Exercise(
        number="2.5",
        title="S-POP",
        right=_s_pop,
        cases=lambda rng: [
            (np.array([2, 0, 2, 2, 5, 0, 4]), rng.random(8)),
            (np.array([3]), rng.random(6)),
            (rng.integers(0, 9, 15), rng.random(9)),
        ],
        mistakes={
            "an item that was clicked several times counts once: out[session] += 1 does that; "
            "np.bincount or np.add.at counts each time": lambda session, pop: (
                (_count_items(session, pop) > 0) + pop
            ),
            "the last click is not counted; it is a part of the session so far": (
                lambda session, pop: _count_items(session[:-1], pop) + pop
            ),
            "the popularity is missing: items of equal count would be tied": _count_items,
            "it is a product: items that are not in the session score 0, and popularity can "
            "outweigh the count; add them": lambda session, pop: _count_items(session, pop) * pop,
            "items that are not in the session score 0; their score must be their popularity": (
                lambda session, pop: np.where(
                    _count_items(session, pop) > 0, _count_items(session, pop) + pop, 0
                )
            ),
            "the count is divided by the session's length, so popularity can outweigh it; use the "
            "count itself": lambda session, pop: _count_items(session, pop) / len(session) + pop,
        },
        hints=[
            "How often does each of the I items occur in session? That is an array of length I.",
            "np.bincount(session, minlength=...) counts.",
            "return np.bincount(session, minlength=len(pop)) + pop",
        ],
    ),
    Exercise(
        number="2.6",
        title="Item-KNN's similarity",
        right=_similarity,
        cases=lambda rng: [_joint_counts(rng), _joint_counts(rng)],
        mistakes={
            "an item is its own neighbour here: the diagonal must be 0": lambda c, size: (
                c / np.sqrt(size[:, None] * size)
            ),
            "the square root is missing": _without_diagonal(
                lambda c, size: c / (size[:, None] * size)
            ),
            "size * size has shape (I,), each item with itself; size[:, None] * size has shape "
            "(I, I), each item with every item": _without_diagonal(
                lambda c, size: c / np.sqrt(size * size)
            ),
            "it divides by the column's size only; divide by the row's, too": _without_diagonal(
                lambda c, size: c / np.sqrt(size)
            ),
            "it divides by the row's size only; divide by the column's, too": _without_diagonal(
                lambda c, size: c / np.sqrt(size)[:, None]
            ),
            "it is divided by the row's size; divide by the square root of row's times column's": (
                _without_diagonal(lambda c, size: c / size[:, None])
            ),
        },
        hints=[
            "size[:, None] has shape (I, 1), one size for each row. size has shape (I,), one for "
            "each column.",
            "sim = c / np.sqrt(size[:, None] * size). And the diagonal?",
            "np.fill_diagonal(sim, 0) changes sim in place and returns nothing.",
        ],
    ),
]
