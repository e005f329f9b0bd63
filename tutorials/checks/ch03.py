"""Exercises of notebook 3, recurrence: one step of each cell, the row look-up, the two z's."""

import itertools

import numpy as np

from checks import Exercise, Ways
from gru4rec_np.ops import cells
from gru4rec_np.ops.activations import sigmoid

# --- the cells, and the cells with a mistake in them ----------------------------------------------


def _rnn(xW, h, U, b):
    return cells.rnn(xW, h, U, b)[0]


def _gru(xW, h, U, b):
    return cells.gru(xW, h, U, b)[0]


def _thirds(order, *weights):
    """The thirds of the columns in another order."""
    return (np.concatenate([np.split(w, 3, axis=-1)[i] for i in order], axis=-1) for w in weights)


def _gru_with(wrong):
    def step(xW, h, U, b):
        H = h.shape[1]
        if wrong == "no b":
            b = np.zeros_like(b)
        if isinstance(wrong, tuple):
            xW, U, b = _thirds(wrong, xW, U, b)
        squash = {"tanh gates": np.tanh, "bare gates": np.asarray}.get(wrong, sigmoid)
        a = xW[:, : 2 * H] + h @ U[:, : 2 * H] + b[: 2 * H]
        r, z = np.split(squash(a), 2, axis=1)
        r = {"bare r": a[:, :H], "tanh r": np.tanh(a[:, :H])}.get(wrong, r)
        z = {"bare z": a[:, H:], "tanh z": np.tanh(a[:, H:])}.get(wrong, z)
        U_n = U[:, 2 * H :]
        seen = {
            "reset after": r * (h @ U_n),
            "no r": h @ U_n,
            "z in candidate": (z * h) @ U_n,
        }.get(wrong, (r * h) @ U_n)
        xW_n, b_n = xW[:, 2 * H :], b[2 * H :]
        a_n = {
            "r on x": r * (xW_n + h @ U_n) + b_n,
            "r on sum": r * (xW_n + h @ U_n + b_n),
        }.get(wrong, xW_n + seen + b_n)
        n = {
            "no tanh": a_n,
            "σ candidate": sigmoid(a_n),
            "r on n": r * np.tanh(xW_n + h @ U_n + b_n),
        }.get(wrong, np.tanh(a_n))
        if wrong == "z for h":
            return z * h + (1 - z) * n
        kept = {
            "r*h kept": (1 - z) * r * h,
            "nothing kept": 0,
            "no 1-z": h,
        }.get(wrong, (1 - z) * h)
        return kept + z * n

    return step


# As they stand in front of the columns [r | z | n]: which of the blocks is taken for r, z and n.
# [z | r | n] and [r | z | n] itself are not among them.
OTHER_ORDERS = [order for order in itertools.permutations(range(3)) if order[2] != 2]

WITHOUT_AXIS = "np.split cuts the rows if it is not told an axis; gates are columns: axis=1"
BIAS_BY_COLUMNS = "a bias has one axis, so there are no columns: np.split(b, 3), which is axis=0"


def _split_without_axis(xW, *_):
    return np.split(xW, 3)


def _split_bias_by_columns(at):
    """The errors of a bias, argument number `at`, that is cut as a matrix is."""
    return Ways(
        lambda *args: np.split(args[at], 3, axis=1),
        lambda *args: args[at][:, :1],
    )


def _lstm(xW, hc, U, b):
    return cells.lstm(xW, hc, U, b)[0]


