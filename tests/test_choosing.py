"""Recommending for many sessions at once, among candidates, without some items; similar items."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import NARM, GRU4Rec, InputError, Sessions, Shop
from gru4rec_np.models import BASELINES
from gru4rec_np.models.baselines import Markov
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.ops.ranking import top_k, top_k_rows

LOG = Shop(n_items=90).simulate(300)
SMALL = {"n_epochs": 1, "batch_size": 16, "backend": "numpy"}


def gru(**more):
    return GRU4Rec.published(**{"layers": [6], "n_sample": 16, **SMALL, **more})


MODELS = {
    "gru": gru().fit(LOG),
    "lstm": gru(unit="lstm", input="onehot", layers=[4, 6]).fit(LOG),
    "weighted": gru(input="weighted", feedforward=[5]).fit(LOG),
    "hybrid": Hybrid(layers=[6], n_sample=16, **SMALL).fit(LOG),
    "narm": NARM(embedding=6, hidden=5, **SMALL).fit(LOG),
    **{n: m().fit(LOG) for n, m in BASELINES.items() if n not in ("oracle", "BPR-MF")},
}
ITEMS = LOG.item_ids.tolist()
SESSIONS = [
    [ITEMS[3], ITEMS[5]], ["nobody"], [ITEMS[7]], [ITEMS[1]] * 30, ["nobody", ITEMS[2]],
    *(s.tolist() for s in map(LOG.session, range(40))),
]  # fmt: skip


def one_by_one(model, session, **how):
    if not any(item in ITEMS for item in session):
        return []
    return model.recommend(session, **how)


def as_lists(model, items, scores):
    return [
        [(model.item_ids[i], s) for i, s in zip(row, of, strict=True) if i >= 0]
        for row, of in zip(items, scores, strict=True)
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "how",
    [{}, {"exclude": "seen"}, {"exclude": ITEMS[:30]}, {"candidates": ITEMS[10:14]},
     {"candidates": ITEMS[:9], "exclude": "seen", "k": 9}, {"k": 200}, {"candidates": []}],
)  # fmt: skip
def test_many_sessions_get_what_each_gets_alone(name, how):
    model, how = MODELS[name], {"k": 5, **how}
    items, scores = model.recommend_many(SESSIONS, **how)
    assert items.shape == scores.shape == (len(SESSIONS), min(how["k"], len(ITEMS)))
    for session, found in zip(SESSIONS, as_lists(model, items, scores), strict=True):
        wanted = one_by_one(model, session, **how)
        np.testing.assert_allclose([s for _, s in found], [s for _, s in wanted], atol=1e-5)
        # Ties within rounding may change places.
        assert sorted(i for i, _ in found[:-1]) == sorted(i for i, _ in wanted[:-1]) or len(
            {round(s, 5) for _, s in wanted}
        ) < len(wanted)


@given(
    st.lists(
        st.lists(st.sampled_from([1, "1", 2, "2", 3.0, "none", np.int64(3), None]), max_size=4),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_a_session_may_mix_numbers_and_text(sessions):
    """Ids are compared by their text, in `recommend_many` as in `recommend`."""
    model = Markov().fit(Sessions.from_lists([[1, 2, 3], [2, 1, 3], [3, 1]]))
    if not any(sessions):
        return
    for session, found in zip(
        sessions, as_lists(model, *model.recommend_many(sessions, 3)), strict=True
    ):
        if any(str(item) in ("1", "2", "3") for item in session):
            assert found == model.recommend(session, 3)
        else:
            assert found == []


@pytest.mark.parametrize(
    ("ids", "session", "words"),
    [
        ([280, 111], [280.0, 5], "none of the 2 items is known to the model: the first is 280.0 "
                                 "(float), the model's ids are like 280 (int)"),
        ([280, 111], [np.float64(280)], "the first is 280.0 (float), the model's ids are like"
                                         " 280 (int)"),
        (["a", "b"], [None], "the first is None (NoneType), the model's ids are like 'a' (str)"),
        (["a", "b"], ["zz"], "the first is 'zz', the model's ids are like 'a'"),
        ([280, 111], ["28"], "the first is '28', the model's ids are like 280"),
        (["a", "b"], [], "recommend: the session has no items"),
    ],
)  # fmt: skip
def test_what_no_model_knows_is_shown_beside_what_it_knows(ids, session, words):
    model = Markov().fit(Sessions.from_lists([ids]))
    with pytest.raises(InputError, match=re.escape(words) + "$"):
        model.recommend(session)


@pytest.mark.parametrize("backend", ["numba", "cuda-emulated"])
def test_on_other_backends(backend):
    try:
        model = gru(backend=backend).fit(LOG)
    except InputError as error:
        pytest.skip(str(error))
    items, scores = model.recommend_many(SESSIONS[:8], 4)
    for session, found in zip(SESSIONS[:8], as_lists(model, items, scores), strict=True):
        wanted = one_by_one(model, session, k=4)
        np.testing.assert_allclose([s for _, s in found], [s for _, s in wanted], atol=1e-5)


def test_neither_the_sessions_beside_nor_the_threads_show(monkeypatch):
    model = MODELS["gru"]
    many = model.recommend_many(SESSIONS, 5)
    few = model.recommend_many(SESSIONS[2:4], 5)
    assert all((m[2:4] == f).all() for m, f in zip(many, few, strict=True))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("gru4rec_np.models.base.MAX_SCORES", 4 * 90 * 7)
    for one, two in zip(many, model.recommend_many(SESSIONS, 5), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_long_session_is_fed_by_itself(monkeypatch):
    """To the bit as a live session; and the others are as they were."""
    model = MODELS["gru"]
    usual = model.session_vectors(SESSIONS)
    monkeypatch.setattr("gru4rec_np.models.gru4rec.LONG", 5)
    vectors = model.session_vectors(SESSIONS)
    live = model.session()
    for item in SESSIONS[3]:
        live.feed(item)
    assert (vectors[3] == live.vector).all()
    short = [len(s) <= 5 and s != ["nobody"] for s in SESSIONS]
    assert (vectors[short] == usual[short]).all()
    np.testing.assert_allclose(vectors, usual, atol=1e-6)


def test_frames_and_the_progress():
    seen = []
    sessions = Sessions.from_lists(SESSIONS)
    items, _ = MODELS["gru"].recommend_many(sessions, 3, watch=lambda *done: seen.append(done))
    assert (items == MODELS["gru"].recommend_many(SESSIONS, 3)[0]).all()
    assert seen[-1] == (len(SESSIONS) - 1, len(SESSIONS) - 1)


@pytest.mark.parametrize("item", [["a"], ("a",), b"a", {"a": 1}, np.array(["a"])], ids=repr)
def test_what_is_no_id_is_refused(item):
    with pytest.raises(InputError, match="an item id is a number or a text, not "):
        MODELS["gru"].recommend_many([["a", item], ["b"]])


@pytest.mark.parametrize("name", ["gru", "lstm", "weighted", "narm"])
def test_the_vector_of_a_session(name):
    model = MODELS[name]
    vectors = model.session_vectors(SESSIONS)
    assert np.isnan(vectors[1]).all() and not np.isnan(np.delete(vectors, 1, 0)).any()
    V, b = model._output()
    item, score = model.recommend(SESSIONS[0], 1)[0]
    index = model._index[str(item)]
    assert vectors[0] @ V[index] + b[index] == pytest.approx(score, abs=1e-5)
    if isinstance(model, GRU4Rec):
        live = model.session()
        with pytest.raises(InputError, match="feed it an item"):
            _ = live.vector
        for item in SESSIONS[0]:
            live.feed(item)
        np.testing.assert_allclose(live.vector, vectors[0], atol=1e-6)


@pytest.mark.parametrize("name", ["gru", "narm"])
def test_similar_items(name):
    model = MODELS[name]
    found = model.similar(ITEMS[4], 90)
    assert len(found) == 89 and ITEMS[4] not in dict(found)
    V = model._output()[0].astype(np.float64)
    for item, cosine in found[:3] + found[-3:]:
        a, b = V[4], V[model._index[str(item)]]
        assert cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)
    with pytest.raises(InputError, match="similar: item 'nobody' is not known"):
        model.similar("nobody")


# --- ranks among candidates -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gru", "narm", "Markov", "V-SKNN"])
def test_ranks_among_candidates(name):
    """By the scores themselves: a target that is no candidate is a miss."""
    model, candidates = MODELS[name], ITEMS[20:50]
    test = LOG[:30]
    ranks, before = model.ranks(test, candidates=candidates)
    case = 0
    for s in range(30):
        session = test.session(s).tolist()
        for t in range(1, len(session)):
            scores = dict(model.recommend(session[:t], 90, candidates=candidates))
            wanted = np.inf
            if session[t] in scores:
                wanted = sum(v >= scores[session[t]] for v in scores.values())
            assert ranks[case] == wanted or abs(ranks[case] - wanted) <= 1  # a tie by rounding
            assert before[case] == t
            case += 1
    assert case == len(ranks) and np.isinf(ranks).any() and (ranks <= 30).any()
    with pytest.raises(InputError, match="candidates: none of them is known"):
        model.ranks(test, candidates=["nobody"])


# --- the best of each row -------------------------------------------------------------------------


@examples(60)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(1, 12),
    st.sampled_from([2, 5, 10**6]), st.booleans(),
)  # fmt: skip
def test_top_k_rows_is_top_k_of_each_row(seed, n_items, k, values, holes):
    """With ties and items that must not be given."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, (3, n_items)).astype(np.float32)
    if holes:
        scores[rng.random(scores.shape) < 0.3] = -np.inf
    items, best = top_k_rows(scores, k)
    for row, of, s in zip(items, best, scores, strict=True):
        wanted = [(i, v) for i, v in top_k(s, np.arange(n_items), k) if v > -np.inf]
        assert [(i, v) for i, v in zip(row, of, strict=True) if i >= 0] == wanted


def test_top_k_rows_leaves_out_nan_and_nothing_else():
    scores = np.arange(200.0)[None].repeat(2, axis=0)
    scores[0, 195], scores[1, 3:] = np.nan, np.nan
    items, best = top_k_rows(scores, 5)
    assert items.tolist() == [[199, 198, 197, 196, 194], [2, 1, 0, -1, -1]]
    assert np.isnan(best[1, 3:]).all()


def test_a_baseline_has_no_table():
    assert not hasattr(Markov, "similar") and not hasattr(Markov, "session_vectors")
