"""Reading and writing tables of clicks, against plain Python on lists."""

import csv
import datetime as dt
import gzip
import os
import re
import uuid
import zipfile
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sessions import as_lists, one_line_error

from conftest import examples
from gru4rec_np import Sessions, from_frame, read_table
from gru4rec_np.data import blocks
from gru4rec_np.data.tables import as_sessions, write_table
from gru4rec_np.files import write_text, write_whole

HEADER = "SessionId\tItemId\tTime\n"
INT64 = st.integers(-(2**63), 2**63 - 1)


def read(tmp_path, text, name="log.tsv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return as_lists(read_table(path, **options))


ANY_TEXT = st.text(max_size=3)
TSV_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1, max_size=3
)
# A file's ending, and the ids that such a file can hold.
ENDINGS = [(".tsv", TSV_TEXT), (".txt", TSV_TEXT), (".csv", ANY_TEXT), (".parquet", ANY_TEXT)]


@st.composite
def tables(draw, text=ANY_TEXT):
    """Rows (session, item, time) in any order with many equal times; ids all int or all text."""
    ids = [draw(st.sampled_from([st.integers(-3, 3), INT64, text])) for _ in "si"]
    times = draw(st.sampled_from([st.integers(0, 3), st.floats(-1e10, 1e10)]))
    return draw(st.lists(st.tuples(*ids, times), min_size=1, max_size=12))


def group(rows):
    """Sessions by first appearance, events by time, equal times by row."""
    sessions = {}
    for session, item, time in rows:
        sessions.setdefault(session, []).append((item, float(time)))
    return [(s, sorted(events, key=lambda e: e[1])) for s, events in sessions.items()]


def whole_numbers(rows):
    """The rows as a text file gives them back: id columns of whole numbers throughout as int."""

    def ids(column):
        plain = [re.fullmatch("0|-?[1-9][0-9]*", str(v), re.ASCII) for v in column]
        number = all(plain) and all(-(2**63) <= int(v) < 2**63 for v in column)
        return [int(v) if number else v for v in column]

    session, item, time = zip(*rows, strict=True)
    return list(zip(ids(session), ids(item), time, strict=True))


@examples(200)
@given(tables(), st.sampled_from(["polars", "pandas"]))
def test_frames_are_grouped_and_sorted(rows, kind):
    columns = dict(zip(("SessionId", "ItemId", "Time"), zip(*rows, strict=True), strict=True))
    frame = pl.DataFrame(columns, strict=False) if kind == "polars" else pd.DataFrame(columns)
    assert as_lists(from_frame(frame)) == group(whole_numbers(rows))


@examples(200)
@given(st.data(), st.sampled_from(ENDINGS), st.booleans())
def test_files_are_grouped_and_sorted(tmp_path_factory, data, kind, upper):
    ending, text = kind
    rows = data.draw(tables(text))
    path = tmp_path_factory.getbasetemp() / f"log{ending.upper() if upper else ending}"
    names = ("SessionId", "ItemId", "Time")
    if ending == ".parquet":
        pl.DataFrame(rows, names, orient="row").write_parquet(path)
    elif ending != ".csv":
        lines = "\n".join("\t".join(map(str, row)) for row in [names, *rows])
        path.write_text(lines + "\n", encoding="utf-8", newline="")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=1).writerows([names, *rows])
    assert as_lists(read_table(path)) == group(whole_numbers(rows))


@examples(200)
@given(st.data(), st.sampled_from(ENDINGS))
def test_write_then_read_is_the_same(tmp_path_factory, data, kind):
    ending, text = kind
    rows = data.draw(tables(text))
    path = tmp_path_factory.getbasetemp() / f"written{ending}"
    sessions = from_frame(pl.DataFrame(rows, ("SessionId", "ItemId", "Time"), orient="row"))
    write_table(sessions, path)
    again = read_table(path)
    assert as_lists(again) == as_lists(sessions)
    assert again.item_ids.dtype == sessions.item_ids.dtype
    assert not list(path.parent.glob(f"{path.stem}.part*"))


def test_the_later_one_of_two_writers_is_whole(tmp_path):
    def while_another_writes(part):
        with part.open("w") as file:
            file.write("one")
            write_text(path, "two")
            file.write(" more")

    path = tmp_path / "out.txt"
    write_whole(path, while_another_writes)
    assert path.read_text() == "one more"
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("item", ["a\tb", "two\nlines", "\r", ""])
def test_what_a_tsv_cannot_hold_is_not_written(tmp_path, item):
    sessions = Sessions.from_lists([["a", item]])
    with one_line_error("log.tsv", repr(item), ".csv or .parquet"):
        write_table(sessions, tmp_path / "log.tsv")
    assert not list(tmp_path.iterdir())
    write_table(sessions, tmp_path / "log.csv")
    assert read_table(tmp_path / "log.csv").session(0).tolist() == ["a", item]


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["7", "-12", "9223372036854775807"], [7, -12, 2**63 - 1]),
        (["7", "007"], ["7", "007"]),
        (["7", " 7", "7 "], ["7", " 7", "7 "]),
        (["7", "+7", "7.0", "-0"], ["7", "+7", "7.0", "-0"]),
        (["7", "18446744073709551615"], ["7", "18446744073709551615"]),
        (["7", "x"], ["7", "x"]),
        (["é", "e\u0301", "상품", "😀"], ["é", "e\u0301", "상품", "😀"]),
        (['19" rack', '"quoted"', '"'], ['19" rack', '"quoted"', '"']),  # TSV has no quotes
    ],
)
def test_ids_stay_what_they_are(tmp_path, written, ids):
    """Whole numbers become int only if every id prints as it was; text is never touched."""
    text = HEADER + "".join(f"1\t{item}\t{t}\n" for t, item in enumerate(written))
    [(session, events)] = read(tmp_path, text)
    assert session == 1
    assert [item for item, _ in events] == ids


