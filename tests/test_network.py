"""The whole network's gradient against finite differences, and the mistakes seen in the field."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import EXPLORES, examples
from gru4rec_np import GradientError, GRU4Rec, Sessions, gradcheck
from gru4rec_np.backends import load
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import INPUTS
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.losses import LOSSES
from gru4rec_np.ops.optim import OPTIMISERS, init_memory
from gru4rec_np.ops.scoring import corrected

ITEMS = 6
HIDDEN_ACTS = ("tanh", "sigmoid", "relu", "leaky-0.2", "elu-0.7", "selu", "linear")
FINAL_ACTS = ("auto", "linear", "tanh", "relu", "leaky-0.3", "elu-0.5", "selu")
sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@st.composite
def configurations(draw):
    loss = draw(st.sampled_from(LOSSES))
    scores_all = loss == "cross-entropy" and draw(st.booleans())
    encoding = draw(st.sampled_from(INPUTS))
    layers, feedforward = draw(sizes), draw(st.one_of(st.just([]), sizes))
    skip = encoding in network.EMBEDDING_TABLE and draw(st.booleans())
    embedding = [*layers, *feedforward][-1] if skip else draw(st.integers(0, 4))
    may_smooth = loss == "cross-entropy" and not scores_all
    smoothing = draw(st.sampled_from([0, 0.2])) if may_smooth else 0
    return GRU4Rec.published(
        layers=layers,
        unit=draw(st.sampled_from(tuple(UNITS))),
        input=encoding,
        embedding=embedding if encoding == "embedding" else 0,
        skip=skip,
        fade=draw(st.sampled_from([0, 0.6, 1])),
        cosine=draw(st.sampled_from([0, 0, 4.0])),
        discount=draw(st.sampled_from([0.3, 0.5, 0.8])),
        reset_after=draw(st.booleans()),
        hidden_act=draw(st.sampled_from(HIDDEN_ACTS)),
        input_to_all_layers=draw(st.booleans()),
        feedforward=feedforward,
        bptt=draw(st.integers(1, 4)),
        loss=loss,
        final_act="auto" if scores_all else draw(st.sampled_from(FINAL_ACTS)),
        bpreg=draw(st.sampled_from([0, 1.0, 0.3])),
        smoothing=smoothing,
        logq=draw(st.sampled_from([0, 1.0, 0.5])),
        logq_corrected=smoothing == 0 and draw(st.booleans()),
        n_sample="all" if scores_all else draw(st.integers(1, 5)),
        dropout_p_embed=draw(st.sampled_from([0, 0.4])),
        dropout_p_hidden=draw(st.sampled_from([0, 0.4])),
        lmbd=draw(st.sampled_from([0, 0.1])),
        batch_size=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 2**32)),
        backend="numpy",
    )


def random_window(hp, rng, reset_chance=0.3, leave_chance=0.1):
    """A window in which lanes reset, leave, and feed and score the same few items."""
    window = network.Window([], [], [], [], [])
    lanes = hp.batch_size
    for _ in range(hp.bptt):
        keep = rng.random(lanes) >= leave_chance
        keep[rng.integers(lanes)] = True
        lanes = int(keep.sum())
        window.keep.append(keep)
        window.reset.append(rng.random(lanes) < reset_chance)
        window.x.append(rng.integers(0, ITEMS, lanes))
        items = rng.integers(0, ITEMS, lanes + hp.n_extra)
        window.items.append(items)
        with_logq = hp.logq and hp.loss == "cross-entropy" and not hp.scores_all
        log_q = rng.normal(size=len(items))
        log_q = corrected(log_q, items, lanes) if hp.corrects else log_q
        window.log_q.append(log_q if with_logq else None)
    return window


def random_state(hp, rng, lanes):
    zero = network.zero_state(hp, lanes, np.float64)
    L = zero.history.shape[1]
    age = rng.integers(0, 5, (lanes, 1))
    history = np.where(np.arange(L) < age, rng.integers(0, ITEMS, (lanes, L)), -1)
    return network.State([rng.normal(size=h.shape) for h in zero.h], history)


def random_network(hp):
    rng = np.random.default_rng(hp.seed)
    W = network.init_weights(hp, ITEMS, rng, np.float64)
    for name in W:
        if name[0] in "bcfs":
            W[name] += rng.normal(size=W[name].shape) / 2
    if hp.cosine_in_use:
        W["b_y"][:] = 0
    return W, random_window(hp, rng), random_state(hp, rng, hp.batch_size)


def gradients(hp, W, window, state):
    """The network's gradients as arrays of the weights' shapes, and the loss they belong to."""
    masks_seed = hp.seed + 1
    _, _, steps = network.forward(W, hp, hp.ops, window, state, np.random.default_rng(masks_seed))
    g = network.backward(W, hp, hp.ops, steps)
    network.l2(W, g, hp.lmbd)
    full = dict(g.dense)
    for name, (rows, gradient) in g.rows.items():
        full[name] = np.zeros_like(W[name])
        full[name][rows] = gradient

    def loss():
        value, _, _ = network.forward(
            W, hp, hp.ops, window, state, np.random.default_rng(masks_seed)
        )
        used = [W[name] for name in g.dense] + [W[name][rows] for name, (rows, _) in g.rows.items()]
        return value + hp.lmbd / 2 * sum((p * p).sum() for p in used)

    return full, loss


@examples(150)
@given(configurations())
def test_gradient_of_the_whole_network(hp):
    W, window, state = random_network(hp)
    full, loss = gradients(hp, W, window, state)
    assert full.keys() == W.keys() - ({"b_y"} if hp.cosine_in_use else set())
    gradcheck(loss, W, full, entries=3, seed=hp.seed)


def test_every_entry_once_with_all_items():
    """n_sample=all: each row of the output table has a gradient."""
    for encoding, cosine in itertools.product(INPUTS, (0, 4.0)):
        hp = GRU4Rec.published(
            layers=[3], input=encoding, skip=True, fade=0.6, cosine=cosine, bptt=3, n_sample="all",
            batch_size=5, dropout_p_embed=0.3, lmbd=0.01, backend="numpy",
        )  # fmt: skip
        W, window, state = random_network(hp)
        full, loss = gradients(hp, W, window, state)
        gradcheck(loss, W, full)
        assert full["V_y"].any(axis=1).all() and ("b_y" in full) == (not cosine)


@pytest.mark.parametrize("cosine", [0, 4.0])
def test_samples_that_are_all_items(cosine):
    """One lane whose samples are all other items: the loss and gradients of n_sample=all."""
    found = []
    for n_sample in (ITEMS - 1, "all"):
        hp = GRU4Rec.published(
            layers=[3], cosine=cosine, n_sample=n_sample, batch_size=1, dropout_p_embed=0, logq=0,
            backend="numpy",
        )  # fmt: skip
        W, _, _ = random_network(hp)
        state = random_state(hp, np.random.default_rng(1), 1)
        items = np.roll(np.arange(ITEMS), -2)[: 1 + hp.n_extra]
        window = network.Window([np.array([4])], [np.array([False])], [np.array([True])], [items],
                                [None])  # fmt: skip
        full, loss = gradients(hp, W, window, state)
        found.append({"loss": np.array(loss()), **full})
    sampled, whole = found
    assert sampled.keys() == whole.keys()
    for name, wanted in sampled.items():
        np.testing.assert_allclose(whole[name], wanted, rtol=1e-12, atol=1e-14, err_msg=name)


def test_every_entry_once():
    """The drawn test looks at a few entries of each weight; here every one, in a big set-up."""
    pairs = itertools.product(INPUTS, UNITS) if EXPLORES else zip(INPUTS, itertools.cycle(UNITS))
    for encoding, unit in pairs:
        hp = GRU4Rec.published(
            layers=[3, 2, 3], unit=unit, input=encoding, feedforward=[4], input_to_all_layers=True,
            bptt=4, n_sample=4, batch_size=5, dropout_p_hidden=0.3, lmbd=0.01, backend="numpy",
        )  # fmt: skip
        W, window, state = random_network(hp)
        full, loss = gradients(hp, W, window, state)
        gradcheck(loss, W, full)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("U0", lambda d: -d),
        ("V_y", lambda d: 2 * d),
        ("b0", lambda d: d * [1, 1, 1, 1, 1, 1, 1, 1, 0.999]),
        ("U0", lambda d: np.hstack([d[:, :6], d[:, 6:].T])),
    ],
    ids=["sign", "factor", "one entry", "transposed"],
)
def test_a_wrong_gradient_is_seen(name, mistake):
    hp = GRU4Rec.published(layers=[3], n_sample=4, batch_size=5, bptt=2, backend="numpy")
    W, window, state = random_network(hp)
    full, loss = gradients(hp, W, window, state)
    full[name] = mistake(full[name])
    with pytest.raises(GradientError, match=name):
        gradcheck(loss, W, full)


# --- mistakes that made other implementations lose accuracy --------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_reset_forgets_everything(unit):
    """After a reset, what came before must not show, nor be reached by the gradient."""
    for encoding in INPUTS:
        hp = GRU4Rec.published(layers=[3, 2], unit=unit, input=encoding, n_sample=3, batch_size=4,
                     backend="numpy")  # fmt: skip
        W, window, state = random_network(hp)
        window.reset[0][:] = True
        window.keep[0][:] = True
        window = window._replace(
            x=[np.arange(4)], reset=[np.ones(4, bool)], keep=[np.ones(4, bool)],
            items=[np.arange(6)], log_q=[None],
        )  # fmt: skip
        fresh = network.zero_state(hp, 4, np.float64)
        loss, after, _ = network.forward(W, hp, hp.ops, window, state)
        loss_fresh, after_fresh, _ = network.forward(W, hp, hp.ops, window, fresh)
        assert loss == loss_fresh
        for h, h_fresh in zip(after.h, after_fresh.h, strict=True):
            assert (h == h_fresh).all()
        assert (after.history == after_fresh.history).all()


def test_a_memory_that_outlives_its_session_is_seen(monkeypatch):
    """A reset that forgets an LSTM's output and not its memory fails the tests above and below."""

    def leak(state, keep, reset):
        old = ~reset[:, None]
        for_h = [np.arange(h.shape[1]) < h.shape[1] // 2 for h in state.h]
        h = [np.where(out & ~old, 0, h[keep]) for h, out in zip(state.h, for_h, strict=True)]
        return network.State(h, np.where(old, state.history[keep], -1))

    monkeypatch.setattr(network, "enter_step", leak)
    for test in (test_reset_forgets_everything, test_lanes_do_not_leak):
        with pytest.raises(AssertionError):
            test(unit="lstm")


@pytest.mark.parametrize("unit", UNITS)
@examples(50)
@given(
    lengths=st.lists(st.integers(2, 6), min_size=1, max_size=12), batch_size=st.integers(1, 5),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_lanes_do_not_leak(unit, lengths, batch_size, seed):
    """Every hidden state of a parallel epoch is that of its session run alone."""
    rng = np.random.default_rng(seed)
    lists = [[int(i) for i in rng.integers(0, ITEMS, n)] for n in lengths]
    lists.append(list(range(ITEMS)))
    sessions = Sessions.from_lists(lists)
    hp = GRU4Rec.published(
        layers=[3, 2], unit=unit, input=INPUTS[seed % 4], n_sample=1, backend="numpy"
    )
    W = network.init_weights(hp, sessions.n_items, rng, np.float64)
    alone = {}
    for s in range(sessions.n_sessions):
        state = network.zero_state(hp, 1, np.float64)
        for event in range(sessions.offsets[s], sessions.offsets[s + 1] - 1):
            x = sessions.items[event : event + 1]
            out, state, _ = network.recurrent(W, hp, hp.ops, x, state)
            alone[event] = out[0]

    events = Sessions(
        np.arange(sessions.n_events), sessions.offsets, sessions.times,
        np.arange(sessions.n_events), sessions.session_ids,
    )  # fmt: skip
    batches = session_parallel(events, batch_size, min_lanes=1)
    state = network.zero_state(hp, batches.x.shape[1], np.float64)
    seen = 0
    for t in range(len(batches)):
        n, before = batches.lanes[t], batches.lanes[t - 1] if t else batches.x.shape[1]
        state = network.enter_step(state, batches.keep[t, :before], batches.reset[t, :n])
        asked = batches.x[t, :n]
        out, state, _ = network.recurrent(W, hp, hp.ops, sessions.items[asked], state)
        for b, event in enumerate(asked):
            np.testing.assert_allclose(out[b], alone[event], rtol=1e-12, atol=1e-14)
            seen += 1
    assert seen == len(alone)


@pytest.mark.parametrize("adapt", OPTIMISERS)
@pytest.mark.parametrize("encoding", INPUTS)
def test_a_step_touches_only_its_rows(encoding, adapt):
    """No dense walk over a table: rows outside the step keep weight and optimiser state."""
    hp = GRU4Rec.published(input=encoding, layers=[4], n_sample=3, batch_size=2, adapt=adapt,
                 momentum=0.3,
                 lmbd=0.1, backend="numpy")  # fmt: skip
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, 1000, rng)
    before = {name: array.copy() for name, array in W.items()}
    memory = {n: init_memory(p, hp.adapt, hp.momentum) for n, p in W.items()}
    window = network.Window(
        [np.array([5, 9])], [np.zeros(2, bool)], [np.ones(2, bool)],
        [np.array([7, 8, 20, 20, 30])], [None],
    )  # fmt: skip
    network.train_window(W, memory, hp, hp.ops, window, network.zero_state(hp, 2), rng)
    touched = {"b_y": {7, 8, 20, 30}, "V_y": {7, 8, 20, 30}}
    if encoding == "shared":
        touched["V_y"] |= {5, 9}
    else:
        touched["E" if encoding == "embedding" else "W_x"] = {5, 9}
    for name, rows in touched.items():
        changed = (W[name] != before[name]).reshape(1000, -1).any(axis=1)
        assert set(np.flatnonzero(changed).tolist()) == rows
        for array in memory[name].values():
            used = array.reshape(1000, -1).any(axis=1)
            assert set(np.flatnonzero(used).tolist()) <= rows


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("encoding", INPUTS)
def test_float32_stays_float32(encoding, unit):
    hp = GRU4Rec.published(input=encoding, layers=[4, 3], unit=unit, feedforward=[5], n_sample=3,
                 batch_size=3, bptt=2, dropout_p_embed=0.2, dropout_p_hidden=0.2, lmbd=0.1,
                 grad_cap=1, momentum=0.5, backend="numpy")  # fmt: skip
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, ITEMS, rng)
    window, state = random_window(hp, rng), network.zero_state(hp, 3)
    window = window._replace(
        log_q=[None if q is None else q.astype(np.float32) for q in window.log_q]
    )
    _, state, steps = network.forward(W, hp, load("numpy"), window, state, rng)
    g = network.backward(W, hp, load("numpy"), steps)
    network.l2(W, g, hp.lmbd)
    assert all(h.dtype == np.float32 for h in state.h)
    assert all(d.dtype == np.float32 for d in g.dense.values())
    assert all(d.dtype == np.float32 for _, d in g.rows.values())


