"""Exercises of notebook 9, NARM: the attention there and back, the mask, the decoder, padding."""

import numpy as np

from checks import Exercise
from checks.common import but, in_order, softmax
from gru4rec_np.ops.activations import sigmoid
from gru4rec_np.ops.encoders import attend as package_attend
from gru4rec_np.ops.encoders import attend_backward as package_attend_backward
from gru4rec_np.ops.encoders import local, local_backward


def _weights(rng, H):
    return rng.normal(size=(H, H)), rng.normal(size=(H, H)), rng.normal(size=H)


# --- 9.1 and 9.2 ----------------------------------------------------------------------------------


def attend(h, A1, A2, v):
    """The package's `attend` for one session: c_l (H,), s (J, H), α (J,)."""
    c, (s, a) = package_attend(h[-1:] @ A1, (h @ A2)[:, None], h[:, None], v)
    return c[0], s[:, 0], a[:, 0]


def _session_cases(rng):
    return [(rng.normal(size=(J, H)), *_weights(rng, H)) for J, H in ((5, 3), (3, 4), (4, 4))]


def _attend_with(wrong):
    """`attend` with the named mistake in it."""

    def attend(h, A1, A2, v):
        if wrong == "swapped":
            A1, A2 = A2, A1
        asks = {"first": h[0] @ A1, "own": h @ A1, "columns": A1 @ h[-1]}
        q, k = asks.get(wrong, h[-1] @ A1), h @ A2
        before = q * k if wrong == "product" else q + k
        s = {
            "tanh": np.tanh(before),
            "no σ": before,
            "two σ": sigmoid(q) + sigmoid(k),
        }.get(wrong, sigmoid(before))
        a = s @ v
        a = {
            "no v": s.sum(axis=1),
            "σ outside": sigmoid(before @ v),
            "softmax": np.exp(a) / np.exp(a).sum(),
            "divided": a / a.sum(),
        }.get(wrong, a)
        if wrong == "without the last":
            return a[:-1] @ h[:-1], s, a
        if wrong == "by unit":
            return (s * v * h).sum(axis=0), s, a
        if wrong == "order":
            return a @ h, a, s
        value = {"s": s, "k": k}.get(wrong, h)
        return a @ value / (len(h) if wrong == "mean" else 1), s, a

    return attend


def look_back(h, A1, A2, v):
    """The package's `local` for one session, and its α, which `local` does not keep."""
    c, _ = local(h, np.ones((len(h), 1), bool), A1, A2, v)
    return c, np.tril(sigmoid((h @ A1)[:, None] + h @ A2) @ v)


def _look_back_with(wrong):
    def look_back(h, A1, A2, v):
        q, k = h @ A1, h @ A2
        before = q[None] + k[:, None] if wrong == "turned" else q[:, None] + k[None]
        if wrong == "before σ":
            before = before * np.tri(len(h))[:, :, None]
        s = sigmoid(before)
        if wrong == "last two":
            s = np.tril(s)
        a = s @ v
        a = {
            "strictly": np.tril(a, -1),
            "upside down": np.triu(a),
            "one too many": np.tril(a, 1),
            "turned": np.tril(a),
            "softmax": causal_softmax(a),
            "-inf": np.where(np.tri(len(a), dtype=bool), a, -np.inf),
            "other way": np.tril(a).T,
        }.get(wrong, a)
        with np.errstate(invalid="ignore"):
            return a @ h, a

    return look_back


# --- 9.3 ------------------------------------------------------------------------------------------


def _attend_backward(dc, s, a, h, v):
    """The package's `attend_backward` for one session."""
    dq, dk, dh, dv = package_attend_backward(dc[None], (s[:, None], a[:, None]), h[:, None], v)
    return dq[0], dk[:, 0], dh[:, 0], dv


def _attend_backward_cases(rng):
    cases = []
    for h, *weights in _session_cases(rng):
        _, s, a = attend(h, *weights)
        cases.append((rng.normal(size=h.shape[1]), s, a, h, weights[2]))
    return cases


