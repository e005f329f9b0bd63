"""Exercises of notebook 7, sampling the output: scores of few items, draws, collisions, logQ."""

from types import SimpleNamespace

import numpy as np

from checks import Exercise, Ways, Wrong
from checks.common import but, row_sums, softmax
from gru4rec_np.data import batches
from gru4rec_np.ops import optim, scoring

# --- 7.1 ------------------------------------------------------------------------------------------


def scores(h, V_y, b_y, items):
    return scoring.scores(h, V_y, b_y, items)[0]


class _Table(np.ndarray):
    """An output table that will not be scored as a whole."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if ufunc is np.matmul and any(_MANY in np.shape(x) for x in inputs):
            raise Wrong(
                f"it scores all {_MANY} items and picks some then, which is what should be spared: "
                "look the rows up first, V_y[items]"
            )
        inputs = [np.asarray(x) for x in inputs]
        return getattr(ufunc, method)(*inputs, **kwargs)


_MANY = 37


def _run_scores(answer, args):
    h, V_y, b_y, items = args
    found = answer(h, V_y.view(_Table), b_y, items)
    return np.asarray(found) if isinstance(found, np.ndarray) else found


def _scores_cases(rng):
    items = np.array([30, 2, 2, 36, 0, 30])
    return [
        (rng.normal(size=(3, 4)), rng.normal(size=(_MANY, 4)), rng.normal(size=_MANY), items),
    ]


# --- 7.2, 7.3 -------------------------------------------------------------------------------------


def draw(u, distribution):
    rng = SimpleNamespace(random=lambda shape: u)
    return batches.draw_negatives(rng, distribution, u.shape)


def _cumulative(weights):
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def _ends_at_one(answer, cases):
    for support, alpha in cases:
        last = answer(support.copy(), alpha)[-1]
        if last < 1:
            return (
                f"its last entry is {float(last)!r}, by rounding, so a u above it draws item I, "
                "which does not exist. Divide the running sum F by its own last entry, F / F[-1], "
                "which is exactly 1"
            )
    return ""


def _draw_cases(rng):
    # The first item can never be drawn; some numbers lie right on a bound.
    quarters = np.array([0, 0.25, 0.25, 0.5, 1])
    exact = np.array([[0, 0.25, 0.5], [0.1, 0.49, 0.999]])
    return [(exact, quarters), (rng.random((4, 5)), _cumulative(rng.random(30)))]


# --- 7.4 ------------------------------------------------------------------------------------------


def backward(dr, h, V, items):
    dh, dV, db = scoring.scores_backward(dr, h, V)
    rows, dV = optim.sum_rows(items, dV)
    return dh, rows, dV, optim.sum_rows(items, db)[1]


def _backward(at=lambda x: x.sum(axis=0), bias=lambda dr: dr.sum(axis=0)):
    """backward with something else made of the gradients of one row."""

    def wrong(dr, h, V, items):
        rows, dV = row_sums(items, dr.T @ h, at)
        return dr @ V, rows, dV, row_sums(items, bias(dr), at)[1]

    return wrong


def _bias_by_lanes():
    """The sum over the wrong axis, added up in the ways that there are."""

    def added_at(dr, h, V, items):
        rows, place = np.unique(items, return_inverse=True)
        db = np.zeros(len(rows))
        np.add.at(db, place, dr.sum(axis=1))
        return db

    def in_a_loop(dr, h, V, items):
        db, sums = dr.sum(axis=1), dict.fromkeys(np.unique(items).tolist(), 0.0)
        for c, item in enumerate(items.tolist()):
            sums[item] += db[c]
        return np.array([*sums.values()])

    return Ways(
        but(backward, 3, added_at),
        lambda dr, h, V, items: np.bincount(items, dr.sum(axis=1)),
        but(backward, 3, in_a_loop),
        _backward(bias=lambda dr: dr.sum(axis=1)),
    )


def _by_appearance(dr, h, V, items):
    dh, rows, dV, db = backward(dr, h, V, items)
    order = np.argsort([items.tolist().index(row) for row in rows.tolist()])
    return dh, rows[order], dV[order], db[order]


def _whole_table(dr, h, V, items):
    dh, rows, dV, db = backward(dr, h, V, items)
    table, biases = np.zeros((rows.max() + 1, V.shape[1])), np.zeros(rows.max() + 1)
    table[rows], biases[rows] = dV, db
    return dh, np.arange(rows.max() + 1), table, biases


def _backward_cases(rng):
    # As many columns as lanes once, so that the axes can be mixed up.
    return [
        (rng.normal(size=(3, N)), rng.normal(size=(3, 4)), rng.normal(size=(N, 4)), items)
        for N, items in ((6, np.array([9, 4, 4, 0, 9, 9])), (3, np.array([5, 1, 5])))
    ]


# --- 7.5 ------------------------------------------------------------------------------------------


def _but_own(hit, B):
    """Without the own columns of the first B lanes."""
    hit[np.arange(B), np.arange(B)] = False
    return hit


def collisions(items, B):
    return _but_own(items == items[:B, None], B)


def _any_double(items, B):
    double = (items == items[:, None]).sum(axis=0) > 1
    return np.broadcast_to(double, (B, len(items))).copy()


# --- 7.6 ------------------------------------------------------------------------------------------


def _log_q(of_targets=lambda q, alpha: q, of_samples=lambda q, alpha: alpha * q):
    """log q, with something else made of the logarithms of support."""

    def log_q(log_support, targets, samples, alpha):
        targets, samples = log_support[targets], log_support[samples]
        return np.concatenate([of_targets(targets, alpha), of_samples(samples, alpha)])

    return log_q


def _log_q_cases(rng):
    log_support = np.log(rng.integers(1, 500, 9))
    return [
        (log_support, np.array([3, 0, 3]), np.array([8, 3, 1, 1, 5]), 0.75),
        (log_support, np.array([2, 7]), np.array([4, 2]), 0.3),
    ]


EXERCISES = [
    Exercise(
        number="7.1",
        title="scores of a few items",
        right=scores,
        run=_run_scores,
        cases=_scores_cases,
        mistakes={
            "the bias is missing: + b_y[items]": lambda h, V_y, b_y, items: h @ V_y[items].T,
            "b_y has an entry for each item of the catalogue; the columns want those of `items` "
            "only: + b_y[items]": Ways(
                lambda h, V_y, b_y, items: h @ V_y[items].T + b_y,
                lambda h, V_y, b_y, items: h @ V_y[items].T + b_y[:, None],
            ),
            "V_y[items] is (N, H), and h is (B, H): transposed it gives (B, N), "
            "h @ V_y[items].T": Ways(
                lambda h, V_y, b_y, items: h @ V_y[items],
                lambda h, V_y, b_y, items: np.dot(h, V_y[items]),
                lambda h, V_y, b_y, items: np.einsum("bh,hn->bn", h, V_y[items]),
            ),
            "rows are lanes, so h stands left: h @ V_y[items].T is (B, N), V_y[items] @ h.T is "
            "(N, B)": lambda h, V_y, b_y, items: V_y[items] @ h.T + b_y[items],
            "`items` comes before .T: V_y[items].T. V_y.T[items] takes rows of the transposed "
            "table, and that has only H": (lambda h, V_y, b_y, items: V_y.T[items]),
            "that is a softmax of the scores; the scores themselves are asked for, as the losses "
            "take them": lambda *args: softmax(scores(*args)),
            "these are the biases of the first items of the catalogue, not of those in `items`": (
                lambda h, V_y, b_y, items: h @ V_y[items].T + b_y[: len(items)]
            ),
            "these are the first rows of the catalogue, not the rows `items`": (
                lambda h, V_y, b_y, items: h @ V_y[: len(items)].T + b_y[items]
            ),
            "the columns are sorted; column c must belong to items[c]": (
                lambda h, V_y, b_y, items: h @ V_y[np.sort(items)].T + b_y[np.sort(items)]
            ),
        },
        hints=[
            "An array indexed by an array of numbers gives those rows, repeated ones repeatedly.",
            "V_y[items] is (N, H). Which product of h (B, H) with it is (B, N)?",
            "h @ V_y[items].T + b_y[items]",
        ],
    ),
    Exercise(
        number="7.2",
        title="the distribution of the extra samples",
        right=batches.negative_distribution,
        # Of 10 times 0.1 the running sum ends below 1.
        cases=lambda rng: [
            (rng.integers(1, 300, n), alpha) for n, alpha in ((12, 0.75), (10, 0.0), (12, 1.0))
        ],
        goal=_ends_at_one,
        mistakes={
            "these are the probabilities; their running sum is asked, np.cumsum": (
                lambda support, alpha: support**alpha / (support**alpha).sum()
            ),
            "the power comes after the sum: (a + b)^alpha is not a^alpha + b^alpha": (
                lambda support, alpha: _cumulative(support) ** alpha
            ),
            "it is divided by the sum before the power, and no longer ends at 1: the power first": (
                lambda support, alpha: np.cumsum((support / support.sum()) ** alpha)
            ),
            "it does not end at 1: divide by the sum": (
                lambda support, alpha: np.cumsum(support.astype(float) ** alpha)
            ),
            "sample_alpha is not used; the weights are support ** sample_alpha": (
                lambda support, alpha: _cumulative(support)
            ),
            "support is multiplied by sample_alpha, which cancels, and makes NaN where it is 0; it "
            "is raised to it: support ** sample_alpha": Ways(
                lambda support, alpha: _cumulative(alpha * support),
                lambda support, alpha: np.cumsum(alpha * support),
                lambda support, alpha: np.cumsum(alpha * support) / support.sum(),
            ),
            "support is sorted first; entry i belongs to item i, so its order stays. The running "
            "sum ascends by itself": Ways(
                lambda support, alpha: _cumulative(np.sort(support) ** alpha),
                lambda support, alpha: _cumulative(np.sort(support)[::-1] ** alpha),
            ),
            "the running sum of the powers is divided by the sum of support itself; it ends at 1 "
            "if you divide by the sum of the powers, its own last entry": (
                lambda support, alpha: np.cumsum(support**alpha) / support.sum()
            ),
            "a 0 stands in front, so there are I + 1 entries; F has I, and entry 0 is item 0's "
            "probability": lambda support, alpha: np.append(0, _cumulative(support**alpha)),
            "it ends at 1, but starts at 0: entry i is the sum up to and with item i": (
                lambda support, alpha: np.concatenate([[0], _cumulative(support**alpha)[:-1]])
            ),
        },
        hints=[
            "Three steps: weights, running sum, divide so that it ends at 1.",
            "weights = support ** sample_alpha; np.cumsum(weights).",
        ],
    ),
    Exercise(
        number="7.3",
        title="drawing by the inverse of the distribution",
        right=draw,
        cases=_draw_cases,
        mistakes={
            "where u is just a bound, it belongs to the next item, as item i's part is "
            '[F[i-1], F[i]): side="right". With "left" u = 0 draws an item that has no part': (
                lambda u, F: np.searchsorted(F, u)
            ),
            "one too low: the first i with u < F[i] is the item itself": (
                lambda u, F: np.searchsorted(F, u, side="right") - 1
            ),
            "one too high: searchsorted counts from 0, as items do": (
                lambda u, F: np.searchsorted(F, u, side="right") + 1
            ),
            "the distribution is not used: all items are equally likely": (
                lambda u, F: (u * len(F)).astype(int)
            ),
            "the first argument of np.searchsorted is what is searched, F, the second what is "
            "looked for, u": Ways(
                lambda u, F: np.searchsorted(u, F, side="right"),
                lambda u, F: np.searchsorted(u.ravel(), F, side="right"),
                lambda u, F: np.searchsorted(u.ravel(), F),
            ),
            "each u is to be compared with all of F, on an axis of its own: u[..., None] < F, then "
            "argmax(axis=-1); or np.searchsorted": Ways(
                lambda u, F: np.argmax(u < F),
                lambda u, F: np.argmax(u[..., None] < F),
                lambda u, F: np.argmax(u[..., None] < F, axis=0),
                lambda u, F: np.argmax(u[:, None] < F),
            ),
            "that is the nearest bound; asked is the part that u lies in": (
                lambda u, F: np.abs(F - u[..., None]).argmin(axis=-1)
            ),
        },
        hints=[
            "Find the first item whose F is larger than u.",
            "F ascends, so this is a binary search; NumPy has it, np.searchsorted, and it takes "
            "arrays of any shape for u.",
            'Try F = [0, 0.5, 1] and u = 0: the answer must be 1. Which side, "left" or "right"?',
        ],
    ),
    Exercise(
        number="7.4",
        title="back from the scores, items that repeat",
        right=backward,
        cases=_backward_cases,
        parts=("dh", "rows", "dV", "db"),
        mistakes={
            "an item that occurs more than once gets the gradient of its last column only; "
            "they must be added (dV[place] += ... does not, np.add.at does)": _backward(
                lambda x: x[-1]
            ),
            "an item that occurs more than once gets the gradient of its first column only": (
                _backward(lambda x: x[0])
            ),
            "an item's gradients are averaged over its columns; they add up": _backward(
                lambda x: x.mean(axis=0)
            ),
            "nothing is summed: one row for each column. Each item may come once": (
                lambda dr, h, V, items: (dr @ V, items, dr.T @ h, dr.sum(axis=0))
            ),
            "items are numbers of the whole table. V has the N rows already gathered, and so does "
            "dV: row c belongs to items[c]. Do not index them by items": Ways(
                lambda dr, h, V, items: dr @ V[items],
                lambda dr, h, V, items: dr[:, items] @ V,
                lambda dr, h, V, items: dr @ V[np.unique(items)],
            ),
            "db sums over the wrong axis: the bias of a column is added in each lane, so it gets "
            "the sum over the lanes, dr.sum(axis=0)": _bias_by_lanes(),
            "the items are in the order in which they appear; asked is ascending, as np.unique "
            "gives them": _by_appearance,
            "that has a row for every number up to the largest item; asked are the rows of the "
            "distinct items only": _whole_table,
            "db is the mean over the lanes; the bias is added in each, so the lanes' sum": (
                _backward(bias=lambda dr: dr.mean(axis=0))
            ),
        },
        hints=[
            "r = h Vᵀ + b. So dh = dr V, dV = drᵀ h, and db sums dr over the lanes.",
            "Then sum what belongs to one item: rows, place = np.unique(items, "
            "return_inverse=True).",
            "sums = np.zeros((len(rows), H)); np.add.at(sums, place, dV). The same for db.",
        ],
    ),
    Exercise(
        number="7.5",
        title="collisions",
        right=collisions,
        cases=lambda rng: [
            (np.array([3, 7, 3, 1, 3, 9, 1, 9]), 4),
            (np.array([5, 2, 2, 5, 0]), 2),
        ],
        mistakes={
            "a lane's own column is marked as well: there the target is no negative, it is False": (
                lambda items, B: items == items[:B, None]
            ),
            "other lanes' targets are negatives too: lanes 0 and 2 may ask for the same item": (
                lambda items, B: collisions(items, B) & (np.arange(len(items)) >= B)
            ),
            "the extra samples are negatives too, not the lanes' targets only": (
                lambda items, B: collisions(items, B) & (np.arange(len(items)) < B)
            ),
            "every item that repeats is marked in every lane; a lane looks for its own target": (
                _any_double
            ),
            "it is the wrong way round: True where there is a collision": Ways(
                lambda items, B: ~collisions(items, B),
                lambda items, B: _but_own(items != items[:B, None], B),
            ),
            "there is a row for each column; asked is one for each lane, (B, N): compare with the "
            "lanes' targets, items[:B, None]": Ways(
                lambda items, B: _but_own(items == items[:, None], len(items)),
                lambda items, B: _but_own(items == items[:, None], B),
                lambda items, B: items == items[:, None],
            ),
            "columns are compared with lanes entry by entry; give the lanes an axis of their own, "
            "items[:B, None]": (lambda items, B: items == items[:B]),
            "the axes have changed places; there is a row for each lane, (B, N)": (
                lambda items, B: collisions(items, B).T
            ),
        },
        hints=[
            "Lane b's target is items[b]. Compare it with all columns, all lanes at once.",
            "items[:B, None] is (B, 1), items is (N,): == gives (B, N).",
            "Then the lanes' own columns, [b, b], are set to False: hit[range(B), range(B)].",
        ],
    ),
    Exercise(
        number="7.6",
        title="log q",
        right=scoring.log_proposal,
        cases=_log_q_cases,
        mistakes={
            "alpha is for the extra samples only: the lanes' targets come as the clicks do": _log_q(
                of_targets=lambda q, alpha: alpha * q
            ),
            "the extra samples were drawn by support^alpha: times alpha": _log_q(
                of_samples=lambda q, alpha: q
            ),
            "alpha is at the targets; it belongs to the extra samples": _log_q(
                lambda q, alpha: alpha * q, lambda q, alpha: q
            ),
            "the samples come first; the columns are the targets', then the samples'": (
                lambda log_support, targets, samples, alpha: np.concatenate(
                    [alpha * log_support[samples], log_support[targets]]
                )
            ),
            "the logarithm of a power is alpha times the logarithm, not the logarithm to alpha": (
                _log_q(of_samples=lambda q, alpha: np.maximum(q, 0) ** alpha)
            ),
            "the targets have a log q too, that of q = support: they are the others' negatives": (
                _log_q(of_targets=lambda q, alpha: np.zeros_like(q))
            ),
            "it is right but for a constant in each group: each q is divided by its sum, which is "
            "left out here": (
                lambda log_support, targets, samples, alpha: np.concatenate(
                    [
                        log_support[targets] - np.log(np.exp(log_support).sum()),
                        alpha * log_support[samples] - np.log(np.exp(alpha * log_support).sum()),
                    ]
                )
            ),
            "the argument log_support is a logarithm already; you take the logarithm again": Ways(
                _log_q(lambda q, alpha: np.log(q), lambda q, alpha: alpha * np.log(q)),
                _log_q(of_samples=lambda q, alpha: alpha * np.log(q)),
                _log_q(of_targets=lambda q, alpha: np.log(q)),
                _log_q(lambda q, alpha: np.log(q), lambda q, alpha: np.log(alpha * q)),
                _log_q(of_samples=lambda q, alpha: np.log(q**alpha)),
                _log_q(lambda q, alpha: np.log(q), lambda q, alpha: np.log(q**alpha)),
            ),
            "log alpha is added, as if q were alpha times support; q is support to alpha, so its "
            "logarithm is multiplied by alpha": _log_q(
                of_samples=lambda q, alpha: np.log(alpha) + q
            ),
            "+ adds the two; they are put one after the other: np.concatenate([a, b])": (
                lambda log_support, targets, samples, alpha: (
                    log_support[targets] + alpha * log_support[samples]
                )
            ),
            "np.concatenate takes one list of the arrays: np.concatenate([a, b])": (
                lambda log_support, targets, samples, alpha: np.concatenate(
                    log_support[targets], alpha * log_support[samples]
                )
            ),
            "support itself is given, where its logarithm is asked": (
                lambda *args: np.exp(scoring.log_proposal(*args))
            ),
        },
        hints=[
            "log_support[items] is log q for q = support.",
            "log(support^alpha) = alpha log(support).",
            "np.concatenate of the targets' and the samples'.",
        ],
    ),
]
