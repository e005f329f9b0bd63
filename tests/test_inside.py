"""What is shown of a model's inside is what it computes."""

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, Shop
from gru4rec_np.models import NARM, Oracle
from gru4rec_np.models.baselines import POP
from gru4rec_np.models.inside import inside, intents, plane

SHOP = Shop(n_items=60)
SMALL = {"n_sample": 16, "batch_size": 32, "n_epochs": 1, "backend": "numpy"}
KINDS = {
    "gru": {"layers": [12]},
    "reset before": {"layers": [8], "reset_after": False},
    "deep": {"layers": [10, 6], "feedforward": [5]},
    "lstm": {"layers": [7], "unit": "lstm", "input": "weighted"},
    "rnn": {"layers": [7], "unit": "rnn"},
    "one unit": {"layers": [1]},
}
GATES = {"lstm": {"input", "forget", "output"}, "rnn": set()}


@pytest.fixture(scope="module")
def log():
    return SHOP.simulate(300)


@pytest.fixture(scope="module", params=KINDS)
def model(request, log):
    return GRU4Rec.published(**SMALL, **KINDS[request.param]).fit(log)


def test_the_states_are_those_of_a_served_session(model):
    items = np.array([3, 1, 1, 20], np.int32)
    seen, live = inside(model, items), model.session()
    H = model.layers[-1]
    assert seen.states.shape == (len(items) + 1, H) and not seen.states[0].any()
    for t, item in enumerate(items, 1):
        live.feed_index(int(item))
        assert np.allclose(seen.states[t], live._state.h[len(model.layers) - 1][0, :H], atol=1e-6)
    assert seen.attention is None


def test_each_layer_has_its_gates(model):
    items = np.array([3, 1, 1, 20], np.int32)
    layers = inside(model, items).layers
    assert len(layers) == len(model.layers)
    for layer, width in zip(layers, model.layers, strict=True):
        assert set(layer) == GATES.get(model.unit, {"update", "reset"})
        for values in layer.values():
            assert values.shape == (len(items), width)
            assert (values > 0).all() and (values < 1).all()


def test_the_update_gate_is_the_weight_of_the_new_state(log):
    """h' lies between h and the candidate n: with z = 1 it is n, and |n| <= 1."""
    model = GRU4Rec.published(**SMALL, layers=[6]).fit(log)
    seen = inside(model, np.arange(8, dtype=np.int32))
    z = seen.layers[0]["update"]
    n = (seen.states[1:] - (1 - z) * seen.states[:-1]) / z
    assert (np.abs(n) <= 1 + 1e-5).all()
    r = seen.layers[0]["reset"]
    swapped = (seen.states[1:] - (1 - r) * seen.states[:-1]) / r
    assert not np.allclose(n, swapped)


def test_the_plane_holds_what_varies_most(model):
    found = plane(model)
    m, H = len(model.item_ids), model.layers[-1]
    assert found.points.shape == (m, 2) and found.axes.shape == (H, 2)
    assert len(found.orders) == len(model.layers)
    for order, width in zip(found.orders, model.layers, strict=True):
        assert sorted(order) == list(range(width))
    first = np.concatenate([inside(model, np.array([i], np.int32)).states[1:] for i in range(m)])
    assert np.allclose(found.at(first), found.points, atol=1e-5)
    spread = first.var(axis=0).sum()
    assert np.allclose(found.points.var(axis=0), found.share * spread, atol=1e-5)
    assert found.share[0] >= found.share[1] >= 0 and found.share.sum() <= 1 + 1e-5


def test_the_attention_is_narms(log):
    model = NARM(n_epochs=1, embedding=8, hidden=6, backend="numpy").fit(log)
    items = np.array([3, 1, 1, 20], np.int32)
    seen, names = inside(model, items), model.item_ids[items].tolist()
    for t in range(1, len(items) + 1):
        assert np.allclose(seen.attention[t - 1, :t], model.attention(names[:t]), atol=1e-6)
        assert not seen.attention[t - 1, t:].any()
    assert seen.states.shape == (5, 6) and seen.layers[0]["reset"].shape == (4, 6)
    assert plane(model).points.shape == (len(model.item_ids), 2)


def test_a_model_without_a_network_has_no_inside(log):
    model = POP().fit(log)
    assert inside(model, np.array([0], np.int32)) is None and plane(model) is None


def test_the_belief_is_the_oracles(log):
    """Weighted by the probability of each intent, the intents' next items are the oracle's."""
    oracle = Oracle(SHOP).fit(log)
    items = np.array([oracle._index[name] for name in log.session(5)], np.int32)
    order = np.argsort(-oracle._scores_after(items))
    rows = intents(oracle, items, order[:10])
    assert len(rows) == 5 and rows[-1]["ladder"] is None
    assert sum(row["belief"] for row in rows) == pytest.approx(1)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    names = {row["ladder"] for row in rows[:-1]}
    assert names == set(str(oracle.item_ids[items[-1]]).split(".")[:2])


def test_a_walk_along_a_ladder_is_recognised():
    """Twice three rungs dearer on one ladder: that intent becomes the most probable by far."""
    oracle = Oracle(SHOP).fit(SHOP.simulate(2000))
    place = {int(shop): i for i, shop in enumerate(oracle._shop_item)}
    walk = [0]
    for _ in range(3):
        walk.append(int(SHOP.goes_to[0, 0, walk[-1], 2]))
    items = np.array([place[i] for i in walk], np.int32)
    rows = intents(oracle, items, items[:1])
    best = max(rows, key=lambda row: row["belief"])
    assert (best["ladder"], best["direction"]) == (SHOP.item_ids[0].split(".")[0], "dearer")
    assert best["belief"] > 0.8
