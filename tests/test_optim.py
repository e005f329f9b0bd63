"""Optimisers: row sums against a dict, sparse against dense, each against scalars."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import examples
from gru4rec_np.backends import load
from gru4rec_np.ops.optim import OPTIMISERS, adam_waits, clip, init_memory, sum_rows, update

FLOATS = st.floats(-100, 100, allow_subnormal=False)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def row_gradients(draw):
    """Rows with duplicates in any order, and a gradient, a number or a vector, for each."""
    rows = draw(st.lists(st.integers(0, 6), min_size=1, max_size=12))
    shape = draw(st.sampled_from([(), (1,), (3,)]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    g = np.random.default_rng(draw(SEEDS)).normal(size=(len(rows), *shape))
    return np.array(rows, draw(st.sampled_from([np.int32, np.int64]))), g.astype(dtype)


@examples(300)
@given(row_gradients())
def test_sum_rows_against_a_dict(rows_and_gradients):
    """Bit-identical: duplicates are added in the order of `rows`."""
    rows, g = rows_and_gradients
    sums = {}
    for row, gradient in zip(rows.tolist(), g, strict=True):
        sums[row] = sums[row] + gradient if row in sums else gradient
    distinct, summed = sum_rows(rows, g)
    assert distinct.tolist() == sorted(sums)
    assert summed.dtype == g.dtype
    assert summed.shape == (len(sums), *g.shape[1:])
    for row, total in zip(distinct.tolist(), summed, strict=True):
        np.testing.assert_array_equal(total, sums[row])


def test_sum_rows_of_no_rows():
    distinct, summed = sum_rows(np.empty(0, np.int64), np.empty((0, 3)))
    assert distinct.shape == (0,) and summed.shape == (0, 3)


def test_sum_rows_of_matrices():
    distinct, summed = sum_rows(np.array([1, 0, 1]), np.arange(12.0).reshape(3, 2, 2))
    assert distinct.tolist() == [0, 1]
    assert summed.tolist() == [[[4, 5], [6, 7]], [[8, 10], [12, 14]]]


def test_sum_rows_leaves_its_arguments_alone():
    rows, g = np.array([2, 0, 2]), np.arange(6.0).reshape(3, 2)
    sum_rows(rows, g)
    assert rows.tolist() == [2, 0, 2] and g.ravel().tolist() == [0, 1, 2, 3, 4, 5]


def run(sparse, adapt, momentum, gradients, p):
    """p and its memory after some steps on distinct rows of it, listed or in a dense gradient."""
    p, memory = p.copy(), init_memory(p, adapt, momentum)
    for rows, g in gradients:
        if sparse:
            update(p, g, memory, adapt, 0.1, momentum, rows)
        else:
            dense = np.zeros_like(p)
            dense[rows] = g
            update(p, dense, memory, adapt, 0.1, momentum)
    return p, memory


def assert_same(one, two, rows=...):
    (p1, state1), (p2, state2) = one, two
    np.testing.assert_array_equal(p1[rows], p2[rows])
    assert state1.keys() == state2.keys()
    for name in state1:
        np.testing.assert_array_equal(state1[name][rows], state2[name][rows])


@st.composite
def training(draw):
    """A weight (8, 3) and a few steps' gradients of distinct rows of it."""
    rng = np.random.default_rng(draw(SEEDS))
    scale = 10.0 ** draw(st.integers(-6, 4))
    rows = st.lists(st.integers(0, 7), unique=True, min_size=1)
    steps = [np.array(r) for r in draw(st.lists(rows, min_size=1, max_size=4))]
    return rng.normal(size=(8, 3)), [(r, rng.normal(0, scale, (len(r), 3))) for r in steps]


@examples(200)
@given(training(), st.sampled_from(["adagrad", "sgd"]))
def test_sparse_is_dense_bit_for_bit(case, adapt):
    """Only for optimisers whose memory does not change with a gradient of 0."""
    p, gradients = case
    assert_same(run(True, adapt, 0.0, gradients, p), run(False, adapt, 0.0, gradients, p))


@examples(200)
@given(SEEDS, st.integers(1, 4), st.sampled_from(OPTIMISERS), st.sampled_from([0.0, 0.9]))
def test_all_rows_listed_is_dense_bit_for_bit(seed, steps, adapt, momentum):
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(8, 3))
    gradients = [(rng.permutation(8), rng.normal(size=(8, 3))) for _ in range(steps)]
    assert_same(run(True, adapt, momentum, gradients, p), run(False, adapt, momentum, gradients, p))


@examples(200)
@given(training(), st.sampled_from(OPTIMISERS), st.sampled_from([0.0, 0.1, 0.9]))
def test_an_update_touches_the_listed_rows_only(case, adapt, momentum):
    """Listed rows change as in the dense update; the others keep weight, memory and velocity."""
    p, gradients = case
    before = run(True, adapt, momentum, gradients, p)  # gives every touched row a velocity
    rows, g = gradients[-1]
    after, dense = copy.deepcopy(before), copy.deepcopy(before)
    whole = np.zeros_like(p)
    whole[rows] = g
    update(after[0], g, after[1], adapt, 0.1, momentum, rows)
    update(dense[0], whole, dense[1], adapt, 0.1, momentum)
    assert_same(after, dense, rows)
    assert_same(after, before, np.setdiff1d(np.arange(8), rows))


