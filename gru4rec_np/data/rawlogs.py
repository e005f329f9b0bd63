"""The public click logs in the formats they are published in, turned into `Sessions`.

A file is read in blocks of whole lines, so that only the numbers of a log stand in memory, and an
error can name the line. Imports the data layer; knows no model.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import COLUMNS, ROWS, Watch, from_parts, require_readable
from gru4rec_np.errors import InputError

BLOCK = 1 << 26  # bytes read at a time
SESSION, ITEM, TIME = COLUMNS
WHOLE = "a whole number"
RSC15_TIME = "%Y-%m-%dT%H:%M:%S%.fZ"
DAY_MS = 86_400_000


def read_rsc15(path: str | Path, watch: Watch | None = None) -> Sessions:
    """Read `yoochoose-clicks.dat` or `yoochoose-test.dat` of the RecSys Challenge 2015.

    Lines are `session,time,item,category` without a header, the time like
    2014-04-07T10:51:09.277Z. The category is not used.

    Args:
        path: the file.
        watch: called as the reading goes on with the bytes read so far, and all.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64.

    Raises:
        InputError: the file is missing or empty, or a line is not of this format.

    Source: the data set's dataset-README.txt; Ben-Shimon et al., "RecSys Challenge 2015 and the
    YOOCHOOSE Dataset", RecSys 2015.
    """
    time = pl.col("time").str.to_datetime(RSC15_TIME, time_unit="ms", strict=False)
    expected = "a time like 2014-04-07T10:51:09.277Z"

    def numbers(table: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame(
            {
                SESSION: _whole(path, table, "session"),
                ITEM: _whole(path, table, "item"),
                TIME: _parse(path, table, "time", time.dt.epoch("ms"), expected),
            }
        )

    columns = "session", "time", "item", "category"
    return _sessions(path, map(numbers, _tables(path, ",", columns, watch, header=False)))


def read_diginetica(path: str | Path, watch: Watch | None = None) -> Sessions:
    """Read `train-item-views.csv` of the CIKM Cup 2016, track 2 (Diginetica).

    Columns are separated by ';' under the header sessionId;userId;itemId;timeframe;eventdate. An
    event's time is midnight (UTC) of its eventdate plus timeframe, the milliseconds since the
    session's first query. The userId, mostly NA, is not used.

    Args:
        path: the file.
        watch: called as the reading goes on with the bytes read so far, and all.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64.

    Raises:
        InputError: the file is missing or empty, a column is missing, or a line is not of this
            format.

    Source: the data page of CIKM Cup 2016, track 2, "Personalized E-Commerce Search Challenge".
    """
    date = pl.col("eventdate").str.to_date("%Y-%m-%d", strict=False)
    number = date.to_physical().cast(pl.Int64)  # days since 1970

    def numbers(table: pl.DataFrame) -> pl.DataFrame:
        day = _parse(path, table, "eventdate", number, "a date like 2016-05-09")
        return pl.DataFrame(
            {
                SESSION: _whole(path, table, "sessionId"),
                ITEM: _whole(path, table, "itemId"),
                TIME: day * DAY_MS + _whole(path, table, "timeframe"),
            }
        )

    columns = "sessionId", "itemId", "timeframe", "eventdate"
    return _sessions(path, map(numbers, _tables(path, ";", columns, watch)))


def read_retailrocket(
    path: str | Path,
    gap_minutes: float = 30.0,
    event: str = "view",
    watch: Watch | None = None,
) -> Sessions:
    """Read `events.csv` of the Retailrocket recommender system dataset.

    Columns are separated by ',' under the header timestamp,visitorid,event,itemid,transactionid,
    the timestamp in milliseconds since 1970. The file is not in order of time and has no
    sessions: a visitor's events are cut into sessions here.

    Args:
        path: the file.
        gap_minutes: a new session starts after a longer time than this without an event.
        event: the kind of event to keep: view, addtocart or transaction.
        watch: called as the reading goes on with the bytes read so far, and all.

    Returns:
        Sessions in order of visitor, then of time, and numbered from 1; item ids int64.

    Raises:
        InputError: the file is missing or empty, a column is missing, a line is not of this
            format, no event is of the kind, or gap_minutes is not positive.

    Source: the data set's page on Kaggle, "Retailrocket recommender system dataset".
    """
    if not gap_minutes > 0:
        raise InputError(f"gap_minutes must be above 0, not {gap_minutes}")
    parts = []
    for table in _tables(path, ",", ("timestamp", "visitorid", "event", "itemid"), watch):
        table = table.filter(pl.col("event") == event)
        parts.append(
            pl.DataFrame(
                {
                    "visitor": _whole(path, table, "visitorid"),
                    ITEM: _whole(path, table, "itemid"),
                    TIME: _whole(path, table, "timestamp"),
                }
            )
        )
    # The order is kept among equals: equal times stay in file order.
    frame = pl.concat(parts).sort("visitor", TIME, maintain_order=True)
    visitor, ms = pl.col("visitor"), pl.col(TIME)
    starts = (visitor != visitor.shift()) | (ms - ms.shift() > gap_minutes * 60_000)
    frame = frame.select(starts.fill_null(True).cum_sum().alias(SESSION), ITEM, TIME)
    return _sessions(path, frame.iter_slices(ROWS), f"event of kind {event!r}")


def read_otto(path: str | Path, event: str = "clicks", watch: Watch | None = None) -> Sessions:
    """Read a `.jsonl` file of the OTTO recommender systems dataset.

    Each line is a session as a JSON object, its times in milliseconds since 1970:
    {"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}, ...]}

    Args:
        path: the file.
        event: the type of event to keep: clicks, carts or orders.
        watch: called as the reading goes on with the bytes read so far, and all.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64; those without such an event are
        left out.

    Raises:
        InputError: the file is missing or empty, a line is not of this format, or no event is of
            the type.

    Source: the README of otto-de/recsys-dataset; Normann et al., "OTTO - Recommender Systems
    Dataset", 2022.
    """
    fields = pl.Struct({"aid": pl.Int64, "ts": pl.Int64, "type": pl.String})
    schema = {"session": pl.Int64, "events": pl.List(fields)}

    def numbers(first_line: int, block: bytes) -> pl.DataFrame:
        try:
            lines = pl.read_ndjson(block, schema=schema)
            some = lines.filter(pl.col("events").list.len() > 0)
            events = some.explode("events").unnest("events")
            broken = any(frame.null_count().sum_horizontal().sum() for frame in (lines, events))
        except pl.exceptions.PolarsError:
            broken = True
        if broken:  # Polars does not say where
            raise _otto_error(path, first_line, block)
        return events.filter(pl.col("type") == event).select(
            pl.col("session").alias(SESSION), pl.col("aid").alias(ITEM), pl.col("ts").alias(TIME)
        )

    parts = itertools.starmap(numbers, _blocks(path, watch))
    return _sessions(path, parts, f"event of type {event!r}")


READERS: dict[str, Callable[..., Sessions]] = {
    "rsc15": read_rsc15,
    "diginetica": read_diginetica,
    "retailrocket": read_retailrocket,
    "otto": read_otto,
}


# --- parts of the readers -------------------------------------------------------------------------


def _blocks(path: str | Path, watch: Watch | None) -> Iterator[tuple[int, bytes]]:
    """A file as blocks of whole lines, each with the number of its first line.

    It may be compressed by gzip.

    Args:
        watch: told of a block when the next one is asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    line = 1
    zipped = require_readable(path, ("gzip",))
    with path.open("rb") as file:
        text = gzip.GzipFile(fileobj=file) if zipped else file
        while True:
            try:
                block = text.read(BLOCK) + text.readline()
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path}, after line {line - 1}: damaged: {error}") from error
            if not block:
                break
            yield line, block.removeprefix(codecs.BOM_UTF8) if line == 1 else block
            line += block.count(b"\n")
            if watch:
                watch(file.tell(), path.stat().st_size)


