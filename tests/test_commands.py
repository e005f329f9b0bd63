"""The commands as a user runs them: what they print, what they leave, how they refuse."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, InputError, Shop, split, train
from gru4rec_np.data.tables import read_table, write_table
from gru4rec_np.models.neighbours import VSKNN
from gru4rec_np.train import settings

METHODS = ["POP", "S-POP", "BPR-MF", "Item-KNN", "V-SKNN", "Markov"]
QUICK = ["--layers", "8", "--n-sample", "64", "--epochs", "2"]


def command(name, *args, cwd=None, **environment):
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
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_train_leaves_its_files_and_a_table(run):
    out, printed = run
    names = {"model.npz", "config.toml", "history.csv", "metrics.json", "curves.png"}
    assert {p.name for p in out.iterdir()} == names
    for name in names:
        assert name in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == [*METHODS, "GRU4Rec"]
    for method, row in metrics.items():
        assert list(row) == [f"{m}@{k}" for k in (5, 10, 20) for m in ("recall", "mrr")]
        assert f"\n{method} " in printed and f"{row['recall@20']:.4f}" in printed
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    history = (out / "history.csv").read_text().splitlines()
    assert history[0] == "epoch,loss,events,seconds,events_per_second" and len(history) == 3
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
    done = command("evaluate", out, "--test", logs / "test.parquet", "-k", "5", "20")
    assert done.returncode == 0, done.stderr
    for name in ("recall@5", "recall@20", "mrr@5", "mrr@20"):
        assert f"{row[name]:.4f}" in done.stdout
    for ties in ("standard", "median"):
        done = command(
            "evaluate", out / "model.npz", "--test", logs / "test.parquet", "--ties", ties
        )
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
    assert "passed over: nothing" in done.stderr


def test_number_ids_from_the_command_line(tmp_path):
    rows = [f"{s}\t{s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", "--split", "0.3", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command("recommend", "runs/log", "2", "1", "77", "002", "-k", "2", cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3
    assert "passed over: 77, 002\n" in done.stderr


def test_what_it_says_to_try_works_for_ids_that_look_like_options(tmp_path):
    rows = [f"{s}\t-x{s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n")
    done = command("train", "--train", "log.tsv", "--split", "0.3", *QUICK, cwd=tmp_path)
    _, _, tried = done.stdout.strip().splitlines()[-1].partition("python -m gru4rec_np.recommend ")
    done = command("recommend", *shlex.split(tried), cwd=tmp_path)
    assert done.returncode == 0 and " -x" in done.stdout, done.stderr


def test_the_shop_is_the_default_and_gru4rec_lies_between_markov_and_oracle(tmp_path):
    done = command("train", "--out", tmp_path, "--epochs", 3)
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


# --- settings -------------------------------------------------------------------------------------


def test_options_win_over_params_over_config(tmp_path):
    (tmp_path / "c.toml").write_text('layers = [5]\nloss = "top1"\nmomentum = 0.5\nseed = 3\n')
    data, model, out = settings(
        ["--config", str(tmp_path / "c.toml"), "--params", "loss=bpr,momentum=0.25,n_sample=9",
         "--momentum", "0.125", "--n_epochs=4", "--shop-items", "50"]
    )  # fmt: skip
    assert (model.layers, model.loss, model.momentum, model.seed) == ([5], "bpr", 0.125, 3)
    assert (model.n_sample, model.n_epochs, data["shop_items"]) == (9, 4, 50)
    assert str(out) == "runs/shop"


def test_a_config_goes_with_another_log(tmp_path):
    """What it says of its own log is left out; what the command line says of the new one is not."""
    shop = tmp_path / "shop.toml"
    shop.write_text("shop_sessions = 50\nlayers = [7]\n")
    data, model, _ = settings(["--config", str(shop), "--train", "log.tsv"])
    assert model.layers == [7] and data["train"] == "log.tsv"
    cut = tmp_path / "cut.toml"
    cut.write_text('train = "a.tsv"\nsplit = "0.3"\nmin_item_support = 2\nlayers = [7]\n')
    data, model, _ = settings(["--config", str(cut), "--train", "b.tsv", "--test", "c.tsv"])
    assert model.layers == [7] and (data["train"], data["test"]) == ("b.tsv", "c.tsv")
    assert settings(["--config", str(cut), "--train", "b.tsv"])[0]["split"] == "0.3"
    with pytest.raises(InputError, match="split: has no use with --test"):
        settings(["--config", str(shop), "--train", "b", "--test", "c", "--split", "1d"])


def test_params_leave_the_input_that_a_config_or_an_option_set(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('input = "weighted"\n')
    for args, wanted in (
        (["--params", "learning_rate=0.05"], "onehot"),
        (["--params", ""], "shared"),
        (["--params", "bptt=2", "--input", "shared"], "shared"),
        (["--config", str(config), "--params", "learning_rate=0.05"], "weighted"),
        (["--config", str(config), "--params", "constrained_embedding=True"], "shared"),
    ):
        assert settings(args)[1].input == wanted, args


def test_every_hyperparameter_is_an_option():
    base = GRU4Rec(input="embedding")
    for name, value in base.hyperparameters().items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            args = [option if not value else "--no-" + option[2:]]
            wanted = not value
        else:
            text = "7/5" if isinstance(value, list) else str(value)
            args, wanted = [option, text], [7, 5] if isinstance(value, list) else value
        _, model, _ = settings(["--input", "embedding", *args])
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
            ["short.tsv", "no session is left", "lower min_item_support?"],
        ),
        (
            ["--train", log("one.tsv", head + "1\ta\t3\n1\ta\t4\n" * 3)],
            ["one.tsv", "split", "0 of 1 sessions are for training"],
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
    assert len(examples) == 3
    for arguments in examples:
        settings(arguments)


def test_the_model_is_saved_before_the_baselines_run(tmp_path, monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(train.POP, "fit", fails)
    monkeypatch.setattr(
        sys, "argv", ["train", *QUICK, "--shop-sessions", "300", "--out", str(tmp_path)]
    )
    with pytest.raises(MemoryError):
        train.main()
    assert len(GRU4Rec.load(tmp_path).item_ids) > 10


def test_the_oracle_is_called_exact_only_if_it_sees_every_event(tmp_path):
    shop = [*QUICK, "--out", tmp_path / "a b", "--shop-sessions", 2000, "--shop-items"]
    exact = command("train", *shop, 50).stdout
    assert "(oracle: the best" in exact
    rows = {line.split()[0]: line.split() for line in exact.splitlines()[1:5]}
    assert list(rows) == ["data", "raw", "train", "test"]
    assert f"try: python -m gru4rec_np.recommend '{tmp_path}/a b' kind" in exact
    assert "(oracle: approximately the best" in command("train", *shop, 2000).stdout


def test_a_terminal_that_cannot_show_an_item(tmp_path):
    rows = [f"{s}\tcafé {s % 3 + t}\t{s}" for s in range(20) for t in range(3)]
    text = "SessionId\tItemId\tTime\n" + "\n".join(rows) + "\n"
    (tmp_path / "log.tsv").write_text(text, encoding="utf-8")
    ascii = {"cwd": tmp_path, "PYTHONIOENCODING": "ascii"}
    done = command("train", "--train", "log.tsv", "--split", "0.3", *QUICK, **ascii)
    assert (done.returncode, done.stderr) == (0, "")
    done = command("recommend", "runs/log", "café 1", "été", "-k", "2", **ascii)
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
    refuses(command("recommend", out, "two\nlines", "9" * 5000), "two lines, 99999")
