"""The course's exercises: what an answer must do, the mistakes that have names, and the verdict.

A notebook calls `check` and `hint`; each chapter's exercises stand in a file of their own, ch04.py
for notebook 4. Imports NumPy and the package's file writer; the chapters import the package.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.files import write_text

TUTORIALS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Exercise:
    """A function that the reader writes.

    Attributes:
        number: "4.2", the second exercise of notebook 4.
        title: what it is, in a few words.
        right: computes what the answer must; the package's own function where there is one.
        cases: rng to a list of tuples of arguments. The same seed is used at each check.
        mistakes: what went wrong, as one would tell a friend, to a function that does just that.
            An answer that gives what it gives has made that mistake. It may also be one that
            raises, which is then a mistake that is seen by other means.
        hints: shown one at a time, from a nudge to nearly all.
        parts: names of what is returned, where that is a tuple.
        run: (answer, arguments) to the result that is compared, where calling will not do.
        tolerance: relative; absolute too, times the largest entry of what is expected.
        given: what a notebook goes on with in place of a wrong answer, where that is not `right`.
    """

    number: str
    title: str
    right: Callable
    cases: Callable[[np.random.Generator], Sequence[tuple]]
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    hints: Sequence[str] = ()
    parts: Sequence[str] = ()
    run: Callable[[Any, tuple], Any] = lambda answer, args: answer(*args)
    tolerance: float = 1e-6
    given: Callable | None = None


class Wrong(Exception):
    """Raised by an exercise's `run`; its text is what is to be said of the answer."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an answer: state "right", "open" or "wrong", and the words.

    An answer is open while it returns nothing or raises NotImplementedError, whose text, if it has
    one, says what to do.
    """

    state: str
    text: str = ""


def chapter(number: int) -> list[Exercise]:
    """The exercises of a notebook, in order; none if it has no file here."""
    try:
        return importlib.import_module(f"checks.ch{number:02}").EXERCISES
    except ModuleNotFoundError as error:
        if error.name == f"checks.ch{number:02}":
            return []
        raise


def find(number: str) -> Exercise:
    """The exercise with a number such as "4.2".

    Raises:
        LookupError: there is none.
    """
    for exercise in chapter(int(number.split(".")[0])):
        if exercise.number == number:
            return exercise
    raise LookupError(f"there is no exercise {number}")


# --- the verdict ----------------------------------------------------------------------------------


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Run an answer on the exercise's cases and compare."""
    cases = list(exercise.cases(np.random.default_rng(0)))
    found, expected = [], []
    for args in cases:
        given = copy.deepcopy(args)
        try:
            result = exercise.run(answer, given)
        except NotImplementedError as error:
            return Verdict("open", str(error))
        except Wrong as error:
            return Verdict("wrong", str(error))
        except Exception as error:  # whatever a reader's code may raise
            return Verdict("wrong", _stopped(error))
        if result is None or result is Ellipsis:
            return Verdict("open")
        want = exercise.right(*copy.deepcopy(args))
        if isinstance(want, tuple) and isinstance(result, np.ndarray):
            if result.shape == (len(want),):
                result = tuple(result)  # np.quantile(x, [low, high]) is as good as two numbers
        if isinstance(want, tuple) and not isinstance(result, tuple):
            n = len(want)
            return Verdict("wrong", f"it must return {n} things{_named(exercise)}")
        if isinstance(want, tuple) and any(part is None or part is Ellipsis for part in result):
            return Verdict("open")
        if not _same(given, args, 0):
            return Verdict("wrong", "it changes its arguments; work on a copy")
        found.append(result if isinstance(result, tuple) else (result,))
        expected.append(want if isinstance(want, tuple) else (want,))
    if all(_same(f, e, exercise.tolerance) for f, e in zip(found, expected, strict=True)):
        return Verdict("right")
    return Verdict("wrong", _named_mistake(exercise, cases, found, expected))