def test_int_ids_are_an_int64_array():
    sessions = from_frame(pl.DataFrame({"SessionId": ["a"], "ItemId": ["7"], "Time": [1]}))
    assert sessions.item_ids.dtype == np.int64
    assert sessions.session_ids.dtype == object


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1396867869", 1396867869),
        ("1396867869.25", 1396867869.25),
        ("1.5e9", 1.5e9),
        ("2014-04-07T10:51:09.277Z", 1396867869.277),
        ("2014-04-07T10:51:09Z", 1396867869),
        ("2014-04-07T10:51:09", 1396867869),
        ("2014-04-07 10:51:09", 1396867869),
        ("2014-04-07T12:51:09+02:00", 1396867869),
        ("2014-04-07T05:21:09.500-05:30", 1396867869.5),
        ("2014-04-07", 1396828800),
        ("2014-04-07 10:51:09 UTC", 1396867869),
        ("2014-04-07 10:51:09.25 UTC", 1396867869.25),
        ("2014-04-07 10:51:09 GMT", 1396867869),
        ("2014-04-07 10:51:09 Z", 1396867869),
        ("2014-04-07 10:51:09Z", 1396867869),
        ("2014-04-07 10:51:09 +00:00", 1396867869),
        ("2014-04-07 12:51:09 +0200", 1396867869),
    ],
)
def test_times(tmp_path, time, seconds):
    assert read(tmp_path, f"{HEADER}1\ta\t{time}\n") == [(1, [("a", seconds)])]


@pytest.mark.parametrize(
    ("unit", "time", "seconds"),
    [
        ("s", "1396867869", 1396867869),
        ("ms", "1396867869277", 1396867869.277),
        ("us", "1396867869277125", 1396867869.277125),
        ("ns", "1396867869277125999", 1396867869.277125),
        ("ns", "1.396867869e18", 1396867869),
        ("ms", "2014-04-07 10:51:09 UTC", 1396867869),  # a date is what it is
    ],
)
def test_units_of_times(tmp_path, unit, time, seconds):
    text = f"{HEADER}1\ta\t{time}\n"
    assert read(tmp_path, text, time_unit=unit) == [(1, [("a", seconds)])]
    if time.isdigit():
        frame = pl.DataFrame({"SessionId": [1], "ItemId": ["a"], "Time": [int(time)]})
        assert as_lists(from_frame(frame, time_unit=unit)) == [(1, [("a", seconds)])]


def test_units_that_are_none(tmp_path):
    with one_line_error("time_unit: must be one of s, ms, us, ns, not 'h'"):
        read(tmp_path, f"{HEADER}1\ta\t5\n", time_unit="h")
    with one_line_error("row 2", "is too large for ms since 1970", "--time-unit us"):
        read(tmp_path, f"{HEADER}1\ta\t1396867869277125\n", time_unit="ms")
    with one_line_error("row 2", "1396867869277125789 is too large for us", "--time-unit ns"):
        read(tmp_path, f"{HEADER}1\ta\t1396867869277125789\n", time_unit="us")
    with one_line_error("row 2", "20140407105109 looks like a date"):
        read(tmp_path, f"{HEADER}1\ta\t20140407105109\n", time_unit="ms")


def test_a_zone_in_one_part_and_none_in_another(tmp_path):
    """Wherever a part ends: rows alike."""
    text = f"{HEADER}1\tb\t2014-04-07 10:51:09\n1\ta\t2014-04-07 10:51:09 UTC\n"
    for size in (5, 2**20):
        with (
            mock.patch.object(blocks, "BLOCK", size),
            one_line_error("row 3, column Time", "in all rows alike"),
        ):
            read(tmp_path, text)


def test_iso_times_with_and_without_fractions_are_ordered(tmp_path):
    text = f"{HEADER}1\tb\t2014-04-07T10:51:09.500Z\n1\ta\t2014-04-07T10:51:09Z\n"
    assert [item for item, _ in read(tmp_path, text)[0][1]] == ["a", "b"]


UTC_NOON = 1577880000  # 2020-01-01T12:00Z


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_date_columns_of_pandas(unit):
    times = pd.Series(pd.to_datetime(["2020-01-01 12:00"])).astype(f"datetime64[{unit}]")
    frame = pd.DataFrame({"SessionId": [1], "ItemId": [1], "Time": times})
    assert from_frame(frame).times.tolist() == [UTC_NOON]


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_date_columns_with_a_zone(kind):
    local = "2020-01-01 13:00"  # in Berlin
    if kind == "pandas":
        times = pd.to_datetime([local]).tz_localize("Europe/Berlin")
        frame = pd.DataFrame({"SessionId": [1], "ItemId": [1], "Time": times})
    else:
        times = pl.Series([local]).str.to_datetime(time_zone="Europe/Berlin")
        frame = pl.DataFrame({"SessionId": [1], "ItemId": [1], "Time": times})
    assert from_frame(frame).times.tolist() == [UTC_NOON]


