"""`one_blas_thread`: matrix products that do not depend on the number of BLAS threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401 - loads SciPy's BLAS, so that the controller sees it
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
    # The first thread to enter sets the shared limit and the last one to leave restores it.
    # Otherwise one thread would lift the limit during another's product.
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
    """Set the libraries' thread limits; returns the previous limits."""
    before = [lib.get_num_threads() for lib in libraries]
    for lib, limit in zip(libraries, limits, strict=True):
        # threadpoolctl 3.8 accepts limits only from the thread that set the first one.
        if hasattr(lib, "clear_controlling_thread"):
            lib.clear_controlling_thread(force=True)
        lib.set_num_threads(limit)
    return before


# Decorates functions that train or score. The order of BLAS's additions depends on the number of
# threads, so with several threads the last bits would depend on it too.
one_blas_thread = _one_blas_thread()
