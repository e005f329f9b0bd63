"""Click logs as tables: files and frames read into `Sessions`, and written.

Polars reads them in parts, of which only numbers are kept. Imports sessions.py and what is below;
knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gru4rec_np.data.parquet import check as check_parquet
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole

COLUMNS = ("SessionId", "ItemId", "Time")
ROWS = 1_000_000  # of a table at a time: what of it is no number never stands in memory whole
Watch = Callable[[int, int], None]  # told how much of a file is read, and how much there is


def read_table(
    path: str | Path, columns: Sequence[str] = COLUMNS, watch: Watch | None = None
) -> Sessions:
    """Read a click log from a TSV, CSV or Parquet file.

    The ending decides: `.parquet`, `.csv` (comma, values may be quoted), anything else is tab
    separated without quotes: there a quotation mark is a part of the value. Text files are UTF-8,
    lines end in LF or CRLF, and may be compressed by gzip or Zstandard; an ending `.gz` or `.zst`
    is passed over.

    Ids that are whole numbers throughout become int64. Text stays as it is, blanks, case and the
    way that an accent is composed included: "a" and " a" are two items. A text file cannot tell
    the number 1 from the text "1". Floats, booleans and dates, which only Parquet and frames have,
    stay what they are; what else has a text (decimals, uint64 beyond int64, date-times with a
    zone) becomes text.

    Times are numbers of seconds since 1970, or ISO date-times, with a zone in all rows or in none;
    without one they are taken as UTC. What is below a microsecond is cut off. Numbers from 1e11 on,
    in seconds the year 5138, are refused: no unit is guessed. So are 20140407 and other columns of
    dates as numbers, and dates such as 04/07/2014.

    An event that is there twice counts twice.

    Args:
        path: the file. Text files have a header line.
        columns: names of the session, item and time columns.
        watch: called as the reading goes on with the rows read so far, and all.

    Returns:
        Sessions in order of first appearance, events by time, equal times by file order.

    Raises:
        InputError: the file is missing, empty, no table or compressed in another way, a column is
            missing, an id is null, a time is none of the above.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, not a file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    parquet = _ending(path) == ".parquet"
    require_readable(path, ("gzip", "Zstandard"))
    try:
        str(path).encode()  # Polars fails in other ways on a path that is not UTF-8
        if parquet:
            try:
                check_parquet(path, columns)
            except ValueError as error:
                raise InputError(f"{path}: not a readable table: {error}") from error
            names = list(pl.read_parquet_schema(path))
            table = pl.scan_parquet(path, glob=False)
        else:
            # All text: types are decided on the whole column.
            options = {**_TEXT_FORMATS[_ending(path)], "infer_schema": False, "glob": False}
            names = pl.read_csv(path, n_rows=0, **options).columns
            table = pl.scan_csv(path, **options)
        _require_columns(names, columns, str(path))
        table = table.select(list(dict.fromkeys(columns)))
        total = table.select(pl.len()).collect().item() if watch else 0
        parts = table.collect_batches(chunk_size=ROWS)
        # The header is line 1 of a text file.
        parts, first_row = (parts, 1) if parquet else (_without_blank_end(parts), 2)
        return from_parts(
            parts, columns, str(path), first_row, watch and (lambda n: watch(n, total))
        )
    # A panic, on a damaged Parquet file, is no Exception in Polars.
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
        UnicodeError,
    ) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a readable table: {why}") from error


