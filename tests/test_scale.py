"""The benchmark of a large log, on a small one: its stages agree, and find out if they do not."""

import argparse
import re
import sys
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec_np import InputError, read_table
from gru4rec_np.data import blocks, rawcolumns, tables

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import scale  # noqa: E402

ARGS = argparse.Namespace(scale=0.001, train_seconds=0.1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each stage's facts; files are read in many parts, as a large log's are."""
    folder, found = tmp_path_factory.mktemp("scale"), {}
    with (
        mock.patch.object(tables, "ROWS", 10_000),
        mock.patch.object(rawcolumns, "BLOCK", 2**18),
        mock.patch.object(blocks, "BLOCK", 2**18),
        mock.patch.object(sys, "argv", []),
    ):
        for name, stage in scale.STAGES.items():
            if "numba" not in name and name != "training":
                found[name] = scale.facts(stage(folder, ARGS)) | {"peak": 0.0}
    return found


def test_parquet_csv_and_raw_log_are_the_same_sessions(results):
    scale.check(results)
    read = [facts["digest"] for name, facts in results.items() if name.startswith("read ")]
    assert len(read) == 6 and len(set(read[:-1])) == 1
    assert results["simulate"]["text"] == "36,546 events, 7,966 sessions, 500 items"


@pytest.mark.parametrize("name", ["read CSV", "read what it wrote"])
def test_another_log_is_an_error(name, results):
    with pytest.raises(SystemExit, match=f"{name}: not the same"):
        scale.check(results | {name: results[name] | {"digest": "another"}})


def test_too_much_memory_is_an_error(results):
    with pytest.raises(SystemExit, match=r"more than 4096 MiB: read CSV$"):
        scale.check(results | {"read CSV": results["read CSV"] | {"peak": 4097.0}})


def test_a_stage_in_a_process_of_its_own(tmp_path):
    found = scale.run("simulate", tmp_path, ["--scale", "0.001"])
    assert found["seconds"] > 0 and 20 < found["peak"] < 4096
    with pytest.raises(SystemExit, match="read CSV"):
        scale.run("read CSV", tmp_path, ["--scale", "0.001"])


CELLS = {
    "SessionId": ["1", "2", "03", "x", ""],
    "ItemId": ["7", "8", "-9", "b"],
    "Time": ["5", "6.5"],
}
DAYS = ["2014-04-07", "2014-04-07T10:51:09.277Z", "never"]


@given(st.data(), st.sampled_from(["csv", "tsv", "parquet"]), st.integers(1, 5))
def test_a_table_in_parts_is_the_table(tmp_path_factory, data, ending, rows):
    """Ids that turn out to be text, dates, faults, blank lines at the end: wherever a part ends."""
    cells = CELLS | {"Time": data.draw(st.sampled_from([CELLS["Time"], DAYS[:1], DAYS]))}
    cells |= {"SessionId": CELLS["SessionId"][: data.draw(st.integers(2, 5))]}
    table = data.draw(st.lists(st.tuples(*map(st.sampled_from, cells.values())), min_size=1))
    path = tmp_path_factory.getbasetemp() / f"parts.{ending}"
    if ending == "parquet":
        frame = pl.DataFrame(table, list(cells), orient="row")
        frame.with_columns(pl.all().replace("", None)).write_parquet(path)
    else:
        mark = {"csv": ",", "tsv": "\t"}[ending]
        text = "\n".join(mark.join(row) for row in [list(cells), *table])
        path.write_text(text + "\n" * data.draw(st.integers(0, 4)))

    def read():
        try:
            return vars(read_table(path))
        except InputError as error:
            return str(error)

    whole = read()
    with mock.patch.object(tables, "ROWS", rows), mock.patch.object(blocks, "BLOCK", 4 * rows):
        parts = read()
    if isinstance(whole, str):  # a part's fault is found before another's in a later one
        assert isinstance(parts, str) and re.search("row [0-9]+[:,]|one type|of type", parts)
    else:
        for name, array in whole.items():
            assert parts[name].dtype == array.dtype and parts[name].tolist() == array.tolist()


def test_blank_lines_in_the_middle_are_named_wherever_a_part_ends(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("SessionId,ItemId,Time\n1,1,1\n1,1,2\n\n\n1,1,3\n\n\n")
    for size in (1, 6, 7, 12, 30, 1000):
        with (
            mock.patch.object(blocks, "BLOCK", size),
            pytest.raises(InputError, match="row 4: no columns where 3 are expected"),
        ):
            read_table(path)
