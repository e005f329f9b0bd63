"""Cleaning and splitting against plain Python on lists, and each protocol against 12 sessions."""

import dataclasses
import datetime
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sessions import as_lists, logs, naive_keep, one_line_error

from conftest import examples
from gru4rec_np import InputError, Sessions, clean, split
from gru4rec_np.data.protocols import PROTOCOLS, cut_by_time, merge_repeats
from gru4rec_np.data.rawlogs import CUT_AT_GAPS, READERS
from gru4rec_np.data.sessions import DAY
from gru4rec_np.data.tables import drop_duplicates

HOUR = 3600
BY = st.sampled_from(["end", "start"])


# --- cleaning -------------------------------------------------------------------------------------


def naive_merge(lists):
    return [
        (s, [e for k, e in enumerate(events) if k == 0 or events[k - 1][0] != e[0]])
        for s, events in lists
    ]


def naive_rare(lists, support):
    clicks = Counter(item for _, events in lists for item, _ in events)
    return [(s, [e for e in events if clicks[e[0]] >= support]) for s, events in lists]


def naive_short(lists, length):
    return [(s, events) for s, events in lists if len(events) >= length]


@examples(200)
@given(logs())
def test_merge_repeats(sessions):
    assert as_lists(merge_repeats(sessions)) == naive_merge(as_lists(sessions))


@examples(200)
@given(logs(), st.data())
def test_drop_duplicates(sessions, data):
    n = sessions.n_events
    times = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    ordered = [sorted(times[a:b]) for a, b in pairwise(sessions.offsets)]
    sessions = dataclasses.replace(sessions, times=np.array(list(chain(*ordered)), float))
    expected = [(s, list(dict.fromkeys(events))) for s, events in as_lists(sessions)]
    assert as_lists(drop_duplicates(sessions)) == expected


@examples(300)
@given(logs(), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.booleans())
def test_clean(sessions, support, length, repeats, until_stable):
    lists = as_lists(sessions)
    lists = lists if repeats else naive_merge(lists)
    if until_stable:
        before = None
        while lists != before:
            before = lists
            lists = naive_rare(naive_short(lists, length), support)
    else:
        if length > 1:
            lists = naive_short(lists, 2)
        lists = naive_short(naive_rare(lists, support), length)
    if not lists:
        with one_line_error("no session is left", str(length), str(support)) as error:
            clean(sessions, support, length, repeats, until_stable)
        for name, how in (("item_support", (1, length)), ("session_length", (support, 2))):
            if f"min_{name}" in str(error.value):
                assert clean(sessions, *how, repeats, until_stable).n_sessions
        return
    cleaned = clean(sessions, support, length, repeats, until_stable)
    assert as_lists(cleaned) == lists
    left = {item for _, events in lists for item, _ in events}
    assert cleaned.item_ids.tolist() == [i for i in sessions.item_ids if i in left]


def test_what_is_to_be_lowered_helps():
    lists = Sessions.from_lists([["a", "b", "a"], ["c", "d"]])
    for sessions, support, length, says in (
        (lists, 5, 2, "5 events or more; lower min_item_support?"),
        (lists, 2, 4, "2 events or more; lower min_session_length?"),
        (lists, 2, 3, "lower min_item_support or min_session_length?"),
        (lists, 1, 4, "1 events or more; lower min_session_length?"),
        (Sessions.from_lists([["a"], ["b"]]), 5, 2, "5 events or more"),
        (Sessions.from_lists([["a"], ["b"]]), 1, 2, "1 events or more"),
    ):
        with one_line_error("no session is left") as error:
            clean(sessions, support, length)
        assert str(error.value).endswith(says)


def test_sessions_of_one_event_give_no_support():
    """As in RSC15's script: of the two events of "b", one is alone in its session."""
    sessions = Sessions.from_lists([["a", "b", "a"], ["b"], ["a", "a"]])
    lists = [[item for item, _ in events] for _, events in as_lists(clean(sessions, 2, 2))]
    assert lists == [["a", "a"], ["a", "a"]]


def test_one_pass_or_until_stable():
    """Item "b" loses an event with the session of "c": the second pass sees that."""
    sessions = Sessions.from_lists([["b", "c"], ["a", "b", "a"]])
    assert clean(sessions, 2, 2).item_ids.tolist() == ["b", "a"]
    assert clean(sessions, 2, 2, until_stable=True).item_ids.tolist() == ["a"]


def test_frames_are_cleaned_and_split():
    sessions = Sessions.from_lists([["a", "b"]] * 30 + [["c"]])
    frame = pl.DataFrame(
        {
            "SessionId": np.repeat(sessions.session_ids, sessions.lengths),
            "ItemId": sessions.item_ids[sessions.items],
            "Time": sessions.times,
        }
    )
    for kind in (frame, pd.DataFrame(frame.to_dict(as_series=False))):
        assert as_lists(clean(kind)) == as_lists(clean(sessions))
        for part, expected in zip(split(kind, days=1), split(sessions, days=1), strict=True):
            assert as_lists(part) == as_lists(expected)
    with pytest.raises(InputError, match="frame"):
        clean(3)