def _named_mistake(
    exercise: Exercise, cases: list[tuple], found: list[tuple], expected: list[tuple]
) -> str:
    """The mistake that gives what was found, whole or in parts; else how it differs."""
    made = {}
    for name, mistake in exercise.mistakes.items():
        try:
            results = [mistake(*copy.deepcopy(args)) for args in cases]
        except Exception:  # it is one that shows by raising
            continue
        made[name] = [r if isinstance(r, tuple) else (r,) for r in results]
    for name, results in made.items():
        if all(_same(f, r, exercise.tolerance) for f, r in zip(found, results, strict=True)):
            return name
    if len({len(f) for f in found} | {len(e) for e in expected}) > 1:
        things = "1 thing" if len(expected[0]) == 1 else f"{len(expected[0])} things"
        return f"it must return {things}{_named(exercise)}, not {len(found[0])}"

    said: dict[str, list[str]] = {}  # what is wrong, to the parts where it shows
    for i in range(len(expected[0])):
        mine, want = [f[i] for f in found], [e[i] for e in expected]
        tolerance = exercise.tolerance
        if all(_same(m, w, tolerance) for m, w in zip(mine, want, strict=True)):
            continue
        for name, results in made.items():
            theirs = [r[i] for r in results]
            same = all(_same(m, t, tolerance) for m, t in zip(mine, theirs, strict=True))
            if same and not all(_same(t, w, tolerance) for t, w in zip(theirs, want, strict=True)):
                text = name
                break
        else:
            text = _difference(mine, want, tolerance)
        said.setdefault(text, []).extend(exercise.parts[i : i + 1])
    lines = [f"{', '.join(at)}: {text}" if at else text for text, at in said.items()]
    rest = f"; and {len(lines) - 2} more: mend the first one first" if len(lines) > 2 else ""
    return "; ".join(lines[:2]) + rest


def _named(exercise: Exercise) -> str:
    return f" ({', '.join(exercise.parts)})" if exercise.parts else ""


def _same(a: Any, b: Any, tolerance: float) -> bool:
    """Whether two results are equal: numbers within the tolerance, all else exactly."""
    if isinstance(b, Mapping):
        return (
            isinstance(a, Mapping)
            and set(a) == set(b)
            and all(_same(a[k], b[k], tolerance) for k in b)
        )
    if is_dataclass(b):
        return type(a) is type(b) and all(
            _same(getattr(a, f.name), getattr(b, f.name), tolerance) for f in fields(b)
        )
    if isinstance(b, list | tuple):
        return (
            isinstance(a, list | tuple | np.ndarray)
            and len(a) == len(b)
            and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
        )
    if isinstance(b, np.ndarray | float | int | np.generic):
        try:
            a, b = np.asarray(a), np.asarray(b)
            if a.shape != b.shape:
                return False
            if b.dtype.kind not in "fiub" or a.dtype.kind not in "fiub":
                return bool(np.array_equal(a, b))
            finite = np.abs(b[np.isfinite(b)].astype(float))
            scale = finite.max() if finite.size else 1.0
            return bool(np.allclose(a, b, tolerance, tolerance * scale, equal_nan=True))
        except (TypeError, ValueError):
            return False
    try:
        return bool(a == b) or a is b or type(b).__eq__ is object.__eq__
    except Exception:
        return False


def _difference(found: list, expected: list, tolerance: float) -> str:
    """How a result differs from what is expected, with the usual suspects tried first."""
    for got, want in zip(found, expected, strict=True):
        if _same(got, want, tolerance):
            continue
        if is_dataclass(want) and type(got) is type(want):
            for f in fields(want):
                pair = [getattr(got, f.name)], [getattr(want, f.name)]
                if not _same(*pair, tolerance):
                    return f"its {f.name}: {_difference(*pair, tolerance)}"
        if not isinstance(want, np.ndarray | float | int | np.generic):
            return f"{_short(got)} where {_short(want)} is expected"
        try:
            got, want = np.asarray(got, float), np.asarray(want, float)
        except (TypeError, ValueError):
            return f"{_short(got)} where {_short(want)} is expected"
        if got.shape != want.shape:
            turned = " Transposed?" if got.ndim == 2 and got.shape == want.shape[::-1] else ""
            return f"its shape is {got.shape}, expected {want.shape}.{turned}"
        if got.size == 0:
            continue
        if np.isnan(got).any() and not np.isnan(want).any():
            first = [int(i) for i in np.argwhere(np.isnan(got))[0]]
            return f"{np.isnan(got).sum()} of {got.size} entries are NaN, the first at {first}"
        if got.ndim == 2 and got.shape[0] == got.shape[1] and _same(got.T, want, tolerance):
            return "it is transposed"
        ratio = _ratio(found, expected, tolerance)
        if ratio is not None and abs(ratio + 1) < 1e-9:
            return "its sign is the opposite of the right one, everywhere"
        if ratio is not None:
            return f"every entry is {ratio:.6g} times the right one: a factor is off"
        gap = np.abs(got - want)
        at = np.unravel_index(int(np.nanargmax(gap)), want.shape)
        place = f"entry {[int(i) for i in at]}" if want.ndim else "it"
        wrong = int((gap > tolerance * max(1e-300, float(np.abs(want).max()))).sum())
        share = f" ({wrong} of {want.size} entries differ)" if want.size > 1 else ""
        truth = np.asarray(expected[0]).dtype == bool
        mine, right = (bool(x[at]) if truth else f"{x[at]:.6g}" for x in (got, want))
        return f"{place} is {mine}, expected {right}{share}"
    return "it differs from what is expected"


