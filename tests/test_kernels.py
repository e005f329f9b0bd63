"""Every operation of every backend against the plain NumPy function, and gradients once more."""

import functools
import importlib
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import InputError, backends, gradcheck
from gru4rec_np.data.batches import (
    draw_negatives,
    guide_table,
    negative_distribution,
)
from gru4rec_np.ops import cells, encoders, losses, optim, ranking, scoring
from gru4rec_np.ops.activations import ACTIVATIONS
from gru4rec_np.ops.losses import LOSSES

NUMPY = backends.load("numpy")
BACKENDS = [b for b in backends.BACKENDS if b not in ("auto", "numpy")]
FLOATS = st.sampled_from([np.float64, np.float32])
seeds = st.integers(0, 2**32)
# One, a few, and sizes around the widths of vector registers.
lanes = st.sampled_from([1, 2, 3, 7, 8, 9, 33])
units = st.sampled_from([1, 2, 5, 8, 15, 16, 17, 31, 64])
acts = st.tuples(st.sampled_from(ACTIVATIONS), st.sampled_from([0.2, 1.0]))


@functools.cache
def _load(backend):
    try:
        return backends.load(backend)
    except InputError as error:
        return str(error)


def ops_of(backend):
    """The backend; where it cannot be had, the test is skipped with what is missing."""
    ops = _load(backend)
    if isinstance(ops, str):
        pytest.skip(ops)
    return ops


def close(got, wanted, size=1):
    """Equal but for the rounding of sums of `size` terms."""
    eps = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 3e-6}[wanted.dtype]
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    scale = max(1.0, np.abs(wanted).max(initial=0))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=eps * scale * max(1, np.sqrt(size)))


# --- what load hands out --------------------------------------------------------------------------


OWN = (
    "__init__",
    "fuses",
    "stepper",
    "each",
    "prepare",
    "resident",
)  # operations of a backend itself


def test_the_numpy_backend_is_the_mathematics():
    """Each operation of `Ops` is, or calls, the function of its name, if it is no backend's own."""
    modules = (
        draw_negatives.__globals__,
        *map(vars, (cells, encoders, scoring, losses, optim, ranking)),
    )
    for name, method in vars(backends.Ops).items():
        if isinstance(method, staticmethod):
            assert any(module.get(name) is method.__func__ for module in modules), name
        elif inspect.isfunction(method) and name not in OWN:
            assert any(name in module for module in modules), name
            assert name in method.__code__.co_names


def test_auto_says_what_it_took_and_why(monkeypatch):
    ops_of("numba")
    monkeypatch.setattr(backends, "find_spec", lambda name: name if name == "numba" else None)
    assert backends.load().name == "numba"
    assert "the fastest one here, as CuPy is not installed" in backends.load().why
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert backends.load().name == "numpy"
    assert backends.load().why == "CuPy is not installed, nor is Numba"
    with pytest.raises(InputError, match="numba is not installed; pip install numba"):
        backends.load("numba")


def test_an_unknown_backend_is_named():
    with pytest.raises(InputError, match=r"backend: must be one of auto, numpy, .*not 'gpu'"):
        backends.load("gpu")


# --- one operation at a time ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gru", "gru_reset_after"])
@examples(200)
@given(B=lanes, H=units, act=acts, dtype=FLOATS, seed=seeds)
def test_cells(backend, name, B, H, act, dtype, seed):
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    sizes = [(B, 3 * H), (B, H), (H, 3 * H), 3 * H] + ([3 * H] if name != "gru" else [])
    args = [rng.normal(size=s).astype(dtype) for s in sizes]
    dh_new = rng.normal(size=(B, H)).astype(dtype)
    wanted, cache = getattr(NUMPY, name)(*args, act)
    got, own_cache = getattr(ops, name)(*args, act)
    close(got, wanted, H)
    back = getattr(NUMPY, f"{name}_backward")(dh_new, cache, args[2], act)
    own_back = getattr(ops, f"{name}_backward")(dh_new, own_cache, args[2], act)
    for a, b in zip(own_back, back, strict=True):
        close(a, b, H * B)


