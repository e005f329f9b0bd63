"""Each public log, byte for byte as it is published, and each fault such a file can have."""

import datetime
import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec_np import InputError
from gru4rec_np.data import rawcolumns, rawlogs

RSC15 = b"""\
1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,0
2,2014-04-07T13:56:37.614Z,214662742,0
2,2014-04-07T13:56:37.614Z,214662741,S
2,2014-04-07T13:56:37.613Z,214825110,Special Offers
11,2014-04-03T10:44:35Z,214821275,12
1,2014-04-07T10:54:46.998Z,214536506,2089046404
"""

DIGINETICA = b"""\
sessionId;userId;itemId;timeframe;eventdate
1;NA;81766;526309;2016-05-09
1;NA;31331;1031018;2016-05-09
1;NA;32118;243569;2016-05-09
2;;9654;75848;2016-05-09
3;18278;81766;173912;1970-01-02
"""

MINUTE = 60_000
RETAILROCKET = f"""\
timestamp,visitorid,event,itemid,transactionid
1433221332117,257597,view,355908,
1433224214164,992329,view,248676,
{1433221332117 + 60 * MINUTE},257597,view,3,
{1433221332117 + 30 * MINUTE},257597,view,2,
1433221999827,111016,addtocart,318965,
1433221955914,483717,view,253185,
1433221337106,111016,transaction,318965,4000
{1433221332117 + 90 * MINUTE + 1},257597,view,4,
{1433221332117 + 90 * MINUTE + 1},257597,view,5,
""".encode()

OTTO = b"""\
{"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}, \
{"aid": 1563459, "ts": 1659304904511, "type": "carts"}, \
{"aid": 1309446, "ts": 1659367439426, "type": "clicks"}]}
{"session": 1, "events": [{"aid": 424964, "ts": 1659304800025, "type": "carts"}]}
{"session": 12899779, "events": [{"aid": 1517085, "ts": 1661723968621, "type": "clicks"}]}
"""

REES46 = b"""\
event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde-8bb3
2019-10-01 00:00:01 UTC,cart,3900821,2053013552326770905,appl,aqua,33.2,541312140,72d76fde-8bb3
2019-10-31 23:59:59 UTC,view,17200506,2053013559792632471,,,543.10,541312140,9333dfbd-b87a
2019-10-01 00:59:00 UTC,view,1307067,2053013558920217191,,lenovo,251.74,541312140,9333dfbd-b87a
2019-10-01 00:00:04 UTC,view,1004237,2053013555631882655,,apple,1081.98,535871217,
"""

COVEO = b"""\
session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url
20c458b8,pageview,,,1550885210881,7e4527ac
20c458b8,event_product,detail,d5157f8b,1550885213307,4ed279f4
20c458b8,event_product,add,d5157f8b,1550885213308,4ed279f4
20c458b8,event_product,detail,61ef3869,1550885213307,4ed279f4
3c7b9d21,event_product,detail,61ef3869,1550885213306,2c0c3b5b
20c458b8,pageview,,,1550888813308,7e4527ac
20c458b8,event_product,detail,aaaa0000,1550888813309,7e4527ac
"""

LOGS = {
    "rsc15": RSC15,
    "diginetica": DIGINETICA,
    "retailrocket": RETAILROCKET,
    "rees46": REES46,
    "coveo": COVEO,
    "otto": OTTO,
}


@pytest.fixture
def read(tmp_path):
    """read(log, content): the log's reader applied to a file of these bytes."""

    def read(log, content, **options):
        path = tmp_path / f"{log}.log"
        path.write_bytes(content)
        return rawlogs.READERS[log](path, **options)

    return read


def test_the_replacement_character_may_be_in_an_id(read):
    """It stands for bytes that are not UTF-8 only where there are some."""
    ids = read("rees46", REES46.replace(b"72d76fde", "\ufffd".encode())).session_ids
    assert "\ufffd-8bb3" in ids.tolist()


