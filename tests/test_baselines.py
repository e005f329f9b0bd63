"""Baselines against naive formulas, the shop's order of methods, and real clicks."""

import itertools
import json
import tracemalloc
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, shared
from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, clean, from_frame, read_table, split
from gru4rec_np.models.baselines import POP, SPOP, Markov, Oracle
from gru4rec_np.models.factors import BPRMF
from gru4rec_np.models.neighbours import VSKNN, ItemKNN
from gru4rec_np.ops.ranking import metrics

logs = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=6), min_size=1, max_size=12)


def all_scores(method, sessions):
    return method.scores(sessions, sessions.cases)


@examples(200)
@given(logs, logs)
def test_scores_are_the_formulas(train_lists, test_lists):
    train = Sessions.from_lists([*train_lists, list(range(9))])
    lists = [*train_lists, list(range(9))]
    test = Sessions.from_lists(
        [s for s in test_lists if len(s) > 1] or [[0, 1]]
    ).restrict(train.item_ids)  # fmt: skip
    support = Counter(i for s in lists for i in s)
    follows = Counter(pair for s in lists for pair in itertools.pairwise(s))
    together = Counter()
    for s in lists:
        counts = Counter(s)
        for i in counts:
            for j in counts:
                together[i, j] += counts[i] * counts[j]
    pop, spop, markov, knn = (m.fit(train) for m in (POP(), SPOP(), Markov(), ItemKNN()))
    found = [all_scores(m, test) for m in (pop, spop, markov, knn)]
    for row, case in enumerate(test.cases):
        session = np.searchsorted(test.offsets, case, side="right") - 1
        past = [int(test.item_ids[i]) for i in test.items[test.offsets[session] : case + 1]]
        for column, j in enumerate(train.item_ids.tolist()):
            p = support[j] / (1 + support[j])
            assert found[0][row, column] == p
            assert found[1][row, column] == past.count(j) + p
            assert found[2][row, column] == follows[past[-1], j]
            i = past[-1]
            sim = together[i, j] / np.sqrt((support[i] + 20) * (support[j] + 20)) * (i != j)
            assert abs(found[3][row, column] - sim) < 1e-12


def test_s_pop_takes_any_cases():
    test = Sessions.from_lists([[0, 1, 0, 2], [1, 1, 2]])
    method = SPOP().fit(test)
    every = dict(zip(test.cases.tolist(), all_scores(method, test), strict=True))
    for cases in ([2], [1, 5], [5, 0], [2, 1, 1], [0, 2, 4, 5]):
        found = method.scores(test, np.array(cases))
        assert (found == [every[case] for case in cases]).all()


def test_one_very_long_session():
    """Memory does not grow with the square of a session's length (149 GiB for this one)."""
    log = Sessions.from_lists([np.random.default_rng(0).integers(0, 50, 200_000).tolist()])
    tracemalloc.start()
    ranks, before = SPOP().fit(log).ranks(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ranks) == 199_999 and before[-1] == 199_999
    assert peak < 2**30
    # The rank of the last event by the counts of all before it.
    count = np.bincount(log.items[:-1], minlength=50) + log.support / (1 + log.support)
    assert ranks[-1] == (count >= count[log.items[-1]]).sum()


def test_every_method_ranks_the_same_cases():
    """Even of a log whose sessions of one event were not cleaned away."""
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 20, n).tolist() for n in rng.integers(2, 5, 80)]
    lists[5:30:5] = [[20], [21], [22], [23], [24]]  # items of single events
    lists[-1] = [20, 0, 1, 21, 2]
    train, test = split(clean(Sessions.from_lists(lists), 1, 1), share=0.2)
    methods = [POP(), SPOP(), BPRMF(), ItemKNN(), VSKNN(), Markov()]
    methods.append(GRU4Rec(layers=[4], n_sample=8, n_epochs=1))
    ranks = [m.fit(train).ranks(test)[0] for m in methods]
    assert {len(r) for r in ranks} == {len(test.cases)}
    assert all(m.item_ids.tolist() == train.item_ids.tolist() for m in methods)


