"""What the commands share: one-line errors with exit status 2, and the options of a table.

Imports the data layer.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gru4rec_np.errors import InputError
from gru4rec_np.sessions import COLUMNS


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command: bad input and failed files end it with one line and exit status 2."""
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        status = f"error: {error}"
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
    print(status, file=sys.stderr)
    sys.exit(2)


def add_column_options(parser: argparse._ActionsContainer) -> None:
    """Options that name a table's columns."""
    for what, column in zip(("session", "item", "time"), COLUMNS, strict=True):
        parser.add_argument(
            f"--{what}-column", default=column, metavar="NAME", help=f"column of the {what}"
        )


def columns(args: argparse.Namespace) -> tuple[str, str, str]:
    """The column names that `add_column_options` asked for."""
    return args.session_column, args.item_column, args.time_column


def parse_split(text: str) -> dict[str, float]:
    """Keyword arguments of `sessions.split` for `1d` (the last day) or `0.1` (the last tenth).

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
