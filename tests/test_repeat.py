"""`repeat`: what training learns of repeated clicks, and the scores of the session's own items."""

import copy
import math

import numpy as np
import pytest
from test_kernels import BACKENDS, ops_of

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop
from gru4rec_np.data.sessions import CLICKS, own_items
from gru4rec_np.models import checkpoint, gru4rec
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.models.training import Stopped

LOG = Shop(n_items=60, repeat=0.4).simulate(150)
SMALL = {"layers": [8], "n_sample": 32, "batch_size": 16, "n_epochs": 1, "backend": "numpy"}
ONCE = Sessions.from_lists([["a", "b", "c"], ["c", "d"]] * 5)


@pytest.fixture(scope="module")
def model():
    return GRU4Rec(**SMALL, repeat=0.5).fit(LOG)


def with_repeat(model, value):
    return copy.copy(model).set_params(repeat=value)


def test_the_items_of_a_session():
    log = Sessions.from_lists([["a", "b", "a", "c"], ["b", "b"]])
    row, item = own_items(log, np.array([2, 0, 3, 5]))
    found = [{log.item_ids[i] for i in item[row == r]} for r in range(4)]
    assert found == [{"a", "b"}, {"a"}, {"a", "b", "c"}, {"b"}] and len(row) == 7


def test_what_training_learns(model, monkeypatch):
    """Counted and summed one case after the other."""
    offered, followed = np.zeros(2), np.zeros(2)  # of the last click's item, and of the others
    for s in range(LOG.n_sessions):
        clicks = LOG.session(s).tolist()
        for n in range(1, len(clicks)):
            for item in set(clicks[:n][-CLICKS:]):
                kind = 0 if item == clicks[n - 1] else 1
                offered[kind] += 1
                followed[kind] += item == clicks[n]
    assert (0 < followed).all() and (followed < offered).all()
    plain, log_totals = with_repeat(model, 0), []
    for s in range(LOG.n_sessions):
        live = plain.session()
        for item in LOG.session(s).tolist()[: gru4rec.SUMMED_CLICKS][:-1]:
            live.feed(item)
            log_totals.append(np.log(np.exp(live.scores().astype(float)).sum()))
    log_total = np.mean(log_totals[-gru4rec.SUMMED_CASES :])
    wanted = log_total + np.log(followed / offered)
    np.testing.assert_allclose(model.repeat_scores, wanted, atol=1e-5)
    # Of the last cases only.
    monkeypatch.setattr(gru4rec, "REPEAT_CASES", 5)
    monkeypatch.setattr(gru4rec, "SUMMED_CASES", 2)
    assert (GRU4Rec(**SMALL).fit(LOG).repeat_scores != model.repeat_scores).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("candidates", [None, "half"])
def test_ranks_recommendations_and_many_agree(model, tmp_path, backend, candidates):
    """Also in a session that is longer than the clicks that count."""
    ops_of(backend)
    model.save(tmp_path / "model.npz")
    model = GRU4Rec.load(tmp_path / "model.npz", backend)
    rng = np.random.default_rng(0)
    lists = [LOG.session(s).tolist() for s in range(4)]
    lists.append(rng.choice(LOG.item_ids, 2 * CLICKS).tolist())
    some = None if candidates is None else model.item_ids[::2].tolist()
    test = Sessions.from_lists(lists)
    ranks, before = model.ranks(test, candidates=some)
    at = 0
    for clicks in lists:
        for n in range(1, len(clicks)):
            if n < 4 or n % 15 == 0:  # the emulator is slow
                best = model.recommend(clicks[:n], 1000, candidates=some)
                order = [item for item, _ in best]
                wanted = order.index(clicks[n]) + 1 if clicks[n] in order else np.inf
                assert ranks[at] == wanted and before[at] == n
            at += 1
    items, scores = model.recommend_many(test, 5, candidates=some)
    for clicks, places, of in zip(lists, items, scores, strict=True):
        best = model.recommend(clicks, 5, candidates=some)
        assert model.item_ids[places].tolist() == [item for item, _ in best]
        np.testing.assert_allclose(of, [score for _, score in best], rtol=1e-5, atol=1e-5)


