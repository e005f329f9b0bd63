"""Threads that share the parts of a step. Nothing here knows what the parts compute.

Work comes in phases of equally many parts. A phase begins when all parts of the one before are
finished. A thread takes the part of its own number, whose data is in its core's cache, or else any
part that no thread has taken. So a thread that is descheduled delays only the part that it holds,
and one thread alone can do everything. What a part computes depends on its number only: results
are the same for every number of threads.
"""

import os
import time
from collections.abc import Iterable, Mapping
from threading import Thread
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from gru4rec_np.backends.blas import one_blas_thread
from gru4rec_np.backends.numba.compiled import IntMatrix, Ints, Kernel, inner, intrinsic, kernel

# Counters of int64, each in a cache line of its own: parts finished so far; and for each part, in
# how many phases it was taken. They only ever grow.
LINE = 8
FINISHED = 0

PATIENCE = 2000  # looks at the counters before the processor is offered to other threads


def _place(context, builder, signature, args, of=0):
    """The address of number args[of + 1] of the array args[of]."""
    data = context.make_array(signature.args[of])(context, builder, args[of]).data
    return builder.gep(data, [args[of + 1]])


@intrinsic
def _load(typingctx, counters, i):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_place(context, builder, signature, args), "seq_cst", 8)

    return types.int64(counters, types.intp), codegen


@intrinsic
def _add(typingctx, counters, i, x):
    def codegen(context, builder, signature, args):
        place = _place(context, builder, signature, args)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(counters, types.intp, types.int64), codegen


@intrinsic
def _swap(typingctx, counters, i, old, new):
    """Whether the counter was `old`; it is `new` then."""

    def codegen(context, builder, signature, args):
        place = _place(context, builder, signature, args)
        done = builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(done, 1)

    return types.boolean(counters, types.intp, types.int64, types.int64), codegen


@intrinsic
def _offer_processor(typingctx):
    def codegen(context, builder, signature, args):
        name = "SwitchToThread" if os.name == "nt" else "sched_yield"
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _call(typingctx, entry, blocks, i):
    """Call the machine code at an address with the arguments that begin at number i of blocks."""

    def codegen(context, builder, signature, args):
        block = _place(context, builder, signature, args, of=1)
        kind = ir.FunctionType(ir.VoidType(), [block.type])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [block])
        return context.get_dummy_value()

    return types.void(types.intp, blocks, types.intp), codegen


@inner
def _take(counters, parts, phases, first):
    """A phase and a part of it that is this thread's now, part -1 if all phases are over.

    Waits for the next phase if all parts of this one are taken. `first` is the thread's own part.
    """
    looks = 0
    while True:
        phase = _load(counters, FINISHED) // parts
        if phase >= phases:
            return phase, -1
        for i in range(parts):
            part = (first + i) % parts
            taken = (1 + part) * LINE
            if _load(counters, taken) == phase and _swap(counters, taken, phase, phase + 1):
                return phase, part
        looks += 1
        if looks % PATIENCE == 0:
            _offer_processor()


@kernel
def work(
    first: int, steps: int, entries: Ints, blocks: IntMatrix, starts: Ints, ends: Ints,
    counters: Ints,
) -> None:  # fmt: skip
    """What each thread runs: take a part, call the kernels of the phase, until all is done.

    Args:
        first: the thread's own part. steps: how often the phases are gone through.
        entries: (kernels,) addresses of machine code, in order.
        blocks: (parts, arguments) those of all kernels. starts: (kernels,) where each one's begin,
            with the step.
        ends: (phases,) where in entries each phase ends. counters: zeros, see LINE.
    """
    parts, phases = len(blocks), len(ends)
    while True:
        number, part = _take(counters, parts, steps * phases, first)
        if part < 0:
            return
        step, phase = number // phases, number % phases
        for i in range(ends[phase - 1] if phase else 0, ends[phase]):
            blocks[part, starts[i]] = step
            _call(entries[i], blocks, part * blocks.shape[1] + starts[i])
        _add(counters, FINISHED, 1)


class Team:
    """Threads for the phases of a step.

    Args:
        phases: the kernels of each phase. Their first parameter is `step`, which counts from 0.
        f: the Numba type of their floats.
        parts: the arguments of each part, by the parameter's name. Arrays are kept alive.
    """

    def __init__(
        self, phases: Iterable[Iterable[Kernel]], f: Any, parts: list[dict[str, Any]]
    ) -> None:
        self.parts = parts
        self.kernels = [k for phase in phases for k in phase]
        self.ends = np.cumsum([len(tuple(phase)) for phase in phases])
        self.entries = np.array([k.address(f) for k in self.kernels])
        self.starts = np.cumsum([0, *(len(k.parameters) for k in self.kernels)])[:-1]
        self.pace = Pace(len(parts))

    def run(self, steps: int, now: Mapping[str, Any], most: int) -> None:
        """Go through the phases `steps` times on at most `most` threads.

        Args:
            now: arguments that are the same for all parts, for this call.
        """

        def block(args: dict[str, Any]) -> np.ndarray:
            """The arguments of all kernels, as machine code reads them."""
            packed = (k.pack(args[name] for name in k.parameters)[0] for k in self.kernels)
            return np.frombuffer(b"".join(packed), np.int64)

        blocks = np.array([block({**own, **now, "step": 0}) for own in self.parts])
        counters = np.zeros((1 + len(blocks)) * LINE, np.int64)
        args = steps, self.entries, blocks, self.starts, self.ends, counters
        n_threads = self.pace.choose(min(len(blocks), most))
        own_work = one_blas_thread(work)  # MKL has a limit for each thread
        threads = [Thread(target=own_work, args=(i, *args)) for i in range(1, n_threads)]
        began = time.perf_counter()
        try:
            for thread in threads:
                thread.start()
        finally:  # after Ctrl-C, too: threads that have started use the arrays of `now`
            work(0, *args)  # ends when all parts of all phases are finished
        for thread in threads:
            thread.join()
        self.pace.took(n_threads, (time.perf_counter() - began) / steps)


class Pace:
    """How many threads go fastest, by trying: results do not depend on it.

    More are slower than one where the system has put them on cores that are far from each other, or
    where others are at work, and both can change while a training runs.

    Args:
        most: threads that there may be.
    """

    TRY = 64  # calls: that often each number is tried again
    LAST = 2  # times by which a number is judged, by the better one: others disturb now and then

    def __init__(self, most: int) -> None:
        self._calls = 0
        self._seconds: list[list[float]] = [[] for _ in range(most)]  # of a step, the last times

    def choose(self, most: int) -> int:
        """The number of threads for the next call, at most `most`."""
        seconds = self._seconds[:most]
        turn = self._calls % self.TRY
        self._calls += 1
        unknown = [n for n in range(1, most + 1) if len(seconds[n - 1]) < self.LAST]
        if unknown:
            return unknown[-1]
        best = [min(last) for last in seconds]
        return most - turn if turn < most else best.index(min(best)) + 1

    def took(self, n_threads: int, seconds: float) -> None:
        """Say what a step took in a call with so many threads."""
        last = self._seconds[n_threads - 1]
        last.append(seconds)
        del last[: -self.LAST]