def _attend_backward_with(wrong):
    def attend_backward(dc, s, a, h, v):
        da = a * (h @ dc) if wrong == "a twice" else h @ dc
        ds = np.outer(a if wrong == "α to s" else da, np.ones_like(v) if wrong == "no v" else v)
        slope = {"no slope": 1, "tanh": 1 - s * s, "again": sigmoid(s) * (1 - sigmoid(s))}
        slope |= {"half": 1 - s, "other half": s}
        dk = ds * slope.get(wrong, s * (1 - s))
        dq = {"q unsummed": dk, "q last": dk[-1], "q mean": dk.mean(axis=0)}
        dh = {
            "no α": np.tile(dc, (len(h), 1)),
            "da for α": np.outer(da, dc),
            "no dc": a[:, None] * h,
        }
        dv = {
            "v unsummed": da[:, None] * s,
            "v last": da[-1] * s[-1],
            "ds to v": (ds * s).sum(axis=0),
            "no da": s.sum(axis=0),
            "α for da": a @ s,
        }
        return (
            dq.get(wrong, dk.sum(axis=0)),
            dk,
            dh.get(wrong, np.outer(a, dc)),
            dv.get(wrong, da @ s),
        )

    return attend_backward


# --- 9.4 and 9.5 ----------------------------------------------------------------------------------


def causal_softmax(e):
    seen = np.tri(len(e), dtype=bool)
    p = np.exp(np.where(seen, e - e.max(axis=1, keepdims=True, where=seen, initial=-np.inf), 0))
    p *= seen
    return p / p.sum(axis=1, keepdims=True)


def _softmax_cases(rng):
    # Numbers beyond exp in the last row; the first row may not see the largest of its numbers; and
    # a row far below what one might take for minus infinity.
    large = rng.normal(size=(3, 3))
    large[2] += 1000
    ahead = rng.normal(size=(4, 4))
    ahead[0, 3] += 1000
    low = rng.normal(size=(4, 4))
    low[1] -= 3000
    return [(rng.normal(size=(5, 5)),), (large,), (ahead,), (low,)]


def _own_click_hidden(e, low=-np.inf):
    with np.errstate(invalid="ignore"):
        e = np.where(np.tri(len(e), k=-1, dtype=bool), e, low)
        p = np.exp(e - e.max(axis=1, keepdims=True))
        return np.nan_to_num(p / p.sum(axis=1, keepdims=True))


def _softmax_with(wrong):
    @np.errstate(all="ignore")
    def causal_softmax(e):
        seen = np.tri(len(e), dtype=bool)
        axis = 0 if wrong == "axis" else 1
        if wrong == "zeros":
            e, seen = np.where(seen, e, 0), True
        if wrong == "strictly":
            seen = np.tri(len(e), k=-1, dtype=bool)
        if wrong == "upside down":
            seen = seen.T
        masked_late = {
            "max of all": e.max(axis=1, keepdims=True),
            "one max of all": e.max(),
            "no max": 0,
        }
        if wrong in masked_late:
            p = np.exp(e - masked_late[wrong]) * seen
            return p / p.sum(axis=1, keepdims=True)
        e = np.where(seen, e, -1000 if wrong == "-1000" else -np.inf)
        top = e.max(axis=axis, keepdims=True)
        top = {"no max, masked": 0, "one max": e.max(), "max spread": top.T}.get(wrong, top)
        p = np.exp(e - top)
        total = p.sum() if wrong == "one sum" else p.sum(axis=axis, keepdims=True)
        return p / (total.T if wrong == "sum spread" else total)

    return causal_softmax


def _softmax_backward(da, a):
    return a * (da - (a * da).sum(axis=1, keepdims=True))


def _softmax_backward_cases(rng):
    return [(rng.normal(size=(T, T)), causal_softmax(rng.normal(size=(T, T)))) for T in (4, 3)]


# --- 9.6 ------------------------------------------------------------------------------------------


def _session_backward(dc, h, A1, A2, v):
    """The package's `local_backward` for one session, and c_g's part."""
    H, there = h.shape[1], np.ones((len(h), 1), bool)
    _, cache = local(h, there, A1, A2, v)
    dh, *others = local_backward(dc[:, H:], cache, there, A1, A2, v)
    return dh + dc[:, :H], *others


