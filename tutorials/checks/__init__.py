"""The course's exercises: what an answer must do, the mistakes that have names, and the verdict.

A notebook calls `check` and `hint`; each chapter's exercises stand in a file of their own, ch04.py
for notebook 4, and what several chapters use in common.py.
"""

from __future__ import annotations

import ast
import copy
import dis
import importlib
import inspect
import json
import os
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
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
            An answer that gives what it gives, or stops with the error that it stops with, has
            made that mistake. In place of a function may stand what is replaced in the text of
            the solution, {old: new}; and a list, where there are several ways to make it. After
            the exercise is made, there is a list of functions for each.
        hints: shown one at a time, from a nudge to nearly all.
        parts: names of what is returned, where that is a tuple.
        run: (answer, arguments) to the result that is compared, where calling will not do.
        tolerance: relative; absolute too, times the largest entry of what is expected.
        given: what a notebook goes on with in place of a wrong answer, where that is not `right`.
        goal: (answer, cases) to why a right answer misses the point; "" if it does not.
        solution: a right function as a reader would write it, to make mistakes in; None: `right`.
    """

    number: str
    title: str
    right: Callable
    cases: Callable[[np.random.Generator], Sequence[tuple]]
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    hints: Sequence[str] = ()
    parts: Sequence[str] = ()
    run: Callable[[Any, tuple], Any] = lambda answer, args: answer(*args)
    tolerance: float = 1e-6
    given: Callable | None = None
    goal: Callable[[Any, Sequence[tuple]], str] | None = None
    solution: Callable | None = None

    def __post_init__(self) -> None:
        made = {}
        for said, mistake in self.mistakes.items():
            ways = mistake if isinstance(mistake, list) else [mistake]
            made[said] = [
                edited(self.solution or self.right, way) if isinstance(way, Mapping) else way
                for way in ways
            ]
        object.__setattr__(self, "mistakes", made)  # the dataclass is frozen


_text = cache(inspect.getsource)  # which takes a millisecond


def edited(function: Any, edits: Mapping[str, str]) -> Callable:
    """A function with pieces of its text replaced, {old: new}.

    Raises:
        ValueError: a piece does not stand in the text once.
    """
    text = _text(function)
    for old, new in edits.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in:\n{text}")
        text = text.replace(old, new)
    names = dict(function.__globals__)
    exec(text, names)
    return names[function.__name__]


class Wrong(Exception):
    """Raised by an exercise's `run`; its text is what is to be said of the answer."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of an answer, and the words.

    The states: "right"; "short", which is right but misses the goal; "open", while it returns ...
    or raises NotImplementedError, whose text, if it has one, says what to do; "half", some parts
    right and the others open; "wrong".
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
    """Run an answer on the exercise's cases and compare. Warnings of NaN and the like are not
    shown: what came of them is said.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return _judge(exercise, answer)


def _judge(exercise: Exercise, answer: Any) -> Verdict:
    cases = list(exercise.cases(np.random.default_rng(0)))
    found, expected, boxed = [], [], False
    for args in cases:
        given = copy.deepcopy(args)
        try:
            result = exercise.run(answer, given)
        except NotImplementedError as error:
            return Verdict("open", str(error))
        except Wrong as error:
            return Verdict("wrong", str(error))
        except Exception as error:  # whatever a reader's code may raise
            return Verdict("wrong", _named_stop(exercise, args, error))
        want = exercise.right(*copy.deepcopy(args))
        several = isinstance(want, tuple)
        if isinstance(want, np.ndarray) and isinstance(result, tuple) and len(result) == 1:
            result, boxed = result[0], True
        if result is Ellipsis or (result is None and has_hole(answer)):
            return Verdict("open")
        if result is None:
            return Verdict("wrong", f"it returns None: {_NONE}")
        vector = several and isinstance(result, np.ndarray) and result.shape == (len(want),)
        if several and (isinstance(result, list) or vector):
            result = tuple(result)  # [low, high] or np.quantile(x, [low, high]) is as good
        if several and not isinstance(result, tuple):
            return Verdict("wrong", f"it must return {len(want)} things{_named(exercise)}")
        if several and len(result) == len(want) and all(part is Ellipsis for part in result):
            return Verdict("open")
        if not _same(given, args, 0):
            return Verdict("wrong", "it changes its arguments; work on a copy")
        found.append(result if isinstance(result, tuple) else (result,))
        expected.append(want if several else (want,))
    if any(part is Ellipsis for f in found for part in f):
        return _half(exercise, cases, found, expected)
    if all(_same(f, e, exercise.tolerance) for f, e in zip(found, expected, strict=True)):
        if text := _TUPLE if boxed else _lists(exercise, found, expected):
            return Verdict("wrong", text)
        text = exercise.goal(answer, cases) if exercise.goal else ""
        return Verdict("short" if text else "right", text)
    return Verdict("wrong", _named_mistake(exercise, cases, found, expected))


_NONE = (
    "is `return` missing? What changes an array in place, as np.fill_diagonal does, returns "
    "None too"
)


_TUPLE = (
    "it returns a tuple with the right array in it, as np.where, np.nonzero and a comma after "
    "`return x,` give; return the array itself, its [0]"
)


def _lists(exercise: Exercise, found: list[tuple], expected: list[tuple]) -> str:
    """Which right parts are lists where the next cells want arrays; "" if none are."""
    pairs = list(zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True))
    at = [
        i
        for i, (mine, want) in enumerate(pairs)
        if isinstance(want[0], np.ndarray) and any(isinstance(x, list | tuple) for x in mine)
    ]
    if not at:
        return ""
    names = [name for i in at for name in exercise.parts[i : i + 1]]
    where = f"{', '.join(names)}: " if names else ""
    return f"{where}the numbers are right, but in a list; an array is asked for: np.array(...)"


def has_hole(answer: Any) -> bool:
    """Whether a function is as it was shipped: no code, or three dots for a statement."""
    answer = getattr(answer, "py_func", answer)  # of one that Numba compiles
    code = getattr(answer, "__code__", None)
    idle = {"RESUME", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "POP_TOP", "NOP"}
    if code is None or all(step.opname in idle for step in dis.get_instructions(code)):
        return True
    try:
        body = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(answer))))
    except (OSError, TypeError, SyntaxError):  # no source is kept
        return False
    values = [node.value for node in body if isinstance(node, ast.Expr)]
    return any(isinstance(value, ast.Constant) and value.value is Ellipsis for value in values)


def _half(exercise: Exercise, cases: list, found: list[tuple], expected: list[tuple]) -> Verdict:
    """The verdict on an answer of which some parts are still three dots."""
    n = len(expected[0])
    if any(len(f) != n for f in found):
        return Verdict("wrong", _named_mistake(exercise, cases, found, expected))
    names = exercise.parts or [f"thing {i + 1}" for i in range(n)]
    done = [i for i in range(n) if all(f[i] is not Ellipsis for f in found)]
    rest = f"{_list(names[i] for i in range(n) if i not in done)} still to do"
    texts = _by_parts(
        exercise, found, expected, _made(exercise, cases), done, _sizes(exercise, cases)
    )
    if texts:
        return Verdict("wrong", f"{texts}; {rest}")
    return Verdict("half", f"{_list(names[i] for i in done)} right; {rest}")


def _made(exercise: Exercise, cases: list[tuple]) -> list[tuple[str, list[tuple]]]:
    """What each mistake gives, in each of its ways."""
    made = []
    for name, ways in exercise.mistakes.items():
        for way in ways:
            try:
                results = [way(*copy.deepcopy(args)) for args in cases]
            except Exception:  # it is one that shows by raising
                continue
            made.append((name, [r if isinstance(r, tuple) else (r,) for r in results]))
    return made


def _named_stop(exercise: Exercise, args: tuple, error: Exception) -> str:
    """The error that an answer stopped with, after the mistake that stops with the same one."""
    for name, ways in exercise.mistakes.items():
        for way in ways:
            try:
                way(*copy.deepcopy(args))
            except Exception as other:
                called = other.__traceback__ is not None and other.__traceback__.tb_next
                if called and _marks(error) == _marks(other):
                    return f"{name}; {_stopped(error)}"
    return _stopped(error)


def _marks(error: Exception) -> tuple:
    """What two errors of the same mistake share: also the function of NumPy that raised it. The
    order of the words is left out, as a + b and b + a tell of the shapes in different order.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = last.name if "numpy" in Path(last.filename).parts else ""
    return type(error), inside, sorted(str(error).split())


