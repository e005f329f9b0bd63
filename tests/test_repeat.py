"""`repeat`: what training learns of repeated clicks, and the scores of the session's own items."""

import math

import numpy as np
import pytest
from test_kernels import BACKENDS, ops_of

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop
from gru4rec_np.data.sessions import CLICKS, own_items
from gru4rec_np.models import checkpoint
from gru4rec_np.models.hybrid import Hybrid

LOG = Shop(n_items=60, repeat=0.4).simulate(150)
SMALL = {"layers": [8], "n_sample": 32, "batch_size": 16, "n_epochs": 1, "backend": "numpy"}


@pytest.fixture(scope="module")
def model():
    return GRU4Rec(**SMALL, repeat=0.5).fit(LOG)


def test_the_items_of_a_session():
    log = Sessions.from_lists([["a", "b", "a", "c"], ["b", "b"]])
    row, item = own_items(log, np.array([2, 0, 3, 5]))
    found = [{log.item_ids[i] for i in item[row == r]} for r in range(4)]
    assert found == [{"a", "b"}, {"a"}, {"a", "b", "c"}, {"b"}] and len(row) == 7


def test_what_training_learns(model):
    """Counted and summed one case after the other."""
    offered = followed = 0
    for s in range(LOG.n_sessions):
        clicks = LOG.session(s).tolist()
        for n in range(1, len(clicks)):
            offered += len(set(clicks[:n][-CLICKS:]))
            followed += clicks[n] in clicks[:n][-CLICKS:]
    assert 0 < followed < offered
    log_totals = []
    plain = GRU4Rec(**model.get_params()).set_params(repeat=0)
    plain.weights = model.weights
    plain._set_catalogue(model.item_ids)
    for s in range(LOG.n_sessions):
        live = plain.session()
        for item in LOG.session(s).tolist()[:-1]:
            live.feed(item)
            log_totals.append(np.log(np.exp(live.scores().astype(float)).sum()))
    wanted = np.mean(log_totals[-128:]) + math.log(followed / offered)
    assert model.log_base == pytest.approx(wanted, abs=1e-5)


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


def test_the_floor(model):
    """The session's items alone have other scores: higher ones, by the formula."""
    plain, base = GRU4Rec(**model.get_params()).set_params(repeat=0), model.log_base
    plain.weights, plain.log_base = model.weights, base
    plain._set_catalogue(model.item_ids)
    clicks = LOG.session(3).tolist()
    lifted, raw = (dict(m.recommend(clicks, 1000)) for m in (model, plain))
    for item, score in raw.items():
        wanted = np.logaddexp(score, math.log(0.5) + base) if item in clicks else score
        assert lifted[item] == pytest.approx(wanted, abs=1e-6)
    assert model.recommend(clicks, 5, exclude="seen") == plain.recommend(clicks, 5, exclude="seen")


def test_where_nothing_is_learnt():
    once = Sessions.from_lists([["a", "b", "c"], ["c", "d"]] * 5)
    for log, more in ((once, {}), (LOG, {"repeat": 0}), (LOG, {"loss": "bpr-max"})):
        model = GRU4Rec(**SMALL, **more).fit(log)
        assert model.log_base is None and model._floor is None
    model = GRU4Rec(**SMALL).fit(LOG)
    assert model.log_base is not None and model.fit(once).log_base is None


def test_going_on_learns_anew(model):
    more = GRU4Rec(**SMALL).fit(LOG)
    before = more.log_base
    more.fit_more(Shop(n_items=60, repeat=0.0, seed=1).simulate(150))
    assert more.log_base is not None and more.log_base != before


def test_a_hybrid_has_shares_instead():
    model = Hybrid(**SMALL).fit(LOG)
    assert model.network.log_base is None and model.shares[3:].sum() > 0


def test_model_files(model, tmp_path):
    path = tmp_path / "model.npz"
    model.save(path)
    clicks = LOG.session(3).tolist()
    assert GRU4Rec.load(path).log_base == model.log_base
    about, arrays = checkpoint.load(path)
    without = {name: array for name, array in arrays.items() if name != "log_base"}
    checkpoint.save(path, about, without)
    plain = GRU4Rec.load(path, "numpy")  # as files of earlier versions
    assert plain.log_base is None and plain.recommend(clicks) != model.recommend(clicks)
    for damaged in (np.zeros(2), np.array(1, np.int64)):
        checkpoint.save(path, about, arrays | {"log_base": damaged})
        with pytest.raises(InputError, match="does not fit together: log_base is"):
            GRU4Rec.load(path)
