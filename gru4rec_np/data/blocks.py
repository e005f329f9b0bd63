"""Files as blocks of whole lines: what can be read, and what it is compressed by."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import polars as pl

from gru4rec_np.errors import InputError

BLOCK = 1 << 24  # bytes read at a time

# How compressed files begin.
_BEGINNINGS = {
    "gzip": rb"\x1f\x8b",
    "Zstandard": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",  # or a frame to be skipped
    "bzip2": rb"BZh\d1AY&SY",
    "xz": rb"\xfd7zXZ\x00",
    "zip": rb"PK\x03\x04",
    "7-Zip": rb"7z\xbc\xaf\x27\x1c",
}


def require_file(path: Path) -> None:
    """Raise InputError for a path that cannot be read as a file. Pipes can be."""
    if path.is_dir():
        raise InputError(f"{path}: is a directory, not a file")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a link to {path.readlink()}, which does not exist")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    try:
        str(path).encode()  # Polars fails in other ways, and no TOML file can name it
    except UnicodeEncodeError:
        raise InputError(f"{path}: not a readable table: the path is not UTF-8") from None


def require_no_pipe(path: Path) -> None:
    """Raise InputError for a path, see `require_file`, that is read more than once."""
    if not path.is_file():
        raise InputError(f"{path}: must be a file that can be read twice, not a pipe")


def require_readable(path: Path, readable: Sequence[str]) -> None:
    """Raise InputError for a file that cannot be read, or whose compression is not `readable`."""
    with _opened(path) as file:
        _compression(path, file.read(16), readable)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _compression(path: Path, head: bytes, readable: Sequence[str]) -> str | None:
    """What a file that begins like this is compressed by, None if it is not."""
    for name, beginning in _BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL):
            if name not in readable:
                if name == "zip" and _is_workbook(path):
                    raise InputError(f"{path}: is an Excel workbook; save its sheet as CSV")
                raise InputError(
                    f"{path}: is compressed by {name}, which is not read here; unpack it first"
                )
            return name
    return None


def _is_workbook(path: Path) -> bool:
    """Whether a zip file is an Excel workbook."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.startswith("xl/") for name in file.namelist())
    except (OSError, zipfile.BadZipFile):  # of a pipe, too
        return False


def blocks(path: Path, watch: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """A text file as blocks of whole lines, without a byte-order mark.

    It may be compressed by gzip or Zstandard, and it may be a pipe.

    Args:
        watch: called with the bytes of the file read so far when the next block is asked for.

    Raises:
        InputError: the file is missing, empty, damaged, or compressed in another way.
    """
    require_file(path)
    line = 0
    try:
        with _opened(path) as file:
            for block in whole_lines(path, file, BLOCK):
                yield block
                line += block.count(b"\n")
                if watch:
                    watch(file.tell() if file.seekable() else 0)
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a readable table: after line {line}: {why}") from error


def whole_lines(path: Path, file: IO[bytes], size: int) -> Iterator[bytes]:
    """A file, open for reading, as blocks of whole lines of about `size` bytes; see `blocks`."""
    parts = _unpacked(path, file, size)
    first = next(parts, b"")
    if not first:
        raise InputError(f"{path}: the file is empty")
    if other := _other_encoding(first):
        raise InputError(f"{path}: is {other}; a text file must be UTF-8")
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from parts


def _other_encoding(text: bytes) -> str | None:
    """UTF-32 or UTF-16, by a byte-order mark or by the zeros in ASCII's characters."""
    head = text[:64]
    for name, width, marks in (
        ("UTF-32", 4, (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("UTF-16", 2, (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    ):
        places = [set(head[place::width]) for place in range(width)]
        other = [place for place in places if place != {0}]
        zeros = len(head) >= 16 and len(other) == 1 and 0 not in other[0]
        if head.startswith(marks) or zeros:
            return name
    return None


def _unpacked(path: Path, file: IO[bytes], size: int) -> Iterator[bytes]:
    """The bytes of a file that may be compressed, see `whole_lines`."""
    assert isinstance(file, io.BufferedReader)
    head = file.peek(16)
    if head.startswith(b"PAR1"):
        raise InputError(f"{path}: is a Parquet file; such a file's name must end in .parquet")
    kind = _compression(path, head, ("gzip", "Zstandard"))
    if kind == "Zstandard":
        # Python's own comes with 3.14. Polars gives a line as one value of a table of one column;
        # it removes a carriage return before each line feed.
        source: Path | io.BytesIO = path
        while file.peek(4).startswith(b"\x2a\x4d\x18", 1):  # frames to skip; Polars would not
            file.read(int.from_bytes(file.read(8)[4:], "little"))
        if file.tell() or not path.is_file():
            source = io.BytesIO(file.read())
        table = pl.scan_csv(
            source,
            has_header=False,
            separator="\x1f",  # "unit separator": not in text
            quote_char=None,
            infer_schema=False,
        )
        try:
            for part in table.collect_batches(chunk_size=size // 64):
                if part.width > 1:
                    raise InputError(
                        f"{path}: has the control character 0x1f; unpack the file first"
                    )
                lines = part.to_series().fill_null("").to_list()
                yield "".join(f"{line}\n" for line in lines).encode()
        except pl.exceptions.ComputeError as error:
            if "utf" not in str(error).lower():
                raise
            why = "has bytes that are not UTF-8; unpack the file first, then the row is named"
            raise InputError(f"{path}: {why}") from None
        return
    text = gzip.GzipFile(fileobj=file) if kind == "gzip" else file
    while block := text.read(size):
        yield block if block.endswith(b"\n") else block + text.readline()


COMPRESSED = (".gz", ".zst")


def ending(path: Path) -> str:
    """The format that a file's ending stands for: .parquet, .csv or .tsv, as most do."""
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    found = path.suffix.lower()
    return found if found in (".parquet", ".csv") else ".tsv"
