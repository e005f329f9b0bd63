"""The simulated shop: its exact next-item probabilities, by brute force and by counting."""

import dataclasses
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import InputError, Sessions, Shop

SHARES = st.floats(0, 1).map(lambda p: round(p, 3))
TINY = st.builds(
    Shop,
    n_items=st.integers(4, 9),
    seed=st.integers(0, 99),
    repeat=SHARES,
    walk=SHARES,
    change=SHARES,
    stride=st.integers(1, 3),
)


@st.composite
def tiny_logs(draw, longest):
    """A tiny shop and a session of it, drawn by simulation so that it is possible."""
    shop = draw(TINY)
    sessions = shop.simulate(1, seed=draw(st.integers(0, 99)))
    return shop, sessions.keep_events(sessions.positions < longest)


# --- exactness ------------------------------------------------------------------------------------


def emission(shop, intent, past):
    """(I,) P(next click | intent, the clicks so far), from the module's text, item by item."""
    ladder, direction = divmod(intent, 2)
    n_ladders = len(shop.prior) // 4
    side = 0 if ladder < n_ladders else 1
    p = np.zeros(shop.n_items)
    for item in range(shop.n_items):
        if shop.ladder[side, item] == ladder:
            p[item] = shop.jump[side, item]
    if past:
        last = past[-1]
        if shop.ladder[side, last] == ladder:
            p *= 1 - shop.walk
            for d in range(shop.stride):
                p[shop.goes_to[side, direction, last, d]] += (
                    shop.walk * shop.follow[side, direction, last, d]
                )
        p *= 1 - shop.repeat
        for item in past:
            p[item] += shop.repeat / len(past)
    return p


def brute_force(shop, clicks):
    """P(next | clicks) as a sum over every sequence of intents that could be behind it."""
    K = len(shop.prior)
    clicked = [clicks[:t] for t in range(len(clicks) + 1)]
    given_intent = [[emission(shop, k, past) for k in range(K)] for past in clicked]
    total = np.zeros(shop.n_items)
    for intents in product(range(K), repeat=len(clicks) + 1):
        weight = shop.prior[intents[0]]
        for t, item in enumerate(clicks):
            stays = (1 - shop.change) * (intents[t + 1] == intents[t])
            weight *= given_intent[t][intents[t]][item]
            weight *= stays + shop.change * shop.prior[intents[t + 1]]
            if weight == 0:
                break
        else:
            total += weight * given_intent[-1][intents[-1]]
    return total / total.sum()


@examples(200)
@given(tiny_logs(longest=3))
def test_next_item_against_all_intent_sequences(case):
    shop, session = case
    clicks = session.items[:-1].tolist()
    got = shop.next_item_probabilities(session, np.array([len(clicks) - 1]))[0]
    np.testing.assert_allclose(got, brute_force(shop, clicks), rtol=1e-9, atol=1e-12)


def session_of(shop, clicks):
    """One session of these item numbers, with the shop's catalogue."""
    return Sessions(
        items=np.array(clicks, np.int32),
        offsets=np.array([0, len(clicks)]),
        times=np.arange(float(len(clicks))),
        item_ids=shop.item_ids,
        session_ids=np.array([1]),
    )


@pytest.mark.parametrize("clicks", [[0, 0, 0], [1, 5, 1], [7, 6, 3]])
def test_next_item_after_three_clicks(clicks):
    shop = Shop(8, stride=2)
    got = shop.next_item_probabilities(session_of(shop, clicks), np.array([2]))[0]
    np.testing.assert_allclose(got, brute_force(shop, clicks), rtol=1e-9)


@examples(200)
@given(TINY, st.integers(0, 99))
def test_rows_are_distributions(shop, seed):
    sessions = shop.simulate(5, seed=seed)
    p = shop.next_item_probabilities(sessions, sessions.cases)
    assert p.shape == (len(sessions.cases), shop.n_items)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (p[np.arange(len(p)), sessions.items[sessions.cases + 1]] > 0).all()


def test_cases_do_not_depend_on_what_else_is_asked():
    shop = Shop(60)
    sessions = shop.simulate(20)
    together = shop.next_item_probabilities(sessions, sessions.cases)
    some = np.random.default_rng(0).permutation(len(sessions.cases))[:10]
    apart = shop.next_item_probabilities(sessions, sessions.cases[some])
    np.testing.assert_allclose(apart, together[some], rtol=1e-12)


def test_no_cases():
    shop = Shop(60)
    assert shop.next_item_probabilities(shop.simulate(2), np.array([], int)).shape == (0, 60)


# --- the simulation -------------------------------------------------------------------------------


@pytest.mark.parametrize("shop", [Shop(120), Shop(120, repeat=0.4, walk=0.5, change=0.3, stride=3)])
def test_the_simulation_follows_the_probabilities(shop):
    """Of the (case, item) pairs with about the same probability, as many come true as should."""
    sessions = shop.simulate(4000)
    cases = sessions.cases
    p = shop.next_item_probabilities(sessions, cases)
    came_true = np.zeros(p.shape, bool)
    came_true[np.arange(len(cases)), sessions.items[cases + 1]] = True
    bins = np.digitize(p, [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.3, 0.4, 0.6])
    position = np.minimum(sessions.positions[cases], 3)[:, None]
    for key in np.unique(bins * 4 + position):
        group = bins * 4 + position == key
        expected, variance = p[group].sum(), (p * (1 - p))[group].sum()
        assert abs(came_true[group].sum() - expected) < 4.5 * np.sqrt(variance) + 1


