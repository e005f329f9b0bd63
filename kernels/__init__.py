"""The hot operations, by backend. `load(backend)` hands them out; nothing else chooses.

A backend is a namespace of the functions that `NUMPY` below lists, with the arguments and results
of the NumPy functions of those names, which define them; and possibly a `stepper` of its own.
Imports the mathematics, no model.
"""

from importlib.util import find_spec
from types import SimpleNamespace

import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS that compiled products call, so that
from threadpoolctl import ThreadpoolController  # this finds it

from gru4rec_np.cells import gru, gru_backward, gru_reset_after, gru_reset_after_backward
from gru4rec_np.errors import InputError
from gru4rec_np.losses import loss_and_gradient
from gru4rec_np.optim import update
from gru4rec_np.ranking import rank_targets
from gru4rec_np.scoring import scores, scores_backward

# What a step's time goes into, and so all that a backend may replace.
NUMPY = SimpleNamespace(
    name="numpy",
    gru=gru,
    gru_backward=gru_backward,
    gru_reset_after=gru_reset_after,
    gru_reset_after_backward=gru_reset_after_backward,
    scores=scores,
    scores_backward=scores_backward,
    loss_and_gradient=loss_and_gradient,
    update=update,
    rank_targets=rank_targets,
    stepper=None,  # many steps at once: network.stepper runs them one by one
)

# Decorates what trains or scores. Several BLAS threads may add in another order, so that their
# number would show in the last bits.
one_blas_thread = ThreadpoolController().wrap(limits=1, user_api="blas")

BACKENDS = ("auto", "numpy", "numba")


def load(backend: str = "auto") -> SimpleNamespace:
    """The hot operations of a backend.

    Args:
        backend: "numpy"; "numba", compiled for the CPU; or "auto": numba where it is installed,
            else numpy.

    Returns:
        a namespace of functions, the backend's `name`, and `why` it was taken.

    Raises:
        InputError: the backend is unknown, or Numba is not installed.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: must be one of {', '.join(BACKENDS)}, not {backend!r}")
    has_numba = find_spec("numba") is not None
    if backend == "numba" and not has_numba:
        raise InputError("backend: numba is not installed; pip install numba, or take numpy")
    if backend == "numpy" or not has_numba:
        why = "asked for" if backend == "numpy" else "Numba is not installed"
        return SimpleNamespace(**{**vars(NUMPY), "why": why})
    # Here, since loading and, the first time, compiling takes seconds that NumPy need not wait.
    from gru4rec_np.kernels import numba_cpu, numba_steps

    why = "asked for" if backend == "numba" else "the fastest one here; compiles when first used"
    own = {name: getattr(numba_cpu, name) for name in vars(NUMPY) if hasattr(numba_cpu, name)}
    return SimpleNamespace(
        **{**vars(NUMPY), **own, "name": "numba", "stepper": numba_steps.stepper, "why": why}
    )
