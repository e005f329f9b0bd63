"""Item-KNN and V-SKNN against naive formulas, by hand, in blocks, and on real clicks."""

import math
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, shared
from gru4rec_np import InputError, Sessions, Shop, read_table
from gru4rec_np.data.sessions import CLICKS
from gru4rec_np.models import neighbours
from gru4rec_np.models.neighbours import VSKNN, ItemKNN, by_session

logs = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=6), min_size=1, max_size=12)


def naive_v_sknn(train, current, k, sample, idf, decay):
    """{item: score}, from the docstring's formulas. train: sessions, those that ended last last."""
    current = current[-CLICKS:]
    L = len(current)
    place = {item: p for p, item in enumerate(current, 1)}  # an item's last click
    alike = [(n, s) for n, s in enumerate(train) if set(s) & set(current)][-sample:]
    alike = [(sum(place[i] for i in set(s) & set(current)), n, s) for n, s in alike]
    score = {}
    for similarity, _, s in sorted(alike, reverse=True)[:k]:
        d = next(steps for steps, i in enumerate(reversed(current), 1) if i in s) if decay else 1
        for i in set(s):
            score[i] = score.get(i, 0) + similarity / L / d
    with_item = {i: sum(i in s for s in train) for i in score}
    return {i: x * (1 + idf * math.log(len(train) / with_item[i])) for i, x in score.items()}


@examples(300)
@given(logs, logs, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.7]), st.booleans())
def test_v_sknn_is_the_formula(train_lists, test_lists, k, sample, idf, decay):
    train_lists = [*train_lists, list(range(9))]
    train = Sessions.from_lists(train_lists)
    test = Sessions.from_lists([s for s in test_lists if len(s) > 1] or [[0, 1]])
    test = test.restrict(train.item_ids)
    method = VSKNN(k=k, sample=sample, idf=idf, decay=decay).fit(train)
    found = method.scores(test, test.cases)
    for row, case in enumerate(test.cases):
        session = np.searchsorted(test.offsets, case, side="right") - 1
        past = test.item_ids[test.items[test.offsets[session] : case + 1]].tolist()
        wanted = naive_v_sknn(train_lists, past, k, sample, idf, decay)
        wanted = [wanted.get(i, 0) for i in train.item_ids.tolist()]
        np.testing.assert_allclose(found[row], wanted, rtol=1e-5)


def test_v_sknn_by_hand():
    """Clicks a, b, c weigh 1/3, 2/3, 1; the plain paper's score, then with both factors."""
    log = Sessions.from_lists([["a", "x"], ["b", "c", "y"], ["a", "b", "x"], ["z", "z"]])
    plain = dict(VSKNN(idf=0, decay=False).fit(log).recommend(["a", "b", "c"], k=9))
    wanted = {"a": 1 / 3 + 1, "x": 1 / 3 + 1, "b": 5 / 3 + 1, "c": 5 / 3, "y": 5 / 3, "z": 0}
    assert plain == pytest.approx(wanted)
    best = dict(VSKNN().fit(log).recommend(["a", "b", "c"], k=9))
    # The second session has the last click, d = 1; the third b, d = 2; the first a, d = 3.
    assert best["y"] == pytest.approx(5 / 3 * (1 + math.log(4 / 1)))
    assert best["x"] == pytest.approx((1 / 3 / 3 + 1 / 2) * (1 + math.log(4 / 2)))
    # One neighbour: the most similar. Of two alike the one that ended last.
    assert dict(VSKNN(k=1).fit(log).recommend(["a", "b", "c"], k=9))["x"] == 0
    one = dict(VSKNN(k=1, idf=0).fit(log).recommend(["a"], k=9))
    assert one["b"] == 1 and one["x"] == 1 and one["a"] == 1
    # One candidate: the most recent, however alike; z has no other.
    one = dict(VSKNN(sample=1, idf=0).fit(log).recommend(["z", "b", "c"], k=9))
    assert {i for i, x in one.items() if x} == {"z"}


