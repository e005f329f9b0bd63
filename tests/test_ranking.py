"""Ranks against sorting, with many ties and NaN; metrics by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import examples
from gru4rec_np.ops.ranking import (
    PADDED_ROWS,
    TIES,
    catalogue_scores,
    lift,
    metrics,
    rank_targets,
    ranks,
    top_k,
)

FEW = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0, np.inf])  # few values: many ties
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9))


def naive_rank(scores, target, ties):
    """Sort by descending score; items with the target's score are adjacent."""
    ordered = sorted(scores, reverse=True)
    first = ordered.index(scores[target]) + 1
    last = first + ordered.count(scores[target]) - 1
    return {"standard": first, "conservative": last, "median": (first + last) / 2}[ties]


@st.composite
def score_tables(draw, elements=FEW):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(arrays(dtype, SHAPES, elements=elements))
    n, items = scores.shape
    targets = draw(st.lists(st.integers(0, items - 1), min_size=n, max_size=n))
    return scores, np.array(targets)


@examples(300)
@given(score_tables(), st.sampled_from(TIES))
def test_ranks_against_sorting(case, ties):
    scores, targets = case
    expected = [naive_rank(row, t, ties) for row, t in zip(scores.tolist(), targets, strict=True)]
    got = ranks(scores, targets, ties)
    assert got.tolist() == expected
    assert got.dtype == np.float64


@examples(200)
@given(score_tables(), st.sampled_from(TIES), st.data())
def test_nan_never_helps(case, ties, data):
    scores, targets = case
    before = ranks(scores, targets, ties)
    scores[data.draw(arrays(bool, scores.shape))] = np.nan
    after = ranks(scores, targets, ties)
    assert (after >= before).all()
    assert (after[np.isnan(scores[np.arange(len(targets)), targets])] == scores.shape[1]).all()


def test_the_default_is_conservative():
    assert ranks(np.zeros((1, 5)), np.array([2])).tolist() == [5]
    assert ranks(np.zeros((1, 5)), np.array([2]), "standard").tolist() == [1]
    assert ranks(np.zeros((1, 5)), np.array([2]), "median").tolist() == [3]


def test_unknown_ties_are_named():
    with pytest.raises(ValueError, match=r"conservative, standard, median.*'optimistic'"):
        ranks(np.zeros((1, 2)), np.array([0]), "optimistic")


@given(
    scores=arrays(np.float64, 5, elements=st.floats(-9, 9)), p=st.floats(0.001, 1.0),
)  # fmt: skip
def test_a_lifted_score_is_that_of_a_mixture(scores, p):
    """Its probability is the softmax's and p, but for the sum of all."""
    total = np.log(np.exp(scores).sum())
    softmax = np.exp(scores - total)
    floors = np.full(5, total + np.log(p))
    np.testing.assert_allclose(np.exp(lift(scores, floors) - total), softmax + p)
    assert (lift(scores.astype(np.float32), np.full(5, -1e30)) == scores.astype(np.float32)).all()


@examples(200)
@given(st.integers(0, 2 * PADDED_ROWS + 1), st.integers(1, 6), st.sampled_from(TIES), st.data())
def test_rank_targets_is_ranks_of_the_product(n, items, ties, data):
    """Small integers: the product is exact, in whatever parts it is computed."""
    whole = st.integers(-2, 2).map(float)
    h = data.draw(arrays(np.float32, (n, 3), elements=whole))
    V_y = data.draw(arrays(np.float32, (items, 3), elements=whole))
    b_y = data.draw(arrays(np.float32, items, elements=whole))
    targets = data.draw(arrays(np.int32, n, elements=st.integers(0, items - 1)))
    got = rank_targets(h, V_y, b_y, targets, ties)
    np.testing.assert_array_equal(got, ranks(h @ V_y.T + b_y, targets, ties))
    np.testing.assert_array_equal(catalogue_scores(h, V_y, b_y), h @ V_y.T + b_y)


def test_metrics_by_hand():
    got = metrics(np.array([1.0, 2.0, 2.5, 5.0, 21.0]), k=(20, 2, 1))
    assert got == pytest.approx(
        {
            "recall@20": 4 / 5,
            "mrr@20": (1 + 1 / 2 + 1 / 2.5 + 1 / 5) / 5,
            "recall@2": 2 / 5,
            "mrr@2": (1 + 1 / 2) / 5,
            "recall@1": 1 / 5,
            "mrr@1": 1 / 5,
        }
    )
    assert list(got) == ["recall@20", "mrr@20", "recall@2", "mrr@2", "recall@1", "mrr@1"]
    assert list(metrics(np.array([1.0]))) == ["recall@20", "mrr@20"]
    assert list(metrics(np.array([1.0]), 5)) == ["recall@5", "mrr@5"]


@examples(200)
@given(st.lists(st.integers(2, 60).map(lambda r: r / 2), min_size=1), st.integers(1, 30))
def test_metrics_against_a_loop(drawn, k):
    hits = [r for r in drawn if r <= k]
    expected = {f"recall@{k}": len(hits) / len(drawn), f"mrr@{k}": sum(1 / r for r in hits)}
    expected[f"mrr@{k}"] /= len(drawn)
    assert metrics(np.array(drawn), (k,)) == pytest.approx(expected)


@examples(200)
@given(arrays(np.float32, st.integers(1, 9), elements=FEW), st.integers(1, 12))
def test_top_k_is_sorted_and_keeps_the_order_of_equal_scores(scores, k):
    ids = np.array([f"i{i}" for i in range(len(scores))], object)
    ordered = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: -pair[1])
    assert top_k(scores, ids, k) == ordered[:k]


@examples(200)
@given(arrays(np.float32, st.integers(1, 12), elements=FEW | st.just(np.nan)), st.integers(1, 14))
def test_top_k_puts_nan_last(scores, k):
    found = [item for item, _ in top_k(scores, np.arange(len(scores)), k)]
    assert found == np.argsort(-scores, kind="stable")[:k].tolist()