# --- splitting ------------------------------------------------------------------------------------


def check_split(sessions, in_test, at, **how):
    """Compare with plain Python; in_test are the test sessions, at is the time of the cut."""
    lists = as_lists(sessions)
    train = [session for s, session in enumerate(lists) if s not in in_test]
    train = naive_short([(s, [e for e in events if e[1] < at]) for s, events in train], 2)
    test = [session for s, session in enumerate(lists) if s in in_test]
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
    assert got_train.times.max() < at
    whole_train, whole_test = cut_by_time(sessions, **how)
    assert as_lists(whole_test) == test
    assert whole_train.item_ids is whole_test.item_ids is sessions.item_ids


def times_of(sessions, by):
    return [events[0 if by == "start" else -1][1] for _, events in as_lists(sessions)]


@st.composite
def long_logs(draw):
    """Logs whose sessions may last for days, so that some run over a cut."""
    sessions = draw(logs(min_length=1))
    stretch = draw(st.sampled_from([1, HOUR * 5, DAY * 0.75]))
    return dataclasses.replace(sessions, times=sessions.times + stretch * sessions.positions)


@examples(300)
@given(
    long_logs(),
    st.sampled_from([0.25, 0.5, 1, 2]),
    st.sampled_from(["end", "start"]),
    st.booleans(),
)
def test_split_by_days(sessions, days, by, full_hour):
    last = max(time for _, events in as_lists(sessions) for _, time in events)
    if full_hour and last % HOUR:
        last += HOUR - last % HOUR
    at = last - days * DAY
    in_test = {s for s, time in enumerate(times_of(sessions, by)) if time >= at}
    check_split(sessions, in_test, at, days=days, by=by, full_hour=full_hour)


@examples(200)
@given(long_logs(), st.sampled_from([0.1, 0.25, 0.5, 0.75]), st.sampled_from(["end", "start"]))
def test_split_by_share(sessions, share, by):
    times = times_of(sessions, by)
    train = min(round((1 - share) * len(times)), len(times) - 1)
    at = sorted(times)[train]
    in_test = {s for s, time in enumerate(times) if time >= at}
    assert len(in_test) == len(times) - train or len(set(times)) < len(times)  # or of one time
    check_split(sessions, in_test, at, share=share, by=by)


TWO_DAYS = Sessions.from_lists([["a", "b"]] * 48)


def test_a_session_that_runs_over_the_cut():
    """Its last event makes it a test session; by its first, training has what is before the cut."""
    over = dataclasses.replace(
        Sessions.from_lists([["a", "b"], ["a", "b", "a"], ["a", "b"]]),
        times=np.array([0, 0.1, 0.5, 0.9, 1.5, 1.2, 2]) * DAY,
    )
    train, test = split(over, days=1)
    assert (train.session_ids.tolist(), test.session_ids.tolist()) == ([0], [1, 2])
    assert (train.n_events, test.n_events) == (2, 5)
    train, test = split(over, days=1, by="start")
    assert (train.session_ids.tolist(), test.session_ids.tolist()) == ([0, 1], [2])
    assert (train.n_events, test.n_events) == (4, 2)


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


@pytest.mark.parametrize("days", [-1, 0, np.nan, np.inf])
def test_days_that_are_none(days):
    with one_line_error(f"split: days must be > 0, not {days:g}"):
        split(TWO_DAYS, days=days)


def test_other_splits_that_are_refused():
    with one_line_error("split: by must be 'end' or 'start', not 'middle'"):
        split(TWO_DAYS, days=1, by="middle")
    with one_line_error("split: the log has no event"):
        split(TWO_DAYS[:0], days=1)
    sessions = Sessions.from_lists([["a", "b"], ["c", "d"]])
    with one_line_error("no test session has two items that are known from training"):
        split(sessions, share=0.5)


# --- the protocols --------------------------------------------------------------------------------