@examples(100)
@given(logs, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_and_company_do_not_matter(lists, random, n):
    """Neither the order of the training sessions nor a case's batch changes a bit."""
    log = Sessions.from_lists([*lists, [0, 1, 0, 2]])
    order = list(range(log.n_sessions))
    random.shuffle(order)
    shuffled = Sessions(
        items=np.concatenate([log.items[log.offsets[s] : log.offsets[s + 1]] for s in order]),
        times=np.concatenate([log.times[log.offsets[s] : log.offsets[s + 1]] for s in order]),
        offsets=np.concatenate([[0], np.cumsum(log.lengths[order])]),
        item_ids=log.item_ids,
        session_ids=log.session_ids[order],
    )
    for method in (VSKNN(k=2, sample=3), ItemKNN()):
        together = method.fit(log).scores(log, log.cases)
        again = type(method)(**method.get_params()).fit(shuffled)
        assert np.array_equal(again.scores(log, log.cases), together)
        parts = [method.scores(log, block) for block in np.split(log.cases, [n, n + 1])]
        assert np.array_equal(np.concatenate(parts), together)
        assert np.array_equal(method.scores(log, log.cases[::-1]), together[::-1])


@pytest.mark.parametrize("method", [VSKNN(), ItemKNN()], ids=lambda m: m.name)
def test_blocks_change_nothing(method, monkeypatch):
    log = Shop(n_items=60).simulate(300)
    whole = method.fit(log).scores(log, log.cases)
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", 16)
    assert np.array_equal(method.fit(log).scores(log, log.cases), whole)


def test_v_sknn_learns_from_ended_sessions_in_time():
    """Recent is what ended last, not what comes last in the file; a session's items are a set."""
    log = Sessions.from_lists([["a", "new", "new"], ["a", "old"]])
    times = np.where(np.arange(log.n_events) < 3, log.times + 9e9, log.times)
    log = Sessions(log.items, log.offsets, times, log.item_ids, log.session_ids)
    scores = dict(VSKNN(k=1, idf=0).fit(log).recommend(["a"]))
    assert scores["new"] == 1 and scores["old"] == 0


def test_a_long_session_counts_its_last_clicks():
    log = Shop(n_items=60).simulate(300)
    method = VSKNN().fit(log)
    clicks = log.item_ids[np.random.default_rng(0).integers(0, 60, 300)].tolist()
    assert method.recommend(clicks) == method.recommend(clicks[-CLICKS:])
    assert method.recommend(clicks) != method.recommend(clicks[-CLICKS + 1 :])


def test_unknown_items_are_passed_over():
    log = Shop(n_items=60).simulate(300)
    for method in (VSKNN().fit(log), ItemKNN().fit(log)):
        a, b = log.item_ids[:2].tolist()
        assert method.recommend(["?", a, "??", b, "???"]) == method.recommend([a, b])


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "9"])
def test_what_must_be_a_count(value):
    for make in (lambda: VSKNN(k=value), lambda: ItemKNN(neighbours=value)):
        with pytest.raises(InputError, match=r"must be a whole number >= 1 .*not"):
            make()


def test_learning_leaves_the_sessions_as_they_are():
    log = Sessions.from_lists([[2, 1, 2, 0], [1, 0, 1]])
    items, offsets = log.items.copy(), log.offsets.copy()
    assert by_session(log, float).toarray().tolist() == [[2, 1, 1], [0, 2, 1]]
    assert np.array_equal(log.items, items) and np.array_equal(log.offsets, offsets)


def test_item_knn_keeps_the_nearest_only():
    log = Shop(n_items=60).simulate(300)
    every = ItemKNN(neighbours=60).fit(log).similarity.toarray()
    some = ItemKNN(neighbours=5).fit(log).similarity.toarray()
    for full, kept in zip(every, some, strict=True):
        nearest = np.argsort(-full, kind="stable")[:5]  # of equals the first
        assert np.array_equal(np.flatnonzero(kept), np.sort(nearest[full[nearest] > 0]))
        assert np.array_equal(kept[nearest], full[nearest])


def test_v_sknn_keeps_what_it_needs():
    """Memory is bounded by sample for each item, however many sessions there are."""
    log = Shop(n_items=40).simulate(20_000)
    method = VSKNN(k=5, sample=100).fit(log)
    assert method.sessions.shape[0] <= 40 * 100
    tracemalloc.start()
    with mock.patch.object(neighbours, "PAIRS_AT_ONCE", 2**14):
        method.scores(log, log.cases[:20_000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # 3 MB are the result; in one block it would be 200 MB


def test_real_clicks():
    """Above Item-KNN in both metrics; the row in docs/results.md."""
    train = read_table(shared("data/rsc15-100k/train.tsv"))
    test = read_table(shared("data/rsc15-100k/test.tsv"))
    found = VSKNN().fit(train).evaluate(test)
    item_knn = ItemKNN().fit(train).evaluate(test)
    assert found["recall@20"] > item_knn["recall@20"] and found["mrr@20"] > item_knn["mrr@20"]
    assert abs(found["recall@20"] - 0.6809) < 0.0005
    assert abs(found["mrr@20"] - 0.3642) < 0.0005
