"""Run the notebooks from the command line: as shipped, with the solutions put in, or to store their
outputs.

    python tutorials/run.py            all of them, as shipped
    python tutorials/run.py 4 5        these
    python tutorials/run.py --solve    with the exercises' holes filled from tutorials/solutions
    python tutorials/run.py --write    and keep the outputs in the files (exercises open)
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

TUTORIALS = Path(__file__).resolve().parent
HEADER = re.compile(r"^# exercise (\d+\.\d+)\b.*$", re.MULTILINE)


def notebooks() -> dict[int, Path]:
    """Number to file of every notebook, in order."""
    return {int(path.name[:2]): path for path in sorted(TUTORIALS.glob("[0-9][0-9]-*.ipynb"))}


def solutions(number: int) -> dict[str, str]:
    """Exercise to the code of its solution, header included, from solutions/chNN.py."""
    path = TUTORIALS / "solutions" / f"ch{number:02}.py"
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    starts = list(HEADER.finditer(text))
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {m[1]: text[m.start() : end].strip() for m, end in zip(starts, ends, strict=True)}


def exercise_of(cell: nbformat.NotebookNode) -> str | None:
    """The number of the exercise that a cell holds, or None."""
    found = HEADER.match(cell.source) if cell.cell_type == "code" else None
    return found[1] if found else None


def solved(notebook: nbformat.NotebookNode, number: int) -> nbformat.NotebookNode:
    """A copy with each exercise's code, down to the line that checks it, replaced by its solution.

    Raises:
        LookupError: an exercise has no solution, or its cell no check.
    """
    notebook = copy.deepcopy(notebook)
    known = solutions(number)
    for cell in notebook.cells:
        exercise = exercise_of(cell)
        if exercise is None:
            continue
        lines = cell.source.splitlines()
        at = [i for i, line in enumerate(lines) if f'check("{exercise}"' in line]
        if exercise not in known or not at:
            missing = "check in its cell" if exercise in known else "solution"
            raise LookupError(f"exercise {exercise} has no {missing}")
        cell.source = known[exercise] + "\n\n" + "\n".join(lines[at[0] :])
    return notebook


def execute(notebook: nbformat.NotebookNode, timeout: int = 300) -> nbformat.NotebookNode:
    """Run every cell, in tutorials/, with a progress file of its own.

    Raises:
        CellExecutionError: a cell failed; the message has the cell and the traceback.
    """
    notebook = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "GRU4REC_PROGRESS": str(Path(folder, "progress.json")),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        # By files, not ports: two runs at once cannot get in each other's way.
        manager = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",
            connection_file=str(Path(folder, "kernel.json")),
        )
        client = NotebookClient(
            notebook, manager, timeout=timeout, resources={"metadata": {"path": str(TUTORIALS)}}
        )
        client.execute(env=environment, cleanup_kc=True)  # or the kernel would stay
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from run to run and machine to machine, but for the outputs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{i:02}"
        if "outputs" in cell:  # progress bars end in what they showed last; of no use later
            cell.outputs = [o for o in cell.outputs if not of_a_bar(o.get("text", "x"))]
    return notebook


def of_a_bar(text: str) -> bool:
    """Whether a text is what a progress bar printed: it returns to its line, or moves up."""
    return "\r" in text or not text.replace("\x1b[A", "").strip()


def output_text(cell: nbformat.NotebookNode) -> str:
    """All that a cell printed or showed, as text."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append(output.get("text", ""))
        texts.append(output.get("data", {}).get("text/plain", ""))
    return "".join(texts)


def main() -> None:
    """Run the command on sys.argv."""
    parser = argparse.ArgumentParser(description="Run the course's notebooks.")
    parser.add_argument("numbers", nargs="*", type=int, help="which; all if none is given")
    parser.add_argument("--solve", action="store_true", help="put the solutions in first")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the files")
    args = parser.parse_args()
    if args.solve and args.write:
        parser.error("--write keeps the exercises open: not with --solve")
    known = notebooks()
    unknown = set(args.numbers) - set(known)
    if unknown:
        parser.error(f"there is no notebook {min(unknown)}; there are {', '.join(map(str, known))}")
    failed = False
    for number in args.numbers or known:
        path = known[number]
        notebook = nbformat.read(path, as_version=4)
        began = time.perf_counter()
        try:
            ran = execute(solved(notebook, number) if args.solve else notebook)
        except (CellExecutionError, LookupError) as error:
            failed = True
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        if args.write:
            nbformat.write(tidy(ran), path)
        seconds = time.perf_counter() - began
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} KB")
        for cell in ran.cells:
            exercise = exercise_of(cell)
            if exercise and (args.solve or args.write):
                print("   ", output_text(cell).strip().splitlines()[-1])
    sys.exit(failed)


if __name__ == "__main__":
    main()