@pytest.mark.parametrize(
    "text",
    [
        "SessionId\tItemId\tTime\r\n1\ta\t3\r\n1\tb\t4\r\n",
        "\ufeffSessionId\tItemId\tTime\n1\ta\t3\n1\tb\t4\n",
        "\ufeffSessionId\tItemId\tTime\r\n1\ta\t3\r\n1\tb\t4",
        "Time\tother\tItemId\tSessionId\n3\tx\ta\t1\n4\t\tb\t1\n",
    ],
    ids=["CRLF", "BOM", "both, no last newline", "other columns"],
)
def test_text_formats(tmp_path, text):
    assert read(tmp_path, text) == [(1, [("a", 3.0), ("b", 4.0)])]


def test_quoted_csv(tmp_path):
    text = '\ufeff"SessionId","ItemId","Time"\r\n1,"a,b","3"\r\n1,"say ""hi""\nyou",4\r\n'
    assert read(tmp_path, text, "log.CSV") == [(1, [("a,b", 3.0), ('say "hi"\nyou', 4.0)])]


def test_columns_of_other_names(tmp_path):
    text = "who,what,when\n1,a,3\n"
    columns = ("who", "what", "when")
    assert read(tmp_path, text, "log.csv", columns=columns) == [(1, [("a", 3.0)])]


def test_one_column_in_two_roles(tmp_path):
    """A log without sessions: the item column stands in for the session's."""
    for columns in (("ItemId", "ItemId", "Time"), ("SessionId", "ItemId", "ItemId")):
        path = tmp_path / "log.parquet"
        pl.DataFrame({"SessionId": [5], "ItemId": [1], "Time": [3]}).write_parquet(path)
        text = read(tmp_path, HEADER + "5\t1\t3\n", columns=columns)
        assert as_lists(read_table(path, columns)) == text


def test_unsigned_ids_beyond_int64_are_text():
    """Hashes are often uint64: kept as text, as they would be from a text file."""
    big = pl.Series([5, 2**64 - 1], dtype=pl.UInt64)
    frame = pl.DataFrame({"SessionId": [1, 1], "ItemId": big, "Time": [1, 2]})
    assert from_frame(frame).item_ids.tolist() == ["5", str(2**64 - 1)]


def test_pandas_columns_that_are_not_asked_for_do_not_matter():
    frame = pd.DataFrame({"SessionId": [1, 1], "ItemId": [3, 4], "Time": [1, 2], "x": [1, "a"]})
    assert as_lists(from_frame(frame)) == [(1, [(3, 1.0), (4, 2.0)])]


TWO_ROWS = [(1, [("a", 3.0), ("b", 4.0)])]


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
@pytest.mark.parametrize("how", ["gzip", "gzip in two parts", "zstd"])
def test_compressed_text(tmp_path, ending, how):
    """Whatever the file's name says of it; the format is the ending before .gz or .zst."""
    separator = "," if ending == ".csv" else "\t"
    lines = [separator.join(row) + "\n" for row in (("SessionId", "ItemId", "Time"), "1a3", "1b4")]
    if how == "zstd":
        path = tmp_path / "packed"
        frame = pl.DataFrame({"SessionId": [1, 1], "ItemId": ["a", "b"], "Time": [3, 4]})
        frame.lazy().sink_csv(path, separator=separator, compression="zstd", check_extension=False)
        packed = path.read_bytes()
        assert packed[:4] == b"\x28\xb5\x2f\xfd"
    elif how == "gzip":
        packed = gzip.compress("".join(lines).encode())
    else:
        packed = b"".join(gzip.compress(part.encode()) for part in ("".join(lines[:2]), lines[2]))
    for name in (f"log{ending}", f"log{ending}.gz", f"log{ending.upper()}.ZST"):
        assert read(tmp_path, packed, name) == TWO_ROWS
    with one_line_error("not a readable table"):
        read(tmp_path, packed[:-5], f"log{ending}.gz")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    ],
)
def test_other_compressions_are_named(tmp_path, head, name):
    with one_line_error("log.tsv", f"is compressed by {name}", "unpack it"):
        read(tmp_path, head + b"\n\0\1\2")
    assert read(tmp_path, "PK\tBZh\tTime\n1\ta\t3\n", columns=("PK", "BZh", "Time"))


