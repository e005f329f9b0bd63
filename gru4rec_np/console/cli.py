"""What the commands share: one-line errors, a table's options, progress bars, the output.

Imports the data layer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from gru4rec_np.data.tables import COLUMNS
from gru4rec_np.errors import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"error: {message} (see --help)") + "\n")


def one_line(text: str) -> str:
    """The text with line breaks, and whatever else is blank, as single spaces."""
    return " ".join(text.split())


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command: bad input and failed files end it with one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # an item's name may not exist in their encoding
        stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except (InputError, UnicodeEncodeError) as error:  # the latter for a path that is not UTF-8
        status = f"error: {error}"
    except MemoryError as error:
        status = f"error: not enough memory: {error or 'for data or layers of this size'}"
    except BrokenPipeError:
        # The reader of our output, `head` say, has seen enough; keep the interpreter from
        # complaining about it when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        status = f"error: {error.filename or 'file'}: {error.strerror or error}"
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    else:
        sys.exit(0)
    print(one_line(status), file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on stderr, if that is a terminal; gone when the work is done.

    Yields:
        what moves it: called with how much is done, and of how much.
    """
    look = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    options = {"bar_format": look, "miniters": 0, "leave": False, "disable": None}
    with tqdm(desc=what, total=1, dynamic_ncols=True, **options) as bar:

        def watch(done: float, total: float) -> None:
            bar.update(done / total - bar.n)

        yield watch


def add_column_options(parser: argparse._ActionsContainer) -> None:
    """Options that name a table's columns."""
    for what, column in zip(("session", "item", "time"), COLUMNS, strict=True):
        parser.add_argument(
            f"--{what}-column", default=column, metavar="NAME", help=f"column of the {what}"
        )


def columns(args: argparse.Namespace) -> tuple[str, str, str]:
    """The column names that `add_column_options` asked for."""
    return args.session_column, args.item_column, args.time_column


def check_output(folder: Path, files: Sequence[str], sources: Sequence[Path] = ()) -> None:
    """Raise what stands in the way of results before the work for them begins. Leaves no trace.

    Args:
        folder: where they go, there already or not. files: their names in it.
        sources: files that are read and must not be replaced.

    Raises:
        InputError: the folder or a file cannot be written.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise InputError(f"--out {folder}: {nearest} is a file, not a folder")
    for path in (folder / name for name in files):
        if path.is_dir():
            raise InputError(f"--out {folder}: {path} is a folder, not a file")
        if any(path.exists() and s.exists() and path.samefile(s) for s in sources):
            raise InputError(f"--out {folder}: {path} is the log itself and would be replaced")
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise InputError(f"--out {folder}: {nearest} is not writable: {error.strerror}") from None


def parse_split(text: str) -> dict[str, Any]:
    """Keyword arguments of `protocols.split` for `1d` (the last day) or `0.1` (the last tenth).

    Raises:
        InputError: the text is neither.
    """
    days = text.endswith("d")
    try:
        value = float(text.removesuffix("d"))
    except ValueError:
        value = 0.0
    if not (value > 0 if days else 0 < value < 1) or value == float("inf"):
        raise InputError(
            f"split: must be days like 1d or a share between 0 and 1 like 0.1, not {text!r}"
        )
    return {"days": value} if days else {"share": value}


def positive(text: str) -> int:
    """A whole number >= 1, as an option's type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, not {text!r}")
    return value
