"""The commands as a user runs them: what they print, what they leave, how they refuse."""

import contextlib
import importlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, split
from gru4rec_np.console import advice, baselines, cli, options, report
from gru4rec_np.data.tables import COLUMNS, read_table, write_table
from gru4rec_np.models import checkpoint
from gru4rec_np.models.baselines import Markov
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.neighbours import VSKNN
from gru4rec_np.train import settings

METHODS = ["POP", "S-POP", "BPR-MF", "Item-KNN", "V-SKNN", "Markov"]
QUICK = ["--layers", "8", "--n-sample", "64", "--epochs", "2", "--backend", "numpy"]


def command(name, *args, cwd=None):
    """A command in this process: most of a process of its own would be its imports."""
    main = importlib.import_module(f"gru4rec_np.{name}").main
    argv = [name, *map(str, args)]
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    before = sys.argv, signal.getsignal(signal.SIGINT), os.getcwd()
    sys.argv = argv
    os.chdir(cwd or ".")
    try:
        with (
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            pytest.raises(SystemExit) as status,
        ):
            cli.run(main)
    finally:
        sys.argv, handler, folder = before
        os.chdir(folder)
        signal.signal(signal.SIGINT, handler)
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess(argv, status.value.code, *texts)


def process(name, *args, cwd=None, **environment):
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"gru4rec_np.{name}", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def refuses(done, *words):
    """Exit status 2 and one clear line on stderr that has all of the words."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0], f"{word!r} is not in: {lines[0]}"


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder with log.tsv, and train.csv and test.parquet cut from it."""
    folder = tmp_path_factory.mktemp("logs")
    log = Shop(n_items=100).simulate(1200)
    train, test = split(log, share=0.2)
    write_table(log, folder / "log.tsv")
    write_table(train, folder / "train.csv")
    write_table(test, folder / "test.parquet")
    return folder


