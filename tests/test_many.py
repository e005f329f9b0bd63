"""The commands: recommend for a file of sessions, similar, evaluate among candidates."""

import csv
import json
import os
import signal
import sys

import polars as pl
import pytest

from conftest import files_of_at_most
from gru4rec_np import GRU4Rec, Sessions, Shop, evaluate, recommend, similar
from gru4rec_np.console import cli
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
        (recommend, "model.npz --sessions no.tsv --out r.tsv", "no.tsv: no such file"),
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
