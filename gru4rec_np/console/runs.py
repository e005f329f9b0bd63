"""A run's directory: name, files, lock, checkpoints, and how a run is stopped and continued."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote

from gru4rec_np.console.cli import heeding, say
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint
from gru4rec_np.models.training import Stopped, Training, fingerprint

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILES = ("model.npz", "config.toml", "history.csv", "metrics.json", "curves.png")
TRAINING = "training.npz"  # the last checkpoint; of a finished run with keep_training
SETTINGS = "training.toml"  # the configuration of an unfinished run, config.toml of a finished one
DIVERGED = "diverged"  # .npz and .toml, what these become when the loss diverged
HEADER = "# python -m gru4rec_np.train --config config.toml\n"  # of each config.toml

# Endings of a log's name that say nothing about its content.
_ENDINGS = re.compile(r"(\.(tsv|csv|parquet|txt|dat|jsonl))?(\.(gz|zst))?$", re.IGNORECASE)


def name_of(paths: Sequence[str]) -> str:
    """A folder name for a log: its first file's name without the endings of its format."""
    if paths[0].startswith(("/dev/", "/proc/")):  # a pipe
        return "log"
    return _ENDINGS.sub("", Path(paths[0]).name).strip(". ") or "log"


def unused_folder(folder: Path) -> Path:
    """The folder, or else folder-2, folder-3, ...: the first that is missing, or empty and free."""
    for n in itertools.count(1):
        place = folder if n == 1 else folder.with_name(f"{folder.name}-{n}")
        if not place.exists() and not place.is_symlink():
            return place
        if place.is_dir() and not any(place.iterdir()):
            with suppress(InputError), alone(place):
                return place
    raise AssertionError("unreachable")


def default_folder(logs: Sequence[str]) -> Path:
    """The folder of a run on these logs, or on the simulated shop, that names none."""
    return unused_folder(Path("runs", name_of(logs or ["shop"])))


def run_of(model: str | Path) -> Path:
    """The folder of a run, which may be given by its model file."""
    return Path(model) if Path(model).is_dir() else Path(model).parent


def require_idle(folder: Path, option: str = "--out") -> None:
    """Raise InputError if a run is at work in a folder, which need not exist. See `alone`."""
    if folder.is_dir():
        with alone(folder, option):
            pass


def require_free(out: Path, overwrite: bool) -> None:
    """Raise InputError if a new run would replace files in its folder that it must not.

    Args:
        overwrite: the results of an earlier run may be replaced.
    """
    if (out / TRAINING).exists() and (out / SETTINGS).exists():
        raise InputError(
            f"--out {out}: an unfinished run is there; --resume {quote(str(out))} continues it, "
            f"or delete {quote(str(out / TRAINING))}"
        )
    there = [out / name for name in FILES if (out / name).is_file()]
    if there and not overwrite:
        raise InputError(
            f"--out {out}: {there[0]} is there already; choose another folder, or replace an "
            "earlier run with --overwrite"
        )
    config = out / "config.toml"
    if config.is_file():
        with open(config, encoding="utf-8", errors="replace") as file:
            if file.readline() != HEADER:
                raise InputError(f"--out {out}: {config} is not of this program, and stays")


def to_resume(folder: Path, finished: bool) -> str:
    """The configuration of a run that can be resumed. finished: also of a finished one.

    Raises:
        InputError: there is none, or it is at work.
    """
    require_idle(folder, "--resume")
    if not (folder / TRAINING).is_file():
        raise InputError(
            f"resume: {folder}: nothing to resume, there is no {TRAINING}; the run was stopped in "
            "its first steps, or finished without keep_training"
        )
    is_finished = not (folder / SETTINGS).exists()
    if is_finished and not finished:
        raise InputError(
            f"resume: {folder}: nothing to resume, the run is finished; --n-epochs N trains more"
        )
    return str(folder / ("config.toml" if is_finished else SETTINGS))


def require_judged(path: Path, train: Sessions, judged: Mapping[str, str]) -> None:
    """Raise InputError if a run's model is judged on other logs than when the run began.

    Args:
        path: the run's checkpoint. train: the training sessions; if these are others, the rest
            cannot be compared, and `Training.load` refuses the checkpoint.
        judged: what each log is called, to its fingerprint, in the order that `Keeper` was given.
    """
    about = checkpoint.load(path)[0]
    kept = about.get("judged")
    if about.get("log") != fingerprint(train) or not isinstance(kept, list):  # an older file
        return
    for (name, now), before in zip(judged.items(), kept, strict=False):
        if now != before:
            raise InputError(
                f"{path}: cannot resume from this file: the run began with another {name}"
            )


