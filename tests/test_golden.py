"""Runs and values recorded from an independent implementation (../shared/golden) against ours."""

import dataclasses
import json

import numpy as np
import pytest

from conftest import shared
from gru4rec_np import GRU4Rec, read_table
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network
from gru4rec_np.ops.losses import LOSSES, loss_and_gradient
from gru4rec_np.ops.optim import init_memory
from gru4rec_np.ops.ranking import metrics
from gru4rec_np.ops.scoring import log_proposal

RUNS = {
    "onehot_ce": {"input": "onehot", "reset_after": False},
    "onehot_bprmax_mom": {"input": "onehot", "reset_after": False},
    "shared_bprmax_samples": {"input": "shared", "reset_after": True},
    "separate_ce_logq_2layers": {"input": "embedding", "reset_after": True},
}


def open_run(name):
    run = np.load(shared(f"golden/{name}.npz"))
    config = json.loads(str(run["config"]))
    config.pop("constrained_embedding")
    if config.get("embedding") == 0:
        del config["embedding"]
    config.setdefault("logq", 0.0)
    return run, GRU4Rec.published(**{**config, **RUNS[name]}, dropout_p_embed=0, backend="numpy")


def weights(run, stage, hp):
    """The recorded weights in our names, layout and sign of the update gate, in float64."""
    W = {}
    if hp.input == "onehot":
        # candidate, reset, update -> reset, update, candidate
        order = np.r_[hp.layers[0] : 3 * hp.layers[0], : hp.layers[0]]
        W["W_x"] = run[f"{stage}/GE.Wx0.weight"][:, order]
        W["U0"] = np.hstack([run[f"{stage}/GE.Wrz0"], run[f"{stage}/GE.Wh0"]])
        W["b0"] = run[f"{stage}/GE.Bh0"][order]
    else:
        if hp.input == "embedding":
            W["E"] = run[f"{stage}/E.weight"]
        for i, H in enumerate(hp.layers):
            # There z weighs the old state: our cell with the sign of its part turned.
            sign = np.repeat([1, -1, 1], H)
            W["W_x" if i == 0 else f"W{i}"] = run[f"{stage}/G.{i}.weight_ih"].T * sign
            W[f"U{i}"] = run[f"{stage}/G.{i}.weight_hh"].T * sign
            W[f"b{i}"] = run[f"{stage}/G.{i}.bias_ih"] * sign
            W[f"c{i}"] = run[f"{stage}/G.{i}.bias_hh"] * sign
    W["V_y"], W["b_y"] = run[f"{stage}/Wy.weight"], run[f"{stage}/By.weight"][:, 0]
    return {name: array.astype(np.float64) for name, array in W.items()}


@pytest.mark.parametrize("name", RUNS)
def test_iterator_gives_the_recorded_order(name):
    run, hp = open_run(name)
    train = read_table(shared("golden/train.tsv"))
    assert (train.item_ids == run["item_ids"]).all()
    batches = session_parallel(train, hp.batch_size, min_lanes=1 if hp.n_sample else 2)
    for epoch in range(int(run["epochs"])):
        first = run["epoch_start"][epoch]
        there = slice(first, first + len(batches))
        assert (batches.x == run["x"][there]).all()
        targets = np.where(batches.y >= 0, batches.y, 0)
        assert (targets == np.where(batches.y >= 0, run["y"][there, : hp.batch_size], 0)).all()
        for t in range(1, len(batches)):
            before, now = batches.lanes[t - 1], batches.lanes[t]
            keep, reset = batches.keep[t, :before], batches.reset[t, :now]
            if reset.any() or not keep.all():
                assert (keep == run["keep"][first + t, :before]).all()
                assert (reset == run["reset"][first + t, :before][keep]).all()
            else:
                assert not run["keep"][first + t].any()
    assert there.stop == len(run["x"])


@pytest.mark.parametrize("name", RUNS)
def test_training_run_replayed(name):
    run, hp = open_run(name)
    W = weights(run, "init", hp)
    memory = {n: init_memory(p, hp.adapt, hp.momentum) for n, p in W.items()}
    train = read_table(shared("golden/train.tsv"))
    log_support = np.log(train.support)
    batches = session_parallel(train, hp.batch_size, min_lanes=1 if hp.n_sample else 2)
    losses = []
    for first in run["epoch_start"]:
        state = network.zero_state(hp, hp.batch_size, np.float64)
        for t in range(len(batches)):
            n = batches.lanes[t]
            items = run["y"][first + t]
            items = items[items >= 0]
            log_q = None
            if hp.logq and hp.loss == "cross-entropy":
                # As recorded: once the batch has shrunk, the first extra samples are corrected
                # as if they stood in the lanes that are gone. We correct them as samples.
                B = hp.batch_size
                log_q = hp.logq * log_proposal(log_support, items[:B], items[B:], hp.sample_alpha)
            window = network.Window(
                [batches.x[t, :n]],
                [batches.reset[t, :n]],
                [batches.keep[t, : batches.lanes[t - 1] if t else hp.batch_size]],
                [items],
                [log_q],
            )
            loss, state = network.train_window(W, memory, hp, hp.ops, window, state, None)
            losses.append(loss)
    recorded = run["loss"]
    assert np.abs(np.array(losses) / recorded - 1)[:20].max() < 1e-5
    assert np.abs(np.array(losses) / recorded - 1).max() < 5e-4
    final = weights(run, "final", hp)
    for weight in W:
        assert np.abs(W[weight] - final[weight]).max() < 1e-3, weight

    hp.weights, hp.item_ids = W, train.item_ids
    test = read_table(shared("golden/test.tsv")).restrict(train.item_ids)
    ranks, _ = hp.ranks(test)
    if hp.n_sample == 0:
        ranks = ranks[np.isin(test.cases, recorded_cases(test))]
    found = metrics(ranks, run["cutoff"].tolist())
    for k, recall, mrr in zip(run["cutoff"], run["recall"], run["mrr"], strict=True):
        assert abs(found[f"recall@{k}"] - recall) < 1e-6
        assert abs(found[f"mrr@{k}"] - mrr) < 1e-6


def recorded_cases(test):
    """The cases asked in the runs without samples: there the last lane alone asks no more."""
    events = dataclasses.replace(
        test, items=np.arange(test.n_events), item_ids=np.arange(test.n_events)
    )
    asked = session_parallel(events, 100, min_lanes=2).x
    return asked[asked >= 0]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients(loss):
    golden = np.load(shared("golden/losses.npz"))
    cases = [name.removesuffix("/scores") for name in golden.files if name.endswith("/scores")]
    assert cases
    for case in cases:
        lanes, dr = loss_and_gradient(golden[f"{case}/scores"], loss, bpreg=1.0)
        wanted = golden[f"{case}/{loss}/dscores"]
        assert abs(lanes.sum() / golden[f"{case}/{loss}/loss"] - 1) < 1e-12
        assert np.abs(dr - wanted).max() < 1e-12 * max(1, np.abs(wanted).max())
