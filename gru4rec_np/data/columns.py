"""Columns of session ids, item ids and times as numbers.

Knows no files and no sessions.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from gru4rec_np.errors import InputError

# Of times that are numbers, in a second.
TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
TOO_LATE = 1e11  # seconds, in the year 5138; milliseconds pass it in 1973
Numbers = Sequence[int] | np.ndarray  # of a table's rows, for messages


def require_values(
    frame: pl.DataFrame,
    columns: Sequence[str],
    time: str,
    name: str,
    numbers: Numbers,
) -> None:
    """Raise InputError for values that are missing or of a type that is neither id nor time."""
    for column in columns:
        null = frame[column].is_null()
        if column != time and frame[column].dtype.is_float():
            null |= frame[column].is_nan()
        if null.any():
            raise InputError(
                f"{name}, row {numbers[_first(null)]}, column {column}: the value is missing; "
                "every event needs one"
            )
    for column in columns:
        dtype = frame[column].dtype
        if column != time and dtype == pl.Datetime("ns"):  # read as microseconds
            cut = frame[column].dt.nanosecond() % 1_000 != 0
            if cut.any():
                row = _first(cut)
                raise InputError(
                    f"{name}, row {numbers[row]}, column {column}: "
                    f"{frame[column].cast(pl.String)[row]} is not whole microseconds, as an id "
                    "must be"
                )
        wrong = (pl.Boolean,) if column == time and columns.count(column) == 1 else ()
        if dtype.is_nested() or dtype in (pl.Time, pl.Duration, pl.Object, *wrong):
            raise InputError(
                f"{name}, column {column}: values of type {dtype} are neither ids nor times"
            )


def require_one_type(ids: pl.Series, others: pl.Series, where: str) -> None:
    """Raise InputError for ids that would not be compared with those of another part."""
    if ids.dtype != others.dtype and not {ids.dtype, others.dtype} <= {pl.Int64, pl.String}:
        raise InputError(
            f"{where}: values of type {ids.dtype}, but of type {others.dtype} in the file before"
        )


def _first(mask: pl.Series) -> int:
    """The place of the first True."""
    return int(mask.to_numpy().argmax())


def as_text(frame: pl.DataFrame, columns: Sequence[str], name: str) -> pl.DataFrame:
    """Columns of categories, bytes or UUIDs as text."""
    for column in dict.fromkeys(columns):
        series = frame[column]
        if series.dtype in (pl.Categorical, pl.Enum, pl.Binary):
            try:
                frame = frame.with_columns(series.cast(pl.String))
            except pl.exceptions.PolarsError:
                raise InputError(f"{name}, column {column}: bytes that are not UTF-8") from None
        elif series.dtype == pl.Object:
            values = [None if value is None else plain(value) for value in series.to_list()]
            if all(value is None or isinstance(value, str) for value in values):
                frame = frame.with_columns(pl.Series(column, values, pl.String))
    return frame


def id_column(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Ids of one column, or of several as text with commas between the values."""
    if len(columns) == 1:
        return _whole_numbers(frame[columns[0]])
    # Commas within a value are marked, so that no two combinations have the same text.
    values = [
        pl.col(column)
        .cast(pl.String)
        .str.replace_all("\\", "\\\\", literal=True)
        .str.replace_all(",", "\\,", literal=True)
        for column in columns
    ]
    return frame.select(pl.concat_str(values, separator=",")).to_series()


# --- ids ----------------------------------------------------------------------------------------


def plain(item: Any) -> Any:
    """An id, a UUID as its text."""
    return str(item) if isinstance(item, uuid.UUID) else item


def from_pandas(column: Any, name: str) -> pl.Series:
    """A pandas column without pyarrow: NaN and None become null."""
    values = column.to_numpy()
    if values.dtype.kind == "M" and values.dtype != np.dtype("datetime64[ns]"):
        values = values.astype("datetime64[us]")
    if values.dtype != object:
        return pl.Series(values, nan_to_null=True)
    missing = column.isna().to_numpy()
    values = np.array([plain(value) for value in values], object)
    types = {type(v.item() if isinstance(v, np.generic) else v) for v in values[~missing]}
    if len(types) > 1:
        raise InputError(f"{name}, column {column.name}: values of more than one type")
    try:
        return pl.Series([None if m else v for v, m in zip(values, missing, strict=True)])
    except (TypeError, pl.exceptions.PolarsError):
        raise InputError(f"{name}, column {column.name}: values of more than one type") from None


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


