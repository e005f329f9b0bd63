"""Text files are read row for row, as Python's csv module reads them, or refused with the row.

TABLES is the number of tables that are drawn for each property:

    TABLES=20000 python -m pytest tests/test_text.py
"""

import csv
import gzip
import io
import os
import re
import shlex
import struct
import threading
from unittest import mock

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sessions import as_lists, one_line_error
from test_tables import group, whole_numbers

from conftest import EXPLORES
from gru4rec_np import InputError, Sessions, from_frame, read_table
from gru4rec_np.data import blocks, text
from gru4rec_np.data.rawlogs import read_rsc15

TABLES = int(os.environ.get("TABLES", 150 if EXPLORES else 50))
NAMES = ["SessionId", "ItemId", "Time"]
HEADER = "SessionId,ItemId,Time\n"


def read(tmp_path, content, name="log.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return as_lists(read_table(path, **options))


# --- rows in = rows out ---------------------------------------------------------------------------

CELL = st.text(st.sampled_from('"""\n\r,;| \taé1'), max_size=5)
FILES = st.tuples(
    st.sampled_from(["log.csv", "log.csv.gz"]), st.sampled_from([7, 40, 300, 2**20])
)  # a file's name, and how many bytes of it are read at a time


@st.composite
def columns(draw, item=CELL):
    """Names in any order, and rows: ids that are any text, times, columns that are not read."""
    names = draw(st.permutations([*NAMES, *draw(st.sampled_from([[], ["x"], ["x", 'a "title"']]))]))
    cells = {"SessionId": st.sampled_from(["1", "2"]), "ItemId": item}
    cells["Time"] = st.sampled_from(["3", "4"])
    rows = st.tuples(*(cells.get(name, CELL) for name in names))
    return names, draw(st.lists(rows, min_size=1, max_size=8))


def expected(names, rows):
    places = [names.index(name) for name in NAMES]
    return group(whole_numbers([tuple(row[place] for place in places) for row in rows]))


def write(path, content):
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def read_in_blocks(path, size, **options):
    with mock.patch.object(blocks, "BLOCK", size):
        return as_lists(read_table(path, **options))


@settings(max_examples=TABLES)
@given(
    columns(CELL.filter(bool)),
    FILES,
    st.sampled_from([",", ";", "|", "\t"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(0, 3),
)
def test_what_the_csv_module_writes_is_read(tmp_path_factory, table, kind, mark, quoting, end, n):
    names, rows = table
    if (quoting, end) == (csv.QUOTE_MINIMAL, "\n"):  # it leaves a carriage return unquoted
        rows = [tuple(cell.replace("\r", "é") for cell in row) for row in rows]
    path = tmp_path_factory.getbasetemp() / kind[0]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, quoting=quoting, lineterminator=end)
    writer.writerows([names, *rows])
    write(path, (out.getvalue() + n * end).encode())
    assert read_in_blocks(path, kind[1]) == expected(names, rows)


# Values as careless programs write them: with marks that are not quoted, and cut anywhere.
WILD = st.sampled_from([*'aé1"", \n', '"', '""', 'tv 32"', '"a', 'a"', '"a"', "\r\n", "\r", "\n\n"])
PLAIN = st.sampled_from(["1", "23", "a", 'tv 32"', '19" rack', '"a"', '"a\nb"', '"say ""hi"""'])


@st.composite
def wild_text(draw):
    if draw(st.booleans()):
        rows = draw(st.lists(st.lists(PLAIN, min_size=3, max_size=3), min_size=1, max_size=9))
        cell = draw(st.sampled_from(["\n", "\r\n"])).join(f"1,{a},3,{b},{c}" for a, b, c in rows)
        body = cell + draw(st.sampled_from(["", "\n", "\n\n"]))
        if draw(st.booleans()):
            return "SessionId,ItemId,Time,x,y\n" + body
        at = draw(st.integers(0, len(body)))
        return "SessionId,ItemId,Time,x,y\n" + body[:at] + draw(WILD) + body[at:]
    return "SessionId,ItemId,Time,x\n" + "".join(draw(st.lists(WILD, max_size=20)))


@settings(max_examples=TABLES)
@given(wild_text(), FILES, st.sampled_from([b"\xe9", None, None]))
def test_any_text_is_read_row_for_row_or_the_row_is_named(tmp_path_factory, content, kind, latin):
    path = tmp_path_factory.getbasetemp() / kind[0]
    encoded = content.encode()
    if latin:
        encoded = encoded.replace("é".encode(), latin)
    write(path, encoded)
    lines = encoded.decode(errors="surrogateescape")
    try:
        found = read_in_blocks(path, kind[1])
    except InputError as error:
        message = str(error)
        assert "has no rows" in message or re.search(r", row [1-9]\d*[,: ]", message), message
        assert len(message.splitlines()) == 1
        return
    names, *rows = csv.reader(io.StringIO(lines, newline=""), strict=True)
    assert found == expected(names, [row for row in rows if row])


@settings(max_examples=TABLES)
@given(st.lists(st.text(st.sampled_from('"",a1\r\n é\t'), max_size=6), max_size=6), FILES)
def test_tabs_without_quotes_are_read_row_for_row(tmp_path_factory, cells, kind):
    path = tmp_path_factory.getbasetemp() / kind[0].replace("csv", "tsv")
    lines = "".join(f"1\t{cell}\t3\n" for cell in cells)
    write(path, ("\t".join(NAMES) + "\n" + lines).encode())
    rows = [line.split("\t") for line in lines.replace("\r\n", "\n").split("\n")[:-1]]
    whole = rows and "\r" not in lines.replace("\r\n", "") and all(len(r) == 3 for r in rows)
    if whole and all(r[0] == "1" and r[1] and r[2] == "3" for r in rows):
        assert read_in_blocks(path, kind[1]) == expected(NAMES, rows)
        return
    try:  # a cell with "\t" and "\n" makes two rows, whose times may be numbers
        assert read_in_blocks(path, kind[1]) == expected(NAMES, rows) and whole
    except InputError as error:
        assert re.search(r", row [1-9]\d*[,:] |has no rows", str(error))


@settings(max_examples=TABLES // 3)
@given(st.lists(st.text(st.sampled_from('"a,;\té \x00'), max_size=4), min_size=1), FILES)
def test_zstandard_is_unpacked_line_for_line(tmp_path_factory, lines, kind):
    path = tmp_path_factory.getbasetemp() / "lines.zst"
    if not lines[0]:  # Polars takes an empty file for no table
        lines = ["a", *lines]
    pl.DataFrame({"line": lines}).lazy().sink_csv(
        path,
        compression="zstd",
        check_extension=False,
        include_header=False,
        quote_style="never",
        separator="\x01",
    )
    with mock.patch.object(blocks, "BLOCK", 64 * kind[1]):
        assert b"".join(blocks.blocks(path)).decode() == "\n".join(lines) + "\n"


def test_zstandard_in_frames_as_pzstd_writes_them(tmp_path):
    """Each after a frame to be skipped, which holds its length."""
    packed = b""
    for lines in (HEADER + "1,a,3\n", "1,b,4\n"):
        frame = pl.LazyFrame({"l": lines.splitlines()})
        options = {"compression": "zstd", "check_extension": False, "include_header": False}
        frame.sink_csv(tmp_path / "part", quote_style="never", separator="\x01", **options)
        part = (tmp_path / "part").read_bytes()
        packed += b"\x50\x2a\x4d\x18" + struct.pack("<II", 4, len(part)) + part
    assert read(tmp_path, packed, "log.csv.zst") == [(1, [("a", 3.0), ("b", 4.0)])]


def test_zstandard_that_is_not_utf8_says_what_to_do(tmp_path):
    """Polars unpacks it, and does not say where."""
    frame = {"l": [HEADER + "1,caf\u00e9,3\n"]}
    options = {"compression": "zstd", "check_extension": False, "include_header": False}
    pl.DataFrame(frame).lazy().sink_csv(tmp_path / "log.zst", quote_style="never", **options)
    frame = (tmp_path / "log.zst").read_bytes()
    assert "caf\u00e9".encode() in frame  # too short to be compressed
    latin = frame.replace("\u00e9".encode(), b"\xe9\xe9")
    with one_line_error("log.csv.zst: has bytes that are not UTF-8; unpack the file first"):
        read(tmp_path, latin, "log.csv.zst")


def test_both_ways_are_taken(tmp_path):
    """A block goes to Polars if its rows are certain, to the csv module otherwise."""
    plain, stray = HEADER + '1,"a,\n""b""",3\n1,c,4\n', HEADER + '1,tv 32",3\n1,c,4\n'
    with mock.patch.object(text, "_read_exactly", side_effect=AssertionError):
        assert read(tmp_path, plain) == [(1, [('a,\n"b"', 3.0), ("c", 4.0)])]
        assert read(tmp_path, stray.replace(",", "\t"), "log.tsv")
        with pytest.raises(AssertionError):
            read(tmp_path, stray)
    with mock.patch.object(text.pl, "read_csv", side_effect=AssertionError):
        with one_line_error("row 2: 2 columns"):  # as many separators as three rows of three have
            read(tmp_path, HEADER + "1,a\n1,a,5\n1,a,5,\n")
    with mock.patch.object(text, "_read_fast", return_value=None):
        assert read(tmp_path, plain) == [(1, [('a,\n"b"', 3.0), ("c", 4.0)])]
    assert read(tmp_path, stray) == [(1, [('tv 32"', 3.0), ("c", 4.0)])]


def test_a_stray_mark_in_a_column_that_is_not_read_loses_no_row(tmp_path):
    """Polars' scan of these two columns loses 4 rows of 11, and half of the 60,000."""
    few = ['tv 32"' if i in (3, 7) else "tv" for i in range(11)]
    many = ['tv 32"' if i % 100 == 50 else "tv" for i in range(60_000)]
    for titles in (few, many):
        lines = "".join(f"{i // 4},{i % 10},{i},{title}\n" for i, title in enumerate(titles))
        content = "SessionId,ItemId,Time,Title\n" + lines
        log = read(tmp_path, content)
        assert [len(events) for _, events in log] == [
            len(group) for _, group in pd.read_csv(io.StringIO(content)).groupby("SessionId")
        ]
        assert sum(len(events) for _, events in log) == len(titles)


def test_empty_text_in_marks_is_an_id_and_nothing_is_not(tmp_path):
    for stray in ("", 'tv 32"'):  # both ways of reading
        content = "SessionId,ItemId,Time,x\n" + f'1,"",3,{stray}\n1,"""",4,\n1,b,5,"a"""\n'
        assert read(tmp_path, content) == [(1, [("", 3.0), ('"', 4.0), ("b", 5.0)])]
        with one_line_error("row 5, column ItemId: the value is missing"):
            read(tmp_path, content + "1,,6,\n")


def test_a_long_value_is_read_and_an_endless_one_refused(tmp_path):
    long = "x" * 100_000
    assert read(tmp_path, f'{HEADER}1,"{long}",3\n') == [(1, [(long, 3.0)])]
    with one_line_error("row 3", "more than 131,072 characters", "not close"):
        read(tmp_path, HEADER + '1,a,3\n1,"a,3\n' + "1,a,3\n" * 30_000)
    for stray in ("", '"'):  # both ways of reading, and a column that is not read
        row = f"1,a,3,{stray},{'x' * 131_073}\n"
        with one_line_error("row 2", "more than 131,072 characters"):
            read(tmp_path, "SessionId,ItemId,Time,x,y\n" + row)


# --- rows that are refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("log.tsv", "1\ta\t5\n1\tb\tc\t6\n", ["row 3: 4 columns where 3 are exp", r"1\tb\tc\t6"]),
        ("log.tsv", "1\ta\t5\n1\t6\n", ["row 3: 2 columns where 3 are expected", "SessionId"]),
        ("log.tsv", "1\ta\t5\n\n1\tb\t6\n", ["row 3: no columns where 3 are expected"]),
        ("log.tsv", "1\ta\t5\n1\tcaf\xe9\t6\n", ["row 3", "ItemId", "byte 0xe9", "not UTF-8"]),
        ("log.tsv", "1\ta\rb\t5\n", ["row 2", "a carriage return without a line feed"]),
        ("log.csv", "1,a,5\n1,b,c,6\n", ["row 3: 4 columns where 3 are expected", "'1,b,c,6'"]),
        ("log.csv", "1,a,5\n1,caf\xe9,6\n", ["row 3: column ItemId has the byte 0xe9, which is"]),
        ("log.csv", '1,a,5\n1,"b"x,6\n', ["row 3: text after the quotation mark", "written twice"]),
        ("log.csv", '1,a,5\n1,"b,6\n', ["row 3: a quotation mark opens a value that does not end"]),
        ("log.csv", '1,"a\nb",5\n1,6\n', ["row 3, line 4: 2 columns where 3 are expected"]),
        ("log.csv", "1,a,5\n" * 9 + "1,a\n", ["row 11: 2 columns where 3 are expected"]),
        ("log.csv", "1,a,5,\n" * 2, ["row 2: 4 columns where 3 are expected"]),
        ("log.csv", "1,a\n1,a,5,\n", ["row 2: 2 columns where 3 are expected"]),
    ],
)
@pytest.mark.parametrize("block", [5, 2**24])
def test_bad_rows_are_refused_with_their_number(tmp_path, name, body, words, block):
    head = HEADER if name == "log.csv" else HEADER.replace(",", "\t")
    with mock.patch.object(blocks, "BLOCK", block), one_line_error(str(tmp_path / name), *words):
        read(tmp_path, (head + body).encode("latin-1"), name)


def test_a_byte_that_is_not_utf8_does_not_matter_in_a_column_that_is_not_read(tmp_path):
    content = "x,SessionId,ItemId,Time\ncaf\xe9,1,a,3\n".encode("latin-1")
    assert read(tmp_path, content) == [(1, [("a", 3.0)])]


def test_a_column_named_twice_is_refused(tmp_path):
    with one_line_error("log.csv: two columns are named 'ItemId'"):
        read(tmp_path, "SessionId,ItemId,ItemId,Time\n1,2,3,4\n")
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["SessionId", "ItemId", "ItemId", "Time"])
    with one_line_error("frame: two columns are named 'ItemId'"):
        from_frame(frame)
    assert read(tmp_path, "x,SessionId,ItemId,Time,x\n0,1,2,4,0\n") == [(1, [(2, 4.0)])]


