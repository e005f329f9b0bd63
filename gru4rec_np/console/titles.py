"""Items in files: their titles, and lists of them; a ranking with titles, printed."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gru4rec_np.console import cli
from gru4rec_np.errors import InputError


def read_titles(path: str | Path) -> tuple[dict[str, str], str]:
    """Read what items are called.

    Args:
        path: a text file in UTF-8 of two columns, item id and title, with tabs or commas between
            them. The first line is a header.

    Returns:
        item id, as text, to title; and the first field of the header, see `require_header`.

    Raises:
        InputError: the file is not UTF-8, or a row has another number of columns or an item that
            was there before. OSError: it cannot be read.
    """
    titles: dict[str, str] = {}
    header = ""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            lines = itertools.chain([first], file)
            if "\t" in first:  # a quotation mark is a character as any other
                rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            else:
                rows = csv.reader(lines)
            header = next(iter(next(rows, [])), "")
            for row in rows:
                line = rows.line_num
                if not row:
                    continue
                if len(row) != 2:
                    raise InputError(
                        f"{path}: line {line}: must have 2 columns, item and title, not {len(row)}"
                    )
                item, title = row
                if item in titles:
                    raise InputError(f"{path}: line {line}: item {item[:60]!r} is there twice")
                titles[item] = title
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason}") from None
    except csv.Error as error:
        raise InputError(f"{path}: line {rows.line_num}: {error}") from None
    return titles, header


def require_header(path: str | Path, header: str, known: Container[str]) -> None:
    """Raise InputError if the first line of a file of titles is no header but an item.

    Args:
        path: for the message. header: from `read_titles`. known: the ids of the model, as text.
    """
    if header in known:
        raise InputError(
            f"{path}: line 1: {header[:60]!r} is an item of the model where a header is expected, "
            "such as item and title"
        )


def print_ranking(
    best: Iterable[tuple[Any, float]], value: str, titles: Mapping[str, str] | None
) -> None:
    """Print items with their rank, value and title; `value` says what is above the numbers."""
    rows = [(cli.shown(item), x, (titles or {}).get(str(item))) for item, x in best]
    width = max([len("item"), *(len(item) for item, _, _ in rows)])
    print(f"rank  {'item':{width}} {value:>8}" + "  title" * (titles is not None))
    for rank, (item, x, title) in enumerate(rows, 1):
        line = f"{rank:4}  {item:{width}} {x:8.4f}"
        print(f"{line}  {cli.shown(title)}" if title else line)


def read_items(path: str | Path) -> list[str]:
    """The items of a text file in UTF-8, one a line; empty lines do not count.

    Raises:
        InputError: the file is not UTF-8, or names no item. OSError: it cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason}") from None
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    if not (items := [line for line in lines if line]):
        raise InputError(f"{path}: names no item; there must be one a line")
    return items


def check_items(
    path: str | Path, items: Sequence[str], known: Container[str], some: bool = False
) -> None:
    """Say how many items of a file the model does not know.

    Args:
        path: for the message. items: from `read_items`. known: the ids of the model, as text.
        some: whether one must be known.

    Raises:
        InputError: none is, but one must be.
    """
    unknown = [item for item in items if item not in known]
    if some and len(unknown) == len(items):
        raise InputError(f"{path}: no item of it is known to the model")
    if unknown:
        cli.say(
            f"{path}: ignored, unknown to the model: {len(unknown):,} of {len(items):,} items, "
            f"such as {cli.shown(unknown[0])}"
        )