@pytest.mark.parametrize("name", ["log.tsv", "log.csv", "log"])
def test_parquet_and_workbooks_are_named(tmp_path, name):
    frame = pl.DataFrame({"SessionId": [1], "ItemId": [2], "Time": [3]})
    frame.write_parquet(tmp_path / name)
    with one_line_error(name, "is a Parquet file", "must end in .parquet"):
        read_table(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    with one_line_error(name, "is an Excel workbook; save its sheet as CSV"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["log.tsv.gz", "log.csv.zst"])
def test_compressed_files_are_not_written(tmp_path, name):
    with one_line_error(name, "not written, only read"):
        write_table(Sessions.from_lists([["a", "b"]]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def one_item(values, kind="polars"):
    columns = {"SessionId": [1] * len(values), "ItemId": values, "Time": range(len(values))}
    return from_frame(pl.DataFrame(columns) if kind == "polars" else pd.DataFrame(columns))


BERLIN = pl.Series([dt.datetime(2020, 1, 1)]).dt.replace_time_zone("Europe/Berlin")
TYPED = [
    ([1.0, 2.5, 1e300, -0.5], None),
    ([True, False], None),
    ([dt.date(2020, 1, 2), dt.date(1960, 1, 1)], None),
    ([dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.datetime(2020, 1, 2)], None),
    (pl.Series([0.5, 0.1], dtype=pl.Float32), [0.5, float(np.float32(0.1))]),
    (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
    (pl.Series(["x", "7"], dtype=pl.Enum(["7", "x"])), ["x", "7"]),
    (pl.Series(["8", "7"], dtype=pl.Categorical), [8, 7]),
    (pl.Series([200, 7], dtype=pl.UInt8), [200, 7]),
    (pl.Series(["1.50", "2.00"]).cast(pl.Decimal(10, 2)), ["1.50", "2.00"]),
    (pl.Series([b"x", "\u00e9".encode()]), ["x", "\u00e9"]),
    (BERLIN, ["2020-01-01 00:00:00.000000+01:00"]),
    (pl.Series([2**70, 1], dtype=pl.Int128), [str(2**70), "1"]),
]


@pytest.mark.parametrize(("values", "ids"), TYPED, ids=[str(i) for i in range(len(TYPED))])
@pytest.mark.parametrize("to", ["frame", ".parquet", ".csv", ".tsv"])
def test_ids_of_every_type(tmp_path, values, ids, to):
    """What a column can hold stays what it is, in files too; text files keep its text."""
    sessions = one_item(values)
    ids = list(values) if ids is None else ids
    assert sessions.item_ids.tolist() == ids
    if to != "frame":
        write_table(sessions, tmp_path / f"log{to}")
        again = read_table(tmp_path / f"log{to}")
        assert list(map(str, again.item_ids.tolist())) == list(map(str, ids))
        if to == ".parquet":
            assert again.item_ids.tolist() == ids


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([1.0, 2.5], None),
        ([True, False], None),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        (pd.Categorical([5, 6]), [5, 6]),
        (pd.array([1, 2], dtype="Int64"), [1, 2]),
        (pd.array(["x", "y"], dtype="string"), ["x", "y"]),
        (pd.array([True, False], dtype="boolean"), [True, False]),
        (np.array([2**63, 1], np.uint64), [str(2**63), "1"]),
        ([dt.date(2020, 1, 2), dt.date(2020, 1, 1)], None),
    ],
    ids=str,
)
def test_pandas_ids_of_every_type(values, ids):
    assert one_item(values, "pandas").item_ids.tolist() == (list(values) if ids is None else ids)


@pytest.mark.parametrize("ns", [1, 1_000])
def test_nanoseconds_of_an_id_are_not_cut_off(ns):
    values = pl.Series([0, ns]).cast(pl.Datetime("ns"))
    if ns == 1_000:
        assert one_item(values).n_items == 2
    else:
        with one_line_error("frame, row 1, column ItemId: 1970-01-01 00:00:00.000000001 is not"):
            one_item(values)


@pytest.mark.parametrize("values", [[1, "1"], [1, True], ["a", None, 5], [1.5, "x"], [b"a", "a"]])
def test_ids_that_differ_in_type_are_not_taken_for_one_another(values):
    with one_line_error("frame, column ItemId: values of more than one type"):
        one_item(pd.Series(values, dtype=object), "pandas")
    if None not in values:
        with one_line_error("item ids: values of more than one type"):
            Sessions.from_lists([values])


TRICKY = ["a", " a", "a ", "A", "\u00e9", "e\u0301", "\u0645\u062b\u0627\u0644", "\u200fa",
          "\U0001f469\u200d\U0001f680", "\U0001f469", "\uc0c1\ud488", "null", "NA", "nan", "None",
          "true", "1e5", "\ufeffx", "\u200b"]  # fmt: skip


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".parquet"])
def test_text_that_looks_alike_is_kept_apart(tmp_path, ending):
    sessions = Sessions.from_lists([TRICKY])
    write_table(sessions, tmp_path / f"log{ending}")
    assert read_table(tmp_path / f"log{ending}").item_ids.tolist() == TRICKY


def test_an_event_that_is_there_twice_counts_twice(tmp_path):
    assert read(tmp_path, HEADER + 2 * "1\ta\t3\n") == [(1, [("a", 3.0)] * 2)]


