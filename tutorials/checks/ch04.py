"""Exercises of notebook 4, backward by hand: the tool, the pieces, the whole, and time."""

import numpy as np

from checks import Exercise, Wrong
from checks.common import row_sums_as_they_came, rows_unsummed
from gru4rec_np.ops.activations import sigmoid
from gru4rec_np.ops.cells import (
    dense,
    dense_backward,
    gru,
    gru_backward,
    gru_reset_after,
    gru_reset_after_backward,
)
from gru4rec_np.ops.optim import sum_rows
from solutions import ch04

# --- 4.1 ------------------------------------------------------------------------------------------


def _run_nudged(answer, args):
    """As calling does, but a gradient that is 0 everywhere is told as that."""
    out = answer(*args)
    if isinstance(out, np.ndarray) and out.dtype.kind == "f" and not out.any():
        raise Wrong(
            "it is 0 everywhere, as if plus and minus were the same array. `plus = x` makes no "
            "copy, only a second name for x; use x.copy()"
        )
    return out


def _wavy(x):
    return float((np.sin(x) * x).sum() + np.exp(x.sum() / 4))


# --- 4.3 to 4.6 -----------------------------------------------------------------------------------


def _dense_cases(rng):
    cases = []
    # Square, so that a matrix that should be transposed is a mistake with a name, not an exception.
    for B, X, Y in ((4, 3, 3), (2, 5, 5)):
        x, F, f = rng.normal(size=(B, X)), rng.normal(size=(X, Y)), rng.normal(size=Y)
        y, cache = dense(x, F, f)
        cases.append((rng.normal(size=y.shape), cache, F))
    return cases


def _mix_cases(rng):
    cases = []
    for B, H in ((3, 2), (1, 4)):
        dh_new, h = rng.normal(size=(2, B, H))
        cases.append((dh_new, h, rng.random((B, H)), rng.normal(size=(B, H))))
    return cases


def _candidate_cases(rng):
    cases = []
    for B, H in ((3, 2), (2, 4)):
        dn, h = rng.normal(size=(2, B, H))
        n, r = np.tanh(rng.normal(size=(B, H))), rng.random((B, H))
        cases.append((dn, h, r, n, rng.normal(size=(H, H))))
    return cases


def _gru_cases(cell, biases):
    """Arguments of the backward pass of a cell with so many biases."""

    def cases(rng):
        out = []
        for B, H in ((4, 3), (2, 5)):
            xW, h = rng.normal(size=(B, 3 * H)), rng.normal(size=(B, H))
            b, U = rng.normal(size=(biases, 3 * H)), rng.normal(size=(H, 3 * H))
            out.append((rng.normal(size=(B, H)), cell(xW, h, U, *b)[1], U))
        return out

    return cases


# --- 4.7 ------------------------------------------------------------------------------------------


def _all_of_4_5(dh_new, cache, U):
    """The gradient of 4.6, with db for dc too."""
    dxW, dh, dU, db = gru_backward(dh_new, cache[:4], U)
    return dxW, dh, dU, db, db


# --- 4.8 and 4.9 ----------------------------------------------------------------------------------


def _whole_table(rows, g):
    out = np.zeros((rows.max() + 1, g.shape[1]))
    np.add.at(out, rows, g)
    return np.unique(rows), out


def _through_time_cases(rng):
    cases = []
    for T, B, H in ((5, 3, 2), (3, 2, 4)):
        U, b = rng.normal(size=(H, 3 * H)), rng.normal(size=3 * H)
        reset = np.zeros((T, B), bool)
        reset[0, 0] = reset[1, 1] = reset[T - 2, 0] = True
        h, caches = rng.normal(size=(B, H)), []  # not zeros, or dU's part of step 0 would be 0
        for t in range(T):
            h = h * ~reset[t][:, None]
            h, cache = gru(rng.normal(size=(B, 3 * H)), h, U, b)
            caches.append(cache)
        cases.append((rng.normal(size=(T, B, H)), caches, reset, U))
    return cases


