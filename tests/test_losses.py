"""The losses: naive formulas, finite differences, and scores up to 1e4 in float32."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import gradcheck
from gru4rec_np.ops import losses
from gru4rec_np.ops.activations import activate, exp_or_zero
from gru4rec_np.ops.losses import LOSSES, cut_cross_entropy, loss_and_gradient

FINAL_ACTS = [
    ("linear", 0.0), ("tanh", 0.0), ("relu", 0.0), ("leaky", 0.2), ("elu", 0.5), ("elu", 1.0),
    ("selu", 0.0), ("sigmoid", 0.0),
]  # fmt: skip


def naive(r, loss, bpreg, smoothing):
    """The formulas as the papers write them, one lane at a time."""

    def sigma(x):
        return 1 / (1 + np.exp(-x))

    out = []
    for b, row in enumerate(r):
        r_i, negatives = row[b], np.delete(row, b)
        n = len(negatives)
        s = np.exp(negatives - negatives.max())
        s /= s.sum()
        if loss == "cross-entropy":
            p = np.exp(row - row.max())
            p /= p.sum()
            q = np.full(len(row), smoothing / n)
            q[b] = 1 - smoothing
            out.append(-(q * np.log(p)).sum())
        elif loss == "bpr":
            out.append(-np.log(sigma(r_i - negatives)).mean())
        elif loss == "top1":
            out.append((sigma(negatives - r_i) + sigma(negatives**2)).mean())
        elif loss == "bpr-max":
            out.append(-np.log((s * sigma(r_i - negatives)).sum()))
            out[-1] += bpreg * (s * negatives**2).sum()
        else:
            out.append((s * (sigma(negatives - r_i) + sigma(negatives**2))).sum())
    return np.array(out)


@st.composite
def scores(draw):
    B = draw(st.integers(1, 6))
    N = B + draw(st.integers(1 if B == 1 else 0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return draw(st.sampled_from([0.1, 1.0, 4.0])) * rng.normal(size=(B, N)), rng


@pytest.mark.parametrize("loss", LOSSES)
@examples(200)
@given(
    drawn=scores(),
    act=st.sampled_from(FINAL_ACTS),
    bpreg=st.sampled_from([0.0, 1.0, 0.3]),
    smoothing=st.sampled_from([0.0, 0.1]),
    corrected=st.booleans(),
)
def test_value_and_gradient(loss, drawn, act, bpreg, smoothing, corrected):
    r, rng = drawn
    log_q = rng.normal(size=r.shape[1]) if corrected else None
    smoothing = smoothing if loss == "cross-entropy" else 0.0
    args = loss, act, bpreg, smoothing, log_q
    lanes, dr = loss_and_gradient(r, *args)
    activated = activate(r, *act) - (0 if log_q is None else log_q)
    # A loss near 0 is -log of a sum of N probabilities near 1: N + 4 roundings by 2e-16 show in it.
    rounding = (r.shape[1] + 4) * np.finfo(np.float64).eps
    expected = naive(activated, loss, bpreg, smoothing)
    np.testing.assert_allclose(lanes, expected, rtol=1e-9, atol=rounding)
    gradcheck(lambda: loss_and_gradient(r, *args)[0].sum(), {"r": r}, {"r": dr})


@pytest.mark.parametrize("loss", LOSSES)
@examples(200)
@given(
    act=st.sampled_from(FINAL_ACTS),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 30)),
    scale=st.sampled_from([1.0, 30.0, 100.0, 1e3, 1e4]),
    seed=st.integers(0, 2**32),
)
def test_finite_for_large_scores_in_float32(loss, act, shape, scale, seed):
    """Scores up to 1e4 with mixed signs and sizes raise no floating-point warning."""
    rng = np.random.default_rng(seed)
    B, S = shape
    r = rng.choice([-1, -0.5, 0, 1e-4, 0.5, 1], size=(B, B + S)) * scale
    r = r.astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        lanes, dr = loss_and_gradient(r, loss, act)
    assert np.isfinite(lanes).all() and np.isfinite(dr).all()
    assert lanes.dtype == dr.dtype == np.float32
    # The naive formula overflows even in float64: compare with the same code in float64.
    exact, exact_dr = loss_and_gradient(r.astype(np.float64), loss, act)
    np.testing.assert_allclose(lanes, exact, rtol=2e-4, atol=1e-4)
    # bpr-max subtracts squared scores from each other: allow for their rounding.
    squares = 1e-6 * scale**2 if loss == "bpr-max" else 0
    np.testing.assert_allclose(dr, exact_dr, rtol=1e-4, atol=1e-5 + squares)


def test_cross_entropy_applies_softmax_once():
    """A common mistake: a softmax of a softmax, which caps the loss near log N."""
    r = np.array([[50.0, 0.0, 0.0]])
    assert loss_and_gradient(r, "cross-entropy")[0][0] < 1e-12
    assert loss_and_gradient(-r, "cross-entropy")[0][0] > 49


def test_unknown_loss():
    with pytest.raises(ValueError, match=r"bpr-max.*'hinge'"):
        loss_and_gradient(np.zeros((1, 2)), "hinge")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_softmax_weight_is_denormal(dtype):
    """Denormal numbers slow products down and are too small to matter."""
    tiny = np.finfo(dtype).tiny
    e = exp_or_zero(np.linspace(1.1 * np.log(tiny), 0, 1000, dtype=dtype))
    assert e.dtype == dtype and (e == 0).any() and e[e > 0].min() > 500 * tiny and e[-1] == 1
    assert np.isnan(exp_or_zero(np.array([np.nan], dtype)))
    assert not exp_or_zero(np.array([-np.inf], dtype))
    r = np.zeros((2, 400), dtype)
    r[:, 2:] = np.linspace(1.1 * np.log(tiny), 0, 398)
    _, dr = loss_and_gradient(r, "cross-entropy")
    assert (dr[:, 2:] == 0).any() and np.abs(dr[dr != 0]).min() > tiny


# --- scores and cross-entropy in one --------------------------------------------------------------


@examples(100)
@given(
    B=st.integers(1, 6),
    D=st.integers(1, 4),
    N=st.integers(1, 9),
    scores_at_once=st.sampled_from([1, 20, 2**24]),
    seed=st.integers(0, 2**32),
)
def test_gradients_of_cut_cross_entropy(B, D, N, scores_at_once, seed):
    """Also where the lanes are taken a few at a time."""
    rng = np.random.default_rng(seed)
    a = {"h": rng.normal(size=(B, D)), "V": rng.normal(size=(N, D)), "b": rng.normal(size=N)}
    y, before = rng.integers(0, N, B), losses.CUT_SCORES
    losses.CUT_SCORES = scores_at_once
    try:
        loss, *gradients = cut_cross_entropy(**a, y=y)
    finally:
        losses.CUT_SCORES = before
    r = a["h"] @ a["V"].T + a["b"]
    np.testing.assert_allclose(loss, np.log(np.exp(r).sum(axis=1)) - r[range(B), y], atol=1e-12)
    named = dict(zip(a, gradients, strict=True))
    gradcheck(lambda: cut_cross_entropy(**a, y=y)[0].sum(), a, named)


@examples(100)
@given(B=st.integers(1, 6), S=st.integers(1, 9), D=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_cut_cross_entropy_with_samples(B, S, D, seed):
    """Columns V[items] and biases b[items] - log_q: the sampled loss, duplicates included."""
    rng = np.random.default_rng(seed)
    h, V_y, b_y = rng.normal(size=(B, D)), rng.normal(size=(4, D)), rng.normal(size=4)
    items, log_q = rng.integers(0, 4, B + S), rng.normal(size=B + S)
    V, b = V_y[items], b_y[items]
    loss, dr = loss_and_gradient(h @ V.T + b, "cross-entropy", log_q=log_q)
    wanted = loss, dr @ V, dr.T @ h, dr.sum(axis=0)
    for ours, theirs in zip(cut_cross_entropy(h, V, b - log_q, np.arange(B)), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
