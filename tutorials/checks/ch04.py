"""Exercises of notebook 4, backward by hand: the tool, the pieces, the whole, and time."""

import numpy as np

from checks import Exercise, Wrong
from checks.common import but, in_order, row_sums, row_sums_as_they_came, rows_unsummed
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

# --- 4.1 ------------------------------------------------------------------------------------------


def _moved(x, index, step):
    out = x.copy()
    out[index] += step
    return out


def _differences(f, x, eps, places):
    out = np.empty_like(x)
    for i in places:
        out[i] = (f(_moved(x, i, eps)) - f(_moved(x, i, -eps))) / (2 * eps)
    return out


def _numerical_gradient(f, x, eps=1e-5):
    return _differences(f, x, eps, np.ndindex(x.shape))


def _rows_at_once(f, x, eps):
    return _differences(f, x, eps, range(len(x)))


def _one_sided(f, x, eps):
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        out[i] = (f(_moved(x, i, eps)) - f(x)) / eps
    return out


def _all_at_once(f, x, eps):
    return (f(x + eps) - f(x - eps)) / (2 * eps)


def _never_put_back(f, x, eps):
    x, out = x.copy(), np.empty_like(x)
    for i in np.ndindex(x.shape):
        x[i] += eps
        plus = f(x)
        x[i] -= 2 * eps
        out[i] = (plus - f(x)) / (2 * eps)
    return out


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


def _dense_from(da, x, F):
    return da @ F.T, x.T @ da, da.sum(axis=0)


def _da(dy, cache):
    """Back through the dense layer's tanh."""
    return dy * (1 - cache[1] ** 2)


def _mix_backward(dh_new, h, z, n):
    return dh_new * (n - h), dh_new * z, dh_new * (1 - z)


def _mix_cases(rng):
    cases = []
    for B, H in ((3, 2), (1, 4)):
        dh_new, h = rng.normal(size=(2, B, H))
        cases.append((dh_new, h, rng.random((B, H)), rng.normal(size=(B, H))))
    return cases


def _candidate(da, h, r, U_n):
    drh = da @ U_n.T
    return da, drh * h, drh * r


def _candidate_backward(dn, h, r, n, U_n):
    return _candidate(dn * (1 - n * n), h, r, U_n)


def _candidate_cases(rng):
    cases = []
    for B, H in ((3, 2), (2, 4)):
        dn, h = rng.normal(size=(2, B, H))
        n, r = np.tanh(rng.normal(size=(B, H))), rng.random((B, H))
        cases.append((dn, h, r, n, rng.normal(size=(H, H))))
    return cases


def _candidate_with(*, dr=lambda drh, h, r: drh * h, dh=lambda drh, h, r: drh * r, U=np.transpose):
    """`_candidate_backward` with another dr, another dh, or something else than U_n.T."""

    def backward(dn, h, r, n, U_n):
        da = dn * (1 - n * n)
        drh = da @ U(U_n)
        return da, dr(drh, h, r), dh(drh, h, r)

    return backward


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


def _gru_with(*wrong):
    """`gru_backward` with the named mistakes in it."""

    def backward(dh_new, cache, U):
        h, r, z, n = cache
        H = h.shape[1]
        U_rz, U_n = U[:, : 2 * H], U[:, 2 * H :]
        da_n = dh_new * z * (1 - (np.tanh(n) if "tanh twice" in wrong else n) ** 2)
        drh = da_n @ (U_n if "untransposed" in wrong else U_n.T)
        if "no U_n" in wrong:
            drh = da_n
        dr, dz = drh * h, dh_new * (n - h)
        if "no slope" not in wrong:
            dr, dz = dr * r * (1 - r), dz * z * (1 - z)
        da_rz = np.hstack([dz, dr] if "gates swapped" in wrong else [dr, dz])
        U_r, U_z = U_rz[:, :H], U_rz[:, H:]
        dh = np.zeros_like(h)
        if "no straight way" not in wrong:
            dh += dh_new * (1 - z)
        if "no r*h" not in wrong:
            dh += drh if "no r" in wrong else drh * r
        if "no gate r" not in wrong:
            dh += da_rz[:, :H] @ (U_r if "U_r untransposed" in wrong else U_r.T)
        if "no gate z" not in wrong:
            dh += da_rz[:, H:] @ (U_z if "U_z untransposed" in wrong else U_z.T)
        dxW = np.hstack([da_rz, da_n])
        seen = h if "h for r*h" in wrong else r * h
        dU = np.hstack([h.T @ da_rz, seen.T @ da_n])
        return dxW, dh, dU, dxW.sum(axis=1 if "axis" in wrong else 0)

    return backward


