"""The arrays of click logs, cleaning and splitting, against plain Python on lists."""

import dataclasses
import datetime as dt
import re
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gru4rec_np import InputError, Sessions, clean, split
from gru4rec_np.data.sessions import DAY, merge_repeats


def as_lists(sessions):
    """[(session id, [(item id, time), ...]), ...]: what the naive versions work on."""
    out = []
    for s, session_id in enumerate(sessions.session_ids.tolist()):
        times = sessions.times[sessions.offsets[s] : sessions.offsets[s + 1]]
        out.append((session_id, list(zip(sessions.session(s), times, strict=True))))
    return out


def one_line_error(*words):
    """Expect an InputError of one line that contains all words, in this order."""
    return pytest.raises(InputError, match=r"\A.*" + ".*".join(map(re.escape, words)) + r".*\Z")


# --- the arrays -----------------------------------------------------------------------------------


@st.composite
def logs(draw, min_length=0):
    """Sessions of few items, so that they repeat, starting at half days in any order."""
    session = st.lists(st.sampled_from("abcdef"), min_size=min_length, max_size=6)
    lists = draw(st.lists(session, min_size=1, max_size=8))
    sessions = Sessions.from_lists(lists)
    half_days = draw(st.lists(st.integers(0, 5), min_size=len(lists), max_size=len(lists)))
    shift = np.repeat(np.array(half_days) * DAY / 2, sessions.lengths)
    return dataclasses.replace(sessions, times=sessions.positions + shift)


@settings(max_examples=200)
@given(logs())
def test_support_cases_positions(sessions):
    lists = as_lists(sessions)
    clicks = Counter(item for _, events in lists for item, _ in events)
    assert dict(zip(sessions.item_ids, sessions.support, strict=True)) == clicks
    assert sessions.n_events == clicks.total() and sessions.n_items == len(clicks)
    assert sessions.n_sessions == len(lists)
    assert sessions.lengths.tolist() == [len(events) for _, events in lists]

    positions, cases = [], []
    for _, events in lists:
        cases += range(len(positions), len(positions) + len(events) - 1)
        positions += range(len(events))
    assert sessions.positions.tolist() == positions
    assert sessions.cases.tolist() == cases


@settings(max_examples=200)
@given(logs(), st.data())
def test_keep_events_keep_sessions_compact(sessions, data):
    lists = as_lists(sessions)
    events = data.draw(st.lists(st.booleans(), min_size=len(sessions.items), max_size=48))
    events = np.array(events[: sessions.n_events], bool)
    flags = iter(events.tolist())
    kept = [(s, [event for event in session if next(flags)]) for s, session in lists]
    assert as_lists(sessions.keep_events(events)) == kept

    some = np.array(data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=8)))
    some = some[: len(lists)]
    assert as_lists(sessions.keep_sessions(some)) == [
        session for session, keep in zip(lists, some, strict=True) if keep
    ]

    compact = sessions.keep_events(events).compact()
    assert as_lists(compact) == kept
    used = {item for _, session in kept for item, _ in session}
    assert compact.item_ids.tolist() == [i for i in sessions.item_ids if i in used]


@settings(max_examples=200)
@given(logs())
def test_from_lists_round_trip(sessions):
    lists = [[item for item, _ in events] for _, events in as_lists(sessions)]
    again = Sessions.from_lists(lists)
    assert [again.session(s).tolist() for s in range(again.n_sessions)] == lists
    assert again.item_ids.tolist() == list(dict.fromkeys(chain.from_iterable(lists)))
    assert all(a < b for a, b in pairwise(again.times))


def test_lists_of_ids_of_every_type():
    for ids in ([1, 2], ["x", "1"], [1.0, 2.5], [True, False], [dt.date(2020, 1, 1)]):
        assert Sessions.from_lists([ids]).session(0).tolist() == ids
    assert Sessions.from_lists([[2**70, 1]]).session(0).tolist() == [str(2**70), "1"]
    assert Sessions.from_lists([np.array(["x"]), np.array(["y"])]).item_ids.tolist() == ["x", "y"]
    assert Sessions.from_lists([]).item_ids.dtype == np.int64
    for bad in (None, (1, 2), b"x"):
        with one_line_error("item ids: values of type", "are no ids"):
            Sessions.from_lists([[bad]])
    with one_line_error("nan is no id"):
        Sessions.from_lists([[1.0, float("nan")]])


# --- cleaning and splitting -----------------------------------------------------------------------


def naive_merge(lists):
    return [
        (s, [e for k, e in enumerate(events) if k == 0 or events[k - 1][0] != e[0]])
        for s, events in lists
    ]


def naive_keep(lists, items, length):
    """Events of these items, then sessions of at least that length."""
    known = [(s, [event for event in events if event[0] in items]) for s, events in lists]
    return [(s, events) for s, events in known if len(events) >= length]


@settings(max_examples=200)
@given(logs())
def test_merge_repeats(sessions):
    assert as_lists(merge_repeats(sessions)) == naive_merge(as_lists(sessions))


