"""Exercises of notebook 2, measuring."""

import numpy as np

from checks import Exercise
from checks.common import sessions_of
from gru4rec_np.models.baselines import SPOP
from gru4rec_np.ops.ranking import TIES, metrics, ranks
from solutions import ch02

# --- 2.1 and 2.4 ----------------------------------------------------------------------------------


def _scores(rng):
    """Few distinct scores, so that many are equal, and some that are not."""
    scores = rng.integers(0, 5, (12, 9)).astype(float)
    scores[::3] = rng.normal(size=(4, 9))
    return scores, rng.integers(0, 9, 12)


def _sorted_rank(scores, targets):
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argmax(order == targets[:, None], axis=1) + 1


def _three(scores, targets):
    return tuple(ranks(scores, targets, ties) for ties in TIES)


# --- 2.2 ------------------------------------------------------------------------------------------


def _metrics(ranks, k):
    return tuple(metrics(ranks, k).values())


# --- 2.3 ------------------------------------------------------------------------------------------


# The line of the solution that counts the pairs.
ADD = "np.add.at(followers, (items[e], items[e + 1]), 1)"


def _followers(items, offsets, n_items):
    counts, cases = np.zeros((n_items, n_items)), sessions_of(items, offsets).cases
    np.add.at(counts, (items[cases], items[cases + 1]), 1)
    return counts


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


# --- 2.6 ------------------------------------------------------------------------------------------


def _joint_counts(rng):
    C = rng.poisson(0.6, (30, 7)).astype(float)
    return C.T @ C, C.sum(axis=0) + 20