def as_dict(sessions):
    """{session id: ([item ids], [times])}, in order."""
    lists = {}
    for s, name in enumerate(sessions.session_ids.tolist()):
        times = sessions.times[sessions.offsets[s] : sessions.offsets[s + 1]]
        lists[name] = (sessions.session(s).tolist(), times.tolist())
    return lists


# --- the formats ----------------------------------------------------------------------------------


def test_rsc15(read):
    sessions = read("rsc15", RSC15)
    # 1396867869 is 2014-04-07T10:51:09Z. Session 2 is in order of time, equal times in file order.
    assert as_dict(sessions) == {
        1: (
            [214536502, 214536500, 214536506],
            [1396867869.277, 1396868049.868, 1396868086.998],
        ),
        2: (
            [214825110, 214662742, 214662741],
            [1396878997.613, 1396878997.614, 1396878997.614],
        ),
        11: ([214821275], [1396521875.0]),
    }
    assert sessions.item_ids.dtype == sessions.session_ids.dtype == np.int64


def test_diginetica(read):
    # 1462752000 is 2016-05-09T00:00:00Z.
    assert as_dict(read("diginetica", DIGINETICA)) == {
        1: ([32118, 81766, 31331], [1462752243.569, 1462752526.309, 1462753031.018]),
        2: ([9654], [1462752075.848]),
        3: ([81766], [86573.912]),
    }


def test_diginetica_finds_columns_by_name_in_either_spelling(read):
    content = b"eventdate;itemId;more;sessionId;timeframe\n1970-01-01;7;;3;1500\n"
    assert as_dict(read("diginetica", content)) == {3: ([7], [1.5])}
    content = DIGINETICA.replace(b"sessionId;userId;itemId", b"session_id;user_id;item_id")
    assert as_dict(read("diginetica", content)) == as_dict(read("diginetica", DIGINETICA))


def test_diginetica_counts_from_the_sessions_first_day(read):
    """The timeframe goes on over midnight; the date of a later event would count the day twice."""
    content = DIGINETICA[:44] + b"7;;1;90000000;1970-01-03\n7;;2;1000;1970-01-02\n"
    assert as_dict(read("diginetica", content)) == {7: ([2, 1], [86401.0, 86400 + 90000.0])}


def test_retailrocket_cuts_visitors_after_more_than_an_hour(read):
    """Session 1 is of a visitor without a view."""
    start = 1433221332.117
    assert read("retailrocket", RETAILROCKET).lengths.tolist() == [5, 1, 1]
    assert as_dict(read("retailrocket", RETAILROCKET, gap_minutes=30)) == {
        2: ([355908, 2, 3], [start, 1433223132.117, 1433224932.117]),
        3: ([4, 5], [1433226732.118] * 2),
        4: ([253185], [1433221955.914]),
        5: ([248676], [1433224214.164]),
    }


def test_retailrocket_options(read):
    short = read("retailrocket", RETAILROCKET, gap_minutes=29.5)
    assert short.lengths.tolist() == [1, 1, 1, 2, 1, 1]
    carts = read("retailrocket", RETAILROCKET, event="addtocart")
    assert as_dict(carts) == {1: ([318965], [1433221999.827])}


def test_an_event_of_another_kind_bridges_a_gap(read):
    """A visitor who adds to the cart has not left: the gap is in the events of all kinds."""
    header = RETAILROCKET[:50]
    views = [f"{minute * MINUTE},1,view,{item},\n".encode() for minute, item in ((0, 7), (100, 8))]
    cart = f"{50 * MINUTE},1,addtocart,9,\n".encode()
    assert read("retailrocket", header + views[0] + views[1]).lengths.tolist() == [1, 1]
    assert read("retailrocket", header + views[0] + cart + views[1]).session(0).tolist() == [7, 8]


@pytest.mark.parametrize("log", rawlogs.CUT_AT_GAPS)
def test_bad_gaps(log, read):
    for bad in (0, -1, float("nan")):
        with pytest.raises(InputError, match="gap_minutes must be above 0, not"):
            read(log, LOGS[log], gap_minutes=bad)


