"""The training of GRU4Rec: the loop over epochs and steps, and its checkpoints.

A training begins with fresh weights, or goes on from a model. A checkpoint holds everything that
the rest of a run depends on: weights, optimiser memory, the lanes' states, the random generator. So
a resumed run is bit-identical to one that never stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.backends import Memory, Ops, Stepper, Weights, multiplications, one_blas_thread
from gru4rec_np.data.batches import guide_table, negative_distribution, session_parallel
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint, going_on, network
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.neural import OnChunk, highest_loss, history_row
from gru4rec_np.ops.optim import init_memory
from gru4rec_np.ops.scoring import expected_columns

CHUNK = (64, 512)  # the fewest and the most steps, see chunk_of
IN_TRAINING = "GRU4Rec, in training"  # what a checkpoint says that it holds


def chunk_of(hp: Hyperparameters, ops: Ops) -> int:
    """Steps whose negatives are drawn at once, and between two calls of `on_chunk`.

    Where a backend trains a chunk in one call, small models use the longest chunks, to amortise
    call overhead. Large models use short ones: progress, checkpoints and stopping wait for a
    chunk's end.
    """
    least, most = CHUNK
    if ops.fuses(hp):
        return min(max(least, ops.chunk_work // multiplications(hp)), most)
    return -(-least // hp.bptt) * hp.bptt  # whole windows only: a window takes bptt steps


class Diverged(InputError):
    """Raised when the loss stopped being a number or exploded."""


class Stopped(Exception):
    """Raised by a callback of `Training.run` to stop it; the model keeps what it has learnt."""


class Training:
    """A run of GRU4Rec, from fresh weights or from a file, up to its last epoch.

    Args:
        hp: hyperparameters. ops: the hot operations, see `backends.load`.
        train: sessions over the training catalogue, each of 2 events or more.
        support: (I,) events of each item, for the sampler and logQ; those of `train` if None.

    Attributes:
        weights: name to array, see network.py. memory: the optimiser's, see `optim.init_memory`.
        losses: list of (updates,) arrays, the mean loss over the events of every update, in order.
        history: one dict for each finished epoch.
        epoch, step: the current epoch, from 1, and how many of its steps are done.
        chunk: steps between two calls of `on_chunk`.
        best: (score, epoch, weights) of the best epoch so far, if epochs are validated.

    Raises:
        InputError: too few sessions to train on.
    """

    def __init__(
        self, hp: Hyperparameters, ops: Ops, train: Sessions, support: np.ndarray | None = None
    ) -> None:
        # A single lane needs extra samples as negatives.
        self.min_lanes = 1 if hp.n_sample else 2
        if train.n_sessions < self.min_lanes:
            raise InputError(
                f"nothing to train on: {train.n_sessions} session(s) with 2 events or more, "
                f"{self.min_lanes} needed with n_sample={hp.n_sample}"
            )
        self.hp, self.ops, self.train = hp, ops, train
        self.support = train.support if support is None else support
        self._start: str | None = None  # a hash of what it goes on from
        self.chunk = chunk_of(hp, ops)
        self.rng = np.random.default_rng(hp.seed)
        self.weights = network.init_weights(hp, train.n_items, self.rng)
        self.memory = {n: init_memory(p, hp.adapt, hp.momentum) for n, p in self.weights.items()}
        self.losses: list[np.ndarray] = []
        self.history: list[dict[str, float]] = []
        self.epoch, self.step = 1, 0
        self.best: tuple[float, int, dict[str, np.ndarray]] | None = None
        self._loss = self._seconds = 0.0  # of this epoch so far: the sum over its events, and time
        self._state: network.State | None = None
        self._epoch_began: Mapping[str, Any] = {}  # the generator's state then
        self._stepper: Stepper | None = None

    def start_from(self, weights: Weights, memory: Memory | None) -> None:
        """Go on from a model's weights, see `going_on.start_from`. Call it before `run` and `load`.

        Args:
            weights: those of a model whose catalogue is the first part of this one.
            memory: of the same optimiser; None for fresh memory.
        """
        going_on.start_from(self.weights, self.memory, weights, memory, self.train)
        found = hashlib.sha256(np.ascontiguousarray(self.support).data)
        for arrays in (self.weights, *self.memory.values()):
            _add_to(found, arrays)
        self._start = found.hexdigest()

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the loss is checked instead
    @one_blas_thread
    def run(
        self,
        on_chunk: OnChunk | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        judge: Callable[[], dict[str, float]] | None = None,
        patience: int = 0,
    ) -> None:
        """Train up to the last epoch.

        Args:
            on_chunk: see `neural.OnChunk`; called every `chunk` steps. It may call `save`.
            on_epoch: called after each epoch with what it added to `history`.
            judge: returns metrics of the current weights on validation sessions. The first is the
                score, higher is better. With it the final weights are those of the best epoch.
            patience: with `judge`, stop after this many epochs without a better score; 0: never.

        Raises:
            Diverged: the loss stopped being a number or exploded.
        """
        hp, rng, chunk = self.hp, self.rng, self.chunk
        # An item without events is no target. It is a negative only if sample_alpha is 0.
        log_support = np.log(np.maximum(self.support, 1)).astype(np.float32)
        negatives = negative_distribution(self.support, hp.sample_alpha)
        if hp.corrects:
            targets = negative_distribution(self.train.support, 1)
            chances = np.diff([targets, negatives], prepend=0)
            expected = expected_columns(chances, hp.batch_size - 1, hp.n_extra)
            log_support = np.log(expected).astype(np.float32)
        guide = guide_table(negatives)
        of_model = hp, self.weights, self.memory
        stepper = self.ops.stepper(*of_model, log_support)
        stepper = stepper or network.StepByStep(*of_model, self.ops, log_support)
        self._stepper = stepper

        try:
            while self.epoch <= hp.n_epochs and not self._lost_patience(patience):
                began = time.perf_counter() - self._seconds
                batches = self._begin_epoch()
                of_epoch = batches.lanes.cumsum()
                total = int(of_epoch[-1])
                for first in range(self.step, len(batches), chunk):
                    steps = range(first, min(first + chunk, len(batches)))
                    shape = len(steps), hp.n_extra
                    samples = stepper.draw_negatives(rng, negatives, shape, guide)
                    assert self._state is not None  # since _begin_epoch
                    rates = self._rates(steps, len(batches))
                    losses, self._state = stepper(batches, steps, samples, self._state, rng, rates)
                    self._keep(losses, batches.lanes, steps)
                    self._seconds = time.perf_counter() - began
                    if on_chunk:
                        done = int(of_epoch[steps.stop - 1])
                        on_chunk(self.epoch, done, total, self._loss / done)
                row = history_row(self.epoch, self._loss, total, self._seconds)
                if judge:
                    row |= self._judge(judge())
                self.history.append(row)
                self.epoch, self.step, self._loss, self._seconds = self.epoch + 1, 0, 0.0, 0.0
                if on_epoch:
                    on_epoch(row)
        finally:  # stopped within an epoch, too
            stepper.fetch()
        if self.best:
            for name, array in self.best[2].items():
                self.weights[name][:] = array

    def _begin_epoch(self) -> Any:
        """The epoch's batches. At its first step also resets the lanes' states."""
        hp, rng = self.hp, self.rng
        now = rng.bit_generator.state
        if self.step:  # resumed within the epoch: draw the same order again
            rng.bit_generator.state = self._epoch_began
        else:
            self._epoch_began = now
        order = rng.permutation(self.train.n_sessions) if hp.train_random_order else None
        if self.step:
            rng.bit_generator.state = now
        batches = session_parallel(self.train, hp.batch_size, self.min_lanes, order)
        if not self.step:
            self._state = network.zero_state(hp, batches.x.shape[1])
        return batches

    def _rates(self, steps: range, n_steps: int) -> np.ndarray | None:
        """The learning rate of each update of these steps, of n_steps in this epoch; see `Stepper`.

        With `decay` it falls in a straight line: learning_rate (1 - epochs done / n_epochs).
        """
        hp = self.hp
        if not hp.decay:
            return None
        done = self.epoch - 1 + np.arange(steps.start, steps.stop, hp.bptt) / n_steps
        return hp.learning_rate * (1 - done / hp.n_epochs)

    def _keep(self, losses: np.ndarray, lanes: np.ndarray, steps: range) -> None:
        """Check and keep the losses of some steps."""
        hp = self.hp
        events = np.add.reduceat(lanes[steps.start : steps.stop], range(0, len(steps), hp.bptt))
        per_event = losses * hp.batch_size / events  # a loss is divided by it, however few lanes
        first_loss = next((float(part[0]) for part in self.losses if len(part)), per_event[0])
        bad = np.flatnonzero(~(per_event <= highest_loss(first_loss)))
        if len(bad):
            first = steps.start + int(bad[0]) * hp.bptt
            raise Diverged(
                f"training diverged: the loss is {per_event[bad[0]]:.4g} at step {first + 1} of "
                f"epoch {self.epoch}; the steps are probably too large: try a lower "
                f"learning_rate than {hp.learning_rate:g}"
                + (f", a lower momentum than {hp.momentum:g}" if hp.momentum else "")
                + ("" if hp.grad_cap else " or grad_cap=1")
            )
        self.losses.append(per_event)
        self._loss += float(per_event @ events)
        self.step = steps.stop

    def _judge(self, metrics: dict[str, float]) -> dict[str, float]:
        score = next(iter(metrics.values()))
        if self.best is None or score > self.best[0]:
            weights = {name: array.copy() for name, array in self.weights.items()}
            self.best = score, self.epoch, weights
        return metrics

    def _lost_patience(self, patience: int) -> bool:
        return bool(patience and self.best and self.epoch - 1 - self.best[1] >= patience)

    # --- on disk ----------------------------------------------------------------------------------

    @cached_property
    def _log(self) -> str:
        """The training log's, computed once for all checkpoints."""
        return fingerprint(self.train)

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint and the run that resumes it must share."""
        fixed = self.hp.as_dict()
        del fixed["n_epochs"]  # a resumed run may train for more epochs
        return {
            "hyperparameters": fixed,
            "backend": self.ops.name,
            "log": self._log,
            "start": self._start,
        }

    def save(self, path: str | Path, judged: Sequence[str] = ()) -> None:
        """Write a checkpoint to one .npz file; see `checkpoint.save`.

        State is consistent only at chunk boundaries: call it from `on_chunk`, from `on_epoch`, or
        after `run`.

        Args:
            judged: the `fingerprint` of each log that the model is judged on. The file keeps them;
                `load` does not look at them.
        """
        if self._stepper:
            self._stepper.fetch()
        about = {
            "model": IN_TRAINING,
            **self._facts(),
            "epoch": self.epoch,
            "step": self.step,
            "loss": self._loss,
            "seconds": self._seconds,
            "history": self.history,
            "rng": self.rng.bit_generator.state,
            "epoch_began": self._epoch_began,
            "best": self.best[:2] if self.best else None,
            "judged": list(judged),
        }
        arrays = {f"weights/{n}": p for n, p in self.weights.items()}
        arrays |= {f"memory/{n}/{k}": a for n, m in self.memory.items() for k, a in m.items()}
        arrays["losses"] = np.concatenate([np.empty(0), *self.losses])
        if self._state:
            arrays |= {f"h/{i}": h for i, h in enumerate(self._state.h)}
            arrays["lane_history"] = self._state.history
        if self.best:
            arrays |= {f"best/{n}": p for n, p in self.best[2].items()}
        checkpoint.save(path, about, arrays)

    def load(self, path: str | Path) -> None:
        """Restore a checkpoint that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, not ours, or of a run with another log, other
                hyperparameters, another backend or another model to start from, which could not
                give the same bits.
        """
        about, arrays = checkpoint.load(path)
        try:
            if about["model"] != IN_TRAINING:
                raise ValueError(f"it holds a finished model, {about['model']}")
            about["hyperparameters"] = self.hp.earlier | about["hyperparameters"]
            about.setdefault("start", None)  # files of earlier versions lack it
            for name, value in self._facts().items():
                if about[name] != value:
                    what = "another log" if name == "log" else f"other {name}"
                    if name == "hyperparameters":
                        changed = [n for n in value if about[name].get(n) != value[n]]
                        what += f": {', '.join(changed)}"
                    elif name == "backend":
                        what = f"another backend, {about[name]} instead of {value}"
                    elif name == "start":
                        what = "another model to start from, or without one"
                    raise ValueError(f"it was trained with {what}")
            for n, p in self.weights.items():
                _take(p, arrays[f"weights/{n}"], n)
                for k, a in self.memory[n].items():
                    _take(a, arrays[f"memory/{n}/{k}"], f"{n}'s {k}")
            self.epoch, self.step = int(about["epoch"]), int(about["step"])
            self._loss, self._seconds = float(about["loss"]), float(about["seconds"])
            self.history = list(about["history"])
            self._epoch_began = about["epoch_began"]
            self.rng.bit_generator.state = about["rng"]
            losses = arrays["losses"]
            if losses.dtype != np.float64 or losses.ndim != 1:
                raise ValueError(f"losses is {losses.dtype} {losses.shape}")
            self.losses = [losses]
            if self.epoch < 1 or self.step < 0:
                raise ValueError(f"it stands at step {self.step} of epoch {self.epoch}")
            if self.step:
                lanes = self._begin_epoch().lanes[: self.step]
                if len(lanes) < self.step or not 0 < self._seconds < float("inf"):
                    raise ValueError(f"no epoch has {self.step} steps in {self._seconds} s")
                zero = network.zero_state(self.hp, int(lanes[-1]))
                for i, h in enumerate(zero.h):
                    _take(h, arrays[f"h/{i}"], f"the lanes' h of layer {i}")
                _take(zero.history, arrays["lane_history"], "the lanes' history")
                if not ((zero.history >= -1) & (zero.history < self.train.n_items)).all():
                    raise ValueError("the lanes' history has items that are none")
                self._state = zero
            if self.epoch - (self.step == 0) > self.hp.n_epochs:
                raise ValueError(f"it is in epoch {self.epoch}, n_epochs is {self.hp.n_epochs}")
            if about["best"]:
                best = {n: np.empty_like(p) for n, p in self.weights.items()}
                for n, p in best.items():
                    _take(p, arrays[f"best/{n}"], n)
                score, epoch = about["best"]
                self.best = float(score), int(epoch), best
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{path}: cannot resume from this file: {error}") from error


def read_memory(path: str | Path, weights: Weights, hp: Hyperparameters) -> Memory:
    """The optimiser's memory in the checkpoint of a finished training.

    Args:
        weights, hp: of the model that the training gave.

    Raises:
        InputError: the file is missing, damaged or not ours, or of another model or optimiser.
    """
    # With validation, the model has the weights of the best epoch.
    about, arrays = checkpoint.load(path)
    try:
        if about["model"] != IN_TRAINING:
            raise ValueError(f"it holds a finished model, {about['model']}")
        final = "best" if about["best"] else "weights"
        if not all(np.array_equal(arrays[f"{final}/{n}"], p) for n, p in weights.items()):
            raise ValueError("it has other weights")
        for name in ("adapt", "momentum"):
            if about["hyperparameters"][name] != hp.as_dict()[name]:
                raise ValueError(f"it was trained with {name}={about['hyperparameters'][name]}")
        memory = {n: init_memory(p, hp.adapt, hp.momentum) for n, p in weights.items()}
        for n, m in memory.items():
            for k, a in m.items():
                _take(a, arrays[f"memory/{n}/{k}"], f"{n}'s {k}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the optimiser's memory of this model: {error}") from error
    return memory


def fingerprint(sessions: Sessions) -> str:
    """A hash of a log's items, in their order and their sessions, and of its item ids."""
    found = hashlib.sha256()
    _add_to(found, {"items": sessions.items, "offsets": sessions.offsets})
    _add_to(found, checkpoint.pack_ids(sessions.item_ids))
    return found.hexdigest()


def _add_to(found: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Add the bytes of arrays to a hash."""
    for array in arrays.values():
        found.update(np.ascontiguousarray(array).data)


def _take(into: np.ndarray, array: np.ndarray, name: str) -> None:
    """Copy an array of a file into one of the expected shape and type.

    Raises:
        ValueError: it has another shape or type.
    """
    if array.shape != into.shape or array.dtype != into.dtype:
        wanted = f"{into.dtype} {into.shape}"
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {wanted}")
    into[:] = array