EXERCISES = [
    Exercise(
        number="2.1",
        title="the rank, by counting",
        right=ranks,
        cases=lambda rng: [_scores(rng), _scores(rng)],
        solution=ch02.rank,
        mistakes={
            "items with the target's score are counted as worse; count them as better: >=, not >": {
                "(scores >=": "1 + (scores >"
            },
            "the best rank would be 0; the target itself is one of the items that score >= the "
            "target, so it is counted, too": {"sum(axis=1)": "sum(axis=1) - 1"},
            "the target itself is counted twice: it is among the items that score >= the target "
            "already": {"sum(axis=1)": "sum(axis=1) + 1"},
            "the best rank would be 0, and items with the target's score are counted as worse: "
            "count >=, not >, and the target with them": {">=": ">"},
            "it counts the items that score less or the same; the highest score is the best": {
                ">=": "<="
            },
            "it compares with the target's item number; compare with the target's score, "
            "scores[row, targets[row]]": {
                "np.take_along_axis(scores, targets[:, None], axis=1)": "targets[:, None]"
            },
            "a sort orders items of equal score by their item number, so the number decides a "
            "tie; count instead": _sorted_rank,
            "argsort gives the item at each place; return the place of the target": (
                lambda scores, targets: np.take_along_axis(
                    np.argsort(-scores, axis=1), targets[:, None], axis=1
                )[:, 0]
            ),
            "it sums over the cases; each row has a rank of its own: sum(axis=1)": {
                "sum(axis=1)": "sum(axis=0)"
            },
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
        solution=ch02.recall_and_mrr,
        mistakes={
            "rank K is still a hit: <=, not <": {"<=": "<"},
            "in MRR@K, ranks above K must count 0": {"hit / ranks": "1 / ranks"},
            "the mean is over the hits only; take it over all cases, where misses count 0": {
                "hit / ranks": "1 / ranks[hit]"
            },
            "it is 1 over the mean rank; take 1/rank of each case first, then the mean": {
                "(hit / ranks).mean()": "1 / ranks.mean()"
            },
            "ranks begin at 1 here: 1/rank, not 1/(rank + 1)": {"hit / ranks": "hit / (ranks + 1)"},
            "these are sums over the cases, not means: divide by the number of cases": {
                "hit.mean()": "hit.sum()",
                "ranks).mean()": "ranks).sum()",
            },
            "recall and MRR are swapped: return first recall, then MRR": {
                "hit.mean(), (hit / ranks).mean()": "(hit / ranks).mean(), hit.mean()"
            },
            "it divides by K (that would be precision); each case has one right answer, so its "
            "recall is 0 or 1": {"hit.mean()": "hit.mean() / k"},
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
        solution=ch02.count_followers,
        mistakes={
            "a session's first item is counted as following the last one of the session before: "
            "leave out pairs of two sessions": {"offsets[1:] - 1": "-1"},
            "a pair that occurs several times is counted once: m[i, j] += 1 does that with arrays "
            "of indices; np.add.at(m, (i, j), 1) adds each time": {
                ADD: "followers[items[e], items[e + 1]] += 1"
            },
            "a pair that occurs several times is counted once (np.add.at(m, (i, j), 1) adds each "
            "time), and a session's first item as following the last one of the session before": {
                "offsets[1:] - 1": "-1",
                ADD: "followers[items[e], items[e + 1]] += 1",
            },
            "a pair that occurs several times in a session is counted once in it: m[i, j] += 1 "
            "does that with arrays of indices; np.add.at(m, (i, j), 1) adds each time": {
                ADD: "for a, z in zip(offsets, offsets[1:]):\n"
                "        followers[items[a : z - 1], items[a + 1 : z]] += 1"
            },
            "an item that follows itself counts, too; the diagonal is not 0": {
                "    return": "    np.fill_diagonal(followers, 0)\n    return"
            },
            "row and column are swapped: the row is i, the earlier item": {
                "return followers": "return followers.T"
            },
            "every later item of the session is counted; count only the one right after": {
                ADD: "for a, z in zip(offsets, offsets[1:]):\n"
                "        for e in range(a, z):\n"
                "            np.add.at(followers, (items[e], items[e + 1 : z]), 1)"
            },
            "pairs are counted in both directions; count only j after i": {
                "return followers": "return followers + followers.T"
            },
            "these are probabilities, each row divided by its sum; return the counts themselves": {
                "return followers": "total = followers.sum(axis=1, keepdims=True)\n"
                "    return followers / np.maximum(total, 1)"
            },
        },
        hints=[
            "Pairs are items[e], items[e + 1] for each case e: an event that has a next one.",
            "All events but each session's last are cases: a mask that is False at "
            "offsets[1:] - 1.",
            "m = np.zeros((n_items, n_items)); np.add.at(m, (items[e], items[e + 1]), 1), e an "
            "array of all cases.",
        ],
    ),
    Exercise(
        number="2.4",
        title="ties: conservative, standard, median",
        right=_three,
        cases=lambda rng: [_scores(rng), _scores(rng)],
        solution=ch02.three_ranks,
        mistakes={
            "e includes the target, so a + e is the rank; one too many was added": {
                "above + equal": "above + equal + 1"
            },
            "if no item scores more, the target has rank 1, not 0: a + 1": {
                "above + 1": "above",
                "(equal + 1)": "equal",
            },
            "the order is (conservative, standard, median); the first two are swapped": {
                "above + equal, above + 1": "above + 1, above + equal"
            },
            "it is rounded down: the mean of two ranks may end in .5": {"/ 2": "// 2"},
            "more and less are swapped: a counts the items that score more": {
                "scores >": "scores <"
            },
            "a counts the items that score more, without those that score the same: >, not >=": {
                "scores >": "scores >="
            },
            "the mean of the two is half of their sum": {
                "above + (equal + 1) / 2": "2 * above + equal + 1"
            },
            "e does not include the target itself here; it should": {
                "(scores == t).sum(axis=1)": "(scores == t).sum(axis=1) - 1"
            },
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
        solution=ch02.s_pop,
        mistakes={
            "an item that was clicked several times counts once: out[session] += 1 does that; "
            "np.bincount or np.add.at counts each time": {
                "session, min": "np.unique(session), min"
            },
            "the last click is not counted; it is a part of the session so far": {
                "session, min": "session[:-1], min"
            },
            "the popularity is missing: items of equal count would be tied": {" + pop": ""},
            "it is a product: items that are not in the session score 0, and popularity can "
            "outweigh the count; add them": {"+ pop": "* pop"},
            "items that are not in the session score 0; their score must be their popularity": {
                "+ pop": "+ pop * np.isin(np.arange(len(pop)), session)"
            },
            "the count is divided by the session's length, so popularity can outweigh it; use the "
            "count itself": {"+ pop": "/ len(session) + pop"},
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
        right=ch02.similarity,
        cases=lambda rng: [_joint_counts(rng), _joint_counts(rng)],
        mistakes={
            "an item is its own neighbour here: the diagonal must be 0": {
                "    np.fill_diagonal(sim, 0)\n": ""
            },
            "the square root is missing": {"np.sqrt": ""},
            "size * size has shape (I,), each item with itself; size[:, None] * size has shape "
            "(I, I), each item with every item": {"[:, None]": ""},
            "it divides by the column's size only; divide by the row's, too": {
                "size[:, None] * size": "size"
            },
            "it divides by the row's size only; divide by the column's, too": {
                "[:, None] * size": "[:, None]"
            },
            "it is divided by the row's size; divide by the square root of row's times column's": {
                "np.sqrt(size[:, None] * size)": "size[:, None]"
            },
        },
        hints=[
            "size[:, None] has shape (I, 1), one size for each row. size has shape (I,), one for "
            "each column.",
            "sim = c / np.sqrt(size[:, None] * size). And the diagonal?",
            "np.fill_diagonal(sim, 0) changes sim in place and returns nothing.",
        ],
    ),
]
