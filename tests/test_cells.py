"""Cells, dense layer, activations, weighted input, scores: each with its backward."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import examples
from gru4rec_np import gradcheck
from gru4rec_np.data.batches import negative_distribution
from gru4rec_np.ops.activations import ACTIVATIONS, activate, activate_backward, sigmoid
from gru4rec_np.ops.cells import (
    dense,
    dense_backward,
    gru,
    gru_backward,
    gru_reset_after,
    gru_reset_after_backward,
    lstm,
    lstm_backward,
    rnn,
    rnn_backward,
)
from gru4rec_np.ops.inputs import history_length, push, weighted, weighted_backward
from gru4rec_np.ops.losses import loss_and_gradient, softmax_loss
from gru4rec_np.ops.scoring import (
    TINY,
    corrected,
    expected_columns,
    log_proposal,
    of_length,
    of_length_backward,
    scores,
    scores_backward,
)

lanes, units, seeds = st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32)
acts = st.tuples(st.sampled_from(ACTIVATIONS), st.sampled_from([0.2, 1.0]))


@examples(200)
@given(acts, seeds)
def test_activations(act, seed):
    rng = np.random.default_rng(seed)
    x, dy = 3 * rng.normal(size=(2, 3, 4))
    y = activate(x, *act)
    dx = activate_backward(dy, y, *act)
    gradcheck(lambda: (activate(x, *act) * dy).sum(), {"x": x}, {"x": dx})


def test_activations_do_not_overflow():
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        for kind in ACTIVATIONS:
            y = activate(x, kind, 0.5)
            assert np.isfinite(y).all() and y.dtype == np.float32
            assert (np.diff(y) >= 0).all(), f"{kind} must not decrease: ranking is on raw scores"
    assert sigmoid(np.float32(-80)) > 0


def test_selu_keeps_mean_and_variance():
    """Its two constants map N(0, 1) to mean 0 and variance 1."""
    z = np.linspace(-12, 12, 200_001)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    y = activate(z, "selu")
    assert abs((weight * y).sum()) < 1e-8 and abs((weight * y * y).sum() - 1) < 1e-8


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"sigmoid.*'swish'"):
        activate(np.zeros(1), "swish")
    with pytest.raises(ValueError, match=r"sigmoid.*'swish'"):
        activate_backward(np.zeros(1), np.zeros(1), "swish")


@examples(200)
@given(lanes, units, acts, seeds)
def test_gru(B, H, act, seed):
    rng = np.random.default_rng(seed)
    arrays = {
        "xW": rng.normal(size=(B, 3 * H)),
        "h": rng.normal(size=(B, H)),
        "U": rng.normal(size=(H, 3 * H)),
        "b": rng.normal(size=3 * H),
    }
    dh_new = rng.normal(size=(B, H))
    _, cache = gru(**arrays, hidden_act=act)
    found = dict(zip(arrays, gru_backward(dh_new, cache, arrays["U"], act), strict=True))
    gradcheck(lambda: (gru(**arrays, hidden_act=act)[0] * dh_new).sum(), arrays, found)


@examples(200)
@given(lanes, units, acts, seeds)
def test_gru_reset_after(B, H, act, seed):
    rng = np.random.default_rng(seed)
    arrays = {
        "xW": rng.normal(size=(B, 3 * H)),
        "h": rng.normal(size=(B, H)),
        "U": rng.normal(size=(H, 3 * H)),
        "b": rng.normal(size=3 * H),
        "c": rng.normal(size=3 * H),
    }
    dh_new = rng.normal(size=(B, H))
    _, cache = gru_reset_after(**arrays, hidden_act=act)
    back = gru_reset_after_backward(dh_new, cache, arrays["U"], act)
    gradcheck(
        lambda: (gru_reset_after(**arrays, hidden_act=act)[0] * dh_new).sum(),
        arrays,
        dict(zip(arrays, back, strict=True)),
    )


@examples(200)
@given(lanes, units, acts, seeds)
def test_rnn(B, H, act, seed):
    rng = np.random.default_rng(seed)
    arrays = {
        "xW": rng.normal(size=(B, H)),
        "h": rng.normal(size=(B, H)),
        "U": rng.normal(size=(H, H)),
        "b": rng.normal(size=H),
    }
    dh_new = rng.normal(size=(B, H))
    _, cache = rnn(**arrays, hidden_act=act)
    found = dict(zip(arrays, rnn_backward(dh_new, cache, arrays["U"], act), strict=True))
    gradcheck(lambda: (rnn(**arrays, hidden_act=act)[0] * dh_new).sum(), arrays, found)


@examples(200)
@given(lanes, units, acts, seeds)
def test_lstm(B, H, act, seed):
    """The output and the memory each have an incoming gradient."""
    rng = np.random.default_rng(seed)
    arrays = {
        "xW": rng.normal(size=(B, 4 * H)),
        "hc": rng.normal(size=(B, 2 * H)),
        "U": rng.normal(size=(H, 4 * H)),
        "b": rng.normal(size=4 * H),
    }
    dhc_new = rng.normal(size=(B, 2 * H))
    _, cache = lstm(**arrays, hidden_act=act)
    found = dict(zip(arrays, lstm_backward(dhc_new, cache, arrays["U"], act), strict=True))
    gradcheck(lambda: (lstm(**arrays, hidden_act=act)[0] * dhc_new).sum(), arrays, found)


def test_rnn_and_lstm_are_their_formulas():
    """One lane and one unit at a time; the order of the gates is i, f, o, n."""
    rng = np.random.default_rng(0)
    B, X, H = 3, 4, 2
    x, h, c = rng.normal(size=(B, X)), rng.normal(size=(B, H)), rng.normal(size=(B, H))
    W, U, b = rng.normal(size=(X, 4 * H)), rng.normal(size=(H, 4 * H)), rng.normal(size=4 * H)
    hc_new, _ = lstm(x @ W, np.hstack([h, c]), U, b)
    h_new, _ = rnn(x @ W[:, :H], h, U[:, :H], b[:H], ("sigmoid", 0.0))

    def logistic(a):
        return 1 / (1 + np.exp(-a))

    for lane in range(B):
        for k in range(H):
            i, f, o, n = (x[lane] @ W[:, j] + h[lane] @ U[:, j] + b[j] for j in range(k, 4 * H, H))
            assert abs(h_new[lane, k] - logistic(i)) < 1e-14
            memory = logistic(f) * c[lane, k] + logistic(i) * np.tanh(n)
            assert abs(hc_new[lane, H + k] - memory) < 1e-14
            assert abs(hc_new[lane, k] - logistic(o) * np.tanh(memory)) < 1e-14


def test_gru_is_the_papers_formula():
    """One lane and one unit at a time."""
    rng = np.random.default_rng(0)
    B, X, H = 3, 4, 2
    x, h = rng.normal(size=(B, X)), rng.normal(size=(B, H))
    W, U, b = rng.normal(size=(X, 3 * H)), rng.normal(size=(H, 3 * H)), rng.normal(size=3 * H)
    h_new, _ = gru(x @ W, h, U, b)

    def logistic(a):
        return 1 / (1 + np.exp(-a))

    for lane in range(B):
        r = [
            logistic(x[lane] @ W[:, k] + h[lane] @ U[:, k] + b[k]) for k in range(H)
        ]  # fmt: skip
        for k in range(H):
            z = logistic(x[lane] @ W[:, H + k] + h[lane] @ U[:, H + k] + b[H + k])
            candidate = x[lane] @ W[:, 2 * H + k] + b[2 * H + k]
            candidate += sum(r[i] * h[lane, i] * U[i, 2 * H + k] for i in range(H))
            wanted = (1 - z) * h[lane, k] + z * np.tanh(candidate)
            assert abs(h_new[lane, k] - wanted) < 1e-14


@examples(50)
@given(lanes, units, seeds)
def test_the_other_update_convention_is_the_same_cell(B, H, seed):
    """h' = z*h + (1-z)*n: negate W_z, U_z and b_z, because σ(-a) = 1 - σ(a)."""
    rng = np.random.default_rng(seed)
    xW, h = rng.normal(size=(B, 3 * H)), rng.normal(size=(B, H))
    U, b = rng.normal(size=(H, 3 * H)), rng.normal(size=3 * H)
    _, (_, _, z, n) = gru(xW, h, U, b)
    review = z * h + (1 - z) * n
    turned = np.repeat([1, -1, 1], H)
    ours, _ = gru(xW * turned, h, U * turned, b * turned)
    np.testing.assert_allclose(ours, review, rtol=1e-13, atol=1e-15)


