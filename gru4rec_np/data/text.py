"""Text files as columns of text, with every row accounted for.

Python's csv module, strict, defines what a file holds. A block of lines goes to Polars instead if
NumPy has shown that both must read the same rows: Polars' own scan loses rows around a stray
quotation mark (its issues #21519 and #22395). Knows no sessions.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from gru4rec_np.data.blocks import blocks, ending
from gru4rec_np.data.headers import Columns, how_to_name, keys_of, names_of, spelling
from gru4rec_np.errors import InputError

SEPARATORS = {"\t": "tabs", ",": "','", ";": "';'", " ": "blanks", "|": "'|'"}
QUOTE = '"'
LF, CR = b"\n\r"
LONE_RETURN = "a carriage return without a line feed; lines end in LF or CRLF"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what other bytes are decoded to
Watch = Callable[[int, int], None]  # called with how much of a file is read, and of how much


class Part(NamedTuple):
    """Consecutive rows of a table, the table's name, and the number of the first row there."""

    frame: pl.DataFrame
    name: str
    first_row: int


class Format(NamedTuple):
    """How the lines of a text file are cut.

    Attributes:
        separator: one ASCII character. quoted: whether values may stand in quotation marks.
        names: all columns. wanted: those that are read.
    """

    separator: str
    quoted: bool
    names: list[str]
    wanted: list[str]


# --- tables ---------------------------------------------------------------------------------------


