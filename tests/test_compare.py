"""The comparison: its rows, that nothing is trained twice or mixed up, what it says of noise."""

import csv
import dataclasses
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from test_commands import command, refuses
from tqdm import tqdm

from gru4rec_np import Hybrid, Sessions, Shop, compare, models
from gru4rec_np.compare import digest, folder_for, identity, marker, methods, train_and_rank
from gru4rec_np.console import report
from gru4rec_np.console.comparison import NOISE, SIMPLE, Run, figures_csv, summary, tables
from gru4rec_np.data.tables import read_table, write_table

QUICK = [
    ["--sizes", 4, 8],
    ["--seeds", 2],
    ["--params", "n_epochs=1,n_sample=32"],
    ["--backend", "numpy"],
]
FEW = ["--models", "POP", "Item-KNN", "BPR-MF", "top1-max", "LSTM"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder with train.tsv and test.csv, item ids as text."""
    folder = tmp_path_factory.mktemp("logs")
    shop = Shop(n_items=60)
    write_table(shop.simulate(300), folder / "train.tsv")
    write_table(shop.simulate(80, seed=2), folder / "test.csv")
    return folder


def quick(*more):
    """`QUICK`, but for the options that are among `more`."""
    return [word for words in QUICK if words[0] not in more for word in words] + [*more]


def arguments(logs, out, *more):
    data = ["--train", logs / "train.tsv", "--test", logs / "test.csv"]
    return ["compare", *data, "--out", out, *quick(*more)]


@pytest.fixture(scope="module")
def run(logs):
    """A finished comparison of a few methods: its folder, what it printed, its figures."""
    done = command(*arguments(logs, logs / "out", *FEW, "--paper"))
    assert done.returncode == 0, done.stderr
    return logs / "out", done.stdout, rows(logs / "out")


def rows(out):
    with open(out / "compare.csv") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def stamps(out):
    return {str(p): p.stat().st_mtime_ns for f in ("models", "ranks") for p in (out / f).iterdir()}


def test_what_it_leaves(run, logs):
    out, printed, found = run
    train, test = read_table(logs / "train.tsv").compact(), read_table(logs / "test.csv")
    parts = digest(train, test.restrict(train.item_ids))
    assert {p.name for p in out.iterdir()} == {
        "compare.csv", "compare.md", "compare.png", "models", "ranks", marker(parts)
    }  # fmt: skip
    labels = ["POP", "Item-KNN", "BPR-MF", "GRU top1-max 4", "GRU top1-max 8", "LSTM top1-max 4"]
    assert list(found) == labels
    assert [r["table"] for r in found.values()] == ["Simple methods"] * 3 + [
        "Recurrent networks"
    ] * 3
    assert [r["seeds"] for r in found.values()] == ["1", "1", "2", "2", "2", "2"]
    assert found["POP"]["recall_std"] == "" and float(found["BPR-MF"]["recall_std"]) > 0
    text = (out / "compare.md").read_text()
    for name, row in found.items():
        for shown in (text, printed):
            assert f"{float(row['mrr']):.4f}" in shown and name in shown
            assert f"{float(row['recall_gain']):+.1f}%" in shown
        assert float(row["seconds"]) > 0 and float(row["cases_per_second"]) > 0
    assert "0.6322" in printed and "31,637,239" in printed and "| GRU bpr 1000 | 0.6322 |" in text
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    # The models are there to be used, and give what the table says.
    file = next((out / "models").glob("LSTM-top1-max-4-seed1-*"))
    done = command("evaluate", file, "--test", logs / "test.csv")
    seeds = [models.load(f) for f in (out / "models").glob("LSTM*")]
    test = read_table(logs / "test.csv")
    mean = np.mean([m.evaluate(test)["recall@20"] for m in seeds])
    assert done.returncode == 0 and float(found["LSTM top1-max 4"]["recall"]) == pytest.approx(mean)
    item = models.load(file).item_ids[0]
    assert command("recommend", file, item).returncode == 0


def test_nothing_is_trained_twice(run, logs):
    out = run[0]
    before, tables_before = stamps(out), (out / "compare.md").read_text()
    done = command(*arguments(logs, out, *FEW, "--paper"))
    assert done.returncode == 0 and done.stdout.count("(kept)") == 6
    assert stamps(out) == before and (out / "compare.md").read_text() == tables_before
    # One more method and seed, another cut-off: only what is new is trained.
    done = command(*arguments(logs, out, *FEW, "Markov", "--seeds", 3, "-k", 5))
    assert done.returncode == 0 and done.stdout.count("(kept)") == 2 and "Recall@5" in done.stdout
    after = stamps(out)
    assert before.items() <= after.items() and len(after) == len(before) + 2 * (1 + 4)


def test_results_of_another_log_are_not_replaced(run, logs, tmp_path):
    out = run[0]
    other = read_table(logs / "train.tsv")
    write_table(dataclasses.replace(other, items=other.items[::-1].copy()), tmp_path / "train.tsv")
    (tmp_path / "test.csv").write_bytes((logs / "test.csv").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    done = command(*arguments(tmp_path, out, "--models", "POP"))
    assert (done.returncode, done.stdout) == (2, "")
    refuses(done, f"--out {out}", "compare.csv", "another log or another split")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # A comparison that was stopped before its tables has only the marker.
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / marker("0" * 64)).touch()
    done = command(*arguments(logs, tmp_path / "stopped", "--models", "POP"))
    refuses(done, marker("0" * 64), "another log or another split")


def test_other_parameters_are_not_mixed_in(run, logs, tmp_path):
    out = run[0]
    for more in (["--params", "n_epochs=2,n_sample=32"], ["--ties", "standard"]):
        before = stamps(out)
        args = arguments(logs, out, *more, "--models", "top1-max", "--seeds", 1, "--sizes", 4)
        done = command(*args)
        assert done.returncode == 0 and "(kept)" not in done.stdout
        assert before.items() < stamps(out).items()
        fresh = command(*[tmp_path / "fresh" if a == out else a for a in args])
        assert fresh.returncode == 0
        shown = [re.findall(r"Recall@20 (\S+)   MRR@20 (\S+)", d.stdout) for d in (done, fresh)]
        assert shown[0] == shown[1] and len(shown[0]) == 1


def test_a_file_of_something_else_under_the_name_is_not_taken(tmp_path):
    train = Shop(n_items=30).simulate(60)
    rows = methods(["POP", "Markov"], [4], 1, "", "numpy", None)
    parts = {"train": train, "test": train}
    compare.run_all(rows, parts, "conservative", 20, tmp_path)
    pop, markov = (next((tmp_path / "ranks").glob(f"{n}-*")) for n in ("POP", "Markov"))
    pop.write_bytes(markov.read_bytes())
    markov.write_bytes(markov.read_bytes()[:100])
    runs, failed = compare.run_all(rows, parts, "conservative", 20, tmp_path)
    assert not failed and [r.kept for name in runs for r in runs[name]] == [False, False]
    runs, _ = compare.run_all(rows, parts, "conservative", 20, tmp_path)
    assert [r.kept for name in runs for r in runs[name]] == [True, True]


def test_killed_at_any_instant_it_goes_on(run, logs, tmp_path):
    args = arguments(logs, tmp_path, *FEW)
    line = [sys.executable, "-m", "gru4rec_np.compare", *map(str, args[1:])]
    for n in (1, 4, 7):
        child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(tmp_path.glob("ranks/*"))) < n and child.poll() is None:
            time.sleep(0.01)
        child.kill()
        child.wait()
    done = command(*args)
    assert done.returncode == 0 and done.stdout.count("(kept)") >= 3
    timed = {"seconds", "cases_per_second"}
    for name, row in rows(tmp_path).items():
        assert row.items() - run[2][name].items() <= {(t, row[t]) for t in timed}
    assert list(rows(tmp_path)) == list(run[2])


def test_identity_tells_all_that_matters_apart():
    train = Shop(n_items=30).simulate(60)
    later = dataclasses.replace(train, times=train.times + 1)
    named = dataclasses.replace(train, item_ids=train.item_ids[::-1])
    data = {digest(a, b) for a in (train, later, named) for b in (train, later, named)}
    assert len(data) == 9 and digest(train, train) in data
    found = set()
    for params in ("", "n_epochs=2", "momentum=0.1"):
        for method in methods(None, [4, 8], 2, params, "numpy", Shop(30)):
            found |= {identity(m, "data", "median") for m in method.models().values()}
    simple = 5 + 2 + 1  # POP ... V-SKNN, BPR-MF twice, the oracle
    # NARM; GRU4Rec by loss and size, units, hybrid
    assert len(found) == simple + 2 + 3 * 2 * (6 * 2 + 2 + 1)
    a = methods(["oracle"], [4], 1, "", "numpy", Shop(30))[0].models()["oracle"]
    b = methods(["oracle"], [4], 1, "", "numpy", Shop(30, seed=1))[0].models()["oracle"]
    assert identity(a, "data", "median") != identity(b, "data", "median")


def test_a_hybrid_compiles_on_sessions_that_share_no_items():
    """A short run before the timed one compiles: on the first sessions, whatever these are."""
    pytest.importorskip("numba")
    shop = Shop(n_items=30).simulate(150)
    alone = [[f"{i}a", f"{i}b"] for i in range(60)]
    log = Sessions.from_lists([*alone, *(shop.session(s).tolist() for s in range(150))])
    model = Hybrid(layers=[4], n_sample=16, n_epochs=1, backend="numba")
    with tqdm(disable=True) as bar:
        run = train_and_rank(model, log, log, "conservative", bar)
    assert len(run.ranks) == len(log.cases)


def runs_of(*ranks):
    return [Run(np.asarray(r, float), 1.0, 10.0, False) for r in ranks]


def test_summary_by_hand():
    """Two sessions of two cases; means, spread, gain and the sign of differences."""
    runs = {
        "Item-KNN": runs_of([1, 30, 2, 30]),
        "GRU": runs_of([1, 1, 2, 30], [1, 4, 30, 30]),
        "oracle": runs_of([1, 1, 1, 1]),
    }
    found = summary(runs, np.array([1, 1, 2, 2]), 20, 200)
    knn, gru, oracle = found.values()
    assert (knn["recall"], gru["recall"], oracle["recall"]) == (0.5, 0.625, 1)
    assert knn["recall_std"] is None
    assert gru["recall_std"] == np.std([0.75, 0.5], ddof=1)
    assert gru["mrr"] == pytest.approx((1 + 1 + 0.5 + 1 + 0.25) / 8)
    assert gru["recall_gain"] == pytest.approx(25) and knn["recall_gain"] == 0
    assert gru["recall_best"] == "GRU"  # the oracle does not count
    assert gru["recall_to_knn"] == 0.125 and knn["recall_to_best"] == -0.125
    assert gru["recall_to_best_low"] == gru["recall_to_best_high"] == 0
    assert knn["recall_to_best_low"] < -0.125 < knn["recall_to_best_high"]
    assert knn["recall_to_best_low"] == pytest.approx(-gru["recall_to_knn_high"])
    assert oracle["recall_to_best"] == 0.375 and oracle["recall_to_best_low"] >= 0


def test_noise_is_called_noise_and_a_real_difference_is_not():
    rng = np.random.default_rng(1)
    session = np.repeat(np.arange(400), 3)
    hits = rng.random(1200) < 0.5
    other = rng.random(1200) < 0.5
    runs = {
        "Item-KNN": runs_of(np.where(hits, 1, 99)),
        "twin": runs_of(np.where(other, 1, 99)),
        "same": runs_of(np.where(hits, 1, 99)),
        "better": runs_of(np.where(hits | other, 1, 99)),
    }
    table_of = dict.fromkeys(runs, SIMPLE)
    found = summary(runs, session, 20)
    text = "\n".join(tables(table_of, found, 20, report.aligned))
    recall = text[text.index("Differences in Recall@20") : text.index("Differences in MRR@20")]
    said = {line.split()[0]: line for line in recall.splitlines()[3:]}
    assert said["twin"].count(NOISE) == 1 and said["better"].count(NOISE) == 0
    assert said["same"].split()[1] == "-" and "to the best, better" in recall
    line = next(csv.DictReader(figures_csv(table_of, found).splitlines()))
    assert line["method"] == "Item-KNN" and line["recall_to_knn_low"] == "0.0"


def test_without_item_knn_there_is_no_gain():
    found = summary({"POP": runs_of([1, 99])}, np.arange(2), 20, 10)
    text = "\n".join(tables({"POP": SIMPLE}, found, 20, report.markdown))
    assert "Item-KNN" not in text and "to the best, POP" in text


def test_a_method_that_fails_is_said_and_the_others_stand(logs, tmp_path):
    args = arguments(logs, tmp_path, "--models", "POP", "bpr-max", "--params", "learning_rate=1e30")
    done = command(*args)
    assert done.returncode == 0, done.stderr
    assert re.search(r"GRU bpr-max 8 +not trained: .*loss is", done.stdout)
    assert "Not trained: GRU bpr-max 4: " in (tmp_path / "compare.md").read_text()
    assert list(rows(tmp_path)) == ["POP"]


def test_a_configuration_is_a_row_with_its_own_size(logs, tmp_path):
    done = command(*arguments(logs, tmp_path, "--models", "pop", "rsc15-bpr", "--seeds", 1))
    refuses(done, "'pop'", "POP", "rsc15-bpr")
    done = command(
        *arguments(logs, tmp_path, "--models", "rsc15-100k-onehot", "--seeds", 1, "--params",
                   "n_epochs=1")
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model = models.load(next((tmp_path / "models").glob("rsc15-100k-onehot*")))
    assert (model.layers, model.input, model.n_epochs) == ([100], "onehot", 1)


def test_the_shop_with_its_oracle(tmp_path):
    done = command("compare", "--shop-sessions", 400, "--shop-items", 40, *quick(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "runs/compare-shop")
    assert len(found) == 7 + 6 * 2 + 4 and "NARM 4" in found
    assert "(oracle: " in done.stdout
    assert max(found, key=lambda name: float(found[name]["mrr"])) == "oracle"
    assert all(row["recall_best"] != "oracle" for row in found.values())


def test_bad_input_is_one_line_and_leaves_nothing(logs, tmp_path):
    head = "SessionId\tItemId\tTime\n"
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "one.tsv").write_text(head + "1\ta\t3\n1\ta\t4\n" * 3)
    (tmp_path / "file").write_text("mine")
    for args, words in (
        (["--models", "POPP"], ["models", "'POPP'", "Item-KNN", "NARM"]),
        (["--models", "oracle", "--train", logs / "train.tsv"], ["oracle", "shop"]),
        (["--seeds", 0], ["--seeds", "'0'"]),
        (["--sizes", "ten"], ["--sizes", "'ten'"]),
        (["--sizes", 10**10], ["layers", 10**10]),
        (["-k", 0], ["-k", "'0'"]),
        (["--params", "loss=bpr"], ["params", "loss", "--models"]),
        (["--params", "n_epoch=1"], ["--params", "'n_epoch'"]),
        (["--params", "momentum=2"], ["momentum", "2"]),
        (["--ties", "kind"], ["ties", "'kind'"]),
        (["--backend", "tpu"], ["backend", "'tpu'"]),
        (["--train", tmp_path / "empty.tsv"], ["empty.tsv", "empty"]),
        (["--train", tmp_path / "one.tsv"], ["one.tsv", "training gets 0 of 1 sessions"]),
        (["--train", tmp_path / "none.tsv"], ["none.tsv", "no such file"]),
        (["--test", tmp_path / "one.tsv"], ["--train"]),
        (["--split", "0"], ["split", "'0'"]),
        (["--out", tmp_path / "file"], ["file", "not a folder"]),
        (["--out", "/proc/out"], ["/proc", "not writable"]),
    ):
        out = [] if "--out" in args else ["--out", tmp_path / "out"]
        done = command("compare", *out, *args)
        refuses(done, *words)
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_log_with_one_session(tmp_path):
    """Trained and tested on: methods that cannot learn from it say so."""
    (tmp_path / "one.tsv").write_text("SessionId\tItemId\tTime\n1\ta\t3\n1\tb\t4\n1\ta\t5\n")
    (tmp_path / "same.tsv").write_bytes((tmp_path / "one.tsv").read_bytes())
    log = ["--train", tmp_path / "one.tsv", "--test", tmp_path / "same.tsv"]
    done = command("compare", *log, *quick(), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "POP" in done.stdout
    assert "1 sessions are too few" in done.stdout


def test_results_of_two_logs_of_one_name_have_their_own_folders(tmp_path):
    base = tmp_path / "compare-train"
    assert folder_for(base, "a" * 64) == base
    base.mkdir()
    assert folder_for(base, "a" * 64) == base  # empty
    (base / marker("a" * 64)).touch()
    assert folder_for(base, "a" * 64) == base
    assert folder_for(base, "b" * 64) == tmp_path / "compare-train-2"


def test_a_comparison_takes_one_test_log(logs, tmp_path):
    args = arguments(logs, tmp_path / "out")
    args.insert(args.index("--out"), logs / "train.tsv")
    refuses(command(*args), "test", "training log itself")
    args[args.index("--out") - 1] = logs / "other.csv"
    refuses(command(*args), "test", "one test file")


def test_help():
    done = command("compare", "--help")
    assert done.returncode == 0 and "None" not in done.stdout
    assert done.stdout.startswith("usage: python -m gru4rec_np.compare")