def _session_backward_cases(rng):
    return [
        (rng.normal(size=(len(h), 2 * h.shape[1])), h, *weights)
        for h, *weights in _session_cases(rng)
    ]


def _session_backward_with(wrong):
    def session_backward(dc, h, A1, A2, v):
        H, T = h.shape[1], len(h)
        dq, dk, dvalue, dv = np.zeros_like(h), np.zeros_like(h), np.zeros_like(h), 0
        left, right = dc[:, :H], dc[:, H:]
        dg, dl = {
            "halves": (right, left),
            "left half twice": (left, left),
            "right half twice": (right, right),
        }.get(wrong, (left, right))
        last_A2 = np.zeros_like(A2)
        for t in range(T):
            J = T if wrong == "no mask" else t + 1
            s = sigmoid(h[t] @ A1 + h[:J] @ A2)
            dq_t, dk_t, dvalue_t, dv_t = _attend_backward(dl[t], s, s @ v, h[:J], v)
            dq[t] += dq_t
            last_A2 = h[:J].T @ dk_t
            if wrong in ("overwritten", "dk overwritten"):
                dk[:J] = 0
            if wrong == "all of dh overwritten":
                dvalue[:J] = -dg[:J]
            if wrong in ("overwritten", "dvalue overwritten"):
                dvalue[:J] = 0
            if wrong == "own key only":
                dk[t] += dk_t[t]
            else:
                dk[:J] += dk_t
            dvalue[:J] += dvalue_t
            dv = dv_t if wrong == "last dv" else dv + dv_t
        A1_, A2_ = (A2, A1) if wrong == "swapped" else (A1, A2)
        parts = {
            "no c_g": dg,
            "no value": dvalue,
            "no query": dq @ (A1_ if wrong == "untransposed" else A1_.T),
            "no key": dk @ (A2_ if wrong == "untransposed" else A2_.T),
        }
        parts.pop(wrong, None)
        if wrong == "only c_g and value":
            parts = {"no c_g": dg, "no value": dvalue}
        dA1, dA2 = h.T @ dq, h.T @ dk
        if wrong in ("last dA1", "last dA1 and dA2"):
            dA1 = np.outer(h[-1], dq[-1])
        if wrong in ("last dA2", "last dA1 and dA2"):
            dA2 = last_A2
        return sum(parts.values()), *((dA2, dA1) if wrong == "dA swapped" else (dA1, dA2)), dv

    return session_backward


# --- 9.7 ------------------------------------------------------------------------------------------


def _decoder_backward(dr, c, B, emb):
    dout = dr @ emb
    return dout @ B, dout.T @ c, dr.T @ (c @ B.T)


def _decoder_cases(rng):
    # X = 2H, so that a matrix that should be transposed is a mistake with a name, no exception.
    return [
        (
            rng.normal(size=(n, items)),
            rng.normal(size=(n, X)),
            rng.normal(size=(X, X)),
            rng.normal(size=(items, X)),
        )
        for n, items, X in ((3, 5, 4), (6, 4, 2))
    ]


# --- 9.8 ------------------------------------------------------------------------------------------


def _padded_backward_with(wrong=None):
    def padded_backward(p, y, n):
        B, T = y.shape
        there = {
            "one too many": np.arange(T) <= n[:, None],
            "all": np.ones(y.shape, bool),
            "item 0": y > 0,
            "item 0, all counted": y > 0,
        }.get(wrong, np.arange(T) < n[:, None])
        count = {
            "item 0, all counted": n.sum(),
            "cells": y.size,
            "sessions": n[:, None, None] * B,
            "own": n[:, None, None],
            "rows": B,
            "sum": 1,
        }.get(wrong, there.sum())
        dr = p.copy()
        if wrong == "half":
            dr *= there[:, :, None]
        b, t = np.indices(y.shape)
        if wrong == "every cell":
            dr[:, :, y] -= 1
        elif wrong in ("to p", "1/p"):
            dr = np.zeros_like(p) if wrong == "to p" else dr
            dr[b, t, y] -= 1 / p[b, t, y]
        else:
            dr[b, t, y] -= 1
        if wrong in ("half", "unmasked"):
            return dr / count
        if wrong == "p in the padding":
            return np.where(there[:, :, None], dr, p) / count
        return (p if wrong == "no target" else dr) * there[:, :, None] / count

    return padded_backward


