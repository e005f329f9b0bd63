"""Do options and batches reach the step? Each test names a mistake that once went unseen."""

from types import SimpleNamespace

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, Sessions, Shop, backends
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import INPUTS
from gru4rec_np.models.training import chunk_of
from gru4rec_np.ops.activations import activate
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.losses import loss_and_gradient
from gru4rec_np.ops.optim import OPTIMISERS, init_memory

STEP = {"layers": [4, 3], "n_sample": 5, "batch_size": 3, "dropout_p_embed": 0, "logq": 0,
        "backend": "numpy"}  # fmt: skip


def one_step(hp, n_items=9, seed=0):
    """Weights, a window of one step and a state, in float64."""
    rng = np.random.default_rng(seed)
    W = network.init_weights(hp, n_items, rng, np.float64)
    B = hp.batch_size
    window = network.Window(
        [rng.integers(0, n_items, B)], [np.zeros(B, bool)], [np.ones(B, bool)],
        [rng.integers(0, n_items, B + hp.n_sample)], [None],
    )  # fmt: skip
    zero = network.zero_state(hp, B, np.float64)
    return W, window, zero._replace(h=[rng.normal(size=h.shape) for h in zero.h])


def trained(hp, W, window, state, rng=None):
    """The loss of one update, and what it added to each weight."""
    new = {name: array.copy() for name, array in W.items()}
    memory = {name: init_memory(p, hp.adapt, hp.momentum) for name, p in W.items()}
    loss, _ = network.train_window(new, memory, hp, hp.ops, window, state, rng)
    return loss, {name: new[name] - W[name] for name in W}


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_mask():
    rng = np.random.default_rng(0)
    like = np.empty((400, 100), np.float32)
    mask = network.dropout_mask(rng, like, 0.3)
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((mask == 0).mean() - 0.3) < 0.01 and abs(mask.mean() - 1) < 0.01
    assert 0.2 < (mask == 0).mean(axis=1).std() * 10 < 0.8  # each lane has its own
    assert network.dropout_mask(None, like, 0.3) is None
    assert network.dropout_mask(rng, like, 0) is None


@pytest.mark.parametrize("encoding", INPUTS)
def test_each_dropout_falls_in_its_place(encoding):
    """Nearly all dropped: without embedding the items do not show, without state nothing does."""
    gone = 1 - 1e-12
    hp = GRU4Rec.published(**{**STEP, "dropout_p_embed": gone}, input=encoding)
    W, window, state = one_step(hp)
    rng = np.random.default_rng(0)
    out, new, _ = network.recurrent(W, hp, hp.ops, window.x[0], state, rng)
    other, _, _ = network.recurrent(W, hp, hp.ops, window.x[0][::-1], state, rng)
    assert (out == other).all() and out.all() and new.h[0].all()
    hp = GRU4Rec.published(**STEP, dropout_p_hidden=gone, input=encoding)
    out, new, _ = network.recurrent(W, hp, hp.ops, window.x[0], state, rng)
    assert not out.any() and not new.h[0].any() and not new.h[1].any()


@pytest.mark.parametrize("unit", UNITS)
def test_the_dropped_output_is_carried_on(unit):
    """And an LSTM's memory as it was."""
    hp = GRU4Rec.published(**{**STEP, "layers": [20]}, unit=unit, dropout_p_hidden=0.5)
    W, window, state = one_step(hp)
    rng = np.random.default_rng(0)
    out, new, _ = network.recurrent(W, hp, hp.ops, window.x[0], state, rng)
    assert (out == 0).any() and (new.h[0][:, :20] == out).all()
    _, whole, _ = network.recurrent(W, hp, hp.ops, window.x[0], state)
    assert (new.h[0][:, 20:] == whole.h[0][:, 20:]).all()


def test_training_drops_and_evaluation_does_not():
    hp = GRU4Rec.published(**{**STEP, "dropout_p_embed": 0.5})
    W, window, state = one_step(hp)
    losses = {trained(hp, W, window, state, np.random.default_rng(s))[0] for s in range(5)}
    assert len(losses) == 5
    log = Shop(n_items=30).simulate(100)
    model = GRU4Rec.published(
        layers=[8], dropout_p_embed=0.5, dropout_p_hidden=0.5, n_epochs=1
    ).fit(log)
    assert model.evaluate(log) == model.evaluate(log)


# --- what a step does with its options ------------------------------------------------------------