def _ratio(found: list, expected: list, tolerance: float) -> float | None:
    """The factor by which all that was found differs from what is expected, in every case.

    None if there is no such factor, or so few numbers that any two would have one.
    """
    got = [np.asarray(f, float) for f in found]
    want = [np.asarray(e, float) for e in expected]
    if any(g.shape != w.shape or not np.isfinite(w).all() for g, w in zip(got, want, strict=True)):
        return None
    ratio = sum((g * w).sum() for g, w in zip(got, want, strict=True))
    ratio = float(ratio / (sum((w * w).sum() for w in want) or 1))
    alike = all(_same(g, w * ratio, tolerance) for g, w in zip(got, want, strict=True))
    enough = sum(np.count_nonzero(w) for w in want) >= 3
    return ratio if alike and enough and abs(ratio) > 1e-12 else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _stopped(error: Exception) -> str:
    """An exception with the last line of the reader's own code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "ipykernel" in f.filename or f.filename.startswith("<")]
    # A notebook's cell has a made-up file name, so that its text is only there if IPython kept it.
    place = f", at your line {own[-1].lineno}: `{own[-1].line}`" if own and own[-1].line else ""
    return f"it stopped with {type(error).__name__}: {error}{place}"


# --- what a notebook calls ------------------------------------------------------------------------

_shown: dict[str, int] = {}  # exercise to the number of hints seen


def check(number: str, answer: Any) -> Any:
    """Say whether an answer is right, and if not, what is wrong with it.

    Returns:
        the answer if it is right, else what is right: so that the notebook goes on either way.
    """
    exercise = find(number)
    verdict = judge(exercise, answer)
    if verdict.state == "right":
        done = progress()
        if number not in done:
            _keep([*done, number])
        print(f"✓ {number} is right: {exercise.title}.")
        return answer
    more = f' hint("{number}") helps.' if exercise.hints else ""
    if verdict.state == "open":
        todo = verdict.text or "fill the hole, run the cell again"
        print(f"… {number} not yet: {exercise.title}; {todo}.{more}")
    else:
        text = verdict.text  # as it stands: it may begin with the name of a variable
        print(f"✗ {number}: {text}{'' if text[-1] in '.?!' else '.'}{more}")
    return exercise.given or exercise.right


def hint(number: str) -> None:
    """Show the next hint of an exercise."""
    exercise = find(number)
    n = _shown.get(number, 0)
    if n < len(exercise.hints):
        print(f"hint {n + 1} of {len(exercise.hints)}: {exercise.hints[n]}")
        _shown[number] = n + 1
    else:
        where = f"tutorials/solutions/ch{int(number.split('.')[0]):02}.py"
        print(f"That was all; a solution is in {where}.")


def _progress_file() -> Path:
    return Path(os.environ.get("GRU4REC_PROGRESS") or TUTORIALS / "progress.json")


def progress() -> list[str]:
    """The numbers of the exercises done; those of a damaged file are forgotten."""
    try:
        done = json.loads(_progress_file().read_text(encoding="utf-8"))
        return [number for number in done if isinstance(number, str)]
    except (OSError, ValueError, TypeError):
        return []


def _keep(done: list[str]) -> None:
    try:
        write_text(_progress_file(), json.dumps(sorted(set(done))) + "\n")
    except OSError as error:
        print(f"(progress is not kept: {error.filename}: {error.strerror})")