@pytest.mark.parametrize("unit", UNITS)
def test_initial_weights(unit):
    """Each gate's block is uniform at its own scale, not at the whole matrix's; biases are 0."""
    hp = GRU4Rec.published(layers=[50], unit=unit, input="embedding", embedding=30)
    W = network.init_weights(hp, 400, np.random.default_rng(0))
    gates = {"gru": 3, "lstm": 4, "rnn": 1}[unit]
    assert W["W_x"].shape == (30, gates * 50) and W["U0"].shape == (50, gates * 50)
    assert ("c0" in W) == (unit == "gru")
    for name, rows, columns in (("W_x", 30, 50), ("U0", 50, 50), ("V_y", 400, 50), ("E", 400, 30)):
        limit = np.sqrt(6 / (rows + columns))
        assert 0.97 * limit < np.abs(W[name]).max() <= limit
        assert abs(W[name].std() / (limit / np.sqrt(3)) - 1) < 0.05
    assert not W["b0"].any() and not W["b_y"].any()
    normal = network.init_weights(
        GRU4Rec.published(layers=[50], sigma=0.1, init_as_normal=True),
        400,
        np.random.default_rng(0),
    )
    assert abs(normal["V_y"].std() / 0.1 - 1) < 0.05 and np.abs(normal["V_y"]).max() > 0.25