TIME_COLUMNS = {
    "ms": pl.Series([dt.datetime(2020, 1, 1, 12)]).cast(pl.Datetime("ms")),
    "ns": pl.Series([dt.datetime(2020, 1, 1, 12)]).cast(pl.Datetime("ns")),
    "zone": pl.Series([dt.datetime(2020, 1, 1, 13)]).dt.replace_time_zone("Europe/Berlin"),
    "text": pl.Series(["2020-01-01T13:00+01:00"]),
    "categories": pl.Series(["2020-01-01 12:00"], dtype=pl.Categorical),
    "uint64": pl.Series([UTC_NOON], dtype=pl.UInt64),
    "float32": pl.Series([UTC_NOON], dtype=pl.Float32),
    "decimal": pl.Series([str(UTC_NOON)]).cast(pl.Decimal(20, 3)),
}


@pytest.mark.parametrize("kind", TIME_COLUMNS)
def test_time_columns_of_parquet(tmp_path, kind):
    frame = pl.DataFrame({"SessionId": [1], "ItemId": [1], "Time": TIME_COLUMNS[kind]})
    frame.write_parquet(tmp_path / "log.parquet")
    error = 64 if kind == "float32" else 0  # all that it can tell
    assert abs(read_table(tmp_path / "log.parquet").times[0] - UTC_NOON) <= error


# --- frames and lists -----------------------------------------------------------------------------


class Arrow:
    """What a pyarrow.Table offers, without pyarrow."""

    def __init__(self, frame):
        self.__arrow_c_stream__ = frame.__arrow_c_stream__


@pytest.mark.parametrize("kind", ["lazy", "arrow", "pyarrow"])
def test_other_frames(kind):
    frame = pl.DataFrame({"Time": [3, 4], "SessionId": [1, 1], "x": [0, 0], "ItemId": ["a", "b"]})
    if kind == "pyarrow":
        pyarrow = pytest.importorskip("pyarrow")
        other = pyarrow.table(frame.to_dict(as_series=False))
    else:
        other = frame.lazy() if kind == "lazy" else Arrow(frame)
    assert as_lists(from_frame(other)) == as_lists(as_sessions(other)) == TWO_ROWS
    if kind == "lazy":
        with one_line_error("frame: not a readable table"):
            from_frame(frame.lazy().select(pl.col("absent")))


@pytest.mark.parametrize(
    "lists",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        [np.array([1, 2]), np.array([3, 4])],
        iter([[1, 2], [3, 4]]),
    ],
)
def test_lists_are_sessions(lists):
    expected = as_lists(Sessions.from_lists([[1, 2], [3, 4]]))
    assert as_lists(as_sessions(lists)) == expected


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ([1, 2], ["sessions: must be lists of item ids such as [[1, 2], [3, 4]]", "'1'"]),
        (["ab", "cd"], ["sessions: must be lists", "'ab'"]),
        ([{1, 2}], ["sessions: must be lists", "'{1, 2}'"]),
        ([], ["sessions: there are no events"]),
        ([[], []], ["sessions: there are no events"]),
        (np.zeros((2, 3)), ["must be a Polars or pandas frame, not ndarray"]),
        ({1, 2}, ["must be a Polars or pandas frame, not set"]),
    ],
)
def test_what_is_neither_frame_nor_lists(thing, words):
    with one_line_error(*words):
        as_sessions(thing)


UUIDS = [uuid.UUID(int=7), uuid.UUID(int=2**100)]


@pytest.mark.parametrize("kind", ["polars", "pandas", "lists", "file"])
def test_uuids_are_ids(tmp_path, kind):
    if kind == "lists":
        sessions = as_sessions([UUIDS])
    elif kind == "file":
        lines = "".join(f"{UUIDS[0]}\t{id}\t3\n" for id in UUIDS)
        (tmp_path / "log.tsv").write_text(HEADER + lines)
        sessions = read_table(tmp_path / "log.tsv")
    else:
        values = pl.Series(UUIDS, dtype=pl.Object) if kind == "polars" else UUIDS
        sessions = one_item(values, kind)
    assert sessions.item_ids.tolist() == list(map(str, UUIDS))


# --- sessions from other columns ------------------------------------------------------------------

EVENTS = [  # user, session, item, time, event
    ("u", 1, "a", 0, "view"),
    ("v", 1, "b", 1, "view"),
    ("u", 1, "c", 1800, "cart"),
    ("u", 2, "d", 3601, "view"),
    ("v", 1, "b", 1, "view"),
    ("u", 1, "a", 5401, "view"),
    ("w", 1, "a", 9, "buy"),
]
EVENT_NAMES = ["user", "session", "ItemId", "Time", "event"]


def read_events(tmp_path, kind, columns, events=EVENTS, **options):
    """The events as a log in one of the forms that there are, with the same options for all."""
    frame = pl.DataFrame(events, EVENT_NAMES, orient="row")
    if kind == "polars":
        return as_lists(from_frame(frame, columns, **options))
    if kind == "pandas":
        return as_lists(from_frame(pd.DataFrame(events, columns=EVENT_NAMES), columns, **options))
    if kind == "parquet":
        frame.write_parquet(tmp_path / "log.parquet")
        return as_lists(read_table(tmp_path / "log.parquet", columns, **options))
    frame.write_csv(tmp_path / "log.csv")
    return as_lists(read_table(tmp_path / "log.csv", columns, **options))


KINDS = pytest.mark.parametrize("kind", ["csv", "parquet", "polars", "pandas"])


