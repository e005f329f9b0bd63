"""`one_blas_thread` makes matrix products independent of the number of BLAS threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401 - loads SciPy's BLAS, so that the controller sees it
from threadpoolctl import ThreadpoolController

# The OpenBLAS in the wheels of NumPy and SciPy has one thread limit for the process. MKL, and any
# BLAS on OpenMP, has one limit per calling thread.
_blas = ThreadpoolController().select(user_api="blas").lib_controllers
_shared = [lib for lib in _blas if getattr(lib, "threading_layer", "") == "pthreads"]
_own = [lib for lib in _blas if lib not in _shared]
_entering = Lock()
_inside = 0
_before: list[int] = []


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    # The first thread to enter sets the shared limit, the last one to leave restores it. Otherwise
    # a thread that leaves would change the limit of another one during its product.
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
    """Set the thread limits of some libraries and return the limits before."""
    before = [lib.get_num_threads() for lib in libraries]
    for lib, limit in zip(libraries, limits, strict=True):
        # threadpoolctl 3.8 obeys only the thread that set a limit first. Make it this one.
        if hasattr(lib, "clear_controlling_thread"):
            lib.clear_controlling_thread(force=True)
        lib.set_num_threads(limit)
    return before


# A decorator for training and scoring. The order in which BLAS adds, and so the last bits, may
# depend on the number of its threads.
one_blas_thread = _one_blas_thread()