def _named_mistake(
    exercise: Exercise, cases: list[tuple], found: list[tuple], expected: list[tuple]
) -> str:
    """The mistake that gives what was found, whole or in parts; else how it differs."""
    made = _made(exercise, cases)
    for name, results in made:
        if all(_same(f, r, exercise.tolerance) for f, r in zip(found, results, strict=True)):
            return name + _and_right(exercise, found, expected)
    n = len(expected[0])
    if {len(f) for f in found} != {n}:
        things = "1 thing" if n == 1 else f"{n} things"
        return f"it must return {things}{_named(exercise)}, not {len(found[0])}"
    if _reordered(found, expected, exercise.tolerance):
        return f"the right things in the wrong order; asked is{_named(exercise) or ' another'}"
    return _by_parts(exercise, found, expected, made, range(n), _sizes(exercise, cases))


def _by_parts(
    exercise: Exercise,
    found: list[tuple],
    expected: list[tuple],
    made: Sequence[tuple[str, list[tuple]]],
    parts: Sequence[int],
    sizes: Sequence[dict],
) -> str:
    """What is wrong with each of these parts, and which are right; "" if all are."""
    said: dict[str, list[str]] = {}  # what is wrong, to the parts where it shows
    tolerance = exercise.tolerance
    for i in parts:
        mine, want = [f[i] for f in found], [e[i] for e in expected]
        if _all_same(mine, want, tolerance):
            continue
        for name, results in made:
            theirs = [r[i] for r in results]
            if _all_same(mine, theirs, tolerance) and not _all_same(theirs, want, tolerance):
                text = name
                break
        else:
            text = _difference(mine, want, tolerance, sizes)
        said.setdefault(text, []).extend(exercise.parts[i : i + 1])
    if not said:
        return ""
    lines = [f"{', '.join(at)}: {text}" if at else text for text, at in said.items()]
    rest = f"; and {len(lines) - 2} more: fix the first error first" if len(lines) > 2 else ""
    return "; ".join(lines[:2]) + rest + _and_right(exercise, found, expected)