@KINDS
@pytest.mark.parametrize("key", ["user,session", ("user", "session")])
def test_two_columns_make_a_session(tmp_path, kind, key):
    assert read_events(tmp_path, kind, (key, "ItemId", "Time")) == [
        ("u,1", [("a", 0.0), ("c", 1800.0), ("a", 5401.0)]),
        ("v,1", [("b", 1.0), ("b", 1.0)]),
        ("u,2", [("d", 3601.0)]),
        ("w,1", [("a", 9.0)]),
    ]


def test_combinations_of_values_with_commas_are_kept_apart(tmp_path):
    events = [("a,b", "c", 1, 1, ""), ("a", "b,c", 1, 1, ""), ("a\\", "b", 1, 1, "")]
    found = read_events(tmp_path, "polars", ("user,session", "ItemId", "Time"), events)
    assert [session for session, _ in found] == ["a\\,b,c", "a,b\\,c", "a\\\\,b"]
    frame = pl.DataFrame({"a,b": [1], "ItemId": [2], "Time": [3]})  # a name may have a comma
    assert as_lists(from_frame(frame, ("a,b", "ItemId", "Time"))) == [(1, [(2, 3.0)])]
    with one_line_error("no column 'a'; it has 'a,b', 'ItemId', 'Time'"):
        from_frame(frame, ("a,x", "ItemId", "Time"))


@KINDS
def test_only_a_session_may_have_two_columns(tmp_path, kind):
    for columns, keep, name in (
        (("user", "ItemId,event", "Time"), None, "ItemId,event"),
        (("user", "ItemId", "session,Time"), None, "session,Time"),
        (("user", "ItemId", "Time"), ("user,event", "u,view"), "user,event"),
    ):
        with one_line_error(f"no column '{name}'; it has 'user', 'session', 'ItemId'"):
            read_events(tmp_path, kind, columns, keep=keep)


@KINDS
def test_sessions_are_cut_by_a_gap(tmp_path, kind):
    columns = ("user", "ItemId", "Time")
    assert read_events(tmp_path, kind, columns, session_gap=1800) == [
        (1, [("a", 0.0), ("c", 1800.0)]),  # no longer than the gap
        (2, [("d", 3601.0), ("a", 5401.0)]),  # and longer by a second
        (3, [("b", 1.0), ("b", 1.0)]),
        (4, [("a", 9.0)]),
    ]


@KINDS
def test_events_are_kept_by_value(tmp_path, kind):
    columns = ("user", "ItemId", "Time")
    found = read_events(tmp_path, kind, columns, keep=("event", ("cart", "buy")))
    assert found == [("u", [("c", 1800.0)]), ("w", [("a", 9.0)])]
    assert read_events(tmp_path, kind, columns, keep=("session", "2")) == [("u", [("d", 3601.0)])]
    with one_line_error("no row has 'click' in column event; it has 'view', 'cart', 'buy'"):
        read_events(tmp_path, kind, columns, keep=("event", "click"))
    with one_line_error("no column 'type'"):
        read_events(tmp_path, kind, columns, keep=("type", "click"))


@KINDS
def test_rows_that_are_passed_over_are_counted(tmp_path, kind):
    """The number in a message is the row's in the table."""
    events = [*EVENTS[:3], ("u", 1, None, 5, "view")]
    row = {"csv": 5, "parquet": 4}.get(kind, 3)
    with one_line_error(f"row {row}, column ItemId: the value is missing"):
        read_events(tmp_path, kind, ("user", "ItemId", "Time"), events, keep=("event", "view"))
    events = [("u", 1, None, 5, "cart"), *EVENTS]
    found = read_events(
        tmp_path, kind, ("user", "ItemId", "Time"), events, keep=("event", "view"), session_gap=1800
    )
    assert sum(len(session) for _, session in found) == 5


@KINDS
def test_duplicates_are_dropped_on_request(tmp_path, kind):
    columns = ("user", "ItemId", "Time")
    found = dict(read_events(tmp_path, kind, columns, duplicates=False))
    assert found["v"] == [("b", 1.0)]
    assert sum(map(len, found.values())) == len(EVENTS) - 1


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30))
def test_of_duplicates_the_first_is_kept(rows):
    frame = pl.DataFrame(rows, ("SessionId", "ItemId", "Time"), orient="row")
    assert as_lists(from_frame(frame, duplicates=False)) == group(list(dict.fromkeys(rows)))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 30)), min_size=1),
    st.integers(1, 6),
)
def test_cut_is_what_a_loop_cuts(rows, gap):
    expected = []
    for _, events in group(rows):
        for i, event in enumerate(events):
            if i == 0 or event[1] - events[i - 1][1] > gap:
                expected.append([])
            expected[-1].append(event)
    frame = pl.DataFrame(rows, ("SessionId", "ItemId", "Time"), orient="row")
    assert as_lists(from_frame(frame, session_gap=gap)) == list(enumerate(expected, 1))


@pytest.mark.parametrize("gap", [0, -1, float("nan"), float("inf")])
def test_gaps_that_are_none(gap):
    frame = pl.DataFrame({"SessionId": [1], "ItemId": [1], "Time": [1]})
    with one_line_error("session_gap: must be a number of seconds above 0, not"):
        from_frame(frame, session_gap=gap)


# --- several files --------------------------------------------------------------------------------


