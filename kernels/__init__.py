"""The hot operations, by backend. `load(backend)` hands them out; nothing else chooses.

A backend is a namespace of the functions that `NUMPY` below lists, with the arguments and results
of the NumPy functions of those names, which define them. Imports the mathematics, no model.
"""

from types import SimpleNamespace

import numpy as np  # noqa: F401 - loads the BLAS library that the controller below looks for
from threadpoolctl import ThreadpoolController

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
)

# Decorates what trains or scores. Several BLAS threads may add in another order, so that their
# number would show in the last bits; and products of these sizes are not faster with them.
one_blas_thread = ThreadpoolController().wrap(limits=1, user_api="blas")

BACKENDS = ("auto", "numpy")


def load(backend: str = "auto") -> SimpleNamespace:
    """The hot operations of a backend.

    Args:
        backend: "numpy", or "auto" for the fastest one that works on this machine.

    Returns:
        a namespace of functions, and the backend's `name`.

    Raises:
        InputError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend: must be one of {', '.join(BACKENDS)}, not {backend!r}")
    return NUMPY