def test_rees46(read):
    dropped = Counter()
    # 1569888000 is 2019-10-01T00:00:00Z.
    assert as_dict(read("rees46", REES46, dropped=dropped)) == {
        "72d76fde-8bb3": ([44600062], [1569888000.0]),
        "9333dfbd-b87a": ([1307067, 17200506], [1569891540.0, 1572566399.0]),
    }
    assert dropped == {"events of other kinds than view": 1, "events without a user_session": 1}
    by_user = read("rees46", REES46, gap_minutes=60)
    assert by_user.item_ids[by_user.items].tolist() == [1004237, 44600062, 1307067, 17200506]
    assert by_user.lengths.tolist() == [1, 2, 1]
    assert read("rees46", REES46, gap_minutes=58).lengths.tolist() == [1, 1, 1, 1]
    assert read("rees46", REES46, event="cart").session(0).tolist() == [3900821]


def test_coveo(read):
    dropped = Counter()
    expected = {
        "20c458b8": (
            ["d5157f8b", "61ef3869", "aaaa0000"],
            [1550885213.307, 1550885213.307, 1550888813.309],
        ),
        "3c7b9d21": (["61ef3869"], [1550885213.306]),
    }
    assert as_dict(read("coveo", COVEO, dropped=dropped)) == expected
    assert dropped == {"events of other kinds than detail": 3}
    older = COVEO.replace(b"product_sku_hash", b"product_skus_hash")
    assert as_dict(read("coveo", older)) == expected
    # From the cart at ...213308 to the page view it is an hour to the millisecond: no gap.
    assert read("coveo", COVEO, gap_minutes=60).lengths.tolist() == [3, 1]
    assert read("coveo", COVEO, gap_minutes=59.99).lengths.tolist() == [2, 1, 1]


@pytest.mark.parametrize("log", LOGS)
def test_several_files_are_one_log(log, tmp_path):
    """Cut anywhere, with the header again: a session goes on in the next file."""
    lines = LOGS[log].splitlines(keepends=True)
    header = [] if log in ("rsc15", "otto") else lines[:1]
    for at in range(len(header) + 1, len(lines)):
        (tmp_path / "1").write_bytes(b"".join(lines[:at]))
        (tmp_path / "2").write_bytes(b"".join(header + lines[at:]))
        told = []
        options = {"gap_minutes": 40} if log in rawlogs.CUT_AT_GAPS else {}
        both = rawlogs.READERS[log](
            [tmp_path / "1", str(tmp_path / "2")],
            watch=lambda done, of, told=told: told.append((done, of)),
            **options,
        )
        (tmp_path / "all").write_bytes(LOGS[log])
        assert as_dict(both) == as_dict(rawlogs.READERS[log](tmp_path / "all", **options))
        sizes = [(tmp_path / name).stat().st_size for name in "12"]
        assert told == [(sizes[0], sum(sizes)), (sum(sizes), sum(sizes))]


def test_a_fault_in_the_second_file_is_named(tmp_path):
    (tmp_path / "1").write_bytes(RSC15)
    (tmp_path / "2").write_bytes(RSC15 + b"3,2014-04-07T10:51:09.277Z,x,0\n")
    with pytest.raises(InputError, match=r"/2, line 8, column item: 'x'"):
        rawlogs.read_rsc15([tmp_path / "1", tmp_path / "2"])
    with pytest.raises(InputError, match="/3: no such file"):
        rawlogs.read_rsc15([tmp_path / "1", tmp_path / "3"])


def test_otto(read):
    assert as_dict(read("otto", OTTO)) == {
        0: ([1517085, 1309446], [1659304800.025, 1659367439.426]),
        12899779: ([1517085], [1661723968.621]),
    }
    assert as_dict(read("otto", OTTO, event="carts")) == {
        0: ([1563459], [1659304904.511]),
        1: ([424964], [1659304800.025]),
    }


