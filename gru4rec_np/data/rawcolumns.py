"""Columns of a published log's text file, in blocks of whole lines. An error names the line.

For rawlogs.py, whose formats differ from those of tables.py: no value is quoted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from gru4rec_np.data.blocks import require_file, require_no_pipe, require_readable, whole_lines
from gru4rec_np.data.columns import TOO_LATE
from gru4rec_np.data.text import LONE_RETURN, Watch
from gru4rec_np.errors import InputError

BLOCK = 1 << 26  # bytes read at a time
WHOLE = "a whole number"
MS = "a whole number of milliseconds since 1970"
LATEST_MS = int(TOO_LATE * 1000) // 2  # so that the sum of a day and a time is not too late either
Files = str | Path | Sequence[str | Path]


class Table(NamedTuple):
    """Some rows of a file as text, with each row's line number as `line`.

    decoded: whether all of it is UTF-8. Else U+FFFD stands in place of other bytes.
    """

    path: Path
    rows: pl.DataFrame
    decoded: bool


def paths_of(files: Files) -> list[Path]:
    """One path, or several, as a list."""
    return [Path(path) for path in ([files] if isinstance(files, str | Path) else files)]


def blocks_of(files: Files, watch: Watch | None) -> Iterator[tuple[Path, int, bytes]]:
    """The files as blocks of whole lines, each with its path and the number of its first line.

    They may be compressed by gzip.

    Args:
        watch: told of a block when the next one is asked for.
    """
    paths = paths_of(files)
    for path in paths:
        require_file(path)
        require_no_pipe(path)
    sizes = [path.stat().st_size for path in paths]
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        line = 1
        require_readable(path, ("gzip",))
        try:
            with path.open("rb") as file:
                for block in whole_lines(path, file, BLOCK):
                    yield path, line, block
                    line += block.count(b"\n")
                    if watch:
                        watch(before + file.tell(), sum(sizes))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}, after line {line - 1}: damaged: {error}") from error
        before += size


def tables_of(
    files: Files,
    separator: str,
    spellings: Sequence[Sequence[str]],
    watch: Watch | None,
    header: bool = True,
) -> Iterator[Table]:
    """The blocks of separated files as text columns.

    Lines are split here: Polars' CSV reader passes over some faults, and names no line for others.
    No public log quotes its values. Blank lines are skipped.

    Args:
        spellings: the columns wanted of the header's, or all of them if there is no header; more
            than one set of names where the header exists in several spellings.
    """
    columns = spellings[0]
    names = list(columns)
    for path, first_line, block in blocks_of(files, watch):
        try:
            content, decoded = block.decode(), True
        except UnicodeDecodeError:
            content, decoded = block.decode(errors="replace"), False
        if "\r" in content:
            content = content.replace("\r\n", "\n").removesuffix("\r")
        if "\r" in content:
            line = first_line + content.count("\n", 0, content.index("\r"))
            raise InputError(f"{path}, line {line}: {LONE_RETURN}")
        text = content.split("\n")
        if header and first_line == 1:
            names = text[0].split(separator)
            columns = min(spellings, key=lambda spelling: len({*spelling} - {*names}))
            for column in columns:
                if column not in names:
                    raise InputError(
                        f"{path}, line 1: no column {column!r} in the header {text[0][:100]!r}; "
                        f"{len(columns)} are needed: {separator.join(columns)}"
                    )
            text[0] = ""
        lines = pl.DataFrame({"text": text}, schema={"text": pl.String})
        lines = lines.with_row_index("line", offset=first_line).filter(pl.col("text") != "")
        width = lines["text"].str.count_matches(separator, literal=True) + 1
        wrong = width != len(names)
        if wrong.any():
            row = wrong.arg_max()
            wanted = repr(separator.join(names)[:200])[1:-1]  # a header may hold anything
            raise InputError(
                f"{path}, line {lines['line'][row]}: {width[row]} columns where {len(names)} are "
                f"expected, {wanted}: {lines['text'][row][:60]!r}"
            )
        fields = pl.col("text").str.split_exact(separator, len(names) - 1)
        rows = lines.select(
            "line", *(fields.struct.field(f"field_{names.index(c)}").alias(c) for c in columns)
        )
        yield Table(path, rows, decoded)


def parse(
    table: Table,
    column: str,
    parsed: pl.Expr,
    expected: str,
    where: pl.Series | None = None,
    most: int | None = None,
) -> pl.Series:
    """A column of text as values, null in the rows that are not wanted.

    Args:
        parsed: null where the text is not what is expected. where: the rows wanted, all if None.
        most: the largest size of a number, if there is one.

    Raises:
        InputError: a value that is wanted is not what is expected, or too large.
    """
    values = table.rows.select(parsed if where is None else pl.when(where).then(parsed)).to_series()
    bad = values.is_null() if where is None else values.is_null() & where
    if most is not None:
        bad |= ~values.is_between(-most, most).fill_null(True)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        found = table.rows[column][row]
        raise InputError(
            f"{table.path}, line {table.rows['line'][row]}, column {column}: "
            f"{repr(found[:60]) if found else 'nothing'} where {expected} is expected"
        )
    return values


def whole_numbers(table: Table, column: str, where: pl.Series | None = None) -> pl.Series:
    """Whole numbers, int64; see `parse`."""
    return parse(table, column, pl.col(column).cast(pl.Int64, strict=False), WHOLE, where)


def ids(table: Table, column: str, where: pl.Series | None = None) -> pl.Series:
    """Ids that are text, as categories: 4 bytes each."""
    is_id = (pl.col(column) != "") & is_utf8(table, column)
    categories = pl.when(is_id).then(column).cast(pl.Categorical)
    return parse(table, column, categories, "an id in UTF-8", where)


def is_utf8(table: Table, column: str) -> pl.Expr:
    """Whether a text lacks the mark that `tables_of` puts in place of bytes that are not UTF-8."""
    if table.decoded:
        return pl.lit(True)
    return ~pl.col(column).str.contains("\ufffd", literal=True)


def moments(table: Table, column: str, format: str, example: str) -> pl.Series:
    """Times in milliseconds since 1970."""
    ms = pl.col(column).str.to_datetime(format, time_unit="ms", strict=False).dt.epoch("ms")
    return parse(table, column, ms, f"a time like {example}", most=LATEST_MS)


def milliseconds(table: Table, column: str) -> pl.Series:
    """Times in milliseconds since 1970."""
    ms = pl.col(column).cast(pl.Int64, strict=False)
    return parse(table, column, ms, MS, most=LATEST_MS)


def in_range(ms: pl.Expr) -> pl.Expr:
    """Whether milliseconds since 1970 are a time that can be used."""
    return ms.is_between(-LATEST_MS, LATEST_MS)