def test_the_reset_variants_differ():
    """The two variants have the same arguments but other results."""
    rng = np.random.default_rng(0)
    xW, h, U, b = rng.normal(size=(2, 6)), rng.normal(size=(2, 2)), rng.normal(size=(2, 6)), 0.0
    before, _ = gru(xW, h, U, np.zeros(6))
    after, _ = gru_reset_after(xW, h, U, np.zeros(6), np.zeros(6) + b)
    assert np.abs(before - after).max() > 1e-3


@examples(200)
@given(lanes, units, units, acts, seeds)
def test_dense(B, X, Y, act, seed):
    rng = np.random.default_rng(seed)
    arrays = {
        "x": rng.normal(size=(B, X)), "F": rng.normal(size=(X, Y)), "f": rng.normal(size=Y),
    }  # fmt: skip
    dy = rng.normal(size=(B, Y))
    _, cache = dense(**arrays, act=act)
    found = dict(zip(arrays, dense_backward(dy, cache, arrays["F"], act), strict=True))
    gradcheck(lambda: (dense(**arrays, act=act)[0] * dy).sum(), arrays, found)


@st.composite
def histories(draw):
    """(B, L) items, newest first, with duplicates, -1 for none."""
    B, L = draw(lanes), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(seeds))
    history = rng.integers(0, 4, (B, L))
    history[np.arange(L) >= rng.integers(1, L + 1, B)[:, None]] = -1
    return history


