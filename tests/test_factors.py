"""BPR-MF: its gradient against finite differences, its triples by hand, and real clicks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from conftest import examples, shared
from gru4rec_np import InputError, Sessions, Shop, gradcheck, read_table
from gru4rec_np.data.sessions import CLICKS
from gru4rec_np.models.baselines import POP, by_session
from gru4rec_np.models.factors import BPRMF, _triples, bpr_mf, bpr_mf_backward


@examples(200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 7), st.integers(1, 5))
def test_the_gradient(seed, B, I, D):  # noqa: E741
    """Also where i, j or a session's items coincide."""
    rng = np.random.default_rng(seed)
    V = rng.normal(size=(I, D))
    C = csr_array(rng.random((B, I)) * (rng.random((B, I)) < 0.5))
    pairs = np.zeros((B, I))
    np.add.at(pairs, (np.arange(B), rng.integers(0, I, B)), 1)
    np.add.at(pairs, (np.arange(B), rng.integers(0, I, B)), -1)
    P, dy = csr_array(pairs), rng.normal()
    loss, cache = bpr_mf(V, C, P)
    x = ((C.toarray() @ V) * (pairs @ V)).sum(axis=1)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-x)))
    dV = dy * bpr_mf_backward(C, P, cache)
    gradcheck(lambda: dy * bpr_mf(V, C, P)[0].sum(), {"V": V}, {"V": dV})


def test_triples_by_hand():
    """Session a b a c with the pair (a, x), and d e with (e, d): the mean is over the others."""
    log = Sessions.from_lists([["a", "b", "a", "c"], ["d", "e"], ["x"]])
    a, b, c, d, _, x = range(6)
    C, P = _triples(log, by_session(log, np.float32), np.array([2, 5]), np.array([x, d]))
    mean = np.zeros((2, 6), np.float32)
    mean[0, [a, b, c]] = 1 / 3
    mean[1, d] = 1
    np.testing.assert_array_equal(C.toarray(), mean)
    assert P.toarray().tolist() == [[1, 0, 0, 0, 0, -1], [0, 0, 0, -1, 1, 0]]


def test_scores_are_the_mean_products():
    log = Sessions.from_lists([["a", "b", "a", "c"], ["d", "e"]])
    method = BPRMF(factors=3, n_epochs=1).fit(log)
    V = method.V.astype(float)
    found = method.scores(log, log.cases)
    for row, past in zip(found, ([0], [0, 1], [0, 1, 0], [3]), strict=True):
        np.testing.assert_allclose(row, (V[past] @ V.T).mean(axis=0), rtol=1e-5, atol=1e-7)


@examples(50)
@given(st.lists(st.lists(st.integers(0, 8), min_size=2, max_size=6), min_size=1, max_size=9))
def test_the_batch_does_not_matter(lists):
    log = Sessions.from_lists(lists)
    method = BPRMF(factors=4, n_epochs=1).fit(log)
    together = method.scores(log, log.cases)
    for row, case in zip(together, log.cases, strict=True):
        np.testing.assert_allclose(method.scores(log, np.array([case]))[0], row, rtol=2e-5,
                                   atol=1e-7)  # fmt: skip


def test_one_step_is_gradient_descent():
    """A batch of all events: the triples' gradients added up, and L2 once for each item."""
    log = Sessions.from_lists([["a", "b", "c"], ["b", "a"]])
    rng = np.random.default_rng(3)
    V = rng.normal(0, 0.1, (3, 4)).astype(np.float32)
    events = rng.permutation(5)
    C, P = _triples(log, by_session(log, np.float32), events, rng.integers(0, 3, 5))
    wanted = V - 0.5 * (bpr_mf_backward(C, P, bpr_mf(V, C, P)[1]) + 0.1 * V)
    method = BPRMF(factors=4, n_epochs=1, learning_rate=0.5, batch_size=5, lmbd=0.1, seed=3)
    np.testing.assert_allclose(method.fit(log).V, wanted, rtol=1e-5, atol=1e-7)


def test_the_seed_decides():
    log = Shop(n_items=60).simulate(300)
    one, again, other = (BPRMF(n_epochs=1, seed=s).fit(log).V for s in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_edges():
    log = Shop(n_items=60).simulate(300)
    method = BPRMF(n_epochs=1).fit(log)
    clicks = log.item_ids[np.random.default_rng(0).integers(0, 60, 300)].tolist()
    assert method.recommend(["?", *clicks]) == method.recommend(clicks[-CLICKS:])
    with pytest.raises(InputError, match=r"BPR-MF: training diverged in epoch 1; try a lower"):
        BPRMF(learning_rate=1e30).fit(log)
    with pytest.raises(InputError, match=r"factors: must be a whole number >= 1 .*not 0"):
        BPRMF(factors=0)


def test_real_clicks():
    """Above POP in both metrics; the row in docs/results.md, one seed of it."""
    train = read_table(shared("data/rsc15-100k/train.tsv"))
    test = read_table(shared("data/rsc15-100k/test.tsv"))
    found, pop = BPRMF(seed=1).fit(train).evaluate(test), POP().fit(train).evaluate(test)
    assert found["recall@20"] > 3 * pop["recall@20"] and found["mrr@20"] > 3 * pop["mrr@20"]