def _lstm_with(wrong):
    def step(xW, hc, U, b):
        h, c = np.split(hc, 2, axis=1)[:: -1 if wrong == "c first" else 1]
        a_i, a_f, a_o, a_n = np.split(xW + (c if wrong == "c in gates" else h) @ U + b, 4, axis=1)
        if wrong == "i and f":
            a_i, a_f = a_f, a_i
        if wrong == "o and n":
            a_o, a_n = a_n, a_o
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)
        n = sigmoid(a_n) if wrong == "σ candidate" else np.tanh(a_n)
        c_new = {
            "no f": c + i * n,
            "f forgets": (1 - f) * c + i * n,
            "1-f": f * c + (1 - f) * n,
            "h for c": f * h + i * n,
        }.get(wrong, f * c + i * n)
        h_new = o * {"no tanh": c_new, "old c": np.tanh(c)}.get(wrong, np.tanh(c_new))
        if wrong == "a pair":
            return h_new, c_new
        state = {"only h": [h_new], "h kept": [h_new, h_new], "order": [c_new, h_new]}
        return np.hstack(state.get(wrong, [h_new, c_new]))

    return step


def _reset_after(xW, h, U, b, c):
    return cells.gru_reset_after(xW, h, U, b, c)[0]


def _reset_after_with(wrong):
    def step(xW, h, U, b, c):
        H = h.shape[1]
        if wrong == "c nowhere":
            c = np.zeros_like(c)
        if wrong == "b nowhere":
            b = np.zeros_like(b)
        if isinstance(wrong, tuple):
            xW, U, b, c = _thirds(wrong, xW, U, b, c)
        in_gates = xW + h @ U + (0 if wrong == "no b" else b) + (0 if wrong == "no c" else c)
        a_r, a_z = np.split(in_gates[:, : 2 * H], 2, axis=1)
        r, z = (a_r, a_z) if wrong == "bare gates" else (sigmoid(a_r), sigmoid(a_z))
        hU_n, b_n, c_n = h @ U[:, 2 * H :], b[2 * H :], c[2 * H :]
        seen = {
            "before": (r * h) @ U[:, 2 * H :] + b_n + c_n,
            "no c_n": b_n + r * hU_n,
            "no b_n": r * (hU_n + c_n),
            "c outside": b_n + r * hU_n + c_n,
            "no r": b_n + hU_n + c_n,
            "b inside": r * (hU_n + b_n + c_n),
            "all inside": r * (xW[:, 2 * H :] + hU_n + b_n + c_n) - xW[:, 2 * H :],
        }.get(wrong, b_n + r * (hU_n + c_n))
        a_n = xW[:, 2 * H :] + seen
        n = {
            "no tanh": a_n,
            "σ candidate": sigmoid(a_n),
            "r on n": r * np.tanh(xW[:, 2 * H :] + b_n + hU_n + c_n),
        }.get(wrong, np.tanh(a_n))
        return z * h + (1 - z) * n if wrong == "z for h" else (1 - z) * h + z * n

    return step


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


def _change(W, U, b, how, block=1):
    """The given block of columns of each changed, the rest as it is."""
    out = []
    for weight in (W, U, b):
        parts = np.split(weight, 3, axis=-1)
        parts[block] = how(parts[block])
        out.append(np.concatenate(parts, axis=-1))
    return tuple(out)


def _columns_negated(H):
    """The columns that are z's if there are H units."""

    def change(*weights):
        weights = tuple(weight.copy() for weight in weights)
        for weight in weights:
            weight[..., H(*weights) : 2 * H(*weights)] *= -1
        return weights

    return change


def _rows_negated(W, H):
    W = W.copy()
    W[H : 2 * H] *= -1
    return W


def _z_cases(rng):
    return [tuple(rng.normal(size=s) for s in ((7, 3 * H), (H, 3 * H), 3 * H)) for H in (2, 3)]


def _look_up_cases(rng):
    # No lane is at row 1 of the second table: a product turns its infinity into NaN.
    tables = [rng.normal(size=(5, 6)) for _ in range(2)]
    tables[1][1] = np.inf
    return [(np.array([4, 0, 4, 2]), W) for W in tables]


@np.errstate(invalid="ignore")
def _product(x, W):
    return np.eye(len(W))[x] @ W


