"""The hot operations on each backend. `load(backend)` is the one place that chooses.

base.py has the contract and the NumPy implementation, numba/ and cuda/ override it, emulator/ runs
the CUDA kernels on the CPU.
"""

from importlib.util import find_spec

from gru4rec_np.backends.base import (
    OWN_OPTIMISERS,
    Memory,
    Ops,
    Stepper,
    Weights,
    can_fuse_steps,
    coded,
    multiplications,
    quiet,
)
from gru4rec_np.backends.blas import one_blas_thread
from gru4rec_np.errors import InputError

BACKENDS = ("auto", "numpy", "numba", "cuda", "cuda-emulated")

__all__ = [
    "BACKENDS",
    "OWN_OPTIMISERS",
    "Memory",
    "Ops",
    "Stepper",
    "Weights",
    "can_fuse_steps",
    "coded",
    "load",
    "multiplications",
    "one_blas_thread",
    "quiet",
]


def load(backend: str = "auto") -> Ops:
    """The hot operations of a backend.

    Args:
        backend: "numpy"; "numba", compiled for the CPU; "cuda", on a GPU through CuPy;
            "cuda-emulated", the same CUDA kernels on the CPU, slowly, for learning and tests; or
            "auto": cuda where a GPU and CuPy are present, else numba where it is installed, else
            numpy.

    Raises:
        InputError: the backend is unknown, or what it needs is missing.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: must be one of {', '.join(BACKENDS)}, not {backend!r}")
    why = "chosen by --backend"
    if backend == "auto":
        backend, why = _choose()
    # Imported here: loading Numba or CuPy takes seconds that the others need not wait.
    if backend == "numpy":
        return Ops(why)
    if backend == "numba":
        if problem := _numba_problem():
            raise InputError(f"backend: numba {problem}")
        from gru4rec_np.backends.numba.operations import NumbaOps

        return NumbaOps(why)
    from gru4rec_np.backends.cuda import operations

    if backend == "cuda-emulated":
        return operations.emulated(why)
    return operations.on_gpu(why)


def _choose() -> tuple[str, str]:
    """The backend of "auto", and why."""
    without_gpu = "CuPy is not installed"
    if find_spec("cupy") is not None:
        from gru4rec_np.backends.cuda import operations

        problem = operations.gpu_problem()
        if problem is None:
            return "cuda", "CuPy and a GPU are here"
        without_gpu = f"CuPy {problem.split(';')[0]}"
    if find_spec("numba") is None:
        return "numpy", f"{without_gpu}, nor is Numba"
    if problem := _numba_problem():
        return "numpy", f"{without_gpu}, and Numba {problem.rsplit(';', 1)[0]}"
    return "numba", f"the fastest one here, as {without_gpu}; compiles when first used"


def _numba_problem() -> str | None:
    """Why the Numba backend cannot be used; None if it can."""
    if find_spec("numba") is None:
        return "is not installed; pip install numba, or take numpy"
    try:
        import gru4rec_np.backends.numba.operations  # noqa: F401
    except Exception as error:  # versions that do not fit raise errors of any kind
        text = " ".join(str(error).split())
        return f"cannot be imported ({type(error).__name__}: {text}); take numpy"
    return None