def test_loss_options_reach_the_loss():
    """smoothing, bpreg, the activation and logQ, against the loss called by hand."""
    for options in ({"smoothing": 0.3}, {"loss": "bpr-max", "bpreg": 0.7, "final_act": "tanh"}):
        hp = GRU4Rec.published(**STEP, **options)
        W, window, state = one_step(hp)
        log_q = np.arange(8.0) / 9 if hp.loss == "cross-entropy" else None
        window.log_q[0] = log_q
        out, _, _ = network.recurrent(W, hp, hp.ops, window.x[0], state)
        items = window.items[0]
        raw = out @ W["V_y"][items].T + W["b_y"][items]
        r = activate(raw, *hp.final_activation) - (0 if log_q is None else log_q)
        lanes, _ = loss_and_gradient(r, hp.loss, bpreg=hp.bpreg, smoothing=hp.smoothing)
        loss, _, _ = network.forward(W, hp, hp.ops, window, state)
        assert abs(loss - lanes.sum() / 3) < 1e-12


SGD = {**STEP, "adapt": "sgd", "learning_rate": 0.5, "feedforward": [4]}


def test_every_weight_that_a_step_uses_is_trained():
    hp = GRU4Rec.published(**SGD)
    W, window, state = one_step(hp)
    _, change = trained(hp, W, window, state)
    assert all(d.any() for d in change.values()), change.keys()


def test_l2_pulls_what_is_used_and_counts_in_the_loss():
    plain, pulled = GRU4Rec.published(**SGD), GRU4Rec.published(**SGD, lmbd=0.1)
    W, window, state = one_step(plain)
    W["b_y"] += 1.0
    loss, change = trained(plain, W, window, state)
    loss_l2, change_l2 = trained(pulled, W, window, state)
    penalty = 0.0
    scored, fed = np.unique(window.items[0]), np.unique(window.x[0])
    for name, p in W.items():
        rows = {"b_y": scored, "V_y": np.union1d(scored, fed)}.get(name, slice(None))
        pull = np.zeros_like(p)
        pull[rows] = -0.5 * 0.1 * p[rows]
        np.testing.assert_allclose(change_l2[name] - change[name], pull, atol=1e-14)
        penalty += 0.05 * (p[rows] ** 2).sum()
    assert abs(loss_l2 - loss - penalty) < 1e-12


@pytest.mark.parametrize("lmbd", [0, 0.1])
def test_grad_cap_scales_all_gradients_together(lmbd):
    free, capped = (
        GRU4Rec.published(**SGD, lmbd=lmbd),
        GRU4Rec.published(**SGD, lmbd=lmbd, grad_cap=0.05),
    )
    W, window, state = one_step(free)
    _, change = trained(free, W, window, state)
    _, change_capped = trained(capped, W, window, state)
    norm = np.sqrt(sum((d**2).sum() for d in change.values())) / 0.5
    assert norm > 0.05
    for name, d in change.items():
        np.testing.assert_allclose(change_capped[name], d * 0.05 / norm, atol=1e-14)


def test_initial_weights_of_deeper_layers():
    hp = GRU4Rec.published(layers=[50, 40], feedforward=[30], input_to_all_layers=True)
    W = network.init_weights(hp, 300, np.random.default_rng(0))
    for name, rows, columns in (("W1", 50, 40), ("U1", 40, 40), ("F0", 40, 30), ("V_y", 300, 30)):
        limit = np.sqrt(6 / (rows + columns))
        assert 0.95 * limit < np.abs(W[name]).max() <= limit, name
        assert abs(W[name].std() / (limit / np.sqrt(3)) - 1) < 0.06, name
    assert not any(W[name].any() for name in ("b0", "b1", "c0", "c1", "f0", "b_y"))
    uniform = network.init_weights(GRU4Rec.published(sigma=0.2), 300, np.random.default_rng(0))
    assert 0.19 < np.abs(uniform["U0"]).max() <= 0.2


