"""The training loop of GRU4Rec over epochs and steps, and its checkpoints.

A `Training` holds the whole state of a run: weights, optimiser memory, hidden states of the lanes,
random number generator. A run that is resumed from a checkpoint therefore ends bit-identical to one
that was never stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.backends import Ops, Stepper, multiplications, one_blas_thread
from gru4rec_np.data.batches import (
    Batches,
    guide_table,
    negative_distribution,
    session_parallel,
)
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import checkpoint, network
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.ops.optim import init_state

CHUNK = (64, 512)  # fewest and most steps, see chunk_of
EXPLODED = 1000  # training has diverged when the loss is this many times the first one


def chunk_of(hp: Hyperparameters, ops: Ops) -> int:
    """The number of steps in a chunk: their negatives are drawn at once, then `on_chunk` is called.

    Where a backend trains a chunk in one call, small models use longer chunks, to amortise the
    call overhead. Chunks of large models stay short, since progress, checkpoints and Ctrl-C wait
    for the end of a chunk.

    Args:
        hp: hyperparameters. ops: the hot operations, see `backends.load`.
    """
    least, most = CHUNK
    if ops.fuses(hp):
        return min(max(least, 2**33 // multiplications(hp)), most)
    return -(-least // hp.bptt) * hp.bptt  # whole windows of bptt steps


class Diverged(InputError):
    """The loss is NaN, infinite or `EXPLODED` times the first one."""


class Stopped(Exception):
    """Raised by a callback of `Training.run` to stop it. The weights keep the last update."""


class Training:
    """A training run of GRU4Rec, from new weights or from a checkpoint.

    Args:
        hp: hyperparameters. ops: the hot operations, see `backends.load`.
        train: sessions over the training catalogue, each of 2 events or more.

    Attributes:
        weights: name to array, see network.py. memory: the optimiser's, see `optim.init_state`.
        losses: list of (updates,) arrays, the mean loss over the events of each update, in order.
        history: one dict for each finished epoch.
        epoch, step: the epoch, from 1, and the number of its steps that are done.
        chunk: steps between two calls of `on_chunk`.
        best: (score, epoch, weights) of the best epoch so far; None without validation.

    Raises:
        InputError: too few sessions to train on.
    """

    def __init__(self, hp: Hyperparameters, ops: Ops, train: Sessions) -> None:
        # One lane alone has no negatives but the extra samples.
        self.min_lanes = 1 if hp.n_sample else 2
        if train.n_sessions < self.min_lanes:
            raise InputError(
                f"nothing to train on: {train.n_sessions} session(s) with 2 events or more, "
                f"{self.min_lanes} needed with n_sample={hp.n_sample}"
            )
        self.hp, self.ops, self.train = hp, ops, train
        self.chunk = chunk_of(hp, ops)
        self.rng = np.random.default_rng(hp.seed)
        self.weights = network.init_weights(hp, train.n_items, self.rng)
        self.memory = {n: init_state(p, hp.adapt, hp.momentum) for n, p in self.weights.items()}
        self.losses: list[np.ndarray] = []
        self.history: list[dict[str, float]] = []
        self.epoch, self.step = 1, 0
        self.best: tuple[float, int, dict[str, np.ndarray]] | None = None
        # Of this epoch so far: the sum of the loss over its events, and the time.
        self._loss = self._seconds = 0.0
        self._lanes = network.zero_state(hp, 0)
        self._epoch_began: Mapping[str, Any] = {}  # the generator's state at the epoch's start
        self._stepper: Stepper | None = None

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the loss is checked instead
    @one_blas_thread
    def run(
        self,
        on_chunk: Callable[[int, int, int, float], None] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        judge: Callable[[], dict[str, float]] | None = None,
        patience: int = 0,
    ) -> None:
        """Train up to the last epoch.

        Args:
            on_chunk: called every `chunk` steps with the epoch, from 1, its events done, its events
                in all, and the mean loss over the events done. It may call `save`.
            on_epoch: called after each epoch with its dict of `history`.
            judge: returns the metrics of the current weights on validation sessions. The first
                metric is the score, higher is better. At the end the weights are those of the
                epoch with the best score.
            patience: with `judge`, stop after this many epochs without a better score; 0: never.

        Raises:
            Diverged: the loss is NaN, infinite or too large.
        """
        hp, train, rng, chunk = self.hp, self.train, self.rng, self.chunk
        log_support = np.log(train.support).astype(np.float32)
        negatives = negative_distribution(train.support, hp.sample_alpha)
        guide = guide_table(negatives)
        state = self.weights, self.memory
        stepper = self.ops.stepper(hp, *state, log_support)
        stepper = stepper or network.StepByStep(hp, *state, self.ops, log_support)
        self._stepper = stepper

        try:
            while self.epoch <= hp.n_epochs and not self._lost_patience(patience):
                began = time.perf_counter() - self._seconds
                batches = self._begin_epoch()
                of_epoch = batches.lanes.cumsum()
                total = int(of_epoch[-1])
                for first in range(self.step, len(batches), chunk):
                    steps = range(first, min(first + chunk, len(batches)))
                    samples = self.ops.draw_negatives(
                        rng, negatives, (len(steps), hp.n_sample), guide
                    )
                    losses, self._lanes = stepper(batches, steps, samples, self._lanes, rng)
                    self._keep(losses, batches.lanes, steps)
                    self._seconds = time.perf_counter() - began
                    if on_chunk:
                        done = int(of_epoch[steps.stop - 1])
                        on_chunk(self.epoch, done, total, self._loss / done)
                row = {
                    "epoch": self.epoch,
                    "loss": self._loss / total,
                    "events": total,
                    "seconds": self._seconds,
                    "events_per_second": total / self._seconds,
                }
                if judge:
                    row |= self._judge(judge())
                self.history.append(row)
                self.epoch, self.step, self._loss, self._seconds = self.epoch + 1, 0, 0.0, 0.0
                if on_epoch:
                    on_epoch(row)
        finally:  # also when a callback stops the run
            stepper.fetch()
        if self.best:
            for name, array in self.best[2].items():
                self.weights[name][:] = array

    def _begin_epoch(self) -> Batches:
        """The epoch's batches. At the epoch's start, also reset the lanes."""
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
            self._lanes = network.zero_state(hp, batches.x.shape[1])
        return batches

    def _keep(self, losses: np.ndarray, lanes: np.ndarray, steps: range) -> None:
        """Record the losses of some steps.

        Raises:
            Diverged: one of them is NaN, infinite or too large.
        """
        hp = self.hp
        events = np.add.reduceat(lanes[steps.start : steps.stop], range(0, len(steps), hp.bptt))
        per_event = losses * hp.batch_size / events  # `forward` divides by batch_size
        first_loss = next((float(part[0]) for part in self.losses if len(part)), per_event[0])
        most = EXPLODED * max(1.0, first_loss)
        bad = np.flatnonzero(~(per_event <= most))
        if len(bad):
            first = steps.start + int(bad[0]) * hp.bptt
            raise Diverged(
                f"training diverged: the loss is {per_event[bad[0]]:.4g} at step {first + 1} of "
                f"epoch {self.epoch}; the likely cause is a step that is too large: try a lower "
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
        """A hash of the training log, computed once for all checkpoints."""
        log = hashlib.sha256()
        ids = checkpoint.pack_ids(self.train.item_ids)
        for array in (self.train.items, self.train.offsets, *ids.values()):
            log.update(np.ascontiguousarray(array).data)
        return log.hexdigest()

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint and the run that resumes it must have in common."""
        fixed = self.hp.as_dict()
        del fixed["n_epochs"]  # a run may be resumed for more epochs
        return {"hyperparameters": fixed, "backend": self.ops.name, "log": self._log}

    def save(self, path: str | Path) -> None:
        """Write a checkpoint to one .npz file, see `checkpoint.save`.

        Call it at chunk boundaries only: from `on_chunk` or `on_epoch`, or after `run`.
        """
        if self._stepper:
            self._stepper.fetch()
        about = {
            "model": "GRU4Rec, in training",
            **self._facts(),
            "epoch": self.epoch,
            "step": self.step,
            "loss": self._loss,
            "seconds": self._seconds,
            "history": self.history,
            "rng": self.rng.bit_generator.state,
            "epoch_began": self._epoch_began,
            "best": self.best[:2] if self.best else None,
        }
        arrays = {f"weights/{n}": p for n, p in self.weights.items()}
        arrays |= {f"memory/{n}/{k}": a for n, m in self.memory.items() for k, a in m.items()}
        arrays["losses"] = np.concatenate([np.empty(0), *self.losses])
        arrays |= {f"h/{i}": h for i, h in enumerate(self._lanes.h)}
        arrays["lane_history"] = self._lanes.history
        if self.best:
            arrays |= {f"best/{n}": p for n, p in self.best[2].items()}
        checkpoint.save(path, about, arrays)

    def load(self, path: str | Path) -> None:
        """Read a checkpoint that `save` wrote.

        Raises:
            InputError: the file is missing, damaged or not a checkpoint; or the run had another
                log, other hyperparameters or another backend, so it could not be bit-identical.
        """
        about, arrays = checkpoint.load(path)
        try:
            if about["model"] != "GRU4Rec, in training":
                raise ValueError(f"it holds a finished model, {about['model']}")
            for name, value in self._facts().items():
                if about[name] != value:
                    what = "another log" if name == "log" else f"other {name}"
                    if name == "hyperparameters":
                        changed = [n for n in value if about[name].get(n) != value[n]]
                        what += f": {', '.join(changed)}"
                    elif name == "backend":
                        what = f"another backend, {about[name]} instead of {value}"
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
                    raise ValueError("the lanes' history has an item that is not in the log")
                self._lanes = zero
            if about["best"]:
                best = {n: np.empty_like(p) for n, p in self.weights.items()}
                for n, p in best.items():
                    _take(p, arrays[f"best/{n}"], n)
                score, epoch = about["best"]
                self.best = float(score), int(epoch), best
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{path}: cannot go on from here: {error}") from error


def _take(into: np.ndarray, array: np.ndarray, name: str) -> None:
    """Copy an array of a file into one of the same shape and type.

    Raises:
        ValueError: shape or type differ.
    """
    if array.shape != into.shape or array.dtype != into.dtype:
        wanted = f"{into.dtype} {into.shape}"
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {wanted}")
    into[:] = array
