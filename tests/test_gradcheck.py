"""`gradcheck` names wrong gradients and passes right ones, also next to kinks."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from conftest import examples
from gru4rec_np import GradientError, gradcheck
from gru4rec_np.ops.activations import activate, activate_backward

FLOATS = st.floats(-3, 3, allow_subnormal=False)


def problem(seed=0, n=4):
    """f = Σ D * tanh(x W), W square so that a transposed gradient has the right shape."""
    rng = np.random.default_rng(seed)
    x, W, D = rng.normal(size=(3, n)), rng.normal(size=(n, n)), rng.normal(size=(3, n))
    d = D * (1 - np.tanh(x @ W) ** 2)
    return lambda: (D * np.tanh(x @ W)).sum(), {"x": x, "W": W}, {"x": d @ W.T, "W": x.T @ d}


def message(f, params, gradients, **options):
    with pytest.raises(GradientError) as caught:
        gradcheck(f, params, gradients, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@examples(200)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0, 1, 5, 99]))
def test_right_gradients_pass_and_arrays_are_restored(seed, entries):
    f, params, gradients = problem(seed)
    before = {name: p.copy() for name, p in params.items()}
    gradcheck(f, params, gradients, entries=entries)
    for name, p in params.items():
        np.testing.assert_array_equal(p, before[name])


@examples(200)
@given(arrays(np.float64, array_shapes(min_dims=0, max_dims=3, max_side=3), elements=FLOATS))
def test_arrays_of_any_shape(x):
    x = np.array(x)
    gradcheck(lambda: np.sin(x).sum(), {"x": x}, {"x": np.cos(x)})


@examples(200)
@given(st.integers(0, 2**32 - 1), st.sampled_from([-1.0, 2.0, 0.5, 1.001]))
def test_a_wrong_factor_shows_as_the_ratio(seed, factor):
    f, params, gradients = problem(seed)
    text = message(f, params, gradients | {"W": factor * gradients["W"]})
    found = re.fullmatch(
        r"W\[(\d), (\d)\]: gradient (\S+), finite difference (\S+), ratio (\S+), "
        r"relative error \S+ > 1e-06( \(\d+ more entries disagree\))?",
        text,
    )
    i, j, claimed, difference, ratio = [float(x) for x in found.groups()[:5]]
    right = gradients["W"][int(i), int(j)]
    assert claimed == pytest.approx(factor * right, rel=1e-8)
    assert difference == pytest.approx(right, rel=1e-4)
    assert ratio == pytest.approx(factor, rel=1e-4)


@examples(200)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 3]))
def test_a_transposed_gradient_is_found(seed, entries):
    f, params, gradients = problem(seed)
    gradients["W"] = gradients["W"].T
    assert message(f, params, gradients, entries=entries).startswith("W")


@examples(200)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_one_wrong_entry_is_named(seed, i, j):
    f, params, gradients = problem(seed)
    gradients["W"][i, j] += 0.1
    text = message(f, params, gradients)
    assert text.startswith(f"W[{i}, {j}]: ") and "more" not in text


def test_the_entry_that_is_furthest_off_is_named():
    f, params, gradients = problem()
    gradients["x"][1, 2] *= 1.01
    gradients["W"][3, 0] *= 5
    text = message(f, params, gradients)
    assert text.startswith("W[3, 0]: ") and text.endswith("(1 more entries disagree)")


@pytest.mark.parametrize("seed", range(5))
def test_the_random_direction_finds_one_wrong_entry_in_a_big_array(seed):
    f, params, gradients = problem(n=100)
    gradients["W"][61, 7] += 0.1
    text = message(f, params, gradients, entries=1, seed=seed)
    assert text.startswith("W along a random direction: ") or text.startswith("W[61, 7]")


def test_a_missing_gradient_is_found_though_live_entries_come_first():
    """Entries whose gradient is 0 are drawn last, but the random direction moves them too."""
    f, params, gradients = problem(n=30)
    gradients["W"][4] = 0
    assert message(f, params, gradients, entries=3).startswith("W along a random direction")


def test_entries_with_a_gradient_come_first():
    """A step uses few rows of an embedding table; the gradient of the others is 0."""
    table, moved = np.zeros((1000, 2)), set()

    def f():
        at = np.argwhere(table)
        if len(at) == 1:  # not the random direction
            moved.add(tuple(at[0].tolist()))
        return float(table[537].sum())

    gradients = np.zeros_like(table)
    gradients[537] = 1
    gradcheck(f, {"table": table}, {"table": gradients}, entries=2)
    assert moved == {(537, 0), (537, 1)}


# --- kinks, rounding and NaN ----------------------------------------------------------------------


@examples(200)
@given(
    st.one_of(st.floats(0, 1e-3), st.floats(-10, -3).map(lambda d: 10**d)),
    st.sampled_from([-1, 1]),
    st.sampled_from([None, 1]),
)
def test_relu_near_its_kink_passes(distance, sign, entries):
    x = np.array([sign * distance, 0.7, -0.3])
    weights = np.array([2.0, 3.0, 5.0])
    right = weights * (x > 0)
    gradcheck(lambda: weights @ np.maximum(x, 0), {"x": x}, {"x": right}, entries=entries)


@examples(200)
@given(st.floats(0, 1e-5), st.sampled_from(["relu", "leaky", "elu", "selu"]), st.integers(0, 99))
def test_activations_near_their_kink_pass(size, act, seed):
    """Many entries near the kink, on both sides, and a random direction through all of them."""
    rng = np.random.default_rng(seed)
    x = size * rng.normal(size=(3, 4))
    dy = rng.normal(size=x.shape)
    dx = activate_backward(dy, activate(x, act, 0.3), act, 0.3)
    gradcheck(lambda: (activate(x, act, 0.3) * dy).sum(), {"x": x}, {"x": dx})


@examples(100)
@given(st.floats(-5e-7, 5e-7), st.sampled_from([-2.0, -0.1, 2.1, 4.0]))
def test_a_wrong_gradient_at_a_kink_is_named_as_such(x, wrong):
    x = np.array([x])
    text = message(lambda: 2 * max(x[0], 0), {"x": x}, {"x": np.array([wrong])})
    assert "f has a kink within 1e-06: one-sided differences" in text


@examples(200)
@given(st.floats(1.1e-6, 1e-3), st.sampled_from([-1, 1]))
def test_relu_near_its_kink_with_the_other_sides_slope_fails(distance, sign):
    x = np.array([sign * distance])
    message(lambda: 2 * max(x[0], 0), {"x": x}, {"x": np.array([2.0 * (sign < 0)])})


def test_rounding_of_a_large_f_is_no_error():
    """The derivative is 0 and f is 1e6, so the difference is only rounding."""
    x, y = np.array([0.3]), np.array([1e3])
    gradcheck(lambda: float(np.sin(y[0]) * 1e6 + 0 * x[0]), {"x": x}, {"x": np.zeros(1)})


def test_zero_gradients_of_a_constant_pass():
    x = np.ones(3)
    gradcheck(lambda: 0.0, {"x": x}, {"x": np.zeros(3)}, entries=1)
    assert "ratio inf" in message(lambda: 0.0, {"x": x}, {"x": np.ones(3)})


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_fails(wrong):
    f, params, gradients = problem()
    gradients["W"][2, 1] = wrong
    assert message(f, params, gradients).startswith("W[2, 1]: ")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bound", [0.99985, 1.0, 1.00015])
def test_an_f_that_is_not_finite_fails(wrong, bound):
    """Also if f is finite at some of the points."""
    x = np.array([1.0])
    message(lambda: x[0] if x[0] <= bound else wrong, {"x": x}, {"x": np.array([7.0])})


# --- wrong use ------------------------------------------------------------------------------------


def test_float32_is_refused():
    x = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"\Ax is float32; finite differences need float64\Z"):
        gradcheck(lambda: float(x.sum()), {"x": x}, {"x": np.ones(2)})


def test_shapes_must_agree():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), its gradient \(3, 2\)"):
        gradcheck(lambda: x.sum(), {"x": x}, {"x": np.ones((3, 2))})


def test_a_gradient_without_an_array_is_an_error():
    f, params, gradients = problem()
    with pytest.raises(KeyError, match="V"):
        gradcheck(f, params, gradients | {"V": np.ones(2)})


def test_arrays_are_restored_after_a_failure_and_after_an_error():
    f, params, gradients = problem()
    before = params["W"].copy()
    message(f, params, {"W": -gradients["W"]})
    np.testing.assert_array_equal(params["W"], before)

    def breaks():
        if not np.array_equal(params["W"], before):
            raise RuntimeError("in the middle")
        return 0.0

    with pytest.raises(RuntimeError, match="in the middle"):
        gradcheck(breaks, params, {"W": gradients["W"]})
    np.testing.assert_array_equal(params["W"], before)