@settings(max_examples=200)
@given(logs(), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_clean(sessions, support, length, repeats):
    lists = as_lists(sessions)
    lists = lists if repeats else naive_merge(lists)
    clicks = Counter(item for _, events in lists for item, _ in events)
    lists = naive_keep(lists, {i for i, n in clicks.items() if n >= support}, length)
    if not lists:
        with one_line_error("no session is left", str(length), str(support)):
            clean(sessions, support, length, repeats)
        return
    cleaned = clean(sessions, support, length, repeats)
    assert as_lists(cleaned) == lists
    left = {item for _, events in lists for item, _ in events}
    assert cleaned.item_ids.tolist() == [i for i in sessions.item_ids if i in left]


def test_clean_counts_support_once():
    """Support is not counted again after short sessions have gone (the paper's order)."""
    sessions = Sessions.from_lists([["a"], ["a", "b", "b"]])
    assert as_lists(clean(sessions, 2, 2))[0][1] == [("a", 3600.0), ("b", 3601.0), ("b", 3602.0)]


@settings(max_examples=200)
@given(logs(), st.sets(st.sampled_from("abcdefg"), min_size=1))
def test_restrict(sessions, known):
    catalogue = np.array(sorted(known, reverse=True), object)
    lists = naive_keep(as_lists(sessions), known, 2)
    if not lists:
        with one_line_error("no test session"):
            sessions.restrict(catalogue)
        return
    restricted = sessions.restrict(catalogue)
    assert restricted.item_ids is catalogue
    assert as_lists(restricted) == lists
    assert as_lists(restricted.restrict(catalogue)) == lists


def test_items_are_the_same_if_their_texts_are():
    """One id that is no number makes all ids of its log text."""
    of_text = Sessions.from_lists([["1", "x", "2", "007"]])
    restricted = of_text.restrict(np.array([2, 7, 1]))
    assert as_lists(restricted)[0][1] == [(1, 0.0), (2, 2.0)]
    of_numbers = Sessions.from_lists([[1, 2, 7]])
    assert of_numbers.restrict(of_text.item_ids).session(0).tolist() == ["1", "2"]
    with one_line_error("no test session", "of 2 test items 1 are known"):
        Sessions.from_lists([["1", "007"]]).restrict(np.array([1, 7]))


def check_split(sessions, in_test, **how):
    """Compare with plain Python; in_test are the indices of the test sessions."""
    lists = as_lists(sessions)
    train = [session for s, session in enumerate(lists) if s not in in_test]
    test = [session for s, session in enumerate(lists) if s in in_test]
    assume(any(train))
    train = [(s, events) for s, events in train if len(events) >= 2]
    known = {item for _, events in train for item, _ in events}
    seen = naive_keep(test, known, 2)
    if not seen or not train:
        with pytest.raises(InputError):
            split(sessions, **how)
        return
    got_train, got_test = split(sessions, **how)
    assert as_lists(got_train) == train
    assert as_lists(got_test) == seen
    assert got_train.item_ids is got_test.item_ids
    assert got_train.item_ids.tolist() == [i for i in sessions.item_ids if i in known]


@settings(max_examples=200)
@given(logs(min_length=1), st.sampled_from([0.25, 0.5, 1, 1.5, 2]))
def test_split_by_days(sessions, days):
    end = max(time for _, events in as_lists(sessions) for _, time in events)
    starts = [events[0][1] for _, events in as_lists(sessions)]
    check_split(sessions, {s for s, t in enumerate(starts) if t >= end - days * DAY}, days=days)


@settings(max_examples=200)
@given(logs(min_length=1), st.sampled_from([0.1, 0.25, 0.5, 0.75]))
def test_split_by_share(sessions, share):
    starts = [events[0][1] for _, events in as_lists(sessions)]
    by_start = sorted(range(len(starts)), key=lambda s: starts[s])
    check_split(sessions, set(by_start[round((1 - share) * len(starts)) :]), share=share)


TWO_DAYS = Sessions.from_lists([["a", "b"]] * 48)


def test_a_session_that_runs_over_midnight_stays_whole():
    """It started before the last day, so all of it is for training."""
    over = dataclasses.replace(
        Sessions.from_lists([["a", "b"], ["a", "b"]]), times=np.array([0, 1.5 * DAY, DAY, 2 * DAY])
    )
    train, test = split(over, days=1)
    assert (train.n_events, test.n_events) == (2, 2)


@pytest.mark.parametrize("how", [{}, {"days": 1, "share": 0.5}])
def test_split_needs_one_of_days_and_share(how):
    with one_line_error("split: give either days or share"):
        split(TWO_DAYS, **how)


@pytest.mark.parametrize(
    ("how", "value"),
    [("days", v) for v in (-1, 9, np.nan)] + [("share", v) for v in (-0.5, 0, 1, 1.5, np.nan)],
)
def test_splits_that_leave_a_side_empty(how, value):
    with one_line_error("split", f"{value:g}"):
        split(TWO_DAYS, **{how: value})


def test_a_test_set_of_unknown_items():
    sessions = Sessions.from_lists([["a", "b"], ["c", "d"]])
    with one_line_error("no test session has two items that are known from training"):
        split(sessions, share=0.5)
