"""Exercises of notebook 3, recurrence: one step of each cell, the row look-up, the two z's."""

import itertools
from functools import partial

import numpy as np

from checks import Exercise
from gru4rec_np.ops import cells
from solutions import ch03

# --- the cells ------------------------------------------------------------------------------------


def _rnn(xW, h, U, b):
    return cells.rnn(xW, h, U, b)[0]


def _gru(xW, h, U, b):
    return cells.gru(xW, h, U, b)[0]


# As they stand in front of the columns [r | z | n]: which of the blocks is taken for r, z and n.
# [z | r | n] and [r | z | n] itself are not among them.
OTHER_ORDERS = [order for order in itertools.permutations(range(3)) if order[2] != 2]


def _in_other_orders(cell):
    """A cell that takes the thirds of its columns in another order, any of those above."""

    def in_order(order, xW, h, *weights):
        thirds = [np.split(weight, 3, axis=-1) for weight in (xW, *weights)]
        xW, *weights = (np.concatenate([t[i] for i in order], axis=-1) for t in thirds)
        return cell(xW, h, *weights)

    return [partial(in_order, order) for order in OTHER_ORDERS]


WITHOUT_AXIS = "np.split cuts the rows if it is not told an axis; gates are columns: axis=1"
BIAS_BY_COLUMNS = "a bias has one axis, so there are no columns: np.split(b, 3), which is axis=0"


def _split_bias_by_columns(at):
    """The errors of a bias, argument number `at`, that is cut as a matrix is."""
    return [
        lambda *args: np.split(args[at], 3, axis=1),
        lambda *args: args[at][:, :1],
    ]


def _lstm(xW, hc, U, b):
    return cells.lstm(xW, hc, U, b)[0]


def _reset_after(xW, h, U, b, c):
    return cells.gru_reset_after(xW, h, U, b, c)[0]


def _cell_cases(gates, states, biases=1, sizes=((4, 5), (2, 3))):
    """Arguments of a cell with this many gates and states, lanes and units unlike in number.

    The first lanes and units are no multiples of the gates or states: so whatever is split by rows
    stops at once.
    """

    def cases(rng):
        out = []
        for B, H in sizes:
            xW, U = rng.normal(size=(B, gates * H)), rng.normal(size=(H, gates * H))
            b = rng.normal(size=(biases, gates * H))
            out.append((xW, rng.normal(size=(B, states * H)), U, *b))
        return out

    return cases


# --- the two z's ----------------------------------------------------------------------------------


def _z_negated(W, U, b):
    thirds = (np.split(weight, 3, axis=-1) for weight in (W, U, b))
    return tuple(np.concatenate([r, -z, n], axis=-1) for r, z, n in thirds)


def _z_cases(rng):
    return [tuple(rng.normal(size=s) for s in ((7, 3 * H), (H, 3 * H), 3 * H)) for H in (2, 3)]


def _look_up_cases(rng):
    # No lane is at row 1 of the second table: a product turns its infinity into NaN.
    tables = [rng.normal(size=(5, 6)) for _ in range(2)]
    tables[1][1] = np.inf
    return [(np.array([4, 0, 4, 2]), W) for W in tables]


