"""Numba's machine code on disk: an upgrade never runs old code, and any folder or none will do."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
cache = pytest.importorskip("gru4rec_np.backends.numba.cache")
compiled = pytest.importorskip("gru4rec_np.backends.numba.compiled")
PACKAGE = Path(cache.HERE).parents[2]
ONE, TWO = {"one": (b"first", b"second")}, {"two": (b"", b"\n\0")}


@pytest.fixture
def places(monkeypatch, tmp_path):
    """The places of a new Cache: one that cannot be made, and the user's folder."""
    (tmp_path / "file").touch()
    found = [tmp_path / "file/cache.pyo", tmp_path / "user/cache.pyo"]
    monkeypatch.setattr(cache.Cache, "_places", lambda self: found)
    return found


def test_a_file_holds_what_was_written(tmp_path):
    path = tmp_path / "new/file"
    cache.write(path, "these sources", ONE | TWO)
    assert cache.read(path, "these sources") == ONE | TWO
    assert cache.read(path, "other sources") == {}
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 32 + b"{}\n", "cut", "changed"])
def test_a_damaged_file_counts_as_empty(tmp_path, damage):
    path = tmp_path / "file"
    cache.write(path, "", ONE)
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-1], "changed": data[:-1] + b"?"}.get(damage, damage))
    assert cache.read(path, "") == {}


def test_the_first_place_that_is_writable_is_taken(places, capsys):
    cache.Cache().put("key", (b"1", b"2"))
    assert places[1].exists() and cache.Cache().get("key") == (b"1", b"2")
    assert capsys.readouterr().err == ""


def test_what_another_process_compiled_is_found_and_kept(places):
    ours, theirs = cache.Cache(), cache.Cache()
    assert ours.get("theirs") is None
    theirs.put("theirs", (b"", b"t"))
    ours.put("ours", (b"", b"o"))
    assert ours.get("theirs") == (b"", b"t") and theirs.get("ours") == (b"", b"o")
    assert set(cache.Cache()._found) == set() and cache.Cache().get("ours")


def test_processes_that_write_at_once_leave_a_whole_file(tmp_path):
    path, seen = tmp_path / "file", []

    def keep_writing(found):
        for _ in range(50):
            cache.write(path, "", found)
            seen.append(cache.read(path, ""))

    threads = [threading.Thread(target=keep_writing, args=(found,)) for found in (ONE, TWO)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 100 and all(found in (ONE, TWO) for found in seen)


def test_without_a_writable_folder_a_line_says_so(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "HERE", tmp_path / "file/cache.py")
    monkeypatch.setattr(cache, "sources", lambda: "sources")
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    found = cache.Cache()
    for key in ("one", "two"):
        found.put(key, (b"", b""))
    line = f"compiled code: it is kept in {cache._temporary()}, as no better folder is writable\n"
    assert capsys.readouterr().err == line
    assert cache.Cache().get("two") == (b"", b"")
    if hasattr(os, "getuid"):  # a folder that others can write to could hold anybody's code
        cache._temporary().chmod(0o777)
        assert cache.Cache().get("two") is None
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    found = cache.Cache()
    for key in ("one", "two"):
        found.put(key, (b"", b""))
    assert found.get("one") == (b"", b"") and "it is not kept" in capsys.readouterr().err


RUN = """
import numpy as np
from gru4rec_np.backends.numba import kernels, maths

y = np.zeros(3, np.float32)
kernels.gate(y, y, y)
print(y[0])
"""


def test_changed_sources_are_compiled_again(tmp_path):
    """One version of the package is installed over another, whose compiled code stays there."""
    installed = tmp_path / "gru4rec_np"
    shutil.copytree(PACKAGE, installed, ignore=shutil.ignore_patterns("__pycache__", "*.pyo"))
    env = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}

    def run():
        done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=env,
                              capture_output=True, text=True, check=True)  # fmt: skip
        return float(done.stdout)

    assert run() == 0.5
    kept = (installed / "backends/numba/cache.pyo").read_bytes()
    assert kept
    source = installed / "backends/numba/maths.py"  # gate stands in kernels.py, which stays
    text = source.read_text()
    changed = text.replace("return (one if x >= 0 else e) /", "return (one + one) /")
    assert changed != text
    source.write_text(changed)
    assert run() == 1.0
    assert (installed / "backends/numba/cache.pyo").read_bytes() != kept


class Interrupting:
    """A kernel during whose compiling a signal comes, such as that of Ctrl-C."""

    def __init__(self, number):
        self.number = number

    def needs(self):
        return []

    def is_ready(self, f):
        return False

    def load(self, f):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_compiling_at_once(places, number):
    """Although a training's own handler would wait for the end of a chunk of steps."""
    asked = []
    before = signal.signal(number, lambda *of: asked.append(of))
    try:
        with pytest.raises(KeyboardInterrupt) as stop:
            compiled.prepare([Interrupting(number)], None)
        signal.raise_signal(number)
        signal.signal(number, signal.SIG_IGN)
        compiled.prepare([Interrupting(number)], None)
    finally:
        signal.signal(number, before)
    assert stop.value.args == (number,) and len(asked) == 1


def test_nothing_is_left_to_compile_when_an_epoch_begins():
    operations = pytest.importorskip("gru4rec_np.backends.numba.operations")
    own = [*vars(operations).values(), *vars(operations.encoders).values()]
    used = {k for k in own if isinstance(k, compiled.Kernel)}
    catalogue = {operations.score_catalogue, operations.score_pairs, operations.count_scores}
    prepared = {*operations.STEP_BY_STEP, *operations.WHOLE_SESSIONS}
    assert used - catalogue == prepared


def test_threads_that_call_first_load_once(places, monkeypatch):
    """A second copy of the machine code would free the first one under a thread that runs it."""
    monkeypatch.setattr(compiled, "cache", cache.Cache())

    @compiled.kernel(kinds={"y": compiled.Vector})
    def one_more(y):
        for j in range(len(y)):
            y[j] += 1

    loads, load, y = [], one_more._load, np.zeros((4, 8), np.float32)

    def slowly(f):
        loads.append(f)
        time.sleep(0.05)
        return load(f)

    monkeypatch.setattr(one_more, "_load", slowly)
    threads = [threading.Thread(target=one_more, args=(row,)) for row in y]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and (y == 1).all()