def test_frames():
    frame = pl.DataFrame({"SessionId": [1, 1, 1, 2, 2], "ItemId": [1, 2, 3, 1, 2], "Time": 0})
    method = Markov().fit(frame)
    assert method.evaluate(frame, k=1) == method.evaluate(from_frame(frame), k=(1,))


def test_pop_keeps_100_items():
    log = Sessions.from_lists([[i] * (1 + i) for i in range(150)])
    pop = POP().fit(log).pop
    assert (pop[:50] == 0).all() and (pop[50:] > 0).all()


def test_recommend():
    log = Sessions.from_lists([["a", "b", "c"], ["a", "b"], ["b", "c"], ["a", "c"]])
    assert Markov().fit(log).recommend(["a"], k=2) == [("b", 2.0), ("c", 1.0)]
    (item, _), *_ = SPOP().fit(log).recommend(["a", "zzz", "a"], k=3)
    assert item == "a"
    with pytest.raises(InputError, match="none of the 1 items"):
        POP().fit(log).recommend(["zzz"])
    for k in ("20", None, True, 2.5, (20, 0), ()):
        with pytest.raises(InputError, match="k: must be a whole number >= 1, not"):
            POP().fit(Sessions.from_lists([[1, 2]])).evaluate(Sessions.from_lists([[1, 2]]), k)
    with pytest.raises(InputError, match="POP: there is no session to learn from"):
        POP().fit(Sessions.from_lists([]))
    with pytest.raises(InputError, match="k: must be a whole number >= 1, not 0"):
        POP().fit(log).recommend(["a"], k=0)
    numbers = Markov().fit(Sessions.from_lists([[1, 2], [1, 2]]))
    assert json.dumps(numbers.recommend([np.int64(1)], k=1)) == "[[2, 2.0]]"


def test_the_shops_order_of_methods():
    """POP < S-POP, Item-KNN < Markov < oracle, by margins that one sees; GRU4Rec's place between
    the last two is tested with the training command."""
    shop = Shop()
    train, test = split(clean(shop.simulate(20_000)), days=1)
    methods = POP(), SPOP(), ItemKNN(), Markov(), Oracle(shop)
    value = {method.name: method.fit(train).evaluate(test) for method in methods}
    for metric in ("recall@20", "mrr@20"):
        pop, spop, knn, markov, oracle = (row[metric] for row in value.values())
        assert pop * 1.3 < min(spop, knn)
        assert max(spop, knn) * 1.1 < markov
        assert markov * 1.25 < oracle


def test_no_ranking_beats_the_oracle():
    """Not even the oracle of a shop that differs in one probability only."""
    shop = Shop(n_items=200)
    train, test = split(shop.simulate(20_000), days=4)
    best = Oracle(shop).fit(train).ranks(test)[0]
    for other in (
        Shop(n_items=200, repeat=0.3), Shop(n_items=200, walk=0.4), Shop(n_items=200, change=0.4),
    ):  # fmt: skip
        worse = Oracle(other).fit(train).ranks(test)[0]
        for metric, value in metrics(worse, (5, 20)).items():
            assert value < metrics(best, (5, 20))[metric]


def test_real_clicks():
    """The table in the data's README, ties counted against the model and for it."""
    train = read_table(shared("data/rsc15-100k/train.tsv"))
    test = read_table(shared("data/rsc15-100k/test.tsv"))
    for method, recall, mrr in (
        (POP(), 0.0894, 0.0264),
        (SPOP(), 0.3807, 0.2493),
        (ItemKNN(), 0.3900, 0.1669),
        (Markov(), 0.5626, 0.3275),
    ):
        found = method.fit(train).evaluate(test)
        assert abs(found["recall@20"] - recall) < 0.0005
        assert abs(found["mrr@20"] - mrr) < 0.0005
    assert abs(Markov().fit(train).evaluate(test, ties="standard")["recall@20"] - 0.8363) < 0.0005