def _padded_cases(rng):
    cases = []
    for n, items in (([4, 2, 1], 5), ([1, 3], 4)):
        n = np.array(n)
        y = rng.integers(0, items, (len(n), n.max() + 1))
        y[0, 0] = 0  # an item like any other
        y[np.arange(y.shape[1]) >= n[:, None]] = -1
        p = rng.random((*y.shape, items))
        cases.append((p / p.sum(axis=2, keepdims=True), y, n))
    return cases


EXERCISES = [
    Exercise(
        number="9.1",
        title="looking back once",
        right=attend,
        cases=_session_cases,
        parts=("c_l", "s", "α"),
        mistakes={
            "v is missing: α_j is s_j·v, not the sum of s_j": _attend_with("no v"),
            "A1 and A2 are swapped: A1 is for the one who asks, h_t, A2 for those who are asked": (
                _attend_with("swapped")
            ),
            "σ is missing; without it α_j would be a plain sum of one part from h_t and one from"
            " h_j": _attend_with("no σ"),
            "it is σ here, not tanh": _attend_with("tanh"),
            "it asks with the first state; h_t is the newest, the last row of h": (
                _attend_with("first")
            ),
            "every h_j asks for itself; all are asked by the same h_t, the last row of h": (
                _attend_with("own")
            ),
            "your weights are a softmax; here they are not, that comes later": (
                _attend_with("softmax")
            ),
            "your weights are divided by their sum; here they stay as they are": (
                _attend_with("divided")
            ),
            "σ comes before v: first s_j = σ(q + k_j), unit by unit, then α_j = s_j·v": (
                _attend_with("σ outside")
            ),
            "q and k_j are added inside one σ: σ(q + k_j), not σ(q) + σ(k_j)": (
                _attend_with("two σ")
            ),
            "q and k_j are added, not multiplied (other attentions do that)": (
                _attend_with("product")
            ),
            "states are rows: h_t A1 is h[-1] @ A1, not A1 @ h[-1]": _attend_with("columns"),
            "each h_j is multiplied by the one number α_j, not unit by unit by the parts of it": (
                _attend_with("by unit")
            ),
            "it adds up the keys h_j A2; what is collected are the states h_j": _attend_with("k"),
            "the order of what is returned is c_l, s, α": _attend_with("order"),
            "it adds up the s_j; what is collected are the states h_j": _attend_with("s"),
            "it is a sum over j, not a mean: do not divide by the number of clicks": (
                _attend_with("mean")
            ),
            "the newest click is left out of the sum; j goes up to and with t": (
                _attend_with("without the last")
            ),
        },
        hints=[
            "h_t is h[-1]. h_t A1 is one row, h A2 has a row for each j: NumPy adds the one to"
            " each of the others.",
            "s = sigmoid(h[-1] @ A1 + h @ A2), shape (J, H). α_j is the product of row j with v.",
            "a = s @ v, and c_l = a @ h.",
        ],
    ),
    Exercise(
        number="9.2",
        title="looking back from every step, and only back",
        right=look_back,
        cases=_session_cases,
        parts=("c_l", "α"),
        mistakes={
            "step t looks at clicks after t, which are what it must guess: α must be 0 for j > t": (
                _look_back_with("no mask")
            ),
            "step t does not look at its own click; it may, only j > t is forbidden": (
                _look_back_with("strictly")
            ),
            "it looks ahead instead of back: row t of α is step t, so its columns j <= t stay,"
            " the lower triangle": _look_back_with("upside down"),
            "it still sees one click too many, j = t + 1, the very one to be guessed": (
                _look_back_with("one too many")
            ),
            "the zeros stand before σ, and σ(0) is 1/2: those clicks still count; the zeros belong"
            " into α": _look_back_with("before σ"),
            "the asker and the asked are turned round: row t of α is what h_t A1 asks": (
                _look_back_with("turned")
            ),
            "-inf is for the entries of a softmax; there is none here, what may not count is 0": (
                _look_back_with("-inf")
            ),
            "row t of α is step t; yours lies on its side (transposed), so that clicks look at"
            " those who come later": _look_back_with("other way"),
            "np.tril works on the last two axes: of s those are j and the units. Use it on α": (
                _look_back_with("last two")
            ),
            "a softmax is not asked for here": _look_back_with("softmax"),
        },
        hints=[
            "Which entries of the (T, T) array a belong to a click that step t cannot know yet?",
            "Row t, column j: the forbidden ones have j > t, above the diagonal. They must be 0.",
            "np.tril keeps the lower triangle and the diagonal: a = np.tril(s @ v).",
        ],
    ),
    Exercise(
        number="9.3",
        title="back through one look",
        right=_attend_backward,
        cases=_attend_backward_cases,
        parts=("dq", "dk", "dh", "dv"),
        mistakes={
            "v is missing on the way to s: s_j moves α_j by v, so ds_j = dα_j v": (
                _attend_backward_with("no v")
            ),
            "σ's slope is missing: what arrives at s still has to go back through σ": (
                _attend_backward_with("no slope")
            ),
            "the slope of σ is s (1-s); of the two factors one is missing, s": (
                _attend_backward_with("half")
            ),
            "the slope of σ is s (1-s); of the two factors one is missing, 1-s": (
                _attend_backward_with("other half")
            ),
            "what goes back to s_j is dα_j v; you took α_j itself": (
                _attend_backward_with("α to s")
            ),
            "dc is missing: h_j enters c_l times α_j, so dh_j is α_j dc": (
                _attend_backward_with("no dc")
            ),
            "dv comes from α_j = s_j·v alone: the sum of dα_j s_j; you took ds, in which v is"
            " already": _attend_backward_with("ds to v"),
            "the slope of σ is s (1-s); yours is tanh's": _attend_backward_with("tanh"),
            "s is σ(q + k) already, and you send it through σ once more; the slope is s (1-s)": (
                _attend_backward_with("again")
            ),
            "the one q stands in every s_j, so dq is the sum over j, of shape (H,)": (
                _attend_backward_with("q unsummed")
            ),
            "the one v stands in every α_j, so dv is the sum over j, of shape (H,)": (
                _attend_backward_with("v unsummed")
            ),
            "dv holds the last click's part only; the one v stands in every α_j: sum over j": (
                _attend_backward_with("v last")
            ),
            "dq holds the last click's part only; the one q stands in every s_j: sum over j": (
                _attend_backward_with("q last")
            ),
            "the one q stands in every s_j, and what it owes adds up: a sum over j, not a mean": (
                _attend_backward_with("q mean")
            ),
            "h_j enters c_l times α_j, so dh_j is α_j dc": _attend_backward_with("no α"),
            "h_j enters c_l times α_j, so dh_j is α_j dc; you took dα_j": (
                _attend_backward_with("da for α")
            ),
            "dα_j is h_j·dc, without α_j: in α_j h_j the slope for α_j is h_j": (
                _attend_backward_with("a twice")
            ),
            "what comes from above is missing: v moves α_j by s_j, so dv is the sum of dα_j s_j": (
                _attend_backward_with("no da")
            ),
            "dv is the sum of dα_j s_j; you took α_j itself": _attend_backward_with("α for da"),
        },
        hints=[
            "The last line first: in α_j h_j the slope for α_j is h_j, so dα_j = h_j·dc, for all j"
            " at once h @ dc. And h_j gets α_j dc: np.outer(a, dc).",
            "α_j = s_j·v: ds = np.outer(da, v), and v is in every line: dv = da @ s.",
            "dk = ds * s * (1 - s), for k_j is in its own line only; q is in all of them.",
            "dq = dk.sum(axis=0)",
        ],
    ),
    Exercise(
        number="9.4",
        title="a softmax over what may be seen",
        right=causal_softmax,
        cases=_softmax_cases,
        mistakes={
            "the zeros come after the softmax: the hidden clicks have taken their share already,"
            " and the rows no longer add up to 1": lambda e: np.tril(softmax(e)),
            "the hidden entries are 0 before the softmax, and exp(0) is 1, so they get a share;"
            " they must be -inf there": _softmax_with("zeros"),
            "the softmax runs down the columns; row t is one question, so it runs along the rows,"
            " axis=1": _softmax_with("axis"),
            "the mask is missing: row t must be a softmax over its columns j <= t": softmax,
            "step t's own click is left out, and the first row has nothing to look at: j = t is"
            " allowed": _softmax_with("strictly"),
            "step t's own click is left out, so the first row is all 0: j = t is allowed": (
                _own_click_hidden
            ),
            "step t's own click is hidden, so the first row is spread over clicks that all are"
            " hidden: j = t is allowed": lambda e: _own_click_hidden(e, -1e9),
            "the diagonal of the softmax is set to 0; step t may look at its own click, j = t": (
                lambda e: np.tril(causal_softmax(e), -1)
            ),
            "the zeros come after the softmax, and on the diagonal too: hide j > t before it; j = t"
            " is allowed": lambda e: np.tril(softmax(e), -1),
            "exp of 1000 is too large for a float: take each row's maximum away first, which"
            " changes nothing else": _softmax_with("no max"),
            "exp of 1000 is too large for a float, inf / inf is NaN: take each row's maximum away"
            " first, which changes nothing else": _softmax_with("no max, masked"),
            "one maximum for the whole array: in a row far below it nothing is left (0/0). Each row"
            " needs its own": _softmax_with("one max"),
            "one maximum for the whole array, hidden entries and all: in a row far below it nothing"
            " is left (0/0). Each row needs its own": _softmax_with("one max of all"),
            "the rows' maxima are spread over the wrong axis: keepdims=True leaves them a column": (
                _softmax_with("max spread")
            ),
            "the rows' sums are spread over the wrong axis: keepdims=True leaves them a column": (
                _softmax_with("sum spread")
            ),
            "you divide by the sum of the whole array; every row is a softmax by itself": (
                _softmax_with("one sum")
            ),
            "it sees what comes after instead of what came before: columns j <= t, np.tri": (
                _softmax_with("upside down")
            ),
            "-1000 is not low enough: a row may be lower still, and then the hidden clicks win."
            " Use -np.inf": _softmax_with("-1000"),
            "the maximum that you take away is one that the row may not see; where that is much"
            " larger nothing is left (0/0). Mask first, then the maximum": (
                _softmax_with("max of all")
            ),
        },
        hints=[
            "exp(-inf) is 0: entries that are -inf before the softmax get nothing.",
            "e = np.where(np.tri(len(e), dtype=bool), e, -np.inf), then a softmax of each row.",
            "p = np.exp(e - e.max(axis=1, keepdims=True)), and divide by the rows' sums.",
        ],
    ),
    Exercise(
        number="9.5",
        title="back through the softmax",
        right=_softmax_backward,
        cases=_softmax_backward_cases,
        mistakes={
            "the part -Σ is missing: each e_i also sits in the sum below, and moves all α of its"
            " row": lambda da, a: a * da,
            "a (1-a) is only how α_i moves with its own e_i; e_i moves the others of its row too": (
                lambda da, a: a * (1 - a) * da
            ),
            "the Σ must run along the rows (axis=1, keepdims=True), as the softmax did": (
                lambda da, a: a * (da - (a * da).sum(axis=0))
            ),
            "the sum is right, but spread over the wrong axis: keepdims=True leaves it a column,"
            " one number for each row": lambda da, a: a * (da - (a * da).sum(axis=1)),
            "in the Σ each dα_j counts with its α_j": (
                lambda da, a: a * (da - da.sum(axis=1, keepdims=True))
            ),
            "the Σ is a sum, not a mean": (
                lambda da, a: a * (da - (a * da).mean(axis=1, keepdims=True))
            ),
            "the Σ is multiplied by α_i too: de_i = α_i (dα_i - Σ)": (
                lambda da, a: a * da - (a * da).sum(axis=1, keepdims=True)
            ),
            "the factor α_i in front is missing": (
                lambda da, a: da - (a * da).sum(axis=1, keepdims=True)
            ),
            "the Σ runs over the whole array; every row is a softmax by itself": (
                lambda da, a: a * (da - (a * da).sum())
            ),
            "the Σ is added; more for one is less for the others: it has a minus": (
                lambda da, a: a * (da + (a * da).sum(axis=1, keepdims=True))
            ),
        },
        hints=[
            "In one row: de_i = Σ_j dα_j ∂α_j/∂e_i, and ∂α_j/∂e_i = α_j (1 if i = j, else 0)"
            " - α_j α_i.",
            "So de_i = α_i dα_i - α_i Σ_j α_j dα_j. The mask needs nothing: where α is 0, de is 0.",
            "a * (da - (a * da).sum(axis=1, keepdims=True))",
        ],
    ),
    Exercise(
        number="9.6",
        title="back through a whole session",
        right=_session_backward,
        cases=_session_backward_cases,
        parts=("dh", "dA1", "dA2", "dv"),
        mistakes={
            "h_t is c_g too: dh lacks the left half of dc": _session_backward_with("no c_g"),
            "h_t also asks, as q_t = h_t A1: dh lacks dq @ A1.T": (
                _session_backward_with("no query")
            ),
            "h_j is also asked, as k_j = h_j A2: dh lacks dk @ A2.T": (
                _session_backward_with("no key")
            ),
            "h_j is also what is collected: dh lacks the α_j dc of every later step": (
                _session_backward_with("no value")
            ),
            "dh has what h_j is worth as c_g and when it is collected; it also asks (dq @ A1.T)"
            " and is asked (dk @ A2.T)": _session_backward_with("only c_g and value"),
            "the halves of dc are swapped: c = [c_g | c_l]": _session_backward_with("halves"),
            "c_l's gradient is the right half of dc; attend_backward gets dc[t, H:]": (
                _session_backward_with("left half twice")
            ),
            "c_g's gradient is the left half of dc; dh begins with dc[:, :H]": (
                _session_backward_with("right half twice")
            ),
            "steps look ahead: at step t only h[: t + 1] is there": (
                _session_backward_with("no mask")
            ),
            "each step writes over what the steps before it left: click j is looked at by every"
            " step from j on, so add up (+=)": (_session_backward_with("overwritten")),
            "in dk each step writes over what the steps before it left: click j is asked by every"
            " step from j on, so add up (+=)": _session_backward_with("dk overwritten"),
            "each step writes over the α_j dc of the steps before: click j is collected by every"
            " step from j on, so add up (+=)": _session_backward_with("dvalue overwritten"),
            "each step writes over all that was in dh, dc's left half too; add to it (+=)": (
                _session_backward_with("all of dh overwritten")
            ),
            "step t asks every click up to t, not the newest alone: of what comes back as dk you"
            " kept one row, dk[: t + 1] += all of it": _session_backward_with("own key only"),
            "dv holds one step's part; every step uses the same v, so add up": (
                _session_backward_with("last dv")
            ),
            "dA1 holds the last step's part only; every step uses the same A1, so add up (+=)": (
                _session_backward_with("last dA1")
            ),
            "dA2 holds the last step's part only; every step uses the same A2, so add up (+=)": (
                _session_backward_with("last dA2")
            ),
            "dA1 and dA2 hold the last step's part only; every step uses the same A1 and A2, so"
            " add up (+=)": _session_backward_with("last dA1 and dA2"),
            "A1 and A2 are swapped on the way to dh: q came through A1, k through A2": (
                _session_backward_with("swapped")
            ),
            "dA1 and dA2 are swapped: q came through A1, k through A2": (
                _session_backward_with("dA swapped")
            ),
            "going back through a product with A1 or A2 multiplies by its transpose": (
                _session_backward_with("untransposed")
            ),
        },
        hints=[
            "Step t: _, s, a = attend(h[: t + 1], A1, A2, v), then"
            " attend_backward(dc[t, H:], s, a, h[: t + 1], v).",
            "Keep dq and dk of all steps in (T, H) arrays: dq[t] = ..., but dk[: t + 1] += ..., and"
            " dh[: t + 1] += ... with what `attend_backward` gives for h.",
            "After the loop: dA1 = h.T @ dq, dA2 = h.T @ dk.",
            "dh has four parts: dc[:, :H], the sum from the loop, dq @ A1.T, dk @ A2.T.",
        ],
    ),
    Exercise(
        number="9.7",
        title="back through the decoder",
        right=_decoder_backward,
        cases=_decoder_cases,
        parts=("dc", "dB", "demb"),
        mistakes={
            "out = c Bᵀ, so going back multiplies by B itself, dc = dout @ B: you transposed once"
            " too often": but(_decoder_backward, 0, lambda dr, c, B, emb: dr @ emb @ B.T),
            "dB has the shape of B, (X, 2H): dout.T @ c, not c.T @ dout": but(
                _decoder_backward, 1, lambda dr, c, B, emb: c.T @ (dr @ emb)
            ),
            "what met emb was B c, not c": but(
                _decoder_backward, 2, lambda dr, c, B, emb: dr.T @ c
            ),
            "what met emb was B c, c @ B.T in rows; you have c @ B": but(
                _decoder_backward, 2, lambda dr, c, B, emb: dr.T @ (c @ B)
            ),
            "B is left out on the way to c": but(
                _decoder_backward, 0, lambda dr, c, B, emb: dr @ emb
            ),
            "the order of what is returned is dc, dB, demb": in_order(_decoder_backward, 1, 0, 2),
        },
        hints=[
            "Two products: out = c @ B.T (n, X), then r = out @ emb.T (n, I). The last one first.",
            "dout = dr @ emb, demb = dr.T @ out: the shapes leave no other way.",
            "dc = dout @ B, dB = dout.T @ c.",
        ],
    ),
    Exercise(
        number="9.8",
        title="no gradient from padding",
        right=_padded_backward_with(),
        cases=_padded_cases,
        mistakes={
            "padding is counted: the cells from n on are no events, their gradient is 0, and the"
            " mean is over the events only": _padded_backward_with("all"),
            "the padding's gradient is 0, but it still counts in the mean: divide by the number of"
            " events, n.sum()": _padded_backward_with("cells"),
            "you take the mean of the sessions' means, so an event of a short session counts more;"
            " every event counts alike: divide by n.sum()": _padded_backward_with("sessions"),
            "it is divided by the number of sessions; the mean is over the events, n.sum()": (
                _padded_backward_with("rows")
            ),
            "the division is right, but the padding still gets a gradient; it is 0 in all cells"
            " from n on": _padded_backward_with("unmasked"),
            "the division is right and the padding gets no -1, but p is left there; its gradient is"
            " 0, all of it": _padded_backward_with("p in the padding"),
            "each session is divided by its own number of events; the mean is over all events,"
            " n.sum()": _padded_backward_with("own"),
            "a session of n events has them at t = 0 ... n-1; you count t = n too": (
                _padded_backward_with("one too many")
            ),
            "the padding still gets its -1: y is -1 there, which NumPy takes for the last item."
            " Mask after the -1, not before": _padded_backward_with("half"),
            "dr[:, :, y] takes 1 away in every cell, at all items that occur in y; each cell has"
            " its own: dr[b, t, y]": _padded_backward_with("every cell"),
            "y > 0 leaves item 0 out, which is an item like any other: y >= 0": (
                _padded_backward_with("item 0")
            ),
            "events of item 0 get no gradient; it is an item like any other: y >= 0, not y > 0": (
                _padded_backward_with("item 0, all counted")
            ),
            "-1/p at the target is the gradient for p; asked is the one for the scores, p minus 1"
            " at y": _padded_backward_with("to p"),
            "the softmax has already turned -1/p into -1: dr is p minus 1 at y": (
                _padded_backward_with("1/p")
            ),
            "the loss is a mean over the events, so its gradient is divided by their number,"
            " n.sum()": _padded_backward_with("sum"),
            "the -1 at the target is missing: dr is p minus 1 at y": (
                _padded_backward_with("no target")
            ),
        },
        hints=[
            "there = np.arange(T) < n[:, None] is (B, T): which cells are events.",
            "For an event dr is p with 1 taken away at y. b, t = np.indices(y.shape), then"
            " dr[b, t, y] -= 1 on a copy; the padding's -1 falls anywhere, and goes next.",
            "dr * there[:, :, None] / there.sum()",
        ],
    ),
]