def test_several_files_are_one_log(tmp_path):
    """In any formats: a session may go on in the next, and ids are numbers only if all are."""
    a, b, c = tmp_path / "a.tsv", tmp_path / "b.csv.gz", tmp_path / "c.parquet"
    a.write_text(HEADER + "1\t5\t3\n2\t6\t4\n")
    b.write_bytes(gzip.compress(b"x;Time;ItemId;SessionId\n0;1970-01-01 00:00:01Z;6;1\n"))
    frame = pl.DataFrame({"SessionId": [2, 3], "ItemId": [7, 5], "Time": [5, 6]})
    frame.write_parquet(c)
    expected = [(1, [(6, 1.0), (5, 3.0)]), (2, [(6, 4.0), (7, 5.0)]), (3, [(5, 6.0)])]
    assert as_lists(read_table([a, b, c])) == expected
    assert as_lists(read_table([a])) == as_lists(read_table(a))
    doubled = read_table([a, b, c, a], duplicates=False)
    assert as_lists(doubled) == expected
    frame.with_columns(pl.lit("x").alias("ItemId")).write_parquet(c)
    assert read_table([a, c]).item_ids.tolist() == ["5", "6", "x"]
    with one_line_error("none.tsv: no such file"):
        read_table([a, tmp_path / "none.tsv"])
    with one_line_error("read_table: no file is given"):
        read_table([])
    a.write_text(HEADER + "1\t5\t3\n2\t6\n")
    with one_line_error("a.tsv, row 3: 2 columns"):
        read_table([b, a])
    frame.cast({"ItemId": pl.Float64}).write_parquet(c)
    with one_line_error("c.parquet, column ItemId: values of type Float64, but of type Int64"):
        read_table([b, c])


# --- reading: what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the file is empty"]),
        ("\n", ["row 1: a blank line where names of columns are expected"]),
        (HEADER, ["no rows"]),
        (HEADER.strip(), ["no rows"]),
        ("SessionId\tTime\n1\t2\n", ["no column 'ItemId'", "'SessionId', 'Time'"]),
        ("SessionId:ItemId:Time\n1:2:3\n", ["no column 'SessionId'", "separated by tabs"]),
        (HEADER + "1\ta\t5\n1\tb\tsoon\n", ["row 3", "Time", "'soon'", "ISO"]),
        (HEADER + "1\ta\tsoon\n", ["row 2", "Time", "'soon'"]),
        (HEADER + "1\ta\t2014-04-07\n1\tb\tsoon\n", ["row 3", "Time", "'soon'"]),
        (HEADER + "1\ta\t5\n1\tb\t2014-04-07\n", ["row 3", "Time", "'2014-04-07'"]),
        (HEADER + "1\ta\tnan\n", ["row 2", "Time", "'nan'"]),
        (HEADER + "1\ta\t2014-04-07\n" * 2 + "1\ta\tNaN\n", ["row 4", "Time", "'NaN'"]),
        (HEADER + "1\ta\t2014-04-07\n" * 2 + "1\ta\t5\n", ["row 4", "Time", "'5'"]),
        (HEADER + "1\ta\t5\n1\tb\tinf\n", ["row 3", "Time", "'inf'"]),
        (HEADER + '1\ta\t"5"\n', ["row 2", "Time", """'"5"'"""]),
        (
            HEADER + "1\ta\t99999999999\n1\ta\t100000000000\n",
            ["row 3", "Time", "too large for s since 1970", "--time-unit ms"],
        ),
        (
            HEADER + "1\ta\t1396867869277\n",
            ["row 2", "1396867869277", "is it ms?", "--time-unit ms", "time_unit='ms'"],
        ),
        (HEADER + "1\ta\t1396867869277123\n", ["row 2", "is it us?", "--time-unit us"]),
        (HEADER + "1\ta\t-1e300\n", ["row 2", "too large for s"]),
        (
            HEADER + "1\ta\t1396867869277123789\n",
            ["row 2", "1396867869277123789 is too large for s", "is it ns?", "--time-unit ns"],
        ),
        (HEADER + "1\ta\t20140407105109\n", ["row 2", "20140407105109 looks like a date", ":09"]),
        (HEADER + "1\ta\t20140407\n1\tb\t20141231\n", ["row 2", "20140407 looks like a date"]),
        (HEADER + "1\ta\t04/07/2014\n", ["row 2", "'04/07/2014'", "ISO"]),
        *(
            (HEADER + f"1\ta\t{time}\n", ["row 2", time, "like 2014-04-07T10:51:09.277Z is"])
            for time in ("20140407T105109Z", "2014-04-07 10:51:09,277", "2014-04-07t10:51:09z")
        ),
        (HEADER + "1\ta\t07.04.2014 10:51\n", ["row 2", "'07.04.2014 10:51'", "ISO"]),
        (HEADER + "1\ta\t2014-02-30\n", ["row 2", "'2014-02-30'"]),
        (HEADER + "1\ta\t2014-04-07T10:00Z\n1\ta\t2014-04-07T10:00\n", ["row 3", "rows alike"]),
        (HEADER + "1\ta\t2014-04-07T10:00\n1\ta\t2014-04-07T10:00Z\n", ["row 3", "rows alike"]),
        (HEADER + "1\ta\t2014-04-07 10:00 CEST\n", ["row 2", "CEST"]),
        (HEADER + "1\ta\t5\n\n1\tb\t6\n", ["row 3: no columns where 3 are expected", "SessionId"]),
        ((HEADER + "1\ta\t5\n").encode("utf-16"), ["is UTF-16"]),
        ((HEADER + "1\ta\t5\n").replace("\n", "\r").encode(), ["row 1: a carriage return without"]),
        ("\t".join(f"column {i}" for i in range(999)) + "\n", ["'column 0'", "'column 1'", "..."]),
        (HEADER + "1\ta\t5\n1\t\t5\n", ["row 3", "ItemId", "missing"]),
        (HEADER + "\ta\t5\n", ["row 2", "SessionId", "missing"]),
        (HEADER + "1\ta\n", ["row 2: 2 columns where 3 are expected", "Time"]),
        (HEADER + "1\ta\t5\t6\n", ["row 2: 4 columns where 3 are expected", "Time"]),
        (
            b"SessionId\tItemId\tTime\n1\tcaf\xe9\t5\n",
            ["row 2: column ItemId", "0xe9", "not UTF-8"],
        ),
    ],
)
def test_text_files_that_are_refused(tmp_path, text, words):
    with one_line_error(str(tmp_path / "log.tsv"), *words):
        read(tmp_path, text)


