"""NARM: gradients against finite differences, sessions side by side, the model, real clicks."""

import itertools
import os
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from conftest import examples, shared
from gru4rec_np import NARM, GradientError, InputError, Sessions, Shop, gradcheck, read_table
from gru4rec_np.backends import load
from gru4rec_np.data.batches import draw_negatives
from gru4rec_np.models import narm
from gru4rec_np.models.narm import (
    decode,
    encode,
    init_weights,
    loss_and_gradients,
    pieces,
    side_by_side,
)
from gru4rec_np.models.network import Gradients
from gru4rec_np.ops import encoders
from gru4rec_np.ops.encoders import (
    attend,
    attend_backward,
    local,
    local_backward,
    unroll,
    unroll_backward,
)
from gru4rec_np.ops.losses import softmax_loss
from gru4rec_np.ops.optim import init_memory

NUMPY = load("numpy")
ITEMS = 6
SMALL = {"embedding": 5, "hidden": 8, "batch_size": 16, "n_epochs": 1, "backend": "numpy"}

sizes, seeds = st.integers(1, 5), st.integers(0, 2**32)
# One session, all of one length, one event and many: whatever shape a batch may have.
lengths = st.one_of(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.builds(lambda n, sessions: [n] * sessions, st.integers(1, 5), st.integers(1, 4)),
)


def grid(n):
    return side_by_side(np.zeros(len(n), int), np.array(n))[1]


# --- each step and its backward -------------------------------------------------------------------


