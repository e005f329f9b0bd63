"""tutorials/gru4rec_on_one_page.py computes what the package does."""

import gru4rec_on_one_page as page
import matplotlib.pyplot as plt
import numpy as np
import one_step
import pytest

import run
from gru4rec_np import GRU4Rec, Shop
from gru4rec_np.backends import Ops
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.optim import init_memory

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
    hp = GRU4Rec.published(
        input="shared", reset_after=False, layers=[6], batch_size=page.B, n_sample=20, logq=1,
        loss="cross-entropy", sample_alpha=page.ALPHA, learning_rate=page.LEARNING_RATE,
        dropout_p_embed=0, dropout_p_hidden=0, bptt=1, momentum=0, backend="numpy",
    ).hp  # fmt: skip
    rng = np.random.default_rng(0)
    w = page.init(LOG.n_items, 6, rng)
    a = {name: np.zeros_like(p) for name, p in w.items()}
    names = {"V_y": "V", "b_y": "b_y", "W_x": "W", "U0": "U", "b0": "b"}
    W = {ours: w[theirs].copy() for ours, theirs in names.items()}
    memory = {name: init_memory(p, "adagrad", 0) for name, p in W.items()}
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
    model = GRU4Rec.published(
        input="shared", reset_after=False, layers=[6], n_epochs=1, n_sample=20, backend="numpy"
    ).fit(LOG, verbose=False)
    W = {name: p.astype(np.float64) for name, p in model.weights.items()}
    w = {"V": W["V_y"], "b_y": W["b_y"], "W": W["W_x"], "U": W["U0"], "b": W["b0"]}
    found = model.evaluate(LOG, 20)
    recall, mrr = page.evaluate(w, page.lists(LOG))
    np.testing.assert_allclose([recall, mrr], [*found.values()], atol=2e-3)
    assert recall > 0.1


# --- the picture of a step ------------------------------------------------------------------------


def test_the_pictures_numbers_are_those_of_the_page():
    shop, rng = Shop(), np.random.default_rng(0)
    sessions = page.lists(shop.simulate(2_000))
    support = np.bincount(np.concatenate(sessions), minlength=shop.n_items)
    q = support**page.ALPHA / (support**page.ALPHA).sum()
    log_support = np.log(np.maximum(support, 1))
    w = page.init(shop.n_items, page.H, rng)
    a = {name: np.zeros_like(p) for name, p in w.items()}
    h = np.zeros((page.B, page.H))
    for t, (x, y, keep, new) in enumerate(page.steps(sessions, page.B)):
        h = np.where(new[:, None], 0, h[keep])
        samples = rng.choice(shop.n_items, page.S, p=q)
        if t == 200:
            break
        _, h = page.train_step(w, a, x, y, samples, h, log_support)
    items = np.concatenate([y, samples])
    log_q = np.concatenate([log_support[y], page.ALPHA * log_support[samples]])
    h_new, (_, _, r, z, n) = page.gru(w, x, h)
    _, ds = page.cross_entropy(w, h_new, items, log_q)
    s = h_new[1] @ w["V"][y[1]] + w["b_y"][y[1]] - log_q[1]
    found = {
        "x": x[1], "y": y[1], "h": h[1, 0], "r": r[1, 0], "z": z[1, 0], "n": n[1, 0],
        "h_new": h_new[1, 0], "s": s, "p": ds[1, 1] + 1,
    }  # fmt: skip
    assert found == pytest.approx(one_step.CLICK, abs=0.005)
    assert f"{shop.item_ids[x[1]]}".rpartition(".")[0] in one_step.ABOUT
    assert f"{shop.item_ids[y[1]]}".rpartition(".")[0] in one_step.ABOUT
    assert f"B = {page.B} lanes, H = {page.H} units, S = {page.S}" in one_step.ABOUT


@pytest.mark.parametrize("number", run.notebooks())
def test_every_notebook_shows_its_part_of_the_step(number, capsys, monkeypatch):
    assert f"one_step.show({number})" in run.notebooks()[number].read_text(encoding="utf-8")
    monkeypatch.setattr(plt, "show", plt.close)
    one_step.show(number)
    text = one_step.PAGE.read_text(encoding="utf-8").splitlines()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == (number not in (0, 9)) or number in (3, 7)
    for (title, first, last), line in zip(one_step.lines_of(number), printed, strict=True):
        assert (
            text[first - 1].startswith(f"# --- {title} (notebook") and f"{first} to {last}" in line
        )
