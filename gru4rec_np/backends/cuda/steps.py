"""`DeviceSteps`: many training steps on the device, each the same few launches of kernels/*.cu.

The CUDA counterpart of backends/numba/steps.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gru4rec_np.backends.base import Memory, Weights, coded
from gru4rec_np.backends.cuda.device import (
    COLLECT_THREADS,
    THREADS,
    UPDATE_THREADS,
    Bucket,
    Device,
    Now,
    Size,
    block_for,
    n_blocks,
    n_dh_parts,
)
from gru4rec_np.data.batches import Batches
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.losses import LOSSES

GROUP = 8  # steps of one graph: between two graphs a GPU waits longer than between two launches
FILES = ("step", "encode", "gru", "scores", "cosine", "loss", "update")  # of kernels/
# What `collect` finds for each step of a chunk and `begin_step` copies for the step that begins.
LISTS = ("rows", "count", "weight", "target", "own", "fed")


class DeviceSteps:
    """A `Stepper` on the device, for models that `backends.can_fuse_steps`.

    A step is 11 launches, one more with input=embedding, two more with `skip`, five with `cosine`.
    They are the same for every step: the step's number, its lanes and its distinct items are in
    `now`, on the device. So they are captured once and replayed for each step, or `GROUP`
    steps at once; a new epoch or a larger chunk, whose arrays are others, captures them again. The
    negatives are drawn on the device. Each call fetches the losses. Weights are fetched when the
    epoch ends.

    Args:
        ops: the backend. The others are those of `Ops.stepper`.
    """

    def __init__(
        self, ops: Device, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray
    ) -> None:
        self.ops, self.hp, self.hosts = ops, hp, (W, memory)
        self.dtype = W["V_y"].dtype
        self.B, self.H = hp.batch_size, hp.layers[0]
        self.onehot, self.tied = hp.input == "onehot", hp.input == "shared"
        self.X = 0 if self.onehot else len(W["W_x"])
        self.columns = self.B + hp.n_extra  # columns of a step
        self.most = self.columns + self.B  # distinct items of a step, at most
        self.none = ops.empty((1,), self.dtype)  # for an array that the model does not have
        self.weights = {name: ops.to_device(p)[0] for name, p in W.items()}
        self.memory = {
            name: {kind: ops.to_device(x)[0] for kind, x in of.items()}
            for name, of in memory.items()
        }
        (self.log_support,) = ops.to_device(log_support.astype(self.dtype))
        B, H, most, X = self.B, self.H, self.most, max(1, self.X)
        self.arrays = self._empty(
            ints={"now": len(Now), "x": B, "rows": most, "target": B, "fed": B},
            reals={
                "h": B * H, "state": B * H, "count": most, "weight": most, "own": B,
                "log_weights": 1, "e": B * X, "de": B * X, "xW": B * 3 * H, "dxW": B * 3 * H,
                "dhU": B * 3 * H, "r": B * H, "z": B * H, "n": B * H, "kept": B * H,
                "y": B * most, "dy": B * most, "losses": B,
                "dh_parts": n_dh_parts(self.columns) * B * H, "dh": 1,
                "top": B * H if hp.skips else 1,
                **dict.fromkeys(("m", "m_new"), B * H if hp.fade_in_use else 1),
                "scaled": B * H if hp.cosine_in_use else 1,
                "cosines": B * most if hp.cosine_in_use else 1,
                "of_rows": most, "of_lanes": B, "along_rows": most,  # of cosine.cu
            },
        )  # fmt: skip
        self.sampler: tuple[Any, list[Any]] | None = None  # a distribution; it and its guide, sent
        self.batches: Batches | None = None
        self.room = 0  # steps of a chunk that `chunk` has room for
        self.step: Callable[[], None] | None = None  # the captured launches
        self.group: Callable[[], None] = lambda: None  # those of `GROUP` steps

    def _empty(self, ints: dict[str, int], reals: dict[str, int]) -> dict[str, Any]:
        """Arrays of these sizes on the device."""
        return {name: self.ops.empty((size,), np.int32) for name, size in ints.items()} | {
            name: self.ops.empty((size,), self.dtype) for name, size in reals.items()
        }

    def _weight(self, name: str) -> tuple[Any, Any, Any]:
        """A weight, its sums of squares and its velocities."""
        of = self.memory.get(name, {})
        return self.weights.get(name, self.none), of.get("a", self.none), of.get("v", self.none)

    def draw_negatives(
        self,
        rng: np.random.Generator,
        distribution: np.ndarray,
        shape: tuple[int, ...],
        guide: np.ndarray,
    ) -> Any:
        """As `Stepper.draw_negatives`."""
        if self.sampler is None or self.sampler[0] is not distribution:
            self.sampler = distribution, self.ops.to_device(distribution, guide)
        return self.ops.draw(rng, shape, *self.sampler[1])

    def begin_epoch(self, batches: Batches) -> None:
        """Send an epoch's batches."""
        # The lane that each lane's session had in the step before, or -1 where a session starts.
        source = np.tile(np.arange(batches.x.shape[1], dtype=np.int32), (len(batches), 1))
        for t in np.flatnonzero(~batches.keep.all(axis=1)):
            before = batches.lanes[t - 1] if t else batches.x.shape[1]
            kept = np.flatnonzero(batches.keep[t, :before])
            source[t, : len(kept)] = kept
        source[batches.reset] = -1

        def full(array: np.ndarray) -> np.ndarray:
            """With batch_size columns, although there may be fewer sessions."""
            return np.pad(array, [(0, 0), (0, self.B - array.shape[1])], constant_values=-1)

        self.epoch = dict(zip(
            ("x", "y", "source", "lanes"),
            self.ops.to_device(full(batches.x), full(batches.y), full(source), batches.lanes),
            strict=True,
        ))  # fmt: skip
        self.batches, self.step = batches, None

    def begin_chunk(self, n: int) -> None:
        """Make room for chunks of n steps."""
        B, most = self.B, self.most
        self.n_buckets = 1 << (2 * most - 1).bit_length()
        self.chunk = self._empty(
            ints={
                "samples": max(1, n * self.hp.n_extra), "buckets": n * self.n_buckets * len(Bucket),
                "bucket_of": n * most, "rows": n * most, "target": n * B, "fed": n * B,
                "sizes": 2 * n,
            },
            reals={
                "losses": n, "rates": n, "count": n * most, "weight": n * most, "own": n * B,
                "log_weights": n,
            },
        )  # fmt: skip
        self.room, self.step = n, None

    def collect(self, first: int, n: int) -> None:
        """Find the distinct items of n steps."""
        hp, epoch, chunk = self.hp, self.epoch, self.chunk
        logq = hp.logq if hp.loss == "cross-entropy" else 0
        self.ops.launch(
            "step", "collect", (n,), epoch["x"], epoch["y"], epoch["lanes"], chunk["samples"],
            self.log_support, first, self.B, hp.n_extra, self.most, self.tied, float(logq),
            hp.corrects, 1.0 if hp.corrects else float(hp.sample_alpha), self.n_buckets,
            chunk["buckets"], chunk["bucket_of"],
            *(chunk[name] for name in (*LISTS, "sizes", "log_weights")), block=(COLLECT_THREADS,),
        )  # fmt: skip

    def send_now(self, first: int, seed: int = 0) -> None:
        """Set the counters to the first step of a chunk; seed, below 2^32, of its dropout."""
        now = np.zeros(len(Now), np.uint32)
        now[[Now.STEP, Now.SEED]] = first, seed
        self.arrays["now"][:] = self.ops.xp.array(now.view(np.int32))

    def launch_step(self) -> None:
        """The launches of one step, in order. All that differs between steps is in `now`."""
        ops, hp, buf, W = self.ops, self.hp, self.arrays, self.weights
        B, H, X, most, scored = self.B, self.H, self.X, self.most, self.columns
        now, launch, tiles = buf["now"], ops.launch, n_blocks(B, Size.TILE_LANES)
        how = hp.adapt == "adagrad", self.chunk["rates"], float(hp.momentum)
        hidden = *coded(hp.hidden_activation), float(hp.dropout_p_hidden)
        cell = "gru_reset_after" if hp.reset_after else "gru"
        biases = (W["b0"], W["c0"]) if hp.reset_after else (W["b0"],)
        p_embed = float(hp.dropout_p_embed)

        launch(
            "step", "begin_step", (n_blocks(max(most, B * H), THREADS),), now,
            self.epoch["lanes"], self.epoch["x"], self.epoch["source"], buf["state"], buf["m_new"],
            hp.fade_in_use > 0, B, H, most,
            *(self.chunk[name] for name in (*LISTS, "sizes", "log_weights")), buf["x"], buf["h"],
            buf["m"], *(buf[name] for name in (*LISTS, "log_weights")),
        )  # fmt: skip

        # Forward pass.
        if self.onehot:
            launch("encode", "encode_onehot", (B,), now, buf["x"], W["W_x"], H, p_embed, buf["xW"])
        else:
            launch(
                "encode", "encode", (tiles, n_blocks(3 * H, Size.TILE_COLUMNS)), now, buf["x"],
                W["V_y" if self.tied else "E"], W["W_x"], X, H, p_embed, buf["e"], buf["xW"],
                block=(Size.TILE_COLUMNS, Size.TILE_PARTS), shared=Size.TILE_LANES * X,
            )  # fmt: skip
        gates = buf["r"], buf["z"], buf["n"], buf["kept"]
        ops.launch_gru(
            cell, B, H, now, buf["xW"], buf["h"], W["U0"], *biases, H, *hidden, *gates, buf["state"]
        )
        top = buf["state"]
        if hp.skips:
            top = buf["top"]
            launch(
                "encode", "skip", (n_blocks(B * H, THREADS),), now, buf["state"], buf["e"],
                buf["m"], W["s"], self._weight("s_m")[0], H, float(hp.fade_in_use), buf["m_new"],
                top,
            )  # fmt: skip
        if hp.cosine_in_use:
            launch(
                "cosine", "of_length", (B,), now, top, H, float(hp.cosine_in_use), buf["scaled"],
                buf["of_lanes"], block=block_for(H),
            )  # fmt: skip
            top = buf["scaled"]
        ops.launch_scores(B, scored, now, top, W["V_y"], W["b_y"], buf["rows"], H, most, buf["y"])
        if hp.cosine_in_use:
            launch(
                "cosine", "row_inverses", (n_blocks(Size.WARP * scored, THREADS),), now,
                buf["rows"], W["V_y"], H, buf["of_rows"],
            )  # fmt: skip
            launch(
                "cosine", "cosines", (n_blocks(scored, THREADS), B), now, buf["of_rows"], most,
                buf["y"], buf["cosines"],
            )  # fmt: skip
        ops.launch_loss(
            B, scored, now, buf["y"], buf["target"], buf["count"], buf["weight"], buf["own"],
            buf["log_weights"], most, LOSSES.index(hp.loss), *coded(hp.final_activation),
            float(hp.bpreg), float(hp.smoothing), hp.corrects, 1 / hp.batch_size, buf["dy"],
            buf["losses"],
        )  # fmt: skip

        # Backward pass.
        n_parts = n_dh_parts(scored)
        if hp.cosine_in_use:
            launch(
                "cosine", "cosines_backward", (n_blocks(scored, Size.WARP),), now, buf["of_rows"],
                buf["cosines"], most, buf["dy"], buf["along_rows"],
                block=(Size.WARP, Size.COSINE_LANES),
            )  # fmt: skip
        ops.launch_scores_backward_h(
            B, scored, H, now, buf["dy"], W["V_y"], buf["rows"], H, most, B * H, buf["dh_parts"]
        )
        if hp.cosine_in_use:
            launch(
                "cosine", "of_length_backward", (B,), now, buf["scaled"], buf["of_lanes"], n_parts,
                B * H, H, float(hp.cosine_in_use), buf["dh_parts"], block=block_for(H),
            )  # fmt: skip
            n_parts = 1
        ops.launch_gru_backward(
            cell, B, H, now, buf["dh_parts"], n_parts, B * H, buf["h"], *gates, W["U0"], H,
            *hidden, False, buf["dxW"], buf["dhU"], buf["dh"],
        )  # fmt: skip
        if not self.onehot:
            shares = n_blocks(X, 2 * THREADS // Size.WARP)  # two rows a warp
            launch(
                "encode", "encode_backward", (tiles, shares), now, buf["dxW"], W["W_x"], X, H,
                p_embed, buf["de"], shared=Size.TILE_LANES * 3 * H,
            )  # fmt: skip
        if hp.skips:
            launch(
                "update", "skip_backward", (n_blocks(H, Size.WARP),), now, buf["dh_parts"],
                n_parts, B * H, buf["e"], buf["m"], H, p_embed, hp.fade_in_use > 0, *how,
                buf["de"], *self._weight("s"), *self._weight("s_m"),
                block=(Size.WARP, Size.SKIP_LANES),
            )  # fmt: skip

        # Update.
        launch(
            "update", "update_scored", (n_blocks(most, Size.UPDATE_ROWS),), now, buf["rows"],
            buf["dy"], top, buf["fed"], buf["de"], buf["along_rows"], hp.cosine_in_use > 0, H, most,
            *how, *self._weight("V_y"),
            *self._weight("b_y"), block=block_for(H + 1, UPDATE_THREADS),
        )  # fmt: skip
        if not self.tied:  # the input's own table: a 1-of-N input looks up W_x itself
            table, d, width, p = (
                ("W_x", buf["dxW"], 3 * H, p_embed) if self.onehot else ("E", buf["de"], X, 0.0)
            )
            launch(
                "update", "update_fed", (B,), now, buf["x"], d, width, p, *how,
                *self._weight(table), block=block_for(width),
            )  # fmt: skip
        rows = n_blocks(X, Size.UPDATE_ROWS) + n_blocks(H, Size.UPDATE_ROWS) + 1
        launch(
            "update", "update_dense", (rows, 3 * n_blocks(H, THREADS)), now, buf["e"],
            buf["h"], buf["kept"], buf["dxW"], buf["dhU"], X, H, hp.reset_after, *how,
            *(x for name in ("W_x", "U0", "b0", "c0") for x in self._weight(name)),
        )  # fmt: skip
        launch("step", "end_step", (1,), now, buf["losses"], 1 / B, self.chunk["losses"])

    def launch_group(self) -> None:
        """The launches of `GROUP` steps."""
        for _ in range(GROUP):
            self.launch_step()

    def __call__(
        self,
        batches: Batches,
        steps: range,
        samples: np.ndarray,
        state: State,
        rng: np.random.Generator,
        rates: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """As `Stepper`."""
        if batches is not self.batches:
            self.begin_epoch(batches)
        if len(steps) > self.room:
            self.begin_chunk(len(steps))
        drops = self.hp.dropout_p_embed > 0 or self.hp.dropout_p_hidden > 0
        # Without dropout no seed is drawn, so that all backends draw the same negatives.
        self.send_now(steps.start, int(rng.integers(2**32)) if drops else 0)
        # Where a step leaves the arrays of `State.h`.
        kept = ("state", "m_new") if self.hp.fade_in_use else ("state",)
        for name, before in zip(kept, state.h, strict=True):
            self.arrays[name][: before.size] = self.ops.xp.array(before.ravel())
        if samples.size:
            self.chunk["samples"][: samples.size] = self.ops.to_device(samples)[0].ravel()
        if rates is None:
            rates = np.full(len(steps), self.hp.learning_rate)
        self.chunk["rates"][: len(steps)] = self.ops.xp.array(rates.astype(self.dtype))
        self.collect(steps.start, len(steps))
        if self.step is None:
            for file in FILES:
                self.ops.module(file, self.dtype)  # must be compiled and loaded before capturing
            self.step = self.ops.capture(self.launch_step)
            self.group = self.ops.capture(self.launch_group)
        for _ in range(len(steps) // GROUP):
            self.group()
        for _ in range(len(steps) % GROUP):
            self.step()
        losses = self.ops.to_host(self.chunk["losses"])[: len(steps)].astype(np.float64)
        n = int(batches.lanes[steps[-1]])
        h = [self.ops.to_host(self.arrays[name])[: n * self.H].reshape(n, self.H) for name in kept]
        if steps.stop == len(batches):
            self.fetch()
        return losses, state._replace(h=h, history=state.history[:n])

    def fetch(self) -> None:
        """As `Stepper.fetch`."""
        W, memory = self.hosts
        for name, array in self.weights.items():
            W[name][:] = self.ops.to_host(array)
            for kind, of in self.memory[name].items():
                memory[name][kind][:] = self.ops.to_host(of)