def test_the_floors(model):
    """The session's items alone have other scores: higher ones, by the formula."""
    clicks = LOG.session(3).tolist()
    assert len(set(clicks)) > 2
    lifted, raw = (dict(with_repeat(model, r).recommend(clicks, 1000)) for r in (0.5, 0))
    for item, score in raw.items():
        base = model.repeat_scores[0 if item == clicks[-1] else 1]
        wanted = np.logaddexp(score, math.log(0.5) + base) if item in clicks else score
        assert lifted[item] == pytest.approx(wanted, abs=1e-6)
    without = [with_repeat(model, r).recommend(clicks, 5, exclude="seen") for r in (0.5, 0)]
    assert without[0] == without[1]


def test_where_nothing_is_learnt():
    for log, more in ((ONCE, {}), (LOG, {"loss": "bpr-max"})):
        model = GRU4Rec(**SMALL, **more).fit(log)
        assert model.repeat_scores is None and model._floors is None
    model = GRU4Rec(**SMALL).fit(LOG)
    assert model._floors is not None and model.fit(ONCE).repeat_scores is None


def test_merged_repeats():
    """Where the last click's item never follows, it is not lifted, but earlier items are."""
    model = GRU4Rec(**SMALL).fit([["a", "b", "a", "c"], ["b", "c", "b"], ["c", "a"]] * 5)
    assert model.repeat_scores[0] == gru4rec.NEVER < model.repeat_scores[1]
    found, raw = (dict(with_repeat(model, r).recommend(["a", "b"], 9)) for r in (0.5, 0))
    assert found["b"] == raw["b"] and found["c"] == raw["c"] and found["a"] > raw["a"]


def test_going_on_learns_anew_from_many_sessions(monkeypatch):
    more = GRU4Rec(**SMALL).fit(LOG)
    before = more.repeat_scores
    more.fit_more(ONCE)
    assert (more.repeat_scores == before).all()
    monkeypatch.setattr(gru4rec, "FEW_ITEMS", 10)
    more.fit_more(LOG)
    assert (more.repeat_scores != before).all()


def test_a_stopped_training_has_learnt_too():
    def stop(row):
        raise Stopped

    model = GRU4Rec(**SMALL | {"n_epochs": 3})
    with pytest.raises(Stopped):
        model.fit(LOG, on_epoch=stop)
    assert model.repeat_scores is not None


def test_a_hybrid_has_shares_instead(model, tmp_path):
    hybrid = Hybrid(**SMALL).fit(LOG)
    assert hybrid.network._floors is None and hybrid.shares[3:].sum() > 0
    hybrid.network = model
    hybrid.join(LOG)
    assert hybrid.network._floors is None and model._floors is not None  # the model is unchanged
    hybrid.save(tmp_path / "hybrid.npz")
    assert Hybrid.load(tmp_path / "hybrid.npz").network._floors is None
    hybrid.fit_more(LOG)
    assert hybrid.network._floors is None


def test_model_files(model, tmp_path):
    path = tmp_path / "model.npz"
    model.save(path)
    clicks = LOG.session(3).tolist()
    assert (GRU4Rec.load(path).repeat_scores == model.repeat_scores).all()
    about, arrays = checkpoint.load(path)
    without = {name: array for name, array in arrays.items() if name != "repeat_scores"}
    checkpoint.save(path, about, without)
    plain = GRU4Rec.load(path, "numpy")  # as files of earlier versions
    assert plain.repeat_scores is None and plain.recommend(clicks) != model.recommend(clicks)
    for damaged in (np.zeros(3), np.ones(2, np.int64)):
        checkpoint.save(path, about, arrays | {"repeat_scores": damaged})
        with pytest.raises(InputError, match="does not fit together: repeat_scores is"):
            GRU4Rec.load(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_in_float64(model, tmp_path, backend):
    """A model file may have them; states follow."""
    ops_of(backend)
    about, arrays = (model.save(tmp_path / "m.npz"), *checkpoint.load(tmp_path / "m.npz"))[1:]
    wide = {n: a.astype(float) if a.dtype == np.float32 else a for n, a in arrays.items()}
    checkpoint.save(tmp_path / "wide.npz", about, wide)
    few = LOG[:6]
    ranks = GRU4Rec.load(tmp_path / "wide.npz", backend).ranks(few)[0]
    assert (ranks == GRU4Rec.load(tmp_path / "wide.npz", "numpy").ranks(few)[0]).all()
    assert np.mean(ranks == model.ranks(few)[0]) > 0.9