@contextmanager
def alone(folder: Path, option: str = "--out") -> Iterator[None]:
    """Hold a directory, which exists, for as long as the block runs, or until the process dies.

    Args:
        option: what the message of an error begins with.

    Raises:
        InputError: another process holds it. Where the system has no such locks, none is held.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{option} {folder}: another run is at work there") from None
        yield
    finally:
        os.close(handle)


def remove_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what a run that was killed while it wrote left of its files: see `files.write_whole`.

    Args:
        folder: held by `alone`. names: of the files.
    """
    own = {(Path(name).stem, Path(name).suffix) for name in names}
    for path in folder.iterdir():
        stem, _, token = path.stem.rpartition(".part-")
        if (stem, path.suffix) in own and re.fullmatch("[0-9a-f]{8}", token):
            path.unlink(missing_ok=True)


def parse_interval(text: str) -> tuple[int, float]:
    """(steps, seconds) between two checkpoints, 0 for never: of "500" steps, or "5m" minutes.

    Raises:
        InputError: the text is neither.
    """
    try:
        if text.endswith("m"):
            steps, seconds = 0, 60 * float(text[:-1])
        else:
            steps, seconds = int(text), 0.0
    except ValueError:
        steps, seconds = -1, 0.0
    if steps < 0 or not 0 <= seconds < float("inf"):
        raise InputError(
            f"checkpoint: must be minutes like 5m, a number of steps, or 0, not {text!r}"
        )
    return steps, seconds


class Keeper:
    """Writes checkpoints of a training, at intervals and when a signal asks to stop.

        with Keeper(path, steps, seconds) as keeper:
            model.fit(train, on_chunk=lambda *_: keeper.after_chunk(model.training))

    Ctrl-C, SIGTERM and SIGHUP ask to stop; a second signal stops at once.

    Args:
        path: the checkpoint file. steps, seconds: see `parse_interval`.
        begin: called before the first checkpoint, to write what else a resumed run needs.
        judged: see `Training.save`.

    Attributes:
        has_written: whether a checkpoint could be written.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        seconds: float,
        begin: Callable[[], None] = lambda: None,
        judged: Sequence[str] = (),
    ) -> None:
        self.path, self.steps, self.seconds = path, steps, seconds
        self._begin, self._judged = begin, judged
        self._signals: list[int] = []
        self._heeding = ExitStack()
        self.has_written = False
        self._done = self._kept = 0  # steps
        self._when: float | None = None  # of the last attempt, by time.monotonic

    def __enter__(self) -> Keeper:
        self._signals = self._heeding.enter_context(heeding("these steps"))
        return self

    def __exit__(self, *_: object) -> None:
        self._heeding.close()

    @property
    def asked(self) -> int | None:
        """The signal that asked to stop, or None."""
        return self._signals[0] if self._signals else None

    def after_chunk(self, training: Training) -> None:
        """Write a checkpoint if one is due. Call it at chunk boundaries.

        Raises:
            Stopped: a signal asked for it; the checkpoint is written.
            OSError: then, if it cannot be written. At other times that is a warning.
        """
        self._done += 1
        due = (
            self._when is None  # the first chunk, so that there is something to resume from
            or (self.seconds and time.monotonic() - self._when >= self.seconds)
            or (self.steps and training.chunk * (self._done - self._kept) >= self.steps)
        )
        if self.asked is not None or due:
            self.keep(training)
        if self.asked is not None:
            raise Stopped

    def keep(self, training: Training) -> None:
        """Write a checkpoint now.

        Raises:
            OSError: it cannot be written, and a signal asked to stop. Else that is a warning.
        """
        try:
            if not self.has_written:
                self._begin()
            training.save(self.path, self._judged)
            self.has_written = True
        except OSError as error:
            if self.asked is not None:
                raise
            say(f"warning: no checkpoint could be written: {error.filename}: {error.strerror}")
        self._kept, self._when = self._done, time.monotonic()