# --- 4.7 ------------------------------------------------------------------------------------------


def _reset_after_with(wrong):
    """`gru_reset_after_backward` with the named mistake in it."""

    def backward(dh_new, cache, U):
        h, r, z, n, hU_n = cache
        H = h.shape[1]
        U_n = U[:, 2 * H :]
        da_n = dh_new * z * (1 - n * n)
        dr = da_n * (h if wrong == "h for hU_n" else hU_n)
        if wrong in ("dr of 4.5", "all of 4.5"):
            dr = da_n @ U_n.T * h
        dr, dz = dr * r * (1 - r), dh_new * (n - h) * z * (1 - z)
        dxW = np.hstack([dr, dz, da_n])
        dhU = dxW if wrong == "no r" else np.hstack([dr, dz, da_n * r])
        dh, dU = dhU @ U.T, h.T @ dhU
        if wrong in ("by way of r*h", "all of 4.5"):
            dh = dxW[:, : 2 * H] @ U[:, : 2 * H].T + da_n @ U_n.T * r
            dU = np.hstack([h.T @ dxW[:, : 2 * H], (r * h).T @ da_n])
        if wrong != "no straight way":
            dh = dh + dh_new * (1 - z)
        if wrong == "r*h in dU":
            dU = np.hstack([h.T @ dhU[:, : 2 * H], (r * h).T @ dhU[:, 2 * H :]])
        if wrong == "everywhere":
            dxW = dhU
        dc = dxW if wrong in ("dc", "all of 4.5") else dhU
        return dxW, dh, dU, dxW.sum(axis=0), dc.sum(axis=0)

    return backward


# --- 4.8 and 4.9 ----------------------------------------------------------------------------------


def _whole_table(rows, g):
    out = np.zeros((rows.max() + 1, g.shape[1]))
    np.add.at(out, rows, g)
    return np.unique(rows), out