# --- separators -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mark", "said"),
    [
        ("log.csv", ",", None),
        ("log.csv", ";", "';'"),
        ("log.csv", "\t", "tabs"),
        ("log.txt", "\t", None),
        ("log.txt", ",", "','"),
        ("log.dat", " ", "blanks"),
        ("log.tsv", ";", "';'"),
        ("log.csv", "|", "'|'"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_separators(tmp_path, name, mark, said, given):
    told = []
    lines = mark.join(NAMES) + "\n" + mark.join(["1", "a", "3"]) + "\n"
    options = {"separator": mark} if given else {}
    assert read(tmp_path, lines, name, tell=told.append, **options) == [(1, [("a", 3.0)])]
    path = tmp_path / name
    assert told == ([f"{path}: the columns are separated by {said}"] if said and not given else [])


def test_diginetica_with_other_names(tmp_path):
    content = "session_id;user_id;item_id;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
    columns = ("session_id", "item_id", "eventdate")
    assert read(tmp_path, content, columns=columns) == [(1, [(81766, 1462752000.0)])]


@pytest.mark.parametrize("separator", ["", ",,", "é", '"', "\n"])
def test_what_is_no_separator(tmp_path, separator):
    with one_line_error("separator: must be one ASCII character", repr(separator)):
        read(tmp_path, HEADER + "1,a,3\n", separator=separator)


def test_a_separator_that_is_given_is_the_only_one(tmp_path):
    with one_line_error("no column 'SessionId'; it has", "separated by ';'"):
        read(tmp_path, HEADER + "1,a,3\n", separator=";")
    with one_line_error("no column 'ItemId'; it has 'SessionId', 'Time', separated by ','"):
        read(tmp_path, "SessionId,Time\n1,3\n", "log.tsv")


SPELLINGS = st.sampled_from(
    [str, str.lower, str.upper, lambda n: n[:-2] + "_" + n[-2:], lambda n: n[:-2] + " " + n[-2:]]
)


@given(st.lists(SPELLINGS, min_size=3, max_size=3), st.sampled_from("\t,;|"), st.booleans())
def test_a_missing_column_names_the_options(tmp_path_factory, spell, mark, more):
    """Each column that is spelt in another way is named with its option; so is the separator."""
    tmp_path = tmp_path_factory.mktemp("names")
    names = [how(name) for how, name in zip(spell, NAMES, strict=True)]
    header = mark.join([*names, *(["Category"] if more else [])])
    wrong = [(n, w) for n, w in zip(names, NAMES, strict=True) if n != w]
    if not wrong:
        return
    options = [f"--{o}-column {shlex.quote(n)}" for o, n, w in
               zip(("session", "item", "time"), names, NAMES, strict=True) if n != w]  # fmt: skip
    said = {"\t": "tabs"}.get(mark, repr(mark))
    with one_line_error(
        f"no column '{wrong[0][1]}'", f"separated by {said}; give {' '.join(options)}"
    ):
        read(tmp_path, header + "\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("user;thing;when", "separated by ';'; give --session-column NAME --item-column NAME"),
        ("Session ID,Item ID,Time of click", "--session-column 'Session ID' --item-column 'Item"),
        ("sessionid,SESSIONID,item id,Time", "give --session-column NAME --item-column 'item id'"),
        ("user thing when", "'user', 'thing', 'when', separated by blanks"),
        ("1,2,3", "separated by ','; the first line must name the columns"),
        ("1,2014-04-07T10:51:09.277Z,214536502,0", "`python -m gru4rec_np.prepare rsc15` reads"),
        ("1,2014-04-07T10:51:09.277Z,214536502,S", "`python -m gru4rec_np.prepare rsc15` reads"),
        ("sessionId;userId;itemId;timeframe;eventdate", "separated by ';'; is it a raw log? `pyt"),
        ("session_id;user_id;item_id;timeframe;eventdate", "gru4rec_np.prepare diginetica` reads"),
        ("timestamp,visitorid,event,itemid,transactionid", "gru4rec_np.prepare retailrocket`"),
        (
            "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
            "user_session",
            "gru4rec_np.prepare rees46`",
        ),
        (
            "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,"
            "hashed_url",
            "gru4rec_np.prepare coveo`",
        ),
        ('{"session":0,"events":[{"aid":1,"ts":2,"type":"clicks"}]}', "gru4rec_np.prepare otto`"),
    ],
)
@pytest.mark.parametrize("name", ["log.tsv", "log.csv"])
def test_what_a_first_line_may_be(tmp_path, line, words, name):
    with one_line_error(name, "no column 'SessionId'", words):
        read(tmp_path, line + "\n", name)


def test_a_header_in_quotation_marks(tmp_path):
    """As R's write.table writes it."""
    content = '"SessionId"\t"ItemId"\t"Time"\n1\t"a"\t3\n'
    with one_line_error("tabs; quotation marks are a part of a name here, but not in a file named"):
        read(tmp_path, content, "log.tsv")
    assert read(tmp_path, content, "log.csv") == [(1, [("a", 3.0)])]


def test_a_missing_column_of_parquet_names_the_options(tmp_path):
    pl.DataFrame({"user": [1], "Session Id": [1], "Time": [3]}).write_parquet(
        tmp_path / "a.parquet"
    )
    with one_line_error("no column 'session_id'; it has", "--session-column 'user,Session Id' --i"):
        read_table(tmp_path / "a.parquet", ("user,session_id", "ItemId", "Time"))
    with one_line_error("no column 'kind'; it has 'user', 'Session Id', 'Time'"):
        read_table(tmp_path / "a.parquet", ("user", "Session Id", "Time"), keep=("kind", "view"))


# --- pipes and paths ------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "fd"])
def test_pipes_are_read(tmp_path, packed, kind):
    """A FIFO; and a descriptor, as /dev/stdin and `<(zcat log)` are."""
    content = ("\t".join(NAMES) + "\n" + "".join(f"1\ta\t{i}\n" for i in range(20_000))).encode()
    content = gzip.compress(content) if packed else content
    if kind == "fifo":
        path = tmp_path / "log"
        os.mkfifo(path)
        writer = threading.Thread(target=lambda: path.write_bytes(content))
        close = None
    else:
        reading, writing = os.pipe()
        path = f"/dev/fd/{reading}"
        close = reading

        def feed():
            with open(writing, "wb") as file:
                file.write(content)

        writer = threading.Thread(target=feed)
    writer.start()
    try:
        log = read_table(path, watch=lambda *_: pytest.fail("a pipe has no length"))
    finally:
        writer.join(10)
        if close is not None:
            os.close(close)
    assert log.n_events == 20_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_pipe_of_parquet_is_refused(tmp_path):
    os.mkfifo(tmp_path / "log.parquet")
    with one_line_error("log.parquet: must be a file that can be read twice, not a pipe"):
        read_table(tmp_path / "log.parquet")


def test_what_a_path_is_is_said(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    with one_line_error("link.csv: is a link to", "gone.csv, which does not exist"):
        read_table(tmp_path / "link.csv")
    with one_line_error(f"{tmp_path}: is a directory, not a file"):
        read_table(tmp_path)
    with one_line_error("none: no such file"):
        read_table(tmp_path / "none")
    path = tmp_path / os.fsdecode(b"caf\xe9.csv")
    path.write_text(HEADER + "1,a,3\n")
    with one_line_error("not a readable table: the path is not UTF-8"):
        read_table(path)
    with one_line_error("log.csv.gz: the file is empty"):
        read(tmp_path, gzip.compress(b""), "log.csv.gz")
    with one_line_error("log.csv: is UTF-16; a text file must be UTF-8"):
        read(tmp_path, (HEADER + "1,a,3\n").encode("utf-16"))


@pytest.mark.parametrize("kind", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(tmp_path, kind):
    """With a byte-order mark or without; and the raw logs' readers do the same."""
    text, rsc15 = HEADER + "1,a,3\n", "1,2014-04-07T10:51:09.277Z,214536502,0\n"
    (tmp_path / "raw").write_bytes(rsc15.encode(kind))
    says = f"is {kind[:6].upper()}; a text file must be UTF-8"
    with one_line_error(f"log.csv: {says}"):
        read(tmp_path, text.encode(kind))
    with one_line_error(f"raw: {says}"):
        read_rsc15(tmp_path / "raw")


def test_a_text_file_that_cannot_be_opened(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")  # not raised for root

    (tmp_path / "log.csv").write_text(HEADER + "1,a,3\n")
    monkeypatch.setattr(blocks.Path, "open", denied)
    with one_line_error("log.csv: cannot be read: Permission denied"):
        read_table(tmp_path / "log.csv")


# --- a session a line -----------------------------------------------------------------------------


@settings(max_examples=TABLES // 3)
@given(
    st.lists(st.lists(st.sampled_from(["1", "22", "a", '"b"', "é"]), max_size=4), max_size=6),
    st.sampled_from([" ", ",", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([3, 20, 2**20]),
)
def test_lists_are_sessions(tmp_path_factory, sessions, mark, end, size):
    path = tmp_path_factory.getbasetemp() / "lists.txt"
    path.write_bytes(end.join(mark.join(session) for session in sessions).encode())
    sessions = [session for session in sessions if session]
    options = {"layout": "lists", "separator": "," if mark == "," else None}
    if not sessions:
        with one_line_error("lists.txt", "empty" if path.stat().st_size == 0 else "no rows"):
            read_in_blocks(path, size, **options)
        return
    ids = [item for session in sessions for item in session]
    if all(item.isascii() and item.isdigit() for item in ids):
        sessions = [list(map(int, session)) for session in sessions]
    assert read_in_blocks(path, size, **options) == as_lists(Sessions.from_lists(sessions))


def test_lists_in_several_files_and_what_is_refused(tmp_path):
    for name, lines in (("a.txt", "1 2\n\n3  4 \n"), ("b.txt", "1 x\n")):
        (tmp_path / name).write_text(lines)
    both = read_table([tmp_path / "a.txt", tmp_path / "b.txt"], layout="lists")
    assert as_lists(both) == as_lists(Sessions.from_lists([["1", "2"], ["3", "4"], ["1", "x"]]))
    blanks = read(tmp_path, "a\u00a0b c\x0bd\te\r\nf g\r", "c.txt", layout="lists")
    assert blanks == as_lists(Sessions.from_lists([["a\u00a0b", "c\x0bd", "e"], ["f", "g"]]))
    for content, options, words in (
        (b"1 2\n1\r3 4\r", {}, ["line 2: a carriage return without a line feed"]),
        (b"1,2\r\r\n", {"separator": ","}, ["line 1: a carriage return without a line feed"]),
        (b"1 2\n1 caf\xe9\n", {}, ["line 2", "byte 0xe9"]),
        (b"1,2\n1,,2\n", {"separator": ","}, ["line 2: an item is empty"]),
        (b"1 2\n", {"keep": ("event", "view")}, ["layout"]),
        (b"1 2\n", {"session_gap": 5}, ["layout"]),
        (b"1 2\n", {"layout": "rows"}, ["layout: must be one of table, lists, not 'rows'"]),
    ):
        with one_line_error(*words):
            read(tmp_path, content, "c.txt", **{"layout": "lists", **options})


def test_blocks_tell_how_much_is_read(tmp_path):
    path, told = tmp_path / "log.csv", []
    path.write_text(HEADER + "1,a,3\n" * 100)
    with mock.patch.object(blocks, "BLOCK", 50):
        log = read_table([path, path], watch=lambda done, total: told.append((done, total)))
    total = 2 * path.stat().st_size
    assert log.n_events == 200 and len(told) > 10 and told == sorted(told)
    assert told[-1] == (total, total)
