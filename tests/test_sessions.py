"""The arrays of click logs, against plain Python on lists."""

import dataclasses
import datetime as dt
import re
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import InputError, Sessions
from gru4rec_np.data.sessions import DAY


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


@examples(200)
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


@examples(200)
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


@examples(200)
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


@examples(100)
@given(logs(), st.data())
def test_indexing_is_numpys(sessions, data):
    lists = as_lists(sessions)
    n = len(lists)
    assert len(sessions) == n and sessions.shape == (n,)
    index = data.draw(st.lists(st.integers(-n, n - 1), max_size=12))
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    part = data.draw(st.slices(n))
    for which in (np.array(index, int), np.array(mask, bool), part, (np.array(index, int), ...)):
        chosen = sessions[which]
        assert as_lists(chosen) == [lists[s] for s in np.arange(n)[which]]
        assert chosen.item_ids is sessions.item_ids
    assert as_lists(sessions[-1]) == lists[-1:]
    assert as_lists(sessions[mask]) == as_lists(sessions.keep_sessions(np.array(mask)))
    with pytest.raises(IndexError):
        sessions[n]
    assert [as_lists(one) for one in sessions] == [[session] for session in lists]


def test_scikit_learn_splits_sessions():
    from sklearn.model_selection import KFold, train_test_split

    sessions = Sessions.from_lists([["a", "b"]] * 9)
    for train, test in KFold(3).split(sessions):
        assert (len(sessions[train]), len(sessions[test])) == (6, 3)
    train, test = train_test_split(sessions, test_size=3, random_state=0)
    assert sorted([*train.session_ids, *test.session_ids]) == list(range(9)) and len(test) == 3


def test_a_short_repr():
    sessions = Sessions.from_lists([["a", "b"]] * 1000)
    text = "Sessions(1,000 sessions, 2,000 events, 2 items, 1970-01-01 to 1970-02-11)"
    assert repr(sessions) == text
    assert repr(sessions[:0]) == "Sessions(0 sessions, 0 events, 2 items)"


@examples(50)
@given(logs())
def test_starts_ends_durations(sessions):
    for s, (_, events) in enumerate(as_lists(sessions)):
        got = sessions.starts[s], sessions.ends[s], sessions.durations[s]
        if events:
            assert got == (events[0][1], events[-1][1], events[-1][1] - events[0][1])
        else:
            assert np.isnan(got).all()


def naive_keep(lists, items, length):
    """Events of these items, then sessions of at least that length."""
    known = [(s, [event for event in events if event[0] in items]) for s, events in lists]
    return [(s, events) for s, events in known if len(events) >= length]


@examples(200)
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
