"""CUDA puzzles: the answer is a kernel's text, which the emulator compiles, runs and counts.

`Launch` is the `run` of an exercise of notebook 11. `cost` shows the memory traffic of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gru4rec_np.backends.cuda.device import compiler_options, n_blocks
from gru4rec_np.backends.emulator import Fault, Module, Report, build
from gru4rec_np.backends.emulator.replay import page
from gru4rec_np.errors import InputError
from gru4rec_np.files import KERNELS

from . import Wrong, find

HOLE = "/* your code */"
SECTOR = 32  # bytes
WIDTH = 120  # characters of a table
SECONDS = 5  # of CPU time that a launch may take
FAR = 3  # times the goal: an answer above it does not count as done

# What to do about each kind of fault.
ADVICE = {
    "race": "Put __syncthreads() between the two accesses, or give each thread a place of its own.",
    "race between blocks": "Blocks run in any order, and no block can wait for another: only one "
    "block may write each place. Does the index depend on blockIdx.x, and does each block stay "
    "within its part?",
    "out of bounds": "There are more threads than work, or the index is wrong. Threads past the "
    "end must do nothing, or load 0.",
    "uninitialised": "Shared memory is not set to 0: write each place before you read it.",
    "barrier": "All threads of a block must reach the same __syncthreads(), and each call of "
    "block_sum or block_max. Do not put it in an `if` that some of them skip, in a loop that some "
    "leave earlier, or after a `return` of some.",
    "order": "Some value depends on which thread came first.",
    "endless": "The loop around this line does not end. Its counter must change in each turn, "
    "until its condition is false. (0 / 2 is 0 again.)",
}
ADVICE["warp"] = ADVICE["barrier"]
ALL_WRITE = (
    "All threads write the same place. Share the work: each takes numbers of its own, found by "
    "threadIdx.x. Only one of them may write a number that is the result of the whole block."
)
ONE_LINE = (
    "One thread writes on this line what another thread reads on it. In a loop, one of them may be "
    "a turn ahead: put __syncthreads() after this line, inside the loop and outside of the `if`."
)


def require_compiler() -> None:
    """Raises InputError, which says what to install, if there is no g++."""
    try:
        build.require_compiler()
    except InputError:
        raise InputError(
            "this notebook compiles its kernels with g++, which is not installed: install it "
            "(apt install g++) and run this cell again"
        ) from None


def nothing(*shape: int) -> np.ndarray:
    """An output (shape) before the launch: NaN, to show what no thread writes."""
    return np.full(shape, np.nan, np.float32)


@dataclass(frozen=True)
class Launch:
    """How the kernel of a puzzle is launched. A call with its text and a case launches it.

    Attributes:
        name: of the kernel.
        setup: a case to (grid, block, the kernel's arguments, its outputs).
        goal: the score of a good answer: sectors requested, divided by the fewest that must move.
        least: a case to the bytes that must move; None for those of all arrays.
        on_chip: the requests of shared memory, and the atomics, of a good answer; 0 for any
            number.
        far: what to do about a score far above the goal.
        between: (arguments, block, block) to what makes two blocks write to the same place.
        repeatable: the result must not depend on the order of the threads.
        blocks: what is said of an answer of which only one block writes; "" if one may do it all.
    """

    name: str
    setup: Callable[..., tuple[tuple, tuple, tuple, tuple]]
    goal: float
    least: Callable[..., int] | None = None
    repeatable: bool = False
    on_chip: int = 0
    far: str = "use all threads, and let neighbouring threads take neighbouring numbers"
    between: Callable[[tuple, int, int], str] | None = None
    blocks: str = ""

    def __call__(self, source: Any, args: tuple) -> Any:
        """The outputs of a kernel.

        Raises:
            NotImplementedError: the hole is not filled.
            Wrong: it does not compile, has a fault, or needs what is in the outputs before.
        """
        if not isinstance(source, str):
            raise Wrong("the answer is the kernel's text")
        if HOLE in source:
            raise NotImplementedError
        outputs = self.run(source, args)[0]
        if any(np.isnan(output).any() for output in outputs):
            again = zip(outputs, self.run(source, args, fill=0)[0], strict=True)
            if any((np.isnan(a) & np.isfinite(b) & (b != 0)).any() for a, b in again):
                raise Wrong(
                    "it adds to what is in the output before the launch: NaN, and NaN plus "
                    "something is NaN. Write the result with `=`, not with += or atomicAdd"
                )
        return outputs if len(outputs) > 1 else outputs[0]

    def run(
        self, source: str, args: tuple, profile: bool = False, fill: float = np.nan
    ) -> tuple[tuple, Report | None]:
        """The outputs of a kernel, and with `profile` its traffic.

        Args:
            fill: what stands in the outputs before, in place of NaN.

        Raises:
            Wrong: as above.
        """
        grid, block, arguments, outputs = self.setup(*args)
        for output in outputs:
            output[np.isnan(output)] = fill
        try:
            require_compiler()
            kernel = _compiled(self.name, source).get_function(self.name)
            report = kernel(grid, block, arguments, profile=profile)
        except Fault as fault:
            text = explain(fault, self.name, source, len(block), arguments, self.between)
            raise Wrong(text) from None
        except InputError as error:
            raise Wrong(_compiler_says(str(error), self.name, source)) from None
        if self.repeatable and kernel.depends_on_order and not profile:
            raise Wrong(
                "the sum is right, but its last bits depend on which thread comes first, as they "
                "do with atomics. Let one block add up all the duplicates of an item, in order"
            )
        return outputs, report

    def falls_short(self, source: str, cases: list[tuple]) -> str:
        """Why a right answer misses the point of the puzzle; "" if it does not."""
        report = self.run(source, cases[0], profile=True)[1]
        assert report is not None
        score, turns = self.score(report, cases[0]), on_chip(report)
        if score > FAR * self.goal:
            return (
                f"its score is {score:.3g}, and a good answer reaches {self.goal:.3g}: {self.far}"
            )
        if self.on_chip and turns > FAR * self.on_chip:
            return (
                f"its score is {score:.3g}, but it makes {turns:,} requests of shared memory and "
                f"atomic additions, one after another, where {self.on_chip} are enough: most "
                "threads only wait"
            )
        if self.blocks:
            small = self.run(source, min(cases, key=_size), profile=True)[1]
            assert small is not None
            writing = {
                step.block
                for step in small.steps
                if step.kind in ("write", "atomic") and not step.is_shared
            }
            if len(writing) == 1:
                return f"block {writing.pop()} does all the work. {self.blocks}"
        return ""

    def score(self, report: Report, args: tuple) -> float:
        """Sectors that a kernel requests, over the fewest that must move."""
        asked = sum(report.total(sort).sectors for sort in ("loads", "stores", "atomics"))
        arrays = [a for a in self.setup(*args)[2] if isinstance(a, np.ndarray)]
        least = self.least(*args) if self.least else sum(a.nbytes for a in arrays)
        return asked / n_blocks(least, SECTOR)


@lru_cache(64)
def _compiled(name: str, source: str) -> Module:
    options = compiler_options(np.float32)
    return Module(KERNELS / f"{name}.cu", options, True, source, seconds=SECONDS)


def on_chip(report: Report) -> int:
    """Requests that are served one after another: of shared memory, with its conflicts, and each
    thread's atomics.
    """
    shared = [report.total(f"shared_{sort}") for sort in ("loads", "stores")]
    atomics = [report.total(sort) for sort in ("atomics", "shared_atomics")]
    return sum(t.requests + t.conflicts for t in shared) + sum(t.accesses for t in atomics)


def _profile(number: str, source: Any, what: str, args: tuple) -> Report | None:
    """The traffic of an answer; None, and why is printed, if it is open or does not run."""
    if not isinstance(source, str) or HOLE in source:
        print(f"Once {number} is right, its {what}.")
        return None
    try:
        return find(number).run.run(source, args, profile=True)[1]
    except Wrong as error:
        print(error)
        return None


def cost(number: str, source: Any) -> None:
    """Print the memory traffic of each line of a right answer, and its score."""
    exercise = find(number)
    launch: Launch = exercise.run
    cases = exercise.cases(np.random.default_rng(0))
    args = cases[0]
    report = _profile(number, source, "memory traffic is shown here", args)
    if report is None:
        return
    file = f"{launch.name}.cu"  # without the lines of what it includes
    own = {place: line for place, line in report.lines.items() if place[0] == file}
    table = str(Report(launch.name, own)).splitlines()[:-1]
    print("\n".join(line[:WIDTH] for line in table))
    score, short = launch.score(report, args), launch.falls_short(source, cases)
    if short:
        ending = f"the goal is not met: {short}"
    elif score <= launch.goal * 1.02:
        ending = "the goal is met"
    else:
        ending = f"a good answer reaches {launch.goal:.3g}"
    print(f"Score: {score:.3g} times the sectors that must move; {ending}.")


def replay(number: str, source: Any) -> Any:
    """Show a right answer's run step by step, on the first case that is small enough."""
    exercise = find(number)
    args = min(exercise.cases(np.random.default_rng(0)), key=_size)
    report = _profile(number, source, "run is shown here step by step", args)
    return report and show_steps(report, f"{exercise.run.name}.cu")


def show_steps(report: Report, file: str, height: int = 520) -> Any:
    """The steps of a launch with `profile=True`, to be moved through in a notebook."""
    import live  # needs IPython

    return live.show(page(report, file), f"replay of {report.kernel}", height)


def _size(args: tuple) -> int:
    return sum(arg.size for arg in args if isinstance(arg, np.ndarray))


# --- messages -------------------------------------------------------------------------------------


def explain(
    fault: Fault,
    name: str,
    source: str,
    sizes: int = 1,
    arguments: tuple = (),
    between: Callable[[tuple, int, int], str] | None = None,
) -> str:
    """A fault in short: what happened, the lines, and advice; advice first for barriers and warps.

    Args:
        name: of the kernel and, with .cu, of its file. sizes: of a thread's index, 1 to 3.
        arguments: the kernel's. between: as of `Launch`.
    """
    array, element = _of_matrix(str(fault), arguments)
    text = str(fault).removeprefix(f"{name}: ")
    text = re.sub(rf"\b{name}\.cu:(\d+)", r"line \1", text)
    text = re.sub(r"\b(\w+\.cuh):(\d+)", r"line \2 of \1", text)
    text = re.sub(r"argument \d+ \((\w+)\)", r"\1", text)
    text = re.sub(r"(thread|block) \(([^)]*)\)", lambda m: _place(m, sizes), text)
    text = re.sub(  # of block_sum and block_max: no puzzle has shuffles of its own
        r"__shfl\w+ at (.*) of (thread .*): mask \w+ names (thread \d+) of the warp, which",
        r"\2 waits at \1 for \3 of its warp, which",
        text,
    )
    text = re.sub(  # all shared arrays of the puzzles hold numbers of 4 bytes
        r"byte (\d+) of (shared array \w+) \((\d+) bytes\)",
        lambda m: f"place {int(m[1]) // 4} of {m[2]} ({int(m[3]) // 4} places)",
        text,
    )
    if array is not None and 0 <= element < array.size:
        row, column = divmod(element, array.shape[1])
        text += f", row {row}, column {column}"
    own = dict.fromkeys(line for file, line in fault.lines if file == f"{name}.cu")
    shown = []
    for line in sorted(own):
        kinds = dict.fromkeys(re.findall(rf"(\w+) at line {line}\b", text))
        does = f" ({' and '.join(kinds)})" if "race" in fault.kind else ""
        shown.append(f"    line {line}{does}: {source.splitlines()[line - 1].strip()}")
    advice = ADVICE.get(fault.kind, "")
    at = [int(block) for block in re.findall(r"of block (\d+)", text)]
    if fault.kind == "race" and len(set(fault.lines)) == 1:
        advice = ALL_WRITE if text.count("write at") == 2 else ONE_LINE
    elif fault.kind == "race between blocks" and between:
        advice = between(arguments, *at)
    elif fault.kind == "race between blocks" and array is not None:
        if sizes == 1 and column == 0 and row - 1 in at:
            advice = (
                f"Block {row - 1} goes one past the end of its own row: the last of "
                f"{array.shape[1]} numbers is number {array.shape[1] - 1}, so `<`, not `<=`."
            )
    elif fault.kind == "out of bounds" and array is not None:
        advice += f" A matrix of {array.shape[1]} columns has row r at r * {array.shape[1]}."
    parts = [f"{text}.", *shown]
    parts = [advice, *parts] if fault.kind in ("barrier", "warp") else [*parts, advice]
    return "\n".join(parts).rstrip()


def _of_matrix(text: str, arguments: tuple) -> tuple[np.ndarray | None, int]:
    """The matrix among the arguments that a fault is about, if it is about one, and the element."""
    found = re.search(r"element (-?\d+) of argument (\d+) ", text)
    array = arguments[int(found[2])] if found and arguments else None
    if found is None or array is None or array.ndim != 2:
        return None, 0
    return array, int(found[1])


def _place(found: re.Match, sizes: int) -> str:
    """ "thread (3, 0, 0)" as "thread 3" where blocks have one dimension."""
    place = found[2].split(", ")[:sizes]
    return f"{found[1]} {place[0] if sizes == 1 else '(' + ', '.join(place) + ')'}"


def _compiler_says(text: str, name: str, source: str) -> str:
    """The compiler's first error, without paths."""
    found = re.search(rf"{name}\.cu:(\d+):\d+: (?:fatal )?error: (.*)", text)
    if not found:
        return text
    line = int(found[1])
    own = source.splitlines()[line - 1 : line]
    shown = [f"    line {line}: {code.strip()}" for code in own]
    about = "Look there, and at the line before."
    return "\n".join([f"it does not compile: {found[2]}.", *shown, about])