def distinct(column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Distinct ids in order of first appearance, and each row's index among them, int32."""
    column = column.rename("id")
    ids = column.unique(maintain_order=True)
    index = pl.DataFrame([ids]).with_row_index("index")
    rows = column.to_frame().join(index, on="id", how="left", maintain_order="left")
    return ids, rows["index"].to_numpy().astype(np.int32)


def join_parts(parts: list[tuple[pl.Series, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ids and each row's index among them, from those of the column's parts."""
    ids = [ids for ids, _ in parts]
    if any(part.dtype == pl.String for part in ids):  # a number's text is what it was read from
        ids = [part.cast(pl.String) for part in ids]
    whole, index = distinct(pl.concat(ids))
    firsts = np.cumsum([0, *map(len, ids)])
    rows = [index[first:][of_part] for first, (_, of_part) in zip(firsts, parts, strict=False)]
    return whole.to_numpy(writable=True), np.concatenate(rows)


# --- times --------------------------------------------------------------------------------------

# A zone at the end of a date-time, and what Polars reads no zone from.
ZONE = r"(?:Z|UTC|GMT|[+-]\d\d:?\d\d)$"
NAMED_ZONE, BLANK_BEFORE_ZONE = r"\s*(?:UTC|GMT)$", r"\s+([+-]\d\d:?\d\d|Z)$"


def time_kind(column: pl.Series) -> str:
    """Whether times are numbers, date-times, or date-times with a zone, as the first one is."""
    if column.dtype != pl.String or column.head(1).cast(pl.Float64, strict=False).is_finite()[0]:
        return "numbers"
    return "zoned" if column.head(1).str.contains(ZONE)[0] else "dates"


def to_seconds(column: pl.Series, kind: str, unit: str, name: str, numbers: Numbers) -> np.ndarray:
    """Times in seconds since 1970, float64.

    Args:
        kind: what text is to be, see `time_kind`. unit: of numbers. numbers: of the rows.
    """
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).dt.epoch("us").to_numpy() / 1e6
    if kind == "numbers":
        values = column.cast(pl.Float64, strict=False)
        bad = values.is_null() | ~values.is_finite()
        seconds = values.to_numpy() / TIME_UNITS[unit]
        whole = column.cast(pl.Int64, strict=False) if unit == "ns" else None
        if whole is not None and whole.is_not_null().all():  # more digits than a float has
            seconds = (whole // 1_000).to_numpy() / TIME_UNITS["us"]
    else:
        text = column
        if text.str.contains(rf"{NAMED_ZONE}|{BLANK_BEFORE_ZONE}").any():
            text = text.str.replace(NAMED_ZONE, "Z").str.replace(BLANK_BEFORE_ZONE, "$1")
        read = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        # NumPy divides, where Polars multiplies with 1e-6 and so rounds twice.
        seconds = read.dt.epoch("us").to_numpy() / 1e6
        # Polars also takes 04/07/2014, and decides which of the two is the month.
        bad = read.is_null() | ~text.str.contains(r"^\d{4}")
        if not bad[0]:  # Polars compares the rows after it with it
            bad[0] = column.head(1).str.contains(ZONE)[0] != (kind == "zoned")
    if bad.any():
        row = _first(bad)
        raise InputError(
            f"{name}, row {numbers[row]}, column {column.name}: {str(column[row])[:60]!r} is "
            f"no time; a number ({unit} since 1970) or an ISO date-time like "
            "2014-04-07T10:51:09.277Z is expected, in all rows alike"
        )
    if kind == "numbers":
        _refuse_other_units(values.to_numpy(), column, unit, name, numbers)
    return seconds


def _refuse_other_units(
    times: np.ndarray, column: pl.Series, unit: str, name: str, numbers: Numbers
) -> None:
    """Raise InputError for numbers that can hardly be of this unit. times: those of the column."""
    dates = times // 1_000_000 if (times >= 1e13).all() else times  # 20140407105109
    months, days = dates // 100 % 100, dates % 100
    like_dates = (dates >= 1900_01_01) & (dates < 2100_01_01) & (months >= 1) & (months <= 12)
    if (like_dates & (days >= 1) & (days <= 31) & (times % 1 == 0)).all():
        raise InputError(
            f"{name}, row {numbers[0]}, column {column.name}: {column[0]} looks like a date, not "
            f"like {unit} since 1970; write it as 2014-04-07 or 2014-04-07 10:51:09"
        )
    late = np.abs(times / TIME_UNITS[unit]) >= TOO_LATE
    if late.any():
        row = int(late.argmax())
        # The times of today are too large for each unit but their own.
        better = next((u for u, n in TIME_UNITS.items() if abs(times[row]) / n < TOO_LATE), "ns")
        raise InputError(
            f"{name}, row {numbers[row]}, column {column.name}: {str(column[row])[:60]} is "
            f"too large for {unit} since 1970; is it {better}? Then give --time-unit {better} "
            f"(time_unit={better!r})"
        )