def scalar_steps(adapt, gradients):
    """The steps of one weight by the published formulas, before the learning rate."""
    a = m = d = 0.0
    for t, g in enumerate(gradients, 1):
        if adapt == "adagrad":
            a += g * g
            yield g / math.sqrt(a + 1e-6)
        elif adapt == "sgd":
            yield g
        elif adapt == "rmsprop":
            a = 0.9 * a + 0.1 * g**2
            yield g / math.sqrt(a + 1e-6)
        elif adapt == "adam":
            m = 0.9 * m + 0.1 * g
            a = 0.999 * a + 0.001 * g**2
            yield (m / (1 - 0.9**t)) / (math.sqrt(a / (1 - 0.999**t)) + 1e-8)
        else:
            a = 0.95 * a + 0.05 * g**2
            step = math.sqrt(d + 1e-6) / math.sqrt(a + 1e-6) * g
            d = 0.95 * d + 0.05 * step**2
            yield step


@examples(300)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.just(4)), elements=FLOATS),
    st.floats(1e-4, 1),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from(OPTIMISERS),
)
def test_update_against_scalars(gradients, learning_rate, momentum, adapt):
    """p -= lr step; with momentum v = momentum v - lr step, p += v."""
    p = np.linspace(-1, 1, 4)
    expected = p.tolist()
    for k in range(4):
        v = 0.0
        for step in scalar_steps(adapt, gradients[:, k].tolist()):
            v = momentum * v - learning_rate * step
            expected[k] += v
    memory = init_memory(p, adapt, momentum)
    for g in gradients:
        update(p, g, memory, adapt, learning_rate, momentum)
    np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-12)


def test_adams_first_update_of_a_late_row_has_full_size():
    """The bias correction uses the row's number of updates, not the global step count."""
    p = np.zeros((2, 3))
    memory = init_memory(p, "adam", 0.0)
    assert memory["t"].shape == (2, 1)
    for _ in range(1000):
        update(p, np.ones((1, 3)), memory, "adam", 0.01, rows=np.array([0]))
    assert not p[1].any()
    update(p, np.array([[5.0, -5, 0.01]]), memory, "adam", 0.01, rows=np.array([1]))
    np.testing.assert_allclose(p[1], [-0.01, 0.01, -0.01], rtol=1e-5)
    assert memory["t"].tolist() == [[1000], [1]]


@examples(200)
@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["numpy", "numba"]))
def test_rows_that_wait_catch_up_with_adam_on_all_rows(seed, steps, backend):
    """Rows without a gradient wait, for one step or for some hundred."""
    rng, ops = np.random.default_rng(seed), load(backend)
    p = rng.normal(size=(4, 3))
    all_rows, memory, of_all = p.copy(), init_memory(p, "adam", 0), init_memory(p, "adam", 0)
    step, moved = 0, np.zeros(500 * steps)
    for _ in range(steps):
        rows = rng.permutation(4)[: rng.integers(1, 4)]
        g = rng.uniform(0.5, 2, (len(rows), 3)) * rng.choice([-1, 1], (len(rows), 3))
        full = np.zeros_like(p)
        full[rows] = g
        for nth in range(rng.choice([1, 2, 500])):
            rate = rng.uniform(0.01, 0.1)
            update(all_rows, full * (nth == 0), of_all, "adam", rate)
            if nth == 0:
                ops.adam_catch_up(p, memory, rows, step, moved)
                ops.update(p, g, memory, "adam", rate, 0.0, rows)
            step += 1
            adam_waits(moved, step, rate)
    ops.adam_catch_up(p, memory, np.arange(4), step, moved)
    np.testing.assert_allclose(p, all_rows, rtol=1e-6, atol=1e-6)
    for name in "mat":
        np.testing.assert_allclose(memory[name], of_all[name] if name != "t" else step, rtol=1e-9)


@pytest.mark.parametrize("rows", [..., np.array([2, 0])], ids=["dense", "rows"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("adapt", OPTIMISERS)
def test_float32_stays_float32_and_changes_in_place(adapt, momentum, rows):
    p = np.ones((3, 2), np.float32)
    same, memory = p, init_memory(p, adapt, momentum)
    arrays_before = dict(memory)
    g = np.full_like(p, 0.5)[rows]
    update(p, g, memory, adapt, 0.1, momentum, rows)
    assert p is same and (p[rows] != 1).all()
    assert {name: x.dtype for name, x in memory.items()} == dict.fromkeys(memory, np.float32)
    assert all(memory[name] is x for name, x in arrays_before.items())
    assert (g == 0.5).all()


@pytest.mark.parametrize("adapt", OPTIMISERS)
def test_zero_gradients_are_harmless(adapt):
    """The epsilon prevents 0/0 for a first gradient of 0."""
    p = np.ones(3)
    update(p, np.zeros(3), init_memory(p, adapt, 0.5), adapt, 0.1, 0.5)
    assert p.tolist() == [1, 1, 1]


def test_unknown_optimiser_is_named():
    with pytest.raises(ValueError, match=r"adagrad, sgd.*'adamm'"):
        update(np.ones(2), np.ones(2), {}, "adamm", 0.1)


@examples(200)
@given(
    st.lists(arrays(np.float64, st.sampled_from([(3,), (2, 2), ()]), elements=FLOATS), max_size=3),
    st.floats(0.01, 100),
)
def test_clip(gradients, grad_cap):
    gradients = [np.array(g) for g in gradients]
    before = [g.copy() for g in gradients]
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    clip(gradients, grad_cap)
    for g, old in zip(gradients, before, strict=True):
        if norm <= grad_cap * (1 - 1e-12):
            np.testing.assert_array_equal(g, old)
        else:
            np.testing.assert_allclose(g, old * min(1, grad_cap / norm), rtol=1e-12)


def test_clip_of_an_exploded_float32_gradient():
    """The square overflows float32, but the clipped gradient keeps its direction."""
    g = np.array([3e25, 4e25], np.float32)
    clip([g], 5.0)
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, [3, 4], rtol=1e-6)
