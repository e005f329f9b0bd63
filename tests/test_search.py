"""The search: spaces, trials that count once, workers that die, searches that go on."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from glob import glob
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from test_commands import command as run_here
from test_commands import refuses

from gru4rec_np import GRU4Rec, InputError, Shop, models
from gru4rec_np import search as command_module
from gru4rec_np.console import trials, tuning
from gru4rec_np.console.spaces import MODELS, SPACES, make, read_space, suggest
from gru4rec_np.data.protocols import split
from gru4rec_np.search import search
from gru4rec_np.train import settings

optuna = pytest.importorskip("optuna")
TRAIN, VALIDATION = split(Shop(n_items=60).simulate(400), share=0.2)
SPACE = """\
[layers]
range = [4, 16]
step = 4
[learning_rate]
range = [0.01, 0.2]
log = true
[loss]
values = ["cross-entropy", "bpr-max"]
[bpreg]
range = [0.0, 2.0]
step = 0.05
when = { loss = "bpr-max" }
[n_sample]
values = [32]
[n_epochs]
values = [2]
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return str(path)


def job(space, tmp_path=None, **changes):
    """A search on the small shop; in a journal if it has a folder."""
    values = {
        "model": "gru4rec", "space": read_space(space, GRU4Rec), "train": TRAIN,
        "validation": VALIDATION, "primary": "mrr@20", "trials": 6, "seed": 1, "backend": "numpy",
        "storage": str(tmp_path / "journal") if tmp_path else "", "study": "s",
    }  # fmt: skip
    return trials.Job(**{**values, **changes})


def run(job):
    return tuning.run(job, lambda study: None)


def outcomes(study):
    return [(t.number, t.state.name, t.value, t.params) for t in study.trials]


# --- spaces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_shipped_spaces(name):
    model = MODELS.get(name, GRU4Rec)
    assert read_space(name, model)


def test_the_official_ranges():
    parameters = {p.name: p for p in read_space("bpr-max", GRU4Rec)}
    found = {n: (p.low, p.high, p.step) for n, p in parameters.items() if not p.values}
    assert found == {
        "layers": (64, 512, 32), "batch_size": (32, 256, 16), "learning_rate": (0.01, 0.25, 0.005),
        "dropout_p_embed": (0, 0.5, 0.05), "dropout_p_hidden": (0, 0.7, 0.05),
        "momentum": (0, 0.9, 0.05), "sample_alpha": (0, 1, 0.1), "bpreg": (0, 2, 0.05),
    }  # fmt: skip
    assert parameters["loss"].values == ("bpr-max",)
    assert parameters["elu_param"].values == (0, 0.5, 1)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_a_condition(space, loss):
    trial = optuna.trial.FixedTrial({"layers": 8, "learning_rate": 0.1, "loss": loss, "bpreg": 0.3})
    chosen = suggest(read_space(space, GRU4Rec), trial)
    assert ("bpreg" in chosen) == (loss == "bpr-max")
    assert chosen["n_epochs"] == 2
    model = make(GRU4Rec, chosen, 3, "numpy")
    assert (model.layers, model.loss, model.seed, model.backend) == ([8], loss, 3, "numpy")


def test_a_space_as_a_dictionary():
    space = read_space({"base": "bpr-max", "layers": {"values": [8]}}, GRU4Rec)
    assert {p.name: p.values for p in space}["layers"] == (8,)
    with pytest.raises(InputError, match="space: layers: must be a table"):
        read_space({"layers": 3}, GRU4Rec)


