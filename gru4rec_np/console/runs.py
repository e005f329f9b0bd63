"""A run and its directory: alone in it, kept now and then, stopped so that it can go on.

For commands. Imports training.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gru4rec_np.errors import InputError
from gru4rec_np.models.training import Stopped, Training

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a directory, which exists, for as long as the block runs, or until the process dies.

    Raises:
        InputError: another process holds it. Where the system has no such locks, none is held.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"--out {folder}: another run is at work there") from None
    finally:
        os.close(handle)


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
    """Writes a training down now and then, and when it is asked to stop.

        with Keeper(path, steps, seconds) as keeper:
            model.fit(train, on_chunk=lambda *_: keeper.after_chunk(model.training))

    Ctrl-C and SIGTERM ask; the second time they stop at once, as ever.

    Args:
        path: the file. steps, seconds: see `parse_interval`.
        begin: called before the file is first written: what else it takes to go on.

    Attributes:
        asked: the signal that asked, or None.
    """

    def __init__(
        self, path: Path, steps: int, seconds: float, begin: Callable[[], None] = lambda: None
    ) -> None:
        self.path, self.steps, self.seconds, self._begin = path, steps, seconds, begin
        self.asked: int | None = None
        self._done = self._kept = 0  # steps
        self._when: float | None = None  # nothing is kept yet

    def __enter__(self) -> Keeper:
        signals = (signal.SIGINT, signal.SIGTERM)
        self._before = {s: signal.signal(s, self._ask) for s in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        self.__exit__()
        print("stopping after these steps; once more stops at once", file=sys.stderr)

    def after_chunk(self, training: Training) -> None:
        """To be called when the training stands still.

        Raises:
            Stopped: it was asked to; where it stands is written down.
            OSError: then, if that cannot be written. At other times there is a warning.
        """
        self._done += 1
        due = (
            self._when is None  # the first: then there is something to go on from
            or (self.seconds and time.monotonic() - self._when >= self.seconds)
            or (self.steps and training.chunk * (self._done - self._kept) >= self.steps)
        )
        if self.asked is None and not due:
            return
        try:
            if self._when is None:
                self._begin()
            training.save(self.path)
        except OSError as error:
            if self.asked is not None:
                raise
            text = f"{error.filename}: {error.strerror}"
            print(f"\nwarning: no checkpoint could be written: {text}", file=sys.stderr)
        self._kept, self._when = self._done, time.monotonic()
        if self.asked is not None:
            raise Stopped
