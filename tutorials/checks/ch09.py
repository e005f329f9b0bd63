"""Exercises of notebook 9, NARM: the attention there and back, the mask, the decoder, padding."""

import numpy as np

from checks import Exercise
from checks.common import softmax
from gru4rec_np.ops import encoders
from gru4rec_np.ops.activations import sigmoid
from solutions import ch09


def _weights(rng, H):
    return rng.normal(size=(H, H)), rng.normal(size=(H, H)), rng.normal(size=H)


# --- 9.1 and 9.2 ----------------------------------------------------------------------------------


def attend(h, A1, A2, v):
    """The package's `attend` for one session: c_l (H,), s (J, H), α (J,)."""
    c, (s, a) = encoders.attend(h[-1:] @ A1, (h @ A2)[:, None], h[:, None], v)
    return c[0], s[:, 0], a[:, 0]


def _session_cases(rng):
    return [(rng.normal(size=(J, H)), *_weights(rng, H)) for J, H in ((5, 3), (3, 4), (4, 4))]


def look_back(h, A1, A2, v):
    """The package's `local` for one session, and its α, which `local` does not keep."""
    c, _ = encoders.local(h, np.ones((len(h), 1), bool), A1, A2, v)
    return c, np.tril(sigmoid((h @ A1)[:, None] + h @ A2) @ v)


# --- 9.3 ------------------------------------------------------------------------------------------


def _attend_backward(dc, s, a, h, v):
    """The package's `attend_backward` for one session."""
    dq, dk, dh, dv = encoders.attend_backward(dc[None], (s[:, None], a[:, None]), h[:, None], v)
    return dq[0], dk[:, 0], dh[:, 0], dv


def _attend_backward_cases(rng):
    cases = []
    for h, *weights in _session_cases(rng):
        _, s, a = attend(h, *weights)
        cases.append((rng.normal(size=h.shape[1]), s, a, h, weights[2]))
    return cases


# --- 9.4 and 9.5 ----------------------------------------------------------------------------------


def causal_softmax(e):
    seen = np.tri(len(e), dtype=bool)
    p = np.exp(np.where(seen, e - e.max(axis=1, keepdims=True, where=seen, initial=-np.inf), 0))
    p *= seen
    return p / p.sum(axis=1, keepdims=True)


def _masked_late(e, top):
    """The largest number `top` is taken away, and what may not be seen is hidden after exp."""
    p = np.exp(e - top) * np.tri(len(e))
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


def _softmax_backward_cases(rng):
    return [(rng.normal(size=(T, T)), causal_softmax(rng.normal(size=(T, T)))) for T in (4, 3)]


# --- 9.6 ------------------------------------------------------------------------------------------


def _session_backward(dc, h, A1, A2, v):
    """The package's `local_backward` for one session, and c_g's part."""
    H, there = h.shape[1], np.ones((len(h), 1), bool)
    _, cache = encoders.local(h, there, A1, A2, v)
    dh, *others = encoders.local_backward(dc[:, H:], cache, there, A1, A2, v)
    return dh + dc[:, :H], *others


def _session_backward_cases(rng):
    return [
        (rng.normal(size=(len(h), 2 * h.shape[1])), h, *weights)
        for h, *weights in _session_cases(rng)
    ]


