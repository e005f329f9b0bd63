"""Click logs as tables: files and frames read into `Sessions`, and written.

Tables are read in parts, of which only numbers are kept. Knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gru4rec_np.data.blocks import (
    COMPRESSED,
    ending,
    require_file,
    require_no_pipe,
    require_readable,
)
from gru4rec_np.data.columns import (
    TIME_UNITS,
    Numbers,
    as_text,
    distinct,
    from_pandas,
    id_column,
    join_parts,
    plain,
    require_one_type,
    require_values,
    time_kind,
    to_seconds,
)
from gru4rec_np.data.headers import Columns, how_to_name, keys_of
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.text import Part, read_lists, read_text
from gru4rec_np.data.text import Watch as Watch  # where the models import it from
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole

COLUMNS = ("SessionId", "ItemId", "Time")
ROWS = 1_000_000  # of a frame or a Parquet file at a time: text takes more memory than numbers
LAYOUTS = ("table", "lists")
Keep = tuple[str, "str | Sequence[str]"]  # a column, and the values of it that are kept


def read_table(
    path: str | Path | Sequence[str | Path],
    columns: Columns = COLUMNS,
    watch: Watch | None = None,
    *,
    separator: str | None = None,
    layout: str = "table",
    time_unit: str = "s",
    session_gap: float | None = None,
    keep: Keep | None = None,
    duplicates: bool = True,
    tell: Callable[[str], None] | None = None,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Read a click log from text or Parquet files.

    A name that ends in `.parquet` is Parquet, any other is text: a header line, then a row a line.
    Text is UTF-8; lines end in LF or CRLF. Files may be compressed by gzip or Zstandard, whatever
    they are named; an ending `.gz` or `.zst` is passed over. From Zstandard a CRLF within a quoted
    value comes as LF. A pipe of text is read as a file.

    The separator is found from the header, see `text.read_text`. Values separated by commas,
    semicolons or bars may be quoted, and all values in a file named `.csv`. Elsewhere a quotation
    mark is part of the value. All rows are read, or none: a row with too few or too many values is
    an error.

    Ids that are whole numbers throughout become int64. Other text is kept unchanged: "a" and " a"
    are two items. A text file cannot tell the number 1 from the text "1". Floats, booleans and
    dates, which only Parquet and frames have, keep their type. Other types that have a text
    (decimals, uint64 beyond int64, UUIDs, date-times with a zone) become text. A date-time with
    parts of a microsecond is no id.

    Times are numbers, or ISO date-times, with a zone in all rows or in none; without one they are
    UTC. What is below a microsecond is cut off. Numbers that would be seconds from the year 5138 on
    are refused: no unit is guessed. So are 20140407 and other columns of dates as numbers, and
    dates such as 04/07/2014.

    An event that is there twice counts twice, unless `duplicates` is False.

    Args:
        path: a file, or several that make one log: a session may have events in more than one.
        columns: names of the session, item and time columns. The first may be several, as a
            sequence or with commas between them: then a session is a combination of their values,
            and its id is their text with commas between them.
        watch: called as the reading goes on with the bytes read so far, and all. Not called for a
            pipe.
        separator: of a text file's columns; one character.
        layout: "table", or "lists": text without a header, a session a line, the items separated by
            blanks or tabs, or by `separator`. Its times are those of `Sessions.from_lists`.
        time_unit: of times that are numbers: "s", "ms", "us" or "ns" since 1970.
        session_gap: cut the events of each session at pauses of more than this many seconds.
            The session column may then be a user's. New sessions are numbered from 1.
        keep: a column and one or more of its values; rows with other values are passed over.
        duplicates: False keeps one of the events that agree in session, item and time.
        tell: called with a sentence about a choice that the file made: the separator.
        dropped: counts the rows that `keep` and `duplicates` leave out, by the reason.

    Returns:
        Sessions in order of first appearance, events by time, equal times by file order.

    Raises:
        InputError: a file is missing, empty, no table or compressed in another way, a column is
            missing or there twice, a row is not as the header says, an id is null, a time is none
            of the above.
    """
    paths = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
    if not paths:
        raise InputError("read_table: no file is given")
    if layout not in LAYOUTS:
        raise InputError(f"layout: must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    if layout == "lists" and (session_gap is not None or keep is not None):
        raise InputError("layout: lists have no times and no other columns to select by")
    for file in paths:
        require_file(file)
    wanted = [*columns, keep[0]] if keep else columns
    sizes = [file.stat().st_size if file.is_file() else 0 for file in paths]

    def parts() -> Iterator[Part]:
        """The files' wanted columns, part by part."""
        before, sessions = 0, 0

        def told(done: int) -> None:
            if watch and all(sizes):
                watch(before + done, sum(sizes))

        for path, size in zip(paths, sizes, strict=True):
            if layout == "lists":
                for part in read_lists(path, COLUMNS, separator, told, sessions):
                    yield part
                    if len(part.frame):
                        sessions = int(part.frame[COLUMNS[0]][-1]) + 1
            elif ending(path) == ".parquet":
                for part, share in _read_parquet(path, wanted):
                    yield part
                    told(int(share * size))
            else:
                yield from read_text(path, wanted, separator, told, tell)
            before += size
            told(0)

    columns = COLUMNS if layout == "lists" else columns
    name = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    return _gather(parts(), columns, name, time_unit, session_gap, keep, duplicates, dropped)


def _read_parquet(path: Path, columns: Columns) -> Iterator[tuple[Part, float]]:
    """The wanted columns of a Parquet file, part by part, and what share of the rows is read."""
    require_no_pipe(path)
    require_readable(path, ())
    try:
        table = pl.scan_parquet(path, glob=False)
        names = table.collect_schema().names()
        try:
            keys = keys_of(columns, names, str(path))
        except InputError as error:
            raise InputError(f"{error}{how_to_name(columns, names)}") from None
        table = table.select(list(dict.fromkeys(name for key in keys for name in key)))
        total, row = table.select(pl.len()).collect().item(), 1
        for frame in table.collect_batches(chunk_size=ROWS):
            yield Part(frame, str(path), row), (row - 1 + len(frame)) / max(total, 1)
            row += len(frame)
    # A panic, on a damaged file, is no Exception in Polars.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable(path, error) from error
    if row - 1 != total:
        raise InputError(f"{path}: not a readable table: {row - 1} rows read of {total}")


def from_frame(
    frame: Any,
    columns: Columns = COLUMNS,
    name: str = "frame",
    first_row: int = 0,
    *,
    time_unit: str = "s",
    session_gap: float | None = None,
    keep: Keep | None = None,
    duplicates: bool = True,
) -> Sessions:
    """Sessions from a frame; see `read_table`.

    Args:
        frame: a `polars.DataFrame` or `LazyFrame`, a `pandas.DataFrame`, or a table of Arrow's
            such as a `pyarrow.Table`.
        columns: names of the session, item and time columns.
        name: what to call it in an error message. first_row: the number of its first row there.

    Raises:
        InputError: as `read_table`, for a frame.
    """
    wanted = [*columns, keep[0]] if keep else columns
    if isinstance(frame, pl.LazyFrame):
        try:
            frame = frame.collect()
        except pl.exceptions.PolarsError as error:
            raise _unreadable(name, error) from error
    elif hasattr(frame, "columns") and hasattr(frame, "iloc"):
        keys = keys_of(wanted, list(frame.columns), name)
        unique = dict.fromkeys(column for key in keys for column in key)
        frame = pl.DataFrame({column: from_pandas(frame[column], name) for column in unique})
    elif not isinstance(frame, pl.DataFrame) and hasattr(frame, "__arrow_c_stream__"):
        frame = pl.DataFrame(frame)
    if not isinstance(frame, pl.DataFrame):
        raise InputError(
            f"{name}: must be a Polars or pandas frame, not {type(frame).__name__}; read_table "
            "reads files, Sessions.from_lists takes lists of items"
        )
    keys_of(wanted, frame.columns, name)
    parts = _numbered(frame.iter_slices(ROWS), name, first_row)
    return _gather(parts, columns, name, time_unit, session_gap, keep, duplicates)


def as_sessions(data: Any, as_text: bool = False) -> Sessions:
    """`Sessions` unchanged, a frame by `from_frame`, lists of items by `Sessions.from_lists`.

    Args:
        as_text: take the items of lists as text, by which models compare them, so that their types
            may differ.

    Raises:
        InputError: it is none of these; the message says what to call.
    """
    if isinstance(data, Sessions):
        return data
    frame_like = isinstance(data, pl.LazyFrame) or hasattr(data, "columns")
    other = isinstance(data, str | bytes | Path | Mapping | set | frozenset | np.ndarray)
    if frame_like or other or hasattr(data, "__arrow_c_stream__") or not isinstance(data, Iterable):
        return from_frame(data)
    sessions = list(data)
    for session in sessions:
        if not isinstance(session, list | tuple | np.ndarray):
            raise InputError(
                "sessions: must be lists of item ids such as [[1, 2], [3, 4]]; one of them is "
                f"{str(session)[:60]!r}"
            )
    if not any(len(session) for session in sessions):
        raise InputError("sessions: there are no events")
    read = _text if as_text else plain
    return Sessions.from_lists([[read(item) for item in session] for session in sessions])


def _text(item: Any) -> str:
    if isinstance(item, list | tuple | dict | set | np.ndarray | bytes):
        raise InputError(f"sessions: an item id is a number or a text, not {str(item)[:60]!r}")
    return str(item.item() if isinstance(item, np.generic) else item)


def from_parts(parts: Iterable[pl.DataFrame], columns: Sequence[str], name: str) -> Sessions:
    """Sessions from a table that comes in parts, frames with these columns; see `from_frame`.

    Raises:
        InputError: as `from_frame`. Rows are counted from 1.
    """
    return _gather(_numbered(parts, name, 1), columns, name)


def _numbered(frames: Iterable[pl.DataFrame], name: str, first_row: int) -> Iterator[Part]:
    """The frames of one table, each with the number of its first row."""
    for frame in frames:
        yield Part(frame, name, first_row)
        first_row += len(frame)


def _gather(
    parts: Iterable[Part],
    columns: Columns,
    name: str,
    time_unit: str = "s",
    session_gap: float | None = None,
    keep: Keep | None = None,
    duplicates: bool = True,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Sessions from the parts of one or more tables.

    Of each part only numbers are kept: 16 bytes a row, and its distinct ids.
    """
    if time_unit not in TIME_UNITS:
        raise InputError(f"time_unit: must be one of {', '.join(TIME_UNITS)}, not {time_unit!r}")
    if session_gap is not None and not 0 < session_gap < float("inf"):
        raise InputError(f"session_gap: must be a number of seconds above 0, not {session_gap}")
    sessions: list[tuple[pl.Series, np.ndarray]] = []
    items: list[tuple[pl.Series, np.ndarray]] = []
    times: list[np.ndarray] = []
    kinds: dict[str, str] = {}  # of each table's times
    others: dict[str, None] = {}  # values of keep's column that are not kept
    for frame, table, first_row in parts:
        numbers: Numbers = range(first_row, first_row + len(frame))
        try:
            if keep:
                frame, rows, more = _kept(frame, keep, table)
                if dropped is not None and len(rows) < len(numbers):
                    values = [keep[1]] if isinstance(keep[1], str) else keep[1]
                    what = f"rows whose {keep[0]} is not {' or '.join(values)}"
                    dropped[what] += len(numbers) - len(rows)
                numbers = first_row + rows
                others |= dict.fromkeys(more)
            if len(frame) == 0:
                continue
            session, (item,), (time,) = keys_of(columns, frame.columns, table)
            names = [*session, item, time]
            frame = as_text(frame, names, table)
            require_values(frame, names, time, table, numbers)
            for key, column in ((session, sessions), ((item,), items)):
                column.append(distinct(id_column(frame, key)))
                where = f"{table}, column {','.join(key)}"
                require_one_type(column[-1][0], column[0][0], where)
            if table not in kinds:
                kinds[table] = time_kind(frame[time])
            times.append(to_seconds(frame[time], kinds[table], time_unit, table, numbers))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _unreadable(table, error) from error
    if not times:
        if keep and others:
            found = ", ".join(map(repr, list(others)[:5]))
            raise InputError(f"{name}: no row has {keep[1]!r} in column {keep[0]}; it has {found}")
        raise InputError(f"{name}: the table has no rows")
    session_ids, session_index = join_parts(sessions)
    item_ids, item_index = join_parts(items)
    seconds = np.concatenate(times)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(session_index))])
    ahead = np.diff(session_index)
    if (ahead < 0).any() or ((ahead == 0) & (np.diff(seconds) < 0)).any():
        order = np.lexsort((seconds, session_index))  # stable: equal times stay in file order
        item_index, seconds = item_index[order], seconds[order]
    log = Sessions(item_index, offsets, seconds, item_ids, session_ids)
    if not duplicates:
        log = drop_duplicates(log, dropped)
    return log if session_gap is None else cut(log, session_gap)


def drop_duplicates(sessions: Sessions, dropped: Counter[str] | None = None) -> Sessions:
    """Only the first of the events that agree in session, item and time.

    Args:
        dropped: counts the others, by the reason.
    """
    session = np.repeat(np.arange(sessions.n_sessions), sessions.lengths)
    keys = sessions.times, sessions.items, session
    order = np.lexsort(keys)
    same = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    first = np.ones(sessions.n_events, bool)
    first[order[1:][same]] = False
    if dropped is not None and same.any():
        dropped["exact duplicates"] += int(same.sum())
    return sessions.keep_events(first)


def cut(sessions: Sessions, gap: float) -> Sessions:
    """Sessions cut where more than `gap` seconds pass between two events, numbered from 1."""
    starts = np.diff(sessions.times, prepend=-np.inf) > gap
    starts[sessions.offsets[:-1][sessions.lengths > 0]] = True
    offsets = np.append(np.flatnonzero(starts), sessions.n_events)
    numbers = np.arange(1, len(offsets), dtype=np.int64)
    return Sessions(sessions.items, offsets, sessions.times, sessions.item_ids, numbers)


def _kept(frame: pl.DataFrame, keep: Keep, name: str) -> tuple[pl.DataFrame, np.ndarray, list[str]]:
    """The rows with one of the values, their places, and some of the other values."""
    column, values = keep
    text = as_text(frame, [column], name)[column].cast(pl.String)
    kept = text.is_in([values] if isinstance(values, str) else list(values)).fill_null(False)
    others = [str(value) for value in text.filter(~kept).unique(maintain_order=True).head(5)]
    return frame.filter(kept), np.flatnonzero(kept.to_numpy()), others


def _unreadable(name: object, error: BaseException) -> InputError:
    why = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(f"{name}: not a readable table: {why}")


def readable_text(ids: np.ndarray) -> np.ndarray:
    """Ids as text files hold them: what is no whole number by the text that `index_of` goes by."""
    return ids if ids.dtype == np.int64 else np.array([str(i) for i in ids.tolist()], object)


def require_tsv(path: str | Path, columns: Sequence[np.ndarray], instead: str) -> None:
    """Raise InputError for text that a tab-separated file cannot hold. instead: other endings."""
    for column in columns:
        for text in column.tolist() if column.dtype == object else ():
            if not text or not {"\t", "\n", "\r"}.isdisjoint(text):
                raise InputError(
                    f"{path}: {text[:60]!r} is empty or has a tab or a line break, which a "
                    f"tab-separated file cannot hold; write {instead}"
                )


@contextmanager
def full_disks() -> Iterator[None]:
    """Polars writes Parquet in the block. It has its own errors, for a full disk too: OSError."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise OSError(None, str(error).splitlines()[0]) from error


def write_table(sessions: Sessions, path: str | Path) -> None:
    """Write sessions as a table with the default column names, times in seconds since 1970.

    Args:
        path: its ending decides the format, as in `read_table`.

    Raises:
        InputError: an id cannot stand in a tab-separated file, or the ending is that of a
            compressed one.
        UnicodeEncodeError: the path is not UTF-8.
    """
    str(path).encode()  # Polars fails in other ways on a path that is not UTF-8
    kind = ending(Path(path))
    if Path(path).suffix.lower() in COMPRESSED:
        raise InputError(f"{path}: compressed files are not written, only read")
    session_ids, item_ids = sessions.session_ids, sessions.item_ids
    if kind != ".parquet":
        session_ids, item_ids = readable_text(session_ids), readable_text(item_ids)
    if kind == ".tsv":
        require_tsv(path, [session_ids, item_ids], ".csv or .parquet")
    of_events = np.repeat(session_ids, sessions.lengths), item_ids[sessions.items], sessions.times
    frame = pl.DataFrame(dict(zip(COLUMNS, of_events, strict=True)))

    def save(part: Path) -> None:
        if kind == ".parquet":
            with full_disks():
                frame.write_parquet(part)
        elif kind == ".csv":
            frame.write_csv(part)
        else:
            frame.write_csv(part, separator="\t", quote_style="never")

    write_whole(path, save)
