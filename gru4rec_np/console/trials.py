"""The trials of a hyperparameter search: where they are kept, and which of them count.

A study is one model's search. A *trial* trains the model with some hyperparameters. Workers share
the trials through a journal file, or through a database. A worker may die: then its trial is run
again by another, and counts once. tuning.py runs the trials.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec_np.console import runs
from gru4rec_np.console.spaces import Space, suggest
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError

if TYPE_CHECKING:
    import optuna

STARTUP = 10  # random trials before the sampler and the pruner learn from them


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
            as dead. So does the worker of a trial that none has claimed for as long.
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

    @property
    def folder(self) -> Path | None:
        """Where the workers of a journal are known to be alive, whatever their --out."""
        in_file = self.storage and "://" not in self.storage
        return Path(f"{self.storage}.workers") if in_file else None

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
    errors: tuple[type[Exception], ...] = (ValueError, *storage_errors())
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
        raise storage_error(job, error) from None
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


def storage_errors() -> tuple[type[Exception], ...]:
    """What a storage raises that cannot be used, or that goes away."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna = require_optuna()
    return ImportError, OSError, SQLAlchemyError, optuna.exceptions.OptunaError


def storage_error(job: Job, error: Exception) -> InputError:
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


def give_back(job: Job, study: optuna.Study) -> None:
    """Fail the trials whose worker is dead, and put them in the queue again."""
    optuna = require_optuna()
    optuna.storages.fail_stale_trials(study)  # of a database, by their heartbeat
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "RUNNING" or _is_alive(job, trial):
            continue
        with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another was first
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            _again(study, trial)


def claim(study: optuna.Study, trial: optuna.Trial, worker: str) -> None:
    """Say which worker runs a trial.

    Optuna fails no trial without a heartbeat, and its first one comes from a thread, later. A
    worker that dies before it would leave a trial that runs for ever.
    """
    storage: Any = study._storage
    if hasattr(storage, "record_heartbeat"):  # a database
        storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr("worker", worker)


def _is_alive(job: Job, trial: optuna.trial.FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is None:  # drawn a moment ago, or its worker died in that moment
        began = trial.datetime_start
        return began is None or time.time() - began.timestamp() < 3 * job.heartbeat
    if job.folder is None:  # in a database, a trial that has been claimed has a heartbeat
        return True
    place = job.folder / worker
    if runs.fcntl is None or not place.exists():
        return place.exists()
    try:
        with runs.alone(place):
            return False
    except InputError:
        return True


# --- what was found ------------------------------------------------------------------------------


def parameters(space: Space, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """All hyperparameters of a trial, those that the space fixes included."""
    optuna = require_optuna()
    try:
        return suggest(space, optuna.trial.FixedTrial(trial.params))
    except ValueError:  # it ended before it had drawn all of them
        return dict(trial.params)


def complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that were trained to their end."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]


def best_of(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The trial with the highest metric.

    Raises:
        InputError: none was trained to its end.
    """
    try:
        return study.best_trial
    except ValueError:
        errors = [t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs]
        why = f"; the first: {errors[0]}" if errors else ""
        raise InputError(f"search: no trial was trained to its end{why}") from None
