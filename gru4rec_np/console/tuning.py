"""A hyperparameter search: trials, workers, storage. Optuna does the searching.

A study is one model's search. A *trial* trains the model with some hyperparameters and takes the
metric of the validation set after the last epoch. Workers are processes, here or on other machines,
that share a storage. `search.py` prints and writes what they find. Imports spaces.py and the
models; Optuna where it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec_np.console import runs
from gru4rec_np.console.cli import say
from gru4rec_np.console.spaces import MODELS, Space, make, suggest
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models.baselines import Baseline
from gru4rec_np.models.gru4rec import cut_off_of

if TYPE_CHECKING:
    import optuna

POLL = 0.5  # seconds between two looks at the storage
SILENT = 60  # seconds after which a trial that no worker has claimed is taken for lost
STARTUP = 10  # random trials before the sampler and the pruner learn from them


class Surplus(Exception):
    """Raised by a trial that was drawn when enough were under way."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Attributes:
        model: a name of `MODELS`. space: what is searched.
        train, validation: sessions over the training catalogue.
        primary: the metric to maximise, recall@K or mrr@K.
        trials: how many are to be finished in all, by all workers.
        storage: a journal file, a URL of a database, or "" for this process's memory.
        study: its name in the storage. prune: stop trials that fall behind.
        deadline: of time.time(), after which no trial begins.
        heartbeat: seconds between a database's heartbeats; after three without one, a worker counts
            as dead.
        folder: where workers of a journal are known to be alive.
    """

    model: str
    space: Space
    train: Sessions
    validation: Sessions
    primary: str
    trials: int
    seed: int
    backend: str
    storage: str
    study: str
    workers: int = 1
    prune: bool = True
    deadline: float = float("inf")
    heartbeat: int = 20
    folder: Path | None = None

    def about(self) -> str:
        """What all workers of a study must have in common, as JSON."""
        log = hashlib.sha256()
        for part in (self.train, self.validation):
            for array in (part.items, part.offsets):
                log.update(array.tobytes())
        return json.dumps(
            {
                "model": self.model,
                "log": log.hexdigest()[:16],
                "space": [dataclasses.asdict(p) for p in self.space],
                "primary_metric": self.primary,
                "seed": self.seed,
                "pruning": self.prune,
            }
        )


def workers_of(storage: str) -> Path | None:
    """Where the workers of a journal are known to be alive, whatever their --out."""
    return Path(f"{storage}.workers") if storage and "://" not in storage else None


def require_optuna() -> Any:
    """The module optuna, quiet.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(
            "search needs Optuna, which is not installed: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna


# --- studies --------------------------------------------------------------------------------------


def open_study(job: Job) -> optuna.Study:
    """The job's study, made if it is not in the storage yet.

    Raises:
        InputError: the storage cannot be used, or the study is of another log or other settings.
    """
    optuna = require_optuna()
    errors: tuple[type[Exception], ...] = (ValueError, *_storage_errors())
    pruner = optuna.pruners.NopPruner()
    if job.prune:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=2)
    try:
        study = optuna.create_study(
            storage=_storage(job.storage, job.heartbeat),
            study_name=job.study,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        known, wanted = study.user_attrs.get("about"), job.about()
        if known is None:
            study.set_user_attr("about", wanted)
    except errors as error:
        raise _lost(job, error) from None
    if known not in (None, wanted):
        old, new = json.loads(known), json.loads(wanted)
        other = [name for name in new if old.get(name) != new[name]]
        raise InputError(
            f"--storage {_shown(job.storage)}: the study {job.study!r} has another "
            f"{', '.join(other)}; choose another --out or --study"
        )
    return study


def _storage(place: str, heartbeat: int) -> Any:
    """Optuna's storage of a journal file, a database's URL, or None for memory."""
    optuna = require_optuna()
    if not place:
        return None
    if "://" not in place:
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(place))
    # The drivers that docs/search.md names.
    for scheme, driver in (("postgresql", "psycopg"), ("mysql", "pymysql")):
        place = place.replace(f"{scheme}://", f"{scheme}+{driver}://", 1)
    return optuna.storages.RDBStorage(
        place,
        heartbeat_interval=heartbeat,
        grace_period=3 * heartbeat,
        heartbeat_stale_trial_callback=_again,
    )


def _storage_errors() -> tuple[type[Exception], ...]:
    """What a storage raises that cannot be used, or that goes away."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna = require_optuna()
    return ImportError, OSError, SQLAlchemyError, optuna.exceptions.OptunaError


def _lost(job: Job, error: Exception) -> InputError:
    """One line about an error of the storage."""
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return InputError(f"--storage {_shown(job.storage)}: {_shown(text)}")


def _shown(place: str) -> str:
    """A storage without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", place) or "memory"


def _again(study: optuna.Study, lost: optuna.trial.FrozenTrial) -> None:
    """Put the hyperparameters of a lost trial in the queue."""
    if lost.params and "error" not in lost.user_attrs:
        study.enqueue_trial(lost.params, user_attrs={"retry_of": lost.number})