@examples(200)
@given(
    n=st.lists(st.integers(1, 12), min_size=1, max_size=20), H=units, normalise=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 30.0]), dtype=FLOATS, seed=seeds,
)  # fmt: skip
def test_whole_sessions(n, H, normalise, scale, dtype, seed):
    """Both encoders of NARM, and their gradients; a large scale saturates gates and attention."""
    ops, rng = ops_of("numba"), np.random.default_rng(seed)
    there = np.arange(max(n))[:, None] < np.sort(n)[::-1]
    E, U = sum(n), rng.normal(size=(H, 3 * H)).astype(dtype) / np.sqrt(H)
    xW, b, dh = (rng.normal(size=s).astype(dtype) for s in ((E, 3 * H), 3 * H, (E, H)))
    A1, A2, v = (rng.normal(size=s).astype(dtype) for s in ((H, H), (H, H), H))
    xW, v = dtype(scale) * xW, dtype(scale) * v
    found = []
    for o in (ops, NUMPY):
        h, steps = o.unroll(xW, there, U.astype(dtype), b)
        c, looks = o.local(h, there, A1, A2, v, normalise)
        back = o.unroll_backward(dh, steps, there, U.astype(dtype))
        found.append((h, *back, c, *o.local_backward(dh, looks, there, A1, A2, v, normalise)))
    for got, wanted in zip(*found, strict=True):
        close(got, wanted, scale * H * E)


@pytest.mark.parametrize("n", [[5, 3, 3, 1], [20] * 17])
def test_gradients_of_whole_sessions(n):
    """Not only equal to NumPy's: the derivative of the compiled encoders themselves."""
    ops, rng, H = ops_of("numba"), np.random.default_rng(0), 5
    there = np.arange(max(n))[:, None] < np.array(n)
    sizes = {"xW": (sum(n), 3 * H), "U": (H, 3 * H), "b": 3 * H, "h": (sum(n), H), "A1": (H, H)}
    a = {name: rng.normal(size=s) for name, s in (sizes | {"A2": (H, H), "v": H}).items()}
    d = rng.normal(size=(sum(n), H))

    def unroll():
        return ops.unroll(a["xW"], there, a["U"], a["b"])

    def local():
        return ops.local(a["h"], there, a["A1"], a["A2"], a["v"], True)

    found = ops.unroll_backward(d, unroll()[1], there, a["U"])
    gradients = dict(zip(("xW", "U", "b"), found, strict=True))
    found = ops.local_backward(d, local()[1], there, a["A1"], a["A2"], a["v"], True)
    gradients |= dict(zip(("h", "A1", "A2", "v"), found, strict=True))
    gradcheck(lambda: ((unroll()[0] + local()[0]) * d).sum(), a, gradients, entries=8)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(100)
@given(
    n=lanes, items=st.sampled_from([1, 2, 9, 64, 517]), dtype=FLOATS,
    scale=st.sampled_from([0.1, 5.0, 1e4]), seed=seeds,
)  # fmt: skip
def test_softmax_over_all_items(backend, n, items, dtype, scale, seed):
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    r, y = (scale * rng.normal(size=(n, items))).astype(dtype), rng.integers(0, items, n)
    for got, wanted in zip(ops.softmax_loss(r.copy(), y), NUMPY.softmax_loss(r, y), strict=True):
        close(got, wanted, items)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(60)
@given(
    B=st.sampled_from([1, 2, 9, 32, 33, 70]),
    N=st.sampled_from([1, 2, 31, 32, 33, 65, 200]),
    D=st.sampled_from([1, 5, 31, 32, 33, 70]),
    dtype=FLOATS,
    seed=seeds,
)
def test_cut_cross_entropy(backend, B, N, D, dtype, seed):
    """All four results, and the same bits again."""
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    h, V, b = (rng.normal(size=s).astype(dtype) for s in ((B, D), (N, D), N))
    h, y = h / dtype(np.sqrt(D)), rng.integers(0, N, B)
    got, again = (ops.cut_cross_entropy(h, V, b, y) for _ in range(2))
    for a, same, wanted in zip(got, again, NUMPY.cut_cross_entropy(h, V, b, y), strict=True):
        close(a, wanted, max(B, N))
        assert a.tobytes() == same.tobytes()