def test_window_of():
    """Items, flags and corrections of the steps asked for, by hand."""
    log = Sessions.from_lists([[0, 1, 2], [3, 4], [5, 6, 7]])
    hp = GRU4Rec.published(**{**STEP, "batch_size": 2, "logq": 0.5}, sample_alpha=0.7)
    batches = session_parallel(log, 2, min_lanes=1)
    samples, log_support = np.array([[1, 2], [3, 4], [5, 6]]), np.log(1.0 + np.arange(8))
    window = network.window_of(hp, batches, range(1, 3), samples[1:], log_support)
    assert [x.tolist() for x in window.x] == [[1, 5], [6]]
    assert [r.tolist() for r in window.reset] == [[False, True], [False]]
    assert [k.tolist() for k in window.keep] == [[True, True], [False, True]]
    assert [i.tolist() for i in window.items] == [[2, 6, 3, 4], [7, 5, 6]]
    first = 0.5 * np.array([1, 1, 0.7, 0.7]) * log_support[[2, 6, 3, 4]]
    np.testing.assert_allclose(window.log_q[0], first)
    np.testing.assert_allclose(
        window.log_q[1], 0.5 * np.array([1, 0.7, 0.7]) * log_support[[7, 5, 6]]
    )


# --- what fit hands to the steps ------------------------------------------------------------------


