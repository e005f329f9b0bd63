"""The mixture of GRU4Rec with simple methods: its shares, its scores, its training."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_commands import command, refuses

from conftest import examples
from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, models, split
from gru4rec_np.data.sessions import CLICKS
from gru4rec_np.data.tables import read_table, write_table
from gru4rec_np.models.hybrid import HELD_OUT, LEAST, Hybrid, mixture_shares
from gru4rec_np.models.neighbours import VSKNN

LOG = Shop(n_items=80, repeat=0.3).simulate(400)
TRAIN, TEST = split(LOG, share=0.2)
SMALL = {"layers": [6], "n_sample": 16, "n_epochs": 2, "backend": "numpy"}


@pytest.fixture(scope="module")
def hybrid():
    return Hybrid(**SMALL).fit(TRAIN)


# --- shares ---------------------------------------------------------------------------------------

cases = st.integers(1, 40).flatmap(
    lambda n: st.integers(1, 5).flatmap(
        lambda k: arrays(np.float32, (n, k), elements=st.floats(2**-20, 1, width=32))
    )
)


def log_likelihood(shares, p):
    return np.log(p.astype(float) @ shares).mean()


@given(cases, st.integers(0, 2**31))
def test_no_other_shares_make_the_cases_more_probable(p, seed):
    shares = mixture_shares(p)
    assert shares.min() >= 0 and shares.sum() == pytest.approx(1)
    assert not ((0 < shares) & (shares < LEAST)).any()
    rng = np.random.default_rng(seed)
    others = [*np.eye(p.shape[1]), *rng.dirichlet(np.ones(p.shape[1]), 20)]
    # Shares below LEAST are rounded to 0, and EM stops near the maximum.
    best = log_likelihood(shares, p) + 2 * LEAST * p.shape[1]
    assert all(log_likelihood(other, p) <= best for other in others)


@examples(20)
@given(st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_the_shares_of_a_mixture_are_found_again(seed, share):
    """Draws from a mixture of two known distributions over 30 items."""
    rng = np.random.default_rng(seed)
    parts = rng.dirichlet(np.full(30, 0.1), 2)
    drawn = np.where(rng.random(20_000) < share, *(rng.choice(30, 20_000, p=p) for p in parts))
    assert mixture_shares(parts.T[drawn])[0] == pytest.approx(share, abs=0.03)


def test_a_part_that_is_always_wrong_gets_nothing():
    p = np.array([[0.5, 0.0], [0.1, 0.0], [0.0, 0.0]])
    assert mixture_shares(p).tolist() == [1, 0]


# --- scores ---------------------------------------------------------------------------------------


def by_hand(hybrid, session):
    """The mixture after a session, from the definition in `Hybrid`, a part after the other."""
    known = [i for i in session if i in hybrid.item_ids.tolist()]
    index = {item: i for i, item in enumerate(hybrid.item_ids.tolist())}
    live = hybrid.network.session()
    for item in known:
        live.feed(item)
    e = np.exp(live.scores().astype(float))
    parts = [e / e.sum()]
    for method in hybrid.methods:
        votes = dict(method.recommend(known, len(index)))
        v = np.array([votes[item] for item in index], float)
        parts.append(v / v.sum() if v.any() else v)
    for weight in (lambda n: 1.0, lambda n: 1 / n):
        own = np.zeros(len(index))
        for n, item in enumerate(known[::-1][:CLICKS], 1):
            own[index[item]] += weight(n)
        parts.append(own / own.sum())
    return hybrid.shares @ parts


@pytest.mark.parametrize("length", [1, 2, 7, 60])  # 60 are more clicks than some parts look at
def test_a_live_session_is_a_recommendation(hybrid, length):
    session = np.random.default_rng(length).choice(hybrid.item_ids, length).tolist()
    live = hybrid.session()
    for item in [*session[:1], "nobody", *session[1:]]:
        live.feed(item)
    assert live.recommend(9, "seen") == hybrid.recommend(session, 9, "seen")
    assert live.recommend(3) == hybrid.recommend(session, 3)


def test_a_live_session_of_no_click_is_refused(hybrid):
    with pytest.raises(InputError, match="feed it an item"):
        hybrid.session().recommend()


@pytest.mark.parametrize("length", [1, 2, 3, 7, 60])
def test_a_score_is_the_mixtures_probability(hybrid, length):
    rng = np.random.default_rng(length)
    session = rng.choice(hybrid.item_ids, length).tolist()
    for shares in (hybrid.shares, np.array([0.4, 0.1, 0.2, 0.1, 0.2]), np.eye(5)[3]):
        model = Hybrid(**SMALL)
        model.__dict__.update(vars(hybrid) | {"shares": shares})
        wanted = by_hand(model, session)
        scores = dict(model.recommend(session, len(model.item_ids)))
        found = [scores[item] for item in model.item_ids.tolist()]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
        assert sum(found) == pytest.approx(wanted.sum(), abs=1e-5)


@pytest.mark.parametrize("candidates", [None, LOG.item_ids[::3].tolist()], ids=["all", "some"])
def test_ranks_are_those_of_the_scores(hybrid, candidates):
    ranks, before = hybrid.ranks(TEST, candidates=candidates)
    sessions = [TEST.session(s).tolist() for s in range(TEST.n_sessions)]
    cases = [(session[:n], session[n]) for session in sessions for n in range(1, len(session))]
    for rank, clicks, (session, target) in zip(ranks, before, cases, strict=True):
        assert clicks == len(session)
        scores = dict(hybrid.recommend(session, len(hybrid.item_ids), candidates=candidates))
        least = scores.get(target, -np.inf)
        counted = sum(score >= least for score in scores.values())
        assert rank == (counted if target in scores else np.inf)


def test_a_method_without_a_share_is_not_asked(hybrid, monkeypatch):
    model = Hybrid(**SMALL)
    model.__dict__.update(vars(hybrid) | {"shares": np.array([1.0, 0, 0, 0, 0])})
    for method in model.methods:
        monkeypatch.setattr(type(method), "scores", None)
    session = TEST.session(0).tolist()[:3]
    mixed = [item for item, _ in model.recommend(session)]
    assert mixed == [item for item, _ in model.network.recommend(session)]
    assert model.evaluate(TEST) == model.network.evaluate(TEST)


# --- training -------------------------------------------------------------------------------------


def test_shares_are_learnt_without_the_last_tenth_and_parts_with_it(hybrid):
    alone = GRU4Rec(**SMALL).fit(TRAIN)
    np.testing.assert_array_equal(hybrid.network.weights["V_y"], alone.weights["V_y"])
    earlier, held_out = split(TRAIN, share=HELD_OUT)
    given = Hybrid(**SMALL).fit(earlier, validation=held_out)
    # With validation the network keeps its best epoch, which may be an earlier one.
    if given.network.evaluate(held_out) == GRU4Rec(**SMALL).fit(earlier).evaluate(held_out):
        np.testing.assert_array_equal(hybrid.shares, given.shares)
    assert (hybrid.shares > 0).sum() >= 3


def test_a_mixture_is_better_than_its_network(hybrid):
    mixed, alone = hybrid.evaluate(TEST), hybrid.network.evaluate(TEST)
    assert mixed["recall@20"] > alone["recall@20"] and mixed["mrr@20"] > alone["mrr@20"]


def test_what_is_not_repeated_gets_no_share_of_repeats():
    rng = np.random.default_rng(0)
    lists = [rng.permutation(40)[:4].tolist() for _ in range(600)]
    shares = dict(zip(Hybrid.PARTS, Hybrid(**SMALL).fit(lists_of(lists)).shares, strict=True))
    assert shares["repeats"] == shares["recent repeats"] == 0


def lists_of(lists):
    log = Sessions.from_lists(lists)
    log.times[:] = np.arange(log.n_events)
    return log


def test_a_second_fit_forgets_the_first(hybrid):
    model = Hybrid(**SMALL).fit(TEST)
    model.fit(TRAIN)
    np.testing.assert_array_equal(model.shares, hybrid.shares)
    assert model.evaluate(TEST) == hybrid.evaluate(TEST)


def test_going_on_keeps_the_shares(hybrid):
    model = Hybrid(**SMALL).fit(TRAIN)
    model.fit_more(TEST)
    np.testing.assert_array_equal(model.shares, hybrid.shares)
    assert model.evaluate(TEST)["recall@20"] > hybrid.evaluate(TEST)["recall@20"]


A, B, C = LOG.item_ids[:3]
NEW = Sessions.from_lists([[A, B, "new"], ["new", C], [C, "newer", B]] * 4)


def test_an_interrupted_going_on_changes_nothing(hybrid, tmp_path):
    mixture = copy.copy(hybrid)
    before = mixture.recommend(TEST.session(0), 20)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixture.fit_more(NEW, on_chunk=stop)
    assert mixture.recommend(TEST.session(0), 20) == before
    mixture.save(tmp_path / "m.npz")
    assert Hybrid.load(tmp_path / "m.npz", "numpy").recommend(TEST.session(0), 20) == before


def test_a_copy_that_goes_on_leaves_the_original(hybrid):
    before = hybrid.recommend(TEST.session(0), 20)
    more = copy.copy(hybrid).fit_more(NEW)
    assert len(more.item_ids) == len(hybrid.item_ids) + 2
    assert hybrid.recommend(TEST.session(0), 20) == before


def test_a_live_session_outlives_going_on(hybrid):
    mixture = copy.copy(hybrid)
    live = mixture.session()
    live.feed(TEST.session(0)[0])
    for new in (NEW, Sessions.from_lists([[A, "newest"]] * 4)):
        mixture.fit_more(new)
        assert live.feed("new")
        assert len(live.scores()) == len(mixture.item_ids) and len(live.recommend(5)) == 5


def test_a_refused_fit_changes_nothing(monkeypatch):
    """Before the network is trained, or after, when the shares are learnt."""
    model = Hybrid(**SMALL).fit(TRAIN)
    before = model.recommend(TRAIN.session(0))
    with pytest.raises(InputError, match="no test session has two items that are known"):
        model.fit(TRAIN[:100], validation=Sessions.from_lists([["x", "y"]]))
    with pytest.raises(InputError, match="hybrid: the shares need validation: split: "):
        model.fit(TRAIN[:1])
    assert model.recommend(TRAIN.session(0)) == before

    def diverge(*_):
        raise InputError("diverged")

    monkeypatch.setattr(Hybrid, "_shares_on", diverge)
    with pytest.raises(InputError, match="diverged"):
        model.fit(TRAIN[:100])
    assert model.recommend(TRAIN.session(0)) == before


def test_too_short_to_hold_out():
    model = Hybrid(**SMALL)
    with pytest.raises(InputError, match="hybrid: the shares need validation: split: "):
        model.fit(Sessions.from_lists([["a", "b"]]))
    with pytest.raises(InputError, match="hybrid: the model is not trained"):
        model.recommend(["a"])


def test_another_hyperparameter_is_the_networks_too(hybrid):
    model = Hybrid(**SMALL)
    model.n_epochs = 3
    assert model.network.n_epochs == model.n_epochs == 3
    with pytest.raises(InputError, match="layers: cannot become"):
        hybrid.set_params(layers=[9])
    assert hybrid.layers == hybrid.network.layers == [6]


# --- the command ----------------------------------------------------------------------------------

OPTIONS = ["--backend", "numpy", "--layers", "8", "--n-sample", "32", "--epochs", "2", "--hybrid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrid")
    write_table(TRAIN, folder / "clicks.tsv")
    write_table(TEST, folder / "tomorrow.tsv")
    done = command("train", "--train", "clicks.tsv", "--out", "run", *OPTIONS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "hybrid: learning the shares by a second training" in done.stdout
    return folder


def test_a_run(folder):
    figures = json.loads((folder / "run/metrics.json").read_text())
    assert {"V-SKNN", "Markov", "GRU4Rec", "hybrid"} <= figures.keys()
    model = models.load(folder / "run", "numpy")
    assert isinstance(model, Hybrid) and model.shares.sum() == pytest.approx(1)
    found = command("recommend", "run", "-k", "2", TRAIN.item_ids[0], cwd=folder)
    assert str(model.recommend(TRAIN.item_ids[:1], 1)[0][0]) in found.stdout
    judged = command("evaluate", "run", "--test", "tomorrow.tsv", cwd=folder)
    assert f"{model.evaluate(TEST)['recall@20']:.4f}" in judged.stdout


def test_stopped_while_the_shares_are_learnt(folder, monkeypatch):
    """What was trained is kept; --resume gives the same file as a run that was never stopped."""
    run = ["train", "--train", "clicks.tsv", *OPTIONS, "--out", "stopped"]
    with monkeypatch.context() as patched:
        patched.setattr(Hybrid, "join", stop)
        done = command(*run, cwd=folder)
    assert done.returncode == 130 and "to go on: " in done.stderr
    assert not (folder / "stopped/model.npz").exists()
    done = command("train", "--resume", "stopped", cwd=folder)
    assert done.returncode == 0, done.stderr
    wanted = (folder / "run/model.npz").read_bytes()
    assert (folder / "stopped/model.npz").read_bytes() == wanted


def stop(*_):
    raise KeyboardInterrupt


def test_tomorrow(folder):
    run = ["--train", "tomorrow.tsv", "--test", "clicks.tsv", "--out", "more"]
    done = command("train", "--start-from", "run", *run, cwd=folder)
    assert done.returncode == 0, done.stderr
    old, new = (models.load(folder / name, "numpy") for name in ("run", "more"))
    assert (new.shares == old.shares).all()
    wanted = Hybrid.load(folder / "run", "numpy")
    wanted.network.read_memory(folder / "run/training.npz")
    wanted.fit_more(read_table(folder / "tomorrow.tsv"))
    assert new.evaluate(TEST) == wanted.evaluate(TEST)
    figures = json.loads((folder / "more/metrics.json").read_text())
    assert {"GRU4Rec", "hybrid"} == figures.keys()


def test_what_cannot_be(folder):
    more = ["--train", "tomorrow.tsv", "--out", "none"]
    refuses(
        command("train", "--start-from", "run", "--hybrid", *more, cwd=folder),
        "hybrid: not with --start-from, the run's model stays what it is",
    )
    write_table(TRAIN[:1], folder / "one.tsv")
    log = ["--train", "one.tsv", "--split", "none", "--min-item-support", "1", "--out", "none"]
    done = command("train", "--hybrid", *log, cwd=folder)
    assert done.returncode == 2 and "epoch" not in done.stdout
    assert "error: hybrid: the shares need validation: split: with the last 0.1" in done.stderr
    VSKNN().fit(TRAIN).save(folder / "knn.npz")
    refuses(
        command("train", "--start-from", "knn.npz", *more, cwd=folder),
        "knn.npz: holds V-SKNN; --start-from takes GRU4Rec or hybrid",
    )
    refuses(command("export", "run", "x.onnx", cwd=folder), "export: hybrid cannot be exported")
    refuses(command("similar", "run", TRAIN.item_ids[0], cwd=folder), "run: hybrid has no table")
