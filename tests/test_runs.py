"""A run's directory: stopped and resumed, killed at any time, never mixed with another run's."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_commands import command as run_here
from test_commands import refuses

from gru4rec_np import GRU4Rec, InputError, Shop, train
from gru4rec_np.console import options, report, runs
from gru4rec_np.data.tables import write_table
from gru4rec_np.models import checkpoint
from gru4rec_np.models.baselines import POP, Markov
from gru4rec_np.models.training import Training
from gru4rec_np.train import settings

KILLS = int(os.environ.get("KILLS", "2"))  # docs/reliability.md: a run of 50
OPTIONS = [
    "--backend", "numpy", "--layers", "24", "--n-sample", "64", "--epochs", "3", "--seed", "2",
    "--batch-size", "8", "--momentum", "0.2", "--dropout-p-embed", "0.1", "--checkpoint", "64",
    "--baselines", "pop,markov",
]  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "clicks.tsv"
    write_table(Shop(n_items=100).simulate(600), path)
    return path


def changed(options, **values):
    """Pairs of an option and its value, some with another value."""
    pairs = dict(zip(options[::2], options[1::2], strict=True))
    pairs |= {f"--{name}": value for name, value in values.items()}
    return [word for pair in pairs.items() for word in pair]


def command(*args):
    return [sys.executable, "-m", "gru4rec_np.train", *map(str, args)]


def finish(*args, status=0):
    done = run_here("train", *args)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
    assert f"stopped; to go on: python -m gru4rec_np.train --resume {tmp_path}" in errors
    assert not (tmp_path / "model.npz").exists()

    # A new run does not take its place; and it goes on, once.
    refused = finish("--train", log, "--out", tmp_path, *OPTIONS, status=2)
    assert f"an unfinished run is there; --resume {tmp_path} continues it" in refused.stderr
    finish("--resume", tmp_path)
    same(whole, tmp_path)
    again = finish("--resume", tmp_path, status=2)
    assert "nothing to resume, the run is finished; --n-epochs N trains more" in again.stderr


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
        "--train", log, "--out", tmp_path, *changed(OPTIONS, momentum="0.9"), "--loss", "bpr",
        "--adapt", "sgd", "--hidden-act", "linear",
    ]  # fmt: skip
    refused = finish(*options, "--learning-rate", "1", status=2)
    assert "training diverged" in refused.stderr
    assert f"; {tmp_path / 'diverged.npz'} is the last checkpoint before" in refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diverged.npz", "diverged.toml"]
    arrays = checkpoint.load(tmp_path / "diverged.npz")[1]
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    finish(*options, "--learning-rate", "0.001")
    assert (tmp_path / "model.npz").exists()


def test_killed_at_any_time(log, whole, tmp_path):
    """SIGKILL at random moments, writing included, up to three times a run; then to its end."""
    began = time.monotonic()
    subprocess.run(
        command("--train", log, "--out", tmp_path / "timed", *OPTIONS),
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    seconds = time.monotonic() - began
    rng = random.Random(0)
    done = attempts = 0
    while done < KILLS:
        attempts += 1
        out, killed = tmp_path / str(attempts), 0
        while True:
            goes_on = all((out / f"training.{e}").exists() for e in ("npz", "toml"))
            if not goes_on and (out / "model.npz").exists():
                break  # killed after its last file
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


def test_a_run_at_work_is_not_called_unfinished(tmp_path):
    for name in (runs.TRAINING, runs.SETTINGS):
        (tmp_path / name).touch()
    with runs.alone(tmp_path):
        for args in (["--out", tmp_path], ["--resume", tmp_path]):
            refused = finish(*args, status=2).stderr.strip()
            assert refused == f"error: {shlex.join(map(str, args))}: another run is at work there"


def test_an_unfinished_run_is_named_as_a_shell_reads_it(tmp_path):
    out = tmp_path / "my run"
    out.mkdir()
    for name in (runs.TRAINING, runs.SETTINGS):
        (out / name).touch()
    refused = finish("--out", out, status=2)
    assert f"--resume '{out}' continues it, or delete '{out}/training.npz'" in refused.stderr


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

    def save(self, path, judged):
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


def test_the_settings_are_written_before_the_first_checkpoint_that_can_be(tmp_path):
    full, begun = Standing(OSError(28, "No space left on device", "training.npz")), []
    keeper = runs.Keeper(tmp_path / "t.npz", 64, 0, lambda: begun.append(full.error))
    keeper.after_chunk(full)
    assert not keeper.has_written
    full.error = None
    keeper.after_chunk(full)
    keeper.after_chunk(full)
    assert keeper.has_written and len(begun) == 2 and begun[-1] is None


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
        (["--resume", "nowhere"], "resume: nowhere: nothing to resume"),
        (["--resume", "x", "--layers", "3"], "resume: allows no other option but --n-epochs"),
        (["--resume", "x", "--out", "y"], "resume: allows no other option"),
        (["--resume", "x", "--overwrite"], "resume: allows no other option"),
        (["--patience", "2"], "patience: needs --validation"),
        (["--primary-metric", "mrr@5"], "primary_metric: needs --validation"),
        (
            ["--validation", "1d", "--patience", "-1"],
            "patience: must be a whole number >= 0, not -1",
        ),
        (["--validation", "2x"], "validation: must be days like 1d or a share"),
        (["--checkpoint", "x"], "checkpoint: must be minutes like 5m"),
    ],
)
def test_bad_options(args, words):
    with pytest.raises(InputError, match=words):
        settings(args)


def test_validation_keeps_the_best_epoch(log, tmp_path):
    done = finish(
        "--train", log, "--out", tmp_path, *changed(OPTIONS, epochs="20"), "--learning-rate", "0.4",
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
        "--backend", "numpy", "--layers", 4, "--n-sample", 64, "--epochs", 1, "--out", tmp_path,
        "--baselines", "none",
    )  # fmt: skip
    events, sessions = re.search(r"^test +(\d+) +(\d+)", done.stdout, re.MULTILINE).groups()
    assert f", {int(events) - int(sessions)} cases, ties" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only(log, tmp_path):
    tmp_path.chmod(0o500)
    refused = finish("--train", log, "--out", tmp_path, *OPTIONS, status=2)
    assert "is not writable" in refused.stderr


# --- nothing finished is overwritten --------------------------------------------------------------

# Enough for a run that is looked at from outside.
TINY = [
    "--backend", "numpy", "--layers", "4", "--n-sample", "8", "--epochs", "1", "--baselines",
    "none", "--split", "0.2",
]  # fmt: skip
HEAD = "SessionId\tItemId\tTime\n"


def tiny_log(path, shift=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{s}\t{(s + shift) % 4 + t}\t{s}\n" for s in range(40) for t in range(3)]
    path.write_text(HEAD + "".join(rows))
    return path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("clicks.tsv", "clicks"),
        ("A/train.csv.gz", "train"),
        ("2024.01.01.tsv", "2024.01.01"),
        ("2024.01.02.parquet", "2024.01.02"),
        (".clicks.tsv", "clicks"),
        ("yoochoose-clicks.DAT.zst", "yoochoose-clicks"),
        ("clicks", "clicks"),
        (".tsv", "log"),
        ("/dev/fd/63", "log"),
        ("...", "log"),
    ],
)
def test_a_run_has_the_name_of_its_log(path, name):
    assert runs.name_of([path, "other.tsv"]) == name


def test_runs_of_one_name_are_numbered(tmp_path):
    for folder in ("A", "B"):
        tiny_log(tmp_path / folder / "train.tsv", shift=ord(folder))
    for log, loss, out in (
        ("A/train.tsv", "bpr", "train"),
        ("B/train.tsv", "bpr", "train-2"),
        ("A/train.tsv", "top1", "train-3"),
    ):
        before = contents(tmp_path / "runs") if (tmp_path / "runs").exists() else {}
        done = run_here("train", "--train", log, "--loss", loss, *TINY, cwd=tmp_path)
        assert done.returncode == 0 and f"written to runs/{out}/" in done.stdout, done.stderr
        assert before.items() <= contents(tmp_path / "runs").items()
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["train", "train-2", "train-3"]


# --- a resumed run is judged on the same sessions -------------------------------------------------

JUDGED = {
    "--split 0.2": "test set than {0}/log.tsv",
    "--test a.tsv": "test set than {0}/a.tsv",
    "--test b.tsv a.tsv": "test set than {0}/a.tsv",
    "--split none --validation 0.2": "validation set than {0}/log.tsv",
    "--start-from old --test a.tsv": "test set than {0}/a.tsv",
}


@pytest.mark.parametrize("options", JUDGED)
def test_a_run_is_judged_on_what_it_began_with(options, tmp_path, monkeypatch):
    for name in ("log", "a", "b", "new"):
        tiny_log(tmp_path / f"{name}.tsv", shift=len(name))
    tiny = TINY[:-2]  # without --split
    if "--start-from" in options:
        assert run_here("train", "--train", "log.tsv", *tiny, "--out", "old", "--split", "none",
                        cwd=tmp_path).returncode == 0  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(runs.Keeper, "__enter__", enter_and_stop)
        log = "new.tsv" if "--start-from" in options else "log.tsv"
        begun = run_here("train", "--train", log, *tiny, "--out", "out", *options.split(),
                         cwd=tmp_path)  # fmt: skip
    assert begun.returncode == 128 + signal.SIGTERM, begun.stderr
    before = contents(tmp_path / "out")
    path = tmp_path / JUDGED[options].rpartition("/")[2]
    lines = path.read_text().splitlines()
    session, _, time = lines[-1].split("\t")
    lines[-1] = "\t".join([session, lines[1].split("\t")[1], time])  # another item
    path.write_text("\n".join(lines) + "\n")
    changed = run_here("train", "--resume", tmp_path / "out")
    refuses(
        changed, f"{tmp_path}/out/training.npz: cannot resume from this file: the run began with",
        f"another {JUDGED[options].format(tmp_path)} gives now",
    )  # fmt: skip
    assert contents(tmp_path / "out") == before

    # A file of an earlier version does not say what the run was judged on.
    about, arrays = checkpoint.load(tmp_path / "out/training.npz")
    assert about.pop("judged")
    checkpoint.save(tmp_path / "out/training.npz", about, arrays)
    assert run_here("train", "--resume", tmp_path / "out").returncode == 0


def test_another_training_log_is_named_first(tmp_path, monkeypatch):
    tiny_log(tmp_path / "log.tsv")
    with monkeypatch.context() as patch:
        patch.setattr(runs.Keeper, "__enter__", enter_and_stop)
        run_here("train", "--train", "log.tsv", *TINY, "--out", "out", cwd=tmp_path)
    tiny_log(tmp_path / "log.tsv", shift=1)
    refuses(run_here("train", "--resume", tmp_path / "out"), "it was trained with another log")


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_in_use_is_not_taken(tmp_path):
    (tmp_path / "x").mkdir()
    assert runs.unused_folder(tmp_path / "x") == tmp_path / "x"  # empty
    with runs.alone(tmp_path / "x"):
        assert runs.unused_folder(tmp_path / "x") == tmp_path / "x-2"
    (tmp_path / "x-2").symlink_to("nowhere")
    (tmp_path / "x/file").touch()
    assert runs.unused_folder(tmp_path / "x") == tmp_path / "x-3"


def test_a_folder_that_another_run_takes_meanwhile(tmp_path, monkeypatch):
    load = options.load_data

    def load_and_lose(*args):
        other = tmp_path / "runs" / "log"
        other.mkdir(parents=True)
        (other / "model.npz").touch()
        return load(*args)

    monkeypatch.setattr(options, "load_data", load_and_lose)
    log = tiny_log(tmp_path / "log.tsv")
    done = run_here("train", "--train", log, *TINY, cwd=tmp_path)
    assert "\nwritten to runs/log-2/: " in done.stdout


def test_a_finished_run_is_replaced_only_on_request(tmp_path):
    log = tiny_log(tmp_path / "log.tsv")
    args = ["--train", log, *TINY, "--out", tmp_path / "out"]
    assert run_here("train", *args).returncode == 0
    before = contents(tmp_path / "out")
    refuses(run_here("train", *args), "model.npz is there already", "--overwrite")
    assert contents(tmp_path / "out") == before
    done = run_here("train", *args, "--overwrite", "--loss", "bpr")
    assert done.returncode == 0, done.stderr
    after = contents(tmp_path / "out")
    assert before.keys() == after.keys() and not before.items() & after.items()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_config_of_something_else_stays(tmp_path, more):
    tiny_log(tmp_path / "log.tsv")
    (tmp_path / "config.toml").write_text("[site]\n")
    before = contents(tmp_path)
    done = run_here("train", "--train", "log.tsv", *TINY, "--out", ".", *more, cwd=tmp_path)
    refuses(done, "config.toml")
    assert contents(tmp_path) == before


def stop(*_):
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_overwrite_that_is_stopped_leaves_the_old_run_whole(tmp_path, monkeypatch):
    log = tiny_log(tmp_path / "log.tsv")
    args = ["--train", log, *TINY, "--out", tmp_path / "out"]
    assert run_here("train", *args).returncode == 0
    before = contents(tmp_path / "out")
    del before[tmp_path / "out/training.npz"]
    with monkeypatch.context() as patch:
        patch.setattr(runs.Keeper, "__enter__", enter_and_stop)
        done = run_here("train", *args, "--overwrite", "--loss", "bpr")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert before.items() <= contents(tmp_path / "out").items()
    assert sorted(p.name for p in (tmp_path / "out").glob("training.*")) == [
        "training.npz", "training.toml"
    ]  # fmt: skip
    assert run_here("train", "--resume", tmp_path / "out").returncode == 0
    assert GRU4Rec.load(tmp_path / "out", backend="numpy").loss == "bpr"
    assert 'loss = "bpr"' in (tmp_path / "out/config.toml").read_text()
    assert contents(tmp_path / "out").keys() == before.keys() | {tmp_path / "out/training.npz"}


enter = runs.Keeper.__enter__


def enter_and_stop(keeper):
    enter(keeper)
    stop()
    return keeper


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path):
    log = tiny_log(tmp_path / "log.tsv")
    args = ["--train", log, *TINY, "--out", tmp_path / "out", "--validation", "0.99999"]
    refuses(run_here("train", *args), "validation")
    assert not (tmp_path / "out").exists()


# --- what fails once the model is trained ---------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped; the model is kept in"),
        (MemoryError(), 2, "error: not enough memory: for data or layers of this size; the"),
        (OSError(28, "No space left on device", "x"), 2, "error: x: No space left on device; the"),
    ],
)
@pytest.mark.parametrize("place", [(Markov, "_ranks"), (POP, "_learn"), (report, "plot_curves")])
def test_the_model_is_kept_whatever_fails_after_it(
    log, tmp_path, monkeypatch, error, status, words, place
):
    def fails(*_):
        raise error

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(*place, fails)
        done = run_here("train", "--train", log, "--out", out, *changed(OPTIONS, epochs="1"))
    assert done.returncode == status
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(words) and f"to go on: python -m gru4rec_np.train --resume {out}" in line
    kept = (out / "model.npz").read_bytes()
    resumed = run_here("train", "--resume", out)
    assert resumed.returncode == 0 and "epoch 1/1" not in resumed.stdout  # not trained again
    assert (out / "model.npz").read_bytes() == kept
    assert {p.name for p in out.iterdir()} == {*runs.FILES, runs.TRAINING}


def test_a_full_disk_when_the_model_is_written(log, whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "model.npz")

    with monkeypatch.context() as patch:
        patch.setattr(GRU4Rec, "save", full)
        done = run_here("train", "--train", log, "--out", tmp_path, *OPTIONS)
    refuses(done, "model.npz: No space left on device; the checkpoint is kept", "--resume")
    assert run_here("train", "--resume", tmp_path).returncode == 0
    same(whole, tmp_path)


def test_a_folder_that_is_gone_has_no_checkpoint(log, tmp_path, monkeypatch):
    fit = train.train_with_progress

    def fit_and_remove(*args):
        fit(*args)
        shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(train, "train_with_progress", fit_and_remove)
    done = run_here("train", "--train", log, "--out", tmp_path / "run", *OPTIONS)
    refuses(done, "model.npz: No such file or directory; there is no checkpoint")


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_without_a_checkpoint(tmp_path, monkeypatch, earlier):
    """training.npz of an earlier run is none of this one."""
    args = ["--train", tiny_log(tmp_path / "log.tsv"), *TINY, "--out", tmp_path / "out"]
    if earlier:
        finish(*args)

    def full(*_):
        raise OSError(28, "No space left on device", "x.npz")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", full)
        patch.setattr(GRU4Rec, "save", full)
        done = finish(*args, "--overwrite", "--loss", "bpr", status=2)
    assert done.stderr.splitlines()[-1] == (
        "error: x.npz: No space left on device; there is no checkpoint, so the training is lost"
    )
    assert not (tmp_path / "out" / "training.npz").exists()


def test_what_a_killed_writer_left_is_removed(tmp_path):
    left = tmp_path / "training.part-0123abcd.npz"
    others = ["clicks.part-20240101.tsv", "my.part-1.npz", "training.npz", "training.part-1.npz"]
    for name in (left.name, *others):
        (tmp_path / name).touch()
    runs.require_idle(tmp_path)
    assert left.exists()
    runs.remove_parts(tmp_path, (*runs.FILES, runs.TRAINING))
    assert sorted(p.name for p in tmp_path.iterdir()) == others


def test_a_run_removes_what_a_killed_one_left(tmp_path):
    tiny_log(tmp_path / "log.tsv")
    (tmp_path / "out").mkdir()
    for name in ("training.part-0123abcd.npz", "clicks.part-20240101.tsv"):
        (tmp_path / "out" / name).touch()
    finish("--train", tmp_path / "log.tsv", *TINY, "--out", tmp_path / "out")
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {*runs.FILES, runs.TRAINING, "clicks.part-20240101.tsv"}


@pytest.mark.parametrize(
    ("redirect", "status", "words"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "warning: standard output could not be written: No space left"),
        ("2>/dev/full | true", 0, ""),
    ],
)
def test_streams_that_cannot_be_written(tmp_path, redirect, status, words):
    tiny_log(tmp_path / "log.tsv")
    line = shlex.join(command("--train", "log.tsv", *TINY, "--out", "out"))
    done = subprocess.run(
        ["sh", "-c", f"{line} {redirect}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    assert words in done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*runs.FILES, runs.TRAINING}


def test_nohup_keeps_a_hangup_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with runs.Keeper("x.npz", 0, 0) as keeper:
            os.kill(os.getpid(), signal.SIGHUP)
        assert keeper.asked is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- which epoch is best --------------------------------------------------------------------------


def test_the_primary_metric_chooses_the_epoch(tmp_path, monkeypatch):
    """Of three epochs: the second is best by MRR@5, the third by Recall@20."""
    judged = iter([(0.1, 0.1), (0.2, 0.3), (0.3, 0.2)] * 2)

    def evaluate(model, test, k=(20,), ties="conservative"):
        recall, mrr = next(judged)
        return {f"{m}@{c}": v for c in k for m, v in (("recall", recall), ("mrr", mrr))}

    weights, log = {}, tiny_log(tmp_path / "log.tsv")
    for metric in ("mrr@5", "recall@20"):
        with monkeypatch.context() as patch:
            patch.setattr(GRU4Rec, "evaluate", evaluate)
            done = finish("--train", log, "--out", tmp_path / metric, *changed(TINY, epochs="3"),
                          "--validation", "0.2", "--primary-metric", metric.upper())  # fmt: skip
        weights[metric] = checkpoint.load(tmp_path / metric)[1]["weights/V_y"]
        name = metric.replace("mrr", "MRR").replace("recall", "Recall")
        assert re.findall(rf"{name} (0\.\d)", done.stdout)[:1] == ["0.1"]
    assert not np.array_equal(weights["mrr@5"], weights["recall@20"])
    head = (tmp_path / "mrr@5/history.csv").read_text().splitlines()[0]
    assert head.split(",")[5:] == ["mrr@5", "recall@5", "recall@20", "mrr@20"]
