"""What the commands share: one-line errors, streams, progress bars, checks of the output folder."""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from gru4rec_np import signals
from gru4rec_np.errors import InputError
from gru4rec_np.files import same_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


SLOW = 5.0  # seconds; see `progress`


class Parser(argparse.ArgumentParser):
    """The parser of a command. Its errors are one line, without the usage before it.

    Args:
        command: the name of its module. kwargs: see `argparse.ArgumentParser`. With an epilog, the
            texts keep their line breaks and defaults are not shown after each option.
    """

    def __init__(self, command: str = "", **kwargs: Any) -> None:
        kind: Any = argparse.ArgumentDefaultsHelpFormatter
        if "epilog" in kwargs:
            kind = argparse.RawDescriptionHelpFormatter
        prog = "python -m gru4rec_np" + f".{command}" * bool(command)
        super().__init__(prog=prog, formatter_class=kind, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"error: {message} (see --help)") + "\n")


def one_line(text: str) -> str:
    """The text on one line: any white space as one space, control characters escaped."""
    return _escaped(" ".join(text.split()))


def shown(value: Any, width: int = 60) -> str:
    """An id as text that is safe to print: control characters escaped, cut to `width`."""
    text = _escaped(str(value))
    return text if len(text) <= width else text[: width - 3] + "..."


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """Print a line on standard error, if that is still open."""
    with contextlib.suppress(OSError, ValueError):
        print(one_line(text), file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command. Bad input and failed files end it with one line and exit status 2.

    Signals that ask it to stop end it with a line and 128 and their number.
    """
    _open_streams()
    for number in signals.stopping():
        signal.signal(number, signals.stop)
    try:
        main()
        sys.stdout.flush()
        sys.exit(0)
    except (InputError, UnicodeEncodeError) as error:  # the latter for a path that is not UTF-8
        status = str(error)
    except MemoryError as error:
        status = in_words(error)
    except OSError as error:
        if error.filename is None:  # standard output cannot be written
            _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # its reader, such as `head`, has ended
            sys.exit(1)
        status = in_words(error, "standard output")
    except KeyboardInterrupt as stop:
        say("stopped")
        sys.exit(signals.status_of(stop))
    say(f"error: {status}")
    sys.exit(2)


@contextlib.contextmanager
def heeding(what: str) -> Iterator[list[int]]:
    """Gives a list, to which a signal that asks to stop adds itself; a second one stops at once.

    Args:
        what: is done before the command stops, for the line that says so.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        say(f"stopping after {what}; a second signal stops at once")

    with signals.handled(ask, once=True):
        yield asked


def in_words(error: MemoryError | OSError, place: str = "") -> str:
    """The message of a MemoryError or an OSError. place: stands in for a missing file name."""
    if isinstance(error, MemoryError):
        return f"not enough memory: {str(error) or 'for data or layers of this size'}"
    return f"{error.filename or place}: {error.strerror or error}"


def _discard(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere, so that flushing it at exit does not fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_streams() -> None:
    """Open /dev/null for standard streams that are closed; escape what cannot be encoded."""
    names = ("stdin", "stdout", "stderr")
    for number in range(len(names)):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would get this number
            os.open(os.devnull, os.O_RDWR)
    for name in names:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class _Survivor:
    """A text stream that goes on without its file once that cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if the file still takes it."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, if the file still takes it."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., Any], *args: Any) -> None:
        if self.error is None:
            try:
                call(*args)
            except OSError as error:
                self.error = error
                _discard(self._stream)


@contextlib.contextmanager
def surviving_output() -> Iterator[None]:
    """Go on with the block when standard output or standard error can no longer be written.

    For work whose results are in files: a full disk, a closed pipe or terminal must not end it.
    Afterwards the exit status is 1, with a line if it was not only the reader that ended.
    """
    before = sys.stdout, sys.stderr
    out, err = _Survivor(sys.stdout), _Survivor(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield
        out.flush()
    finally:
        sys.stdout, sys.stderr = before
    if out.error:
        if out.error.errno != errno.EPIPE:
            say(f"warning: standard output could not be written: {out.error.strerror}")
        sys.exit(1)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[float, float], None]]:
    """A progress bar on standard error, removed at the end.

    Without a terminal, a line instead if it takes longer than `SLOW` seconds.

    Yields:
        a function that moves it, called with the amount done and the total.
    """
    look = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    options: dict[str, Any] = {"bar_format": look, "miniters": 0, "leave": False, "disable": None}
    line_at = time.monotonic() + SLOW
    with tqdm(desc=what, total=1, dynamic_ncols=True, **options) as bar:

        def watch(done: float, total: float) -> None:
            nonlocal line_at
            bar.update(done / total - bar.n)
            if bar.disable and time.monotonic() > line_at:
                line_at = math.inf
                say(f"{what}: {done / total:.0%}")

        yield watch


def check_output(folder: Path, files: Sequence[str], sources: Sequence[str | Path] = ()) -> None:
    """Check before the work that results can be written. Leaves no trace.

    Args:
        folder: the output folder, which need not exist. files: their names in it.
        sources: files that are read and must not be replaced.

    Raises:
        InputError: the folder or a file cannot be written.
    """
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise InputError(
                f"--out {folder}: {place} is a symbolic link to {os.readlink(place)}, which does "
                "not exist"
            )
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise InputError(f"--out {folder}: {nearest} is a file, not a folder")
    for path in (folder / name for name in files):
        if path.is_dir():
            raise InputError(f"--out {folder}: {path} is a folder, not a file")
        if path.exists() and any(same_file(path, source) for source in sources):
            raise InputError(f"--out {folder}: {path} is an input file and would be replaced")
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise InputError(f"--out {folder}: {nearest} is not writable: {error.strerror}") from None


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make a folder for what the block writes. Folders that are new and stay empty are removed."""
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # one is not empty
            for folder in new:
                folder.rmdir()


def parse_split(text: str, option: str = "split") -> dict[str, Any]:
    """Keyword arguments of `protocols.split` for `1d` (the last day) or `0.1` (the last tenth).

    Raises:
        InputError: the text is neither. The message begins with `option`.
    """
    days = text.endswith("d")
    try:
        value = float(text.removesuffix("d"))
    except ValueError:
        value = 0.0
    if not (value > 0 if days else 0 < value < 1) or value == float("inf"):
        raise InputError(
            f"{option}: must be days like 1d or a share between 0 and 1 like 0.1, not {text!r}"
        )
    return {"days": value} if days else {"share": value}


def parse_time(text: str, option: str) -> float:
    """Seconds of a time such as 30m or 1h.

    Raises:
        InputError: the text is no such time. The message begins with `option`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0
    if seconds <= 0:
        raise InputError(f"{option}: must be a time such as 30m or 1h, not {text[:60]!r}")
    return seconds


def read_toml(text: str, shipped: Mapping[str, Path], kind: str) -> tuple[Path, dict[str, Any]]:
    """The path and the content of a TOML file.

    Args:
        text: the file's path, or one of the shipped names. kind: what such a file is.

    Raises:
        InputError: no such file or name, or not TOML.
    """
    path = Path(text) if Path(text).is_file() else shipped.get(text, Path(text))
    try:
        # utf-8-sig: editors on Windows may begin a file with a byte order mark.
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        repr(values)  # fails for a number that is too long for any message
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, and no {kind} of that name; there are {', '.join(shipped)}"
        ) from None
    except (ValueError, RecursionError) as error:  # not only of TOML: numbers, UTF-8
        raise InputError(f"{path}: not a TOML file: {error}") from None
    return path, values


def parse_keep(text: str) -> tuple[str, str]:
    """The column and the value of COLUMN=VALUE.

    Raises:
        InputError: the text has another form.
    """
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise InputError(f"keep: must be COLUMN=VALUE, such as event=view, not {text[:60]!r}")
    return column, value


def positive(text: str) -> int:
    """A whole number >= 1, as an option's type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return value


# --- tables of arguments --------------------------------------------------------------------------

Kind = dict[str, Any]  # what `add_argument` takes besides name and help
Arguments = Mapping[str, tuple[Kind, str]]  # name -> (kind, help)
FLAG: Kind = {"action": "store_true"}
ON_OR_OFF: Kind = {"action": argparse.BooleanOptionalAction}
SEVERAL: Kind = {"nargs": "+", "action": "extend"}
COUNT: Kind = {"metavar": "N", "type": positive}
K: Kind = {"metavar": "K", "type": positive}
DIR: Kind = {"metavar": "DIR"}
FILE: Kind = {"metavar": "FILE"}
UNSET: Kind = {"default": argparse.SUPPRESS}  # --help shows no default, and no attribute is set
MODEL = ({"metavar": "DIR|model.npz"}, "a run's folder, or a saved model")
NAMES = (FILE, "what items are called: a table of two columns, item and title, with a header")


def add_arguments(group: Any, table: Arguments) -> None:
    """Add a table of arguments to a parser or a group of argparse."""
    for name, (kind, text) in table.items():
        group.add_argument(name, help=text, **kind)
