"""Session-parallel mini-batches against lanes that step forward one by one, and the sampler."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import Sessions
from gru4rec_np.data.batches import (
    draw_negatives,
    guide_table,
    negative_distribution,
    session_parallel,
)

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=12)


def numbered(lengths):
    """Sessions in which no item occurs twice: event e is item e."""
    ends = np.cumsum(lengths).tolist()
    lists = [list(range(end - n, end)) for end, n in zip(ends, lengths, strict=True)]
    return Sessions.from_lists(lists)


def simulate(sessions, batch_size, min_lanes, order):
    """The rule word by word, lane by lane; yields (x, y, reset, keep) of each step as lists."""
    unused = [sessions.session(s).tolist() for s in order]
    unused = [session for session in unused if len(session) >= 2]
    lanes = [unused.pop(0) for _ in range(min(batch_size, len(unused)))]
    at = [0] * len(lanes)  # each lane's place in its session
    keep = [True] * len(lanes)
    while len(lanes) >= min_lanes:
        x = [session[p] for session, p in zip(lanes, at, strict=True)]
        y = [session[p + 1] for session, p in zip(lanes, at, strict=True)]
        yield x, y, [p == 0 for p in at], keep
        keep = [True] * len(lanes)
        for b in range(len(lanes)):
            at[b] += 1
            if at[b] == len(lanes[b]) - 1:  # nothing left to predict
                if unused:
                    lanes[b], at[b] = unused.pop(0), 0
                else:
                    keep[b] = False
        lanes = [session for session, stays in zip(lanes, keep, strict=True) if stays]
        at = [p for p, stays in zip(at, keep, strict=True) if stays]


@examples(300)
@given(LENGTHS, st.integers(1, 15), st.sampled_from([1, 2]), st.data())
def test_batches_against_the_simulation(lengths, batch_size, min_lanes, data):
    sessions = numbered(lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    batches = session_parallel(sessions, batch_size, min_lanes, np.array(order))
    steps = list(simulate(sessions, batch_size, min_lanes, order))
    B = min(batch_size, sum(n >= 2 for n in lengths))
    assert len(batches) == len(steps)
    assert batches.lanes.tolist() == [len(x) for x, *_ in steps]
    for t, (x, y, reset, keep) in enumerate(steps):
        gone = B - len(x)
        assert batches.x[t].tolist() == x + [-1] * gone
        assert batches.y[t].tolist() == y + [-1] * gone
        assert batches.reset[t].tolist() == reset + [False] * gone
        assert batches.keep[t].tolist() == keep + [False] * (B - len(keep))
    assert batches.x.dtype == batches.y.dtype == np.int32


@examples(200)
@given(LENGTHS, st.integers(1, 15))
def test_every_question_is_asked_exactly_once(lengths, batch_size):
    sessions = numbered(lengths)
    batches = session_parallel(sessions, batch_size, min_lanes=1)
    asked = batches.x >= 0
    assert sorted(batches.x[asked].tolist()) == sessions.cases.tolist()
    assert (batches.y[asked] == batches.x[asked] + 1).all()


@examples(200)
@given(LENGTHS, st.integers(1, 15), st.sampled_from([1, 2]))
def test_a_lanes_state_never_leaks(lengths, batch_size, min_lanes):
    """A state that is the list of all items since its last zero is always one session's start."""
    sessions = numbered(lengths)
    batches = session_parallel(sessions, batch_size, min_lanes)
    begins = [sessions.session(s).tolist() for s in range(len(lengths))]
    state = [[] for _ in range(batches.x.shape[1])]
    for x, n, reset, keep in zip(
        batches.x, batches.lanes, batches.reset, batches.keep, strict=True
    ):
        state = [old for old, stays in zip(state, keep[: len(state)], strict=True) if stays]
        assert len(state) == n
        state = [([] if zero else old) for old, zero in zip(state, reset[:n], strict=True)]
        state = [[*old, item] for old, item in zip(state, x[:n].tolist(), strict=True)]
        assert all(any(s[: len(old)] == old for s in begins) for old in state)


@examples(200)
@given(LENGTHS, st.data())
def test_sessions_are_used_by_start_time_equal_times_in_their_order(lengths, data):
    sessions = numbered(lengths)
    starts = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    times = sessions.positions / 10 + np.repeat(starts, sessions.lengths)
    sessions = dataclasses.replace(sessions, times=times)
    order = sorted(range(len(lengths)), key=lambda s: starts[s])
    batches = session_parallel(sessions, batch_size=3)
    expected = session_parallel(sessions, batch_size=3, order=np.array(order))
    np.testing.assert_array_equal(batches.x, expected.x)


def test_figure_2_of_the_paper():
    """Sessions of 4, 2, 6, 2 and 3 events over 3 lanes: i<session>,<event> as 10 s + e."""
    lists = [[10 * s + e for e in range(1, n + 1)] for s, n in enumerate([4, 2, 6, 2, 3], 1)]
    sessions = Sessions.from_lists(lists)
    batches = session_parallel(sessions, batch_size=3, min_lanes=1)
    fed = [sessions.item_ids[row[:n]].tolist() for row, n in zip(batches.x, batches.lanes)]  # noqa: B905
    assert fed == [[11, 21, 31], [12, 41, 32], [13, 51, 33], [52, 34], [35]]
    assert batches.keep[3].tolist() == [False, True, True]
    assert batches.reset[1].tolist() == [False, True, False]


