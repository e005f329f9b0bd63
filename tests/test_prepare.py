"""The command `prepare`, as a user runs it: what it writes, prints and refuses."""

import dataclasses
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from test_protocols import WANTED, letters, twelve

from conftest import files_of_at_most
from gru4rec_np import InputError, Sessions, Shop, prepare, read_table
from gru4rec_np.console import cli, inspection, options
from gru4rec_np.data import blocks, rawcolumns, rawlogs
from gru4rec_np.data.protocols import PROTOCOLS
from gru4rec_np.data.sessions import DAY
from gru4rec_np.data.tables import COLUMNS, write_table

# Sessions 6 and 7 are too short from the start. In the others, items 1 and 2 have 5 events, item 3
# has 4 with its repeat, and item 9 has one.
RSC15 = b"""\
1,2014-04-01T10:00:00.500Z,1,0
1,2014-04-01T10:01:00.000Z,2,0
1,2014-04-01T10:02:00.000Z,1,0
1,2014-04-01T10:03:00.000Z,2,0
2,2014-04-01T11:00:00.000Z,2,0
2,2014-04-01T11:01:00.000Z,9,0
2,2014-04-01T11:02:00.000Z,1,S
3,2014-04-01T12:00:00.000Z,1,0
3,2014-04-01T12:01:00.000Z,3,0
4,2014-04-01T13:00:00.000Z,3,0
4,2014-04-01T13:01:00.000Z,3,0
4,2014-04-01T13:02:00.000Z,2,0
5,2014-04-03T10:00:00.250Z,2,0
5,2014-04-03T10:01:00.000Z,1,0
5,2014-04-03T10:02:00.000Z,3,0
6,2014-04-03T11:00:00.000Z,1,0
7,2014-04-01T14:00:00.000Z,2,0
"""


@pytest.fixture
def run(tmp_path):
    """run(*arguments): the finished process; its working folder is tmp_path."""

    def run(*arguments):
        command = [sys.executable, "-m", "gru4rec_np.prepare", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path
        )

    (tmp_path / "clicks.dat").write_bytes(RSC15)
    return run


