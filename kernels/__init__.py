"""The hot operations, by backend. `load(backend)` hands them out; nothing else chooses.

A backend is a namespace of the functions that `NUMPY` below lists, with the arguments and results
of the NumPy functions of those names, which define them; and possibly a `stepper` of its own.
Imports the mathematics and batches, no model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from types import SimpleNamespace
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS that compiled products call, so that
from threadpoolctl import ThreadpoolController  # this finds it

from gru4rec_np.activations import ACTIVATIONS
from gru4rec_np.batches import draw_negatives
from gru4rec_np.cells import gru, gru_backward, gru_reset_after, gru_reset_after_backward
from gru4rec_np.errors import InputError
from gru4rec_np.losses import loss_and_gradient
from gru4rec_np.optim import update
from gru4rec_np.ranking import catalogue_scores, rank_targets
from gru4rec_np.scoring import scores, scores_backward

# What a step's time goes into, and so all that a backend may replace.
NUMPY = SimpleNamespace(
    name="numpy",
    draw_negatives=draw_negatives,
    gru=gru,
    gru_backward=gru_backward,
    gru_reset_after=gru_reset_after,
    gru_reset_after_backward=gru_reset_after_backward,
    scores=scores,
    scores_backward=scores_backward,
    loss_and_gradient=loss_and_gradient,
    update=update,
    catalogue_scores=catalogue_scores,
    rank_targets=rank_targets,
    stepper=None,  # many steps at once: network.stepper runs them one by one
)

# OpenBLAS, as NumPy's and SciPy's wheels bring it, has one limit for the whole process; MKL, or a
# BLAS on OpenMP, has one for each thread.
_blas = ThreadpoolController().select(user_api="blas").lib_controllers
_shared = [lib for lib in _blas if getattr(lib, "threading_layer", "") == "pthreads"]
_own = [lib for lib in _blas if lib not in _shared]
_entering, _inside, _before = Lock(), 0, []


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    # The first thread inside sets the shared limit, the last one to leave lifts it. Each for itself
    # would lift it under another that still computes, or take 1 for what was before and leave that.
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


def _set(libraries: list, limits: list[int]) -> list[int]:
    """Set the limits of some libraries; returns what they were."""
    before = [lib.get_num_threads() for lib in libraries]
    for lib, limit in zip(libraries, limits, strict=True):
        # threadpoolctl 3.8 heeds only the thread that was first to set a limit: let it be this one.
        if hasattr(lib, "clear_controlling_thread"):
            lib.clear_controlling_thread(force=True)
        lib.set_num_threads(limit)
    return before


# Decorates what trains or scores. Several BLAS threads may add in another order, so that their
# number would show in the last bits.
one_blas_thread = _one_blas_thread()

BACKENDS = ("auto", "numpy", "numba", "cuda", "cuda-emulated")


# The optimisers that backends have of their own; for others they use optim.update.
OWN_OPTIMISERS = ("adagrad", "sgd")


def usual(hp: Any) -> bool:
    """Whether a model is what the backends train many steps at a time: hp, its hyperparameters.

    One layer of GRUs and nothing after it, bptt = 1, Adagrad or SGD, no L2 and no limit on the
    gradient, and an input without history: the published configurations. Others go step by step.
    """
    return (
        hp.unit == "gru"
        and len(hp.layers) == 1
        and not hp.feedforward
        and hp.bptt == 1
        and hp.adapt in OWN_OPTIMISERS
        and hp.input in ("onehot", "embedding", "shared")
        and not hp.lmbd
        and not hp.grad_cap
    )


def multiplications(hp: Any) -> int:
    """About how many a training step takes, on full lanes: of hp, a model's hyperparameters."""
    H = sum(hp.layers)
    return 3 * hp.batch_size * H * (hp.batch_size + hp.n_sample + 3 * H)


def coded(act: tuple) -> tuple[int, float]:
    """An activation with its place in ACTIVATIONS instead of its name."""
    return ACTIVATIONS.index(act[0]), float(act[1])


def load(backend: str = "auto") -> Any:
    """The hot operations of a backend.

    Args:
        backend: "numpy"; "numba", compiled for the CPU; "cuda", on a GPU through CuPy;
            "cuda-emulated", the same CUDA kernels on the CPU, slowly, to learn from and to test;
            or "auto": cuda where a GPU and CuPy are, else numba where it is installed, else numpy.

    Returns:
        an object with the functions, the backend's `name`, and `why` it was taken.

    Raises:
        InputError: the backend is unknown, or what it needs is not there.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "auto":
        backend, why = _choose()
    else:
        why = "asked for"
    # Imported here, since loading and, the first time, compiling takes seconds that others need
    # not wait.
    if backend == "numpy":
        return SimpleNamespace(**{**vars(NUMPY), "why": why})
    if backend == "numba":
        if find_spec("numba") is None:
            raise InputError("backend: numba is not installed; pip install numba, or take numpy")
        from gru4rec_np.kernels import numba_cpu, numba_steps

        own = {name: getattr(numba_cpu, name) for name in vars(NUMPY) if hasattr(numba_cpu, name)}
        own |= {"name": "numba", "stepper": numba_steps.stepper, "why": why}
        return SimpleNamespace(**{**vars(NUMPY), **own})
    from gru4rec_np.kernels import cuda

    ops = cuda.on_gpu(why) if backend == "cuda" else cuda.emulated(why)
    if backend == "cuda" and find_spec("numba") is not None:
        from gru4rec_np.kernels import numba_cpu

        ops.draw_negatives = numba_cpu.draw_negatives  # else half of a step is waiting for them
    return ops


def _choose() -> tuple[str, str]:
    """The backend of "auto", and why."""
    without_gpu = "CuPy is not installed"
    if find_spec("cupy") is not None:
        from gru4rec_np.kernels import cuda

        problem = cuda.gpu_problem()
        if problem is None:
            return "cuda", "CuPy and a GPU are here"
        without_gpu = f"CuPy {problem.split(';')[0]}"
    if find_spec("numba") is not None:
        return "numba", f"the fastest one here, as {without_gpu}; compiles when first used"
    return "numpy", f"{without_gpu}, nor is Numba"