def test_missing_file(tmp_path):
    with one_line_error("none.tsv: no such file"):
        read_table(tmp_path / "none.tsv")
    with one_line_error(f"{tmp_path}: is a directory, not a file"):
        read_table(tmp_path)


def test_broken_parquet(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"SessionId": ["a"] * 9, "ItemId": range(9), "Time": range(9)}).write_parquet(path)
    whole = path.read_bytes()
    no_end, no_start = whole[:-1], whole[20:]
    for fault in (b"no parquet at all", no_end, no_start, whole[:-9] + whole[-8:], b"PAR1" * 3):
        with one_line_error(str(path), "not a readable table"):
            read(tmp_path, fault, "log.parquet")


@pytest.mark.parametrize("column", ["SessionId", "ItemId"])
@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_nan_is_no_id(column, kind):
    values = {"SessionId": [1.0] * 3, "ItemId": [1.0, 2.5, 3.0], "Time": [1, 2, 3]}
    values[column] = [1.0, float("nan"), 2.0]
    with one_line_error(f"row 1, column {column}", "missing"):
        from_frame((pl if kind == "polars" else pd).DataFrame(values))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('1,"a,3\n1,b,4\n', "a quotation mark opens a value that does not end"),
        ('1,"a"x,3\n', "text after the quotation mark"),
        ('1,"a\n', "a quotation mark opens a value that does not end"),
    ],
    ids=["open to the end", "text after a quote", "cut off"],
)
def test_quotes_that_do_not_close(tmp_path, text, words):
    with one_line_error("log.csv, row 2", words):
        read(tmp_path, "SessionId,ItemId,Time\n" + text, "log.csv")


@pytest.mark.parametrize("column", ["SessionId", "ItemId", "Time"])
@pytest.mark.parametrize("kind", ["polars", "pandas", "parquet"])
def test_null_values_name_row_and_column(tmp_path, column, kind):
    values = {"SessionId": [1, 1, 2], "ItemId": ["a", "b", "c"], "Time": [1.0, 2.0, 3.0]}
    values[column] = [values[column][0], None, values[column][2]]
    row = 2 if kind == "parquet" else 1  # a file's rows count from 1, a frame's from 0
    with one_line_error(f"row {row}, column {column}", "missing"):
        if kind == "parquet":
            pl.DataFrame(values).write_parquet(tmp_path / "log.parquet")
            read_table(tmp_path / "log.parquet")
        else:
            from_frame((pl if kind == "polars" else pd).DataFrame(values))


@pytest.mark.parametrize("thing", [None, {"ItemId": [1]}, [1, 2], "log.tsv"])
def test_what_is_no_frame(thing):
    words = "frame: must be a Polars or pandas frame, not", type(thing).__name__
    with one_line_error(*words, "read_table reads files, Sessions.from_lists takes lists"):
        from_frame(thing)
    if not isinstance(thing, list):
        with one_line_error(*words):
            as_sessions(thing)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("ItemId", [[1]]),
        ("SessionId", [{"a": 1}]),
        ("Time", [[1]]),
        ("Time", pl.Series([5]).cast(pl.Duration("ms"))),
        ("Time", pl.Series([5]).cast(pl.Time)),
        ("Time", [True]),
        ("ItemId", [b"\xff"]),
    ],
    ids=["list id", "struct id", "list time", "duration", "time of day", "bool", "bytes"],
)
def test_column_types_that_make_no_sense(column, values):
    frame = pl.DataFrame({"SessionId": [1], "ItemId": [1], "Time": [1]} | {column: values})
    with one_line_error("frame", column):
        from_frame(frame)


def test_a_pandas_column_of_mixed_ids_is_named():
    frame = pd.DataFrame({"SessionId": [1, 1], "ItemId": [1, "a"], "Time": [1, 2]})
    with one_line_error("frame", "ItemId"):
        from_frame(frame)