@pytest.fixture
def main(tmp_path, monkeypatch):
    """main(*arguments): the command in this process, which saves the time of starting one."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        prepare.main()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.dat").write_bytes(RSC15)
    return main


def refused(process):
    """The one line on stderr of a command that was refused."""
    assert process.returncode == 2
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1 and process.stderr.endswith("\n")
    return process.stderr


def test_rsc15_byte_for_byte(run, tmp_path):
    process = run("rsc15", "clicks.dat", "--out", "new/data")
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "new/data/train.tsv").read_text() == (
        "SessionId\tItemId\tTime\n"
        "1\t1\t1396346400.5\n"
        "1\t2\t1396346460.0\n"
        "1\t1\t1396346520.0\n"
        "1\t2\t1396346580.0\n"
        "2\t2\t1396350000.0\n"
        "2\t1\t1396350120.0\n"
    )
    assert (tmp_path / "new/data/test.tsv").read_text() == (
        "SessionId\tItemId\tTime\n5\t2\t1396519200.25\n5\t1\t1396519260.0\n"
    )
    assert sorted(p.name for p in (tmp_path / "new/data").iterdir()) == ["test.tsv", "train.tsv"]
    table, files = process.stdout.split("\n\n")
    rows = [line.split()[:4] for line in table.splitlines()]
    assert rows == [
        ["data", "events", "sessions", "items"],
        ["raw", "17", "7", "4"],
        ["cleaned", "8", "3", "2"],
        ["train", "6", "2", "2"],
        ["test", "2", "1", "2"],
    ]
    assert files == (
        "rules     sessions under 2 and items under 5 events dropped in one pass; test set: "
        "sessions that end in the last day\n"
        "durations half up to 2.0 min, 99 % up to 3.0 min, the longest 3.0 min\n"
        "written   new/data/train.tsv\n"
        "          new/data/test.tsv\n"
        "to train  python -m gru4rec_np.train --train new/data/train.tsv --test new/data/test.tsv\n"
    )


def test_options_of_cleaning(main, tmp_path):
    out = ("--out", "data", "--format", "csv")
    main("rsc15", "clicks.dat", "--min-item-support", 4, *out)
    train = read_table(tmp_path / "data/train.csv")
    first = [1, 2, 1, 2]
    assert [train.session(s).tolist() for s in range(4)] == [first, [2, 1], [1, 3], [3, 3, 2]]

    main("rsc15", "clicks.dat", "--min-item-support", 3, "--merge-repeats", *out)
    train = read_table(tmp_path / "data/train.csv")
    assert [train.session(s).tolist() for s in range(4)] == [first, [2, 1], [1, 3], [3, 2]]

    main("rsc15", "clicks.dat", "--min-item-support", 4, "--min-session-length", 3, *out)
    train, test = (read_table(tmp_path / f"data/{side}.csv") for side in ("train", "test"))
    assert [train.session(s).tolist() for s in range(2)] == [[1, 2, 1, 2], [3, 3, 2]]
    assert test.session(0).tolist() == [2, 1, 3] and (train.n_sessions, test.n_sessions) == (2, 1)


def test_options_of_splitting(main, tmp_path, capsys):
    def test_ids(*options):
        main("rsc15", "clicks.dat", "--out", "d", "--min-item-support", 1, *options)
        return read_table(tmp_path / "d/test.tsv").session_ids.tolist()

    assert test_ids() == test_ids("--split", "1d") == [5]
    assert test_ids("--split", "1.9d") == [4, 5]
    # Of 5 sessions, 6 and 7 being too short. The last three would all be tests at 0.6, but then
    # item 3 is unknown from training, and too little is left of sessions 3 and 4.
    assert test_ids("--split", 0.4) == [4, 5]
    assert test_ids("--split", 0.6) == [5]
    # The items counted are those that occur: item 9 is in the catalogue, but in no test session.
    capsys.readouterr()
    assert test_ids() == [5]
    _, _, _, train, test, *_ = capsys.readouterr().out.splitlines()
    assert train.split()[:4] == ["train", "12", "4", "4"]
    assert test.split()[:4] == ["test", "3", "1", "3"]


@pytest.mark.parametrize("log", ["diginetica", "retailrocket", "rees46", "coveo", "otto"])
def test_other_logs_as_parquet(log, main, tmp_path):
    day = 86_400_000
    content = {
        "diginetica": "sessionId;userId;itemId;timeframe;eventdate\n"
        + "".join(
            f"{s};NA;{item};{item}500;1970-01-0{1 + s}\n" for s in (1, 2, 3) for item in (7, 8)
        ),
        "retailrocket": "timestamp,visitorid,event,itemid,transactionid\n"
        + "".join(
            f"{s * day + item * 1000 + 500},5,view,{item},\n" for s in (1, 2, 3) for item in (7, 8)
        ),
        "rees46": "event_time,event_type,product_id,user_session\n"
        + "".join(
            f"1970-01-0{1 + s} 00:00:0{item} UTC,view,{item},{s}\n"
            for s in (1, 2, 3)
            for item in (7, 8)
        ),
        "coveo": "session_id_hash,product_action,product_sku_hash,server_timestamp_epoch_ms\n"
        + "".join(
            f"{s},detail,{item},{s * day + item * 1000 + 500}\n"
            for s in (1, 2, 3)
            for item in (7, 8)
        ),
        "otto": "".join(
            f'{{"session": {s}, "events": ['
            f'{{"aid": 7, "ts": {s * day + 7500}, "type": "clicks"}}, '
            f'{{"aid": 8, "ts": {s * day + 8500}, "type": "clicks"}}]}}\n'
            for s in (1, 2, 3)
        ),
    }
    (tmp_path / "log").write_text(content[log])
    options = ("--min-item-support", 3, "--split", "0.9d")
    main(log, "log", "--out", "d", "--format", "parquet", *options)
    test = pl.read_parquet(tmp_path / "d/test.parquet")
    half = 0 if log == "rees46" else 0.5
    assert [tuple(map(float, row)) for row in test.rows()] == [
        (3, 7, 259207 + half),
        (3, 8, 259208 + half),
    ]
    sessions = pl.read_parquet(tmp_path / "d/train.parquet")["SessionId"].cast(int).to_list()
    assert sessions == [1, 1, 2, 2]


def test_table_with_its_own_columns(run, tmp_path):
    (tmp_path / "log.csv").write_text(
        "when,basket,product\n1970-01-01,a,x\n1970-01-02,a,y\n1970-01-05,b,x\n1970-01-06,b,y\n"
    )
    names = "--session-column basket --item-column product --time-column when".split()
    process = run("table", "log.csv", "--out", ".", "--min-item-support", 2, *names)
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "train.tsv").read_text().split("\n")[1:3] == ["a\tx\t0.0", "a\ty\t86400.0"]
    assert read_table(tmp_path / "test.tsv").session(0).tolist() == ["x", "y"]


def test_a_parquet_table(run, tmp_path):
    rng = np.random.default_rng(0)
    sessions = Sessions.from_lists([rng.integers(0, 3, 4).tolist() for _ in range(100)])
    write_table(sessions, tmp_path / "log.parquet")
    process = run("table", "log.parquet", "--out", "my data")
    assert "--train 'my data/train.tsv' --test 'my data/test.tsv'\n" in process.stdout
    train, test = (read_table(tmp_path / f"my data/{side}.tsv") for side in ("train", "test"))
    # The last event is at 99 h 3 s: sessions end in the last day that begin at 75 h or later.
    assert (train.n_sessions, test.n_sessions) == (75, 25)
    assert train.session_ids.tolist() + test.session_ids.tolist() == list(range(100))


# --- protocols, several files, other options ------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_its_twelve_sessions(name, main, tmp_path):
    log = "rsc15" if name == "yoochoose" else name
    (tmp_path / "log").write_text(twelve(log))
    main(log, "log", "--protocol", name, "--out", "d")
    parts = [read_table(tmp_path / f"d/{side}.tsv") for side in ("train", "test")]
    assert tuple(map(letters, parts)) == WANTED[name]


def test_options_change_a_protocol(main, tmp_path, capsys):
    (tmp_path / "log").write_text(twelve("retailrocket"))

    def prepared(*options):
        main("retailrocket", "log", "--protocol", "retailrocket", "--out", "d", *options)
        return tuple(letters(read_table(tmp_path / f"d/{side}.tsv")) for side in ("train", "test"))

    # A day back from the full hour: session 11 starts before, by 20 seconds.
    assert prepared("--split", "1d") == ("ab ba ba ab aba ab", "baba")
    # Of its 7 sessions; no session of two is cut.
    assert prepared("--split", "0.3", "--split-by", "end") == ("ab ba ba ab aba aba", "ab baba")
    # At 2 hours, session 3 is whole.
    assert prepared("--session-gap", "2h", "--split", "1d")[0] == "ab baba ab aba ab"
    assert prepared("--no-merge-repeats", "--no-until-stable", "--split-by", "end") == (
        "abf aaf bfa ba af",
        "ab aba aba ab baba",
    )
    assert (
        "sessions cut at gaps over 60 min; sessions under 2 and items under 5 events dropped in "
        "one pass; test set: sessions that end in the last 7 days, counted from the full hour\n"
    ) in capsys.readouterr().out


def test_several_files_and_duplicates(main, tmp_path, capsys):
    lines = RSC15.splitlines(keepends=True)
    (tmp_path / "1").write_bytes(b"".join(lines[:3]))  # session 1 goes on in the second file
    (tmp_path / "2").write_bytes(b"".join(lines[2:]))  # one line is in both
    main("rsc15", "1", "2", "--drop-duplicates", "--out", "d")
    assert "\nleft out  1 exact duplicates\n" in capsys.readouterr().out
    main("rsc15", "clicks.dat", "--out", "once")
    for side in ("train.tsv", "test.tsv"):
        assert (tmp_path / "d" / side).read_bytes() == (tmp_path / "once" / side).read_bytes()


def test_what_is_left_out_is_counted(main, tmp_path, capsys):
    (tmp_path / "log").write_text(twelve("rees46"))
    main("rees46", "log", "--protocol", "rees46", "--out", "d")
    assert "\nleft out  1 events of other kinds than view\n" in capsys.readouterr().out


def test_a_tables_options_reach_its_reader(main, monkeypatch, tmp_path):
    read = []

    def read_table(path, columns, watch, tell, dropped, **more):
        read.append((path, columns, more))
        return Sessions.from_lists([["a", "b"]] * 50)

    monkeypatch.setattr(options, "read_table", read_table)
    monkeypatch.setattr(cli, "check_output", lambda *_: None)
    main("table", "a", "--out", "d")
    main("table", "a", "b", "--out", "d", "--session-gap", "1.5h", "--keep", "event=a=b",
         "--time-unit", "ms", "--separator", ";", "--session-column", "user,session")  # fmt: skip
    main("lists", "a", "--out", "d")
    assert read == [
        (["a"], COLUMNS, {}),
        (
            ["a", "b"],
            ("user,session", *COLUMNS[1:]),
            {"session_gap": 5400, "keep": ("event", "a=b"), "time_unit": "ms", "separator": ";"},
        ),
        (["a"], COLUMNS, {"layout": "lists"}),
    ]


def test_long_sessions_are_a_warning(main, tmp_path, capsys):
    days = np.arange(60) / 2
    lines = [f"{s}\t{i}\t{(d + 3 * i) * DAY}" for s, d in enumerate(days) for i in (0, 1)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(lines) + "\n")
    main("table", "log.tsv", "--out", "d")
    out, err = capsys.readouterr()
    assert err == (
        "warning: 60 of 60 sessions last longer than a day, the longest 3.0 days: is the session "
        "column a user's? See --session-gap\n"
    )
    assert "\ndurations half up to 3.0 days, 99 % up to 3.0 days, the longest 3.0" in out


@pytest.mark.parametrize("name", PROTOCOLS)
def test_lists_are_split_by_their_order(name, main, tmp_path, capsys):
    """A file of one session a line has no times: none are used, and none are printed."""
    lines = [f"{s % 3} {(s + 1) % 3}\n" for s in range(40)]
    (tmp_path / "log.txt").write_text("".join(lines))
    main("lists", "log.txt", "--out", "d", "--protocol", name, "--check")
    out, err = capsys.readouterr()
    assert "test set: the last 0.1 of the sessions, in the order of the file" in out
    assert not err and not any(word in out for word in ("day", "duration", " min", " h\n"))
    assert read_table(tmp_path / "d/test.tsv").session_ids.tolist() == [36, 37, 38, 39]
    main("lists", "log.txt", "--out", "d", "--split", "0.25")
    assert read_table(tmp_path / "d/test.tsv").n_sessions == 10
    assert "durations" not in capsys.readouterr().out


# --- is the log sequential? -----------------------------------------------------------------------


def test_the_check_of_a_shop(main, tmp_path, capsys):
    """Shoppers walk along ladders, so the order matters; once it is shuffled, it does not."""
    log = Shop(n_items=100).simulate(3000)
    write_table(log, tmp_path / "clicks.tsv")
    main("check", "clicks.tsv")
    out = capsys.readouterr().out
    assert "\nThe order of clicks matters: shuffling loses" in out
    assert "data " not in out and "plot      clicks.check.png\n" in out
    assert (tmp_path / "clicks.check.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"clicks.dat", "clicks.tsv", "clicks.check.png"}

    write_table(inspection.shuffle(log), tmp_path / "clicks.tsv")
    main("check", "clicks.tsv", "--out", "c")
    assert "makes no difference that" in capsys.readouterr().out
    assert (tmp_path / "c/clicks.check.png").exists()


def test_shuffling_stays_in_the_session():
    log = Shop(n_items=100).simulate(500)
    other = inspection.shuffle(log)
    assert not np.array_equal(other.items, log.items)
    assert np.array_equal(other.offsets, log.offsets) and np.array_equal(other.times, log.times)
    for s in range(log.n_sessions):
        assert sorted(other.session(s)) == sorted(log.session(s))


def test_what_the_check_counts_by_hand():
    """Training has ab and bc. The test set has abx, ba, cb: of its four items x is unseen, an event
    of 7. Of the steps ab, ba, cb the last two are unseen.
    """
    lists = [["a", "b"], ["b", "c"], ["a", "b", "x"], ["b", "a"], ["c", "b"]]
    sessions = Sessions.from_lists(lists)
    shift = np.repeat([0, 0, 1, 1, 1.9], sessions.lengths) * DAY  # and an hour each
    found = inspection.inspect(dataclasses.replace(sessions, times=sessions.times + shift), days=1)
    assert (found.unseen_items, found.items) == (1, 4)
    assert (found.unseen_events, found.events) == (1, 7)
    assert (found.unseen_pairs, found.pairs) == (2, 3)
    assert [days.tolist() for days in found.times.per_day] == [[2, 2, 1], [0, 2, 1]]
    # After a comes b, rank 1. After b comes c; a is one of two that tie behind it. All tie after c.
    assert (found.cases, found.recall, found.mrr) == (3, 1.0, pytest.approx((1 + 2 / 3) / 3))
    assert found.times.durations.tolist() == [1, 1, 2, 1, 1]


def test_many_test_sessions_are_sampled(monkeypatch):
    log = Shop(n_items=100).simulate(1000)
    every = inspection.inspect(log, share=0.5)
    monkeypatch.setattr(inspection, "MOST", 100)
    some = inspection.inspect(log, share=0.5)
    assert some.cases < every.cases / 4 and some.pairs == every.pairs
    assert abs(some.recall - every.recall) < 0.1


@pytest.mark.parametrize(
    ("in_order", "shuffled", "cases", "words"),
    [
        (0.5, 0.4, 10_000, "matters: shuffling loses 20% of the Recall@20"),
        (0.5, 0.46, 10_000, "matters a little: shuffling loses 8%"),
        (0.5, 0.48, 10_000, "hardly matters: shuffling loses 4%"),
        (0.5, 0.4, 100, "makes no difference that 100 cases could show"),
        (0.4, 0.5, 10_000, "makes no difference"),
        (0.0, 0.0, 10, "makes no difference"),
    ],
)
def test_the_verdict(in_order, shuffled, cases, words):
    found = inspection.inspect(Shop(n_items=100).simulate(200), share=0.5)
    found = dataclasses.replace(found, recall=in_order, recall_shuffled=shuffled, cases=cases)
    assert words in found.verdict


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (2.25 * DAY, "2.2 days")],
)
def test_durations(seconds, text):
    assert inspection.duration(seconds) == text


def test_a_check_beside_the_files(main, tmp_path, capsys):
    main("rsc15", "clicks.dat", "--out", "d", "--check")
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"train.tsv", "test.tsv", "check.png"}
    out = capsys.readouterr().out
    assert out.index("raw ") < out.index("Recall@20 of a Markov chain") < out.index("to train")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rsc15", "absent.dat"], "absent.dat: no such file"),
        (["rsc15", "bad.dat"], "bad.dat, line 18, column item: 'x' where a whole number is"),
        (["rsc15", "clicks.dat", "--min-item-support", "50"], "clicks.dat: no session is left"),
    ],
)
def test_bad_log_is_refused_and_writes_nothing(arguments, message, run, tmp_path):
    (tmp_path / "bad.dat").write_bytes(RSC15 + b"8,2014-04-01T10:00:00.500Z,x,0\n")
    assert message in refused(run(*arguments, "--out", "data"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.dat", "clicks.dat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("otto clicks.dat --out d", "clicks.dat, line 1: '1,2014-04-01T10"),
        ("diginetica clicks.dat --out d", "clicks.dat, line 1: no column 'sessionId'"),
        ("table clicks.dat --out d", "clicks.dat: no column 'SessionId'"),
        ("rsc15 clicks.dat --out=", "out: is empty; leave the option out, or give it a value"),
        ("table t/train.tsv --out d --session-gap=", "session_gap: is empty"),
        ("table t/train.tsv --out d --keep=", "keep: is empty"),
        ("table t/train.tsv --out d --split=", "split: is empty"),
        ("check /dev/stdin", "--out: is needed, since the plot cannot be beside /dev/stdin"),
        *(
            (f"lists t/train.tsv --out d --{option}", f"{name}: has no use with lists, which have")
            for name, option in (
                ("session_gap", "session-gap 30m"),
                ("keep", "keep a=b"),
                ("time_unit", "time-unit ms"),
                ("session_column", "session-column u"),
            )
        ),
        ("rsc15 clicks.dat --out d --split 9d", "split: with the last 9 day(s)"),
        ("", "required: FORMAT, FILE"),
        ("rsc15 clicks.dat", "required: --out"),
        ("rsc51 clicks.dat --out d", "invalid choice: 'rsc51'"),
        ("rsc15 clicks.dat --out d --split 1", "split: must be days like 1d or a share between"),
        ("lists clicks.dat --out d --split 1d", "split: lists have no times, so no days; give a"),
        ("rsc15 clicks.dat --out d --split 0d", "like 0.1, not '0d'"),
        ("rsc15 clicks.dat --out d --split x", "like 0.1, not 'x'"),
        ("rsc15 clicks.dat --out d --min-session-length 0", "--min-session-length: must be a whol"),
        ("rsc15 clicks.dat --out d --format xlsx", "invalid choice: 'xlsx'"),
        ("rsc15 clicks.dat --out d --item-column i", "the columns of rsc15 are known"),
        ("otto clicks.dat --out d --keep a=b", "the columns of otto are known"),
        ("rsc15 clicks.dat clicks.dat --out d", "clicks.dat: is given twice"),
        ("rsc15 t/../clicks.dat clicks.dat --out d", "clicks.dat: is given twice"),
        ("rsc15 clicks.dat no.dat --out d", "no.dat: no such file"),
        ("rsc15 clicks.dat --out d --protocol rcs15", "invalid choice: 'rcs15'"),
        ("rsc15 clicks.dat --out d --session-gap 1h", "--session-gap: rsc15 has sessions"),
        ("retailrocket clicks.dat --out d --session-gap 0m", "time such as 30m or 1h, not '0m'"),
        ("retailrocket clicks.dat --out d --session-gap 30", "time such as 30m or 1h, not '30'"),
        ("table clicks.dat --out d --keep event", "COLUMN=VALUE, such as event=view, not 'event'"),
        ("rsc15 clicks.dat --out d --split-by middle", "invalid choice: 'middle'"),
        ("check t/train.tsv", "t/train.tsv: no session is left"),
        (
            "rsc15 clicks.dat --out clicks.dat",
            "--out clicks.dat: clicks.dat is a file, not a folder",
        ),
        ("rsc15 clicks.dat --out clicks.dat/d", "clicks.dat is a file, not a folder"),
        ("table t/train.tsv --out t", "t/train.tsv is an input file"),
        ("rsc15 clicks.dat --out u", "u/test.tsv is a folder, not a file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, main, tmp_path, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/train.tsv").write_text("SessionId\tItemId\tTime\n1\t2\t3\n")
    (tmp_path / "u/test.tsv").mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: main(*arguments.split()))
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert (tmp_path / "clicks.dat").read_bytes() == RSC15
    assert (tmp_path / "t/train.tsv").read_text() == "SessionId\tItemId\tTime\n1\t2\t3\n"
    assert not (tmp_path / "d").exists()


def test_out_that_is_a_file_is_refused(run):
    assert "is a file, not a folder" in refused(run("rsc15", "clicks.dat", "--out", "clicks.dat"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_folder_as_it_was(error, main, tmp_path, monkeypatch):
    out = tmp_path / "data"
    out.mkdir()
    (out / "train.tsv").write_text("older")

    def fails_for_test(part, path):
        path.write_text("half a table")
        if path.name == "test.tsv":
            raise error

    monkeypatch.setattr(prepare, "write_table", fails_for_test)
    with pytest.raises(type(error)):
        main("rsc15", "clicks.dat", "--out", out)
    assert [p.name for p in out.iterdir()] == ["train.tsv"]
    assert (out / "train.tsv").read_text() == "older"


@pytest.mark.parametrize("ending", ["tsv", "csv", "parquet"])
def test_a_full_disk_ends_with_one_line(ending, main, tmp_path, capsys):
    arguments = "rsc15", "clicks.dat", "--out", "out", "--format", ending
    with pytest.raises(SystemExit) as end, files_of_at_most(20):
        cli.run(lambda: main(*arguments))
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: out/train.{ending}: ") and "File too large" in err
    assert not (tmp_path / "out").exists()


def test_help_names_every_format_and_option(run):
    process = run("--help")
    assert process.returncode == 0
    for word in ("yoochoose-clicks.dat", "train-item-views.csv", "events.csv", ".jsonl", "table"):
        assert word in process.stdout
    assert all(f"\n  {name} " in process.stdout for name in rawlogs.READERS)
    assert max(map(len, process.stdout.splitlines())) <= 100
    assert "None" not in process.stdout


def test_progress_is_for_terminals_only(main, monkeypatch):
    for terminal in (True, False):
        shown = io.StringIO()
        shown.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", shown)
        main("rsc15", "clicks.dat", "--out", "out")
        stages = "reading clicks.dat:", "cleaning and splitting:", "writing:"
        assert all((stage in shown.getvalue()) == terminal for stage in stages)
    monkeypatch.setattr(cli, "SLOW", 0)
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    main("rsc15", "clicks.dat", "--out", "out")
    lines = [f"{stage} {share}%" for stage, share in zip(stages, (100, 50, 75), strict=True)]
    assert shown.getvalue().splitlines()[:3] == lines  # one each


@pytest.mark.parametrize("log", ["rsc15", "table"])
def test_reading_tells_how_far_it_is(log, tmp_path):
    path, told = tmp_path / "log.dat", []

    def watch(done, of):
        told.append((done, of))

    lines = [f"{i},2014-04-01T10:00:00.500Z,{i},0" for i in range(100)]
    if log == "table":
        lines = [f"{i}\t{i}\t{i}" for i in range(100)]
        lines.insert(0, "SessionId\tItemId\tTime")
    path.write_text("\n".join(lines) + "\n")
    with mock.patch.object(rawcolumns, "BLOCK", 500), mock.patch.object(blocks, "BLOCK", 50):
        (rawlogs.read_rsc15 if log == "rsc15" else read_table)(path, watch=watch)
    total = path.stat().st_size
    assert len(told) >= 5 and told == sorted(told) and told[-1] == (total, total)


def test_main_raises_input_error(main):
    with pytest.raises(InputError, match="absent: no such file"):
        main("otto", "absent", "--out", "d")


def test_an_out_that_polars_cannot_write(run):
    assert "surrogates not allowed" in refused(
        run("rsc15", "clicks.dat", "--out", os.fsdecode(b"caf\xe9"))
    )
    error = refused(run("rsc15", "absent.dat", "--out", os.fsdecode(b"caf\xe9")))
    assert r"--out caf\udce9: the path must be UTF-8" in error  # before the log is read
    assert "/proc is not writable" in refused(run("rsc15", "absent.dat", "--out", "/proc/new"))


# --- docs/data.md ---------------------------------------------------------------------------------

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_pages_commands_run(main, tmp_path):
    """Each raw log's name is a file of the twelve sessions; Yoochoose's second file is a part."""
    commands = re.findall(r"^python -m gru4rec_np\.(\w+) (.*)$", PAGE, re.MULTILINE)
    prepared = [shlex.split(rest) for name, rest in commands if name == "prepare"]
    assert len(prepared) == len(PROTOCOLS) + 1 and "check" in prepared[-1]
    for log, *rest in prepared[:-1]:
        files = rest[: rest.index("--protocol")]
        header, *lines = twelve(log).splitlines(keepends=True)
        if log == "rsc15":
            header, lines = "", [header, *lines]
        half = -(-len(lines) // len(files))
        for n, name in enumerate(files):
            (tmp_path / name).write_text(header + "".join(lines[n * half : (n + 1) * half]))
        main(log, *rest)
        name = rest[rest.index("--protocol") + 1]
        parts = [read_table(tmp_path / name / f"{side}.tsv") for side in ("train", "test")]
        assert tuple(map(letters, parts)) == WANTED[name]
    trained = [rest.split() for name, rest in commands if name == "train"]
    assert [rest[1:4:2] for rest in trained] == [
        [f"{name}/train.tsv", f"{name}/test.tsv"] for name in PROTOCOLS
    ]


def test_the_page_names_tests_that_exist():
    named = re.findall(r"`(test_\w+)\.(test_\w+)`", PAGE)
    assert len(named) > 20
    for file, name in named:
        text = Path(__file__).with_name(f"{file}.py").read_text(encoding="utf-8")
        assert f"\ndef {name}(" in text, (file, name)


def test_the_page_has_every_protocol():
    rows = re.findall(r"^\| (\w+) \| (?:the log's|a )", PAGE, re.MULTILINE)
    assert rows == list(PROTOCOLS)