EXERCISES = [
    Exercise(
        number="3.1",
        title="one step of the simple recurrent network",
        right=_rnn,
        # Square, so that a product taken wrongly has a name and is not just an exception.
        cases=_cell_cases(1, 1, sizes=((3, 3), (5, 5))),
        mistakes={
            "the sum is right, tanh of it is missing": lambda xW, h, U, b: xW + h @ U + b,
            "b is added after tanh; it belongs inside": lambda xW, h, U, b: np.tanh(xW + h @ U) + b,
            "b is missing": lambda xW, h, U, b: np.tanh(xW + h @ U),
            "rows are lanes, so the state stands left: h @ U; you multiply by U transposed": (
                lambda xW, h, U, b: np.tanh(xW + h @ U.T + b)
            ),
            "the old state is left out: without h U nothing is remembered": lambda xW, h, U, b: (
                np.tanh(xW + b)
            ),
            "h is added as it is; it must go through U": lambda xW, h, U, b: np.tanh(xW + h + b),
            "rows are lanes, so the state stands left: h @ U; you have U @ h": lambda xW, h, U, b: (
                np.tanh(xW + U @ h + b)
            ),
            "* multiplies entry by entry; the matrix product is @": lambda xW, h, U, b: np.tanh(
                xW + h * U + b
            ),
            "there is one tanh, around the whole sum": lambda xW, h, U, b: (
                np.tanh(xW) + np.tanh(h @ U + b)
            ),
            "xW is the product already, it only needs adding; it is h that goes through U": (
                lambda xW, h, U, b: np.tanh(xW @ U + h + b)
            ),
            "xW is the product of x and W already; it is h that is multiplied by U, h @ U": Ways(
                lambda xW, h, U, b: np.tanh(xW @ U + b),
                lambda xW, h, U, b: np.tanh(xW + xW @ U + b),
                lambda xW, h, U, b: np.tanh((xW + h) @ U + b),
                lambda xW, h, U, b: np.tanh(xW @ h + h @ U + b),
            ),
            "xW and h U are added, not multiplied: xW + h @ U + b": Ways(
                lambda xW, h, U, b: np.tanh(xW * h @ U + b),
                lambda xW, h, U, b: np.tanh(xW * (h @ U) + b),
                lambda xW, h, U, b: np.tanh(xW * h + b),
                lambda xW, h, U, b: np.tanh(xW * h + U + b),
                lambda xW, h, U, b: np.tanh(xW @ (h @ U) + b),
            ),
            "that is σ; here it is tanh": lambda xW, h, U, b: sigmoid(xW + h @ U + b),
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
        mistakes={
            "that is the long product still: where no lane is at a row with an inf, 0 * inf made "
            "NaN; take the rows themselves": _product,
            "those are columns; an item is a row of W": Ways(
                lambda x, W: W[:, x],
                lambda x, W: W.T[x],
            ),
            "x holds item numbers, not the 1-of-N vectors themselves, so it cannot be multiplied "
            "with W; take the rows with these numbers, W[x]": Ways(
                lambda x, W: x @ W,
                lambda x, W: np.dot(x, W),
                lambda x, W: x * W,
                lambda x, W: x[:, None] * W,
                lambda x, W: x[:, None] @ W,
            ),
            "items are counted from 0, as rows are; yours are one too low": lambda x, W: W[x - 1],
            "items are counted from 0, as rows are; yours are one too high": lambda x, W: np.roll(
                W, -1, axis=0
            )[x],
            "each item is there once; two lanes may be at the same item, each wants its row": (
                lambda x, W: W[np.unique(x)]
            ),
            "the rows are in the order of the table; they must be in that of the lanes": (
                lambda x, W: W[np.sort(x)]
            ),
            "the rows are added up; each lane wants its own": lambda x, W: W[x].sum(axis=0),
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
        mistakes={
            "z is the share of the candidate n here, 1 - z that of the old state; you have them the"
            " other way round": _gru_with("z for h"),
            "r is applied after the product; here it multiplies h before it, (r*h) @ U_n": (
                _gru_with("reset after")
            ),
            "r is not used: the candidate sees r*h, not h": _gru_with("no r"),
            "the candidate sees r*h; you have z*h": _gru_with("z in candidate"),
            "r and z have changed places: the columns' order is [r | z | n], r goes into the"
            " candidate, z into the mix": _gru_with((1, 0, 2)),
            "the columns' order is [r | z | n]; you take them in another": Ways(
                *(_gru_with(order) for order in OTHER_ORDERS)
            ),
            "r multiplies the old state only, not x W_n": Ways(
                _gru_with("r on x"), _gru_with("r on sum")
            ),
            "r multiplies the whole candidate; it belongs inside tanh, at h only: (r*h) @ U_n": (
                _gru_with("r on n")
            ),
            "h @ U has the columns of r, z and n; each wants its own third, as in h @ U_r": (
                lambda xW, h, U, b: xW[:, : h.shape[1]] + h @ U
            ),
            BIAS_BY_COLUMNS: _split_bias_by_columns(3),
            WITHOUT_AXIS: _split_without_axis,
            "the candidate's tanh is missing": _gru_with("no tanh"),
            "r and z are sums that have not gone through σ": _gru_with("bare gates"),
            "r is a sum that has not gone through σ": _gru_with("bare r"),
            "z is a sum that has not gone through σ": _gru_with("bare z"),
            "(1-z)*h is missing: what is not renewed stays": _gru_with("nothing kept"),
            "b is missing": _gru_with("no b"),
            "r only decides what the candidate sees; the part that is kept is (1-z)*h": (
                _gru_with("r*h kept")
            ),
            "the old state is kept whole; its share is 1 - z": _gru_with("no 1-z"),
            "gates are between 0 and 1: σ, not tanh": Ways(
                *(_gru_with(f"tanh {gates}") for gates in ("gates", "r", "z"))
            ),
            "the candidate has tanh, not σ: a state may be negative": _gru_with("σ candidate"),
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
        right=lambda W, U, b: _change(W, U, b, np.negative),
        cases=_z_cases,
        parts=("W", "U", "b"),
        mistakes={
            "1 - σ(a) = σ(-a): what goes into σ changes its sign, so -w, not 1 - w": (
                lambda W, U, b: _change(W, U, b, lambda w: 1 - w)
            ),
            "only z changes its meaning; you have negated r and n too": lambda W, U, b: (
                -W,
                -U,
                -b,
            ),
            "those are r's columns, the first third; z's are the middle one": lambda W, U, b: (
                _change(W, U, b, np.negative, 0)
            ),
            "those are n's columns, the last third; z's are the middle one": lambda W, U, b: (
                _change(W, U, b, np.negative, 2)
            ),
            # Before the rows: U has only H of them, so its rows H to 2H are none.
            "it is as it was; all three go into σ, so all three are negated, in the columns "
            "[:, H : 2 * H]": lambda W, U, b: (W, U, b),
            "W has a row for each item, so len(W) is I; H is len(U), the number of units": (
                _columns_negated(lambda W, U, b: len(W))
            ),
            "those are rows; a gate is a block of columns, [:, H : 2 * H]": lambda W, U, b: (
                _rows_negated(W, len(U)),
                _rows_negated(U, len(U)),
                _change(W, U, b, np.negative)[2],
            ),
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
        mistakes={
            "i and f are swapped; the columns' order is [i | f | o | n]": _lstm_with("i and f"),
            "o and n are swapped; the columns' order is [i | f | o | n]": _lstm_with("o and n"),
            "the memory shows through tanh: h' = o*tanh(c')": _lstm_with("no tanh"),
            "the order of what is returned is [h' | c']": _lstm_with("order"),
            "h and c are swapped: the first half of hc is h": _lstm_with("c first"),
            "f is the share that stays: f*c, not (1-f)*c": _lstm_with("f forgets"),
            "the state is one array, [h' | c']: np.hstack puts the two side by side": (
                Ways(
                    _lstm_with("a pair"),
                    lambda *args: np.array(_lstm_with("a pair")(*args)),
                    lambda *args: np.vstack(_lstm_with("a pair")(*args)),
                )
            ),
            "np.split cuts the rows if it is not told an axis; h, c and the gates are columns: "
            "axis=1": lambda xW, hc, U, b: np.split(hc, 2),
            "h is the first H of hc's 2 * H columns; only h goes through U": (
                lambda xW, hc, U, b: hc @ U
            ),
            "the forget gate is not used: the old memory's share is f": _lstm_with("no f"),
            "that is a GRU's mix; the LSTM has two gates, c' = f*c + i*n": _lstm_with("1-f"),
            "the gates look at h, the first half of the state; c is the second": (
                _lstm_with("c in gates")
            ),
            "the candidate has tanh, not σ": _lstm_with("σ candidate"),
            "h' shows the new memory c', not the old one": _lstm_with("old c"),
            "the memory is carried on as f*c; h is only what shows of it": _lstm_with("h for c"),
            "that is h'; the state is both, [h' | c'], so that the next step has the memory": (
                _lstm_with("only h")
            ),
            "the second half is the memory c', not h' once more": _lstm_with("h kept"),
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
        mistakes={
            "r is applied before the product, as in 3.3; here it is r*(h U_n + c_n)": (
                _reset_after_with("before")
            ),
            "r is not used: it multiplies h U_n + c_n": _reset_after_with("no r"),
            "c_n is missing: r*(h U_n + c_n)": _reset_after_with("no c_n"),
            "c_n belongs inside: r multiplies all of h U_n + c_n": _reset_after_with("c outside"),
            "b_n is the input's bias and stays outside: r multiplies h U_n + c_n only": (
                _reset_after_with("b inside")
            ),
            "x W_n and b_n stay outside: r multiplies h U_n + c_n only": (
                _reset_after_with("all inside")
            ),
            "the gates r and z have their c too": _reset_after_with("no c"),
            "c is missing: it is a second bias, added to h U": _reset_after_with("c nowhere"),
            "b is missing: it is the input's bias, added to xW": _reset_after_with("b nowhere"),
            "the gates r and z have their b too": _reset_after_with("no b"),
            "b_n is missing: it is added to x W_n": _reset_after_with("no b_n"),
            "r and z have changed places: the columns' order is [r | z | n], r goes into the "
            "candidate, z into the mix": _reset_after_with((1, 0, 2)),
            "the columns' order is [r | z | n]; you take them in another": Ways(
                *(_reset_after_with(order) for order in OTHER_ORDERS)
            ),
            "r multiplies the whole candidate; it belongs inside tanh, at h U_n + c_n only": (
                _reset_after_with("r on n")
            ),
            "r and z are sums that have not gone through σ": _reset_after_with("bare gates"),
            "the candidate's tanh is missing": _reset_after_with("no tanh"),
            "the candidate has tanh, not σ: a state may be negative": (
                _reset_after_with("σ candidate")
            ),
            BIAS_BY_COLUMNS: Ways(
                *_split_bias_by_columns(3).ways,
                *_split_bias_by_columns(4).ways,
            ),
            WITHOUT_AXIS: _split_without_axis,
            "z is the share of the candidate n here, 1 - z that of the old state": (
                _reset_after_with("z for h")
            ),
        },
        hints=[
            "One product for everything: hU = h @ U + c, split by 3. And xW + b, split by 3.",
            "r and z are sigmoid of the sum of their two parts.",
            "n = np.tanh(x_n + r * hU_n), with x_n the last third of xW + b.",
        ],
    ),
]