def test_otto_session_without_events(read):
    assert as_dict(read("otto", b'{"session": 7, "events": []}\n' + OTTO)).keys() == {0, 12899779}


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("block", [1, 100, 1 << 26])
def test_same_sessions_however_the_file_is_cut_and_ended(log, block, read):
    expected = as_dict(read(log, LOGS[log]))
    windows = LOGS[log].replace(b"\n", b"\r\n")
    with mock.patch.object(rawcolumns, "BLOCK", block):
        for content in (
            LOGS[log],
            LOGS[log].removesuffix(b"\n"),
            LOGS[log] + b"\n\n\n",
            windows,
            b"\xef\xbb\xbf" + LOGS[log],
            gzip.compress(LOGS[log], mtime=0),
            gzip.compress(LOGS[log][:99], mtime=0) + gzip.compress(LOGS[log][99:], mtime=0),
        ):
            assert as_dict(read(log, content)) == expected


# --- write at random, read back -------------------------------------------------------------------


VIEWS = {"otto": "clicks", "coveo": "detail"}  # the kind that is kept, where it is not "view"


def render(log: str, events: Iterable[tuple[int, int, int, bool]]) -> bytes:
    """Events (session, item, milliseconds since 1970, kept) as the bytes of a log."""
    lines = []
    first = {}
    for session, item, ms, kept in events:
        days, rest = divmod(ms, DAY)
        first[session] = min(days, first.get(session, days))
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
        kind = VIEWS.get(log, "view") if kept else "cart"
        event = {"aid": item, "ts": ms, "type": kind}
        lines.append(
            {
                "rsc15": f"{session},{moment.isoformat(timespec='milliseconds')}Z,{item},0",
                "diginetica": f"{session};NA;{item};{rest};{date}",
                "retailrocket": f"{ms},{session},{kind},{item if kept else '?'},",
                "rees46": f"{moment:%Y-%m-%d %H:%M:%S} UTC,{kind},{item},1,,,1.0,5,u{session}",
                "coveo": f"s{session},x,{kind if kept else ''},{item if kept else ''},{ms},u",
                "otto": json.dumps({"session": session, "events": [event]}),
            }[log]
        )
    if log not in ("rsc15", "otto"):
        lines.insert(0, LOGS[log].decode().split("\n")[0])
    return "".join(line + "\n" for line in lines).encode()


DAY = 24 * 60 * MINUTE
EVENT = st.tuples(
    st.integers(0, 3),
    st.integers(0, 2**40),
    st.integers(0, 2**42) | st.integers(0, 10),
    st.booleans(),
)