def _and_right(exercise: Exercise, found: list[tuple], expected: list[tuple]) -> str:
    """The end of a message: which parts are right, if any."""
    pairs = zip(zip(*found, strict=True), zip(*expected, strict=True), strict=False)
    same = [_all_same(mine, want, exercise.tolerance) for mine, want in pairs]
    right = [name for name, is_right in zip(exercise.parts, same, strict=False) if is_right]
    return f"; {_list(right)} right" if right else ""


def _all_same(a: Sequence, b: Sequence, tolerance: float) -> bool:
    return all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))


def _reordered(found: list[tuple], expected: list[tuple], tolerance: float) -> bool:
    """Whether the parts are right but for their order."""
    mine, want = (list(zip(*parts, strict=True)) for parts in (found, expected))
    at = [
        next((j for j, part in enumerate(want) if _all_same(one, part, tolerance)), None)
        for one in mine
    ]
    return len(at) > 1 and None not in at and len(set(at)) == len(at)


def _list(names: Iterable[str]) -> str:
    """The subject of a sentence: "a is", "a and b are"."""
    *first, last = names
    return f"{', '.join(first)} and {last} are" if first else f"{last} is"


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


def _difference(found: list, expected: list, tolerance: float, sizes: Sequence[dict] = ()) -> str:
    """How a result differs from what is expected, with the usual suspects tried first.

    Args:
        sizes: of each case, names of the whole numbers that a factor may be.
    """
    for got, want in zip(found, expected, strict=True):
        if _same(got, want, tolerance):
            continue
        if got is None:
            return f"it is None: {_NONE}"
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
            turned = ": transposed?" if got.ndim == 2 and got.shape == want.shape[::-1] else ""
            asked = f"{want.shape}" if want.ndim else "one number"
            return f"its shape is {got.shape}, expected {asked}{turned}"
        if got.size == 0:
            continue
        if np.isnan(got).any() and not np.isnan(want).any():
            if not got.ndim:
                return "it is NaN"
            first = [int(i) for i in np.argwhere(np.isnan(got))[0]]
            return f"{np.isnan(got).sum()} of {got.size} entries are NaN, the first at {first}"
        if got.ndim == 2 and got.shape[0] == got.shape[1] and _same(got.T, want, tolerance):
            return "it is transposed"
        if text := _factor(found, expected, tolerance, sizes):
            return text
        places = list(_places(found, expected, tolerance))
        for where, mine, right in places:
            if text := _factor(mine, right, tolerance, sizes):
                return f"{where}, and only there, {text}"
        gap = np.abs(got - want)
        at = np.unravel_index(int(np.nanargmax(gap)), want.shape)
        place = f"entry {[int(i) for i in at]}" if want.ndim else "it"
        wrong = int((gap > tolerance * max(1e-300, float(np.abs(want).max()))).sum())
        where = f", all {places[0][0]}" if places else ""
        share = f" ({wrong} of {want.size} entries differ{where})" if want.size > 1 else ""
        truth = np.asarray(expected[0]).dtype == bool
        mine, right = (bool(x[at]) if truth else f"{x[at]:.6g}" for x in (got, want))
        return f"{place} is {mine}, expected {right}{share}"
    return "it differs from what is expected"


