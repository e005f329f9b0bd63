"""A look at a Parquet file's counts before Polars, which trusts them: a wrong one ends the process.

One changed byte can make a page of -5 values, for which Polars asks for more memory than there is
and aborts. Imports nothing of ours.

Source: the Apache Parquet format's parquet.thrift, and Thrift's compact protocol.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any

DEEPEST = 32  # structs within structs

# Thrift's types.
TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12


def check(path: str | Path, columns: Collection[str]) -> None:
    """Compare the numbers of values that a file declares for these columns with one another.

    Of a flat column every group of rows has as many values as rows, and its pages have them
    together; other columns are left to Polars. Only headers are read.

    Raises:
        ValueError: the file is cut short or its numbers do not agree.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(data, columns)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"a damaged Parquet file ({error!s:.80})") from error


def _check(data: mmap.mmap, columns: Collection[str]) -> None:
    size = len(data)
    footer = size - 8 - int.from_bytes(data[size - 8 : size - 4], "little")
    if size < 12 or data[size - 4 :] != b"PAR1" or footer < 4:
        raise ValueError("its end is none")
    about, _ = _read(data, footer, STRUCT)
    rows = [group[3] for group in about[4]]
    if min(rows, default=0) < 0 or sum(rows) != about[3]:
        raise ValueError(f"its parts have {sum(rows)} rows, it {about[3]}")
    for group in about[4]:
        for chunk in (column[3] for column in group[1]):
            path = [name.decode() for name in chunk[3]]
            if len(path) > 1 or path[0] not in columns:
                continue
            found, at = 0, min(chunk[9], chunk.get(11) or chunk[9])
            end = at + chunk[7]
            if not 0 < at <= end <= footer:
                raise ValueError(f"column {path[0]!r} lies outside of it")
            while at < end:
                page, at = _read(data, at, STRUCT)
                values = page.get(5) or page.get(8) or page.get(7) or {1: 0}
                at += page[3]
                if page[2] < 0 or page[3] < 0 or at > end or not 0 <= values[1] <= group[3]:
                    raise ValueError(f"a page of column {path[0]!r} is of no size")
                found += 0 if 7 in page else values[1]  # those of a dictionary are none
            if not found == chunk[5] == group[3]:
                raise ValueError(f"column {path[0]!r} has {found} values in {group[3]} rows")


def _read(data: mmap.mmap, at: int, kind: int, depth: int = 0) -> tuple[Any, int]:
    """A value in Thrift's compact protocol, a struct as a dict by field number, and where it ends.

    Raises:
        ValueError, LookupError: it is none.
    """
    if depth > DEEPEST:
        raise ValueError("too deep")
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if BYTE < kind <= I64:
        n, at = _varint(data, at)
        return (n >> 1) ^ -(n & 1), at
    if kind == DOUBLE:
        return None, at + 8
    if kind == BINARY:
        n, at = _varint(data, at)
        if n > len(data) - at:
            raise ValueError("cut short")
        return data[at : at + n], at + n
    if kind in (LIST, SET):
        n, of = divmod(data[at], 16)
        at += 1
        if n == 15:
            n, at = _varint(data, at)
        values = []
        for _ in range(n):  # each takes a byte or more
            value, at = _read(data, at, BYTE if of in (TRUE, FALSE) else of, depth + 1)
            values.append(value)
        return values, at
    if kind == MAP:
        raise ValueError("a map, of which the format has none")
    if kind != STRUCT:
        raise ValueError(f"type {kind}")
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        step, of = divmod(data[at], 16)
        at += 1
        if not step:
            zigzag, at = _varint(data, at)
            number, step = 0, (zigzag >> 1) ^ -(zigzag & 1)
        number += step
        fields[number], at = _read(data, at, of, depth + 1)
    return fields, at + 1


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    n = 0
    for shift in range(0, 70, 7):
        n |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return n, at
    raise ValueError("a number of more than 64 bits")