@examples(200)
@given(sizes, sizes, sizes, st.booleans(), seeds)
def test_attend(J, n, H, normalise, seed):
    rng = np.random.default_rng(seed)
    shapes = {"q": (n, H), "k": (J, n, H), "h": (J, n, H), "v": (H,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    dc = rng.normal(size=(n, H))
    _, cache = attend(**arrays, normalise=normalise)
    found = attend_backward(dc, cache, arrays["h"], arrays["v"], normalise)
    gradcheck(
        lambda: (attend(**arrays, normalise=normalise)[0] * dc).sum(),
        arrays,
        dict(zip(arrays, found, strict=True)),
    )


@examples(200)
@given(lengths, sizes, seeds)
def test_unroll(n, H, seed):
    rng, there = np.random.default_rng(seed), grid(n)
    shapes = {"xW": (sum(n), 3 * H), "U": (H, 3 * H), "b": (3 * H,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    dh = rng.normal(size=(sum(n), H))
    _, caches = unroll(there=there, ops=NUMPY, **arrays)
    found = unroll_backward(dh, caches, there, arrays["U"], NUMPY)
    gradcheck(
        lambda: (unroll(there=there, ops=NUMPY, **arrays)[0] * dh).sum(),
        arrays,
        dict(zip(arrays, found, strict=True)),
    )


@examples(200)
@given(lengths, sizes, st.booleans(), seeds)
def test_local(n, H, normalise, seed):
    rng, there = np.random.default_rng(seed), grid(n)
    shapes = {"h": (sum(n), H), "A1": (H, H), "A2": (H, H), "v": (H,)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    dc = rng.normal(size=(sum(n), H))
    weights = [arrays[name] for name in ("A1", "A2", "v")]
    _, cache = local(there=there, normalise=normalise, **arrays)
    found = local_backward(dc, cache, there, *weights, normalise)
    gradcheck(
        lambda: (local(there=there, normalise=normalise, **arrays)[0] * dc).sum(),
        arrays,
        dict(zip(arrays, found, strict=True)),
    )


@examples(200)
@given(sizes, sizes, seeds)
def test_softmax_loss(n, I, seed):  # noqa: E741
    rng = np.random.default_rng(seed)
    r, y = 3 * rng.normal(size=(n, I)), rng.integers(0, I, n)
    _, dr = softmax_loss(r.copy(), y)
    gradcheck(lambda: softmax_loss(r.copy(), y)[0].sum(), {"r": r}, {"r": dr})


def test_softmax_loss_at_the_edge_of_float32():
    r = np.array([[1e4, -1e4, 0], [0, 0, 0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        loss, dr = softmax_loss(r, np.array([1, 2]))
    np.testing.assert_allclose(loss, [2e4, np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(dr, [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6)


# --- the whole network ----------------------------------------------------------------------------


@st.composite
def configurations(draw):
    return NARM(
        embedding=draw(sizes),
        hidden=draw(sizes),
        normalise=draw(st.booleans()),
        n_sample=draw(st.sampled_from([0, 0, 1, 2, 7])),
        sample_alpha=draw(st.sampled_from([0, 0.5, 1])),
        dropout_p_embed=draw(st.sampled_from([0, 0.4])),
        dropout_p_context=draw(st.sampled_from([0, 0.4])),
        seed=draw(seeds),
        backend="numpy",
    )


def random_problem(hp, n):
    """Weights, and the other arguments of `loss_and_gradients`: items occur again and again."""
    rng = np.random.default_rng(hp.seed)
    W = init_weights(hp, ITEMS, rng, np.float64)
    W["b"] += rng.normal(size=W["b"].shape) / 2
    return W, {
        "x": rng.integers(0, ITEMS, sum(n)),
        "y": rng.integers(0, ITEMS, sum(n)),
        "there": grid(n),
        "samples": rng.integers(0, ITEMS, hp.n_sample) if hp.n_sample else None,
        "chances": rng.dirichlet(np.ones(ITEMS), 2),
    }


def gradients(hp, W, problem):
    """Gradients as arrays of the weights' shapes, and the loss they belong to."""

    def run():
        rng = np.random.default_rng(hp.seed + 1)  # the same dropout each time
        return loss_and_gradients(W, hp, NUMPY, rng=rng, **problem)

    return whole(run()[1], W["emb"]), lambda: run()[0]


def whole(g, emb):
    """The gradients as arrays of the weights' shapes: with samples, emb's are some rows."""
    full = dict(g.dense)
    if "emb" in g.rows:
        rows, gradient = g.rows["emb"]
        assert len(np.unique(rows)) == len(rows) and "emb" not in full
        full["emb"] = np.zeros_like(emb)
        full["emb"][rows] = gradient
    return full


@examples(150)
@given(configurations(), lengths)
def test_gradient_of_the_whole_network(hp, n):
    W, problem = random_problem(hp, n)
    full, loss = gradients(hp, W, problem)
    assert full.keys() == W.keys()
    gradcheck(loss, W, full, entries=3, seed=hp.seed)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("n_sample", [0, 4])
def test_every_entry_once(normalise, n_sample):
    hp = NARM(embedding=3, hidden=4, normalise=normalise, n_sample=n_sample, backend="numpy")
    W, problem = random_problem(hp, [5, 3, 3, 1])
    full, loss = gradients(hp, W, problem)
    gradcheck(loss, W, full)


@pytest.mark.parametrize("name", ["emb", "W_x", "U", "b", "A1", "A2", "v", "B"])
def test_a_wrong_gradient_is_seen(name):
    hp = NARM(embedding=3, hidden=4, backend="numpy")
    W, problem = random_problem(hp, [5, 3, 1])
    full, loss = gradients(hp, W, problem)
    full[name].flat[np.abs(full[name]).argmax()] *= 1.001
    with pytest.raises(GradientError, match=name):
        gradcheck(loss, W, full)


def test_the_formulas_of_the_paper():
    """One session, one event and one unit after the other, with plain loops."""
    hp = NARM(embedding=3, hidden=2, normalise=False, backend="numpy")
    W, problem = random_problem(hp, [4])
    out, _ = encode(W, hp, NUMPY, problem["x"], problem["there"])

    def logistic(a):
        return 1 / (1 + np.exp(-a))

    h, states = np.zeros(2), []
    for t, item in enumerate(problem["x"]):
        a = W["emb"][item] @ W["W_x"] + W["b"]
        r, z = logistic(a[:2] + h @ W["U"][:, :2]), logistic(a[2:4] + h @ W["U"][:, 2:4])
        h = (1 - z) * h + z * np.tanh(a[4:] + (r * h) @ W["U"][:, 4:])
        states.append(h)
        c_l = 0
        for past in states:
            alpha = sum(W["v"] * logistic(h @ W["A1"] + past @ W["A2"]))
            c_l = c_l + alpha * past
        np.testing.assert_allclose(out[t], W["B"] @ np.concatenate([h, c_l]), rtol=1e-12)


def test_normalised_weights_are_a_softmax():
    rng = np.random.default_rng(0)
    q, k, h, v = (rng.normal(size=s) for s in ((3, 4), (5, 3, 4), (5, 3, 4), (4,)))
    (_, (_, raw)), (c, (_, a)) = attend(q, k, h, v), attend(q, k, h, v, True)
    np.testing.assert_allclose(a, np.exp(raw) / np.exp(raw).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(c, (a[:, :, None] * h).sum(axis=0), rtol=1e-12)


# --- sessions side by side ------------------------------------------------------------------------


def test_side_by_side_by_hand():
    events, there = side_by_side(np.array([10, 20, 30]), np.array([1, 3, 2]))
    assert events.tolist() == [20, 30, 10, 21, 31, 22]
    assert there.tolist() == [[True, True, True], [True, True, False], [True, False, False]]


@examples(200)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 8), st.booleans())
def test_pieces(n, half, serving):
    """Each event has one answer; training cuts end to end, serving looks half a piece back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narm, "LONGEST", 2 * half)
        new = half if serving else 2 * half
        answers = []
        for session, first, length in zip(*pieces(np.array(n), new), strict=True):
            assert 1 <= length <= 2 * half and first + length <= n[session]
            skip = 2 * half - new if first else 0
            for t in range(first + skip, first + length):
                answers.append((session, t))
                if serving:
                    assert t - first + 1 >= min(t + 1, half)
        assert answers == [(s, t) for s, length in enumerate(n) for t in range(length)]


@examples(100)
@given(configurations(), lengths)
def test_a_batch_is_the_sum_of_its_sessions(hp, n):
    """Loss and gradients: no lane leaks into another, and what is not there is not learnt."""
    hp.n_sample, hp.dropout_p_embed, hp.dropout_p_context = 0, 0.0, 0.0
    W, problem = random_problem(hp, n)
    together, loss = gradients(hp, W, problem)
    alone, total = {name: 0 for name in W}, 0.0
    lane = np.nonzero(problem["there"])[1]
    for b in range(len(n)):
        own = lane == b
        one = {
            "x": problem["x"][own],
            "y": problem["y"][own],
            "there": np.ones((own.sum(), 1), bool),
            "samples": None,
            "chances": None,
        }
        full, loss_of_one = gradients(hp, W, one)
        total += own.sum() * loss_of_one()
        alone = {name: alone[name] + own.sum() * full[name] for name in W}
    np.testing.assert_allclose(sum(n) * loss(), total, rtol=1e-12)
    for name in W:
        np.testing.assert_allclose(sum(n) * together[name], alone[name], rtol=1e-9, atol=1e-12)


@examples(50)
@given(configurations(), lengths)
def test_a_batch_in_parts(hp, n):
    """Gradients of parts, each divided by the cases of all, are merged to those of the batch."""
    hp.n_sample, hp.dropout_p_embed, hp.dropout_p_context = 0, 0.0, 0.0
    W, problem = random_problem(hp, n)
    wanted, loss = gradients(hp, W, problem)
    lane, losses, parts = np.nonzero(problem["there"])[1], [], []
    for i in range(min(2, len(n))):
        own = lane % 2 == i
        part = {name: problem[name][own] for name in "xy"}
        there = problem["there"][:, i::2]
        part |= {"there": there[there.any(axis=1)], "samples": None, "chances": None}
        part_loss, g = loss_and_gradients(W, hp, NUMPY, n_cases=sum(n), **part)
        losses.append(part_loss)
        parts.append(g)
    for g in parts[1:]:
        parts[0].merge(g)
    np.testing.assert_allclose(sum(losses), loss(), rtol=1e-12)
    for name, found in whole(parts[0], W["emb"]).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalise", [False, True])
def test_places_without_an_event_are_never_read(monkeypatch, normalise):
    hp = NARM(embedding=3, hidden=4, normalise=normalise, backend="numpy")
    W, problem = random_problem(hp, [5, 3, 3, 1])
    wanted, wanted_loss = gradients(hp, W, problem)
    spread = encoders._spread

    def poisoned(rows, there):
        out = spread(rows, there)
        out[~there] = np.nan
        return out

    monkeypatch.setattr(encoders, "_spread", poisoned)
    found, found_loss = gradients(hp, W, problem)
    assert found_loss() == wanted_loss()
    assert all((found[name] == wanted[name]).all() for name in W)


@examples(50)
@given(st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=12), min_size=1, max_size=9),
       st.booleans())  # fmt: skip
def test_a_session_scores_the_same_in_any_company(lists, normalise):
    """Up to rounding: BLAS adds a few rows in another order than many."""
    log = Sessions.from_lists(lists)
    hp = NARM(**SMALL, normalise=normalise)
    W = init_weights(hp, log.n_items, np.random.default_rng(0))
    events, there = side_by_side(log.offsets[:-1], log.lengths)
    out, _ = encode(W, hp, NUMPY, log.items[events], there)
    for s in range(log.n_sessions):
        own = slice(log.offsets[s], log.offsets[s + 1])
        alone, _ = encode(W, hp, NUMPY, log.items[own], np.ones((log.lengths[s], 1), bool))
        mine = (log.offsets[s] <= events) & (events < log.offsets[s + 1])
        np.testing.assert_allclose(out[mine], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_sample", [0, 5])
def test_cases_are_scored_in_blocks(monkeypatch, n_sample):
    rng = np.random.default_rng(0)
    emb, out, y = rng.normal(size=(ITEMS, 3)), rng.normal(size=(7, 3)), rng.integers(0, ITEMS, 7)
    samples = rng.integers(0, ITEMS, n_sample) if n_sample else None
    chances = rng.dirichlet(np.ones(ITEMS), 2)

    def run(out, y):
        g = Gradients()
        loss, dout = decode(out, emb, y, samples, chances, NUMPY, g)
        g.sum_rows()
        return loss * len(y), dout * len(y), whole(g, emb)["emb"] * len(y)

    if n_sample:  # the cases of a block are each other's negatives
        parts = [run(out[i : i + 3], y[i : i + 3]) for i in (0, 3, 6)]
        wanted = (
            sum(p[0] for p in parts),
            np.vstack([p[1] for p in parts]),
            sum(p[2] for p in parts),
        )
    else:
        wanted = run(out, y)
    monkeypatch.setattr(narm, "LOSS_CASES", 3)
    for found, other in zip(run(out, y), wanted, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-12)


@examples(50)
@given(seeds, st.integers(1, 3))
def test_samples_estimate_the_sum_over_all_items_without_bias(seed, n):
    """Over all draws, of the other targets and of a sample, by their probabilities."""
    rng = np.random.default_rng(seed)
    emb, out = rng.normal(size=(4, 2)), rng.normal(size=(n, 2))
    chances = rng.dirichlet(np.ones(4), 2)
    mean, found = 0.0, []

    def keep(r, column):
        found.append(NUMPY.softmax_loss(r, column))
        return found[-1]

    for *others, sample in itertools.product(range(4), repeat=n):
        y, ops = np.array([2, *others]), SimpleNamespace(softmax_loss=keep)
        decode(out, emb, y, np.array([sample]), chances, ops, Gradients())
        p = chances[0, others].prod() * chances[1, sample]
        mean += p * np.exp(found[-1][0][0] + emb[2] @ out[0])
    np.testing.assert_allclose(mean, np.exp(emb @ out[0]).sum(), rtol=1e-10)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_step_catches_up_with_all_rows_that_it_reads(log, backend):
    """Then it does not matter, up to rounding, whether the others waited. In `fit_more`, too."""
    few = log.keep_sessions(np.arange(log.n_sessions) < 150)
    models = [NARM(**SMALL | {"n_sample": 4, "n_epochs": 2, "backend": backend}) for _ in range(2)]
    ops = models[1].ops
    catch_up = ops.adam_catch_up

    def with_all_rows(p, state, rows, step, moved):
        catch_up(p, state, np.arange(len(p)), step, moved)

    ops.adam_catch_up = with_all_rows
    for model in models:
        model.fit(few).fit_more(few)
    assert not same_weights(*models)
    for name, found in models[0].weights.items():
        np.testing.assert_allclose(found, models[1].weights[name], rtol=1e-3, atol=1e-4)


def test_a_step_touches_only_its_rows():
    """With samples: other rows keep weight and Adam's state, and wait."""
    hp = NARM(**SMALL, n_sample=2)
    rng = np.random.default_rng(0)
    hp.item_ids, hp.weights = np.arange(1000), init_weights(hp, 1000, rng)
    before = hp.weights["emb"].copy()
    hp.memory = {name: init_memory(p, "adam", 0) for name, p in hp.weights.items()}
    _, g = loss_and_gradients(
        hp.weights, hp, NUMPY, np.array([5, 9, 5]), np.array([9, 5, 7]), grid([2, 1]),
        np.array([20, 20]), np.full((2, 1000), 0.001), rng,
    )  # fmt: skip
    hp._update(g, 0.001)
    changed = (hp.weights["emb"] != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [5, 7, 9, 20]
    assert hp.memory["emb"]["t"][changed].tolist() == [[1]] * 4  # once, however often a row occurs
    assert not any(array[~changed].any() for array in hp.memory["emb"].values())


@pytest.mark.parametrize("n_sample", [0, 3])
def test_float32_stays_float32(n_sample):
    hp = NARM(**SMALL, n_sample=n_sample, normalise=True)
    _, problem = random_problem(hp, [3, 2])
    W = init_weights(hp, ITEMS, np.random.default_rng(0))
    _, g = loss_and_gradients(W, hp, NUMPY, rng=np.random.default_rng(0), **problem)
    assert {d.dtype for d in whole(g, W["emb"]).values()} == {np.dtype(np.float32)}


# --- the model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log():
    return Shop(n_items=60).simulate(400)


@pytest.fixture(scope="module")
def model(log):
    return NARM(**SMALL).fit(log)


def same_weights(a, b):
    return all((a.weights[name] == b.weights[name]).all() for name in a.weights)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"normalise": False},
        {"n_sample": 16},
        {"n_sample": 16, "sample_alpha": 0},
        {"grad_cap": 0.1},
        {"batch_size": 1000, "learning_rate": 0.05},
        {"backend": "numba"},
        {"backend": "numba", "n_sample": 16},
    ],
    ids=str,
)
def test_every_option_trains(log, extra):
    model = NARM(**{**SMALL, "n_epochs": 8, "learning_rate": 0.01, **extra}).fit(log)
    losses = [epoch["loss"] for epoch in model.history]
    assert losses[-1] < losses[0] - 0.1
    steps = -(-log.n_sessions // model.batch_size)
    assert model.losses.shape == (8 * steps,) and len(losses) == 8
    assert {w.dtype for w in model.weights.values()} == {np.dtype(np.float32)}
    assert model.evaluate(log)["recall@20"] > 0.4


def test_options_change_what_they_say(log):
    one = NARM(**SMALL).fit(log)
    for other in (
        {"normalise": False}, {"n_sample": 8}, {"dropout_p_embed": 0}, {"dropout_p_context": 0},
        {"grad_cap": 0.01}, {"learning_rate": 0.01}, {"decay": False},
        {"batch_size": 8}, {"n_epochs": 2},
    ):  # fmt: skip
        assert not same_weights(one, NARM(**{**SMALL, **other}).fit(log)), other
    few = NARM(**SMALL, n_sample=8).fit(log)
    assert not same_weights(few, NARM(**SMALL, n_sample=8, sample_alpha=0).fit(log))


@pytest.mark.parametrize("alpha", [0, 0.5])
def test_negatives_are_drawn_by_support(log, monkeypatch, alpha):
    drawn = []

    def spy(*args):
        drawn.append(draw_negatives(*args))
        return drawn[-1]

    monkeypatch.setattr(narm, "draw_negatives", spy)
    NARM(**SMALL, n_sample=2000, sample_alpha=alpha).fit(log)
    assert len(drawn) == -(-log.n_sessions // SMALL["batch_size"])
    assert not (drawn[0] == drawn[1]).all()
    support = log.compact().support
    share = np.bincount(np.concatenate(drawn), minlength=len(support)) / (2000 * len(drawn))
    np.testing.assert_allclose(share, support**alpha / (support**alpha).sum(), atol=0.003)


@pytest.mark.parametrize("keep_counts", [False, True])
def test_a_training_knows_how_often_items_are_drawn(log, monkeypatch, keep_counts):
    """Targets come from the new sessions, samples by the counts that are kept."""
    given = []

    def spy(out, emb, y, samples, chances, *more):
        given.append(chances)
        return decode(out, emb, y, samples, chances, *more)

    model = NARM(**SMALL, n_sample=4, sample_alpha=0.5).fit(log)
    monkeypatch.setattr(narm, "decode", spy)
    few = log.keep_sessions(np.arange(log.n_sessions) < 40)
    model.fit_more(few, keep_counts=keep_counts)
    old, new = log.compact().support, few.compact().extend(model.item_ids).support
    of_samples = np.sqrt(old + new if keep_counts else new)
    for chances in given:
        np.testing.assert_allclose(chances[0], new / new.sum(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(chances[1], of_samples / of_samples.sum(), rtol=1e-9, atol=1e-12)


def test_the_same_seed_gives_the_same_bits(log, model):
    assert same_weights(model, NARM(**SMALL).fit(log))
    assert not same_weights(model, NARM(**SMALL, seed=1).fit(log))


def test_the_number_of_threads_does_not_show():
    code = (
        "import hashlib; from gru4rec_np import *\n"
        "log = Shop(n_items=300).simulate(300)\n"
        "for n_sample in (0, 100):\n"
        "    m = NARM(n_epochs=1, n_sample=n_sample).fit(log)\n"
        "    print(m.ranks(log)[0].sum())\n"
        "    weights = b''.join(w.tobytes() for w in m.weights.values())\n"
        "    print(hashlib.sha256(weights).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": n,
                "OMP_NUM_THREADS": n,
                "NUMBA_NUM_THREADS": n,
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in ("1", "2")
    ]
    assert digests[0] == digests[1]


def test_blas_has_one_thread(log):
    """The test above may pass by luck: two threads do not always add in another order."""
    seen = []

    def look(*_):
        seen.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")

    with threadpool_limits(2, "blas"):
        model = NARM(**SMALL).fit(log, on_epoch=look)
        model.ops.rank_targets = lambda *args: look() or NUMPY.rank_targets(*args)
        model.ranks(log)
    assert seen and set(seen) == {1}


@pytest.mark.parametrize("longest", [200, 4])
@pytest.mark.parametrize("normalise", [False, True])
def test_ranks_and_recommendations_agree(log, monkeypatch, normalise, longest):
    """Every case of a few sessions, also such as are longer than the network sees at once."""
    monkeypatch.setattr(narm, "LONGEST", longest)
    model = NARM(**{**SMALL, "n_epochs": 3}, normalise=normalise).fit(log)
    test = log.keep_sessions((log.lengths > 6) | (np.arange(log.n_sessions) < 20))
    found, before = model.ranks(test)
    for case, rank, seen in zip(test.cases, found, before, strict=True):
        session = test.item_ids[test.items[case - seen + 1 : case + 1]].tolist()
        best = [item for item, _ in model.recommend(session, k=10_000)]
        # A session alone may differ in the last bit: a near tie may swap.
        assert abs(best.index(test.item_ids[test.items[case + 1]]) + 1 - rank) <= 1


def test_recommend(model):
    ids = model.item_ids[:3].tolist()
    best = model.recommend([ids[0], "never seen", ids[1]], k=7)
    assert len(best) == 7
    assert [score for _, score in best] == sorted((s for _, s in best), reverse=True)
    assert best == model.recommend(ids[:2], k=7)
    assert len(model.recommend(ids, k=10_000)) == len(model.item_ids)
    for session, k, words in (
        (["never seen"], 5, "none of the 1 items"), ([], 5, "the session has no items"),
        (ids[0], 5, "session: must be a list"), (ids, 0, "k: must be a whole number >= 1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            model.recommend(session, k=k)


def test_sessions_of_unknown_items_alone(log):
    model = NARM(**SMALL).fit(log)
    assert np.isnan(model.session_vectors([["never seen"], []])).all()
    items, scores = model.recommend_many([["never seen"], []], k=3)
    assert (items == -1).all() and np.isnan(scores).all()


@pytest.mark.parametrize("normalise", [False, True])
def test_the_weights_of_clicks(log, monkeypatch, normalise):
    """They are those of the last click, computed here by hand; 0 for what is not looked at."""
    model = NARM(**SMALL, normalise=normalise).fit(log)
    a, b, c = model.item_ids[:3].tolist()
    best = model.recommend([a, "never seen", b, c], k=3)
    weights = model.attention([a, "never seen", b, c])
    assert best == model.recommend([a, b, c], k=3)
    assert weights.shape == (4,) and weights[1] == 0
    W = model.weights
    h, _ = unroll(W["emb"][:3] @ W["W_x"], np.ones((3, 1), bool), W["U"], W["b"], NUMPY)
    raw = (1 / (1 + np.exp(-(h[-1] @ W["A1"] + h @ W["A2"])))) @ W["v"]
    wanted = np.exp(raw) / np.exp(raw).sum() if normalise else raw
    np.testing.assert_allclose(weights[[0, 2, 3]], wanted, rtol=1e-4)

    monkeypatch.setattr(narm, "LONGEST", 4)
    weights = model.attention([a, b, c, a, "never seen", b, c])
    assert (weights != 0).tolist() == [False, False, True, True, False, True, True]


def test_a_far_click_is_remembered_and_looked_at():
    """The first click decides the last one, with six others in between."""
    rng = np.random.default_rng(0)
    lists = []
    for s in range(600):
        key = s % 4
        between = [f"x{i}" for i in rng.integers(0, 5, 6)]
        lists.append([f"first{key}", *between, f"last{key}"])
    log = Sessions.from_lists(lists)
    model = NARM(
        embedding=12, hidden=16, normalise=True, n_epochs=25, learning_rate=0.01, batch_size=32,
        dropout_p_embed=0, dropout_p_context=0, backend="numpy",
    ).fit(log)  # fmt: skip
    looked = []
    for session in lists[-40:]:
        (best, _), *_ = model.recommend(session[:-1], 1)
        assert best == session[-1]
        looked.append(model.attention(session[:-1]))
    # Seven clicks would have a seventh each.
    assert np.mean(looked, axis=0)[0] > 2 / 7


def test_a_very_long_session():
    """20,000 events: cut in pieces, so neither time nor memory grow with the square."""
    rng = np.random.default_rng(0)
    long = Sessions.from_lists([rng.integers(0, 50, 20_000).tolist(), [0, 1, 2]])
    tracemalloc.start()
    model = NARM(**SMALL).fit(long)
    ranks, before = model.ranks(long)
    weights = model.attention(long.session(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 20,000 by 20,000 floats are 1.6e9 bytes, and that for one of 8 units
    assert len(ranks) == 19_999 + 2 and before.max() == 19_999
    assert model.history[0]["events"] == 19_999 + 2
    assert narm.LONGEST // 2 <= np.count_nonzero(weights) <= narm.LONGEST


def test_an_empty_or_short_log():
    with pytest.raises(InputError, match="nothing to train on: no session with 2 events"):
        NARM().fit(Sessions.from_lists([["a"], ["b"]]))
    model = NARM(**SMALL).fit(Sessions.from_lists([["a", "b"], ["zzz"]]))
    assert model.item_ids.tolist() == ["a", "b"]


@pytest.mark.parametrize("rate", [1e6, 1e30], ids=["exploded", "NaN"])
def test_divergence_is_named(log, rate):
    model = NARM(**SMALL, learning_rate=rate)
    with pytest.raises(InputError, match=r"in epoch 1: training diverged; try a lower"):
        model.fit(log)
    with pytest.raises(InputError, match="call fit or load first"):
        model.recommend(log.session(0))


def test_before_fit(tmp_path):
    for use in (
        lambda m: m.save(tmp_path / "m.npz"),
        lambda m: m.recommend(["a"]),
        lambda m: m.ranks(Sessions.from_lists([["a", "b"]])),
    ):
        with pytest.raises(InputError, match="NARM: the model is not trained, call fit or"):
            use(NARM())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("embedding", 0), ("embedding", 2.5), ("hidden", -1), ("hidden", "10"), ("normalise", 1),
        ("decay", "yes"),
        ("n_sample", -1), ("sample_alpha", -0.5), ("batch_size", 0), ("n_epochs", 0),
        ("learning_rate", 0), ("learning_rate", float("nan")), ("dropout_p_embed", 1),
        ("dropout_p_context", -0.1), ("grad_cap", -1), ("seed", -1), ("backend", "tpu"),
    ],
)  # fmt: skip
def test_bad_hyperparameters(name, wrong):
    with pytest.raises(InputError, match=rf"^{name}: must be .*{wrong!r}$"):
        NARM(**{name: wrong})


def test_another_models_file(model, log, tmp_path):
    from gru4rec_np import GRU4Rec, models

    GRU4Rec.published(layers=[3], n_sample=4, n_epochs=1, backend="numpy").fit(log).save(
        tmp_path / "g.npz"
    )
    with pytest.raises(InputError, match="it holds GRU4Rec, not NARM"):
        NARM.load(tmp_path / "g.npz")
    model.save(tmp_path / "n.npz")
    with pytest.raises(InputError, match="does not fit together"):
        GRU4Rec.load(tmp_path / "n.npz")
    again = models.load(tmp_path / "n.npz", "numpy")
    assert again.hyperparameters() == model.hyperparameters() and again.ops.name == "numpy"


def test_the_command_shows_the_weights(model, tmp_path):
    model.save(tmp_path / "model.npz")
    a, b = model.item_ids[:2].tolist()
    done = subprocess.run(
        [sys.executable, "-m", "gru4rec_np.recommend", tmp_path, a, "nothing", b, "-k", "3"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *_, third, attention = done.stdout.splitlines()
    best = model.recommend([a, "nothing", b], 3)
    one, _, two = model.attention([a, "nothing", b])
    assert third.split()[:2] == ["3", best[2][0]]
    assert attention == f"attention: {a} {one:.3f}, nothing 0.000, {b} {two:.3f}"


# --- real clicks ---------------------------------------------------------------------------------


def test_accuracy_on_real_clicks():
    """The defaults, one seed."""
    train = read_table(shared("data/rsc15-100k/train.tsv"))
    test = read_table(shared("data/rsc15-100k/test.tsv"))
    found = NARM(seed=1).fit(train).evaluate(test)
    assert found["recall@20"] >= 0.680 and found["mrr@20"] >= 0.360
