"""`Ops`: the hot operations, in NumPy. It defines what the other backends must compute.

Training and ranking spend their time in these operations. A backend is a subclass that overrides
what it computes faster. It may add a `Stepper`, which runs many training steps in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import numpy as np

from gru4rec_np.data import batches
from gru4rec_np.data.batches import Batches
from gru4rec_np.ops import cells, encoders, losses, optim, ranking, scoring
from gru4rec_np.ops.activations import ACTIVATIONS, Activation
from gru4rec_np.ops.cells import State

# Whether a backend says nothing while it compiles, as after `fit(verbose=False)`.
quiet: ContextVar[bool] = ContextVar("quiet", default=False)

Part = TypeVar("Part")
Result = TypeVar("Result")
Weights = dict[str, np.ndarray]
Memory = dict[str, dict[str, np.ndarray]]  # weight name -> the optimiser's arrays, see optim.MEMORY

# The optimisers that backends implement. For the others they use ops/optim.py.
OWN_OPTIMISERS = ("adagrad", "sgd")


class Stepper(Protocol):
    """Runs consecutive training steps. `network.StepByStep` is the plain one.

    Weights and optimiser memory may live elsewhere (on a GPU, transposed) between calls. They are
    up to date after the last step of an epoch and after `fetch`.
    """

    def draw_negatives(
        self,
        rng: np.random.Generator,
        distribution: np.ndarray,
        shape: tuple[int, ...],
        guide: np.ndarray,
    ) -> Any:
        """The samples of a call: `batches.draw_negatives`, where the stepper wants them."""

    def __call__(
        self,
        batches: Batches,
        steps: range,
        samples: np.ndarray,
        state: State,
        rng: np.random.Generator,
        rates: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """Train these steps of an epoch.

        Args:
            batches: the epoch. steps: consecutive steps of it.
            samples: (len(steps), n_sample) int32 extra negatives; also those of `draw_negatives`.
            state: the state after the step before. rng: draws the dropout masks.
            rates: (updates,) the learning rate of each update; None: hp.learning_rate.

        Returns:
            the loss of each update (updates,) float64, and the state after the last step.
        """

    def fetch(self) -> None:
        """Write weights and optimiser memory back to the arrays that the stepper was given."""


class Ops:
    """The hot operations in NumPy, and the contract of every backend.

    Arrays are float32 (training) or float64 (gradient checks); results have the dtype of the
    arguments. A backend's results equal these up to rounding: see tests/test_kernels.py. Most
    operations are functions of ops/, whose docstrings say what an operation takes and returns.

    Attributes:
        name: the backend's name. why: why it was chosen, for messages.
        parts: in how many parts `each` is given a batch of whole sessions. The same on all
            machines: results depend on it.
        fed_lanes: sessions that evaluation feeds side by side. With `ranking.PADDED_ROWS`, as many
            as serving feeds, the vectors are bit-identical to those of serving.
        lock: held by a thread while it calls the backend, where one at a time may.
        chunk_work: about how many multiplications a stepper's call may take.
    """

    name = "numpy"
    parts = 1
    fed_lanes = ranking.PADDED_ROWS
    chunk_work = 2**33
    lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, why: str = "chosen by --backend") -> None:
        self.why = why

    draw_negatives = staticmethod(batches.draw_negatives)

    # --- the recurrent step -----------------------------------------------------------------------

    gru = staticmethod(cells.gru)
    gru_backward = staticmethod(cells.gru_backward)
    gru_reset_after = staticmethod(cells.gru_reset_after)
    gru_reset_after_backward = staticmethod(cells.gru_reset_after_backward)

    # --- whole sessions ---------------------------------------------------------------------------

    def unroll(
        self, xW: np.ndarray, there: np.ndarray, U: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        """h (E, H) and the cache of `unroll_backward`; see `encoders.unroll`."""
        return encoders.unroll(xW, there, U, b, self)

    def unroll_backward(
        self, dh: np.ndarray, cache: Any, there: np.ndarray, U: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """dxW (E, 3H), dU (H, 3H), db (3H,); see `encoders.unroll_backward`."""
        return encoders.unroll_backward(dh, cache, there, U, self)

    local = staticmethod(encoders.local)
    local_backward = staticmethod(encoders.local_backward)

    # --- scores and loss --------------------------------------------------------------------------

    scores = staticmethod(scoring.scores)
    scores_backward = staticmethod(scoring.scores_backward)
    loss_and_gradient = staticmethod(losses.loss_and_gradient)
    softmax_loss = staticmethod(losses.softmax_loss)

    def cut_cross_entropy(
        self, h: np.ndarray, V: np.ndarray, b: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scores and their cross-entropy in one: loss (B,), dh (B, D), dV (N, D), db (N,).

        See `losses.cut_cross_entropy`. A backend need not store the scores (B, N).
        """
        return losses.cut_cross_entropy(h, V, b, y, self.softmax_loss)

    # --- the optimiser and the whole catalogue ----------------------------------------------------

    update = staticmethod(optim.update)
    adam_catch_up = staticmethod(optim.adam_catch_up)
    catalogue_scores = staticmethod(ranking.catalogue_scores)
    rank_targets = staticmethod(ranking.rank_targets)

    def resident(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """The arrays, for many calls of `rank_targets`; a backend may send them to its device."""
        return arrays

    # --- parts of a batch -------------------------------------------------------------------------

    def each(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """What the function returns for each part, in order. A backend may use threads."""
        return [function(part) for part in parts]

    def prepare(self, dtype: Any) -> None:
        """Compile what `each` calls for whole sessions, before a first epoch's time begins."""

    # --- many steps at once -----------------------------------------------------------------------

    def fuses(self, hp: Any) -> bool:
        """Whether `stepper` trains a model with these hyperparameters many steps at a time."""
        return False

    def stepper(
        self, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray
    ) -> Stepper | None:
        """The backend's own `Stepper` where it `fuses` the model, else None.

        Args:
            hp: `models.hyperparameters.Hyperparameters`.
            W, memory: weights and optimiser memory, which the stepper changes.
            log_support: (I,) float32, for logQ: log of each item's number of training events; with
                `logq_corrected` that of `scoring.expected_columns`.
        """
        return None


def can_fuse_steps(hp: Any) -> bool:
    """Whether the fused loops of the backends can train a model.

    They train the defaults and the published configurations: one GRU layer, no feed-forward layer,
    bptt = 1, Adagrad or SGD, no L2, no gradient clipping, sampled negatives, any input except
    `weighted`. Other models are trained step by step.

    Args:
        hp: `models.hyperparameters.Hyperparameters`.
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
        and not hp.scores_all
    )


def multiplications(hp: Any, n_items: int = 0) -> int:
    """Approximate number of multiplications of a training step with all lanes.

    Args:
        n_items: I, the scored items with n_sample=all.
    """
    H = sum(hp.layers)
    scored = n_items if hp.scores_all else hp.batch_size + hp.n_extra
    return 3 * hp.batch_size * H * (scored + 3 * H)


def coded(act: Activation) -> tuple[int, float]:
    """(index in ACTIVATIONS, a) for compiled code, which takes no names."""
    return ACTIVATIONS.index(act[0]), float(act[1])