# --- 9.7 ------------------------------------------------------------------------------------------


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
        solution=ch09.attend,
        mistakes={
            "v is missing: α_j is s_j·v, not the sum of s_j": {"s @ v": "s.sum(axis=1)"},
            "A1 and A2 are swapped: A1 is for the one who asks, h_t, A2 for those who are asked": {
                "h[-1] @ A1 + h @ A2": "h[-1] @ A2 + h @ A1"
            },
            "σ is missing; without it α_j would be a plain sum of one part from h_t and one from"
            " h_j": {"sigmoid": ""},
            "it is σ here, not tanh": {"sigmoid": "np.tanh"},
            "it asks with the first state; h_t is the newest, the last row of h": {"h[-1]": "h[0]"},
            "every h_j asks for itself; all are asked by the same h_t, the last row of h": {
                "h[-1]": "h"
            },
            "your weights are a softmax; here they are not, that comes later": {
                "s @ v": "np.exp(s @ v) / np.exp(s @ v).sum()"
            },
            "your weights are divided by their sum; here they stay as they are": {
                "s @ v": "s @ v / (s @ v).sum()"
            },
            "σ comes before v: first s_j = σ(q + k_j), unit by unit, then α_j = s_j·v": {
                "s @ v": "sigmoid((h[-1] @ A1 + h @ A2) @ v)"
            },
            "q and k_j are added inside one σ: σ(q + k_j), not σ(q) + σ(k_j)": {
                "sigmoid(h[-1] @ A1 + h @ A2)": "sigmoid(h[-1] @ A1) + sigmoid(h @ A2)"
            },
            "q and k_j are added, not multiplied (other attentions do that)": {
                "+ h @ A2": "* (h @ A2)"
            },
            "states are rows: h_t A1 is h[-1] @ A1, not A1 @ h[-1]": {"h[-1] @ A1": "A1 @ h[-1]"},
            "each h_j is multiplied by the one number α_j, not unit by unit by the parts of it": {
                "a @ h": "(s * v * h).sum(axis=0)"
            },
            "it adds up the keys h_j A2; what is collected are the states h_j": {
                "a @ h": "a @ h @ A2"
            },
            "the order of what is returned is c_l, s, α": {"a @ h, s, a": "a @ h, a, s"},
            "it adds up the s_j; what is collected are the states h_j": {"a @ h": "a @ s"},
            "it is a sum over j, not a mean: do not divide by the number of clicks": {
                "a @ h": "a @ h / len(h)"
            },
            "the newest click is left out of the sum; j goes up to and with t": {
                "a @ h": "a[:-1] @ h[:-1]"
            },
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
        solution=ch09.look_back,
        mistakes={
            "step t looks at clicks after t, which are what it must guess: α must be 0 for j > t": {
                "np.tril": ""
            },
            "step t does not look at its own click; it may, only j > t is forbidden": {
                "s @ v": "s @ v, -1"
            },
            "it looks ahead instead of back: row t of α is step t, so its columns j <= t stay,"
            " the lower triangle": {"np.tril": "np.triu"},
            "it still sees one click too many, j = t + 1, the very one to be guessed": {
                "s @ v": "s @ v, 1"
            },
            "the zeros stand before σ, and σ(0) is 1/2: those clicks still count; the zeros belong"
            " into α": {
                "q[:, None] + k[None, :]": "np.tri(len(h))[:, :, None] * (q[:, None] + k)",
                "np.tril": "",
            },
            "the asker and the asked are turned round: row t of α is what h_t A1 asks": {
                "q[:, None] + k[None, :]": "q[None, :] + k[:, None]"
            },
            "-inf is for the entries of a softmax; there is none here, what may not count is 0": {
                "np.tril(s @ v)": "np.where(np.tri(len(h)) > 0, s @ v, -np.inf)"
            },
            "row t of α is step t; yours lies on its side (transposed), so that clicks look at"
            " those who come later": {"np.tril(s @ v)": "np.tril(s @ v).T"},
            "np.tril works on the last two axes: of s those are j and the units. Use it on α": {
                "np.tril(s @ v)": "np.tril(s) @ v"
            },
            "a softmax is not asked for here": {"np.tril": "causal_softmax"},
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
        solution=ch09.attend_backward,
        mistakes={
            "v is missing on the way to s: s_j moves α_j by v, so ds_j = dα_j v": {
                "np.outer(da, v)": "np.outer(da, np.ones_like(v))"
            },
            "σ's slope is missing: what arrives at s still has to go back through σ": {
                "ds * s * (1 - s)": "ds"
            },
            "the slope of σ is s (1-s); of the two factors one is missing, s": {
                "ds * s * (1 - s)": "ds * (1 - s)"
            },
            "the slope of σ is s (1-s); of the two factors one is missing, 1-s": {
                "ds * s * (1 - s)": "ds * s"
            },
            "what goes back to s_j is dα_j v; you took α_j itself": {
                "np.outer(da, v)": "np.outer(a, v)"
            },
            "dc is missing: h_j enters c_l times α_j, so dh_j is α_j dc": {
                "np.outer(a, dc)": "a[:, None] * h"
            },
            "dv comes from α_j = s_j·v alone: the sum of dα_j s_j; you took ds, in which v is"
            " already": {"da @ s": "(np.outer(da, v) * s).sum(axis=0)"},
            "the slope of σ is s (1-s); yours is tanh's": {"s * (1 - s)": "(1 - s * s)"},
            "s is σ(q + k) already, and you send it through σ once more; the slope is s (1-s)": {
                "s * (1 - s)": "sigmoid(s) * (1 - sigmoid(s))"
            },
            "the one q stands in every s_j, so dq is the sum over j, of shape (H,)": {
                "dk.sum(axis=0)": "dk"
            },
            "the one v stands in every α_j, so dv is the sum over j, of shape (H,)": {
                "da @ s": "da[:, None] * s"
            },
            "dv holds the last click's part only; the one v stands in every α_j: sum over j": {
                "da @ s": "da[-1] * s[-1]"
            },
            "dq holds the last click's part only; the one q stands in every s_j: sum over j": {
                "dk.sum(axis=0)": "dk[-1]"
            },
            "the one q stands in every s_j, and what it owes adds up: a sum over j, not a mean": {
                "dk.sum": "dk.mean"
            },
            "h_j enters c_l times α_j, so dh_j is α_j dc": {
                "np.outer(a, dc)": "np.tile(dc, (len(h), 1))"
            },
            "h_j enters c_l times α_j, so dh_j is α_j dc; you took dα_j": {
                "np.outer(a, dc)": "np.outer(h @ dc, dc)"
            },
            "dα_j is h_j·dc, without α_j: in α_j h_j the slope for α_j is h_j": {
                "h @ dc": "a * (h @ dc)"
            },
            "what comes from above is missing: v moves α_j by s_j, so dv is the sum of dα_j s_j": {
                "da @ s": "s.sum(axis=0)"
            },
            "dv is the sum of dα_j s_j; you took α_j itself": {"da @ s": "a @ s"},
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
        solution=ch09.causal_softmax,
        mistakes={
            "the zeros come after the softmax: the hidden clicks have taken their share already,"
            " and the rows no longer add up to 1": lambda e: np.tril(softmax(e)),
            "the hidden entries are 0 before the softmax, and exp(0) is 1, so they get a share;"
            " they must be -inf there": {"-np.inf": "0"},
            "the softmax runs down the columns; row t is one question, so it runs along the rows,"
            " axis=1": {"e.max(axis=1": "e.max(axis=0", "p.sum(axis=1": "p.sum(axis=0"},
            "the mask is missing: row t must be a softmax over its columns j <= t": softmax,
            "step t's own click is left out, and the first row has nothing to look at: j = t is"
            " allowed": {"len(e), ": "len(e), k=-1, "},
            "step t's own click is left out, so the first row is all 0: j = t is allowed": {
                "len(e), ": "len(e), k=-1, ",
                "return p / p.sum(axis=1, keepdims=True)": "p /= p.sum(axis=1, keepdims=True)\n"
                "    return np.nan_to_num(p)",
            },
            "step t's own click is hidden, so the first row is spread over clicks that all are"
            " hidden: j = t is allowed": {"len(e), ": "len(e), k=-1, ", "-np.inf": "-1e9"},
            "the diagonal of the softmax is set to 0; step t may look at its own click, j = t": (
                lambda e: np.tril(causal_softmax(e), -1)
            ),
            "the zeros come after the softmax, and on the diagonal too: hide j > t before it; j = t"
            " is allowed": lambda e: np.tril(softmax(e), -1),
            "exp of 1000 is too large for a float: take each row's maximum away first, which"
            " changes nothing else": lambda e: _masked_late(e, 0),
            "exp of 1000 is too large for a float, inf / inf is NaN: take each row's maximum away"
            " first, which changes nothing else": {" - e.max(axis=1, keepdims=True)": ""},
            "one maximum for the whole array: in a row far below it nothing is left (0/0). Each row"
            " needs its own": {"e.max(axis=1, keepdims=True)": "e.max()"},
            "one maximum for the whole array, hidden entries and all: in a row far below it nothing"
            " is left (0/0). Each row needs its own": lambda e: _masked_late(e, e.max()),
            "the rows' maxima are spread over the wrong axis: keepdims=True leaves them a column": {
                "e.max(axis=1, keepdims=True)": "e.max(axis=1)"
            },
            "the rows' sums are spread over the wrong axis: keepdims=True leaves them a column": {
                "p.sum(axis=1, keepdims=True)": "p.sum(axis=1)"
            },
            "you divide by the sum of the whole array; every row is a softmax by itself": {
                "p.sum(axis=1, keepdims=True)": "p.sum()"
            },
            "it sees what comes after instead of what came before: columns j <= t, np.tri": {
                "np.tri(len(e), dtype=bool)": "np.tri(len(e), dtype=bool).T"
            },
            "-1000 is not low enough: a row may be lower still, and then the hidden clicks win."
            " Use -np.inf": {"-np.inf": "-1000"},
            "the maximum that you take away is one that the row may not see; where that is much"
            " larger nothing is left (0/0). Mask first, then the maximum": lambda e: _masked_late(
                e, e.max(axis=1, keepdims=True)
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
        right=ch09.softmax_backward,
        cases=_softmax_backward_cases,
        mistakes={
            "the part -Σ is missing: each e_i also sits in the sum below, and moves all α of its"
            " row": {" - (a * da).sum(axis=1, keepdims=True)": ""},
            "a (1-a) is only how α_i moves with its own e_i; e_i moves the others of its row too": {
                "(da - (a * da).sum(axis=1, keepdims=True))": "(1 - a) * da"
            },
            "the Σ must run along the rows (axis=1, keepdims=True), as the softmax did": {
                "axis=1, keepdims=True": "axis=0"
            },
            "the sum is right, but spread over the wrong axis: keepdims=True leaves it a column,"
            " one number for each row": {", keepdims=True": ""},
            "in the Σ each dα_j counts with its α_j": {"(a * da).sum": "da.sum"},
            "the Σ is a sum, not a mean": {"sum": "mean"},
            "the Σ is multiplied by α_i too: de_i = α_i (dα_i - Σ)": {
                "(da - (a * da).sum(axis=1, keepdims=True))": "da - (a * da).sum(axis=1)[:, None]"
            },
            "the factor α_i in front is missing": {"a * (da - (a * da)": "(da - (a * da)"},
            "the Σ runs over the whole array; every row is a softmax by itself": {
                "axis=1, keepdims=True": ""
            },
            "the Σ is added; more for one is less for the others: it has a minus": {
                "da - ": "da + "
            },
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
        solution=ch09.session_backward,
        mistakes={
            "h_t is c_g too: dh lacks the left half of dc": {
                "dc[:, :H].copy()": "np.zeros((T, H))"
            },
            "h_t also asks, as q_t = h_t A1: dh lacks dq @ A1.T": {" + dq @ A1.T": ""},
            "h_j is also asked, as k_j = h_j A2: dh lacks dk @ A2.T": {" + dk @ A2.T": ""},
            "h_j is also what is collected: dh lacks the α_j dc of every later step": {
                "+= dh_t": "+= 0"
            },
            "dh has what h_j is worth as c_g and when it is collected; it also asks (dq @ A1.T)"
            " and is asked (dk @ A2.T)": {" + dq @ A1.T + dk @ A2.T": ""},
            "the halves of dc are swapped: c = [c_g | c_l]": {
                "dc[:, :H]": "dc[:, H:]",
                "dc[t, H:]": "dc[t, :H]",
            },
            "c_l's gradient is the right half of dc; attend_backward gets dc[t, H:]": {
                "dc[t, H:]": "dc[t, :H]"
            },
            "c_g's gradient is the left half of dc; dh begins with dc[:, :H]": {
                "dc[:, :H]": "dc[:, H:]"
            },
            "steps look ahead: at step t only h[: t + 1] is there": {
                "so_far = h[: t + 1]": "so_far = h",
                "_, s, a = attend(so_far, A1, A2, v)": "s = sigmoid(h[t] @ A1 + h @ A2)",
                "s, a, so_far": "s, s @ v, so_far",
                "dk[: t + 1]": "dk[:]",
                "dh[: t + 1]": "dh[:]",
            },
            "each step writes over what the steps before it left: click j is looked at by every"
            " step from j on, so add up (+=)": {
                "+= dk_t": "= dk_t",
                "+= dh_t": "= dh_t + dc[: t + 1, :H]",
            },
            "in dk each step writes over what the steps before it left: click j is asked by every"
            " step from j on, so add up (+=)": {"+= dk_t": "= dk_t"},
            "each step writes over the α_j dc of the steps before: click j is collected by every"
            " step from j on, so add up (+=)": {"+= dh_t": "= dh_t + dc[: t + 1, :H]"},
            "each step writes over all that was in dh, dc's left half too; add to it (+=)": {
                "+= dh_t": "= dh_t"
            },
            "step t asks every click up to t, not the newest alone: of what comes back as dk you"
            " kept one row, dk[: t + 1] += all of it": {"dk[: t + 1] += dk_t": "dk[t] += dk_t[t]"},
            "dv holds one step's part; every step uses the same v, so add up": {
                "dv += dv_t": "dv = dv_t"
            },
            "dA1 holds the last step's part only; every step uses the same A1, so add up (+=)": {
                "h.T @ dq": "np.outer(h[-1], dq[-1])"
            },
            "dA2 holds the last step's part only; every step uses the same A2, so add up (+=)": {
                "h.T @ dk": "h.T @ dk_t"
            },
            "dA1 and dA2 hold the last step's part only; every step uses the same A1 and A2, so"
            " add up (+=)": {"h.T @ dq": "np.outer(h[-1], dq[-1])", "h.T @ dk": "h.T @ dk_t"},
            "A1 and A2 are swapped on the way to dh: q came through A1, k through A2": {
                "dq @ A1.T + dk @ A2.T": "dq @ A2.T + dk @ A1.T"
            },
            "dA1 and dA2 are swapped: q came through A1, k through A2": {
                "h.T @ dq, h.T @ dk": "h.T @ dk, h.T @ dq"
            },
            "going back through a product with A1 or A2 multiplies by its transpose": {
                "A1.T": "A1",
                "A2.T": "A2",
            },
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
        right=ch09.decoder_backward,
        cases=_decoder_cases,
        parts=("dc", "dB", "demb"),
        mistakes={
            "out = c Bᵀ, so going back multiplies by B itself, dc = dout @ B: you transposed once"
            " too often": {"dout @ B": "dout @ B.T"},
            "dB has the shape of B, (X, 2H): dout.T @ c, not c.T @ dout": {
                "dout.T @ c": "c.T @ dout"
            },
            "what met emb was B c, not c": {"(c @ B.T)": "c"},
            "what met emb was B c, c @ B.T in rows; you have c @ B": {"c @ B.T": "c @ B"},
            "B is left out on the way to c": {"dout @ B": "dout"},
            "the order of what is returned is dc, dB, demb": {
                "dout @ B, dout.T @ c": "dout.T @ c, dout @ B"
            },
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
        right=ch09.padded_backward,
        cases=_padded_cases,
        mistakes={
            "padding is counted: the cells from n on are no events, their gradient is 0, and the"
            " mean is over the events only": {
                "np.arange(y.shape[1]) < n[:, None]": "np.ones(y.shape, bool)"
            },
            "the padding's gradient is 0, but it still counts in the mean: divide by the number of"
            " events, n.sum()": {"there.sum()": "y.size"},
            "you take the mean of the sessions' means, so an event of a short session counts more;"
            " every event counts alike: divide by n.sum()": {
                "there.sum()": "(n[:, None, None] * len(n))"
            },
            "it is divided by the number of sessions; the mean is over the events, n.sum()": {
                "there.sum()": "len(n)"
            },
            "the division is right, but the padding still gets a gradient; it is 0 in all cells"
            " from n on": {" * there[:, :, None]": ""},
            "the division is right and the padding gets no -1, but p is left there; its gradient is"
            " 0, all of it": {"dr * there[:, :, None]": "np.where(there[:, :, None], dr, p)"},
            "each session is divided by its own number of events; the mean is over all events,"
            " n.sum()": {"there.sum()": "n[:, None, None]"},
            "a session of n events has them at t = 0 ... n-1; you count t = n too": {"<": "<="},
            "the padding still gets its -1: y is -1 there, which NumPy takes for the last item."
            " Mask after the -1, not before": {
                "p.copy()": "p * there[:, :, None]",
                "dr * there[:, :, None]": "dr",
            },
            "dr[:, :, y] takes 1 away in every cell, at all items that occur in y; each cell has"
            " its own: dr[b, t, y]": {"dr[b, t, y]": "dr[:, :, y]"},
            "y > 0 leaves item 0 out, which is an item like any other: y >= 0": {
                "np.arange(y.shape[1]) < n[:, None]": "y > 0"
            },
            "events of item 0 get no gradient; it is an item like any other: y >= 0, not y > 0": {
                "np.arange(y.shape[1]) < n[:, None]": "y > 0",
                "there.sum()": "n.sum()",
            },
            "-1/p at the target is the gradient for p; asked is the one for the scores, p minus 1"
            " at y": {"p.copy()": "np.zeros_like(p)", "-= 1": "-= 1 / p[b, t, y]"},
            "the softmax has already turned -1/p into -1: dr is p minus 1 at y": {
                "-= 1": "-= 1 / p[b, t, y]"
            },
            "the loss is a mean over the events, so its gradient is divided by their number,"
            " n.sum()": {" / there.sum()": ""},
            "the -1 at the target is missing: dr is p minus 1 at y": {"-= 1": "-= 0"},
        },
        hints=[
            "there = np.arange(T) < n[:, None] is (B, T): which cells are events.",
            "For an event dr is p with 1 taken away at y. b, t = np.indices(y.shape), then"
            " dr[b, t, y] -= 1 on a copy; the padding's -1 falls anywhere, and goes next.",
            "dr * there[:, :, None] / there.sum()",
        ],
    ),
]