def test_first_clicks_follow_popularity():
    shop = Shop(60)
    sessions = shop.simulate(20_000)
    first = sessions.items[sessions.offsets[:-1]]
    per_ladder = shop.prior.reshape(-1, 2).sum(axis=1)
    p = sum(per_ladder[shop.ladder[side]] * shop.jump[side] for side in (0, 1))
    expected = len(first) * p
    chi2 = ((np.bincount(first, minlength=60) - expected) ** 2 / expected).sum()
    assert 20 < chi2 < 120  # 59 degrees of freedom


def test_the_right_probabilities_are_the_best_there_are():
    """Their log-likelihood beats those of shops that differ in one number."""
    shop = Shop(60)
    sessions = shop.simulate(1000)

    def likelihood(other):
        p = other.next_item_probabilities(sessions, sessions.cases)
        return np.log(p[np.arange(len(p)), sessions.items[sessions.cases + 1]]).mean()

    best = likelihood(shop)
    for change in ({"repeat": 0.3}, {"walk": 0.7}, {"change": 0.15}):
        assert likelihood(Shop(60, **change)) < best


@examples(50)
@given(TINY, st.integers(0, 99), st.integers(1, 20))
def test_same_seed_same_sessions(shop, seed, n):
    one, two = shop.simulate(n, seed), dataclasses.replace(shop).simulate(n, seed)
    for name in ("items", "offsets", "times", "item_ids", "session_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_another_seed_gives_other_sessions_or_another_shop():
    shop = Shop(60)
    assert shop.simulate(50, 1).items.tolist() != shop.simulate(50, 2).items.tolist()
    assert Shop(60, seed=1).item_ids.tolist() != shop.item_ids.tolist()


def test_sessions_are_in_order_and_within_the_days():
    sessions = Shop(60).simulate(2000, days=4)
    starts = sessions.starts
    assert (np.diff(starts) >= 0).all()
    assert 3.9 < (starts[-1] - starts[0]) / 86_400 < 4
    inside = np.diff(sessions.times)[sessions.cases]
    assert (inside >= 0).all() and 55 < inside.mean() < 65
    assert sessions.lengths.min() == 2 and 4.4 < sessions.lengths.mean() < 4.8
    assert sessions.items.dtype == np.int32


def test_the_catalogue_has_a_long_tail():
    """The top tenth of the items gets several times its share, the lower half far less."""
    support = np.sort(Shop(1000).simulate(5000).support)[::-1]
    assert 0.3 < support[:100].sum() / support.sum() < 0.8
    assert support[500:].sum() / support.sum() < 0.3


# --- the catalogue --------------------------------------------------------------------------------


@examples(100)
@given(st.integers(4, 400), st.integers(0, 9), st.integers(1, 12))
def test_ladders(n_items, seed, stride):
    shop = Shop(n_items, seed, stride=stride)
    np.testing.assert_allclose(shop.prior.sum(), 1)
    np.testing.assert_allclose(shop.follow.sum(axis=-1), 1)
    for side in (0, 1):
        sizes = Counter(shop.ladder[side].tolist())
        assert max(sizes.values()) - min(sizes.values()) <= 1
        totals = np.bincount(shop.ladder[side], shop.jump[side])
        np.testing.assert_allclose(totals[totals > 0], 1)
        walked = shop.goes_to[side]  # (direction, item, d): rungs of the item's own ladder
        assert (shop.ladder[side, walked] == shop.ladder[side][None, :, None]).all()
        up, down = walked[..., 0]  # one rung dearer, one cheaper: each undoes the other
        assert down[up].tolist() == up[down].tolist() == list(range(n_items))
        assert (walked[0, walked[0, :, 0], : stride - 1] == walked[0, :, 1:]).all()


def test_item_names_show_the_ladders_and_are_distinct():
    shop = Shop(200)
    names = shop.item_ids.tolist()
    assert len(set(names)) == 200 and all(isinstance(name, str) for name in names)
    kinds = {name.split(".")[0] for name in names}
    brands = {name.split(".")[1] for name in names}
    assert kinds == {f"kind{k}" for k in range(4)} and brands == {f"brand{b}" for b in range(4)}


@pytest.mark.parametrize("n_items", [3, 0, -1])
def test_a_shop_needs_four_items(n_items):
    with pytest.raises(InputError, match=rf"\Ashop: n_items must be at least 4, not {n_items}\Z"):
        Shop(n_items)


@pytest.mark.parametrize("n_sessions", [0, -1])
def test_a_simulation_needs_a_session(n_sessions):
    with pytest.raises(InputError, match=r"\Ashop: n_sessions must be at least 1, not -?\d\Z"):
        Shop(4).simulate(n_sessions)
