"""The wheel as a user gets it: built, installed elsewhere, run there and inside a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from test_kernels import ops_of

import gru4rec_np
from gru4rec_np import Shop
from gru4rec_np.data.tables import write_table

ROOT = Path(__file__).resolve().parents[1]


def copy_sources(place):
    """A build leaves folders behind, which the next wheel would contain."""
    left_out = shutil.ignore_patterns("__pycache__", "progress.json", ".ipynb_checkpoints")
    for part in ("gru4rec_np", "kernels", "tutorials"):
        shutil.copytree(ROOT / part, place / part, ignore=left_out)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python in an environment that has the wheel and this one's dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    copy_sources(source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder, source],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
    )
    (folder / "log").mkdir()
    write_table(Shop(n_items=30).simulate(60), folder / "log" / "clicks.tsv")
    path = os.pathsep.join([str(site), sysconfig.get_paths()["purelib"]])

    def run(*arguments, cwd=folder / "log"):
        done = subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],  # -S: not the checkout, installed here
            cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.site = site
    return run


def test_the_wheel_has_all_that_it_needs(python):
    names = {str(p.relative_to(python.site)) for p in python.site.rglob("*") if p.is_file()}
    for file in ("py.typed", "kernels/gru.cu", "kernels/tile.cuh", "kernels/emulator/runtime.cpp",
                 "kernels/emulator/cooperative_groups/reduce.h",
                 "console/configurations/rsc15-bpr.toml", "console/page.html",
                 "backends/emulator/replay.html"):  # fmt: skip
        assert f"gru4rec_np/{file}" in names
    assert not any("test" in name.split("/")[0] for name in names)


@pytest.mark.parametrize("backend", ["numpy", "numba", "cuda-emulated"])
def test_a_run_from_the_wheel(python, backend, tmp_path):
    ops_of(backend)
    out = tmp_path / "run"
    python("-m", "gru4rec_np.train", "--train", "clicks.tsv", "--backend", backend, "--layers", "4",
           "--n-sample", "8", "--epochs", "1", "--out", out)  # fmt: skip
    assert "rank" in python("-m", "gru4rec_np.recommend", out, Shop(n_items=30).item_ids[0])


def test_the_course_comes_along(python, tmp_path):
    said = python("-m", "gru4rec_np.course", "--copy", tmp_path / "here" / "course")
    course = tmp_path / "here" / "course"
    assert f"cd {course} && jupyter lab" in said and "0 of 85 exercises done" in said
    files = {str(p.relative_to(ROOT / "tutorials")) for p in (ROOT / "tutorials").rglob("*")
             if p.is_file() and p.name not in ("progress.json",) and "__pycache__" not in p.parts
             and ".ipynb_checkpoints" not in p.parts}  # fmt: skip
    copied = {str(p.relative_to(course)) for p in course.rglob("*") if p.is_file()}
    assert copied == files | {name for name in copied if "__pycache__" in name}
    code = "from checks import check; check('0.1', lambda ranks, k: (ranks <= k).mean())"
    assert "✓ 0.1 is right" in python("-c", code, cwd=course)
    assert "1 of 85 exercises done" in python("-m", "gru4rec_np.course", cwd=course)


def test_commands_are_listed(python):
    text = python("-m", "gru4rec_np")
    for path in (ROOT / "gru4rec_np").glob("[a-z]*.py"):
        if "\ndef main()" in path.read_text(encoding="utf-8"):
            assert f"gru4rec_np.{path.stem}" in text
    assert python("-m", "gru4rec_np", "--version") == f"gru4rec_np {gru4rec_np.__version__}\n"


def test_inside_a_checkout(python):
    """The checkout's package is the one that runs, and finds its kernels by path."""
    code = "import gru4rec_np.files as f; print(f.KERNELS)"
    assert python("-c", code, cwd=ROOT).strip() == str(ROOT / "kernels")
    assert "usage" in python("-m", "gru4rec_np.train", "--help", cwd=ROOT)
    assert python("-c", code).strip() == str(python.site / "gru4rec_np" / "kernels")


def test_an_editable_installation_is_found_beside_its_checkout(tmp_path):
    """There the folder of the checkout could be taken for a package without __init__.py."""
    checkout = tmp_path / "gru4rec_np"
    copy_sources(checkout)
    build = "from setuptools import build_meta; build_meta.build_editable('..')"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    code = "import site; site.addsitedir('site'); import gru4rec_np; print(gru4rec_np.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]},
    )  # fmt: skip
    assert done.stdout.strip() == str(checkout / "gru4rec_np" / "__init__.py"), done.stderr
