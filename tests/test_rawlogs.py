"""Each public log, byte for byte as it is published, and each fault such a file can have."""

import datetime
import gzip
import json
from collections.abc import Iterable
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec_np import InputError
from gru4rec_np.data import rawlogs

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

LOGS = {"rsc15": RSC15, "diginetica": DIGINETICA, "retailrocket": RETAILROCKET, "otto": OTTO}


@pytest.fixture
def read(tmp_path):
    """read(log, content): the log's reader applied to a file of these bytes."""

    def read(log, content, **options):
        path = tmp_path / f"{log}.log"
        path.write_bytes(content)
        return rawlogs.READERS[log](path, **options)

    return read


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


def test_diginetica_finds_columns_by_name(read):
    content = b"eventdate;itemId;more;sessionId;timeframe\n1970-01-01;7;;3;1500\n"
    assert as_dict(read("diginetica", content)) == {3: ([7], [1.5])}


def test_retailrocket_cuts_visitors_after_more_than_30_minutes(read):
    start = 1433221332.117
    assert as_dict(read("retailrocket", RETAILROCKET)) == {
        1: ([355908, 2, 3], [start, 1433223132.117, 1433224932.117]),
        2: ([4, 5], [1433226732.118] * 2),
        3: ([253185], [1433221955.914]),
        4: ([248676], [1433224214.164]),
    }


def test_retailrocket_options(read):
    long = read("retailrocket", RETAILROCKET, gap_minutes=31)
    assert long.lengths.tolist() == [5, 1, 1]
    short = read("retailrocket", RETAILROCKET, gap_minutes=29.5)
    assert short.lengths.tolist() == [1, 1, 1, 2, 1, 1]
    carts = read("retailrocket", RETAILROCKET, event="addtocart")
    assert as_dict(carts) == {1: ([318965], [1433221999.827])}
    for bad in (0, -1, float("nan")):
        with pytest.raises(InputError, match="gap_minutes must be above 0, not"):
            read("retailrocket", RETAILROCKET, gap_minutes=bad)


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
    with mock.patch.object(rawlogs, "BLOCK", block):
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


def render(log: str, events: Iterable[tuple[int, int, int]]) -> bytes:
    """Events (session, item, milliseconds since 1970) as the bytes of a log."""
    lines = []
    for session, item, ms in events:
        days, rest = divmod(ms, 24 * 60 * MINUTE)
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
        event = {"aid": item, "ts": ms, "type": "clicks"}
        lines.append(
            {
                "rsc15": f"{session},{moment.isoformat(timespec='milliseconds')}Z,{item},0",
                "diginetica": f"{session};NA;{item};{rest};{date}",
                "retailrocket": f"{ms},{session},view,{item},",
                "otto": json.dumps({"session": session, "events": [event]}),
            }[log]
        )
    if log in ("diginetica", "retailrocket"):
        lines.insert(0, LOGS[log].decode().split("\n")[0])
    return "".join(line + "\n" for line in lines).encode()


EVENT = st.tuples(
    st.integers(0, 3), st.integers(0, 2**40), st.integers(0, 2**42) | st.integers(0, 10)
)


@given(
    log=st.sampled_from(sorted(LOGS)),
    events=st.lists(EVENT, min_size=1, max_size=20),
    block=st.integers(1, 500),
)
def test_reads_back_what_was_written(log, events, block, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(render(log, events))
    with mock.patch.object(rawlogs, "BLOCK", block):
        found = as_dict(rawlogs.READERS[log](path))

    expected = {}
    for session in dict.fromkeys(session for session, _, _ in events):
        own = sorted((e for e in events if e[0] == session), key=lambda e: e[2])  # stable
        expected[session] = ([item for _, item, _ in own], [ms / 1000 for _, _, ms in own])
    if log == "retailrocket":
        expected = cut(expected)
    assert found == expected


def cut(visitors):
    """Visitors cut at gaps over 30 minutes, one event after the other."""
    sessions = {}
    for visitor in sorted(visitors):
        last = -np.inf
        for item, time in zip(*visitors[visitor], strict=True):
            if round((time - last) * 1000) > 30 * MINUTE if np.isfinite(last) else True:
                sessions[len(sessions) + 1] = ([], [])
            items, times = sessions[len(sessions)]
            items.append(item)
            times.append(time)
            last = time
    return sessions


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


@pytest.mark.parametrize("block", [1, 1 << 26])
@pytest.mark.parametrize(("log", "content", "message"), FAULTS)
def test_fault_is_one_line_that_names_the_place(log, content, message, block, read):
    with mock.patch.object(rawlogs, "BLOCK", block), pytest.raises(InputError) as error:
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
    with pytest.raises(InputError, match="no such file"):
        rawlogs.READERS[log](tmp_path)
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