def counted(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether it is one of the trials asked for: finished, pruned, diverged or under way.

    A trial that its worker's death ended is not. A diverged one has an "error".
    """
    return trial.state.name != "FAIL" or "error" in trial.user_attrs


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that are done and count."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state.is_finished() and counted(t)]


def _give_back(job: Job, study: optuna.Study) -> None:
    """Fail the trials whose worker is dead, and put them in the queue again."""
    optuna = require_optuna()
    if "://" in job.storage:
        optuna.storages.fail_stale_trials(study)  # by their heartbeat
        return
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "RUNNING" or _is_alive(job, trial):
            continue
        with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another was first
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            _again(study, trial)


def _is_alive(job: Job, trial: optuna.trial.FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if job.folder is None:
        return True
    if worker is None:  # drawn a moment ago, or its worker died in that moment
        began = trial.datetime_start
        return began is None or time.time() - began.timestamp() < SILENT
    place = job.folder / worker
    if runs.fcntl is None or not place.exists():
        return place.exists()
    try:
        with runs.alone(place):
            return False
    except InputError:
        return True


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
    optuna = require_optuna()
    with _known_as(job.folder) as worker:
        while not stopped() and time.time() < job.deadline:
            _give_back(job, study)
            trials = study.get_trials(deepcopy=False)
            trials = [t for t in trials if counted(t)]
            drawn = len(trials)  # not the lost ones: a retry takes their place
            if sum(t.state.is_finished() for t in trials) >= job.trials:
                return
            waiting = any(t.state.name == "WAITING" for t in trials)
            if len(trials) >= job.trials and not waiting:
                time.sleep(POLL)  # others are at the last ones; one may die
                continue
            study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([job.seed, index, drawn]).generate_state(1)[0]),
                multivariate=True,
                group=True,
                n_startup_trials=STARTUP,
                constant_liar=job.workers > 1,
            )
            ended: list[int] = []
            try:
                study.optimize(
                    lambda trial: _objective(job, study, worker, trial, ended),  # noqa: B023
                    n_trials=1,
                    catch=(InputError, Surplus),
                )
            except (
                ValueError,
                AssertionError,
                optuna.exceptions.UpdateFinishedTrialError,
            ) as error:
                # Another worker took this one for dead, after a pause of the machine, say, and
                # failed its trial. Optuna refuses the result, which is not counted.
                if isinstance(error, ValueError | AssertionError) and not ended:
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
    job: Job, study: optuna.Study, worker: str, trial: optuna.Trial, ended: list[int]
) -> float:
    """Train and judge one model. ended: gets the trial's number if it ends as a trial should.

    Raises:
        Surplus, TrialPruned, InputError (diverged, or refused by the model).
    """
    optuna = require_optuna()
    try:
        value = _train_and_judge(job, study, worker, trial)
    except (optuna.TrialPruned, InputError, Surplus):
        ended.append(trial.number)
        raise
    ended.append(trial.number)
    return value


def _train_and_judge(job: Job, study: optuna.Study, worker: str, trial: optuna.Trial) -> float:
    """The metric of the trial's model; see `_objective`."""
    optuna = require_optuna()
    trial.set_user_attr("worker", worker)
    before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
    if sum(map(counted, before)) >= job.trials:
        raise Surplus
    began, cut_offs = time.perf_counter(), [5, 20]
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
        cut_offs = sorted({*cut_offs, cut_off_of(job.primary)})
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


def run(job: Job, after: Callable[[optuna.Study], None]) -> optuna.Study:
    """Search with `job.workers` processes, or in this one if it is one.

    Ctrl-C and SIGTERM let the trials that run end; a second signal ends at once.

    Args:
        after: called with the study at the start, at the end and now and then between.

    Returns:
        the study.

    Raises:
        InputError: see `open_study`, or every worker has died.
    """
    study, errors = open_study(job), _storage_errors()
    after(study)
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        for s, handler in usual.items():
            signal.signal(s, handler)
        say("stopping after the trials that run; a second signal stops at once")

    usual: dict[Any, Any] = {}
    with suppress(ValueError):  # not in the main thread: whoever called heeds signals
        usual = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        if job.workers == 1:
            work(job, study, 0, lambda: bool(asked), after)
        else:
            _in_processes(job, study, lambda: bool(asked), after)
    except errors as error:
        raise _lost(job, error) from error
    finally:
        for s, handler in usual.items():
            signal.signal(s, handler)
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
    done = stopped() or time.time() >= job.deadline or len(finished(study)) >= job.trials
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
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _process(job: Job, index: int, stop: Any) -> None:
    """A worker's process. Ctrl-C in a terminal reaches all processes; only the first heeds it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    errors = _storage_errors()
    try:
        work(job, open_study(job), index, stop.is_set)
    except InputError as error:
        say(f"worker {index + 1}: {error}")
        sys.exit(1)
    except errors as error:
        say(f"worker {index + 1}: {_lost(job, error)}")
        sys.exit(1)
