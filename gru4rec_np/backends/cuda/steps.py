"""Many training steps of the usual network on the device, each the same few launches.

The loop of numba_steps.py with its parts launched: the kernels are those of cuda/*.cu. Imports the
CUDA backend's sizes, and the losses' names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gru4rec_np.backends.base import coded
from gru4rec_np.backends.cuda.device import (
    COLLECTORS,
    COLUMNS,
    LOSS,
    NOW_SIZE,
    PARTS,
    ROWS,
    SCORERS,
    SEED,
    STEP,
    THREADS,
    TILE,
    UPDATE,
    WARP,
    Device,
    block_for,
    blocks,
    parts_of,
)
from gru4rec_np.ops.losses import LOSSES


class DeviceSteps:
    """Many training steps on the device, for models that `backends.can_fuse_steps`.

    A step is 11 launches, or 12 where the input has a table of its own, the same for every step:
    which step it is, how many lanes are left and how many items are distinct stands in `now`, on
    the device. So the launches are captured once an epoch, whose arrays they name, and each step
    replays them. Negatives are sent, and the losses fetched, once a call; weights come back when
    the epoch ends.

    Args:
        ops: the backend. The others as those of network.stepper.
    """

    def __init__(
        self,
        ops: Device,
        hp: Any,
        W: dict[str, np.ndarray],
        memory: dict[str, dict[str, np.ndarray]],
        log_support: np.ndarray,
    ) -> None:
        self.ops, self.hp, self.hosts = ops, hp, (W, memory)
        self.dtype = W["V_y"].dtype
        self.B, self.H = hp.batch_size, hp.layers[0]
        self.onehot, self.shared = hp.input == "onehot", hp.input == "shared"
        self.X = 0 if self.onehot else len(W["W_x"])
        self.most = 2 * self.B + hp.n_sample
        self.parts = parts_of(self.B + hp.n_sample)
        none = ops.empty((1,), self.dtype)  # stands for what this model or optimiser has not
        self.weights = {name: ops.to_device(p)[0] for name, p in W.items()}
        self.memory = {
            name: {kind: ops.to_device(x)[0] for kind, x in of.items()}
            for name, of in memory.items()
        }
        (self.log_support,) = ops.to_device(log_support.astype(self.dtype))

        def three(name: str) -> tuple:
            """A weight, its sums of squares and its velocities."""
            of = self.memory.get(name, {})
            return self.weights.get(name, none), of.get("a", none), of.get("v", none)

        self.three = three
        self.how = hp.adapt == "adagrad", float(hp.learning_rate), float(hp.momentum)
        B, H, most, real, ints = self.B, self.H, self.most, self.dtype, np.int32
        shapes = {
            "now": (NOW_SIZE, ints), "x": (B, ints), "h": (B * H, real), "state": (B * H, real),
            "rows": (most, ints), "count": (most, real), "weight": (most, real),
            "target": (B, ints), "own": (B, real), "fed": (B, ints), "log_weights": (1, real),
            "e": (B * max(1, self.X), real), "xW": (B * 3 * H, real), "dxW": (B * 3 * H, real),
            "dhU": (B * 3 * H, real), "de": (B * max(1, self.X), real),
            "r": (B * H, real), "z": (B * H, real), "n": (B * H, real), "kept": (B * H, real),
            "y": (B * most, real), "dy": (B * most, real), "of_lanes": (B, real),
            "dh_parts": (self.parts * B * H, real), "dh": (1, real),
        }  # fmt: skip
        self.at = {name: ops.empty((size,), dtype) for name, (size, dtype) in shapes.items()}
        self.batches = self.chunk = None

    def begin_epoch(self, batches: Any) -> None:
        """Send an epoch's batches."""
        # Where each lane was in the step before, or -1 where a session starts.
        source = np.tile(np.arange(self.B, dtype=np.int32), (len(batches), 1))
        source = source[:, : batches.x.shape[1]]
        for t in np.flatnonzero(~batches.keep.all(axis=1)):
            before = batches.lanes[t - 1] if t else batches.x.shape[1]
            kept = np.flatnonzero(batches.keep[t, :before])
            source[t, : len(kept)] = kept
        source[batches.reset] = -1

        def full(array: np.ndarray) -> np.ndarray:
            """As wide as batch_size, although there may be fewer sessions."""
            return np.pad(array, [(0, 0), (0, self.B - array.shape[1])], constant_values=-1)

        arrays = (full(batches.x), full(batches.y), full(source), batches.lanes)
        epoch = self.ops.to_device(*arrays)
        self.epoch = dict(zip(("x", "y", "source", "lanes"), epoch, strict=True))
        self.batches, self.step = batches, None

    def begin_chunk(self, n: int) -> None:
        """Make room for chunks of n steps."""
        B, most, real, ints = self.B, self.most, self.dtype, np.int32
        self.table_size = 1 << (2 * most - 1).bit_length()
        shapes = {
            "samples": (max(1, n * self.hp.n_sample), ints), "losses": (n, real),
            "table": (n * self.table_size * 5, ints), "entry": (n * most, ints),
            "rows": (n * most, ints), "count": (n * most, real), "weight": (n * most, real),
            "target": (n * B, ints), "own": (n * B, real), "fed": (n * B, ints),
            "sizes": (2 * n, ints), "log_weights": (n, real),
        }  # fmt: skip
        self.chunk = {
            name: self.ops.empty((size,), dtype) for name, (size, dtype) in shapes.items()
        }
        self.room, self.step = n, None

    def collect(self, first: int, n: int) -> None:
        """Find the distinct items of n steps."""
        hp, epoch, chunk = self.hp, self.epoch, self.chunk
        logq = hp.logq if hp.loss == "cross-entropy" else 0
        lists = (chunk[name] for name in (
            "table", "entry", "rows", "count", "weight", "target", "own", "fed", "sizes",
            "log_weights",
        ))  # fmt: skip
        self.ops.launch(
            "step", "collect", self.dtype, (n,), (COLLECTORS,), epoch["x"], epoch["y"],
            epoch["lanes"], chunk["samples"], self.log_support, first, self.B, hp.n_sample,
            self.most, self.shared, float(logq), float(hp.sample_alpha), self.table_size, *lists,
        )  # fmt: skip

    def send_now(self, first: int, seed: int = 0) -> None:
        """Set the counters to the first step of a chunk; seed, below 2^32, of its dropout."""
        now = np.zeros(NOW_SIZE, np.uint32)
        now[[STEP, SEED]] = first, seed
        self.at["now"][:] = self.ops.xp.array(now.view(np.int32))

    def launch_step(self) -> None:
        """The launches of one step, in order; all that differs between steps is in `now`."""
        hp, at, W, dtype = self.hp, self.at, self.weights, self.dtype
        B, H, X, most = self.B, self.H, self.X, self.most
        now, tiles, fused = at["now"], blocks(B, TILE), (COLUMNS, PARTS)
        hidden = *coded(hp.hidden_activation), float(hp.dropout_p_hidden)
        cell = "gru_reset_after" if hp.reset_after else "gru"
        biases = (W["b0"], W["c0"]) if hp.reset_after else (W["b0"],)
        p_embed = float(hp.dropout_p_embed)
        table = "V_y" if self.shared else "E"

        def launch(file: str, name: str, grid: tuple, *args: Any, block: tuple = (THREADS,),
                   shared: int = 0) -> None:  # fmt: skip
            self.ops.launch(file, name, dtype, grid, block, *args, shared=shared)

        lists = "rows", "count", "weight", "target", "own", "fed"
        launch(
            "step", "begin_step", (blocks(max(most, B * H), THREADS),), now,
            self.epoch["lanes"], self.epoch["x"], self.epoch["source"], at["state"], B, H, most,
            *(self.chunk[name] for name in (*lists, "sizes", "log_weights")), at["x"], at["h"],
            *(at[name] for name in (*lists, "log_weights")),
        )  # fmt: skip

        # Forward.
        if self.onehot:
            launch("encode", "encode_onehot", (B,), now, at["x"], W["W_x"], H, p_embed, at["xW"])
        else:
            launch(
                "encode", "encode", (tiles, blocks(3 * H, COLUMNS)), now, at["x"], W[table],
                W["W_x"], X, H, p_embed, at["e"], at["xW"], block=fused, shared=TILE * X,
            )  # fmt: skip
        gates = at["r"], at["z"], at["n"], at["kept"]
        launch(
            "gru", cell, (tiles,), now, at["xW"], at["h"], W["U0"], *biases, H, *hidden, *gates,
            at["state"], block=fused, shared=2 * TILE * H,
        )  # fmt: skip
        launch(
            "scores", "scores", (blocks(B + hp.n_sample, 32), blocks(B, 32)), now, at["state"],
            W["V_y"], W["b_y"], at["rows"], H, most, at["y"], block=(SCORERS,),
        )  # fmt: skip
        launch(
            "loss", "loss", (B,), now, at["y"], at["target"], at["count"], at["weight"], at["own"],
            at["log_weights"], most, LOSSES.index(hp.loss), *coded(hp.final_activation),
            float(hp.bpreg), float(hp.smoothing), 1 / hp.batch_size, at["dy"], at["of_lanes"],
            block=block_for(B + hp.n_sample, LOSS),
        )  # fmt: skip

        # Backward.
        launch(
            "scores", "scores_backward_h", (blocks(H, 32), blocks(B, 32), self.parts), now,
            at["dy"], W["V_y"], at["rows"], H, most, B * H, at["dh_parts"], block=(32, 8),
        )  # fmt: skip
        launch(
            "gru", f"{cell}_backward", (tiles,), now, at["dh_parts"], self.parts, B * H, at["h"],
            *gates, W["U0"], H, *hidden, False, at["dxW"], at["dhU"], at["dh"],
            block=block_for(WARP * H),  # a warp for each row of U, as far as they reach
            shared=4 * TILE * H,
        )  # fmt: skip
        if not self.onehot:
            shares = blocks(X, 2 * THREADS // WARP)  # two rows a warp
            launch(
                "encode", "encode_backward", (tiles, shares), now, at["dxW"], W["W_x"],
                X, H, p_embed, at["de"], shared=TILE * 3 * H,
            )  # fmt: skip

        # Update.
        launch(
            "update", "update_scored", (blocks(most, ROWS),), now, at["rows"], at["dy"],
            at["state"], at["fed"], at["de"], H, most, *self.how, *self.three("V_y"),
            *self.three("b_y"), block=block_for(H + 1, UPDATE),
        )  # fmt: skip
        if self.onehot:  # what an item is given is its row of W_x, dropped out
            launch(
                "update", "update_fed", (B,), now, at["x"], at["dxW"], 3 * H, p_embed, *self.how,
                *self.three("W_x"), block=block_for(3 * H),
            )  # fmt: skip
        elif not self.shared:
            launch(
                "update", "update_fed", (B,), now, at["x"], at["de"], X, 0.0, *self.how,
                *self.three("E"), block=block_for(X),
            )  # fmt: skip
        dense = blocks(X, ROWS) + blocks(H, ROWS) + 1, 3 * blocks(H, THREADS)
        launch(
            "update", "update_dense", dense, now, at["e"], at["h"], at["kept"], at["dxW"],
            at["dhU"], X, H, hp.reset_after, *self.how,
            *(array for name in ("W_x", "U0", "b0", "c0") for array in self.three(name)),
        )  # fmt: skip
        launch(
            "step", "end_step", (1,), now, at["of_lanes"], 1 / hp.batch_size, self.chunk["losses"]
        )

    def __call__(
        self,
        batches: Any,
        steps: range,
        samples: np.ndarray,
        state: Any,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, Any]:
        """As the function that network.stepper returns."""
        if batches is not self.batches:
            self.begin_epoch(batches)
        if self.chunk is None or len(steps) > self.room:
            self.begin_chunk(len(steps))
        drops = self.hp.dropout_p_embed > 0 or self.hp.dropout_p_hidden > 0
        # So that without dropout all backends draw alike.
        self.send_now(steps.start, rng.integers(2**32) if drops else 0)
        before = state.h[0]
        self.at["state"][: before.size] = self.ops.xp.array(before.ravel())
        self.chunk["samples"][: samples.size] = self.ops.xp.array(samples.ravel())
        self.collect(steps.start, len(steps))
        if self.step is None:
            for file in ("step", "encode", "gru", "scores", "loss", "update"):
                self.ops.module(file, self.dtype)  # compiled and loaded before capturing
            self.step = self.ops.capture(self.launch_step)
        for _ in steps:
            self.step()
        losses = self.ops.to_host(self.chunk["losses"])[: len(steps)].astype(np.float64)
        n = int(batches.lanes[steps[-1]])
        h = self.ops.to_host(self.at["state"])[: n * self.H].reshape(n, self.H)
        if steps.stop == len(batches):
            self.fetch()
        return losses, state._replace(h=[h], history=state.history[:n])

    def fetch(self) -> None:
        """Bring weights and optimiser state back to where they came from."""
        W, memory = self.hosts
        for name, array in self.weights.items():
            W[name][:] = self.ops.to_host(array)
            for kind, of in self.memory[name].items():
                memory[name][kind][:] = self.ops.to_host(of)