def _tables(
    path: str | Path,
    separator: str,
    columns: Sequence[str],
    watch: Watch | None,
    header: bool = True,
) -> Iterator[pl.DataFrame]:
    """The blocks of a separated file as text columns, with each row's line number as `line`.

    The lines are cut here and not by Polars' CSV reader, which skips some faults and names no
    line for others. No public log quotes its values. Blank lines are skipped.

    Args:
        columns: those wanted of the header's, or all of them if there is no header.
    """
    names = list(columns)
    for first_line, block in _blocks(path, watch):
        text = block.decode(errors="replace").split("\n")
        if header and first_line == 1:
            names = text[0].rstrip("\r").split(separator)
            for column in columns:
                if column not in names:
                    raise InputError(
                        f"{path}, line 1: no column {column!r} in the header {text[0][:100]!r}; "
                        f"{len(columns)} are needed: {separator.join(columns)}"
                    )
            text[0] = ""
        lines = pl.DataFrame({"text": text}, schema={"text": pl.String})
        lines = lines.with_columns(pl.col("text").str.strip_suffix("\r"))
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
        yield lines.select(
            "line", *(fields.struct.field(f"field_{names.index(c)}").alias(c) for c in columns)
        )


def _parse(
    path: str | Path, table: pl.DataFrame, column: str, parsed: pl.Expr, expected: str
) -> pl.Series:
    """A column of text as numbers; `parsed` is null where the text is not what is expected."""
    values = table.select(parsed).to_series()
    bad = values.is_null()
    if bad.any():
        row = bad.arg_max()
        found = table[column][row]
        raise InputError(
            f"{path}, line {table['line'][row]}, column {column}: "
            f"{repr(found[:60]) if found else 'nothing'} where {expected} is expected"
        )
    return values