def _through_time_with(wrong=None):
    def backward(dout, caches, reset, U):
        dxW = np.empty((*dout.shape[:2], U.shape[1]))
        dU, db, dh = np.zeros_like(U), np.zeros(U.shape[1]), np.zeros(dout.shape[1:])
        steps = range(len(caches))
        for t in steps if wrong == "forwards" else reversed(steps):
            if wrong == "early":
                dh = dh * ~reset[t][:, None]
            own = 0 if wrong == "last only" and t < len(caches) - 1 else dout[t]
            later = dh
            dxW[t], dh, dU_t, db_t = gru_backward(own + dh, caches[t], U)
            if wrong == "running sum":
                dh = dh + later
            if wrong == "overwritten":
                dU, db = dU_t, db_t
            else:
                dU, db = dU + dU_t, db + db_t
            dh = dh * {
                "not carried": 0,
                "all lanes": not reset[t].any(),
                "upside down": reset[t][:, None],
                "no cut": 1,
                "early": 1,
            }.get(wrong, ~reset[t][:, None])
        return dxW[::-1] if wrong == "turned round" else dxW, dU, db

    return backward


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
        right=_numerical_gradient,
        cases=lambda rng: [
            (_wavy, rng.normal(size=(2, 3)), 0.1),
            (_wavy, rng.normal(size=4), 0.02),
        ],
        mistakes={
            "that is the one-sided difference; go eps up and eps down, and divide by 2 eps": (
                _one_sided
            ),
            "the two points lie 2 eps apart, so divide by 2 eps, not by eps": lambda f, x, eps: (
                2 * _numerical_gradient(f, x, eps)
            ),
            "all entries are moved at once; each has a slope of its own, so move one at a time": (
                lambda f, x, eps: np.full_like(x, _all_at_once(f, x, eps))
            ),
            "all entries are moved at once, which gives only one number; each has a slope of its"
            " own, so move one at a time": _all_at_once,
            "`/ 2 * eps` divides by 2 and then multiplies by eps; write `/ (2 * eps)`": (
                lambda f, x, eps: _numerical_gradient(f, x, eps) * eps**2
            ),
            "range(len(x)) goes through the rows, so each row is moved as a whole; go through all"
            " indices with np.ndindex(x.shape)": _rows_at_once,
            "an entry is not put back before the next one is moved; put it back"
            " first": _never_put_back,
            "it ignores the argument eps": lambda f, x, eps: _numerical_gradient(f, x),
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
        right=lambda dy, y: dy * y * (1 - y),
        cases=lambda rng: [(rng.normal(size=(3, 2)), rng.random((3, 2)))],
        mistakes={
            "dy is missing: multiply the slope by the upstream gradient": lambda dy, y: y * (1 - y),
            "that is tanh's slope, 1 - y²; σ's is y (1 - y)": lambda dy, y: dy * (1 - y * y),
            "y is σ(a) already, and you apply σ once more": lambda dy, y: (
                dy * sigmoid(y) * (1 - sigmoid(y))
            ),
            "the slope is y (1 - y); you have only the 1 - y": lambda dy, y: dy * (1 - y),
            "the slope is y (1 - y); you have only the y": lambda dy, y: dy * y,
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
        mistakes={
            "tanh is left out: first da = dy * tanh's slope, then the products": (
                lambda dy, cache, F: _dense_from(dy, cache[0], F)
            ),
            "y is tanh(a) already, and you apply tanh once more; the slope is 1 - y²": (
                lambda dy, cache, F: _dense_from(dy * (1 - np.tanh(cache[1]) ** 2), cache[0], F)
            ),
            "the slope of tanh is 1 - y²; yours is σ's": lambda dy, cache, F: _dense_from(
                dy * cache[1] * (1 - cache[1]), cache[0], F
            ),
            "tanh's slope is taken at x F, without f; use y, which includes f: 1 - y²": (
                lambda dy, cache, F: _dense_from(dy * (1 - np.tanh(cache[0] @ F) ** 2), cache[0], F)
            ),
            "going back through a product with F multiplies by F transposed": but(
                dense_backward, 0, lambda dy, cache, F: _da(dy, cache) @ F
            ),
            "f is added to every lane, so sum over the lanes, the rows: axis=0": but(
                dense_backward, 2, lambda dy, cache, F: _da(dy, cache).sum(axis=1)
            ),
            "f is added to every lane, so its gradient is the sum over the lanes, not their mean": (
                but(dense_backward, 2, lambda dy, cache, F: _da(dy, cache).mean(axis=0))
            ),
            "f is added to every lane: it must be summed over them, down to the shape of f": but(
                dense_backward, 2, lambda dy, cache, F: _da(dy, cache)
            ),
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
        right=_mix_backward,
        cases=_mix_cases,
        parts=("dz", "dn", "dh"),
        mistakes={
            "z occurs twice in the line, in (1-z)*h with a minus: its slope is n - h": but(
                _mix_backward, 0, lambda dh_new, h, z, n: dh_new * n
            ),
            "more z means more n and less h: its slope is n - h, you have h - n": but(
                _mix_backward, 0, lambda dh_new, h, z, n: dh_new * (h - n)
            ),
            "n's share of h' is z and h's is 1 - z; you have them the other way round": in_order(
                _mix_backward, 0, 2, 1
            ),
            "dh_new is missing: multiply each slope by the upstream gradient": (
                lambda dh_new, h, z, n: (n - h, z, 1 - z)
            ),
            "h is multiplied by 1 - z in this line, so that is its slope": but(
                _mix_backward, 2, lambda dh_new, h, z, n: dh_new
            ),
            "n is multiplied by z in this line, so that is its slope": but(
                _mix_backward, 1, lambda dh_new, h, z, n: dh_new
            ),
            "it includes σ's slope already; return dz alone, the step back through σ comes in"
            " 4.6": but(_mix_backward, 0, lambda dh_new, h, z, n: dh_new * (n - h) * z * (1 - z)),
            "the order of what is returned is dz, dn, dh": in_order(_mix_backward, 1, 2, 0),
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
        right=_candidate_backward,
        cases=_candidate_cases,
        parts=("da_n", "dr", "dh"),
        mistakes={
            "tanh is left out: da_n = dn * (1 - n²)": lambda dn, h, r, n, U_n: _candidate(
                dn, h, r, U_n
            ),
            "n is tanh(a_n) already, and you apply tanh once more; the slope is 1 - n²": (
                lambda dn, h, r, n, U_n: _candidate(dn * (1 - np.tanh(n) ** 2), h, r, U_n)
            ),
            "the slope of tanh is 1 - n²; yours is σ's": lambda dn, h, r, n, U_n: _candidate(
                dn * n * (1 - n), h, r, U_n
            ),
            "in r*h the slope for r is h, so dr is drh multiplied by h": _candidate_with(
                dr=lambda drh, h, r: drh
            ),
            "it includes σ's slope already; return dr alone, the step back through σ comes in"
            " 4.6": _candidate_with(dr=lambda drh, h, r: drh * h * r * (1 - r)),
            "going back through a product with U_n multiplies by U_n transposed": (
                _candidate_with(U=lambda U_n: U_n)
            ),
            "U_n is left out: da_n comes back through the product first, drh = da_n @ U_n.T": (
                _candidate_with(U=lambda U_n: np.eye(len(U_n)))
            ),
            "in r*h the slope for h is r, so this part of dh is drh multiplied by r": (
                _candidate_with(dh=lambda drh, h, r: drh)
            ),
            "in r*h the slope for r is h, and for h it is r; you have them the other way round": (
                in_order(_candidate_backward, 0, 2, 1)
            ),
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
        mistakes={
            "dh lacks (1-z)*dh_new: h also goes straight into h'": _gru_with("no straight way"),
            "dh lacks drh*r: h also goes into the candidate, by way of r*h": _gru_with("no r*h"),
            "dh lacks the part that comes back through the gates: h also goes into r and z,"
            " through U": (_gru_with("no gate r", "no gate z")),
            "dh lacks the part that comes back through the gate r, da_r @ U_r.T": _gru_with(
                "no gate r"
            ),
            "dh lacks the part that comes back through the gate z, da_z @ U_z.T": _gru_with(
                "no gate z"
            ),
            "dh has only its first part, (1-z)*dh_new; h also goes into the candidate and both"
            " gates": _gru_with("no r*h", "no gate r", "no gate z"),
            "the candidate's input was r*h, so its part of dh is drh*r; the factor r is"
            " missing": _gru_with("no r"),
            "going back through a product with U_r or U_z multiplies by its transpose": (
                _gru_with("U_r untransposed", "U_z untransposed")
            ),
            "going back through the product with U_r multiplies by U_r transposed": (
                _gru_with("U_r untransposed")
            ),
            "going back through the product with U_z multiplies by U_z transposed": (
                _gru_with("U_z untransposed")
            ),
            "U_n is left out: da_n comes back through the product first, drh = da_n @ U_n.T": (
                _gru_with("no U_n")
            ),
            "in the forward pass U_n was multiplied by r*h, not h: its gradient is"
            " (r*h).T @ da_n": (_gru_with("h for r*h")),
            "b is added to every lane, so sum over the lanes, the rows: axis=0": _gru_with("axis"),
            "going back through a product with U_n multiplies by U_n transposed": (
                _gru_with("untransposed")
            ),
            "r and z are outputs of σ: dr and dz still need its slope, r (1-r) and z (1-z)": (
                _gru_with("no slope")
            ),
            "n is tanh(a_n) already, and you apply tanh once more; the slope is 1 - n²": (
                _gru_with("tanh twice")
            ),
            "the columns' order is [r | z | n]; you have z before r": _gru_with("gates swapped"),
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
        mistakes={
            "r multiplies h U_n + c_n here, the cache's hU_n, so that is its slope, not h": (
                _reset_after_with("h for hU_n")
            ),
            "hU_n was multiplied by r, so its gradient is da_n * r": (_reset_after_with("no r")),
            "r multiplies h U_n + c_n only: the gradient of x W_n and b_n is da_n itself": (
                _reset_after_with("everywhere")
            ),
            "c_n is inside the brackets that r multiplies, so dc's last third is summed from"
            " da_n * r": _reset_after_with("dc"),
            "in the forward pass U_n was multiplied by h, not r*h; da_n * r includes r already": (
                _reset_after_with("r*h in dU")
            ),
            "dh lacks (1-z)*dh_new: h also goes straight into h'": (
                _reset_after_with("no straight way")
            ),
            "dr is still that of 4.5, drh * h; r multiplies hU_n now, so dr = da_n * hU_n": (
                _reset_after_with("dr of 4.5")
            ),
            "the candidate's part still goes through r*h. Here h is multiplied by all of U, in one"
            " product, h U, whose gradient is [da_r | da_z | da_n * r]": _reset_after_with(
                "by way of r*h"
            ),
            "the middle is still that of 4.5. r multiplies hU_n now: dr = da_n * hU_n. And h U is"
            " one product; its gradient, [da_r | da_z | da_n * r], gives dh, dU, dc": (
                _reset_after_with("all of 4.5")
            ),
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
        mistakes={
            "of a row that was read several times, only the last gradient is kept. NumPy's"
            " a[i] += g reads, adds and writes once for each distinct i: use np.add.at": (
                lambda rows, g: row_sums(rows, g, lambda x: x[-1])
            ),
            "of a row that was read several times, only the first gradient is kept": (
                lambda rows, g: row_sums(rows, g, lambda x: x[0])
            ),
            "gradients of the same row are averaged; sum them, since each read adds to the loss": (
                lambda rows, g: row_sums(rows, g, lambda x: x.mean(axis=0))
            ),
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
        right=_through_time_with(),
        cases=_through_time_cases,
        parts=("dxW", "dU", "db"),
        mistakes={
            "a reset does not cut: it dropped the old session's state, so no gradient may flow"
            " back to it": _through_time_with("no cut"),
            "the cut is on the wrong side of the step: a reset at t lies between t-1 and t, so"
            " step t itself still gets the dh of step t+1; cut the dh that step t sends to t-1": (
                _through_time_with("early")
            ),
            "nothing is carried back: step t also gets the dh that step t+1 sends": (
                _through_time_with("not carried")
            ),
            "dU and db are those of one step: every step uses the same U and b, so sum over the"
            " steps": (_through_time_with("overwritten")),
            "only the last step's own dout is used; add each step's dout to the dh from the step"
            " after it": _through_time_with("last only"),
            "dout[t] is left out, so all is 0: the upstream gradient of step t is dout[t] + dh": (
                lambda dout, caches, reset, U: tuple(
                    0 * part for part in _through_time_with()(dout, caches, reset, U)
                )
            ),
            "dh is not a running sum: the dh that step t returns includes the one that it got from"
            " step t+1; replace dh, do not add to it": _through_time_with("running sum"),
            "it goes forward in time; the last step comes first": _through_time_with("forwards"),
            "dxW is in reverse order, its first entry is the last step's": (
                _through_time_with("turned round")
            ),
            "it cuts where there is no reset, and does not cut where there is one: use ~reset": (
                _through_time_with("upside down")
            ),
            "one lane's reset cuts all lanes; each lane has its own session": (
                _through_time_with("all lanes")
            ),
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
