"""A hyperparameter search: what a worker does, and many workers at once. Optuna does the searching.

A trial's value is the metric of the validation set after the last epoch. Workers are processes,
here or on other machines. `search.py` prints and writes what they find.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec_np.console import runs, trials
from gru4rec_np.console.cli import say
from gru4rec_np.console.spaces import MODELS, make, suggest
from gru4rec_np.console.trials import Job
from gru4rec_np.errors import InputError
from gru4rec_np.models.base import cut_off_of
from gru4rec_np.models.baselines import Baseline

if TYPE_CHECKING:
    import optuna

POLL = 0.5  # seconds between two looks at the storage


class Surplus(Exception):
    """Raised by a trial that was drawn when enough were under way."""


# --- a worker -------------------------------------------------------------------------------------


def work(
    job: Job,
    study: optuna.Study,
    index: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    after: Callable[[optuna.Study], None] = lambda study: None,
) -> None:
    """Run trials until enough are finished.

    With one worker, a trial depends on the seed and on the trials before it only. So a search that
    was stopped goes on as if it had not been.

    Args:
        index: of the worker, from 0. stopped: asked before each trial. after: called after each.
    """
    optuna = trials.require_optuna()
    with _known_as(job.folder) as worker:
        while not stopped() and time.time() < job.deadline:
            trials.give_back(job, study)
            known = [t for t in study.get_trials(deepcopy=False) if trials.counted(t)]
            drawn = len(known)  # not the lost ones: a retry takes their place
            if sum(t.state.is_finished() for t in known) >= job.trials:
                return
            waiting = any(t.state.name == "WAITING" for t in known)
            if drawn >= job.trials and not waiting:
                time.sleep(POLL)  # others are at the last ones; one may die
                continue
            study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([job.seed, index, drawn]).generate_state(1)[0]),
                multivariate=True,
                group=True,
                n_startup_trials=trials.STARTUP,
                constant_liar=job.workers > 1,
            )
            bugs: list[Exception] = []
            try:
                study.optimize(
                    lambda trial: _objective(job, study, worker, trial, bugs),  # noqa: B023
                    n_trials=1,
                    catch=(InputError, Surplus),
                )
            except (ValueError, AssertionError, optuna.exceptions.UpdateFinishedTrialError):
                # Another worker took this one for dead, after a pause of the machine, say, and
                # failed its trial. Optuna refuses the result, which is not counted.
                if bugs:
                    raise
            after(study)


@contextmanager
def _known_as(folder: Path | None) -> Iterator[str]:
    """A name for this worker, and while it lives a locked folder of that name."""
    name = uuid.uuid4().hex[:12]
    if folder is None:
        yield name
        return
    place = folder / name
    place.mkdir(parents=True)
    try:
        with runs.alone(place):
            yield name
    finally:
        with suppress(OSError):
            place.rmdir()
            folder.rmdir()


def _objective(
    job: Job, study: optuna.Study, worker: str, trial: optuna.Trial, bugs: list[Exception]
) -> float:
    """Train and judge one model. bugs: gets an error that is not the trial's.

    Raises:
        Surplus, TrialPruned, InputError (diverged, or refused by the model).
    """
    try:
        return _train_and_judge(job, study, worker, trial)
    except (ValueError, AssertionError) as error:
        if not isinstance(error, InputError):
            bugs.append(error)
        raise


def _train_and_judge(job: Job, study: optuna.Study, worker: str, trial: optuna.Trial) -> float:
    """The metric of the trial's model; see `_objective`."""
    optuna = trials.require_optuna()
    trials.claim(study, trial, worker)
    before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
    if sum(map(trials.counted, before)) >= job.trials:
        raise Surplus
    began, cut_offs = time.perf_counter(), sorted({5, 20, cut_off_of(job.primary)})
    history: list[dict[str, float]] = []

    def on_epoch(row: dict[str, float]) -> None:
        metrics = model.evaluate(job.validation, cut_offs)
        history.append({"epoch": row["epoch"], "loss": row["loss"], **metrics})
        keep()
        trial.report(metrics[job.primary], int(row["epoch"]))
        if row["epoch"] < model.n_epochs and trial.should_prune():
            raise optuna.TrialPruned

    def keep() -> None:
        trial.set_user_attr("history", history)
        trial.set_user_attr("seconds", time.perf_counter() - began)

    try:
        model: Any = make(MODELS[job.model], suggest(job.space, trial), job.seed, job.backend)
        if isinstance(model, Baseline):
            model.fit(job.train)
            history.append({"epoch": 1, **model.evaluate(job.validation, cut_offs)})
            keep()
        else:
            model.fit(job.train, on_epoch=on_epoch, verbose=False)
    except InputError as error:
        trial.set_user_attr("error", str(error))
        raise
    return history[-1][job.primary]


# --- many workers ---------------------------------------------------------------------------------


def run(job: Job, after: Callable[[optuna.Study], None], asked: Sequence[int] = ()) -> optuna.Study:
    """Search with `job.workers` processes, or in this one if it is one.

    Args:
        after: called with the study at the start, at the end and now and then between.
        asked: no trial begins once something is in it, see `cli.heeding`.

    Returns:
        the study.

    Raises:
        InputError: see `open_study`, or every worker has died.
    """
    study, errors = trials.open_study(job), trials.storage_errors()
    after(study)
    try:
        if job.workers == 1:
            work(job, study, 0, lambda: bool(asked), after)
        else:
            _in_processes(job, study, lambda: bool(asked), after)
    except errors as error:
        raise trials.storage_error(job, error) from error
    after(study)
    return study


def _in_processes(
    job: Job, study: optuna.Study, stopped: Callable[[], bool], after: Callable[[Any], None]
) -> None:
    """Start the workers and wait for them.

    Raises:
        InputError: all are dead, and trials are left.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with _one_thread():
        workers = [
            context.Process(target=_process, args=(job, index, stop), daemon=True)
            for index in range(job.workers)
        ]
        for worker in workers:
            worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            if stopped():
                stop.set()
            after(study)
            time.sleep(POLL)
    finally:
        for worker in workers:
            worker.terminate()
    done = stopped() or time.time() >= job.deadline or len(trials.finished(study)) >= job.trials
    if not done:
        codes = ", ".join(str(worker.exitcode) for worker in workers)
        raise InputError(
            f"search: all workers have ended before the trials did (exit status {codes}); is there "
            "too little memory for --workers? The same command goes on"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started here use one thread each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def _process(job: Job, index: int, stop: Any) -> None:
    """A worker's process. What a terminal sends reaches all processes; only the first heeds it."""
    for name in {"SIGINT", "SIGHUP"} & set(signal.__dict__):  # Windows has no SIGHUP
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    errors: tuple[type[Exception], ...] = (InputError, *trials.storage_errors())
    try:
        work(job, trials.open_study(job), index, stop.is_set)
    except errors as error:
        why = error if isinstance(error, InputError) else trials.storage_error(job, error)
        say(f"worker {index + 1}: {why}")
        sys.exit(1)
