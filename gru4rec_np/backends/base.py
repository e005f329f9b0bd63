"""`Ops`: the hot operations, in NumPy. It is the default backend and the contract of the others.

Training and ranking spend their time in these operations. A backend is a subclass that overrides
what it computes faster. It may add a `Stepper`, which runs many training steps in one call.
Imports the mathematics (ops/) and the sampler of negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import EllipsisType
from typing import Any, Protocol, TypeVar

import numpy as np

from gru4rec_np.data import batches
from gru4rec_np.data.batches import Batches
from gru4rec_np.ops import cells, encoders, losses, optim, ranking, scoring
from gru4rec_np.ops.activations import ACTIVATIONS, LINEAR, TANH, Activation
from gru4rec_np.ops.cells import State

# Whether a backend says nothing while it compiles, as after `fit(verbose=False)`.
quiet: ContextVar[bool] = ContextVar("quiet", default=False)

Part = TypeVar("Part")
Result = TypeVar("Result")
Weights = dict[str, np.ndarray]
Memory = dict[str, dict[str, np.ndarray]]  # weight name -> the optimiser's arrays, see optim.STATE

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
    arguments. A backend's results equal these up to rounding: see tests/test_kernels.py.

    Attributes:
        name: the backend's name. why: why it was chosen, for messages.
        parts: in how many parts `each` is given a batch of whole sessions. The same on all
            machines: results depend on it.
        fed_rows: sessions that evaluation feeds side by side. With `ranking.PADDED_ROWS`, as many
            as serving feeds, the vectors are bit-identical to those of serving.
        lock: held by a thread while it calls the backend, where one at a time may.
        chunk_work: about how many multiplications a stepper's call may take.
    """

    name = "numpy"
    parts = 1
    fed_rows = ranking.PADDED_ROWS
    chunk_work = 2**33
    lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, why: str = "chosen by --backend") -> None:
        self.why = why

    def draw_negatives(
        self,
        rng: np.random.Generator,
        distribution: np.ndarray,
        shape: tuple[int, ...],
        guide: np.ndarray | None = None,
    ) -> np.ndarray:
        """Extra negatives, int32 of this shape; see `batches.draw_negatives`."""
        return batches.draw_negatives(rng, distribution, shape, guide)

    # --- the recurrent step -----------------------------------------------------------------------

    def gru(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """One GRU step: h' (B, H) and the cache of `gru_backward`; see `cells.gru`."""
        return cells.gru(xW, h, U, b, hidden_act)

    def gru_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, ...]:
        """dxW (B, 3H), dh (B, H), dU (H, 3H), db (3H,); see `cells.gru_backward`."""
        return cells.gru_backward(dh_new, cache, U, hidden_act)

    def gru_reset_after(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        c: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """One step of cuDNN's GRU: h' (B, H) and the cache; see `cells.gru_reset_after`."""
        return cells.gru_reset_after(xW, h, U, b, c, hidden_act)

    def gru_reset_after_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, ...]:
        """dxW, dh, dU, db as `gru_backward`, dc (3H,); see `cells.gru_reset_after_backward`."""
        return cells.gru_reset_after_backward(dh_new, cache, U, hidden_act)

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

    def local(
        self,
        h: np.ndarray,
        there: np.ndarray,
        A1: np.ndarray,
        A2: np.ndarray,
        v: np.ndarray,
        normalise: bool = False,
    ) -> tuple[np.ndarray, tuple]:
        """The attention's c (E, H) and the cache of `local_backward`; see `encoders.local`."""
        return encoders.local(h, there, A1, A2, v, normalise)

    def local_backward(
        self,
        dc: np.ndarray,
        cache: tuple,
        there: np.ndarray,
        A1: np.ndarray,
        A2: np.ndarray,
        v: np.ndarray,
        normalise: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """dh (E, H), dA1 (H, H), dA2 (H, H), dv (H,); see `encoders.local_backward`."""
        return encoders.local_backward(dc, cache, there, A1, A2, v, normalise)

    # --- scores and loss --------------------------------------------------------------------------

    def scores(
        self, h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B, N) of N items, and their rows V (N, H); see `scoring.scores`."""
        return scoring.scores(h, V_y, b_y, items)

    def scores_backward(
        self, dr: np.ndarray, h: np.ndarray, V: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """dh (B, H), dV (N, H), db (N,); see `scoring.scores_backward`."""
        return scoring.scores_backward(dr, h, V)

    def loss_and_gradient(
        self,
        raw: np.ndarray,
        loss: str,
        final_act: Activation = LINEAR,
        bpreg: float = 1.0,
        smoothing: float = 0.0,
        log_q: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loss of each lane (B,) and its gradient (B, N); see `losses.loss_and_gradient`."""
        return losses.loss_and_gradient(raw, loss, final_act, bpreg, smoothing, log_q)

    def softmax_loss(self, r: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy over all items, losses (n,) and gradient (n, I); `losses.softmax_loss`."""
        return losses.softmax_loss(r, y)

    def cut_cross_entropy(
        self, h: np.ndarray, V: np.ndarray, b: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scores and their cross-entropy in one: loss (B,), dh (B, D), dV (N, D), db (N,).

        See `losses.cut_cross_entropy`. A backend need not store the scores (B, N).
        """
        return losses.cut_cross_entropy(h, V, b, y, self.softmax_loss)

    # --- the optimiser ----------------------------------------------------------------------------

    def update(
        self,
        p: np.ndarray,
        g: np.ndarray,
        state: dict[str, np.ndarray],
        adapt: str,
        learning_rate: float,
        momentum: float = 0.0,
        rows: np.ndarray | EllipsisType = ...,
    ) -> None:
        """Update a weight, or some rows of it, in place; see `optim.update`."""
        optim.update(p, g, state, adapt, learning_rate, momentum, rows)

    # --- the whole catalogue ----------------------------------------------------------------------

    def resident(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """The arrays, for many calls of `rank_targets`; a backend may send them to its device."""
        return arrays

    def catalogue_scores(self, h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
        """Scores (n, I) of all items; bit-identical to those that `rank_targets` compares."""
        return ranking.catalogue_scores(h, V_y, b_y)

    def rank_targets(
        self,
        h: np.ndarray,
        V_y: np.ndarray,
        b_y: np.ndarray,
        targets: np.ndarray,
        ties: str = "conservative",
        lifted: ranking.Lifted | None = None,
    ) -> np.ndarray:
        """Rank of each case's target (n,) float64 among all items; see `ranking.rank_targets`."""
        return ranking.rank_targets(h, V_y, b_y, targets, ties, lifted)

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
                `logq_corrected` that of `scoring.log_columns`.
        """
        return None


def can_fuse_steps(hp: Any) -> bool:
    """Whether the fused loops of the backends can train a model.

    They train the published configurations: one GRU layer, no feed-forward layer, bptt = 1, Adagrad
    or SGD, no L2, no gradient clipping, sampled negatives, any input except `weighted`. Other
    models are trained step by step.

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