@given(
    log=st.sampled_from(sorted(LOGS)),
    events=st.lists(EVENT, min_size=1, max_size=20),
    block=st.integers(1, 500),
)
def test_reads_back_what_was_written(log, events, block, tmp_path_factory):
    """Each row is an event, or counted among those that a named rule leaves out."""
    if log in ("rsc15", "diginetica"):  # all rows are views
        events = [(*event[:3], True) for event in events]
    if log == "rees46":  # whole seconds
        events = [(s, item, ms // 1000 * 1000, kept) for s, item, ms, kept in events]
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(render(log, events))
    dropped = Counter()
    views = [event for event in events if event[3]]
    with mock.patch.object(rawcolumns, "BLOCK", block):
        if not views:
            with pytest.raises(InputError, match="the log has no event of"):
                rawlogs.READERS[log](path, dropped=dropped)
        else:
            sessions = rawlogs.READERS[log](path, dropped=dropped)
    assert dropped.total() == len(events) - len(views) and len(dropped) <= 1
    if not views:
        return
    assert sessions.n_events + dropped.total() == len(events)
    if log == "retailrocket":
        expected = cut(events)
    else:
        expected = {}
        days = {}
        for session, _, ms, _ in events:
            days[session] = min(ms // DAY, days.get(session, ms // DAY))
        for session, item, ms, _ in views:
            if log == "diginetica":  # from the session's first day
                ms = days[session] * DAY + ms % DAY
            name = {"rees46": f"u{session}", "coveo": f"s{session}"}.get(log, session)
            expected.setdefault(name, []).append((ms / 1000, str(item) if log == "coveo" else item))
        expected = {name: in_order(own) for name, own in expected.items()}
    found = as_dict(sessions)
    if log == "coveo":  # whose ids are read as numbers where all of them are
        found = {name: (list(map(str, items)), times) for name, (items, times) in found.items()}
    assert found == expected


def in_order(events):
    """([items], [times]) of (time, item), equal times in the order of the file."""
    own = sorted(events, key=lambda event: event[0])  # stable
    return [item for _, item in own], [time for time, _ in own]


def cut(events):
    """Visitors cut at gaps over 60 minutes, one event after the other; then the views."""
    sessions, number = {}, 0
    for visitor in sorted({event[0] for event in events}):
        last = None
        for _, item, ms, kept in sorted(
            (e for e in events if e[0] == visitor), key=lambda event: event[2]
        ):
            number += last is None or ms - last > 60 * MINUTE
            last = ms
            if kept:
                sessions.setdefault(number, []).append((ms / 1000, item))
    return {number: in_order(own) for number, own in sessions.items()}


# --- faults ---------------------------------------------------------------------------------------

FAULTS = [
    ("rsc15", b"\n\n", "the log has no event"),
    ("rsc15", RSC15 + b"3,2014-04-07T10:51:09.277Z,5\n", "line 8: 3 columns where 4 are expected"),
    ("rsc15", RSC15 + b"3,2014-04-07T10:51:09.277Z,5,0,1\n", "line 8: 5 columns where 4"),
    ("rsc15", b"\n" + RSC15 + b"\n3,x,5,0\n", "line 10, column time: 'x' where a time like 2014"),
    ("rsc15", RSC15 + b"3,2014-04-31T10:51:09.277Z,5,0\n", "'2014-04-31T10:51:09.277Z' where"),
    ("rsc15", RSC15 + b"3,2014-04-07T10:51:09.277Z,,0\n", "line 8, column item: nothing where a"),
    ("rsc15", RSC15 + b",2014-04-07T10:51:09.277Z,1,0\n", "line 8, column session: nothing where"),
    (
        "rsc15",
        RSC15 + b"3,2014-04-07T10:51:09.277Z,\xff,0\n",
        "column item: '\ufffd' where a whole",
    ),
    ("rsc15", b"SessionId,Time,ItemId,Category\n" + RSC15, "line 1, column session: 'SessionId'"),
    ("rsc15", b"7z\xbc\xaf\x27\x1c\x00\n", "is compressed by 7-Zip, which is not read here"),
    (
        "otto",
        b"\x28\xb5\x2f\xfd\n",
        "is compressed by Zstandard, which is not read here; unpack it",
    ),
    ("retailrocket", b"PK\x03\x04\n", "is compressed by zip, which is not read here; unpack it"),
    ("diginetica", gzip.compress(DIGINETICA, mtime=0)[:-9], "damaged: Compressed file ended"),
    ("rsc15", gzip.compress(b"1,2\n", mtime=0), "line 1: 2 columns where 4 are expected"),
    ("diginetica", DIGINETICA[:44], "the log has no event"),
    ("diginetica", DIGINETICA.replace(b";itemId", b""), "line 1: no column 'itemId' in the header"),
    ("diginetica", DIGINETICA.replace(b";", b","), "no column 'sessionId' in the header"),
    ("diginetica", DIGINETICA + b"1;NA;5;1.5;2016-05-09\n", "line 7, column timeframe: '1.5'"),
    ("diginetica", DIGINETICA + b"1;NA;5;;2016-05-09\n", "line 7, column timeframe: nothing"),
    ("diginetica", DIGINETICA + b"1;NA;NA;5;2016-05-09\n", "line 7, column itemId: 'NA' where"),
    ("diginetica", DIGINETICA + b"1;NA;5;5;09.05.2016\n", "eventdate: '09.05.2016' where a date"),
    ("diginetica", DIGINETICA + b"1;NA;5;5\n", "line 7: 4 columns where 5 are expected"),
    ("retailrocket", RETAILROCKET.replace(b"view", b"buy"), "no event of kind 'view'"),
    ("retailrocket", RETAILROCKET[14:], "no column 'timestamp' in the header"),
    ("retailrocket", RETAILROCKET + b"1,2,view,,\n", "line 11, column itemid: nothing where"),
    ("retailrocket", RETAILROCKET + b"1,,view,3,\n", "line 11, column visitorid: nothing where"),
    ("retailrocket", RETAILROCKET + b"?,2,view,3,\n", "line 11, column timestamp: '?' where a w"),
    ("retailrocket", RETAILROCKET + b"1,2,view,3\n", "line 11: 4 columns where 5 are expected"),
    ("rees46", REES46.replace(b"view", b"cart"), "no event of kind 'view'"),
    ("rees46", REES46[12:], "line 1: no column 'event_time' in the header"),
    ("rees46", REES46.replace(b"user_session", b"session"), "no column 'user_session' in"),
    ("rees46", REES46 + b"2019-10-01 00:00:00,view,1,2,,,3,4,5\n", "line 7, column event_time: '2"),
    ("rees46", REES46 + b"2019-10-01 00:00:00 UTC,view,,2,,,3,4,5\n", "product_id: nothing where"),
    ("rees46", REES46 + b"2019-10-01 00:00:00 UTC,view,1,2,,,3,4\n", "line 7: 8 columns where 9"),
    ("coveo", COVEO.replace(b"detail", b"click"), "no event of kind 'detail'"),
    ("coveo", COVEO.replace(b"_sku_", b"_"), "no column 'product_sku_hash' in the header"),
    ("coveo", COVEO + b"s,e,detail,,5,u\n", "line 9, column product_sku_hash: nothing where an id"),
    ("coveo", COVEO + b",e,detail,a,5,u\n", "line 9, column session_id_hash: nothing where an id"),
    ("coveo", COVEO + b"s,e,,,5.5,u\n", "line 9, column server_timestamp_epoch_ms: '5.5' where"),
    ("otto", b"\n \n\n", "no event of type 'clicks'"),
    ("otto", OTTO.replace(b"clicks", b"orders"), "no event of type 'clicks'"),
    ("otto", OTTO + b'{"session": 1, "events": [{"ai\n', 'line 4: \'{"session": 1, "events"'),
    ("otto", OTTO + b"\nsession\n", "line 5: 'session' where a JSON object"),
    ("otto", OTTO + b"[1]\n", "line 4: '[1]' where a JSON object"),
    ("otto", OTTO + b"\xff\xfe\n", "line 4: '\ufffd\ufffd' where a JSON object"),
    ("otto", OTTO + b"[" * 100_000 + b"\n", "line 4: '[[["),
    ("otto", OTTO + b'{"events": []}\n', "line 4, session: nothing where a whole number"),
    ("otto", OTTO + b'{"session": "a", "events": []}\n', "line 4, session: 'a' where a whole"),
    ("otto", OTTO + b'{"session": 2}\n', "line 4, events: nothing where a list"),
    ("otto", OTTO + b'{"session": 2, "events": [5]}\n', "line 4, events: '5' where an object"),
    ("otto", OTTO + b'{"session": 2, "events": {"aid": 1}}\n', "where a list is expected"),
    *(
        ("otto", OTTO + b'{"session": 2, "events": [{%s}]}\n' % event, message)
        for event, message in [
            (b'"ts": 5, "type": "clicks"', "line 4, aid: nothing where a whole number"),
            (b'"aid": null, "ts": 5, "type": "clicks"', "line 4, aid: nothing where"),
            (b'"aid": "x", "ts": 5, "type": "clicks"', "line 4, aid: 'x' where"),
            (b'"aid": true, "ts": 5, "type": "clicks"', "line 4, aid: 'True' where"),
            (b'"aid": 1, "ts": 5.5, "type": "clicks"', "line 4, ts: '5.5' where"),
            (b'"aid": 1, "ts": 99999999999999999999, "type": "clicks"', "line 4, ts: '99999"),
            (b'"aid": 1, "ts": 5', "line 4, type: nothing where a text"),
        ]
    ),
]


FAULTS += [
    ("rsc15", RSC15 + b"3,9999-04-07T10:51:09.277Z,5,0\n", "line 8, column time: '9999-04-07T"),
    (
        "diginetica",
        DIGINETICA + b"1;NA;5;100000000000000;2016-05-09\n",
        "line 7, column timeframe:",
    ),
    ("diginetica", DIGINETICA + b"1;NA;5;5;9999-05-09\n", "line 7, column eventdate: '9999-05-09'"),
    (
        "retailrocket",
        RETAILROCKET + b"-1433221332117000,2,view,3,\n",
        "line 11, column timestamp: '-1433221332117000' where a whole number of milliseconds",
    ),
    ("coveo", COVEO + b"s,e,detail,a,1550885213307000,u\n", "line 9, column server_timestamp_e"),
    (
        "otto",
        OTTO + b'{"session": 2, "events": [{"aid": 1, "ts": 1659304800025000, "type": "carts"}]}',
        "line 4, ts: '1659304800025000' where a whole number of milliseconds since 1970",
    ),
]
FAULTS += [
    (log, LOGS[log].replace(b"\n", b"\r"), "line 1: a carriage return without a line feed")
    for log in LOGS
    if log != "otto"  # where it may stand between two values
]
FAULTS += [(log, gzip.compress(b"", mtime=0), "the file is empty") for log in LOGS]
FAULTS += [
    (
        "rees46",
        REES46.replace(b"72d76fde", b"72d\xff"),
        "line 2, column user_session: '72d\ufffd-8b",
    ),
    (
        "coveo",
        COVEO.replace(b"20c458b8", b"\xff"),
        "line 2, column session_id_hash: '\ufffd' where an",
    ),
    (
        "coveo",
        COVEO.replace(b"61ef3869", b"\xff"),
        "line 5, column product_sku_hash: '\ufffd' where",
    ),
]


@pytest.mark.parametrize("block", [1, 1 << 26])
@pytest.mark.parametrize(("log", "content", "message"), FAULTS)
def test_fault_is_one_line_that_names_the_place(log, content, message, block, read):
    with mock.patch.object(rawcolumns, "BLOCK", block), pytest.raises(InputError) as error:
        read(log, content)
    text = str(error.value)
    assert message in text
    assert f"{log}.log" in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("log", LOGS)
def test_no_file(log, tmp_path, read):
    with pytest.raises(InputError, match="absent: no such file"):
        rawlogs.READERS[log](tmp_path / "absent")
    with pytest.raises(InputError, match="is a directory, not a file"):
        rawlogs.READERS[log](tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: must be a file that can be read twice"):
        rawlogs.READERS[log](tmp_path / "pipe")
    with pytest.raises(InputError, match="the file is empty"):
        read(log, b"")


@given(
    log=st.sampled_from(sorted(LOGS)),
    junk=st.binary(min_size=1, max_size=8) | st.sampled_from([b",", b";", b"}", b"[", b'"', b"\n"]),
    place=st.integers(0, 500),
    remove=st.integers(0, 3),
)
def test_damaged_file_is_read_or_refused(log, junk, place, remove, tmp_path_factory):
    content = LOGS[log]
    place %= len(content)
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(content[:place] + junk + content[place + remove :])
    try:
        assert rawlogs.READERS[log](path).n_events > 0
    except InputError as error:
        assert "\n" not in str(error)


def test_sessions_stand_in_the_order_of_the_file_whatever_was_read_before(tmp_path):
    """Polars numbers categories by what the whole process has seen."""
    columns = "session_id_hash,event_type,product_action,product_sku_hash"
    lines = [f"{columns},server_timestamp_epoch_ms,hashed_url"]
    lines += [f"{s},event_product,detail,{sku},{i},u" for i, (s, sku) in enumerate(["qa", "pb"])]
    (tmp_path / "log").write_text("\n".join(lines))
    seen = pl.Series(["p", "q"]).cast(pl.Categorical)  # the other order, and kept alive
    log = rawlogs.read_coveo(tmp_path / "log", gap_minutes=60)
    assert log.session(0).tolist() == ["a"] and len(seen) == 2