def recorded_fit(log, **settings):
    """Fit with a stepper that trains nothing and writes down its calls; losses count up."""
    model = GRU4Rec.published(**{"layers": [4], "n_epochs": 3, **settings}, backend="numpy")
    calls, rows, chunks, given = [], [], [], []

    def stepper(hp, W, memory, log_support):
        calls.append(log_support)

        class Run:
            draw_negatives = staticmethod(model.ops.draw_negatives)

            def __call__(self, batches, steps, samples, state, rng, rates):
                calls.append((batches, steps, samples.copy()))
                given.append(rates)
                return np.ones(-(-len(steps) // hp.bptt)) * len(calls), state

            def fetch(self):
                pass

        return Run()

    model.ops.stepper = stepper
    model.fit(log, on_chunk=lambda *args: chunks.append(args), on_epoch=rows.append)
    model.rates = given
    return model, calls[0], calls[1:], rows, chunks


@pytest.fixture(scope="module")
def log():
    """Sessions that do not stand in order of time."""
    made = Shop(n_items=40).simulate(300)
    return made.keep_sessions(np.ones(300, bool)).__class__(
        made.items, made.offsets, made.times[::-1].copy(), made.item_ids, made.session_ids
    )


def test_a_chunk_has_more_steps_where_many_are_one_call():
    """And the more the smaller they are."""
    plain = GRU4Rec.published(layers=[1], bptt=5, backend="numpy")
    assert chunk_of(plain, plain.ops) == 65  # whole windows
    own = SimpleNamespace(fuses=backends.can_fuse_steps, chunk_work=plain.ops.chunk_work)
    chunks = [
        chunk_of(GRU4Rec.published(layers=[H], n_sample=2048, backend="numpy"), own)
        for H in (1, 10, 100, 1000)
    ]
    assert chunks[0] == 512 and 64 < chunks[2] < 512 and chunks[3] == 64
    assert chunk_of(GRU4Rec.published(layers=[1], unit="lstm", backend="numpy"), own) == 64


@pytest.mark.parametrize("adapt", OPTIMISERS)
def test_with_all_items_every_row_learns_and_nothing_is_drawn(log, adapt):
    """Also with a single lane; sampling options change nothing."""
    rate = {"adagrad": 0.1, "sgd": 0.1, "rmsprop": 0.01, "adam": 0.01, "adadelta": 3.0}[adapt]
    settings = {
        "layers": [6],
        "input": "embedding",
        "n_sample": "all",
        "adapt": adapt,
        "learning_rate": rate,
    }
    settings |= {"n_epochs": 3, "backend": "numpy", "grad_cap": 5.0}
    one = GRU4Rec(**settings).fit(log)
    two = GRU4Rec(**settings, sample_alpha=0, logq=0).fit(log)
    assert all((p == two.weights[name]).all() for name, p in one.weights.items())
    assert one.history[-1]["loss"] < one.history[0]["loss"]
    fresh = network.init_weights(one.hp, log.n_items, np.random.default_rng(0))
    assert (one.weights["V_y"] != fresh["V_y"]).any(axis=1).all()
    few = log.keep_sessions(np.arange(log.n_sessions) < 8)
    alone = GRU4Rec(**settings | {"batch_size": 1, "n_epochs": 1}).fit(few)
    assert np.isfinite(alone.losses).all()


def test_fit_runs_every_step_of_every_epoch_in_order_of_time(log, monkeypatch):
    monkeypatch.setattr("gru4rec_np.models.training.CHUNK", (64, 64))
    model, log_support, calls, rows, chunks = recorded_fit(log, batch_size=7, n_sample=3, bptt=5)
    train = log.compact()
    np.testing.assert_allclose(log_support, np.log(train.support), rtol=1e-6)
    wanted = session_parallel(train, 7, min_lanes=1)
    epochs = [c for c in calls if c[1].start == 0]
    assert len(epochs) == 3 and len(rows) == 3
    for batches, _, _ in epochs:
        assert (batches.x == wanted.x).all() and (batches.y == wanted.y).all()
    steps = [t for _, steps, _ in calls for t in steps]
    assert steps == 3 * list(range(len(wanted)))
    for _, steps, samples in calls:
        assert steps.start % 5 == 0 and samples.shape == (len(steps), 3)

    # The loss of an epoch is the mean over its events; a step's is the sum over lanes / batch_size.
    total, n, of_events = 0.0, 0, []
    for number, (batches, steps, _) in enumerate(calls[: len(calls) // 3], 2):
        for first in range(steps.start, steps.stop, 5):
            lanes = batches.lanes[first : min(first + 5, steps.stop)].sum()
            total, n = total + number * 7, n + lanes
            of_events.append(number * 7 / lanes)
        assert chunks[number - 2] == (1, n, wanted.lanes.sum(), total / n)
    assert rows[0]["epoch"] == 1 and rows[0]["events"] == wanted.lanes.sum() == n
    assert abs(rows[0]["loss"] - total / n) < 1e-12
    np.testing.assert_allclose(model.losses[: len(of_events)], of_events)
    assert len(model.losses) == 3 * len(of_events) and model.history == rows


@pytest.mark.parametrize("bptt", [1, 5])
def test_decay_is_a_straight_line_from_the_learning_rate_to_0(log, bptt):
    model, *_ = recorded_fit(log, batch_size=7, n_sample=3, bptt=bptt, learning_rate=0.3)
    assert set(model.rates) == {None}
    model, *_ = recorded_fit(
        log, batch_size=7, n_sample=3, bptt=bptt, learning_rate=0.3, decay=True
    )
    n_steps = len(session_parallel(log.compact(), 7, min_lanes=1))
    first_steps = np.arange(0, n_steps, bptt)
    wanted = [0.3 * (1 - (epoch + first_steps / n_steps) / 3) for epoch in range(3)]
    np.testing.assert_allclose(np.concatenate(model.rates), np.concatenate(wanted))
    assert len(model.losses) == len(np.concatenate(model.rates))


@pytest.mark.parametrize("adapt", ["adagrad", "adam"])
def test_decay_reaches_the_optimiser(log, adapt):
    """The optimiser gets the rate of the update."""
    found = []
    for decay in (False, True):
        model = GRU4Rec.published(layers=[4], n_epochs=1, adapt=adapt, decay=decay, backend="numpy")
        update, rates = model.ops.update, []

        def spy(p, g, state, adapt, rate, momentum, *rows, update=update, rates=rates):
            rates.append(rate)
            update(p, g, state, adapt, rate, momentum, *rows)

        model.ops.update = spy
        model.fit(log)
        found.append(rates)
    assert set(found[0]) == {0.1}
    assert found[1][0] == 0.1 and 0 < found[1][-1] < 0.002 and found[1] == sorted(found[1])[::-1]


def test_random_order_is_another_one_in_each_epoch(log):
    _, _, calls, _, _ = recorded_fit(log, train_random_order=True, batch_size=7, n_sample=3)
    by_time = session_parallel(log.compact(), 7, min_lanes=1)
    first = [batches.x for batches, steps, _ in calls if steps.start == 0]
    for a, b in ((first[0], first[1]), (first[1], first[2]), (first[0], by_time.x)):
        assert a.shape != b.shape or not (a == b).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_negatives_follow_sample_alpha_and_are_drawn_anew(log, alpha):
    _, _, calls, _, _ = recorded_fit(log, sample_alpha=alpha, n_sample=500, batch_size=7)
    draws = [samples for _, _, samples in calls]
    assert not (draws[0][:5] == draws[1][:5]).all()
    found = np.bincount(np.concatenate([d.ravel() for d in draws]), minlength=40).astype(float)
    wanted = log.compact().support ** alpha
    assert np.abs(found / found.sum() - wanted / wanted.sum()).max() < 0.004


def test_a_second_fit_starts_afresh(log):
    model = GRU4Rec.published(layers=[4], n_sample=3, n_epochs=1)
    first = model.fit(log).weights["V_y"].copy()
    assert (model.fit(log).weights["V_y"] == first).all() and len(model.history) == 1