@examples(200)
@given(histories(), st.sampled_from([0.1, 0.5, 0.9]), units, seeds)
def test_weighted(history, discount, G, seed):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(4, G))
    dxW = rng.normal(size=(len(history), G))
    xW, cache = weighted(table, history, discount)
    items, gradients = weighted_backward(dxW, cache)
    dtable = np.zeros_like(table)
    np.add.at(dtable, items, gradients)
    gradcheck(
        lambda: (weighted(table, history, discount)[0] * dxW).sum(),
        {"table": table},
        {"table": dtable},
    )
    for lane, row in enumerate(history):
        x = np.zeros(4)
        for age, item in enumerate(row):
            if item >= 0:
                x[item] += discount**age
        np.testing.assert_allclose(xW[lane], x / x.sum() @ table, rtol=1e-12, atol=1e-14)


def test_history_length_and_push():
    assert history_length(0.5) == 20
    L = history_length(0.9)
    assert 0.9 ** (L - 1) >= 1e-6 > 0.9**L
    assert push(np.array([[3, 2, -1]]), np.array([7])).tolist() == [[7, 3, 2]]


@examples(200)
@given(lanes, units, st.integers(1, 12), seeds)
def test_scores(B, H, N, seed):
    rng = np.random.default_rng(seed)
    arrays = {
        "h": rng.normal(size=(B, H)), "V_y": rng.normal(size=(5, H)), "b_y": rng.normal(size=5),
    }  # fmt: skip
    items = rng.integers(0, 5, N)  # with duplicates
    dr = rng.normal(size=(B, N))
    r, V = scores(**arrays, items=items)
    dh, dV, db = scores_backward(dr, arrays["h"], V)
    dV_y, db_y = np.zeros((5, H)), np.zeros(5)
    np.add.at(dV_y, items, dV)
    np.add.at(db_y, items, db)
    gradcheck(
        lambda: (scores(**arrays, items=items)[0] * dr).sum(),
        arrays,
        {"h": dh, "V_y": dV_y, "b_y": db_y},
    )
    all_scores = arrays["h"] @ arrays["V_y"].T + arrays["b_y"]
    np.testing.assert_allclose(r, all_scores[:, items], rtol=1e-12, atol=1e-12)


@examples(100)
@given(lanes, units, st.sampled_from([1.0, 12.0]), seeds)
def test_of_length(B, D, length, seed):
    rng = np.random.default_rng(seed)
    x, du = rng.normal(size=(2, B, D))
    u, inverse = of_length(x, length)
    norms = np.sqrt(np.linalg.norm(x, axis=1, keepdims=True) ** 2 + TINY)
    np.testing.assert_allclose(u * norms, length * x, rtol=1e-12)
    np.testing.assert_allclose(inverse * norms, np.ones((B, 1)), rtol=1e-12)
    dx = of_length_backward(du, x, inverse, length)
    gradcheck(lambda: (of_length(x, length)[0] * du).sum(), {"x": x}, {"x": dx})
    assert (of_length(np.zeros((1, D)), length)[0] == 0).all()


def test_log_proposal():
    """q is support for targets and support^alpha for samples."""
    support = np.array([1, 10, 100])
    got = log_proposal(np.log(support), np.array([2, 0]), np.array([1, 2]), 0.5)
    np.testing.assert_allclose(got, np.log([100, 1, 10**0.5, 10]))


supports = arrays(np.int64, st.integers(1, 30), elements=st.integers(1, 1000))


@given(supports, st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 40), st.integers(0, 50))
def test_expected_columns(support, alpha, B, S):
    """Expected columns: of B - 1 targets by support, and of S samples by support^alpha."""
    if B + S == 1:
        return
    wanted = (B - 1) * support / support.sum() + S * support**alpha / (support**alpha).sum()
    distributions = [negative_distribution(support, a) for a in (1, alpha)]
    found = expected_columns(np.diff(distributions, prepend=0), B - 1, S)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert found.sum() == pytest.approx(B - 1 + S)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_corrected_loss_is_that_of_all_items_when_all_are_drawn_as_often_as_expected(I, B, seed):  # noqa: E741
    """Other lanes' targets included; how often the own target is drawn has no effect."""
    rng = np.random.default_rng(seed)
    y, r = rng.integers(0, I, B), 3 * rng.normal(size=(B, I))
    times = rng.integers(1, 4, I) + np.bincount(y, minlength=I)
    items = np.concatenate([y, np.repeat(np.arange(I), times)])
    log_c = np.log(np.bincount(items, minlength=I))
    lanes, dr = loss_and_gradient(
        r[:, items], "cross-entropy", log_q=corrected(log_c[items], items, B)
    )
    wanted, dr_wanted = softmax_loss(r.copy(), y)
    np.testing.assert_allclose(lanes, wanted, rtol=1e-9)
    summed = np.zeros_like(r)
    np.add.at(summed, (slice(None), items), dr)
    np.testing.assert_allclose(summed, dr_wanted, atol=1e-12)
    assert (dr[:, B:][items[B:] == y[:, None]] == 0).all()