@pytest.mark.parametrize("backend", ["numpy", *BACKENDS])
@examples(40)
@given(
    scale=st.sampled_from([30.0, 1e3, 1e4]), B=st.integers(1, 40), N=st.integers(1, 100), seed=seeds
)
def test_cut_cross_entropy_at_the_edge_of_float32(backend, scale, B, N, seed):
    """Scores up to 1e4, exact in float32: no NaN, and p <= 1 although scores are computed twice."""
    rng = np.random.default_rng(seed)
    h, V = rng.choice([-1, -0.5, 0, 0.5, 1], (B, 1)), scale * rng.choice([-1, -0.5, 0, 1], (N, 1))
    h, V, b = h.astype(np.float32), V.astype(np.float32), np.zeros(N, np.float32)
    y = rng.integers(0, N, B)
    got = ops_of(backend).cut_cross_entropy(h, V, b, y)
    assert all(np.isfinite(x).all() for x in got)
    exact = NUMPY.cut_cross_entropy(*(x.astype(np.float64) for x in (h, V, b)), y)
    for a, wanted, size in zip(got, exact, (1, scale, B, B), strict=True):
        np.testing.assert_allclose(a, wanted, rtol=2e-4, atol=1e-5 * size)


@pytest.mark.parametrize("backend", ["numpy", *BACKENDS])
def test_nan_stays_in_its_lane_of_cut_cross_entropy(backend):
    h = np.ones((40, 3), np.float32)
    h[7, 1] = np.nan
    V, b = np.ones((50, 3), np.float32), np.zeros(50, np.float32)
    loss, dh, dV, db = ops_of(backend).cut_cross_entropy(h, V, b, np.arange(40))
    for rows in (loss, dh.sum(axis=1)):
        assert np.flatnonzero(np.isnan(rows)).tolist() == [7]
    assert np.isnan(dV).all() and np.isnan(db).all()


def test_a_softmax_with_nan_is_nan():
    for at in (0, 3, 40):
        r = np.zeros((2, 41), np.float32)
        r[1, at] = np.nan
        loss, dr = ops_of("numba").softmax_loss(r, np.array([1, 2]))
        assert np.isnan(loss).tolist() == [False, True] and np.isfinite(dr[0]).all()


