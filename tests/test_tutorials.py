"""Every notebook runs as shipped, and its solutions are right."""

import re
import shutil

import nbformat
import pytest

import checks
import run
from conftest import only_explored

NOTEBOOKS = run.notebooks()
LARGEST = 700_000  # bytes


@pytest.fixture(autouse=True)
def compiler(request):
    """Notebook 11 runs CUDA kernels on the emulator."""
    if request.node.callspec.params["number"] == 11 and shutil.which("g++") is None:
        pytest.skip("there is no g++")


def read(number):
    return nbformat.read(NOTEBOOKS[number], as_version=4)


def exercises(notebook):
    return [e for cell in notebook.cells if (e := run.exercise_of(cell))]


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_as_shipped_then_solved(number):
    """The exercises' cells come again at the end, with the solutions put in."""
    notebook = read(number)
    shipped = len(notebook.cells)
    solved = run.solved(notebook, number).cells
    notebook.cells += [cell for cell in solved if run.exercise_of(cell)]
    for i, cell in enumerate(run.execute(notebook).cells):
        if exercise := run.exercise_of(cell):
            wanted = f"… {exercise} not yet" if i < shipped else f"✓ {exercise} is right"
            assert wanted in run.output_text(cell)


@only_explored  # the test above runs the same solutions, after all other cells
@pytest.mark.parametrize("number", NOTEBOOKS)
def test_solved(number):
    for cell in run.execute(run.solved(read(number), number)).cells:
        if exercise := run.exercise_of(cell):
            assert f"✓ {exercise} is right" in run.output_text(cell)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_reads_well_where_it_is_only_rendered(number):
    notebook = read(number)
    assert NOTEBOOKS[number].stat().st_size < LARGEST
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "not run: python tutorials/run.py --write"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
        # Nothing of the machine that it was run on.
        assert not re.search(r"(^|[\s\"'(])/(work|tmp|home|root|usr)/", run.output_text(cell))


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_exercises_checks_and_solutions_belong_together(number):
    there = exercises(read(number))
    assert there == [e.number for e in checks.chapter(number)]
    assert there == list(run.solutions(number))
    assert there == [f"{number}.{i + 1}" for i in range(len(there))]
    assert len(there) >= (2 if number else 0)
