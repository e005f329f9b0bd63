"""tutorials/gru4rec_on_one_page.py computes what the package does."""

import gru4rec_on_one_page as page
import numpy as np

from gru4rec_np import GRU4Rec, Shop
from gru4rec_np.backends import Ops
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.optim import init_state

LOG = Shop(n_items=50).simulate(150).compact()


def test_the_steps_are_the_packages_batches():
    batches = session_parallel(LOG, page.B, min_lanes=1)
    n_steps, before = 0, batches.x.shape[1]
    for t, (x, y, keep, new) in enumerate(page.steps(page.lists(LOG), page.B)):
        n = batches.lanes[t]
        assert (x == batches.x[t, :n]).all() and (y == batches.y[t, :n]).all()
        assert (keep == batches.keep[t, :before]).all() and (new == batches.reset[t, :n]).all()
        n_steps, before = t + 1, n
    assert n_steps == len(batches)


def test_the_weights_after_an_epoch_are_the_packages():
    """In float64, from the same weights and the same samples."""
    hp = GRU4Rec(
        input="shared", reset_after=False, layers=[6], batch_size=page.B, n_sample=20, logq=1,
        loss="cross-entropy", sample_alpha=page.ALPHA, learning_rate=page.LEARNING_RATE,
        dropout_p_embed=0, dropout_p_hidden=0, bptt=1, momentum=0, backend="numpy",
    ).hp  # fmt: skip
    rng = np.random.default_rng(0)
    w = page.init(LOG.n_items, 6, rng)
    a = {name: np.zeros_like(p) for name, p in w.items()}
    names = {"V_y": "V", "b_y": "b_y", "W_x": "W", "U0": "U", "b0": "b"}
    W = {ours: w[theirs].copy() for ours, theirs in names.items()}
    memory = {name: init_state(p, "adagrad", 0) for name, p in W.items()}
    log_support = np.log(LOG.support)
    batches = session_parallel(LOG, page.B, min_lanes=1)
    samples = rng.integers(0, LOG.n_items, (len(batches), 20))
    state = State([np.zeros((page.B, 6))], np.empty((page.B, 0), np.int32))
    losses, _ = network.StepByStep(hp, W, memory, Ops("test"), log_support)(
        batches, range(len(batches)), samples, state, rng
    )
    h = np.zeros((page.B, 6))
    for t, (x, y, keep, new) in enumerate(page.steps(page.lists(LOG), page.B)):
        h = np.where(new[:, None], 0, h[keep])
        loss, h = page.train_step(w, a, x, y, samples[t], h, log_support)
        np.testing.assert_allclose(loss / page.B, losses[t], rtol=1e-12)
    for ours, theirs in names.items():
        np.testing.assert_allclose(w[theirs], W[ours], rtol=1e-10, atol=1e-12)


def test_it_ranks_as_the_package_does():
    model = GRU4Rec(
        input="shared", reset_after=False, layers=[6], n_epochs=1, n_sample=20, backend="numpy"
    ).fit(LOG, verbose=False)
    W = {name: p.astype(np.float64) for name, p in model.weights.items()}
    w = {"V": W["V_y"], "b_y": W["b_y"], "W": W["W_x"], "U": W["U0"], "b": W["b0"]}
    found = model.evaluate(LOG, 20)
    recall, mrr = page.evaluate(w, page.lists(LOG))
    np.testing.assert_allclose([recall, mrr], [*found.values()], atol=2e-3)
    assert recall > 0.1
