"""A run's directory: stopped and gone on with, killed at any time, used by one run only."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gru4rec_np import GRU4Rec, InputError, Shop, train
from gru4rec_np.console import runs
from gru4rec_np.data.tables import write_table
from gru4rec_np.models import checkpoint
from gru4rec_np.train import settings

KILLS = int(os.environ.get("KILLS", "2"))  # docs/reliability.md: a run of 50
OPTIONS = [
    "--backend", "numpy", "--layers", "24", "--n-sample", "64", "--epochs", "3", "--seed", "2",
    "--batch-size", "8", "--momentum", "0.2", "--dropout-p-embed", "0.1", "--checkpoint", "64",
]  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "clicks.tsv"
    write_table(Shop(n_items=200).simulate(1000), path)
    return path


def command(*args):
    return [sys.executable, "-m", "gru4rec_np.train", *map(str, args)]


def finish(*args, status=0):
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    finish("--train", log, "--out", out, *OPTIONS)
    return out


def same(a, b):
    """The same weights and metrics to the bit, and the same losses."""
    (_, x), (_, y) = (checkpoint.load(folder) for folder in (a, b))
    assert set(x) == set(y)
    for name in x:
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)
    for name in ("metrics.json", "config.toml"):
        assert (a / name).read_text() == (b / name).read_text()
    losses = [
        [line.split(",")[1] for line in (f / "history.csv").read_text().splitlines()]
        for f in (a, b)
    ]
    assert losses[0] == losses[1]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(log, whole, tmp_path, number):
    process = subprocess.Popen(
        command("--train", log, "--out", tmp_path, *OPTIONS), text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_for(tmp_path / "training.npz", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopping after these steps" in errors and "Traceback" not in errors
    assert f"to go on: python -m gru4rec_np.train --resume {tmp_path}" in errors
    assert not (tmp_path / "model.npz").exists()

    # A new run does not take its place; and it goes on, once.
    refused = finish("--train", log, "--out", tmp_path, *OPTIONS, status=2)
    assert f"an unfinished run is there; --resume {tmp_path} goes on" in refused.stderr
    finish("--resume", tmp_path)
    same(whole, tmp_path)
    again = finish("--resume", tmp_path, status=2)
    assert "nothing to go on with, there is no training.npz" in again.stderr


def test_asked_to_stop_while_the_last_epoch_is_judged(log, tmp_path, monkeypatch, capsys):
    options = ["--train", log, *OPTIONS, "--validation", "0.2"]
    finish(*options, "--out", tmp_path / "whole")
    evaluate, calls = GRU4Rec.evaluate, []

    def interrupted(*args):
        calls.append(evaluate(*args))
        if len(calls) == 3:  # of 3 epochs
            os.kill(os.getpid(), signal.SIGTERM)
        return calls[-1]

    monkeypatch.setattr(GRU4Rec, "evaluate", interrupted)
    monkeypatch.setattr(sys, "argv", list(map(str, ["train", *options, "--out", tmp_path / "out"])))
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "to go on: python -m gru4rec_np.train --resume" in capsys.readouterr().err
    finish("--resume", tmp_path / "out")
    same(tmp_path / "whole", tmp_path / "out")


def test_a_run_that_diverged_is_in_no_other_ones_way(log, tmp_path):
    options = [
        "--train", log, "--out", tmp_path, *OPTIONS, "--loss", "bpr", "--adapt", "sgd",
        "--hidden-act", "linear", "--momentum", "0.9",
    ]  # fmt: skip
    refused = finish(*options, "--learning-rate", "1", status=2)
    assert "training diverged" in refused.stderr
    assert f"; {tmp_path / 'diverged.npz'} holds where it stood before" in refused.stderr
    arrays = checkpoint.load(tmp_path / "diverged.npz")[1]
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    finish(*options, "--learning-rate", "0.001")
    assert (tmp_path / "model.npz").exists()


def test_killed_at_any_time(log, whole, tmp_path):
    """SIGKILL at random moments, writing included, up to three times a run; then to its end."""
    began = time.monotonic()
    finish("--train", log, "--out", tmp_path / "timed", *OPTIONS)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    done = attempts = 0
    while done < KILLS:
        attempts += 1
        out, killed = tmp_path / str(attempts), 0
        while True:
            goes_on = (out / "training.npz").exists()
            args = ["--resume", out] if goes_on else ["--train", log, "--out", out, *OPTIONS]
            process = subprocess.Popen(
                command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            try:
                wait = seconds * rng.random() if killed < 3 else 300
                _, errors = process.communicate(timeout=wait)
                assert process.returncode == 0, errors
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
        same(whole, out)
        done += killed > 0
    print(f"{done} runs killed")


def test_one_run_at_a_time(tmp_path):
    with runs.alone(tmp_path):
        with pytest.raises(InputError, match=r"another run is at work there"):
            with runs.alone(tmp_path):
                pass
    with runs.alone(tmp_path):  # free again
        pass


def test_the_command_holds_its_directory(log, tmp_path):
    with runs.alone(tmp_path):
        refused = finish("--train", log, "--out", tmp_path, *OPTIONS, status=2)
    assert refused.stderr.strip() == f"error: --out {tmp_path}: another run is at work there"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("5m", (0, 300.0)), ("0.5m", (0, 30.0)), ("500", (500, 0.0)), ("0", (0, 0.0))],
)
def test_interval(text, wanted):
    assert runs.parse_interval(text) == wanted


@pytest.mark.parametrize("text", ["", "m", "-1", "-1m", "5s", "1.5", "nanm", "infm"])
def test_bad_interval(text):
    with pytest.raises(InputError, match="checkpoint: must be minutes like 5m"):
        runs.parse_interval(text)


class Standing:
    """A training that can be saved, or not."""

    chunk = 64

    def __init__(self, error=None):
        self.error, self.saved = error, 0

    def save(self, path):
        self.saved += 1
        if self.error:
            raise self.error


def test_a_disk_that_is_full_ends_nothing(tmp_path, capsys):
    full = Standing(OSError(28, "No space left on device", "training.npz"))
    keeper = runs.Keeper(tmp_path / "t.npz", 128, 0)
    for _ in range(5):
        keeper.after_chunk(full)
    assert full.saved == 3  # the first, and every second
    warning = "warning: no checkpoint could be written: training.npz: No space left on device"
    assert capsys.readouterr().err.count(warning) == 3


def test_minutes(tmp_path, monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    keeper, standing = runs.Keeper(tmp_path / "t.npz", 0, 25), Standing()
    for _ in range(9):
        keeper.after_chunk(standing)
    assert 3 <= standing.saved <= 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--resume", "nowhere"], "resume: nowhere: nothing to go on with"),
        (["--resume", "x", "--epochs", "3"], "resume: goes alone"),
        (["--resume", "x", "--out", "y"], "resume: goes alone"),
        (["--patience", "2"], "patience: .* 0 without --validation, not 2"),
        (["--validation", "2x"], "validation: must be days like 1d or a share"),
        (["--checkpoint", "x"], "checkpoint: must be minutes like 5m"),
    ],
)
def test_bad_options(args, words):
    with pytest.raises(InputError, match=words):
        settings(args)


def test_validation_keeps_the_best_epoch(log, tmp_path):
    done = finish(
        "--train", log, "--out", tmp_path, *OPTIONS, "--epochs", "20", "--learning-rate", "0.4",
        "--validation", "0.2", "--patience", "2",
    )  # fmt: skip
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    recall = [float(row[rows[0].index("recall@20")]) for row in rows[1:]]
    assert len(recall) < 20 and len(recall) == int(np.argmax(recall)) + 3
    assert "no better epoch in 2: stopped" in done.stdout
    assert done.stdout.count("   Recall@20 0.") == len(recall)
    assert json.loads((tmp_path / "metrics.json").read_text())["GRU4Rec"]["recall@20"] > 0


def test_the_test_set_that_is_described_is_the_one_that_is_ranked(tmp_path):
    """Also where held-out sessions took items away with them."""
    done = finish(
        "--shop-sessions", 400, "--shop-items", 400, "--min-item-support", 2, "--validation", 0.4,
        "--backend", "numpy", "--layers", 4, "--epochs", 1, "--out", tmp_path,
    )  # fmt: skip
    events, sessions = re.search(r"^test +(\d+) +(\d+)", done.stdout, re.MULTILINE).groups()
    assert f", {int(events) - int(sessions)} cases, ties" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only(log, tmp_path):
    tmp_path.chmod(0o500)
    refused = finish("--train", log, "--out", tmp_path, *OPTIONS, status=2)
    assert "is not writable" in refused.stderr
