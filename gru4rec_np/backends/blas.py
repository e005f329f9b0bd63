"""`one_blas_thread`: matrix products that do not depend on the number of BLAS threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS of compiled products, for the next
from threadpoolctl import ThreadpoolController

# The OpenBLAS in the wheels of NumPy and SciPy has one thread limit for the whole process. MKL, or
# a BLAS on OpenMP, has one limit for each calling thread.
_blas = ThreadpoolController().select(user_api="blas").lib_controllers
_shared = [lib for lib in _blas if getattr(lib, "threading_layer", "") == "pthreads"]
_own = [lib for lib in _blas if lib not in _shared]
_entering = Lock()
_inside = 0
_before: list[int] = []


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    # The first thread to enter sets the shared limit, and the last one to leave lifts it. If each
    # lifted it, another would lose it in the middle of a product.
    global _inside, _before
    with _entering:
        if _inside == 0:
            _before = _set(_shared, [1] * len(_shared))
        _inside += 1
    mine = _set(_own, [1] * len(_own))
    try:
        yield
    finally:
        _set(_own, mine)
        with _entering:
            _inside -= 1
            if _inside == 0:
                _set(_shared, _before)


def _set(libraries: list[Any], limits: list[int]) -> list[int]:
    """Set the thread limits of some libraries; returns the limits before."""
    before = [lib.get_num_threads() for lib in libraries]
    for lib, limit in zip(libraries, limits, strict=True):
        # threadpoolctl 3.8 only obeys the thread that set a limit first: make it this one.
        if hasattr(lib, "clear_controlling_thread"):
            lib.clear_controlling_thread(force=True)
        lib.set_num_threads(limit)
    return before


# Decorates whatever trains or scores. Several BLAS threads may add in another order, so the last
# bits would depend on their number.
one_blas_thread = _one_blas_thread()
