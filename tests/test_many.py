"""The commands: recommend for a file of sessions, similar, evaluate among candidates."""

import csv
import datetime
import json
import os
import signal
import sys

import polars as pl
import pytest

from conftest import files_of_at_most
from gru4rec_np import (
    GRU4Rec,
    InputError,
    Sessions,
    Shop,
    evaluate,
    from_frame,
    read_table,
    recommend,
    similar,
)
from gru4rec_np.console import cli
from gru4rec_np.console.titles import read_items
from gru4rec_np.data.tables import write_table
from gru4rec_np.models.baselines import Markov

LOG = Shop(n_items=60).simulate(120)
ITEMS = LOG.item_ids.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its sessions, titles and a list of items."""
    place = tmp_path_factory.mktemp("many")
    model = GRU4Rec.published(
        layers=[5], n_epochs=1, n_sample=16, batch_size=16, backend="numpy"
    ).fit(LOG)
    model.save(place / "model.npz")
    Markov().fit(LOG).save(place / "markov.npz")
    sessions = [["nobody"], *(s.tolist() for s in map(LOG.session, range(50)))]
    write_table(Sessions.from_lists(sessions), place / "sessions.tsv")
    (place / "titles.tsv").write_text(f"item\ttitle\n{ITEMS[3]}\tJeans, blue\n{ITEMS[4]}\tShirt\n")
    (place / "some.txt").write_text("\n".join(ITEMS[:9]) + "\n")
    (place / "some.tsv").write_text("\n".join(ITEMS[:9]) + "\n")
    (place / "out.tsv").write_text(f"item\ttitle\n{ITEMS[3]}\tJeans\n")
    (place / "empty.txt").write_text("\n")
    (place / "bare.tsv").write_text(f"{ITEMS[3]}\tJeans, blue\n{ITEMS[4]}\tShirt\n")
    (place / "bare.csv").write_text(f'"{ITEMS[3]}","Jeans, blue"\n{ITEMS[4]},Shirt\n')
    write_table(Sessions.from_lists([["nobody", "none"]]), place / "strangers.tsv")
    return place


@pytest.fixture
def run(folder, monkeypatch):
    def run(command, *options):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["command", *options])
        command.main()

    return run


def rows_of(path):
    """[(session, item, score, title or None)] of a file in any of the three formats."""
    if path.suffix == ".parquet":
        rows = pl.read_parquet(path).to_dicts()
    elif path.suffix == ".tsv":
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    else:
        lines = map(json.loads, path.read_text().splitlines())
        return [
            (str(line["session"]), i["item"], round(i["score"], 4), i.get("title"))
            for line in lines
            for i in line["items"]
        ]
    return [
        (str(r["SessionId"]), r["ItemId"], round(float(r["Score"]), 4), r.get("Title"))
        for r in rows
    ]


@pytest.mark.parametrize("name", ["recs.tsv", "recs.jsonl", "recs.parquet"])
def test_a_file_of_sessions(run, folder, name, monkeypatch, capsys):
    monkeypatch.setattr(recommend, "AT_ONCE", 7)
    run(recommend, "model.npz", "--sessions", "sessions.tsv", "--out", name, "-k", "3",
        "--exclude", "seen", "--names", "titles.tsv", "--backend", "numpy")  # fmt: skip
    printed = capsys.readouterr()
    assert f"written to {name}: 50 sessions" in printed.out
    assert "1 of 51 sessions got none" in printed.err
    model = GRU4Rec.load(folder / "model.npz", backend="numpy")
    titles = {ITEMS[3]: "Jeans, blue", ITEMS[4]: "Shirt"}
    wanted = [
        (str(s + 1), item, pytest.approx(score, abs=2e-4), titles.get(item, ""))
        for s in range(50)
        for item, score in model.recommend(LOG.session(s).tolist(), 3, "seen")
    ]
    assert rows_of(folder / name) == wanted
    assert not list(folder.glob(".recommend*")) and not list(folder.glob("*.part*"))


def test_a_list_of_items_is_cut_at_line_ends_only(tmp_path):
    ids = ["a\u2028b", "c\x85d", "e\x0bf", "g\rh", "i j"]
    for end in ("\n", "\r\n"):
        (tmp_path / "list.txt").write_bytes(end.join(["\ufeff" + ids[0], "", *ids[1:]]).encode())
        assert read_items(tmp_path / "list.txt") == ids


def test_what_is_unknown_is_counted(run, folder, capsys):
    (folder / "mixed.txt").write_text("\n".join([*ITEMS[:9], "x", "y"]))
    lists = "--exclude", "mixed.txt", "--candidates", "mixed.txt"
    run(recommend, "model.npz", "--sessions", "sessions.tsv", "--out", "known.tsv", *lists)
    out, err = capsys.readouterr()
    assert out.startswith("left out  1 events of items that the model does not know\nwritten to")
    ignored = "mixed.txt: ignored, unknown to the model: 2 of 11 items, such as x\n"
    assert err.count(ignored) == 2
    run(evaluate, "model.npz", "--test", "sessions.tsv", "--candidates", "mixed.txt")
    assert ignored in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_sessions_without_recommendations_come_first_or_are_all(run, folder, ending, monkeypatch):
    """Columns have the types of their ids, whatever is in the first block."""
    monkeypatch.setattr(recommend, "AT_ONCE", 3)
    sessions = [*[["nobody"]] * 4, [ITEMS[0]]]
    write_table(Sessions.from_lists(sessions), folder / "late.tsv")
    (folder / "own.txt").write_text("\n".join(ITEMS))
    options = "--sessions", "late.tsv", "--out", f"found.{ending}", "-k", "1"
    run(recommend, "model.npz", *options)
    [(session, _, _, _)] = rows_of(folder / f"found.{ending}")
    assert session == "4"
    run(recommend, "model.npz", *options, "--exclude", "own.txt")
    if ending == "parquet":
        frame = pl.read_parquet(folder / "found.parquet")
        assert frame.is_empty() and frame.dtypes[::2] == [pl.Int64, pl.String]


def test_ids_are_written_as_they_are_read(run, folder):
    """In TSV a quotation mark is a part of the value, as in `prepare`."""
    for ids, texts in (
        (['s"1', "2"], ['s"1', "2"]),
        ([True, False], ["True", "False"]),
        ([datetime.datetime(1970, 1, 1, 0, 23, 59)], ["1970-01-01 00:23:59"]),
    ):
        log = from_frame(pl.DataFrame({"SessionId": ids, "ItemId": ids, "Time": [1] * len(ids)}))
        write_table(log, folder / "typed.parquet")
        Markov().fit(log).save(folder / "typed.npz")
        for ending in ("tsv", "jsonl"):
            run(recommend, "typed.npz", "--sessions", "typed.parquet", "--out", f"typed.{ending}")
        lines = [line.split("\t") for line in (folder / "typed.tsv").read_text().splitlines()[1:]]
        assert {session for session, *_ in lines} == {item for _, _, item, _ in lines} == set(texts)
        assert read_table(folder / "typed.tsv", ("SessionId", "ItemId", "Rank")).n_events > 0
    assert '"session": "1970-01-01 00:23:59"' in (folder / "typed.jsonl").read_text()


@pytest.mark.parametrize(
    ("session", "item", "title"), [("a\tb", "x", "y"), ("a", "x\ny", "z"), ("a", "x", "y\tz")]
)
def test_what_a_tsv_cannot_hold_is_refused(run, folder, session, item, title):
    events = {"SessionId": [session] * 2, "ItemId": [item, "other"], "Time": [1, 2]}
    log = from_frame(pl.DataFrame(events))
    write_table(log, folder / "odd.parquet")
    Markov().fit(log).save(folder / "odd.npz")
    (folder / "odd.csv").write_text(f'item,title\nother,"{title}"\n')
    options = "odd.npz", "--sessions", "odd.parquet", "--names", "odd.csv", "--out"
    with pytest.raises(InputError, match="has a tab or a line break, which a tab-sep"):
        run(recommend, *options, "odd.tsv")
    assert not (folder / "odd.tsv").exists()
    run(recommend, *options, "odd.jsonl")


def test_a_title_that_is_not_written_may_be_anything(run, folder):
    events = {"SessionId": ["a", "a"], "ItemId": ["x", "other"], "Time": [1, 2]}
    write_table(from_frame(pl.DataFrame(events)), folder / "even.parquet")
    Markov().fit(read_table(folder / "even.parquet")).save(folder / "even.npz")
    (folder / "even.csv").write_text('item,title\nother,Shoe\nabsent,"a\ttab"\n')
    run(
        recommend, "even.npz", "--sessions", "even.parquet", "--names", "even.csv", "--out", "e.tsv"
    )
    assert "\tShoe\n" in (folder / "e.tsv").read_text()


@pytest.mark.parametrize("name", ["full.tsv", "full.jsonl", "full.parquet"])
def test_a_full_disk_ends_with_one_line(run, folder, name, capsys):
    """And with no file: Polars says it in three ways, by the format."""
    with pytest.raises(SystemExit) as end, files_of_at_most(500):
        cli.run(
            lambda: run(recommend, "model.npz", "--sessions", "sessions.tsv", "--out", name,
                        "--backend", "numpy")
        )  # fmt: skip
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {name}: ") and "File too large" in err
    assert not [p for p in folder.iterdir() if p.name.startswith(("full", ".rec"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["stop.tsv", "stop.parquet"])
def test_a_signal_leaves_nothing_behind(run, folder, number, name, capsys, monkeypatch):
    def killed(*args, **kwargs):
        os.kill(os.getpid(), number)

    monkeypatch.setattr(pl.DataFrame, "write_csv", killed)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", killed)
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as end:
            cli.run(
                lambda: run(recommend, "model.npz", "--sessions", "sessions.tsv", "--out", name)
            )
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == "stopped\n"
    assert not [p for p in folder.iterdir() if p.name.startswith(("stop", ".rec"))]


def test_one_session_with_titles_and_candidates(run, capsys):
    run(recommend, "model.npz", ITEMS[0], "-k", "60", "--candidates", "some.txt",
        "--exclude", "seen", "--names", "titles.tsv")  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "item", "score", "title"]
    assert {line.split()[1] for line in lines[1:]} == set(ITEMS[1:9])
    assert any(line.endswith("Jeans, blue") for line in lines)


@pytest.mark.parametrize(
    "order", ["-k 3 {0} {1}", "{0} -k 3 {1}", "{0} {1} -k 3", "-k 3 -- {0} {1}"]
)
def test_items_stand_before_or_after_options(run, folder, capsys, order):
    """`make demo` has them after."""
    run(recommend, "model.npz", *order.format(*ITEMS[:2]).split())
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]]
    model = GRU4Rec.load(folder / "model.npz", backend="numpy")
    assert shown == [item for item, _ in model.recommend(ITEMS[:2], 3)]


def test_similar_items(run, folder, capsys):
    run(similar, "model.npz", ITEMS[0], "-k", "60", "--names", "titles.tsv")
    lines = capsys.readouterr().out.splitlines()
    wanted = GRU4Rec.load(folder / "model.npz", backend="numpy").similar(ITEMS[0], 60)
    assert lines[0].split() == ["rank", "item", "cosine", "title"]
    assert [line.split()[1] for line in lines[1:]] == [item for item, _ in wanted]
    assert any(line.endswith("Shirt") for line in lines)


def test_evaluate_among_candidates(run, capsys):
    found = []
    for more in ([], ["--candidates", "some.txt"]):
        run(evaluate, "model.npz", "--test", "sessions.tsv", "--backend", "numpy", *more)
        found.append(capsys.readouterr().out)
    assert "next item among the items of some.txt" in found[1]
    recall = [float(text.splitlines()[-1].split()[1]) for text in found]
    assert 0 < recall[1] < recall[0]  # most targets are no candidates


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        (recommend, "model.npz", "give either the items of one session, or --sessions"),
        (recommend, "model.npz a --sessions s.tsv", "give either the items"),
        (recommend, "model.npz a --out r.tsv", "out: has no use without --sessions"),
        (recommend, "model.npz --sessions sessions.tsv", "out: --sessions needs --out"),
        (recommend, "model.npz --sessions sessions.tsv --out r.csv", "out: must end in .tsv"),
        (recommend, "model.npz --sessions sessions.tsv --out sessions.tsv", "sessions.tsv"),
        *(
            (
                recommend,
                f"model.npz --sessions sessions.tsv --out {name} --{option} {name}",
                f"{name} is an input file and would be replaced",
            )
            for option, name in (
                ("names", "out.tsv"),
                ("exclude", "out.tsv"),
                ("candidates", "some.tsv"),
            )
        ),
        (recommend, "model.npz --sessions no.tsv --out r.tsv", "no.tsv: no such file"),
        (recommend, "model.npz --sessions= --out r.tsv", "sessions: is empty; leave the option"),
        (recommend, "model.npz a --exclude empty.txt", "empty.txt: names no item"),
        (recommend, "model.npz a --candidates titles.tsv", "titles.tsv: no item of it is known"),
        (recommend, "model.npz a --names some.txt", "some.txt: line 2: must have 2 columns"),
        (recommend, f"model.npz {ITEMS[0]} --names bare.tsv", f"bare.tsv: line 1: '{ITEMS[3]}' is"),
        (
            similar,
            f"model.npz {ITEMS[0]} --names bare.csv",
            f"bare.csv: line 1: '{ITEMS[3]}' is an",
        ),
        (
            recommend,
            "model.npz --sessions strangers.tsv --out r.tsv",
            "strangers.tsv: none of its items, such as nobody, is among the model's 60, such as",
        ),
        (similar, "model.npz nobody", "item 'nobody' is not known"),
        (similar, "markov.npz a", "markov.npz: Markov has no table of items"),
        (evaluate, "model.npz --test sessions.tsv --candidates empty.txt", "names no item"),
    ],
)
def test_what_cannot_be_used_is_one_line(run, folder, command, options, says):
    before = sorted(folder.iterdir())
    with pytest.raises((Exception, SystemExit)) as error:
        run(command, *options.split())
    assert says in str(error.value) and "\n" not in str(error.value)
    assert sorted(folder.iterdir()) == before