EXERCISES = [
    Exercise(
        number="4.1",
        title="a gradient by central differences",
        right=ch04.numerical_gradient,
        cases=lambda rng: [
            (_wavy, rng.normal(size=(2, 3)), 0.1),
            (_wavy, rng.normal(size=4), 0.02),
        ],
        mistakes={
            "that is the one-sided difference; go eps up and eps down, and divide by 2 eps": {
                "f(minus)": "f(x)",
                "(2 * eps)": "eps",
            },
            "the two points lie 2 eps apart, so divide by 2 eps, not by eps": {"(2 * eps)": "eps"},
            "all entries are moved at once; each has a slope of its own, so move one at a time": {
                "plus[i]": "plus",
                "minus[i]": "minus",
            },
            "all entries are moved at once, which gives only one number; each has a slope of its"
            " own, so move one at a time": {
                "plus[i]": "plus",
                "minus[i]": "minus",
                "out[i]": "out",
            },
            "`/ 2 * eps` divides by 2 and then multiplies by eps; write `/ (2 * eps)`": {
                "(2 * eps)": "2 * eps"
            },
            "range(len(x)) goes through the rows, so each row is moved as a whole; go through all"
            " indices with np.ndindex(x.shape)": {"np.ndindex(x.shape)": "range(len(x))"},
            "an entry is not put back before the next one is moved; put it back first": {
                "for i": "minus = x.copy()\n    for i",
                "plus, minus = x.copy(), x.copy()": "plus = minus.copy()",
            },
            "it ignores the argument eps": lambda f, x, eps: ch04.numerical_gradient(f, x),
        },
        run=_run_nudged,
        hints=[
            "np.ndindex(x.shape) goes through all indices of x, whatever its number of axes.",
            "For each index i: a copy of x with eps added at i, another with eps taken away at i.",
            "out[i] = (f(plus) - f(minus)) / (2 * eps)",
        ],
    ),
    Exercise(
        number="4.2",
        title="back through σ",
        right=ch04.sigmoid_backward,
        cases=lambda rng: [(rng.normal(size=(3, 2)), rng.random((3, 2)))],
        mistakes={
            "dy is missing: multiply the slope by the upstream gradient": {"dy * ": ""},
            "that is tanh's slope, 1 - y²; σ's is y (1 - y)": {" * y * (1 - y)": " * (1 - y * y)"},
            "y is σ(a) already, and you apply σ once more": lambda dy, y: (
                dy * sigmoid(y) * (1 - sigmoid(y))
            ),
            "the slope is y (1 - y); you have only the 1 - y": {" * y * ": " * "},
            "the slope is y (1 - y); you have only the y": {" * (1 - y)": ""},
        },
        hints=[
            "Write σ' in terms of y = σ(a): the formula is above the exercise.",
            "The upstream gradient dy times the local slope, which is y (1 - y).",
        ],
    ),
    Exercise(
        number="4.3",
        title="back through a dense layer",
        right=dense_backward,
        cases=_dense_cases,
        parts=("dx", "dF", "df"),
        solution=ch04.dense_backward,
        mistakes={
            "tanh is left out: first da = dy * tanh's slope, then the products": {
                " * (1 - y * y)": ""
            },
            "y is tanh(a) already, and you apply tanh once more; the slope is 1 - y²": {
                "y * y": "np.tanh(y) ** 2"
            },
            "the slope of tanh is 1 - y²; yours is σ's": {"(1 - y * y)": "y * (1 - y)"},
            "tanh's slope is taken at x F, without f; use y, which includes f: 1 - y²": {
                "y * y": "np.tanh(x @ F) ** 2"
            },
            "going back through a product with F multiplies by F transposed": {"F.T": "F"},
            "f is added to every lane, so sum over the lanes, the rows: axis=0": {
                "axis=0": "axis=1"
            },
            "f is added to every lane, so its gradient is the sum over the lanes, not their mean": {
                "da.sum": "da.mean"
            },
            "f is added to every lane: it must be summed over them, down to the shape of f": {
                "da.sum(axis=0)": "da"
            },
        },
        hints=[
            "x, y = cache. Begin with da = dy * (1 - y * y): back through tanh.",
            "dx has the shape of x, (B, X). Of da (B, Y) and F (X, Y) only one product gives it.",
            "dx = da @ F.T, dF = x.T @ da. And f is added to every lane, so df is a sum.",
        ],
    ),
    Exercise(
        number="4.4",
        title="back through h' = (1-z)*h + z*n",
        right=ch04.mix_backward,
        cases=_mix_cases,
        parts=("dz", "dn", "dh"),
        mistakes={
            "z occurs twice in the line, in (1-z)*h with a minus: its slope is n - h": {
                "(n - h)": "n"
            },
            "more z means more n and less h: its slope is n - h, you have h - n": {
                "n - h": "h - n"
            },
            "n's share of h' is z and h's is 1 - z; you have them the other way round": {
                "dh_new * z, dh_new * (1 - z)": "dh_new * (1 - z), dh_new * z"
            },
            "dh_new is missing: multiply each slope by the upstream gradient": {
                "dh_new * (n - h), dh_new * z, dh_new * (1 - z)": "n - h, z, 1 - z"
            },
            "h is multiplied by 1 - z in this line, so that is its slope": {" * (1 - z)": ""},
            "n is multiplied by z in this line, so that is its slope": {" * z": ""},
            "it includes σ's slope already; return dz alone, the step back through σ comes in"
            " 4.6": {"(n - h)": "(n - h) * z * (1 - z)"},
            "the order of what is returned is dz, dn, dh": {
                "dh_new * (n - h), ": "",
                "dh_new * (1 - z)": "dh_new * (1 - z), dh_new * (n - h)",
            },
        },
        hints=[
            "Take one of z, n, h as the variable, the others as constants. What is its slope?",
            "h' = h + z*(n - h), written another way. Now z occurs once.",
            "dz = dh_new * (n - h), dn = dh_new * z, and dh likewise.",
        ],
    ),
    Exercise(
        number="4.5",
        title="back through the candidate",
        right=ch04.candidate_backward,
        cases=_candidate_cases,
        parts=("da_n", "dr", "dh"),
        mistakes={
            "tanh is left out: da_n = dn * (1 - n²)": {" * (1 - n * n)": ""},
            "n is tanh(a_n) already, and you apply tanh once more; the slope is 1 - n²": {
                "n * n": "np.tanh(n) ** 2"
            },
            "the slope of tanh is 1 - n²; yours is σ's": {"(1 - n * n)": "n * (1 - n)"},
            "in r*h the slope for r is h, so dr is drh multiplied by h": {"drh * h": "drh"},
            "it includes σ's slope already; return dr alone, the step back through σ comes in"
            " 4.6": {"drh * h": "drh * h * r * (1 - r)"},
            "going back through a product with U_n multiplies by U_n transposed": {"U_n.T": "U_n"},
            "U_n is left out: da_n comes back through the product first, drh = da_n @ U_n.T": {
                " @ U_n.T": ""
            },
            "in r*h the slope for h is r, so this part of dh is drh multiplied by r": {
                "drh * r": "drh"
            },
            "in r*h the slope for r is h, and for h it is r; you have them the other way round": {
                "drh * h, drh * r": "drh * r, drh * h"
            },
        },
        hints=[
            "Three steps, the last one first: tanh, the product with U_n, the product r*h.",
            "Two of the three are elementwise: there the gradient is multiplied by the slope, entry"
            " by entry. The third is a product with a matrix, as in 4.3.",
            "Back through tanh: da_n = dn * (1 - n * n). In 4.3's words da_n is da, U_n is F and"
            " r*h is x; so drh is what dx was there.",
            "drh belongs to r*h. The slope of r*h for r is h, and for h it is r.",
        ],
    ),
    Exercise(
        number="4.6",
        title="the GRU's gradient, whole",
        right=gru_backward,
        cases=_gru_cases(gru, biases=1),
        parts=("dxW", "dh", "dU", "db"),
        solution=ch04.gru_backward,
        mistakes={
            "dh lacks (1-z)*dh_new: h also goes straight into h'": {"dh + through_n": "through_n"},
            "dh lacks drh*r: h also goes into the candidate, by way of r*h": {" + through_n": ""},
            "dh lacks the part that comes back through the gates: h also goes into r and z,"
            " through U": {" + da_r @ U_r.T + da_z @ U_z.T": ""},
            "dh lacks the part that comes back through the gate r, da_r @ U_r.T": {
                " + da_r @ U_r.T": ""
            },
            "dh lacks the part that comes back through the gate z, da_z @ U_z.T": {
                " + da_z @ U_z.T": ""
            },
            "dh has only its first part, (1-z)*dh_new; h also goes into the candidate and both"
            " gates": {" + through_n + da_r @ U_r.T + da_z @ U_z.T": ""},
            "the candidate's input was r*h, so its part of dh is drh*r; the factor r is missing": {
                "through_n +": "da_n @ U_n.T +"
            },
            "going back through a product with U_r or U_z multiplies by its transpose": {
                "U_r.T": "U_r",
                "U_z.T": "U_z",
            },
            "going back through the product with U_r multiplies by U_r transposed": {
                "U_r.T": "U_r"
            },
            "going back through the product with U_z multiplies by U_z transposed": {
                "U_z.T": "U_z"
            },
            "U_n is left out: da_n comes back through the product first, drh = da_n @ U_n.T": {
                "r, n, U_n)": "r, n, np.eye(len(U)))"
            },
            "in the forward pass U_n was multiplied by r*h, not h: its gradient is"
            " (r*h).T @ da_n": {"(r * h).T": "h.T"},
            "b is added to every lane, so sum over the lanes, the rows: axis=0": {
                "axis=0": "axis=1"
            },
            "going back through a product with U_n multiplies by U_n transposed": {
                "r, n, U_n)": "r, n, U_n.T)"
            },
            "r and z are outputs of σ: dr and dz still need its slope, r (1-r) and z (1-z)": {
                "sigmoid_backward(dr, r), sigmoid_backward(dz, z)": "dr, dz"
            },
            "n is tanh(a_n) already, and you apply tanh once more; the slope is 1 - n²": {
                "h, r, n, U_n)": "h, r, np.tanh(n), U_n)"
            },
            "the columns' order is [r | z | n]; you have z before r": {
                "da_r, da_z = ": "da_z, da_r = "
            },
        },
        hints=[
            "Use what you have: mix_backward gives dz, dn and the first part of dh;"
            " candidate_backward gives da_n, dr and the second part.",
            "da_r = sigmoid_backward(dr, r), da_z likewise. np.hstack([da_r, da_z, da_n]) is dxW.",
            "The last part of dh comes through both gates: da_r @ U_r.T + da_z @ U_z.T.",
            "dU = np.hstack([h.T @ da_r, h.T @ da_z, (r * h).T @ da_n]), and db sums dxW's rows.",
        ],
    ),
    Exercise(
        number="4.7",
        title="the same with the reset after the product",
        right=gru_reset_after_backward,
        cases=_gru_cases(gru_reset_after, biases=2),
        parts=("dxW", "dh", "dU", "db", "dc"),
        solution=ch04.gru_reset_after_backward,
        mistakes={
            "r multiplies h U_n + c_n here, the cache's hU_n, so that is its slope, not h": {
                "da_n * hU_n": "da_n * h"
            },
            "hU_n was multiplied by r, so its gradient is da_n * r": {"da_n * r": "da_n"},
            "r multiplies h U_n + c_n only: the gradient of x W_n and b_n is da_n itself": {
                "da_r, da_z, da_n])": "da_r, da_z, da_n * r])"
            },
            "c_n is inside the brackets that r multiplies, so dc's last third is summed from"
            " da_n * r": {"dhU.sum": "dxW.sum"},
            "in the forward pass U_n was multiplied by h, not r*h; da_n * r includes r already": {
                "h.T @ dhU": "np.hstack([h.T @ da_r, h.T @ da_z, (r * h).T @ (da_n * r)])"
            },
            "dh lacks (1-z)*dh_new: h also goes straight into h'": {"dh + dhU": "dhU"},
            "dr is still that of 4.5, drh * h; r multiplies hU_n now, so dr = da_n * hU_n": {
                "da_n * hU_n": "da_n @ np.split(U, 3, axis=1)[2].T * h"
            },
            "the candidate's part still goes through r*h. Here h is multiplied by all of U, in one"
            " product, h U, whose gradient is [da_r | da_z | da_n * r]": {
                "dz, dn": "U_r, U_z, U_n = np.split(U, 3, axis=1)\n    dz, dn",
                "dhU @ U.T": "da_r @ U_r.T + da_z @ U_z.T + da_n @ U_n.T * r",
                "h.T @ dhU": "np.hstack([h.T @ da_r, h.T @ da_z, (r * h).T @ da_n])",
            },
            "the middle is still that of 4.5. r multiplies hU_n now: dr = da_n * hU_n. And h U is"
            " one product; its gradient, [da_r | da_z | da_n * r], gives dh, dU, dc": _all_of_4_5,
        },
        hints=[
            "mix_backward gives dz, dn and the first part of dh, as before."
            " da_n = dn * (1 - n * n).",
            "In a_n the two factors are r and hU_n: dr = da_n * hU_n, d(hU_n) = da_n * r.",
            "dhU = np.hstack([da_r, da_z, da_n * r]) is the gradient of h U + c. It gives dh, dU,"
            " dc like a dense layer; dxW has da_n itself.",
        ],
    ),
    Exercise(
        number="4.8",
        title="the gradient of rows that were read more than once",
        right=sum_rows,
        cases=lambda rng: [
            (np.array([4, 1, 4, 0, 4, 1, 7]), rng.normal(size=(7, 3))),
            (np.array([9, 2, 9]), rng.normal(size=(3, 2))),
        ],
        parts=("rows", "sums"),
        solution=ch04.sum_rows,
        mistakes={
            "of a row that was read several times, only the last gradient is kept. NumPy's"
            " a[i] += g reads, adds and writes once for each distinct i: use np.add.at": {
                "np.add.at(sums, place, g)": "sums[place] += g"
            },
            "of a row that was read several times, only the first gradient is kept": {
                "np.add.at(sums, place, g)": "sums[place[::-1]] = g[::-1]"
            },
            "gradients of the same row are averaged; sum them, since each read adds to the loss": {
                "return distinct, sums": "return distinct, sums / np.bincount(place)[:, None]"
            },
            "rows that occur twice are returned twice; return each once, with the sum of its"
            " gradients": rows_unsummed,
            "nothing is summed: rows that occur twice are returned twice": (
                lambda rows, g: (rows, g)
            ),
            "sums has a row for every row of the table; return only the distinct rows of the"
            " step": _whole_table,
            "the rows must come in ascending order": row_sums_as_they_came,
        },
        hints=[
            "np.unique(rows) gives the distinct rows in ascending order.",
            "distinct, place = np.unique(rows, return_inverse=True): place[i] is the index in"
            " distinct of gradient i's row.",
            "sums = np.zeros((len(distinct), g.shape[1])); np.add.at(sums, place, g)",
        ],
    ),
    Exercise(
        number="4.9",
        title="back through time",
        right=ch04.gru_through_time,
        cases=_through_time_cases,
        parts=("dxW", "dU", "db"),
        mistakes={
            "a reset does not cut: it dropped the old session's state, so no gradient may flow"
            " back to it": {"dh * ~reset[t][:, None]": "dh"},
            "the cut is on the wrong side of the step: a reset at t lies between t-1 and t, so"
            " step t itself still gets the dh of step t+1; cut the dh that step t sends to t-1": {
                "dh = dh * ~reset[t][:, None]": "pass",
                "dout[t] + dh": "dout[t] + dh * ~reset[t][:, None]",
            },
            "nothing is carried back: step t also gets the dh that step t+1 sends": {
                "dh * ~reset[t][:, None]": "0"
            },
            "dU and db are those of one step: every step uses the same U and b, so sum over the"
            " steps": {"dU + dU_t, db + db_t": "dU_t, db_t"},
            "only the last step's own dout is used; add each step's dout to the dh from the step"
            " after it": {"dout[t] + dh": "dh if t < len(dout) - 1 else dout[t]"},
            "dout[t] is left out, so all is 0: the upstream gradient of step t is dout[t] + dh": {
                "dout[t]": "0 * dout[t]"
            },
            "dh is not a running sum: the dh that step t returns includes the one that it got from"
            " step t+1; replace dh, do not add to it": {
                "dxW[t], dh,": "dxW[t], sent,",
                "dh * ~": "(dh + sent) * ~",
            },
            "it goes forward in time; the last step comes first": {"reversed": ""},
            "dxW is in reverse order, its first entry is the last step's": {
                "return dxW": "return dxW[::-1]"
            },
            "it cuts where there is no reset, and does not cut where there is one: use ~reset": {
                "~reset": "reset"
            },
            "one lane's reset cuts all lanes; each lane has its own session": {
                "~reset[t][:, None]": "(not reset[t].any())"
            },
        },
        hints=[
            "for t in reversed(range(len(caches))): begin with dh = 0, as no step follows the"
            " last.",
            "gru_backward(dout[t] + dh, caches[t], U) gives step t's dxW, the dh to send on, and"
            " this step's parts of dU and db.",
            "Going forward, step t began with h * ~reset[t][:, None]. Going back, dh is multiplied"
            " by the same.",
        ],
    ),
]
