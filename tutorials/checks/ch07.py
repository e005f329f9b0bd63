"""Exercises of notebook 7, sampling the output: scores of few items, draws, collisions, logQ."""

from types import SimpleNamespace

import numpy as np

from checks import Exercise, Wrong
from checks.common import softmax
from gru4rec_np.data import batches
from gru4rec_np.ops import optim, scoring
from solutions import ch07

# --- 7.1 ------------------------------------------------------------------------------------------


def scores(h, V_y, b_y, items):
    return scoring.scores(h, V_y, b_y, items)[0]


_MANY = 37  # items
_PRODUCTS = (np.dot, np.vdot, np.inner, np.tensordot, np.einsum)


class _Watched(np.ndarray):
    """An array that will not take part in arithmetic with all items. Looking rows up is free."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        _few_items(inputs)
        if out is not None:  # or this method would be called again for it
            kwargs["out"] = tuple(x if x is None else np.asarray(x) for x in out)
        return getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if function in _PRODUCTS:
            _few_items((*args, *kwargs.values()))
        return super().__array_function__(function, types, args, kwargs)

    def dot(self, other, out=None):  # of an array, it does not come to __array_function__
        return np.dot(self, other, out)


def _few_items(arrays):
    if any(_MANY in x.shape for x in arrays if isinstance(x, np.ndarray)):
        raise Wrong(
            f"it computes with all {_MANY} items and picks some then, which is what should be "
            "spared: look the rows up first, V_y[items]"
        )


def _run_scores(answer, args):
    h, V_y, b_y, items = args
    found = answer(h.view(_Watched), V_y.view(_Watched), b_y, items)
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


SUM_BIASES = "np.add.at(db, place, dr.sum(axis=0))"


# --- 7.5 ------------------------------------------------------------------------------------------


HIDE_OWN = "    hit[range(B), range(B)] = False\n"


def _any_double(items, B):
    double = (items == items[:, None]).sum(axis=0) > 1
    return np.broadcast_to(double, (B, len(items))).copy()


# --- 7.6 ------------------------------------------------------------------------------------------


OF_SAMPLES = "sample_alpha * log_support[samples]"


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
        solution=ch07.scores,
        mistakes={
            "the bias is missing: + b_y[items]": {" + b_y[items]": ""},
            "b_y has an entry for each item of the catalogue; the columns want those of `items` "
            "only: + b_y[items]": [{"b_y[items]": "b_y"}, {"b_y[items]": "b_y[:, None]"}],
            "V_y[items] is (N, H), and h is (B, H): transposed it gives (B, N), h @ V_y[items].T": [
                {"V_y[items].T": "V_y[items]"},
                {"h @ V_y[items].T": "np.dot(h, V_y[items])"},
                {"h @ V_y[items].T": "np.einsum('bh,hn->bn', h, V_y[items])"},
            ],
            "rows are lanes, so h stands left: h @ V_y[items].T is (B, N), V_y[items] @ h.T is "
            "(N, B)": {"h @ V_y[items].T": "V_y[items] @ h.T"},
            "`items` comes before .T: V_y[items].T. V_y.T[items] takes rows of the transposed "
            "table, and that has only H": {"V_y[items].T": "V_y.T[items]"},
            "that is a softmax of the scores; the scores themselves are asked for, as the losses "
            "take them": lambda *args: softmax(scores(*args)),
            "these are the biases of the first items of the catalogue, not of those in `items`": {
                "b_y[items]": "b_y[: len(items)]"
            },
            "these are the first rows of the catalogue, not the rows `items`": {
                "V_y[items]": "V_y[: len(items)]"
            },
            "the columns are sorted; column c must belong to items[c]": {
                "    return": "    items = np.sort(items)\n    return"
            },
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
        solution=ch07.negative_distribution,
        mistakes={
            "these are the probabilities; their running sum is asked, np.cumsum": {
                "np.cumsum": "",
                "cumulative[-1]": "cumulative.sum()",
            },
            "the power comes after the sum: (a + b)^alpha is not a^alpha + b^alpha": {
                "**sample_alpha": "",
                "cumulative / cumulative[-1]": "(cumulative / cumulative[-1]) ** sample_alpha",
            },
            "it is divided by the sum before the power, and no longer ends at 1: the power first": {
                "support**": "(support / support.sum()) ** ",
                " / cumulative[-1]": "",
            },
            "it does not end at 1: divide by the sum": {" / cumulative[-1]": ""},
            "sample_alpha is not used; the weights are support ** sample_alpha": {
                "**sample_alpha": ""
            },
            "support is multiplied by sample_alpha, which cancels, and makes NaN where it is 0; it "
            "is raised to it: support ** sample_alpha": [
                {"**": " * "},
                {"**": " * ", " / cumulative[-1]": ""},
                {"**": " * ", "cumulative[-1]": "support.sum()"},
            ],
            "support is sorted first; entry i belongs to item i, so its order stays. The running "
            "sum ascends by itself": [
                {"support**": "np.sort(support) ** "},
                {"support**": "np.sort(support)[::-1] ** "},
            ],
            "the running sum of the powers is divided by the sum of support itself; it ends at 1 "
            "if you divide by the sum of the powers, its own last entry": {
                "cumulative[-1]": "support.sum()"
            },
            "a 0 stands in front, so there are I + 1 entries; F has I, and entry 0 is item 0's "
            "probability": {"return cumulative": "return np.append(0, cumulative)"},
            "it ends at 1, but starts at 0: entry i is the sum up to and with item i": {
                "return cumulative": "return np.append(0, cumulative[:-1])"
            },
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
        solution=ch07.draw,
        mistakes={
            "where u is just a bound, it belongs to the next item, as item i's part is "
            '[F[i-1], F[i]): side="right". With "left" u = 0 draws an item that has no part': {
                ', side="right"': ""
            },
            "one too low: the first i with u < F[i] is the item itself": {
                'side="right")': 'side="right") - 1'
            },
            "one too high: searchsorted counts from 0, as items do": {
                'side="right")': 'side="right") + 1'
            },
            "the distribution is not used: all items are equally likely": (
                lambda u, F: (u * len(F)).astype(int)
            ),
            "the first argument of np.searchsorted is what is searched, F, the second what is "
            "looked for, u": [
                {"distribution, u": "u, distribution"},
                {"distribution, u": "u.ravel(), distribution"},
                {'distribution, u, side="right"': "u.ravel(), distribution"},
            ],
            "each u is to be compared with all of F, on an axis of its own: u[..., None] < F, then "
            "argmax(axis=-1); or np.searchsorted": [
                lambda u, F: np.argmax(u < F),
                lambda u, F: np.argmax(u[..., None] < F),
                lambda u, F: np.argmax(u[..., None] < F, axis=0),
                lambda u, F: np.argmax(u[:, None] < F),
            ],
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
        solution=ch07.backward,
        mistakes={
            "an item that occurs more than once gets the gradient of its last column only; "
            "they must be added (dV[place] += ... does not, np.add.at does)": {
                "np.add.at(dV, place, dr.T @ h)": "dV[place] += dr.T @ h",
                "np.add.at(db, place, dr.sum(axis=0))": "db[place] += dr.sum(axis=0)",
            },
            "an item that occurs more than once gets the gradient of its first column only": {
                "np.add.at(dV, place, dr.T @ h)": "dV[place[::-1]] = (dr.T @ h)[::-1]",
                "np.add.at(db, place, dr.sum(axis=0))": "db[place[::-1]] = dr.sum(axis=0)[::-1]",
            },
            "an item's gradients are averaged over its columns; they add up": {
                "rows, dV, db": "rows, dV / np.bincount(place)[:, None], db / np.bincount(place)"
            },
            "nothing is summed: one row for each column. Each item may come once": (
                lambda dr, h, V, items: (dr @ V, items, dr.T @ h, dr.sum(axis=0))
            ),
            "items are numbers of the whole table. V has the N rows already gathered, and so does "
            "dV: row c belongs to items[c]. Do not index them by items": [
                {"@ V": "@ V[items]"},
                {"dr @ V": "dr[:, items] @ V"},
                {"@ V": "@ V[rows]"},
            ],
            "db sums over the wrong axis: the bias of a column is added in each lane, so it gets "
            "the sum over the lanes, dr.sum(axis=0)": [
                {"dr.sum(axis=0)": "dr.sum(axis=1)"},
                {SUM_BIASES: "db = np.bincount(items, dr.sum(axis=1))"},
                {SUM_BIASES: "for c, at in enumerate(place): db[at] += dr.sum(axis=1)[c]"},
                {SUM_BIASES: "db = np.array([dr.sum(axis=1)[items == row].sum() for row in rows])"},
            ],
            "the items are in the order in which they appear; asked is ascending, as np.unique "
            "gives them": _by_appearance,
            "that has a row for every number up to the largest item; asked are the rows of the "
            "distinct items only": _whole_table,
            "db is the mean over the lanes; the bias is added in each, so the lanes' sum": {
                "dr.sum": "dr.mean"
            },
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
        right=ch07.collisions,
        cases=lambda rng: [
            (np.array([3, 7, 3, 1, 3, 9, 1, 9]), 4),
            (np.array([5, 2, 2, 5, 0]), 2),
        ],
        mistakes={
            "a lane's own column is marked as well: there the target is no negative, it is False": {
                HIDE_OWN: ""
            },
            "other lanes' targets are negatives too: lanes 0 and 2 may ask for the same item": {
                "return hit": "return hit & (np.arange(len(items)) >= B)"
            },
            "the extra samples are negatives too, not the lanes' targets only": {
                "return hit": "return hit & (np.arange(len(items)) < B)"
            },
            "every item that repeats is marked in every lane; a lane looks for its own target": (
                _any_double
            ),
            "it is the wrong way round: True where there is a collision": [
                {"return hit": "return ~hit"},
                {"==": "!="},
            ],
            "there is a row for each column; asked is one for each lane, (B, N): compare with the "
            "lanes' targets, items[:B, None]": [
                {"[:B, None]": "[:, None]", HIDE_OWN: "    np.fill_diagonal(hit, False)\n"},
                {"[:B, None]": "[:, None]"},
                {"[:B, None]": "[:, None]", HIDE_OWN: ""},
            ],
            "columns are compared with lanes entry by entry; give the lanes an axis of their own, "
            "items[:B, None]": {"[:B, None]": "[:B]"},
            "the axes have changed places; there is a row for each lane, (B, N)": {
                "return hit": "return hit.T"
            },
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
        solution=ch07.log_q,
        mistakes={
            "alpha is for the extra samples only: the lanes' targets come as the clicks do": {
                "[log_support[": "[sample_alpha * log_support["
            },
            "the extra samples were drawn by support^alpha: times alpha": {"sample_alpha * ": ""},
            "alpha is at the targets; it belongs to the extra samples": {
                ", sample_alpha * ": ", ",
                "[log_support[": "[sample_alpha * log_support[",
            },
            "the samples come first; the columns are the targets', then the samples'": {
                "[log_support[targets], ": "[",
                "[samples]])": "[samples], log_support[targets]])",
            },
            "the logarithm of a power is alpha times the logarithm, not the logarithm to alpha": {
                OF_SAMPLES: "np.maximum(log_support[samples], 0) ** sample_alpha"
            },
            "the targets have a log q too, that of q = support: they are the others' negatives": {
                "[log_support[targets]": "[0 * targets"
            },
            "it is right but for a constant in each group: each q is divided by its sum, which is "
            "left out here": {
                "[targets]": "[targets] - np.log(np.exp(log_support).sum())",
                "[samples]": "[samples] - np.log(np.exp(sample_alpha * log_support).sum())",
            },
            "the argument log_support is a logarithm already; you take the logarithm again": [
                {
                    "log_support[targets]": "np.log(log_support[targets])",
                    "log_support[samples]": "np.log(log_support[samples])",
                },
                {"log_support[samples]": "np.log(log_support[samples])"},
                {"log_support[targets]": "np.log(log_support[targets])"},
                {
                    "log_support[targets]": "np.log(log_support[targets])",
                    OF_SAMPLES: "np.log(sample_alpha * log_support[samples])",
                },
                {OF_SAMPLES: "np.log(log_support[samples] ** sample_alpha)"},
                {
                    "log_support[targets]": "np.log(log_support[targets])",
                    OF_SAMPLES: "np.log(log_support[samples] ** sample_alpha)",
                },
            ],
            "log alpha is added, as if q were alpha times support; q is support to alpha, so its "
            "logarithm is multiplied by alpha": {"sample_alpha *": "np.log(sample_alpha) +"},
            "+ adds the two; they are put one after the other: np.concatenate([a, b])": {
                "[targets], ": "[targets] + "
            },
            "np.concatenate takes one list of the arrays: np.concatenate([a, b])": {
                "concatenate([": "concatenate(",
                "]])": "])",
            },
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