@st.composite
def score_matrices(draw):
    B = draw(lanes)
    N = B + draw(st.sampled_from([1 if B == 1 else 0, 1, 5, 64, 200, 600]))
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    return (scale * rng.normal(size=(B, N))).astype(draw(FLOATS)), rng


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
@examples(200)
@given(
    drawn=score_matrices(),
    act=acts,
    bpreg=st.sampled_from([0.0, 1.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    corrected=st.booleans(),
)
def test_losses(backend, loss, drawn, act, bpreg, smoothing, corrected):
    ops, (r, rng) = ops_of(backend), drawn
    plain = loss != "cross-entropy"
    log_q = rng.normal(size=r.shape[1]).astype(r.dtype) if corrected and not plain else None
    args = loss, act, bpreg, 0.0 if plain else smoothing, log_q
    wanted, dwanted = NUMPY.loss_and_gradient(r, *args)
    got, dgot = ops.loss_and_gradient(r, *args)
    close(got, wanted, r.shape[1])
    close(dgot, dwanted, r.shape[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
@examples(50)
@given(drawn=score_matrices(), act=acts)
def test_gradients_of_the_fused_losses(backend, loss, drawn, act):
    """Not only equal to NumPy's: the derivative of the compiled loss itself."""
    ops = ops_of(backend)
    r = drawn[0][:3, :40].astype(np.float64)
    if r.shape[1] < 2 or r.shape[1] < len(r):
        return
    _, dr = ops.loss_and_gradient(r, loss, act)
    gradcheck(lambda: ops.loss_and_gradient(r, loss, act)[0].sum(), {"r": r}, {"r": dr}, entries=8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
@examples(100)
@given(scale=st.sampled_from([30.0, 1e3, 1e4]), B=st.integers(1, 5), seed=seeds)
def test_losses_at_the_edge_of_float32(backend, loss, scale, B, seed):
    rng = np.random.default_rng(seed)
    r = (rng.choice([-1, -0.5, 0, 1e-4, 0.5, 1], size=(B, B + 9)) * scale).astype(np.float32)
    lanes, dr = ops_of(backend).loss_and_gradient(r, loss)
    assert np.isfinite(lanes).all() and np.isfinite(dr).all()
    wanted, dwanted = NUMPY.loss_and_gradient(r.astype(np.float64), loss)
    np.testing.assert_allclose(lanes, wanted, rtol=2e-4, atol=1e-4)
    squares = 1e-6 * scale**2 if loss == "bpr-max" else 0
    np.testing.assert_allclose(dr, dwanted, rtol=1e-4, atol=1e-5 + squares)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_stays_so(backend, loss, act, dtype):
    """Of a score, wherever it stands: else a training that has diverged would look sound."""
    for place in (1, 3, 5):  # its own target, another lane's, a sample
        r = np.random.default_rng(0).normal(size=(4, 9)).astype(dtype)
        r[1, place] = np.nan
        lanes, dr = ops_of(backend).loss_and_gradient(r, loss, (act, 0.5))
        assert np.isnan(lanes).tolist() == [False, True, False, False]
        assert np.isfinite(dr[[0, 2, 3]]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@examples(200)
@given(
    rows=st.integers(1, 60), columns=st.sampled_from([0, 1, 5, 16, 33]), sparse=st.booleans(),
    adapt=st.sampled_from(optim.OPTIMISERS), momentum=st.sampled_from([0.0, 0.3]), dtype=FLOATS,
    seed=seeds,
)  # fmt: skip
def test_update(backend, rows, columns, sparse, adapt, momentum, dtype, seed):
    """columns = 0 stands for a vector."""
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    shape = (rows, columns) if columns else (rows,)
    p = rng.normal(size=shape).astype(dtype)
    pick = rng.permutation(rows)[: 1 + rows // 2] if sparse else ...
    runs = []
    for update in (NUMPY.update, ops.update):
        q, state = p.copy(), optim.init_memory(p, adapt, momentum)
        grads = np.random.default_rng(seed)
        for _ in range(3):
            g = grads.normal(size=p[pick].shape).astype(dtype)
            update(q, g, state, adapt, 0.1, momentum, pick)
        runs.append([q, *state.values()])
    for got, wanted in zip(runs[1], runs[0], strict=True):
        close(got, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(100)
@given(
    n=st.integers(1, 20), items=st.integers(1, 300), ties=st.sampled_from(ranking.TIES), seed=seeds
)
def test_ranks(backend, n, items, ties, seed):
    """On whole numbers, so that products are exact and ties are many."""
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    h, V_y = (
        rng.integers(-2, 3, (n, 3)).astype(float),
        rng.integers(-2, 3, (items, 3)).astype(float),
    )
    b_y = rng.integers(-1, 2, items).astype(float)
    if seed % 3 == 0:
        V_y[rng.integers(items)] = np.nan
    targets = rng.integers(0, items, n)
    lifted = None
    if seed % 2:  # some cases' sessions have the target, some no item
        pairs = rng.integers(0, n, 2 * n), rng.integers(0, items, 2 * n)
        some = np.flatnonzero(rng.integers(0, 2, n))
        keys = np.append(pairs[0] * items + pairs[1], some * items + targets[some])
        row, item = np.divmod(np.unique(keys), items)
        lifted = ranking.Lifted(row, item, rng.integers(-2, 3, len(row)).astype(float))
    wanted = NUMPY.rank_targets(h, V_y, b_y, targets, ties, lifted)
    assert (ops.rank_targets(h, V_y, b_y, targets, ties, lifted) == wanted).all()


@pytest.mark.parametrize("backend", BACKENDS)
@examples(100)
@given(
    n=st.sampled_from([0, 1, 2, 31, 255, 257, 600]),
    items=st.sampled_from([1, 2, 33, 511, 512, 513, 1025, 1700]),
    H=st.sampled_from([1, 3, 16, 100]),
    dtype=FLOATS,
    seed=seeds,
)
def test_equal_items_tie(backend, n, items, H, dtype, seed):
    """Rows of random numbers, repeated all over the table: equal to the bit wherever they stand."""
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    kinds = int(rng.integers(1, 9))
    kind = rng.integers(0, kinds, items)
    kind_V, kind_b = rng.normal(size=(kinds, H)).astype(dtype), rng.normal(size=kinds).astype(dtype)
    h, targets = rng.normal(size=(n, H)).astype(dtype), rng.integers(0, items, n)
    args = h, kind_V[kind], kind_b[kind], targets
    conservative, standard = (ops.rank_targets(*args, ties) for ties in ranking.TIES[:2])
    # As many above as there are items of better kinds, and as many level as there are of its own.
    scores = h.astype(float) @ kind_V.T.astype(float) + kind_b
    above = scores > np.take_along_axis(scores, kind[targets][:, None], axis=1)
    count = np.bincount(kind, minlength=kinds)
    np.testing.assert_array_equal(standard, 1 + above @ count)
    np.testing.assert_array_equal(conservative, standard - 1 + count[kind[targets]])
    assert (ops.rank_targets(*args, "median") == (conservative + standard) / 2).all()


@pytest.mark.parametrize("backend", BACKENDS)
@examples(50)
@given(
    n=st.sampled_from([0, 1, 2, 7, 33, 257]),
    items=st.sampled_from([1, 7, 8, 9, 511, 512, 513, 1100]),
    H=st.sampled_from([1, 3, 4, 15, 17, 100]),
    dtype=FLOATS,
    seed=seeds,
)
def test_scores_of_the_catalogue(backend, n, items, H, dtype, seed):
    """The product; to the bit what ranks compare, and the same for a case and an item alone."""
    ops, rng = ops_of(backend), np.random.default_rng(seed)
    h, V_y, b_y = (rng.normal(size=s).astype(dtype) for s in [(n, H), (items, H), items])
    got = ops.catalogue_scores(h, V_y, b_y)
    assert got.shape == (n, items) and got.dtype == dtype
    close(got, NUMPY.catalogue_scores(h, V_y, b_y), H)
    targets = rng.integers(0, items, n)
    ranks = ops.rank_targets(h, V_y, b_y, targets)
    assert (ranks == ranking.ranks(got, targets)).all()
    for i in range(min(n, 3)):
        at = -1 - i
        assert (ops.catalogue_scores(h[[at]], V_y, b_y) == got[at]).all()
        item = targets[[at]]
        assert ops.catalogue_scores(h[[at]], V_y[item], b_y[item])[0, 0] == got[at, item[0]]


def test_scores_of_more_cases_than_a_grid_is_high(monkeypatch):
    """CUDA: a grid's y is at most 65,535."""
    ops, grids = ops_of("cuda-emulated"), []
    monkeypatch.setattr(ops, "launch", lambda file, name, grid, *args: grids.append(grid))
    h, V_y = np.zeros((70_000, 1), np.float32), np.zeros((2, 1), np.float32)
    assert ops.catalogue_scores(h, V_y, V_y[:, 0]).shape == (70_000, 2)
    assert sum(y for _, y in grids) == 70_000 and max(y for _, y in grids) <= 65_535


def test_scores_of_cases_in_several_launches(monkeypatch):
    ops, rng = ops_of("cuda-emulated"), np.random.default_rng(0)
    h, V_y, b_y = (rng.normal(size=s).astype(np.float32) for s in ((8, 5), (6, 5), 6))
    whole = ops.catalogue_scores(h, V_y, b_y)
    monkeypatch.setattr("gru4rec_np.backends.cuda.operations.MAX_CASES", 3)
    assert (ops.catalogue_scores(h, V_y, b_y) == whole).all()


def test_ranks_do_not_depend_on_threads():
    numba, ops, rng = pytest.importorskip("numba"), ops_of("numba"), np.random.default_rng(0)
    h, V_y = (rng.normal(size=(n, 20)).astype(np.float32) for n in (3000, 2000))
    args = h, V_y, np.zeros(2000, np.float32), rng.integers(0, 2000, 3000)
    found = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        found.append(backends.one_blas_thread(ops.rank_targets)(*args))
    assert (found[0] == found[1]).all() and (found[0] == NUMPY.rank_targets(*args)).mean() > 0.99


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_the_same_bits_wherever_its_arrays_lie(loss):
    """Short arrays close behind each other: compiled loops take another way there, see `apart`."""
    rng = np.random.default_rng(0)
    r = rng.normal(size=(2, 26)).astype(np.float32)
    ops, others, seen = backends.load("numba"), [], set()
    for _ in range(300):
        lanes, dr = ops.loss_and_gradient(r, loss)
        seen.add(lanes.tobytes() + dr.tobytes())
        others.append(np.empty(int(rng.integers(1, 80)), np.float32))  # moves what comes next
        del others[: int(rng.integers(0, 3))]
    assert len(seen) == 1


# --- negatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    support=st.lists(st.integers(0, 9), min_size=1, max_size=60).filter(any).map(np.array),
    alpha=st.sampled_from([0.0, 0.5, 2.0]),
    shape=st.sampled_from([(0, 3), (1, 1), (5, 40)]),
    guided=st.booleans(),
    seed=seeds,
)
def test_negatives_are_the_same_draws(backend, support, alpha, shape, guided, seed):
    """Edges between items included, where a draw is a bound itself."""
    ops, distribution = ops_of(backend), negative_distribution(support, alpha)
    guide = guide_table(distribution) if guided else None

    class OftenOnBounds(np.random.Generator):
        def random(self, shape):
            bounds = np.append(distribution[distribution < 1], 0.0)
            return np.where(super().random(shape) < 0.5, super().random(shape), self.choice(bounds))

    drawn = [
        draw(OftenOnBounds(np.random.PCG64(seed)), distribution, shape, guide)
        for draw in (ops.draw_negatives, draw_negatives)
    ]
    assert drawn[0].shape == shape and drawn[0].dtype == np.int32
    np.testing.assert_array_equal(*drawn)


# --- matrices in compiled code --------------------------------------------------------------------


@functools.cache
def matrices():
    """backends/numba/matrices.py."""
    ops_of("numba")
    return importlib.import_module("gru4rec_np.backends.numba.matrices")


@functools.cache
def compiled(name):
    """A product of matrices.py that can be called from here."""
    numba, product = pytest.importorskip("numba"), getattr(matrices(), name)
    return numba.njit(lambda *args: product(*args))


sizes = st.sampled_from([1, 2, 7, 8, 9, 16, 25])  # blocks are 8 by 8


@given(rows=sizes, columns=sizes, margin=st.sampled_from([0, 3]), dtype=FLOATS, seed=seeds)
def test_transposes(rows, columns, margin, dtype, seed):
    """Parts of wider matrices too, whose other numbers stay as they are."""
    a = np.random.default_rng(seed).normal(size=(rows, columns + margin)).astype(dtype)
    out = np.full((columns, rows + margin), 7, dtype)
    matrices().transpose(a, margin, columns, out, margin)
    assert (out[:, margin:] == a[:, margin:].T).all() and (out[:, :margin] == 7).all()


@given(
    rows=sizes, inner=sizes, columns=sizes, flip=st.tuples(st.booleans(), st.booleans()),
    dtype=FLOATS, seed=seeds,
)  # fmt: skip
def test_products(rows, inner, columns, flip, dtype, seed):
    """Of matrices as they lie or of their transposes, in place of what is there or added to it."""
    rng = np.random.default_rng(seed)
    a, b = (
        np.asarray(rng.normal(size=shape).astype(dtype), order="F" if flipped else "C")
        for shape, flipped in zip([(rows, inner), (inner, columns)], flip, strict=True)
    )
    out = np.full((rows, columns), np.nan, dtype)
    compiled("dot")(a, b, out)
    close(out, a @ b, inner)
    compiled("add_dot")(a, b, out)
    close(out, 2 * (a @ b), inner)


def test_kernels_refuse_arrays_that_they_cannot_read():
    """Machine code would read what lies beside them."""
    kernels = importlib.import_module(type(ops_of("numba")).__module__)
    y = np.zeros(4, np.float32)
    for bad in (y[::2], y.astype(np.float16), y.astype(np.float64), y.reshape(2, 2)):
        with pytest.raises(TypeError, match="gate: hU is float"):
            kernels.gate(y[:2], bad, y[:2])


def test_numba_that_cannot_be_imported_is_a_line_not_a_traceback(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: name if name == "numba" else None)
    monkeypatch.setitem(sys.modules, "gru4rec_np.backends.numba.operations", None)
    ops = backends.load()
    assert ops.name == "numpy"
    assert ops.why.startswith("CuPy is not installed, and Numba cannot be imported (ModuleNotFound")
    with pytest.raises(InputError, match=r"backend: numba cannot be imported .*; take numpy"):
        backends.load("numba")


@pytest.mark.parametrize("switch", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_NUM_THREADS": "0"}])
def test_switches_of_numba_that_leave_nothing_to_run(switch):
    ops_of("numba")
    code = "from gru4rec_np import backends; print(backends.load().why)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **switch},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "Numba cannot be imported" in done.stdout or done.stdout.startswith("the fastest")
    assert done.stderr == ""
