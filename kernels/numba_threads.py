"""Parts of work that threads share, in compiled code: take one, say that it is finished.

Work comes in phases of equally many parts, and a phase begins when all parts of the one before are
finished. Which thread takes a part is open, so a thread that the system keeps waiting holds nobody
up but for the part that it is at, and one thread alone can do everything. What a part computes
depends on nothing but its number: the results are the same whoever does it, so how many threads
there are is left to what goes fastest. Imports nothing of ours but `jit`.
"""

import os

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gru4rec_np.kernels.numba_math import jit

# Places of the three counters in an array of int64, a cache line apart: parts taken so far, parts
# that may be taken, parts finished. They only ever grow.
TAKEN, OPEN, FINISHED, COUNTERS = 0, 8, 16, 24

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


@jit
def take(counters, all_parts):
    """The number of a part that is this thread's now, or -1 if all are taken; waits for a phase."""
    looks = 0
    while True:
        taken = _load(counters, TAKEN)
        if taken >= all_parts:
            return -1
        if taken < _load(counters, OPEN):
            if _swap(counters, TAKEN, taken, taken + 1):
                return taken
        else:
            looks += 1
            if looks % PATIENCE == 0:
                _offer_processor()


@jit
def finish(counters, parts):
    """Say that a part is finished; the last of a phase's `parts` opens the next phase."""
    if (_add(counters, FINISHED, 1) + 1) % parts == 0:
        _add(counters, OPEN, parts)


class Pace:
    """How many threads go fastest, by trying: results do not depend on it.

    More are slower than one where the system has put them on cores that are far from each other, or
    where others are at work, and both can change while a training runs.

    Args:
        most: threads that there may be.
    """

    TRY = 16  # calls: that often each number is tried again

    def __init__(self, most: int) -> None:
        self._calls = 0
        self._seconds = [0.0] * most  # of a step, when last tried

    def choose(self, most: int) -> int:
        """The number of threads for the next call, at most `most`."""
        turn = self._calls % self.TRY
        self._calls += 1
        seconds = self._seconds[:most]
        return most - turn if turn < most else seconds.index(min(seconds)) + 1

    def took(self, n_threads: int, seconds: float) -> None:
        """Say what a step took in a call with so many threads."""
        self._seconds[n_threads - 1] = seconds