# Twelve sessions, or the logs of twelve users, that the six protocols treat in six ways.
TWELVE = {
    1: "d01 08:00:00 a, d01 08:10:00 b, d01 08:20:00 f",
    2: "d02 08:00:00 a, d02 08:10:00 a, d02 08:20:00 f",
    3: "d03 08:00:00 b, d03 08:10:00 f, d03 08:20:00 a, d03 10:00:00 b, d03 10:10:00 a",
    4: "d04 08:00:00 f, d04 08:10:00 c",
    5: "d05 08:00:00 c, d05 08:10:00 c, d05 08:20:00 c",
    6: "d06 08:00:00 c",
    7: "d07 08:00:00 a, d07 08:10:00 d, d07 08:20:00 f",
    8: "d13 09:59:40 a, d13 10:30:00 b",
    9: "d13 09:30:00 a, d13 09:50:00 b, d13 10:20:00 a",
    10: "d19 09:30:00 a, d19 09:50:00 b, d19 10:20:00 a",
    11: "d19 09:59:40 a, d19 10:30:00 b",
    12: "d20 08:00:00 b, d20 08:10:00 a, d20 08:50:00 a cart, d20 09:30:00 b, d20 09:59:30 a",
}
# The last event is on day 20 at 9:59:30. So the last day begins on day 19 at 9:59:30, the last 7
# days on day 13 at 9:59:30; from the full hour, at 10:00.
#
# rsc15. Session 6 has one event and goes first. Then c has 4 events and d one: both go. f has 5
#   (sessions 1, 2, 3, 4, 7) and stays, though session 4 goes next, having only f. Sessions 10, 11,
#   12 end in the last day.
# All others merge the repeats in 2 and 5, which makes 5 a session of one event. Sessions 5, 6 go,
#   then c (1) and d (1); then session 4 (f alone), so f has 4 events and goes; then 2 and 7 (a
#   alone). Left are 1 ab, 3 baba, 8 ab, 9 aba, 10 aba, 11 ab, 12 baba.
# yoochoose, cut on day 19 at 9:59:30. 10 starts before it: training has its ab. 11 and 12 are test.
# diginetica, cut on day 13 at 9:59:30. 8 starts 10 s later: test. Training has ab of 9.
# coveo. The gap of 100 minutes makes 3 two sessions, ba and ba. The cart at 8:50 bridges that of 80
#   minutes in 12. Else as yoochoose.
# rees46. 3 is cut, and so is 12: other events than views are left out before. The cut is on day 19
#   at 10:00: 11 starts before it, and training has one event of it, which is too short.
# retailrocket. 3 is cut, 12 is bridged. The cut is on day 13 at 10:00: training has one event of 8,
#   which is too short, and ab of 9.
WANTED = {
    "rsc15": ("abf aaf bfaba af ab aba", "aba ab baba"),
    "yoochoose": ("ab baba ab aba ab", "ab baba"),
    "diginetica": ("ab baba ab", "ab aba ab baba"),
    "coveo": ("ab ba ba ab aba ab", "ab baba"),
    "rees46": ("ab ba ba ab aba ab", "ba ba"),
    "retailrocket": ("ab ba ba ab", "aba ab baba"),
}
FORMATS = {
    "rsc15": ("", "{session},{iso}.000Z,{item},0"),
    "diginetica": (
        "sessionId;userId;itemId;timeframe;eventdate",
        "{session};NA;{item};{since};{date}",
    ),
    "coveo": (
        "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,"
        "hashed_url",
        "{session},event_product,{kind},{item},{ms},u",
    ),
    "rees46": (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
        "user_session",
        "{day_time} UTC,{kind},{item},1,,,9.99,{session},s",
    ),
    "retailrocket": (
        "timestamp,visitorid,event,itemid,transactionid",
        "{ms},{session},{kind},{item},",
    ),
}


def twelve(log):
    """The twelve sessions as a raw log; one without kinds of events lacks the cart."""
    header, line = FORMATS[log]
    lines = [header] if header else []
    first = {}
    for session, text in TWELVE.items():
        for event in text.split(", "):
            day, clock, item, *cart = event.split()
            if cart and "{kind}" not in line:
                continue
            time = datetime.datetime.fromisoformat(f"1970-01-{day[1:]}T{clock}")
            seconds = int((time - datetime.datetime(1970, 1, 1)).total_seconds())
            midnight = first.setdefault(session, seconds // 86_400 * 86_400)
            view = "detail" if log == "coveo" else "view"
            lines.append(
                line.format(
                    session=session,
                    iso=time.isoformat(),
                    day_time=f"{time:%Y-%m-%d %H:%M:%S}",
                    date=f"{time:%Y-%m-%d}",
                    since=1000 * (seconds - midnight),
                    ms=1000 * seconds,
                    item=item if log == "coveo" else ord(item),
                    kind="cart" if cart else view,
                )
            )
    return "\n".join(lines) + "\n"


def letters(sessions):
    return " ".join(
        "".join(i if isinstance(i, str) else chr(i) for i in sessions.session(s).tolist())
        for s in range(sessions.n_sessions)
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_twelve_sessions_by_hand(name, tmp_path):
    protocol, log = PROTOCOLS[name], "rsc15" if name == "yoochoose" else name
    (tmp_path / "log").write_text(twelve(log))
    gap = {"gap_minutes": protocol.gap_minutes} if log in CUT_AT_GAPS else {}
    raw = READERS[log](tmp_path / "log", **gap)
    cleaned = clean(raw, repeats=protocol.repeats, until_stable=protocol.until_stable)
    parts = split(cleaned, days=protocol.days, by=protocol.by, full_hour=protocol.full_hour)
    assert tuple(map(letters, parts)) == WANTED[name]


def test_the_default_is_rsc15s(tmp_path):
    (tmp_path / "log").write_text(twelve("rsc15"))
    parts = split(clean(READERS["rsc15"](tmp_path / "log")), days=1)
    assert tuple(map(letters, parts)) == WANTED["rsc15"]
    assert len(set(WANTED.values())) == len(PROTOCOLS)  # no protocol passes for another