@pytest.mark.parametrize("lists", [[], [[1]], [[1], [2]], [[1, 2, 3]]])
def test_no_steps_where_there_are_too_few_sessions(lists):
    batches = session_parallel(Sessions.from_lists(lists), batch_size=4, min_lanes=2)
    assert len(batches) == 0 and len(batches.lanes) == 0


# --- negatives ------------------------------------------------------------------------------------

SUPPORT = st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any).map(np.array)


@examples(200)
@given(SUPPORT, st.sampled_from([0.25, 0.5, 0.75, 1.0, 2.0]), st.integers(0, 9))
def test_items_without_support_are_never_drawn(support, sample_alpha, seed):
    distribution = negative_distribution(support, sample_alpha)
    drawn = draw_negatives(np.random.default_rng(seed), distribution, (20, 30))
    assert drawn.shape == (20, 30) and drawn.dtype == np.int32
    assert (support[drawn] > 0).all()


@examples(200)
@given(SUPPORT, st.sampled_from([0.0, 0.75, 1.0]))
def test_distribution_is_support_to_the_power_of_alpha(support, sample_alpha):
    weights = [float(n) ** sample_alpha for n in support]
    distribution = negative_distribution(support, sample_alpha)
    np.testing.assert_allclose(np.diff(distribution, prepend=0), np.array(weights) / sum(weights))
    assert distribution[-1] == 1


def test_a_large_alpha_does_not_overflow():
    distribution = negative_distribution(np.array([0, 3, 10**6, 0, 10**6]), 1e3)
    np.testing.assert_allclose(distribution, [0, 0, 0.5, 0.5, 1])
    assert negative_distribution(np.array([0, 5]), 0.0).tolist() == [0.5, 1]


class Extremes:
    """A generator whose draws are the ends of [0, 1)."""

    def random(self, shape):
        return np.resize([0.0, np.nextafter(1, 0)], shape)


@examples(200)
@given(SUPPORT)
def test_the_extreme_draws_hit_the_first_and_last_item_with_support(support):
    drawn = draw_negatives(Extremes(), negative_distribution(support, 1.0), (2,))
    assert drawn.tolist() == np.flatnonzero(support)[[0, -1]].tolist()


@pytest.mark.parametrize("sample_alpha", [0.0, 0.5, 0.75, 1.0])
def test_frequencies(sample_alpha):
    """Pearson's χ² of 49 degrees of freedom exceeds 100 once in 30,000 seeds."""
    support = np.random.default_rng(0).integers(1, 1000, 50)
    n = 100_000
    distribution = negative_distribution(support, sample_alpha)
    drawn = draw_negatives(np.random.default_rng(1), distribution, (100, n // 100))
    expected = n * support**sample_alpha / (support**sample_alpha).sum()
    chi2 = ((np.bincount(drawn.ravel(), minlength=50) - expected) ** 2 / expected).sum()
    assert 15 < chi2 < 100


def test_same_seed_same_draws():
    distribution = negative_distribution(np.arange(1, 100), 0.75)
    one, two, other = (
        draw_negatives(np.random.default_rng(seed), distribution, (5, 8)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("n_items", [1, 2, 300, 20_000, 600_000])
@pytest.mark.parametrize("sample_alpha", [0.0, 0.75, 3.0])
def test_the_guide_table_changes_no_draw(n_items, sample_alpha):
    """Catalogues smaller and larger than the table, and items that are hardly ever drawn."""
    support = np.random.default_rng(0).integers(0, 1000, n_items) + (np.arange(n_items) == 0)
    distribution = negative_distribution(support, sample_alpha)
    guide = guide_table(distribution)
    assert len(guide) > n_items  # so that most parts allow few items
    plain, guided = (
        draw_negatives(np.random.default_rng(1), distribution, (50, 1000), table)
        for table in (None, guide)
    )
    np.testing.assert_array_equal(guided, plain)
    edges = [draw_negatives(Extremes(), distribution, (2,), table) for table in (None, guide)]
    np.testing.assert_array_equal(*edges)


def test_the_guide_table_is_right_at_the_very_edge_of_an_item():
    """Draws that are an item's bound itself, and the numbers next to it."""

    class Bounds:
        def random(self, shape):
            bounds = np.append(distribution[:-1], [k / 2**18 for k in range(9)])
            return np.concatenate([bounds, np.nextafter(bounds, 0), np.nextafter(bounds, 1)])

    distribution = np.arange(1, 1025) / 1024  # on the table's own bounds
    plain = draw_negatives(Bounds(), distribution, ())
    guided = draw_negatives(Bounds(), distribution, (), guide_table(distribution))
    np.testing.assert_array_equal(guided, plain)