def test_steps_give_round_numbers(space):
    parameter = next(p for p in read_space(space, GRU4Rec) if p.name == "bpreg")
    trial = mock.Mock(**{"suggest_float.return_value": 0.30000000000000004})
    assert parameter.suggest(trial) == 0.3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no hyperparameter"),
        ("layers = 5", 'layers: must be a table with "values" or "range"'),
        ("[layers]\n", 'layers: needs one of "values" and "range"'),
        ("[layers]\nrange = [4, 8]\nvalues = [4]", 'layers: needs one of "values" and "range"'),
        ("[layers]\nrange = [8, 4]", "layers: range: must go up, not from 8 to 4"),
        ("[layers]\nrange = [4]", "layers: range: must be two numbers"),
        ("[layers]\nrange = [4, nan]", "layers: range: must be two numbers"),
        ("[layers]\nrange = [4, 8]\nstep = 0", "layers: step: must be > 0"),
        ("[layers]\nrange = [4, 8]\nstep = 0.5", "layers: step: must be a whole number"),
        ("[layers]\nrange = [0, 8]", "layers: must be"),
        ("[layers]\nrange = [1, 8]\nlog = 3", "layers: log: must be true or false, not 3"),
        ("[lmbd]\nrange = [0.0, 8.0]\nlog = true", "lmbd: log: needs a range above 0"),
        ("[loss]\nvalues = []", "loss: values: must be a list of at least one value"),
        ('[loss]\nvalues = ["top1", "top"]', "loss: must be one of"),
        ("[loss]\nvalues = [[1]]", "loss: values: must be numbers, texts, true or false"),
        ("[loos]\nvalues = [1]", "loos: GRU4Rec has no such hyperparameter; it has"),
        ("[seed]\nvalues = [1]", "seed: GRU4Rec has no such hyperparameter"),
        ("[bpreg]\nvalues = [1]\nwhen = { loss = 1 }", "bpreg: when: 'loss' must be a parameter"),
        ("[bpreg]\nvalues = [1]\nwhen = 3", "bpreg: when: must be like"),
        ("[bpreg]\nvalues = [1]\nrnage = 3", "bpreg: unknown 'rnage'; known are"),
        ("base = 3", "base: must be the name of another space, not 3"),
        ('base = "space.toml"', "base: must be the name of another space, not 'space.toml'"),
        ('base = "bpr-mux"', "bpr-mux: no such file, and no space of that name; there are"),
        ("[layers", "not a TOML file"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path, text, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_space(str(path), GRU4Rec)
    assert says in str(error.value) and "\n" not in str(error.value)


# --- trials ---------------------------------------------------------------------------------------


def test_the_best_of_the_validation_set_is_trained_on_everything(space):
    log = Shop(n_items=60).simulate(400)
    study, model = search(log, space, 5, validation=VALIDATION, seed=2, backend="numpy",
                          verbose=False)  # fmt: skip
    assert study.best_value == max(t.value for t in study.trials if t.value is not None)
    best = suggest(read_space(space, GRU4Rec), optuna.trial.FixedTrial(study.best_params))
    again = make(GRU4Rec, best, 2, "numpy")
    assert (again.fit(log).weights["V_y"] == model.weights["V_y"]).all()
    for trial in study.trials:
        history = trial.user_attrs["history"]
        assert history[-1]["mrr@20"] == pytest.approx(trial.value) or trial.state.name == "PRUNED"
        assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("narm", "[embedding]\nvalues=[4]\n[hidden]\nvalues=[4, 6]\n[n_epochs]\nvalues=[1]"),
        ("bpr-mf", "[factors]\nvalues=[4, 8]\n[n_epochs]\nvalues=[1]"),
        ("v-sknn", "[k]\nrange=[5, 50]"),
        ("item-knn", "[neighbours]\nrange=[5, 50]"),
    ],
)
def test_other_models(model, text, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(text)
    study, best = search(TRAIN, str(path), 2, model=model, validation=VALIDATION, verbose=False,
                         backend="numpy")  # fmt: skip
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 2
    assert type(best) is MODELS[model] and best.recommend(best.item_ids[:1])


def test_one_seed_gives_the_same_trials_and_another_gives_others(space):
    first, second, other = (run(job(space, trials=4, seed=s)) for s in (1, 1, 2))
    assert outcomes(first) == outcomes(second) != outcomes(other)


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(space, tmp_path):
    """12 trials: the sampler and the pruner have learnt from 10 by then."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run(job(space, tmp_path / "a", trials=3))
    run(job(space, tmp_path / "a", trials=11))
    resumed = run(job(space, tmp_path / "a", trials=12))
    assert outcomes(resumed) == outcomes(run(job(space, tmp_path / "b", trials=12)))
    assert not (tmp_path / "a" / "journal.workers").exists()


def test_other_settings_are_not_mixed_in(space, tmp_path):
    run(job(space, tmp_path, trials=1))
    for change, says in (
        ({"seed": 2}, "has another seed"),
        ({"primary": "recall@20"}, "has another primary_metric"),
        ({"train": VALIDATION}, "has another log"),
        ({"prune": False}, "has another pruning"),
    ):
        with pytest.raises(InputError, match=says):
            run(job(space, tmp_path, trials=2, **change))
    assert len(run(job(space, tmp_path, trials=2)).trials) == 2


def test_a_diverged_trial_is_a_failed_trial_of_a_search_that_goes_on(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[learning_rate]\nvalues = [0.05, 1e30]\n[n_epochs]\nvalues = [1]\n"
                    "[layers]\nvalues = [4]\n[n_sample]\nvalues = [16]")  # fmt: skip
    study = run(job(str(path), trials=8))
    states = {t.params["learning_rate"]: t.state.name for t in study.trials}
    assert states == {0.05: "COMPLETE", 1e30: "FAIL"}
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert all("diverged" in t.user_attrs["error"] for t in failed)
    assert len(trials.finished(study)) == len(study.trials) == 8


def test_where_every_trial_fails_the_first_reason_is_named(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[learning_rate]\nvalues = [1e30]\n[n_epochs]\nvalues = [1]")
    with pytest.raises(InputError, match=r"trained to its end; the first: .*diverged"):
        search(TRAIN, str(path), 2, validation=VALIDATION, backend="numpy", verbose=False)


def test_pruning_stops_a_trial_early(space):
    """After ten trials that score 1, one that scores less stops after its second epoch."""
    study = trials.open_study(job(space))
    for _ in range(trials.STARTUP):
        trial = study.ask()
        for epoch in (1, 2, 3):
            trial.report(1.0, epoch)
        study.tell(trial, 1.0)
    path = Path(space)
    path.write_text(SPACE.replace("values = [2]", "values = [3]"))
    slow = job(space, trials=trials.STARTUP + 1)
    tuning.work(slow, study)
    assert study.trials[-1].state.name == "PRUNED"
    assert len(study.trials[-1].user_attrs["history"]) == 2


# --- workers --------------------------------------------------------------------------------------


def test_a_dead_workers_trial_is_run_again_and_counted_once(space, tmp_path):
    of = job(space, tmp_path, trials=3, heartbeat=0)
    study = trials.open_study(of)
    lost = study.ask()
    suggest(of.space, lost)
    lost.set_user_attr("worker", "nobody")
    unclaimed = study.ask()  # its worker died before it could say that it had begun
    run(of)
    done = trials.finished(study)
    assert len(done) == 3 and lost.number not in {t.number for t in done}
    again = [t for t in done if t.user_attrs.get("retry_of") == lost.number]
    assert len(again) == 1 and again[0].params == lost.params
    assert study.trials[unclaimed.number].state.name == "FAIL"


@pytest.mark.filterwarnings("ignore:Heartbeat")  # that study.ask sends none is the point
def test_a_worker_of_a_database_dies_early(space, tmp_path):
    """Before it could say that it had begun, and before Optuna's thread sent a heartbeat."""
    of = job(space, storage=f"sqlite:///{tmp_path}/trials.db", trials=2, heartbeat=1,
             deadline=time.time() + 60)  # fmt: skip
    study = trials.open_study(of)
    unclaimed, lost = study.ask(), study.ask()
    suggest(of.space, lost)
    trials.claim(study, lost, "nobody")
    with mock.patch.object(tuning, "POLL", 0.1):
        run(of)
    done = trials.finished(study)
    assert len(done) == 2
    assert [t.params for t in done if t.user_attrs.get("retry_of") == lost.number] == [lost.params]
    assert all(study.trials[t.number].state.name == "FAIL" for t in (unclaimed, lost))


def test_a_living_workers_trial_is_left_alone(space, tmp_path):
    of = job(space, tmp_path, trials=2)
    study = trials.open_study(of)
    with tuning._known_as(of.folder) as worker:
        trial = study.ask()
        trial.set_user_attr("worker", worker)
        trials.give_back(of, study)
        assert study.trials[0].state.name == "RUNNING"
    trials.give_back(of, study)
    assert study.trials[0].state.name == "FAIL"


def test_a_trial_too_many_is_not_run(space, tmp_path):
    """Two workers may draw the last trial at the same moment."""
    of = job(space, tmp_path, trials=1)
    study = trials.open_study(of)
    study.ask()
    study.optimize(lambda t: tuning._objective(of, study, "w", t, []), 1, catch=(tuning.Surplus,))
    assert study.trials[1].state.name == "FAIL" and not trials.counted(study.trials[1])


def command(*options, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "gru4rec_np.search", *options], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, **more,
    )  # fmt: skip