def read_text(
    path: Path,
    columns: Columns,
    separator: str | None = None,
    watch: Callable[[int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Part]:
    """Columns of a separated file with a header line, as text, null where nothing stands.

    Rows are what Python's csv module reads. Tabs and blanks separate values without quotation
    marks, other separators values that may be quoted; so may all be in a file named .csv.

    Args:
        path: a file of lines that end in LF or CRLF, see `blocks`.
        columns: those to read, see `keys_of`.
        separator: one character. None takes the first that makes the header have these columns:
            the comma for .csv and the tab for others, then tab, comma, semicolon, blank and bar.
        watch: as in `blocks`.
        tell: called with a sentence if another separator is taken than the ending stands for.

    Yields:
        Parts of which each row is counted from 1, the header.

    Raises:
        InputError: a column is missing, a row has more or fewer values than the header, or it
            cannot be read for another reason; it names the row.
    """
    form, rest, line, row, blank = None, b"", 1, 2, 0
    pieces = blocks(path, watch)
    following = next(pieces, None)
    while following is not None:
        block, following = following, next(pieces, None)
        text, last = rest + block, following is None
        if last and not text.endswith(b"\n"):
            text += b"\n"
        if form is None:
            form, used = _header(path, text, columns, separator)
            if tell and separator is None and form.separator != _usual_separator(path):
                tell(f"{path}: the columns are separated by {SEPARATORS[form.separator]}")
            line += text.count(b"\n", 0, used)
            text = text[used:]
        frame, blanks, used = _read_fast(text, form, last) or _read_exactly(
            text, form, last, path, row, line
        )
        if len(frame):
            if blank:
                wanted = len(form.names)
                raise InputError(f"{path}, row {blank}: no columns where {wanted} are expected")
            yield Part(frame, str(path), row)
        if blanks and not blank:
            blank = row + len(frame)
        row += len(frame) + blanks
        rest, line = text[used:], line + text.count(b"\n", 0, used)
    assert not rest


def _usual_separator(path: Path) -> str:
    return "," if ending(path) == ".csv" else "\t"


def _header(path: Path, text: bytes, columns: Columns, separator: str | None) -> tuple[Format, int]:
    """The format that a table's first row shows, and the length of that row in bytes."""
    if separator is not None and (
        len(separator) != 1 or not separator.isascii() or separator in '"\n\r\0'
    ):
        raise InputError(
            f"separator: must be one ASCII character other than a quotation mark or a line break, "
            f"not {separator!r}"
        )
    faults: list[tuple[tuple[float, ...], str]] = []
    for mark in [separator] if separator else [_usual_separator(path), *SEPARATORS]:
        quoted = mark not in "\t " or ending(path) == ".csv"
        lines = (line.decode(errors="surrogateescape") for line in io.BytesIO(text))
        reader = csv.reader(lines, **_dialect(mark, quoted))
        names: list[str] = []
        try:
            names = next(reader)
            keys = keys_of(columns, names, str(path))
        except csv.Error as error:
            fault = f"{path}, row 1: {_words(error)}"
        except InputError as error:
            fault = f"{error}, separated by {SEPARATORS.get(mark, repr(mark))}"
            if not quoted and names and names[0].startswith(QUOTE):
                fault += "; quotation marks are a part of a name here, but not in a file named .csv"
            else:
                line = text.partition(b"\n")[0].decode(errors="replace")
                fault += how_to_name(columns, names, line)
            if not names:
                fault = f"{path}, row 1: a blank line where names of columns are expected"
        else:
            wanted = list(dict.fromkeys(name for key in keys for name in key))
            used = len(text) - len(text.split(b"\n", reader.line_num)[-1])
            return Format(mark, quoted, names, wanted), used
        known = set(map(spelling, names))
        found = sum(spelling(part) in known for key in names_of(columns, names) for part in key)
        # A blank also stands between the words of a name.
        faults.append(((found, len(names) > 1, mark != " ", len(names)), fault))
    raise InputError(max(faults, key=lambda fault: fault[0])[1])


def _read_fast(text: bytes, form: Format, last: bool) -> tuple[pl.DataFrame, int, int] | None:
    """As `_read_exactly` by Polars; None unless each row is seen to be cut in only one way."""
    head = form.separator.join(map(str, range(len(form.names)))) + "\n"
    text = head.encode() + text
    data = np.frombuffer(text, np.uint8)
    ends, marks = np.flatnonzero(data == LF), np.flatnonzero(data == ord(form.separator))
    returns = np.flatnonzero(data == CR) if b"\r" in text else ends[:0]
    quoted = form.quoted and b'"' in text
    if quoted:
        quotes = np.flatnonzero(data == ord(QUOTE))
        # Every second mark opens a value or, after another mark, stands for itself.
        before, after = data[quotes[::2] - 1], data[quotes[1::2] + 1]
        bounds = [LF, ord(form.separator), ord(QUOTE)]
        if not (_all_in(before, bounds) and _all_in(after, [*bounds, CR])):
            return None
        ends, marks, returns = (
            at[np.searchsorted(quotes, at) % 2 == 0] for at in (ends, marks, returns)
        )
    if last and ends[-1] + 1 < len(data):  # a value that does not end
        return None
    if np.diff(ends).max(initial=0) > csv.field_size_limit():  # a value may be too long
        return None
    if len(returns) and not (data[returns + 1] == LF).all():
        return None
    marks = marks[: np.searchsorted(marks, ends[-1])]
    width, n_rows = len(form.names), len(ends) - 1
    if width < 2 or n_rows < 1 or len(marks) != len(ends) * (width - 1):
        return None
    of_rows = marks.reshape(len(ends), width - 1)
    if (of_rows[:, -1] > ends).any() or (of_rows[1:, 0] < ends[:-1]).any():
        return None
    try:
        frame = pl.read_csv(
            text[: ends[-1] + 1],
            separator=form.separator,
            quote_char=QUOTE if quoted else None,
            columns=[str(form.names.index(name)) for name in form.wanted],
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:  # bytes that are not UTF-8: the other way names the row
        return None
    if len(frame) != n_rows:
        return None
    frame = frame.select(pl.col(str(form.names.index(name))).alias(name) for name in form.wanted)
    return frame, 0, int(ends[-1]) + 1 - len(head)


def _all_in(values: np.ndarray, allowed: list[int]) -> bool:
    return bool(np.logical_or.reduce([values == value for value in allowed]).all())


def _dialect(separator: str, quoted: bool) -> dict[str, Any]:
    marks = {"quotechar": QUOTE} if quoted else {"quoting": csv.QUOTE_NONE}
    return {"delimiter": separator, "strict": True, **marks}


def _words(error: csv.Error) -> str:
    """What is wrong with a row, in words that say what is expected."""
    for part, words in {
        "end of data": "a quotation mark opens a value that does not end",
        "expected after": "text after the quotation mark that ends a value; a mark within a value "
        "is written twice",
        "new-line": LONE_RETURN,
        "field limit": f"a value of more than {csv.field_size_limit():,} characters, or a "
        "quotation mark that does not close",
    }.items():
        if part in str(error):
            return words
    return str(error)


def _read_exactly(
    text: bytes, form: Format, last: bool, path: Path, first_row: int, first_line: int
) -> tuple[pl.DataFrame, int, int]:
    """The wanted columns of the rows that a piece of a table holds in full, by the csv module.

    Args:
        last: whether nothing follows. path, first_row, first_line: where the piece begins.

    Returns:
        a frame, the number of blank lines after it, and the length of both in bytes.

    Raises:
        InputError: a row does not have the header's columns, or cannot be read.
    """
    lines = text.decode(errors="surrogateescape")

    def reader(lines: str) -> Any:
        return csv.reader(io.StringIO(lines, newline="\n"), **_dialect(form.separator, form.quoted))

    def fault(row: int, what: str) -> InputError:
        again = reader(lines)
        for _ in range(row):
            next(again)
        found = lines.split("\n", again.line_num + 1)[again.line_num].rstrip("\r")[:60]
        found = found.encode(errors="surrogateescape").decode(errors="replace")
        where, at_line = f"{path}, row {first_row + row}", first_line + again.line_num
        if first_row + row != at_line:  # a value above has line breaks
            where += f", line {at_line}"
        return InputError(f"{where}: {what}: {found!r}")

    rows, read, used = [], reader(lines), 0
    try:
        for fields in read:
            rows.append(fields)
            used = read.line_num
    except csv.Error as error:
        if last or read.line_num < text.count(b"\n"):  # else the row goes on in the next piece
            raise fault(len(rows), _words(error)) from None
    n_rows = len(rows)
    while n_rows and not rows[n_rows - 1]:
        n_rows -= 1
    width, not_utf8 = len(form.names), _NOT_UTF8.search(lines)
    for row in range(n_rows):
        if len(rows[row]) != width:
            what = f"{len(rows[row]) or 'no'} columns"
            wanted = form.separator.join(form.names)[:200]
            raise fault(row, f"{what} where {width} are expected, {wanted!r}")
    columns: dict[str, list[str | None]] = {}
    for name in form.wanted:
        place = form.names.index(name)
        values: list[str | None] = [fields[place] for fields in rows[:n_rows]]
        if "" in values:
            quoted = _are_quoted(reader(lines.replace('""', '""""')), place, n_rows)
            values = [value if value or is_quoted else None
                      for value, is_quoted in zip(values, quoted, strict=True)]  # fmt: skip
        if not_utf8:
            for row, value in enumerate(values):
                if value and (bad := _NOT_UTF8.search(value)):
                    byte = ord(bad[0]) - 0xDC00
                    raise fault(row, f"column {name} has the byte {byte:#x}, which is not UTF-8")
        columns[name] = values
    frame = pl.DataFrame(columns, schema=dict.fromkeys(form.wanted, pl.String))
    rest = len(text.split(b"\n", used)[-1])
    return frame, len(rows) - n_rows, len(text) - rest


def _are_quoted(doubled: Iterator[list[str]], place: int, n_rows: int) -> list[bool]:
    """Which empty values of a column are written as "", and so are not missing.

    Args:
        doubled: the rows, each pair of quotation marks twice. They are cut as before, but an empty
            value in marks has become a mark.
    """
    quoted = [False] * n_rows
    with contextlib.suppress(csv.Error):  # a value that is now too long; none after it is a value
        for row in range(n_rows):
            quoted[row] = next(doubled)[place] != ""
    return quoted


# --- a session a line -----------------------------------------------------------------------------


def read_lists(
    path: Path,
    names: Sequence[str],
    separator: str | None = None,
    watch: Callable[[int], None] | None = None,
    first: int = 0,
) -> Iterator[Part]:
    """A file with the items of one session on each line, as columns of sessions, items and times.

    Sessions and times are those of `Sessions.from_lists`. Lines without items are passed over.

    Args:
        path: see `blocks`.
        names: of the three columns.
        separator: of the items; None stands for one or more blanks or tabs.
        first: the number of the first session.

    Raises:
        InputError: a line is not UTF-8 or has a carriage return, or an item of it is empty.
    """
    line = 1
    for block in blocks(path, watch):
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            bad = line + block.count(b"\n", 0, error.start)
            raise InputError(
                f"{path}, line {bad}: the byte {block[error.start]:#x}, which is not UTF-8"
            ) from None
        lines = pl.Series(text.split("\n")).str.strip_suffix("\r")
        if (returns := lines.str.contains("\r", literal=True)).any():
            bad = line + int(returns.to_numpy().argmax())
            raise InputError(f"{path}, line {bad}: {LONE_RETURN}")
        if separator is None:
            items = lines.str.extract_all(r"[^ \t]+")
        else:
            items = lines.str.split(separator)
            empty = (items.list.contains("") & (lines != "")).to_numpy()
            if empty.any():
                raise InputError(
                    f"{path}, line {line + int(empty.argmax())}: an item is empty where items are "
                    f"separated by {separator!r}"
                )
            items = items.filter(lines != "")
        items = items.filter(items.list.len() > 0)
        lengths = items.list.len().to_numpy().astype(np.int64)
        sessions = np.repeat(np.arange(first, first + len(items)), lengths)
        clicks = np.arange(len(sessions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        columns = sessions, items.explode(), 3600.0 * sessions + clicks
        yield Part(pl.DataFrame(dict(zip(names, columns, strict=True))), str(path), line)
        first, line = first + len(items), line + block.count(b"\n")
