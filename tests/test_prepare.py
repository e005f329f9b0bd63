"""The command `prepare`, as a user runs it: what it writes, prints and refuses."""

import io
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import polars as pl
import pytest

from gru4rec_np import InputError, Sessions, prepare, read_table
from gru4rec_np.console import cli
from gru4rec_np.data import rawlogs, text
from gru4rec_np.data.tables import write_table

# Items 1 and 2 have 5 events, item 3 has 4 with its repeat, and item 9 has one. Sessions 6 and 7
# are too short from the start.
RSC15 = b"""\
1,2014-04-01T10:00:00.500Z,1,0
1,2014-04-01T10:01:00.000Z,2,0
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
        ["raw", "15", "7", "4"],
        ["cleaned", "6", "3", "2"],
        ["train", "4", "2", "2"],
        ["test", "2", "1", "2"],
    ]
    assert files == (
        "written  new/data/train.tsv\n"
        "         new/data/test.tsv\n"
        "to train python -m gru4rec_np.train --train new/data/train.tsv --test new/data/test.tsv\n"
    )


def test_options_of_cleaning(main, tmp_path):
    out = ("--out", "data", "--format", "csv")
    main("rsc15", "clicks.dat", "--min-item-support", 4, *out)
    train = read_table(tmp_path / "data/train.csv")
    assert [train.session(s).tolist() for s in range(4)] == [[1, 2], [2, 1], [1, 3], [3, 3, 2]]

    main("rsc15", "clicks.dat", "--min-item-support", 3, "--merge-repeats", *out)
    train = read_table(tmp_path / "data/train.csv")
    assert [train.session(s).tolist() for s in range(4)] == [[1, 2], [2, 1], [1, 3], [3, 2]]

    main("rsc15", "clicks.dat", "--min-item-support", 4, "--min-session-length", 3, *out)
    train, test = (read_table(tmp_path / f"data/{side}.csv") for side in ("train", "test"))
    assert train.session(0).tolist() == [3, 3, 2] and train.n_sessions == 1
    assert test.session(0).tolist() == [2, 3] and test.n_sessions == 1


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
    assert train.split()[:4] == ["train", "10", "4", "4"]
    assert test.split()[:4] == ["test", "3", "1", "3"]


@pytest.mark.parametrize("log", ["diginetica", "retailrocket", "otto"])
def test_other_logs_as_parquet(log, run, tmp_path):
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
        "otto": "".join(
            f'{{"session": {s}, "events": ['
            f'{{"aid": 7, "ts": {s * day + 7500}, "type": "clicks"}}, '
            f'{{"aid": 8, "ts": {s * day + 8500}, "type": "clicks"}}]}}\n'
            for s in (1, 2, 3)
        ),
    }
    (tmp_path / "log").write_text(content[log])
    process = run(log, "log", "--out", "d", "--format", "parquet", "--min-item-support", 3)
    assert (process.returncode, process.stderr) == (0, "")
    test = pl.read_parquet(tmp_path / "d/test.parquet")
    assert test.rows() == [(3, 7, 259207.5), (3, 8, 259208.5)]
    assert pl.read_parquet(tmp_path / "d/train.parquet")["SessionId"].to_list() == [1, 1, 2, 2]


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
    # The last event is at 99 h 3 s: sessions from 75 h on start in the last day.
    assert (train.n_sessions, test.n_sessions) == (76, 24)
    assert train.session_ids.tolist() + test.session_ids.tolist() == list(range(100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rsc15", "absent.dat"], "absent.dat: no such file"),
        (["rsc15", "bad.dat"], "bad.dat, line 16, column item: 'x' where a whole number is"),
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
        ("rsc15 clicks.dat --out d --split 9d", "split: with the last 9 day(s)"),
        ("", "required: FORMAT, FILE, --out"),
        ("rsc15 clicks.dat", "required: --out"),
        ("rsc51 clicks.dat --out d", "invalid choice: 'rsc51'"),
        ("rsc15 clicks.dat --out d --split 1", "split: must be days like 1d or a share between"),
        ("rsc15 clicks.dat --out d --split 0d", "like 0.1, not '0d'"),
        ("rsc15 clicks.dat --out d --split x", "like 0.1, not 'x'"),
        ("rsc15 clicks.dat --out d --min-session-length 0", "--min-session-length: must be a whol"),
        ("rsc15 clicks.dat --out d --format xlsx", "invalid choice: 'xlsx'"),
        ("rsc15 clicks.dat --out d --item-column i", "the columns of rsc15 are known"),
        (
            "rsc15 clicks.dat --out clicks.dat",
            "--out clicks.dat: clicks.dat is a file, not a folder",
        ),
        ("rsc15 clicks.dat --out clicks.dat/d", "clicks.dat is a file, not a folder"),
        ("table t/train.tsv --out t", "t/train.tsv is the log itself"),
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


def test_help_names_every_format_and_option(run):
    process = run("--help")
    assert process.returncode == 0
    for word in ("yoochoose-clicks.dat", "train-item-views.csv", "events.csv", ".jsonl", "table"):
        assert word in process.stdout
    assert "None" not in process.stdout


def test_progress_is_for_terminals_only(main, monkeypatch):
    for terminal in (True, False):
        shown = io.StringIO()
        shown.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", shown)
        main("rsc15", "clicks.dat", "--out", "out")
        stages = "reading clicks.dat:", "cleaning and splitting:", "writing:"
        assert all((stage in shown.getvalue()) == terminal for stage in stages)


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
    with mock.patch.object(rawlogs, "BLOCK", 500), mock.patch.object(text, "BLOCK", 50):
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
    assert "/proc is not writable" in refused(run("rsc15", "absent.dat", "--out", "/proc/new"))
