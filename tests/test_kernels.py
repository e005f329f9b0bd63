"""Every operation of every backend against the plain NumPy function, and gradients once more."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared
from gru4rec_np import (
    GRU4Rec,
    InputError,
    Shop,
    cells,
    gradcheck,
    kernels,
    losses,
    network,
    optim,
    ranking,
    read_table,
    scoring,
)
from gru4rec_np.activations import ACTIVATIONS
from gru4rec_np.batches import (
    draw_negatives,
    guide_table,
    negative_distribution,
    session_parallel,
)
from gru4rec_np.losses import LOSSES

NUMPY = kernels.load("numpy")
BACKENDS = [b for b in kernels.BACKENDS if b not in ("auto", "numpy")]
FLOATS = st.sampled_from([np.float64, np.float32])
seeds = st.integers(0, 2**32)
# One, a few, and sizes around the widths of vector registers.
lanes = st.sampled_from([1, 2, 3, 7, 8, 9, 33])
units = st.sampled_from([1, 2, 5, 8, 15, 16, 17, 31, 64])
acts = st.tuples(st.sampled_from(ACTIVATIONS), st.sampled_from([0.2, 1.0]))


@functools.cache
def _load(backend):
    try:
        return kernels.load(backend)
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


def test_the_numpy_backend_is_the_mathematics():
    assert NUMPY.gru is cells.gru and NUMPY.gru_backward is cells.gru_backward
    assert NUMPY.scores is scoring.scores and NUMPY.update is optim.update
    assert NUMPY.loss_and_gradient is losses.loss_and_gradient
    assert NUMPY.rank_targets is ranking.rank_targets


def test_auto_says_what_it_took_and_why(monkeypatch):
    ops_of("numba")
    monkeypatch.setattr(kernels, "find_spec", lambda name: name if name == "numba" else None)
    assert kernels.load().name == "numba"
    assert "the fastest one here, as CuPy is not installed" in kernels.load().why
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.load().name == "numpy"
    assert kernels.load().why == "CuPy is not installed, nor is Numba"
    with pytest.raises(InputError, match="numba is not installed; pip install numba"):
        kernels.load("numba")


def test_an_unknown_backend_is_named():
    with pytest.raises(InputError, match=r"backend: must be one of auto, numpy, .*not 'gpu'"):
        kernels.load("gpu")


# --- one operation at a time ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["gru", "gru_reset_after"])
@settings(max_examples=200)
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


@st.composite
def score_matrices(draw):
    B = draw(lanes)
    N = B + draw(st.sampled_from([1 if B == 1 else 0, 1, 5, 64, 200]))
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    return (scale * rng.normal(size=(B, N))).astype(draw(FLOATS)), rng


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=200)
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
@settings(max_examples=50)
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
@settings(max_examples=100)
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
@settings(max_examples=200)
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
        q, state = p.copy(), optim.init_state(p, adapt, momentum)
        grads = np.random.default_rng(seed)
        for _ in range(3):
            g = grads.normal(size=p[pick].shape).astype(dtype)
            update(q, g, state, adapt, 0.1, momentum, pick)
        runs.append([q, *state.values()])
    for got, wanted in zip(runs[1], runs[0], strict=True):
        close(got, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100)
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
    wanted = NUMPY.rank_targets(h, V_y, b_y, targets, ties)
    assert (ops.rank_targets(h, V_y, b_y, targets, ties) == wanted).all()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=100)
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
@settings(max_examples=50)
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


def test_ranks_do_not_depend_on_threads():
    numba, ops, rng = pytest.importorskip("numba"), ops_of("numba"), np.random.default_rng(0)
    h, V_y = (rng.normal(size=(n, 20)).astype(np.float32) for n in (3000, 2000))
    args = h, V_y, np.zeros(2000, np.float32), rng.integers(0, 2000, 3000)
    found = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        found.append(kernels.one_blas_thread(ops.rank_targets)(*args))
    assert (found[0] == found[1]).all() and (found[0] == NUMPY.rank_targets(*args)).mean() > 0.99


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
def compiled(name):
    """A function of numba_matrices.py that can be called from here."""
    numba = pytest.importorskip("numba")
    ops_of("numba")
    from gru4rec_np.kernels import numba_matrices

    function = getattr(numba_matrices, name)
    return numba.njit(lambda *args: function(*args))


sizes = st.sampled_from([1, 2, 7, 8, 9, 16, 25])  # blocks are 8 by 8


@settings(deadline=None)
@given(rows=sizes, columns=sizes, margin=st.sampled_from([0, 3]), dtype=FLOATS, seed=seeds)
def test_transposes(rows, columns, margin, dtype, seed):
    """Parts of wider matrices too, whose other numbers stay as they are."""
    a = np.random.default_rng(seed).normal(size=(rows, columns + margin)).astype(dtype)
    out = np.full((columns, rows + margin), 7, dtype)
    compiled("transpose")(a[:, margin:], out[:, margin:])
    assert (out[:, margin:] == a[:, margin:].T).all() and (out[:, :margin] == 7).all()


@settings(deadline=None)
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


# --- many steps -----------------------------------------------------------------------------------

USUAL = {"layers": [12], "n_sample": 60, "batch_size": 8, "dropout_p_embed": 0.0}


@st.composite
def usual_models(draw):
    loss, n_sample = draw(st.sampled_from(LOSSES)), draw(st.sampled_from([0, 1, 20, 150]))
    encoding = draw(st.sampled_from(["onehot", "embedding", "shared"]))
    return GRU4Rec(
        layers=[draw(st.sampled_from([1, 3, 16, 17]))],
        input=encoding,
        embedding=draw(st.sampled_from([0, 2, 40, 600])) if encoding == "embedding" else 0,
        reset_after=draw(st.booleans()),
        hidden_act=draw(st.sampled_from(["tanh", "elu-0.5", "sigmoid"])),
        loss=loss,
        final_act=draw(st.sampled_from(["auto", "tanh", "leaky-0.2", "selu"])),
        smoothing=draw(st.sampled_from([0.0, 0.1])) if loss == "cross-entropy" else 0.0,
        logq=draw(st.sampled_from([0.0, 1.0])),
        sample_alpha=draw(st.sampled_from([0.0, 0.6])),
        adapt=draw(st.sampled_from(kernels.OWN_OPTIMISERS)),
        momentum=draw(st.sampled_from([0.0, 0.2])),
        n_sample=n_sample,
        batch_size=draw(st.sampled_from([1, 2, 9] if n_sample else [2, 9])),
        learning_rate=0.05,  # at twice that some models magnify a rounding 10^7 times in 50 steps
        dropout_p_embed=0.0,
        backend="numpy",
    )


def run_steps(hp, log, make_stepper, dtype, chunks, epochs=1):
    """Weights, losses and last state after `epochs` of the log, in chunks of steps."""
    rng = np.random.default_rng(hp.seed)
    W = network.init_weights(hp, log.n_items, rng, dtype)
    memory = {n: optim.init_state(p, hp.adapt, hp.momentum) for n, p in W.items()}
    run = make_stepper(W, memory, np.log(log.support).astype(dtype))
    negatives = negative_distribution(log.support, hp.sample_alpha)
    found = []
    for _ in range(epochs):
        batches = session_parallel(log, hp.batch_size, min_lanes=1 if hp.n_sample else 2)
        state = network.zero_state(hp, batches.x.shape[1], dtype)
        for first in range(0, len(batches), chunks):
            steps = range(first, min(first + chunks, len(batches)))
            samples = draw_negatives(rng, negatives, (len(steps), hp.n_sample))
            # A generator of its own: a stepper may draw another number of times from it.
            losses, state = run(batches, steps, samples, state, np.random.default_rng(0))
            found.append(losses)
    return W, np.concatenate(found), state


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    hp=usual_models(),
    sessions=st.integers(3, 25),
    chunks=st.sampled_from([1, 7, 64]),
    worth=st.sampled_from([0, 2**20]),
    items=st.sampled_from([8, 40, 400]),  # parts own 16 items each in turn; 400 are several tiles
    small=st.sampled_from([200, 2**40]),
)
def test_many_steps_are_the_single_steps(backend, hp, sessions, chunks, worth, items, small):
    """Duplicates, resets, the shrinking batch and a second epoch included; in float64."""
    ops = ops_of(backend)
    log = Shop(n_items=items).simulate(sessions).compact()
    plain = run_steps(
        hp, log, lambda W, m, s: network.stepper(hp, W, m, NUMPY, s), np.float64, 64, epochs=2
    )
    with pytest.MonkeyPatch.context() as patch:
        if backend == "numba":  # steps as small as these would not be cut into parts
            patch.setattr("gru4rec_np.kernels.numba_steps.WORTH_PARTS", worth)
            patch.setattr("gru4rec_np.kernels.numba_steps._small", lambda: small)
        own = run_steps(
            hp, log, lambda W, m, s: ops.stepper(hp, W, m, s), np.float64, chunks, epochs=2
        )
    if chunks == 64:  # else the samples are others
        np.testing.assert_allclose(own[1], plain[1], rtol=1e-9, atol=1e-12)
        for name in plain[0]:
            np.testing.assert_allclose(own[0][name], plain[0][name], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(own[2].h[0], plain[2].h[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "encoding",
    [{}, {"input": "shared"}, {"input": "embedding", "embedding": 256}],
    ids=lambda e: e.get("input", "onehot"),
)
@pytest.mark.parametrize("small", [100**3, 2**40])
def test_the_number_of_threads_does_not_show_in_the_bits(encoding, small, monkeypatch):
    """Lanes that run out, dropout and momentum included; the step is large enough for two parts."""
    ops_of("numba")
    monkeypatch.setattr("gru4rec_np.kernels.numba_steps._small", lambda: small)
    import numba

    log, found = Shop(n_items=300).simulate(300), []
    settings = {"n_sample": 600, "loss": "bpr-max", "momentum": 0.1, "dropout_p_embed": 0.2}
    settings |= encoding
    threads = numba.get_num_threads()
    try:
        for n in {1, threads}:
            numba.set_num_threads(n)
            model = GRU4Rec(**settings, n_epochs=2, dropout_p_hidden=0.1, backend="numba").fit(log)
            found.append([model.losses, *model.weights.values()])
    finally:
        numba.set_num_threads(threads)
    for one, other in zip(found[0], found[-1], strict=True):
        assert (one == other).all()


def test_threads_are_as_many_as_go_fastest():
    """Each number is tried now and then, so that a machine that changes is noticed."""
    ops_of("numba")
    from gru4rec_np.kernels.numba_threads import Pace

    pace, chosen = Pace(2), []
    for call in range(4 * Pace.TRY):
        chosen.append(pace.choose(2))
        slower = 2 if call < 2 * Pace.TRY else 1  # the cores come nearer to each other
        disturbed = call in (0, 3, Pace.TRY)  # by compiling, by others
        pace.took(chosen[-1], 9.0 if disturbed else 2.0 if chosen[-1] == slower else 1.0)
    calls = [chosen[i : i + Pace.TRY] for i in range(0, len(chosen), Pace.TRY)]
    assert calls[0] == [2, 2] + [1] * (Pace.TRY - 2)
    assert calls[1] == [2] + [1] * (Pace.TRY - 1)
    assert calls[2] == [2, 1, 1] + [2] * (Pace.TRY - 3)
    assert calls[3] == [2, 1] + [2] * (Pace.TRY - 2)
    assert {pace.choose(1) for _ in range(2 * Pace.TRY)} == {1}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_training_run_follows_numpy(backend, loss):
    """200 steps and more in float32: losses within 1e-4 of NumPy's."""
    ops = ops_of(backend)
    hp = GRU4Rec(**USUAL, loss=loss, momentum=0.2, learning_rate=0.05, backend="numpy")
    log = Shop(n_items=60).simulate(500).compact()
    plain = run_steps(hp, log, lambda W, m, s: network.stepper(hp, W, m, NUMPY, s), np.float32, 64)
    own = run_steps(hp, log, lambda W, m, s: ops.stepper(hp, W, m, s), np.float32, 64)
    assert len(own[1]) >= 200
    np.testing.assert_allclose(own[1], plain[1], rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "unusual",
    [{"layers": [4, 4]}, {"feedforward": [4]}, {"bptt": 2}, {"lmbd": 0.1}, {"grad_cap": 1.0},
     {"input": "weighted"}, {"unit": "lstm"}, {"unit": "rnn"},
     {"adapt": "adam", "learning_rate": 0.01}],
    ids=str,
)  # fmt: skip
def test_what_is_not_compiled_whole_runs_step_by_step(backend, unusual):
    ops_of(backend)
    train = Shop(n_items=60).simulate(400)
    settings = {**USUAL, "n_epochs": 2, **unusual}
    own = GRU4Rec(**settings, backend=backend).fit(train)
    assert own.ops.stepper(own, own.weights, {}, np.zeros(60)) is None
    plain = GRU4Rec(**settings, backend="numpy").fit(train)
    np.testing.assert_allclose(own.losses, plain.losses, rtol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_sample", [0, 16])
def test_backends_draw_alike_without_dropout(backend, n_sample):
    """In all chunks and epochs: negatives and the order of sessions are those of NumPy."""
    ops_of(backend)
    settings = {**USUAL, "n_sample": n_sample, "n_epochs": 3, "train_random_order": True}
    train = Shop(n_items=60).simulate(200)
    own, plain = (GRU4Rec(**settings, backend=b).fit(train) for b in (backend, "numpy"))
    np.testing.assert_allclose(own.losses, plain.losses, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout(backend):
    """Right share, right scale, another mask at each step, and the same seed the same bits."""
    ops_of(backend)
    log = Shop(n_items=60).simulate(400)
    settings = {**USUAL, "dropout_p_embed": 0.5, "dropout_p_hidden": 0.3, "n_epochs": 2}
    a, b = (GRU4Rec(**settings, backend=backend).fit(log) for _ in range(2))
    assert all((a.weights[name] == b.weights[name]).all() for name in a.weights)
    c = GRU4Rec(**settings, seed=1, backend=backend).fit(log)
    assert not (a.weights["V_y"] == c.weights["V_y"]).all()
    plain = GRU4Rec(**settings, backend="numpy").fit(log)
    assert abs(a.history[-1]["loss"] / plain.history[-1]["loss"] - 1) < 0.02
    if backend == "numba":
        from gru4rec_np.kernels.numba_steps import _fill_mask

        masks = np.empty((2, 200, 50), np.float32)
        for step, mask in enumerate(masks):
            _fill_mask(mask[:90], 0, 50, 1, np.uint32(7), step, 0.3)
            _fill_mask(mask[90:].T, 90 * 50, 1, 50, np.uint32(7), step, 0.3)
        assert set(np.unique(masks)) == {np.float32(0), np.float32(1 / 0.7)}
        dropped = masks == 0
        assert abs(dropped.mean() - 0.3) < 0.01
        assert abs((dropped[0] & dropped[1]).mean() - 0.09) < 0.01
        assert abs(np.corrcoef(dropped[0].ravel()[1:], dropped[0].ravel()[:-1])[0, 1]) < 0.03


COMPILING = """
from gru4rec_np import GRU4Rec, Shop

model = GRU4Rec(n_sample=512, logq=1.0, n_epochs=1, backend="numba")
model.fit(Shop(n_items=300).simulate(1500))
print(model.weights["V_y"].tobytes().hex()[-4000:], model.losses.tolist())
"""


def test_compiling_does_not_show_in_the_bits(tmp_path):
    """The process that compiles, one that finds the code on disk, and one that had other work."""
    pytest.importorskip("numba")
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    before = """
import numpy as np
from gru4rec_np import kernels

ops = kernels.load("numba")
ops.loss_and_gradient(np.ones((3, 40), np.float32), "bpr-max")
ops.update(np.ones((9, 40), np.float32), np.ones((9, 40), np.float32), {}, "sgd", 0.1)
"""
    found = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        for code in (COMPILING, COMPILING, before + COMPILING)
    ]
    assert len({run.stdout for run in found}) == 1


@pytest.mark.parametrize("backend", ["numba", "cuda"])
@pytest.mark.parametrize(
    ("settings", "recall", "mrr"),
    [
        ({}, 0.680, 0.350),
        (
            {"loss": "bpr-max", "sample_alpha": 0.5, "learning_rate": 0.05, "momentum": 0.2,
             "dropout_p_embed": 0.2},
            0.680,
            0.360,
        ),
    ],
    ids=["cross-entropy", "bpr-max"],
)  # fmt: skip
def test_accuracy_on_real_clicks(backend, settings, recall, mrr):
    """NumPy's thresholds, less two standard errors: its masks and so its seeds are others.

    Recall@20 of one seed varies by 0.002, MRR@20 by 0.001 (standard deviations over eight).
    """
    ops_of(backend)
    train = read_table(shared("data/rsc15-100k/train.tsv"))
    test = read_table(shared("data/rsc15-100k/test.tsv"))
    found = [
        GRU4Rec(seed=seed, backend=backend, **settings).fit(train).evaluate(test)
        for seed in (1, 2, 3)
    ]
    assert np.mean([f["recall@20"] for f in found]) >= recall - 2 * 0.002 / np.sqrt(3)
    assert np.mean([f["mrr@20"] for f in found]) >= mrr - 2 * 0.001 / np.sqrt(3)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_the_same_bits_wherever_its_arrays_lie(loss):
    """Short arrays close behind each other: compiled loops take another way there, see `apart`."""
    rng = np.random.default_rng(0)
    r = rng.normal(size=(2, 26)).astype(np.float32)
    ops, others, seen = kernels.load("numba"), [], set()
    for _ in range(300):
        lanes, dr = ops.loss_and_gradient(r, loss)
        seen.add(lanes.tobytes() + dr.tobytes())
        others.append(np.empty(int(rng.integers(1, 80)), np.float32))  # moves what comes next
        del others[: int(rng.integers(0, 3))]
    assert len(seen) == 1