def _places(found: list, expected: list, tolerance: float) -> Iterator[tuple[str, list, list]]:
    """The places outside of which all is right, and what was found and is expected there.

    Places are the diagonal of a matrix and the columns, or rows, from the first wrong one to the
    last, by their numbers in the first matrix that is wrong.
    """
    pairs = [(np.asarray(f), np.asarray(e)) for f, e in zip(found, expected, strict=True)]
    if any(f.ndim != 2 or f.shape != e.shape for f, e in pairs):
        return
    wrong = [~np.isclose(f, e, tolerance, tolerance * np.abs(e).max()) for f, e in pairs]
    masks = {"on the diagonal": [np.eye(*w.shape, dtype=bool) for w in wrong]}
    for name, axis in (("column", 1), ("row", 0)):
        at = [np.flatnonzero(w.any(axis=1 - axis)) for w in wrong]
        inside = [np.zeros(w.shape, bool) for w in wrong]
        for mask, run in zip(inside, at, strict=True):
            if run.size:
                np.moveaxis(mask, axis, 0)[run[0] : run[-1] + 1] = True
        first, last = next((run[0], run[-1]) for run in at if run.size)
        where = f"in {name} {first}" if first == last else f"in {name}s {first} to {last}"
        masks[where] = inside
    for where, inside in masks.items():
        pairs_of_masks = list(zip(wrong, inside, strict=True))
        if all((w <= m).all() and not (w.any() and m.all()) for w, m in pairs_of_masks):
            chosen = list(zip(pairs, inside, strict=True))
            yield where, [f[m] for (f, _), m in chosen], [e[m] for (_, e), m in chosen]


def _factor(found: list, expected: list, tolerance: float, sizes: Sequence[dict]) -> str:
    """In words, the factor between what was found and what is expected; "" if there is none.

    It is the same in every case, or in every case the size that has the same name.
    """
    got = [np.asarray(f, float) for f in found]
    want = [np.asarray(e, float) for e in expected]
    if any(g.shape != w.shape or not np.isfinite(w).all() for g, w in zip(got, want, strict=True)):
        return ""

    def all_are(factors: Iterable[float]) -> bool:
        scaled = [w * factor for w, factor in zip(want, factors, strict=True)]
        return _all_same(got, scaled, tolerance)

    names = set.intersection(*map(set, sizes)) if sizes else set()
    for name in sorted(names):
        values = [size[name] for size in sizes]
        if len(set(values)) == 1:
            continue
        if all_are(values):
            return f"every entry is {name} times the right one: divide by {name}"
        if all_are(1 / value for value in values):
            return f"every entry is 1/{name} of the right one: do not divide by {name}"
    if sum(np.count_nonzero(w) for w in want) < 3:
        return ""  # any two numbers have a factor
    ratio = sum((g * w).sum() for g, w in zip(got, want, strict=True))
    ratio = float(ratio / (sum((w * w).sum() for w in want) or 1))
    if not any(g.any() for g in got):
        return f"all of it is {np.zeros(1, np.asarray(found[0]).dtype)[0]}"
    if not all_are(ratio for _ in want) or abs(ratio) <= 1e-12:
        return ""
    if abs(ratio + 1) < tolerance:
        return "its sign is the opposite of the right one"
    return f"every entry is {ratio:.6g} times the right one: a factor is off"


def _sizes(exercise: Exercise, cases: list[tuple]) -> list[dict[str, int]]:
    """The whole numbers among the arguments of each case, and the lengths of the arrays' axes."""
    parameters = inspect.signature(exercise.right).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    sizes = []
    for args in cases:
        size = {}
        for name, value in zip(names, args, strict=False):
            if isinstance(value, np.ndarray):
                size |= {f"{name}.shape[{i}]": n for i, n in enumerate(value.shape) if n > 1}
            elif isinstance(value, int) and value > 1:
                size[name] = value
        sizes.append(size)
    return sizes


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
    text = verdict.text  # as it stands: it may begin with the name of a variable
    if verdict.state == "open":
        todo = text or "fill the hole, run the cell again"
        print(f"… {number} not yet: {exercise.title}; {todo}.{more}")
        return exercise.given or exercise.right
    start = {
        "half": f"… {number}: ",
        "short": f"≈ {number} is right, but the goal is not met: ",
        "wrong": f"✗ {number}: ",
    }
    print(f"{start[verdict.state]}{text}{'' if text[-1] in '.?!' else '.'}{more}")
    return answer if verdict.state == "short" else exercise.given or exercise.right


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