@pytest.fixture(scope="module")
def run(logs):
    """A finished run on the prepared files: its directory and what it printed."""
    out = logs / "run"
    done = command(
        "train", "--train", logs / "train.csv", "--test", logs / "test.parquet", "--out", out,
        "--params", "layers=8,n_sample=64,loss=bpr-max,constrained_embedding=True", "--epochs=2",
        "--backend", "numpy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_train_leaves_its_files_and_a_table(run):
    out, printed = run
    names = {
        "model.npz",
        "config.toml",
        "history.csv",
        "metrics.json",
        "curves.png",
        "training.npz",
    }
    assert {p.name for p in out.iterdir()} == names
    for name in names:
        assert name in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == [*METHODS, "GRU4Rec"]
    for method, row in metrics.items():
        assert list(row) == [
            *(f"{m}@{k}" for k in (5, 10, 20) for m in ("recall", "mrr")),
            *(f"ndcg@{k}" for k in (5, 10, 20)),
        ]
        assert f"\n{method} " in printed and f"{row['recall@20']:.4f}" in printed
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    history = (out / "history.csv").read_text().splitlines()
    assert history[0] == "epoch,loss,events,seconds,events_per_second" and len(history) == 3
    took = printed.split("official defaults: ")[1].splitlines()[0]
    assert "batch_size=64" in took and "n_epochs" not in took and "layers" not in took
    assert "epoch 1/2" in printed and "epoch 2/2" in printed and "events/s" in printed


def test_config_toml_runs_it_again(run, tmp_path):
    out, _ = run
    done = command("train", "--config", out / "config.toml", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "config.toml", "model.npz"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_evaluate_agrees_with_train(run, logs):
    out, _ = run
    row = json.loads((out / "metrics.json").read_text())["GRU4Rec"]
    test = ["--test", logs / "test.parquet", "--backend", "numpy"]
    done = command("evaluate", out, *test, "-k", "5", "20")
    assert done.returncode == 0, done.stderr
    for name in ("recall@5", "recall@20", "mrr@5", "mrr@20", "ndcg@20"):
        assert f"{row[name]:.4f}" in done.stdout
    for ties in ("standard", "median"):
        done = command("evaluate", out / "model.npz", *test, "--ties", ties)
        assert done.returncode == 0 and ties in done.stdout


def test_recommend(run):
    out, _ = run
    model = GRU4Rec.load(out)
    ids = model.item_ids[:2].tolist()
    done = command("recommend", out, ids[0], "nothing", ids[1], "-k", 3)
    assert done.returncode == 0
    assert "unknown to the model" in done.stderr and "nothing" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    wanted = [[str(i + 1), item, f"{s:.4f}"] for i, (item, s) in enumerate(model.recommend(ids, 3))]
    assert rows == wanted


def test_evaluate_and_recommend_take_any_model(run, logs, tmp_path):
    out, _ = run
    row = json.loads((out / "metrics.json").read_text())["V-SKNN"]
    train_log = read_table(logs / "train.csv")
    VSKNN().fit(train_log.keep_sessions(train_log.lengths >= 2)).save(tmp_path / "model.npz")
    done = command("evaluate", tmp_path, "--test", logs / "test.parquet", "-k", "5", "20")
    assert done.returncode == 0, done.stderr
    assert "\nV-SKNN " in done.stdout and f"{row['mrr@20']:.4f}" in done.stdout
    ids = VSKNN.load(tmp_path).item_ids[:2].tolist()
    done = command("recommend", tmp_path, *ids, "nothing", "-k", 3)
    best = VSKNN.load(tmp_path).recommend(ids, 3)
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == [i for i, _ in best]
    assert "ignored, unknown to the model: nothing" in done.stderr


def test_number_ids_from_the_command_line(tmp_path):
    rows = [f"{s}\t{s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", "--split", "0.3", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command(
        "recommend", "runs/log", "2", "77", "1", "77", "002", "77", "-k", "2", cwd=tmp_path
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3
    assert "ignored, unknown to the model: 77, 002\n" in done.stderr


def test_what_it_says_to_try_works_for_ids_that_look_like_options(tmp_path):
    rows = [f"{s}\t-x{s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", "--split", "0.3", *QUICK, cwd=tmp_path)
    _, _, tried = done.stdout.strip().splitlines()[-1].partition("python -m gru4rec_np.recommend ")
    done = command("recommend", *shlex.split(tried), cwd=tmp_path)
    assert done.returncode == 0 and " -x" in done.stdout, done.stderr


def test_the_shop_is_the_default_and_gru4rec_lies_between_markov_and_oracle(tmp_path):
    done = command("train", "--out", tmp_path, "--epochs", 3, "--backend", "auto")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == [*METHODS, "GRU4Rec", "oracle"]
    for name in ("recall@20", "mrr@20"):
        markov, ours, oracle = (metrics[m][name] for m in ("Markov", "GRU4Rec", "oracle"))
        assert markov * 1.1 < ours and ours * 1.1 < oracle


@pytest.mark.parametrize("name", ["train", "evaluate", "recommend", "prepare"])
def test_help(name):
    done = command(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: python -m gru4rec_np.{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("emulate", "gru4rec_np.emulate FILE.cu [ARGUMENTS]"),
        ("train", "text may be compressed by gzip or Zstandard;"),
        ("prepare", "text may be compressed by gzip, and a table or lists by Zstandard;"),
        ("prepare", "older ones of that format are replaced"),
        ("prepare", "until nothing changes (default: the protocol's; rsc15: no)"),
        ("prepare", "events after the cut (default: the protocol's; rsc15: end)"),
        ("prepare", "With table, only --session-gap cuts"),
    ],
)
def test_what_help_says(name, words):
    assert words in " ".join(command(name, "--help").stdout.split())


# --- settings -------------------------------------------------------------------------------------


def test_options_win_over_params_over_config(tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text('layers = [5]\nloss = "top1"\nmomentum = 0.5\nseed = 3\n')
    monkeypatch.chdir(tmp_path)
    data, model, out = settings(
        ["--config", str(tmp_path / "c.toml"), "--params", "loss=bpr,momentum=0.25,n_sample=9",
         "--momentum", "0.125", "--n_epochs=4", "--shop-items", "50"]
    )  # fmt: skip
    assert (model.layers, model.loss, model.momentum, model.seed) == ([5], "bpr", 0.125, 3)
    assert (model.n_sample, model.n_epochs, data["shop_items"]) == (9, 4, 50)
    assert out.name == "shop"


def test_all_items_as_an_option_in_params_and_in_files(tmp_path, monkeypatch):
    """n_sample=all, written to config.toml and to the model and read back; a run resumes."""
    (tmp_path / "c.toml").write_text('n_sample = "all"\n')
    monkeypatch.chdir(tmp_path)
    for args in (["--n-sample", "all"], ["--params", "n_sample=all"], ["--config", "c.toml"]):
        assert settings(args)[1].n_sample == "all"
    shop = "--shop-items", 40, "--shop-sessions", 200
    small = "--layers", 6, "--backend", "numpy", "--baselines", "none"
    done = command("train", "--out", "run", "--n-sample", "all", "--n-epochs", 1, *shop, *small)
    assert done.returncode == 0, done.stderr
    assert "loss cross-entropy, all items as negatives; backend" in done.stdout
    config = (tmp_path / "run" / "config.toml").read_text()
    assert 'n_sample = "all"' in config
    assert GRU4Rec.load(tmp_path / "run").n_sample == "all"
    done = command("train", "--resume", "run", "--n-epochs", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "config.toml").read_text() == config.replace(
        "n_epochs = 1", "n_epochs = 2"
    )


def test_a_config_goes_with_another_log(tmp_path):
    """What it says of its own log is left out; what the command line says of the new one is not."""
    shop = tmp_path / "shop.toml"
    shop.write_text("shop_sessions = 50\nlayers = [7]\n")
    data, model, _ = settings(["--config", str(shop), "--train", "log.tsv"])
    assert model.layers == [7] and data["train"] == ["log.tsv"]
    cut = tmp_path / "cut.toml"
    cut.write_text('train = "a.tsv"\nsplit = "0.3"\nmin_item_support = 2\nlayers = [7]\n')
    data, model, _ = settings(["--config", str(cut), "--train", "b.tsv", "--test", "c.tsv"])
    assert model.layers == [7] and (data["train"], data["test"]) == (["b.tsv"], ["c.tsv"])
    assert settings(["--config", str(cut), "--train", "b.tsv"])[0]["split"] == "0.3"
    with pytest.raises(InputError, match="split: has no use with --test"):
        settings(["--config", str(shop), "--train", "b", "--test", "c", "--split", "1d"])


def test_what_params_leave_out(tmp_path):
    """The official defaults; with --config its values; and the run says which input it takes."""
    config = tmp_path / "c.toml"
    config.write_text('input = "weighted"\nn_epochs = 7\n')
    for args, wanted, words in (
        (["--params", "momentum=0.1"], ("shared", 10, 64), ["names no input; it is shared"]),
        (["--params", "embedding=0"], ("shared", 10, 64), ["names no input; it is shared"]),
        (["--params", "constrained_embedding=False"], ("onehot", 10, 64), []),
        (["--params", "bptt=2", "--input", "onehot"], ("onehot", 10, 64), []),
        (["--params", "bptt=2", "--epochs", "3"], ("shared", 3, 64), ["it is shared"]),
        (["--config", str(config), "--params", "bptt=2"], ("weighted", 7, 32), ["it is weighted"]),
        (["--config", str(config), "--params", "constrained_embedding=1"], ("shared", 7, 32), []),
        ([], ("shared", 5, 32), []),
    ):
        lines = []
        hp = settings([*args, "--backend", "numpy"], lines.append)[1].hp
        assert (hp.input, hp.n_epochs, hp.batch_size) == wanted, args
        text = "\n".join(lines)
        assert all(word in text for word in words), (args, lines)
        assert ("names no input" in text) == bool(words), args
        official = bool(args) and "--config" not in args
        assert ("n_epochs=10" in text) == (official and "--epochs" not in args), args


def test_params_name_columns(tmp_path):
    text = "item_key=item,session_key=SessionId,time_key=t,device=cuda:1"
    lines = []
    data, *_ = settings(["--params", text, "--train", "log.tsv"], lines.append)
    columns = [data[f"{name}_column"] for name in ("session", "item", "time")]
    assert columns == ["SessionId", "item", "t"]
    assert any(line.startswith("--params: ignored: device=cuda:1") for line in lines)
    assert settings(["--params", "item_key=ItemId"])[0]["train"] == []  # the shop, as always
    with pytest.raises(InputError, match="item_column: has no use without --train"):
        settings(["--params", "item_key=item"])


def test_every_hyperparameter_is_an_option():
    base = GRU4Rec.published(input="embedding")
    for name, value in base.hyperparameters().items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            args = [option if not value else "--no-" + option[2:]]
            wanted = not value
        else:
            text = "7/5" if isinstance(value, list) else str(value)
            args, wanted = [option, text], [7, 5] if isinstance(value, list) else value
        _, model, _ = settings([*["--input", "embedding"] * (name != "input"), *args])
        assert getattr(model, name) == wanted, name


# --- bad input: one line, exit status 2, nothing half-written ------------------------------------


def test_unusable_logs(tmp_path):
    def log(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    head = "SessionId\tItemId\tTime\n"
    unreadable = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tsv")  # no UTF-8
    with open(unreadable, "w") as file:
        file.write(head + "1\ta\t3\n1\tb\t4\n")
    out = tmp_path / "out"
    for args, words in (
        (["--train", tmp_path / "missing.tsv"], ["missing.tsv", "no such file"]),
        (["--train", tmp_path], [tmp_path, "is a directory"]),
        (["--train", unreadable + "2"], ["no such file"]),
        (["--train", unreadable], ["not a readable table"]),
        (["--train", log("empty.tsv", "")], ["empty.tsv", "empty"]),
        (["--train", log("head.tsv", head)], ["head.tsv", "no rows"]),
        (
            ["--train", log("column.tsv", "SessionId\tItem\tTime\n1\t2\t3\n")],
            ["column.tsv", "'ItemId'", "'SessionId', 'Item', 'Time'"],
        ),
        (
            ["--train", log("time.tsv", head + "1\t2\t3\n1\t4\tnoon\n")],
            ["time.tsv", "row 3", "Time", "'noon'"],
        ),
        (
            ["--train", log("null.tsv", head + "1\t2\t3\n1\t\t4\n")],
            ["null.tsv", "row 3", "ItemId", "missing"],
        ),
        (
            ["--train", log("short.tsv", head + "1\t2\t3\n2\t2\t4\n")],
            ["short.tsv", "no session is left", "items with 5 events or more"],
        ),
        (
            ["--train", log("one.tsv", head + "1\ta\t3\n1\ta\t4\n" * 3)],
            ["one.tsv", "split", "training gets 0 of 1 sessions"],
        ),
        (
            ["--train", log("a.tsv", head + "1\ta\t3\n1\tb\t4\n"),
             "--test", log("b.tsv", head + "1\tc\t3\n1\td\t4\n")],
            ["b.tsv", "0 are known"],
        ),
        (
            ["--train", log("s.tsv", head + "1\ta\t3\n2\tb\t4\n"), "--test", tmp_path / "a.tsv"],
            ["s.tsv", "no session has 2 events"],
        ),
    ):  # fmt: skip
        refuses(command("train", *args, "--out", out), *words)
        assert not out.exists()


def test_unusable_options(tmp_path):
    for args, words in (
        (["--loss", "hinge"], ["loss", "cross-entropy", "'hinge'"]),
        (["--train", ""], ["train", "is empty"]),
        (["--train", "x", "--test", "y", ""], ["test", "is empty"]),
        (["--params", ""], ["params", "is empty"]),
        (["--resume", ""], ["resume", "is empty"]),
        (["--config="], ["config", "is empty"]),
        (["--ties", "tiebreaking"], ["ties", "tiebreaking", "median"]),
        (["--primary-metric", "map@20"], ["primary_metric", "recall@K or mrr@K", "'map@20'"]),
        (["--primary-metric", "mrr@0"], ["primary_metric", "'mrr@0'"]),
        (["--baselines", "pop,svd"], ["baselines", "'svd'", "item-knn"]),
        (["--baselines", "oracle", "--train", "x"], ["x: no such file"]),
        (["--session-gap", "30", "--train", "x"], ["session_gap", "30m", "'30'"]),
        (["--session-gap", "0m", "--train", "x"], ["session_gap", "'0m'"]),
        (["--keep", "view", "--train", "x"], ["keep", "COLUMN=VALUE", "'view'"]),
        (["--separator", ";"], ["separator", "--train"]),
        *(
            (
                ["--train", "x", "--layout", "lists", f"--{name}", value],
                [f"{name.replace('-', '_')}: has no use with lists, which have"],
            )
            for name, value in (
                ("session-gap", "30m"),
                ("keep", "a=b"),
                ("time-unit", "ms"),
                ("session-column", "u"),
                ("item-column", "i"),
                ("time-column", "t"),
            )
        ),
        (["--train", "a.tsv", "--test", "a.tsv"], ["test", "a.tsv is the training log itself"]),
        (["--layers", "ten"], ["layers", "'ten'"]),
        (["--layers", "0"], ["layers", ">= 1", "[0]"]),
        (["--learning-rate", "-1"], ["learning_rate", "> 0", "-1"]),
        (["--dropout-p-embed", "1"], ["dropout_p_embed", "< 1"]),
        (["--final-act", "elu-x"], ["final_act", "'elu-x'"]),
        (["--backend", "tpu"], ["backend", "numpy", "'tpu'"]),
        (["--ties", "kind"], ["ties", "conservative", "'kind'"]),
        (["--split", "2"], ["split", "'2'"]),
        (["--split", "0.1", "--test", "x", "--train", "y"], ["split", "--test"]),
        (["--merge-repeats", "--test", "x", "--train", "y"], ["merge_repeats", "--test"]),
        (["--shop-items", "50", "--train", "y"], ["shop_items", "--train"]),
        (["--item-column", "ItemId"], ["item_column", "--train"]),
        (["--merge-repeats"], ["merge_repeats", "shop"]),
        (["--test", "x.tsv"], ["--train"]),
        (["--layers", "10000000", "--shop-sessions", "200"], ["not enough memory"]),
        (["--layers", "268435456", "--shop-sessions", "200"], ["not enough memory"]),
        (["--layers", "2147483647"], ["layers", "<= 268435456"]),
        (["--n-sample", "many"], ["n_sample", "a whole number or all", "'many'"]),
        (["--n-sample", "all", "--loss", "bpr"], ["n_sample: all", "'cross-entropy'", "'bpr'"]),
        (["--n-sample", "99999999999"], ["n_sample", "<= 2147483647", "99999999999"]),
        (["--shop-sessions", "99999999999"], ["shop_sessions", "<= 2147483647"]),
        (["--shop-items", "99999999999"], ["shop_items", "<= 2147483647"]),
        (["--loss", "two\nlines"], ["loss"]),
        (["--no\nsuch"], ["--no such"]),
        (["--embedding", "5"], ["embedding", "'shared'"]),
        (["--params", "layer=5"], ["--params", "'layer'", "layers"]),
        (["--params", "layers"], ["--params", "'layers'", "name=value"]),
        (["--shop-items", "many"], ["shop_items", "'many'"]),
        (["--shop-items", "2"], ["n_items", "at least 4", "2"]),
        (["--no-such-option", "2"], ["--no-such-option"]),
    ):
        refuses(command("train", *args, "--out", tmp_path / "out"), *words)
    assert not list((tmp_path / "out").glob("*"))


def test_unusable_config(tmp_path):
    for text, words in (
        ("layers = [", ["c.toml", "TOML"]),
        ("layer = [5]", ["c.toml", "'layer'"]),
        ('layers = "100"', ["layers"]),
        ("train = 5", ["train", "text", "5"]),
        ("shop_items = 1.5", ["shop_items", "whole number", "1.5"]),
        ("merge_repeats = 1", ["merge_repeats", "true or false", "1"]),
        ("train = [5]", ["train", "list of texts"]),
        ('train = "x"\ntest = "y"\nsplit = "1d"', ["split", "--test"]),
        ('train = "x"\nshop_seed = 0', ["shop_seed", "--train"]),
        ('time_column = "Time"', ["time_column", "--train"]),
    ):
        (tmp_path / "c.toml").write_text(text)
        refuses(command("train", "--config", tmp_path / "c.toml", "--out", tmp_path / "o"), *words)
    refuses(command("train", "--config", tmp_path / "none.toml"), "none.toml", "no such file")


def test_unusable_output(tmp_path):
    (tmp_path / "file").write_text("mine")
    refuses(command("train", "--out", tmp_path / "file", "--shop-sessions", 200), "file")
    refuses(command("train", "--out", tmp_path / "file/in", "--shop-sessions", 200), "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out/curves.png").mkdir(parents=True)
    for out, words in (
        (tmp_path / "file", ["is a file, not a folder"]),
        (tmp_path / "out", ["curves.png is a folder, not a file"]),
        ("/proc/out", ["/proc is not writable"]),
    ):
        done = command("train", "--out", out, "--shop-sessions", 200)
        refuses(done, *words)
        assert done.stdout == ""  # before any work


@pytest.mark.parametrize("name", ["train", "evaluate", "recommend", "prepare"])
def test_help_shows_no_none(name):
    assert "None" not in command(name, "--help").stdout


def test_the_examples_in_the_help_stand_on_one_line_each():
    lines = command("train", "--help").stdout.splitlines()
    examples = [shlex.split(line)[3:] for line in lines if line.startswith("  python -m")]
    assert len(examples) == 4
    for arguments in examples[:3]:
        settings(arguments)
    with pytest.raises(InputError, match="runs/clicks: no such model file"):
        settings(examples[3])


def test_the_oracle_is_called_exact_only_if_it_sees_every_event(tmp_path):
    shop = [*QUICK, "--out", tmp_path / "a b", "--shop-sessions", 2000, "--shop-items"]
    exact = command("train", *shop, 50).stdout
    assert "(oracle: the best" in exact
    rows = {line.split()[0]: line.split() for line in exact.splitlines()[1:5]}
    assert list(rows) == ["data", "raw", "train", "test"]
    assert f"try: python -m gru4rec_np.recommend '{tmp_path}/a b' kind" in exact
    again = command("train", *shop, 2000, "--overwrite").stdout
    assert "(oracle: approximately the best" in again


def test_a_terminal_that_cannot_show_an_item(tmp_path):
    rows = [f"{s}\tcafé {s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    text = "SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n"
    (tmp_path / "log.tsv").write_text(text, encoding="utf-8")
    ascii = {"cwd": tmp_path, "PYTHONIOENCODING": "ascii"}
    done = process("train", "--train", "log.tsv", "--split", "0.3", *QUICK, **ascii)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    done = process("recommend", "runs/log", "café 1", "été", "-k", "2", **ascii)
    assert done.returncode == 0 and r"caf\xe9" in done.stdout and r"\xe9t\xe9" in done.stderr


def test_unusable_models(run, logs, tmp_path):
    out, _ = run
    model = (out / "model.npz").read_bytes()
    test = ["--test", logs / "test.parquet"]
    item = GRU4Rec.load(out).item_ids[0]
    for name, content in (
        ("cut.npz", model[: len(model) // 2]),
        ("empty.npz", b""),
        ("text.npz", b"SessionId\tItemId\tTime\n"),
    ):
        (tmp_path / name).write_bytes(content)
        refuses(command("evaluate", tmp_path / name, *test), name)
        refuses(command("recommend", tmp_path / name, item), name)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    refuses(command("recommend", tmp_path / "other.npz", item), "other.npz", "no model of gru4rec")
    refuses(command("recommend", tmp_path / "none", item), "none", "no such model")
    refuses(command("evaluate", out, "--test", logs / "none.tsv"), "none.tsv")
    refuses(command("evaluate", out, *test, "-k", "0"), "-k", "'0'")
    refuses(command("evaluate", out, *test, "--ties", "kind"), "--ties", "kind")
    refuses(command("recommend", out, "unknown1", "unknown2"), "unknown1, unknown2")
    refuses(command("recommend", out, "two\nlines", "9" * 5000), r"two\nlines, 99999", "999...")


# --- several test logs, metrics -------------------------------------------------------------------


def test_evaluate_refuses_an_empty_option(run, logs):
    out, _ = run
    refuses(
        command("evaluate", out, "--test", logs / "test.parquet", "--separator", ""), "separator"
    )


def test_the_metric_of_fit_is_checked():
    log = Shop(n_items=40).simulate(50)
    for metric in ("mrr", "map@20", "mrr@0", "mrr@-1", "recall@2.5"):
        with pytest.raises(InputError, match="primary_metric: must be recall@K or mrr@K"):
            GRU4Rec.published(n_epochs=1, backend="numpy").fit(log, validation=log, primary=metric)


def test_several_test_logs_are_evaluated_one_by_one(run, logs, tmp_path):
    out, _ = run
    whole = read_table(logs / "test.parquet")
    half = whole.keep_sessions(np.arange(whole.n_sessions) % 2 == 0)
    write_table(half, tmp_path / "half.tsv")
    both = [logs / "test.parquet", tmp_path / "half.tsv"]
    done = command(
        "train", "--config", out / "config.toml", "--test", *both, "--out", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "o/metrics.json").read_text())
    assert list(found) == list(map(str, both))
    assert found[str(both[0])] == json.loads((out / "metrics.json").read_text())
    for name, row in found.items():
        assert f"test {name}" in done.stdout and f"{row['GRU4Rec']['mrr@20']:.4f}" in done.stdout
    written = options.read_config(str(tmp_path / "o/config.toml"))
    assert written["test"] == list(map(str, both)) and written["train"] == [str(logs / "train.csv")]
    done = command("evaluate", out, "--test", *both, "--backend", "numpy")
    assert done.returncode == 0
    for name, row in found.items():
        assert f"{name}\n" in done.stdout and f"{row['GRU4Rec']['ndcg@20']:.4f}" in done.stdout


def test_ndcg_by_hand():
    found = report.figures(np.array([1.0, 3.0, 7.0, 21.0]), (5, 20))
    assert found["ndcg@5"] == pytest.approx((1 + 1 / 2) / 4)
    assert found["ndcg@20"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert found["recall@20"] == 0.75


def test_coverage_by_hand():
    """A Markov chain a -> b -> c -> d: the top item after a, b is b, c; then 2 of 4 are covered."""
    log = Sessions.from_lists([["a", "b", "c", "d"]])
    model = Markov().fit(log)
    test = Sessions.from_lists([["a", "b", "c"], ["a", "b"]]).restrict(model.item_ids)
    assert report.coverage(model, test, 1) == 0.5
    assert report.coverage(model, test, 4) == 1


def test_evaluate_shows_coverage(run, logs):
    out, _ = run
    test = ["--test", logs / "test.parquet", "--backend", "numpy", "-k", 5]
    done = command("evaluate", out, *test, "--coverage")
    model = GRU4Rec.load(out, backend="numpy")
    wanted = report.coverage(model, read_table(logs / "test.parquet").restrict(model.item_ids), 5)
    assert 0.1 < wanted < 1 and "Coverage@5" in done.stdout and f"{wanted:.4f}" in done.stdout


def test_the_options_of_a_table_reach_its_reader(monkeypatch):
    calls = []

    def reads(source, columns, watch, tell, dropped, **keywords):
        calls.append((source, columns, keywords))
        return Shop(n_items=40).simulate(200)

    monkeypatch.setattr(options, "read_table", reads)
    args = ["--train", "a.tsv", "b.tsv", "--session-column", "user,session", "--time-unit", "ms"]
    args += ["--separator", ";", "--session-gap", "30m", "--keep", "event=view=1"]
    options.load_data(settings([*args, "--drop-duplicates"])[0])
    options.load_data(settings([*args[:3], "--layout", "lists", "--separator", ";"])[0])
    options.load_data(settings(["--train", "a.tsv", "--session-gap", "1.5h"])[0])
    assert calls == [
        (["a.tsv", "b.tsv"], ("user,session", "ItemId", "Time"), {
            "separator": ";", "time_unit": "ms", "session_gap": 1800.0,
            "keep": ("event", "view=1"), "duplicates": False,
        }),
        (["a.tsv", "b.tsv"], COLUMNS, {"separator": ";", "layout": "lists"}),
        (["a.tsv"], ("SessionId", "ItemId", "Time"), {"session_gap": 5400.0}),
    ]  # fmt: skip


def test_lists_have_no_days(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{s % 3} {(s + 1) % 3}\n" for s in range(40)))
    lists = ["--train", str(path), "--layout", "lists"]
    data, *_ = settings([*lists, "--out", str(tmp_path / "out")])
    parts, _ = options.load_data(data)
    assert parts["test"].session_ids.tolist() == [36, 37, 38, 39]
    for option in ("split", "validation"):
        done = command("train", *lists, f"--{option}", "1d", "--out", tmp_path / "out")
        refuses(done, f"{option}: lists have no times", "'1d'")
    assert not (tmp_path / "out").exists()
    # A run of an earlier version cut them by days, and its configuration goes on so.
    earlier = tmp_path / "config.toml"
    earlier.write_text(f'train = ["{path}"]\nlayout = "lists"\nsplit = "1d"\n')
    data, *_ = settings(["--config", str(earlier), "--out", str(tmp_path / "out")])
    assert options.load_data(data)[0]["test"].n_sessions > 20


# --- baselines ------------------------------------------------------------------------------------


def sized(n_events, n_items, length=5):
    """The sizes of a log, without the log."""
    return types.SimpleNamespace(
        n_events=n_events, n_sessions=n_events // length, n_items=n_items,
        lengths=np.full(n_events // length, length), cases=range(n_events // 100),
    )  # fmt: skip


def left_out(hp, train, shop=None):
    return baselines.chosen("auto", hp, train, {"test": train}, shop)[1]


def test_baselines_that_cost_more_than_the_training_are_left_out():
    shop = Shop(n_items=40)
    quick, usual = Hyperparameters(n_epochs=1, n_sample=32, layers=[16]), Hyperparameters()
    assert left_out(quick, sized(50_000, 1000), shop) == []  # seconds, whatever the training takes
    assert left_out(usual, sized(100_000, 1000), shop) == []
    assert "BPR-MF" in left_out(quick, sized(5_000_000, 40_000))
    assert left_out(Hyperparameters(n_epochs=1), sized(5_000_000, 40_000)) == ["BPR-MF"]
    assert left_out(usual, sized(5_000_000, 40_000)) == []
    assert left_out(Hyperparameters(n_epochs=1), sized(5_000_000, 40_000), shop)[-1] == "BPR-MF"
    assert "oracle" in left_out(quick, sized(5_000_000, 100_000), shop)


def test_baselines_by_name():
    train, tests = sized(5_000_000, 40_000), {"test": sized(5_000_000, 40_000)}
    hp, shop = Hyperparameters(seed=7), Shop(n_items=40)

    def names(text, shop=None):
        methods, left_out = baselines.chosen(text, hp, train, tests, shop)
        assert left_out == []
        return [m.name for m in methods]

    assert names("none") == [] and names("all") == METHODS
    assert names("all", shop) == [*METHODS, "oracle"]
    assert names("markov, POP") == ["POP", "Markov"] and names("oracle", shop) == ["oracle"]
    with pytest.raises(InputError, match="baselines: the oracle knows the simulated shop only"):
        names("oracle")
    assert baselines.chosen("bpr-mf", hp, train, tests, None)[0][0].hp.seed == 7


def test_a_run_with_few_baselines(logs, tmp_path, monkeypatch):
    data = ["--train", logs / "train.csv", "--test", logs / "test.parquet", *QUICK]
    done = command("train", *data, "--baselines", "none", "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert list(json.loads((tmp_path / "a/metrics.json").read_text())) == ["GRU4Rec"]
    assert (tmp_path / "a/curves.png").exists() and "not compared" not in done.stdout
    monkeypatch.setattr(baselines, "SHORT", 0.0)
    monkeypatch.setattr(baselines, "BPR_MF_EVENT", 1.0)
    done = command("train", *data, "--out", tmp_path / "b")
    assert "BPR-MF" not in json.loads((tmp_path / "b/metrics.json").read_text())
    line = next(line for line in done.stdout.splitlines() if line.startswith("not compared with"))
    assert "BPR-MF" in line and "--baselines all" in line


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "idle", "used"),
    [
        ("cosine", 3.0, {"loss": "bpr-max"}, {}),
        ("repeat", 0.3, {"loss": "top1-max"}, {}),
        ("logq", 0.5, {"loss": "bpr-max"}, {}),
        ("logq", 0.5, {"n_sample": "all"}, {"n_sample": 0}),
        ("logq_corrected", True, {"logq": 0.0}, {"logq": 1.0}),
        ("bpreg", 2.0, {}, {"loss": "bpr-max"}),
        ("sample_alpha", 0.2, {"n_sample": 0}, {}),
        ("sample_alpha", 0.2, {"n_sample": "all"}, {}),
        ("skip", True, {"input": "onehot"}, {}),
        ("fade", 0.5, {"skip": False}, {}),
        ("reset_after", True, {"unit": "lstm"}, {}),
        ("discount", 0.5, {}, {"input": "weighted"}),
    ],
)
def test_a_hyperparameter_without_use_is_told(name, value, idle, used):
    """It changes no bit of the model, and elsewhere it does."""
    log = Shop(n_items=20).simulate(60)
    small = {"layers": [4], "n_epochs": 1, "batch_size": 8, "n_sample": 8, "backend": "numpy"}
    other = not value if isinstance(value, bool) else value / 2
    for others, is_used in ((idle, False), (used, True)):
        one, two = (
            GRU4Rec(**small | others | {name: v}).fit(log, verbose=False) for v in (value, other)
        )
        assert bool(one.hp.without_use([name, "layers"])) != is_used
        arrays = [
            [*m.weights.values(), m.evaluate(log)["mrr@20"] if name == "repeat" else 0]
            for m in (one, two)
        ]
        assert all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True)) != is_used


def test_a_warning_for_an_option_without_use(tmp_path):
    done = command("train", "--shop-sessions", "200", "--shop-items", "30", "--layers", "4",
                   "--epochs", "1", "--backend", "numpy", "--baselines", "none", "--no-skip",
                   "--fade", "0.5", "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0 and "warning: fade: has no use without skip\n" in done.stderr
    assert done.stderr.count("has no use") == 1


def test_what_is_likely_not_meant():
    train, small = sized(1000, 50), sized(100, 50)
    cautions = advice.cautions
    assert cautions(Hyperparameters(), train, {"test": small}, True) == []
    found = cautions(Hyperparameters(batch_size=256), train, {"test": sized(600, 50)}, True)
    assert found[0].startswith("batch_size: 256 is larger than the 200 training sessions")
    assert "the test set has 38% of the events; --split 0.1" in found[1] and len(found) == 2
    found = cautions(Hyperparameters(batch_size=9), small, {"test": small}, True, sized(900, 50))
    assert found == [
        "validation: the validation set has 90% of the training events; --validation 0.1 makes it "
        "the last tenth of the sessions"
    ]
    found = cautions(Hyperparameters(sigma=1e10), train, {"a": small, "b": sized(600, 50)}, False)
    assert found[0].startswith("sigma: 1e+10") and found[1].endswith("b: the test set has 38% of "
                                                                     "the events")  # fmt: skip


def test_warnings_are_shown(tmp_path):
    rows = [f"{s}\t{s % 7 + t}\t{s * 4000}" for s in range(30) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", *QUICK, "--lmbd", "1e9", "--batch-size", 8,
                   "--learning-rate", "1e-9", cwd=tmp_path)  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in lines] == ["lmbd:", "test:"], done.stderr


def test_users_instead_of_sessions(tmp_path):
    """Said by `train` as by `prepare`, before what follows from it."""
    rows = [f"{s}\t{s % 7 + t}\t{s * 4000 + t * 90_000}" for s in range(30) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", *QUICK, "--batch-size", 2, cwd=tmp_path)
    users, test = (line for line in done.stderr.splitlines() if line.startswith("warning"))
    assert users == (
        "warning: 30 of 30 sessions last longer than a day, the longest 2.1 days: is the session "
        "column a user's? See --session-gap"
    )
    assert test.startswith("warning: test: the test set has 66% of the events; --split 0.1")
    rows = [row for s in range(30) for row in (f"{s}\t1\t0", f"{s}\t1\t90000")]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    for name, first in (("train", "--train"), ("prepare", "table")):
        done = command(name, first, "log.tsv", "--out", "d", cwd=tmp_path)
        refuses(done, "training gets 0 of 30 sessions", "30 of 30 sessions last longer than a day",
                "is the session column a user's? See --session-gap")  # fmt: skip


# --- what of a log has no part in the results -----------------------------------------------------

LEFT_OUT = [
    "left out  3 rows whose event is not view",
    "left out  2 exact duplicates",
]
EVALUATED = "11 events in 5 sessions; evaluated: 4 in 2 (known items, 2 events or more)"


@pytest.fixture
def partly(tmp_path):
    """train.tsv, and test.tsv with unknown items; with rows that options leave out."""
    head = "SessionId\tItemId\tTime\tevent\n"
    rows = [f"{s}\t{s % 4 + t}\t{s}\tview\n" for s in range(40) for t in range(3)]
    more = ["7\t4\t9\tcart\n", "8\t4\t9\tcart\n", rows[0]]
    (tmp_path / "train.tsv").write_text(head + "".join(rows + more))
    test = [f"{s}\t{item}\t1\tview\n" for s, items in enumerate(("12", "x23", "x1", "yz1", "5"))
            for item in items]  # fmt: skip
    (tmp_path / "test.tsv").write_text(head + "".join([*test, "0\t1\t2\tcart\n", test[0]]))
    return tmp_path


FINDS = {
    "train": [*QUICK, "--baselines", "none"],
    "compare": ["--models", "POP"],
    "search": ["--models", "item-knn", "--trials", 1, "--validation", "0.2", "--baselines", "none"],
}


@pytest.mark.parametrize("name", FINDS)
def test_what_is_left_out_is_said(name, partly):
    if name == "search":
        pytest.importorskip("optuna")
    more = ["--keep", "event=view", "--drop-duplicates", *FINDS[name], "--out", "out"]
    done = command(name, "--train", "train.tsv", "--test", "test.tsv", *more, cwd=partly)
    assert done.returncode == 0, done.stderr
    table, lines = done.stdout.split("\n\n")[0].splitlines(), [*LEFT_OUT, f"test      {EVALUATED}"]
    sets = ["train", "test", *["search", "validation"] * (name == "search")]
    assert [line.split()[0] for line in table[1:-3]] == sets and table[-3:] == lines
    assert table[2].split()[:3] == ["test", "4", "2"]


def test_what_is_left_out_is_said_of_a_split_log(partly):
    done = command("train", "--train", "train.tsv", "--split", "0.2", "--keep", "event=view",
                   *FINDS["train"], cwd=partly)  # fmt: skip
    table = done.stdout.split("\n\n")[0].splitlines()
    assert table[-1] == "left out  2 rows whose event is not view"
    assert [line.split()[0] for line in table[1:-1]] == ["raw", "train", "test"]


def test_of_several_test_logs_each_is_said(partly):
    (partly / "all.tsv").write_text("SessionId\tItemId\tTime\n1\t1\t1\n1\t2\t1\n")
    done = command("train", "--train", "train.tsv", "--test", "all.tsv", "test.tsv", *QUICK,
                   "--baselines", "none", cwd=partly)  # fmt: skip
    table = done.stdout.split("\n\n")[0].splitlines()
    names = ["train", "test all.tsv", "test test.tsv", "test test.tsv"]
    assert [line[: len(name)] for line, name in zip(table[1:], names, strict=True)] == names
    assert "13 events in 5 sessions; evaluated: 6 in 2 (known" in table[-1]


def test_evaluate_and_recommend_say_what_is_left_out(partly):
    log = ["--train", "train.tsv", "--test", "test.tsv", *FINDS["train"], "--out", "out"]
    assert command("train", *log, cwd=partly).returncode == 0
    done = command("evaluate", "out", "--test", "test.tsv", "--keep", "event=view",
                   "--drop-duplicates", cwd=partly)  # fmt: skip
    assert done.stdout.splitlines()[:3] == [
        "left out  1 rows whose event is not view", "left out  1 exact duplicates", EVALUATED
    ]  # fmt: skip
    done = command("recommend", "out", "--sessions", "test.tsv", "--out", "next.tsv", "--keep",
                   "event=view", cwd=partly)  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:-1] == [
        "left out  1 rows whose event is not view",
        "left out  4 events of items that the model does not know",
    ]
    assert lines[-1].startswith("written to next.tsv")


def of_sessions(sessions):
    """A log: each session a text of items, all at one time, one session a second."""
    rows = [f"{s}\t{item}\t{s}\n" for s, items in enumerate(sessions) for item in items]
    return "SessionId\tItemId\tTime\n" + "".join(rows)


SPLIT = "(items that training lacks, sessions of one event)"


@pytest.mark.parametrize(
    ("more", "sessions", "lost"),
    [
        ("--test test.tsv", [*["ab"] * 20, *"aaa"], ["3 events of sessions with one event"]),
        ("--split none", [*["ab"] * 20, *"aaa", "abx"],
         ["4 events by cleaning (short sessions, rare items)"]),
        ("--split none --merge-repeats", [*["ab"] * 20, "aab"],
         ["1 events by cleaning (short sessions, rare items, repeats)"]),
        ("--split none --validation 0.2 --min-item-support 1", [*["ab"] * 18, "abx"],
         [f"1 events by --validation {SPLIT}"]),
        ("--split 0.2 --min-item-support 1", [*["ab"] * 20, "abx"],
         [f"1 events by the split {SPLIT}"]),
        ("--split 0.2 --min-item-support 1 --validation 0.2",
         [*["ab"] * 16, "abx", *["ab"] * 3, "abx", "ab"],
         [f"1 events by --validation {SPLIT}",
          "1 events of the test set, of items that only the validation set has"]),
    ],
)  # fmt: skip
def test_each_event_is_in_a_row_or_counted_below(more, sessions, lost, tmp_path):
    (tmp_path / "log.tsv").write_text(of_sessions(sessions))
    (tmp_path / "test.tsv").write_text(of_sessions(["ab"]))
    done = command("train", "--train", "log.tsv", *more.split(), *FINDS["train"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n\n")[0].splitlines()
    assert [line for line in table if line.startswith("left")] == [f"left out  {x}" for x in lost]
    of = {line.split()[0]: int(line.split()[1]) for line in table[1 : -len(lost)]}
    used = sum(n for name, n in of.items() if name != "raw" and "test.tsv" not in more)
    if used:
        assert of["raw"] == used + sum(int(line.split()[0]) for line in lost)


def test_going_on_counts_sessions_of_one_event(tmp_path):
    (tmp_path / "log.tsv").write_text(of_sessions(["ab"] * 20))
    (tmp_path / "new.tsv").write_text(of_sessions([*["ab"] * 9, "a"]))
    log = ["--train", "log.tsv", "--split", "none", *FINDS["train"], "--out", "old"]
    assert command("train", *log, cwd=tmp_path).returncode == 0
    done = command("train", "--train", "new.tsv", "--start-from", "old", cwd=tmp_path)
    assert "\nleft out  1 events of sessions with one event\n" in done.stdout


def test_several_files_of_one_option_given_twice(logs, run, tmp_path):
    """As after the option once. Of an option of one value, the last one counts."""
    whole = read_table(logs / "train.csv")
    for half in (0, 1):
        write_table(whole[half::2], tmp_path / f"{half}.csv")
    data = settings(["--train", "0.csv", "--train", "1.csv", "--test", "a", "b", "--test=c"])[0]
    assert (data["train"], data["test"]) == (["0.csv", "1.csv"], ["a", "b", "c"])
    assert settings([])[0]["train"] == []
    assert settings(["--epochs", "2", "--n-epochs=3"])[1].n_epochs == 3
    one, two = tmp_path / "0.csv", tmp_path / "1.csv"
    done = command("evaluate", run[0], "--test", one, "--test", two, "-k", 5, "-k", 10)
    assert f"{one}\n" in done.stdout and f"{two}\n" in done.stdout and "MRR@5" in done.stdout
    done = command("recommend", run[0], "--sessions", one, "--sessions", two, "--out", "r.tsv",
                   cwd=tmp_path)  # fmt: skip
    assert f" {whole.n_sessions} sessions" in done.stdout.replace(",", "")


def test_a_file_given_twice_is_refused(logs, run, tmp_path):
    """By another name, too."""
    (tmp_path / "link.csv").symlink_to(logs / "train.csv")
    twice = [logs / "train.csv", logs / "test.parquet", tmp_path / "link.csv"]
    out = tmp_path / "out.tsv"
    for name, arguments in (
        ("train", ["--train", *twice, "--out", tmp_path / "out"]),
        ("recommend", [run[0], "--sessions", *twice, "--out", out]),
        ("prepare", ["table", *twice, "--out", tmp_path / "out"]),
        ("prepare", ["rsc15", *twice, "--out", tmp_path / "out"]),
    ):
        refuses(command(name, *arguments), "link.csv: is given twice")
    assert [path.name for path in tmp_path.iterdir()] == ["link.csv"]


def test_the_same_file_to_train_and_test(logs, tmp_path):
    (tmp_path / "link.tsv").symlink_to(logs / "log.tsv")
    for test in (logs / "log.tsv", tmp_path / "link.tsv"):
        done = command("train", "--train", logs / "log.tsv", "--test", test, "--out", tmp_path)
        refuses(done, "test", test, "is the training log itself")


# --- careless hands -------------------------------------------------------------------------------


def test_a_session_has_an_order():
    model = Markov().fit(Sessions.from_lists([["a", "b"]]))
    for session in ({"a", "b"}, frozenset("ab")):
        with pytest.raises(InputError, match="list of item ids, oldest first; a set has no order"):
            model.recommend(session)


def test_ids_that_would_control_the_terminal(tmp_path):
    ids = ["\x1b[2J", "two\nlines", "x" * 500, "b\u202ea", "plain"]
    log = Sessions.from_lists([ids[i:] + ids[:i] for i in range(5)])
    Markov().fit(log).save(tmp_path / "model.npz")
    done = command("recommend", tmp_path, "plain", "\x1b[31m", "\x1b[31m")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    shown = [line.split()[1] for line in done.stdout.splitlines()[1:]]
    assert {r"\x1b[2J", r"two\nlines", r"b\u202ea", "x" * 57 + "..."} <= set(shown)
    assert len(done.stdout.splitlines()) == 6 and done.stderr.count(r"\x1b[31m") == 1
    refuses(command("recommend", tmp_path, "\x1b[31m"), r"\x1b[31m")
    refuses(command("train", "--loss", "\x1b[2J"), r"\x1b[2J")


def test_an_id_that_is_shown():
    assert cli.shown("café 木") == "café 木" and cli.shown(7) == "7"
    assert cli.shown("\ud800\x00") == r"\ud800\x00" and cli.shown("a" * 9, 8) == "aaaaa..."


def test_a_model_that_is_no_file(tmp_path, monkeypatch):
    (tmp_path / "model.npz").symlink_to("gone.npz")
    refuses(command("recommend", tmp_path, "a"), "model.npz: is a symbolic link to gone.npz")
    (tmp_path / "model.npz").unlink()
    (tmp_path / "model.npz").write_bytes(b"x")

    def denied(*_):
        raise PermissionError(13, "Permission denied")  # not raised for root

    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", denied)
    refuses(command("recommend", tmp_path, "a"), "cannot be read: Permission denied")


def test_a_byte_order_mark_in_toml(tmp_path):
    (tmp_path / "c.toml").write_text("layers = [7]\n", encoding="utf-8-sig")
    assert options.read_config(str(tmp_path / "c.toml")) == {"layers": [7]}


def test_an_output_that_is_a_dangling_link(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    done = command("train", "--out", tmp_path / "link/in", "--shop-sessions", 200)
    refuses(done, "--out", "link is a symbolic link to nowhere, which does not exist")
    refuses(command("train", "--out", ""), "out: is empty")


def test_plots_whatever_backend_the_environment_names(tmp_path):
    code = (
        "import os, numpy as np; from pathlib import Path; from gru4rec_np.console import report\n"
        "ranks = {'POP': (np.ones(3), np.ones(3, int))}\n"
        "report.plot_curves(Path('c.png'), np.ones(9), 3, ranks)\n"
        "assert os.environ['MPLBACKEND'] == 'nonsense'"
    )
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_during_the_imports(tmp_path):
    """Sent by a module that the program imports."""
    (tmp_path / "polars.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = process("recommend", "--help", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_copy_of_the_course_replaces_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for target, words in (("full", "has files in it; name a new folder"), ("file", "--copy file:")):
        refuses(command("course", "--copy", target, cwd=tmp_path), words)
    refuses(command("course", "--copy", "a", "--dir", "b", cwd=tmp_path), "--copy: not with --dir")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]
    (tmp_path / "empty").mkdir()
    assert command("course", "--copy", "empty", cwd=tmp_path).returncode == 0
    assert (tmp_path / "empty/checks/__init__.py").is_file()