EXERCISES = [
    Exercise(
        number="3.1",
        title="one step of the simple recurrent network",
        right=_rnn,
        # Square, so that a product taken wrongly has a name and is not just an exception.
        cases=_cell_cases(1, 1, sizes=((3, 3), (5, 5))),
        solution=ch03.rnn,
        mistakes={
            "the sum is right, tanh of it is missing": {"np.tanh": ""},
            "b is added after tanh; it belongs inside": {"h @ U + b)": "h @ U) + b"},
            "b is missing": {" + b": ""},
            "rows are lanes, so the state stands left: h @ U; you multiply by U transposed": {
                "h @ U": "h @ U.T"
            },
            "the old state is left out: without h U nothing is remembered": {" + h @ U": ""},
            "h is added as it is; it must go through U": {"h @ U": "h"},
            "rows are lanes, so the state stands left: h @ U; you have U @ h": {"h @ U": "U @ h"},
            "* multiplies entry by entry; the matrix product is @": {"@": "*"},
            "there is one tanh, around the whole sum": {
                "np.tanh(xW + h @ U + b)": "np.tanh(xW) + np.tanh(h @ U + b)"
            },
            "xW is the product already, it only needs adding; it is h that goes through U": {
                "xW + h @ U": "xW @ U + h"
            },
            "xW is the product of x and W already; it is h that is multiplied by U, h @ U": [
                {"xW + h @ U": "xW @ U"},
                {"h @ U": "xW @ U"},
                {"xW + h @ U": "(xW + h) @ U"},
                {"xW + h": "xW @ h + h"},
            ],
            "xW and h U are added, not multiplied: xW + h @ U + b": [
                {"xW + h": "xW * h"},
                {"xW + h @ U": "xW * (h @ U)"},
                {"xW + h @ U": "xW * h"},
                {"xW + h @ U": "xW * h + U"},
                {"xW + h @ U": "xW @ (h @ U)"},
            ],
            "that is σ; here it is tanh": {"np.tanh": "sigmoid"},
        },
        hints=[
            "Three things are added up: xW, the product of h and U, and b.",
            "@ is the matrix product, and np.tanh works on every entry.",
            "np.tanh(xW + h @ U + b)",
        ],
    ),
    Exercise(
        number="3.2",
        title="a product with 1-of-N vectors as a row look-up",
        right=lambda x, W: W[x],
        cases=_look_up_cases,
        solution=ch03.look_up,
        mistakes={
            "that is the long product still: where no lane is at a row with an inf, 0 * inf made "
            "NaN; take the rows themselves": {"W[x]": "np.eye(len(W))[x] @ W"},
            "those are columns; an item is a row of W": [{"W[x]": "W[:, x]"}, {"W[x]": "W.T[x]"}],
            "x holds item numbers, not the 1-of-N vectors themselves, so it cannot be multiplied "
            "with W; take the rows with these numbers, W[x]": [
                {"W[x]": "x @ W"},
                {"W[x]": "np.dot(x, W)"},
                {"W[x]": "x * W"},
                {"W[x]": "x[:, None] * W"},
                {"W[x]": "x[:, None] @ W"},
            ],
            "items are counted from 0, as rows are; yours are one too low": {"W[x]": "W[x - 1]"},
            "items are counted from 0, as rows are; yours are one too high": {
                "W[x]": "np.roll(W, -1, axis=0)[x]"
            },
            "each item is there once; two lanes may be at the same item, each wants its row": {
                "W[x]": "W[np.unique(x)]"
            },
            "the rows are in the order of the table; they must be in that of the lanes": {
                "W[x]": "W[np.sort(x)]"
            },
            "the rows are added up; each lane wants its own": {"W[x]": "W[x].sum(axis=0)"},
        },
        hints=[
            "A 1-of-N vector times W: all of W's rows times 0, but for one.",
            "NumPy takes an array of row numbers between the brackets.",
            "return W[x]",
        ],
    ),
    Exercise(
        number="3.3",
        title="one step of the GRU",
        right=_gru,
        cases=_cell_cases(3, 1),
        solution=ch03.gru,
        mistakes={
            "z is the share of the candidate n here, 1 - z that of the old state; you have them the"
            " other way round": {"(1 - z) * h + z * n": "z * h + (1 - z) * n"},
            "r is applied after the product; here it multiplies h before it, (r*h) @ U_n": {
                "(r * h) @ U_n": "r * (h @ U_n)"
            },
            "r is not used: the candidate sees r*h, not h": {"(r * h)": "h"},
            "the candidate sees r*h; you have z*h": {"(r * h)": "(z * h)"},
            "r and z have changed places: the columns' order is [r | z | n], r goes into the"
            " candidate, z into the mix": {
                "(r * h)": "(z * h)",
                "(1 - z) * h + z * n": "(1 - r) * h + r * n",
            },
            "the columns' order is [r | z | n]; you take them in another": _in_other_orders(_gru),
            "r multiplies the old state only, not x W_n": [
                {"xW_n + (r * h) @ U_n": "r * (xW_n + h @ U_n)"},
                {"xW_n + (r * h) @ U_n + b_n": "r * (xW_n + h @ U_n + b_n)"},
            ],
            "r multiplies the whole candidate; it belongs inside tanh, at h only: (r*h) @ U_n": {
                "np.tanh(xW_n + (r * h) @ U_n + b_n)": "r * np.tanh(xW_n + h @ U_n + b_n)"
            },
            "h @ U has the columns of r, z and n; each wants its own third, as in h @ U_r": {
                "h @ U_z": "h @ U"
            },
            BIAS_BY_COLUMNS: _split_bias_by_columns(3),
            WITHOUT_AXIS: {"np.split(xW, 3, axis=1)": "np.split(xW, 3)"},
            "the candidate's tanh is missing": {"np.tanh": ""},
            "r and z are sums that have not gone through σ": {
                "r = sigmoid": "r = ",
                "z = sigmoid": "z = ",
            },
            "r is a sum that has not gone through σ": {"r = sigmoid": "r = "},
            "z is a sum that has not gone through σ": {"z = sigmoid": "z = "},
            "(1-z)*h is missing: what is not renewed stays": {"(1 - z) * h + ": ""},
            "b is missing": {"np.split(b, 3)": "0, 0, 0"},
            "r only decides what the candidate sees; the part that is kept is (1-z)*h": {
                "(1 - z) * h": "(1 - z) * r * h"
            },
            "the old state is kept whole; its share is 1 - z": {"(1 - z) * h": "h"},
            "gates are between 0 and 1: σ, not tanh": [
                {"r = sigmoid": "r = np.tanh", "z = sigmoid": "z = np.tanh"},
                {"r = sigmoid": "r = np.tanh"},
                {"z = sigmoid": "z = np.tanh"},
            ],
            "the candidate has tanh, not σ: a state may be negative": {"np.tanh": "sigmoid"},
        },
        hints=[
            "xW_r, xW_z, xW_n = np.split(xW, 3, axis=1); U and b can be split likewise"
            " (b with axis=0).",
            "r = sigmoid(xW_r + h @ U_r + b_r), z likewise.",
            "n = np.tanh(xW_n + (r * h) @ U_n + b_n)",
            "return (1 - z) * h + z * n",
        ],
    ),
    Exercise(
        number="3.4",
        title="weights for the other z",
        right=_z_negated,
        cases=_z_cases,
        parts=("W", "U", "b"),
        solution=ch03.for_the_other_z,
        mistakes={
            "1 - σ(a) = σ(-a): what goes into σ changes its sign, so -w, not 1 - w": {
                "*= -1": "= 1 - weight[..., H : 2 * H]"
            },
            "only z changes its meaning; you have negated r and n too": {"H : 2 * H": ":"},
            "those are r's columns, the first third; z's are the middle one": {"H : 2 * H": ":H"},
            "those are n's columns, the last third; z's are the middle one": {
                "H : 2 * H": "2 * H :"
            },
            # Before the rows: U has only H of them, so its rows H to 2H are none.
            "it is as it was; all three go into σ, so all three are negated, in the columns "
            "[:, H : 2 * H]": {"*= -1": "*= 1"},
            "W has a row for each item, so len(W) is I; H is len(U), the number of units": {
                "len(U)": "len(W)"
            },
            "those are rows; a gate is a block of columns, [:, H : 2 * H]": {
                "[..., H : 2 * H] *=": "[H : 2 * H] *="
            },
        },
        hints=[
            "The other z is one minus yours. Which a gives σ(a) = 1 - σ(a before)?",
            "σ(-a) = 1 - σ(a), and a = x W_z + h U_z + b_z: negate all three.",
            "A copy of W, then its columns H to 2H times -1; U and b likewise. H = len(U).",
        ],
    ),
    Exercise(
        number="3.5",
        title="one step of the LSTM",
        right=_lstm,
        cases=_cell_cases(4, 2, sizes=((3, 5), (4, 3))),
        solution=ch03.lstm,
        mistakes={
            "i and f are swapped; the columns' order is [i | f | o | n]": {
                "a_i, a_f,": "a_f, a_i,"
            },
            "o and n are swapped; the columns' order is [i | f | o | n]": {"a_o, a_n": "a_n, a_o"},
            "the memory shows through tanh: h' = o*tanh(c')": {"np.tanh(c_new)": "c_new"},
            "the order of what is returned is [h' | c']": {
                "o * np.tanh(c_new), c_new": "c_new, o * np.tanh(c_new)"
            },
            "h and c are swapped: the first half of hc is h": {"h, c =": "c, h ="},
            "f is the share that stays: f*c, not (1-f)*c": {"f * c": "(1 - f) * c"},
            "the state is one array, [h' | c']: np.hstack puts the two side by side": [
                {"np.hstack": "tuple"},
                {"np.hstack": "np.array"},
                {"np.hstack": "np.vstack"},
            ],
            "np.split cuts the rows if it is not told an axis; h, c and the gates are columns: "
            "axis=1": lambda xW, hc, U, b: np.split(hc, 2),
            "h is the first H of hc's 2 * H columns; only h goes through U": {"h @ U": "hc @ U"},
            "the forget gate is not used: the old memory's share is f": {"f * c": "c"},
            "that is a GRU's mix; the LSTM has two gates, c' = f*c + i*n": {
                "i * np.tanh": "(1 - f) * np.tanh"
            },
            "the gates look at h, the first half of the state; c is the second": {"h @ U": "c @ U"},
            "the candidate has tanh, not σ": {"np.tanh(a_n)": "sigmoid(a_n)"},
            "h' shows the new memory c', not the old one": {"np.tanh(c_new)": "np.tanh(c)"},
            "the memory is carried on as f*c; h is only what shows of it": {"f * c": "f * h"},
            "that is h'; the state is both, [h' | c'], so that the next step has the memory": {
                "[o * np.tanh(c_new), c_new]": "[o * np.tanh(c_new)]"
            },
            "the second half is the memory c', not h' once more": {
                "[o * np.tanh(c_new), c_new]": "[o * np.tanh(c_new)] * 2"
            },
        },
        hints=[
            "h, c = np.split(hc, 2, axis=1). All gates at once: xW + h @ U + b; split it by 4.",
            "i, f, o go through sigmoid, n through np.tanh.",
            "c_new = f * c + i * n, and what shows of it is o * np.tanh(c_new).",
            "return np.hstack([h_new, c_new])",
        ],
    ),
    Exercise(
        number="3.6",
        title="the GRU with its reset after the product",
        right=_reset_after,
        cases=_cell_cases(3, 1, biases=2),
        solution=ch03.gru_reset_after,
        mistakes={
            "r is applied before the product, as in 3.3; here it is r*(h U_n + c_n)": {
                "r * hU_n": "np.split((r * h) @ U + c, 3, axis=1)[2]"
            },
            "r is not used: it multiplies h U_n + c_n": {"r * hU_n": "hU_n"},
            "c_n is missing: r*(h U_n + c_n)": {"r * hU_n": "r * np.split(h @ U, 3, axis=1)[2]"},
            "c_n belongs inside: r multiplies all of h U_n + c_n": {
                "r * hU_n": "r * np.split(h @ U, 3, axis=1)[2] + np.split(c, 3)[2]"
            },
            "b_n is the input's bias and stays outside: r multiplies h U_n + c_n only": {
                "x_n + r * hU_n": "np.split(xW, 3, axis=1)[2] + r * (hU_n + np.split(b, 3)[2])"
            },
            "x W_n and b_n stay outside: r multiplies h U_n + c_n only": {
                "x_n + r * hU_n": "r * (x_n + hU_n)"
            },
            "the gates r and z have their c too": {
                "+ c": "+ c * (np.arange(len(c)) >= 2 * len(U))"
            },
            "c is missing: it is a second bias, added to h U": {" + c": ""},
            "b is missing: it is the input's bias, added to xW": {" + b": ""},
            "the gates r and z have their b too": {
                "+ b": "+ b * (np.arange(len(b)) >= 2 * len(U))"
            },
            "b_n is missing: it is added to x W_n": {
                "+ b": "+ b * (np.arange(len(b)) < 2 * len(U))"
            },
            "r and z have changed places: the columns' order is [r | z | n], r goes into the "
            "candidate, z into the mix": {"r, z =": "z, r ="},
            "the columns' order is [r | z | n]; you take them in another": _in_other_orders(
                _reset_after
            ),
            "r multiplies the whole candidate; it belongs inside tanh, at h U_n + c_n only": {
                "np.tanh(x_n + r * hU_n)": "r * np.tanh(x_n + hU_n)"
            },
            "r and z are sums that have not gone through σ": {
                "sigmoid(x_r + hU_r), sigmoid(x_z + hU_z)": "x_r + hU_r, x_z + hU_z"
            },
            "the candidate's tanh is missing": {"np.tanh": ""},
            "the candidate has tanh, not σ: a state may be negative": {"np.tanh": "sigmoid"},
            BIAS_BY_COLUMNS: [
                *_split_bias_by_columns(3),
                *_split_bias_by_columns(4),
            ],
            WITHOUT_AXIS: {"xW + b, 3, axis=1": "xW + b, 3"},
            "z is the share of the candidate n here, 1 - z that of the old state": {
                "(1 - z) * h + z * n": "z * h + (1 - z) * n"
            },
        },
        hints=[
            "One product for everything: hU = h @ U + c, split by 3. And xW + b, split by 3.",
            "r and z are sigmoid of the sum of their two parts.",
            "n = np.tanh(x_n + r * hU_n), with x_n the last third of xW + b.",
        ],
    ),
]
