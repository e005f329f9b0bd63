"""`python -m gru4rec_np.course`: the course's notebooks, which exercises are done, what is next.

The notebooks and their checks are in tutorials/ of a checkout. An installed package has a copy of
that folder, which `--copy` puts where one can write.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gru4rec_np.console import cli
from gru4rec_np.errors import InputError

BAR = 10  # width of a progress bar
NOT_COPIED = ("progress.json", "__pycache__", ".ipynb_checkpoints")
# In an installed package, in a checkout.
SHIPPED = (Path(__file__).with_name("tutorials"), Path(__file__).parents[1] / "tutorials")
ARGUMENTS: cli.Arguments = {
    "--dir": (cli.DIR | cli.UNSET,
              "folder of the course (default: tutorials/ here, above, or beside the package)"),
    "--copy": (cli.DIR | cli.UNSET, "copy the notebooks with their checks to a new folder first"),
}  # fmt: skip


def find_tutorials(given: str | None) -> Path:
    """The folder with the course: the one given, or tutorials/ here, above, or beside the package.

    Raises:
        InputError: it is not there.
    """
    here = Path.cwd()
    roots = [here, *here.parents, Path(__file__).resolve().parents[1]]
    usual = [here, *(root / "tutorials" for root in roots)]
    for place in usual if given is None else [Path(given)]:
        if (place / "checks" / "__init__.py").is_file():
            return place.resolve()
    if given is not None:
        raise InputError(f"--dir {given}: the course is not there (no {Path(given)}/checks)")
    raise InputError(
        f"the course is not found in {here} or above: start this in a checkout of gru4rec_np, or "
        "name its folder tutorials/ with --dir, or get a copy with --copy DIR"
    )


def copy(target: Path) -> None:
    """Copy the course to a folder, which is made, whole or not at all.

    Raises:
        InputError: the folder is there and has files in it, or cannot be written.
    """
    source = next((place for place in SHIPPED if (place / "checks").is_dir()), None)
    if source is None:
        raise InputError("--copy: this installation of gru4rec_np has no course")
    try:
        if target.is_dir() and any(target.iterdir()):
            raise InputError(f"--copy {target}: has files in it; name a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".course-") as part:
            whole = Path(part, "tutorials")
            shutil.copytree(source, whole, ignore=shutil.ignore_patterns(*NOT_COPIED))
            whole.replace(target)
    except OSError as error:
        raise InputError(f"--copy {target}: {error.strerror or error}") from None


def title_of(path: Path) -> str:
    """The first heading of a notebook, without its number.

    Raises:
        InputError: the file is no notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join(cells[0]["source"]).splitlines()
        heading = next(line for line in lines if line.startswith("# "))
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise InputError(f"{path}: not a notebook of the course: {error}") from None
    return heading.removeprefix("# ").split(". ", 1)[-1]


def overview(notebooks: dict[int, Path], checks: Any) -> str:
    """The text that the command prints.

    Args:
        notebooks: number to file. checks: the module tutorials/checks.
    """
    done = set(checks.progress())
    exercises = {number: checks.chapter(number) for number in notebooks}
    every = [e for chapter in exercises.values() for e in chapter]
    finished = sum(e.number in done for e in every)
    lines = [f"{finished} of {len(every)} exercises done", ""]
    following = None
    for number, path in notebooks.items():
        chapter = exercises[number]
        n = sum(e.number in done for e in chapter)
        filled = BAR * n // len(chapter) if chapter else 0
        bar = "█" * filled + "░" * (BAR - filled) if chapter else " " * BAR
        count = f"{n}/{len(chapter)}" if chapter else ""
        lines.append(f"{number:>2}  {bar}  {count:>4}  {title_of(path)}")
        for e in chapter:
            lines.append(f"{'✓' if e.number in done else '·':>24} {e.number:5} {e.title}")
            if following is None and e.number not in done:
                following = e, path
    if following:
        exercise, path = following
        lines += ["", f"next: {exercise.number} {exercise.title}, in {path}"]
    elif every:
        lines += ["", "all done"]
    return "\n".join(lines)


def main() -> None:
    """Run the command on sys.argv."""
    parser = cli.Parser(
        "course",
        description="The course's notebooks, which exercises are done, and what is next.",
    )
    cli.add_arguments(parser, ARGUMENTS)
    args = vars(parser.parse_args())
    if "copy" in args:
        if "dir" in args:
            raise InputError("--copy: not with --dir")
        copy(Path(args["copy"]))
        args["dir"] = args["copy"]
        print(f"copied; to begin: cd {cli.shown(args['copy'], 200)} && jupyter lab\n")
    tutorials = find_tutorials(args.get("dir"))
    sys.path.insert(0, str(tutorials))
    import checks

    notebooks = {int(path.name[:2]): path for path in sorted(tutorials.glob("[0-9][0-9]-*.ipynb"))}
    print(overview(notebooks, checks))


if __name__ == "__main__":
    cli.run(main)
