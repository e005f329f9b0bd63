"""Parts of work that threads share, in compiled code: take one, say that it is finished.

Work comes in phases of equally many parts, and a phase begins when all parts of the one before are
finished. A thread takes the part of its own number, whose data its core has at hand, but any part
that nobody has taken once its own is done: a thread that the system keeps waiting holds nobody up
but for the part that it is at, and one thread alone can do everything. What a part computes
depends on nothing but its number: the results are the same whoever does it, so how many threads
there are is left to what goes fastest. Imports nothing of ours but `jit`.
"""

import os

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gru4rec_np.backends.numba.maths import jit

# Counters lie a line of the cache apart, in an array of int64: parts finished so far; and for each
# part, in how many phases it was taken. They only ever grow.
LINE = 8
FINISHED = 0

PATIENCE = 2000  # looks at the counters before the processor is offered to others


def _place(context, builder, signature, args):
    """The address of args[0][args[1]]."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


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


def new_counters(parts: int) -> np.ndarray:
    """Counters of nothing taken and nothing finished."""
    return np.zeros((1 + parts) * LINE, np.int64)


@jit
def take(counters, parts, phases, first):
    """A phase and a part of it that is this thread's now, part -1 if all phases are over.

    Waits for the next phase if of this one all parts are taken. `first` is the thread's own part.
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


@jit
def finish(counters):
    """Say that a part is finished; with the last of its phase the next begins."""
    _add(counters, FINISHED, 1)


class Pace:
    """How many threads go fastest, by trying: results do not depend on it.

    More are slower than one where the system has put them on cores that are far from each other, or
    where others are at work, and both can change while a training runs.

    Args:
        most: threads that there may be.
    """

    TRY = 64  # calls: that often each number is tried again
    LAST = 2  # times by which a number is judged, by the better one: others disturb now and then,
    # and the very first call compiles

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