def _whole(path: str | Path, table: pl.DataFrame, column: str) -> pl.Series:
    return _parse(path, table, column, pl.col(column).cast(pl.Int64, strict=False), WHOLE)


def _sessions(path: str | Path, parts: Iterable[pl.DataFrame], what: str = "event") -> Sessions:
    """Sessions of frames whose times are whole milliseconds."""

    def in_seconds() -> Iterator[pl.DataFrame]:
        some = False
        for part in parts:
            some = some or len(part) > 0
            # In NumPy: Polars divides by a scalar as a product with its inverse, and rounds twice.
            yield part.with_columns(pl.Series(TIME, part[TIME].to_numpy() / 1000))
        if not some:
            raise InputError(f"{path}: the log has no {what}")

    return from_parts(in_seconds(), COLUMNS, str(path), 1)


def _otto_error(path: str | Path, first_line: int, block: bytes) -> InputError:
    """What is wrong in a block that Polars cannot use: the first faulty line, in plain Python."""
    for number, line in enumerate(block.split(b"\n"), first_line):
        if line.strip() and (fault := _otto_fault(line)):
            return InputError(f"{path}, line {number}{fault}")
    return InputError(f"{path}, line {first_line} or later: not of the OTTO format")


def _otto_fault(line: bytes) -> str | None:
    try:
        session = json.loads(line)
    except (ValueError, RecursionError):
        session = None
    if not isinstance(session, dict):
        shown = line[:60].decode(errors="replace")
        return f": {shown!r} where a JSON object with session and events is expected"
    faults = [_fault(session, "session", int, WHOLE), _fault(session, "events", list, "a list")]
    if not any(faults):
        for event in session["events"]:
            if not isinstance(event, dict):
                return f", events: {str(event)[:60]!r} where an object is expected"
            faults += [_fault(event, key, int, WHOLE) for key in ("aid", "ts")]
            faults += [_fault(event, "type", str, "a text")]
    return next(filter(None, faults), None)


def _fault(values: dict[str, Any], key: str, kind: type, expected: str) -> str | None:
    value = values.get(key)
    # Not isinstance: True is no number. int64 is what Polars reads.
    if type(value) is kind and (kind is not int or -(2**63) <= value < 2**63):
        return None
    found = "nothing" if value is None else repr(str(value)[:60])
    return f", {key}: {found} where {expected} is expected"