def _without_blank_end(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Parts of a table without the rows at its end that are null throughout, blank lines."""
    some, held = False, []
    for part in parts:
        filled = part.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
        end = filled[-1] + 1 if len(filled) else 0
        if end:
            yield from held
            yield part.head(end)
            some, held = True, []
        held.append(part.tail(-end) if end else part)
    if not some:  # then the first is said to be blank
        yield from (part.head(1) for part in held[:1])


_TEXT_FORMATS: dict[str, dict[str, Any]] = {
    ".csv": {"separator": ",", "quote_char": '"'},
    ".tsv": {"separator": "\t", "quote_char": None},
}


_COMPRESSED = (".gz", ".zst")


def _ending(path: Path) -> str:
    """The format that a file's ending stands for: .parquet, .csv or .tsv, as most do."""
    if path.suffix.lower() in _COMPRESSED:
        path = path.with_suffix("")
    ending = path.suffix.lower()
    return ending if ending in (".parquet", ".csv") else ".tsv"


# How compressed files begin.
_BEGINNINGS = {
    "gzip": rb"\x1f\x8b",
    "Zstandard": rb"\x28\xb5\x2f\xfd",
    "bzip2": rb"BZh\d1AY&SY",
    "xz": rb"\xfd7zXZ\x00",
    "zip": rb"PK\x03\x04",
    "7-Zip": rb"7z\xbc\xaf\x27\x1c",
}


def require_readable(path: Path, readable: Sequence[str]) -> str | None:
    """What a file is compressed by, None if it is not.

    Raises:
        InputError: by something else than what is readable.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for name, beginning in _BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL):
            if name not in readable:
                raise InputError(
                    f"{path}: is compressed by {name}, which is not read here; unpack it first"
                )
            return name
    return None


def from_frame(
    frame: Any, columns: Sequence[str] = COLUMNS, name: str = "frame", first_row: int = 0
) -> Sessions:
    """Sessions from a Polars or pandas frame; see `read_table`.

    Args:
        frame: a `polars.DataFrame` or a `pandas.DataFrame`.
        columns: names of the session, item and time columns.
        name: what to call it in an error message. first_row: the number of its first row there.

    Raises:
        InputError: as `read_table`, for a frame.
    """
    if not isinstance(frame, pl.DataFrame):
        if not hasattr(frame, "columns"):
            raise InputError(
                f"{name}: must be a Polars or pandas frame, not {type(frame).__name__}"
            )
        _require_columns(list(frame.columns), columns, name)
        frame = pl.DataFrame({c: _from_pandas(frame[c], name) for c in dict.fromkeys(columns)})
    _require_columns(frame.columns, columns, name)
    return from_parts(frame.iter_slices(ROWS), columns, name, first_row)


def as_sessions(data: Any) -> Sessions:
    """`Sessions` as they are, a frame by `from_frame`."""
    return data if isinstance(data, Sessions) else from_frame(data)


def from_parts(
    parts: Iterable[pl.DataFrame],
    columns: Sequence[str],
    name: str,
    first_row: int,
    watch: Callable[[int], None] | None = None,
) -> Sessions:
    """Sessions from a table that comes in parts; see `from_frame`.

    Of each part only numbers are kept: 16 bytes a row, and its distinct ids.

    Args:
        parts: frames with these columns.
        watch: called after each part with the rows so far.
    """
    session, item, time = columns
    sessions: list[tuple[pl.Series, np.ndarray]] = []
    items: list[tuple[pl.Series, np.ndarray]] = []
    times: list[np.ndarray] = []
    rows, dates = 0, None
    for frame in parts:
        if len(frame) == 0:
            continue
        row = first_row + rows
        frame = _as_text(frame, columns, name)
        for column in columns:
            null = frame[column].is_null()
            if column != time and frame[column].dtype.is_float():
                null |= frame[column].is_nan()
            if null.any():
                raise InputError(
                    f"{name}, row {row + null.arg_max()}, column {column}: the value is missing; "
                    "every event needs one"
                )
        for column in columns:
            dtype = frame[column].dtype
            wrong = (pl.Boolean,) if column == time and column not in (session, item) else ()
            if dtype.is_nested() or dtype in (pl.Time, pl.Duration, pl.Object, *wrong):
                raise InputError(
                    f"{name}, column {column}: values of type {dtype} are neither ids nor times"
                )
        sessions.append(_index(_whole_numbers(frame[session])))
        items.append(_index(_whole_numbers(frame[item])))
        if dates is None:
            dates = _are_dates(frame[time])
        times.append(_seconds(frame[time], dates, name, row))
        rows += len(frame)
        if watch:
            watch(rows)
    if rows == 0:
        raise InputError(f"{name}: the table has no rows")
    session_ids, session_index = _joined(sessions)
    item_ids, item_index = _joined(items)
    seconds = np.concatenate(times)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(session_index))])
    ahead = np.diff(session_index)
    if (ahead < 0).any() or ((ahead == 0) & (np.diff(seconds) < 0)).any():
        order = np.lexsort((seconds, session_index))  # stable: equal times stay in file order
        item_index, seconds = item_index[order], seconds[order]
    return Sessions(item_index, offsets, seconds, item_ids, session_ids)


def _as_text(frame: pl.DataFrame, columns: Sequence[str], name: str) -> pl.DataFrame:
    """Columns of categories or bytes as text."""
    for column in dict.fromkeys(columns):
        if frame[column].dtype in (pl.Categorical, pl.Enum, pl.Binary):
            try:
                frame = frame.with_columns(frame[column].cast(pl.String))
            except pl.exceptions.PolarsError:
                raise InputError(f"{name}, column {column}: bytes that are no UTF-8") from None
    return frame


def _from_pandas(column: Any, name: str) -> pl.Series:
    """A pandas column without pyarrow: NaN and None become null."""
    values = column.to_numpy()
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    if values.dtype != object:
        return pl.Series(values, nan_to_null=True)
    missing = column.isna().to_numpy()
    types = {type(v.item() if isinstance(v, np.generic) else v) for v in values[~missing]}
    if len(types) > 1:
        raise InputError(f"{name}, column {column.name}: values of more than one type")
    try:
        return pl.Series([None if m else v for v, m in zip(values, missing, strict=True)])
    except (TypeError, pl.exceptions.PolarsError):
        raise InputError(f"{name}, column {column.name}: values of more than one type") from None


def _require_columns(found: Sequence[str], wanted: Sequence[str], name: str) -> None:
    for column in wanted:
        if column not in found:
            has = ", ".join(map(repr, found))
            has = has if len(has) <= 200 else has[:200] + " ..."
            raise InputError(f"{name}: no column {column!r}; it has {has}")


def _whole_numbers(column: pl.Series) -> pl.Series:
    """Ids as Int64 if all are whole numbers, as they are if NumPy has their type, or as text."""
    dtype = column.dtype
    if dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        return column.cast(pl.Int64)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        return column.cast(pl.Datetime("us"))  # beyond which Python's own have no digits
    if dtype in (pl.Float32, pl.Float64, pl.Boolean, pl.Date):
        return column
    column = column.cast(pl.String)
    as_int = column.cast(pl.Int64, strict=False)
    # "007" and " 7" are not the number 7: an id is a number only if it prints as it was.
    return as_int if (as_int.cast(pl.String) == column).fill_null(False).all() else column


def _index(column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Distinct ids in order of first appearance, and each row's index among them, int32."""
    column = column.rename("id")
    ids = column.unique(maintain_order=True)
    index = pl.DataFrame([ids]).with_row_index("index")
    rows = column.to_frame().join(index, on="id", how="left", maintain_order="left")
    return ids, rows["index"].to_numpy().astype(np.int32)


def _joined(parts: list[tuple[pl.Series, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ids and each row's index among them, from those of the column's parts."""
    ids = [ids for ids, _ in parts]
    if any(part.dtype == pl.String for part in ids):  # a number's text is what it was read from
        ids = [part.cast(pl.String) for part in ids]
    distinct, index = _index(pl.concat(ids))
    firsts = np.cumsum([0, *map(len, ids)])
    rows = [index[first:][of_part] for first, (_, of_part) in zip(firsts, parts, strict=False)]
    return distinct.to_numpy(writable=True), np.concatenate(rows)


def _are_dates(column: pl.Series) -> bool:
    """Whether times are text of which nothing is a number."""
    return column.dtype == pl.String and column.cast(pl.Float64, strict=False).is_null().all()


def _seconds(column: pl.Series, dates: bool, name: str, first_row: int) -> np.ndarray:
    """Times in seconds since 1970, float64. dates: whether text is to be ISO date-times."""
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).dt.epoch("us").to_numpy() / 1e6
    if dates:
        read = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        # NumPy divides, where Polars multiplies with 1e-6 and so rounds twice.
        seconds = pl.Series(column.name, read.dt.epoch("us").to_numpy() / 1e6, nan_to_null=True)
        # Polars also takes 04/07/2014, and decides which of the two is the month.
        bad = seconds.is_null() | ~column.str.contains(r"^\d{4}")
    else:
        seconds = column.cast(pl.Float64, strict=False)
        bad = seconds.is_null() | ~seconds.is_finite()
    if bad.any():
        row = bad.arg_max()
        raise InputError(
            f"{name}, row {first_row + row}, column {column.name}: {str(column[row])[:60]!r} is "
            "no time; a number of seconds since 1970 or an ISO date-time is expected, in all rows "
            "alike"
        )
    times = seconds.to_numpy()
    if not dates:
        _refuse_other_units(times, name, first_row, column.name)
    return times


TOO_LATE = 1e11  # seconds, in the year 5138; milliseconds pass it in 1973


def _refuse_other_units(times: np.ndarray, name: str, first_row: int, column: str) -> None:
    """Raise InputError for numbers that can hardly be seconds."""
    late = np.abs(times) >= TOO_LATE
    if late.any():
        row = int(late.argmax())
        raise InputError(
            f"{name}, row {first_row + row}, column {column}: {times[row]:.0f} is too large for "
            "seconds since 1970; divide milliseconds by 1000 first, microseconds by 1,000,000"
        )
    months, days = times // 100 % 100, times % 100
    like_dates = (times >= 1900_01_01) & (times < 2100_01_01) & (months >= 1) & (months <= 12)
    if (like_dates & (days >= 1) & (days <= 31) & (times % 1 == 0)).all():
        raise InputError(
            f"{name}, row {first_row}, column {column}: {times[0]:.0f} looks like a date, not like "
            "seconds since 1970; write it as 2014-04-07"
        )


def _readable_text(ids: np.ndarray) -> np.ndarray:
    """Ids as text files hold them: what is no whole number by the text that `index_of` goes by."""
    return ids if ids.dtype == np.int64 else np.array([str(i) for i in ids.tolist()], object)


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
    ending = _ending(Path(path))
    if Path(path).suffix.lower() in _COMPRESSED:
        raise InputError(f"{path}: compressed files are not written, only read")
    session_ids, item_ids = sessions.session_ids, sessions.item_ids
    if ending != ".parquet":
        session_ids, item_ids = _readable_text(session_ids), _readable_text(item_ids)
    if ending == ".tsv":
        for ids in (session_ids, item_ids):
            for text in ids.tolist() if ids.dtype == object else ():
                if not text or not {"\t", "\n", "\r"}.isdisjoint(text):
                    raise InputError(
                        f"{path}: the id {text[:60]!r} is empty or has a tab or a line break, "
                        "which a tab-separated file cannot hold; write .csv or .parquet"
                    )
    frame = pl.DataFrame(
        {
            "SessionId": np.repeat(session_ids, sessions.lengths),
            "ItemId": item_ids[sessions.items],
            "Time": sessions.times,
        }
    )

    def save(part: Path) -> None:
        if ending == ".parquet":
            try:
                frame.write_parquet(part)
            except pl.exceptions.PolarsError as error:  # a full disk is no OSError there
                raise OSError(None, str(error).splitlines()[0], str(path)) from error
        else:
            options = {"quote_style": "never"} if ending == ".tsv" else {}
            frame.write_csv(part, separator=_TEXT_FORMATS[ending]["separator"], **options)

    write_whole(path, save)
