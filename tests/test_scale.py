"""The benchmark of a large log, on a small one: its stages agree, and find out if they do not."""

import argparse
import sys
from pathlib import Path
from unittest import mock

import pytest

from gru4rec_np import rawlogs, sessions

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import scale  # noqa: E402

ARGS = argparse.Namespace(scale=0.001, train_seconds=0.1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each stage's facts; files are read in many parts, as a large log's are."""
    folder, found = tmp_path_factory.mktemp("scale"), {}
    with (
        mock.patch.object(sessions, "ROWS", 10_000),
        mock.patch.object(rawlogs, "BLOCK", 2**18),
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