def small(space, out, trials):
    return ("--shop-sessions", "300", "--shop-items", "60", "--space", space, "--out", str(out),
            "--trials", str(trials), "--backend", "numpy", "--baselines", "markov")  # fmt: skip


def test_two_workers_from_the_command_line(space, tmp_path):
    out = tmp_path / "out"
    with command(*small(space, out, 6), "--workers", "2", cwd=tmp_path) as process:
        text = process.communicate(timeout=120)[0]
    assert process.returncode == 0, text
    with open(out / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {r["model"] for r in rows} == {"gru4rec"}
    best = max(float(r["mrr@20"]) for r in rows if r["state"] == "COMPLETE")
    results = json.loads((out / "results.json").read_text())
    assert results["validation"]["gru4rec"]["mrr@20"] == best
    assert {"GRU4Rec, tuned", "GRU4Rec, defaults", "Markov"} == set(results["test"])
    assert "GRU4Rec, tuned" in text and "tuned - defaults in MRR@20" in text
    _, model, _ = settings(["--config", str(out / "best.toml"), "--out", str(tmp_path / "x")])
    assert model.hyperparameters() == results["best"]["gru4rec"]
    assert models.load(out / "gru4rec.npz").hyperparameters() == model.hyperparameters()


def test_results_of_another_search_stay(space, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text('{"study": "clicks"}')
    with command(*small(space, out, 1), cwd=tmp_path) as process:
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and "is of the search 'clicks', this one is 'shop'" in text
    assert [path.name for path in out.iterdir()] == ["results.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_after_the_trials_that_run_and_the_same_command_goes_on(
    number, space, tmp_path
):
    out = tmp_path / "out"
    with command(*small(space, out, 500), cwd=tmp_path) as process:
        for line in process.stdout:
            if line.startswith("trial"):
                break
        process.send_signal(number)
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number and "the same command goes on" in text, text
    with open(out / "trials.csv") as file:
        done = len(list(csv.DictReader(file)))
    assert 1 <= done < 500
    with command(*small(space, out, done + 1), cwd=tmp_path) as process:
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "GRU4Rec, tuned" in text, text


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a server that lives as long as the tests here."""
    programs = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not programs and not shutil.which("initdb"):
        pytest.skip("there is no PostgreSQL server: apt-get install postgresql")
    pytest.importorskip("psycopg")
    # Not in pytest's folder: it belongs to root, which the server must not be.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_user = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def start(program, *options):
        path = os.path.join(programs[-1], program) if programs else program
        done = subprocess.run([*as_user, path, *options], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    data = str(folder / "data")
    start("initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync")
    start("pg_ctl", "-D", data, "-w", "-l", f"{data}/log", "-o",
          f"-c listen_addresses= -k {folder}", "start")  # fmt: skip
    yield f"postgresql://tester@/postgres?host={folder}"
    start("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


def test_four_workers_on_postgresql_one_killed(postgresql, space, tmp_path):
    """No trial is lost, none is counted twice."""
    Path(space).write_text(SPACE.replace("values = [2]", "values = [20]"))
    of = job(space, storage=postgresql, workers=4, trials=10, heartbeat=1, prune=False)
    study = trials.open_study(of)
    killed = []

    def kill_one(study):
        workers = tuning.multiprocessing.active_children()
        running = any(t.state.name == "RUNNING" and t.params for t in study.trials)
        if running and workers and not killed:
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    with mock.patch.object(tuning, "POLL", 0.02):
        tuning.run(of, kill_one)
    assert killed
    of_study = study.trials
    done = trials.finished(study)
    assert len(done) == 10 and all(t.state.name == "COMPLETE" for t in done)
    lost = [t for t in of_study if t not in done]
    assert {t.state.name for t in lost} <= {"FAIL"}
    retried = [t.user_attrs["retry_of"] for t in done if "retry_of" in t.user_attrs]
    assert len(retried) == len(set(retried)) and set(retried) <= {t.number for t in lost}


def test_a_lost_trial_does_not_show_in_the_others(space, tmp_path):
    """One worker, killed in its sixth trial: the retry and all later trials are as without it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    of = job(space, tmp_path / "a", trials=5)
    run(of)
    study = trials.open_study(of)
    whole = run(job(space, tmp_path / "b", trials=12))
    study.enqueue_trial(whole.trials[5].params)
    lost = study.ask()
    suggest(of.space, lost)
    lost.set_user_attr("worker", "nobody")
    run(dataclasses.replace(of, trials=12))
    found = [(t.params, t.value) for t in trials.finished(study)]
    assert found == [(t.params, t.value) for t in whole.trials]


def test_a_trial_that_another_worker_has_ended_is_not_counted(space, tmp_path, monkeypatch):
    of = job(space, tmp_path, trials=2)
    study = trials.open_study(of)
    train = tuning._train_and_judge
    ended = []

    def slow(job, study, worker, trial):
        value = train(job, study, worker, trial)
        if not ended:  # as another worker does that takes this one for dead
            ended.append(trial.number)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return value

    monkeypatch.setattr(tuning, "_train_and_judge", slow)
    tuning.work(of, study)
    assert ended == [0] and [t.number for t in trials.finished(study)] == [1, 2]


def test_an_error_of_ours_ends_the_search(space, monkeypatch):
    monkeypatch.setattr(tuning, "_train_and_judge", mock.Mock(side_effect=ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        run(job(space))


def test_a_final_training_that_diverges_loses_no_settings(space, tmp_path, monkeypatch, capsys):
    """best.toml and the pictures are there before it."""
    fit = GRU4Rec.fit

    def diverges(self, train, *args, **how):
        if "on_epoch" not in how:
            raise InputError("training diverged")
        return fit(self, train, *args, **how)

    monkeypatch.setattr(GRU4Rec, "fit", diverges)
    monkeypatch.setattr(sys, "argv", ["search", *small(space, tmp_path / "out", 4)])
    command_module.main()
    assert "GRU4Rec, tuned: training diverged" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["test"]) == ["Markov"] and results["tuned - defaults"] == {}
    assert (tmp_path / "out" / "best.toml").exists()
    assert not (tmp_path / "out" / "gru4rec.npz").exists()


def test_a_model_without_time_is_left_out(space, tmp_path, monkeypatch, capsys):
    finished = tuning.run

    clock = mock.Mock(**{"time.return_value": time.time()})
    monkeypatch.setattr(command_module, "time", clock)

    def first_only(job, after, asked):
        if job.model == "gru4rec":
            return finished(job, after, asked)
        clock.time.return_value = job.deadline
        return finished(dataclasses.replace(job, deadline=0.0), after, asked)

    monkeypatch.setattr(tuning, "run", first_only)
    options = [*small(space, tmp_path / "out", 2), "--models", "gru4rec", "v-sknn"]
    monkeypatch.setattr(sys, "argv", ["search", *options, "--timeout", "1h"])
    command_module.main()
    assert "v-sknn: no trial was trained to its end in the time" in capsys.readouterr().err
    assert (tmp_path / "out" / "gru4rec.npz").exists()


def test_a_signal_during_the_last_trial_stops_before_the_best_is_trained(
    space, tmp_path, monkeypatch, capsys
):
    finished = tuning.run

    def then_asked(job, after, asked):
        study = finished(job, after, asked)
        asked.append(signal.SIGTERM)
        return study

    monkeypatch.setattr(tuning, "run", then_asked)
    monkeypatch.setattr(sys, "argv", ["search", *small(space, tmp_path / "out", 2)])
    with pytest.raises(SystemExit) as stop:
        command_module.main()
    assert stop.value.code == 128 + signal.SIGTERM
    assert "stopped after 2 of 2 trials; the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "out" / "gru4rec.npz").exists()
    monkeypatch.setattr(tuning, "run", finished)
    command_module.main()
    assert (tmp_path / "out" / "gru4rec.npz").exists()


def test_a_search_in_another_thread_heeds_no_signal(space):
    """Only the main thread can: there `cli.heeding` changes nothing, and the search ends well."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(search(TRAIN, space, 1, validation=VALIDATION, verbose=False))
    )
    thread.start()
    thread.join()
    assert len(found) == 1


def test_a_password_is_not_shown():
    place = "postgresql://shop:secret@localhost:1/trials"
    assert trials._shown(place) == "postgresql://shop:***@localhost:1/trials"


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_metric_is_refused(space):
    with pytest.raises(InputError, match="primary_metric: must be recall@K or mrr@K"):
        search(TRAIN, space, 1, primary="map@20", verbose=False)


def test_without_optuna_one_line_says_what_to_install(space):
    with mock.patch.dict(sys.modules, {"optuna": None}), pytest.raises(InputError) as error:
        search(TRAIN, space, 1, verbose=False)
    assert "pip install optuna" in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trials", "0"], "--trials: must be a whole number >= 1"),
        (["--models", "gru5rec"], "invalid choice: 'gru5rec'"),
        (["--models", "narm", "v-sknn", "--space", "narm"], "space: give it with gru4rec"),
        (["--space", "gro4rec"], "gro4rec: no such file, and no space of that name"),
        (["--timeout", "2"], "timeout: must be a time such as 30m or 1h, not '2'"),
        (["--validation", "0"], "validation: must be days like 1d or a share"),
        (["--primary-metric", "map@20"], "primary_metric: must be recall@K or mrr@K"),
        (["--seed", "-1"], "seed: must be a whole number >= 0, not -1"),
        (["--storage", "postgresql://nobody@localhost:1/x"], "--storage postgresql://nobody"),
        (["--storage", "sqlte:///x"], "--storage sqlte:///x"),
        (["--train", "no.tsv"], "no.tsv: no such file"),
    ],
)
def test_a_wrong_option_is_one_line(options, says, tmp_path):
    few = [] if "--train" in options else ["--shop-sessions", "300", "--shop-items", "60"]
    refuses(run_here("search", *options, *few, "--out", tmp_path / "o", cwd=tmp_path), says)


def test_baselines_are_checked_before_the_trials(tmp_path):
    options = ["--models", "v-sknn", "--trials", "1", "--baselines", "nope", "--shop-items", "60"]
    refuses(run_here("search", *options, "--out", tmp_path / "o", cwd=tmp_path), "baselines: ")
    assert not (tmp_path / "o").exists()


def test_memory_stays_flat(space):
    """A trial leaves nothing behind but what its study keeps."""
    resource = pytest.importorskip("resource")
    of = job(space, trials=40)
    study = trials.open_study(of)
    tuning.work(dataclasses.replace(of, trials=10), study)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tuning.work(of, study)
    assert len(study.trials) == 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB
    assert np.isfinite(study.best_value)
