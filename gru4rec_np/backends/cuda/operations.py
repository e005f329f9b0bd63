"""`CudaOps`: the hot operations by the CUDA kernels of kernels/*.cu, one at a time.

`on_gpu` runs them through CuPy, `emulated` on the CPU by the emulator.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from gru4rec_np.backends.base import (
    OWN_OPTIMISERS,
    Memory,
    Ops,
    Stepper,
    Weights,
    can_fuse_steps,
    coded,
)
from gru4rec_np.backends.cuda.device import THREADS, Device, Size, n_blocks, n_cut_parts, n_dh_parts
from gru4rec_np.errors import InputError
from gru4rec_np.ops import ranking
from gru4rec_np.ops.activations import LINEAR, TANH, Activation
from gru4rec_np.ops.losses import LOSSES

MAX_CASES = 2**15  # of one launch: a grid's y is at most 65,535
MAX_CATALOGUE_BLOCKS = 64  # of rank, which split the catalogue


class CudaOps(Device, Ops):
    """As `Ops`: NumPy arrays in and out, but the cache of `gru` stays on the device."""

    def draw_negatives(
        self,
        rng: np.random.Generator,
        distribution: np.ndarray,
        shape: tuple[int, ...],
        guide: np.ndarray | None = None,
    ) -> np.ndarray:
        """As `Ops.draw_negatives`."""
        plain = type(rng) is np.random.Generator and isinstance(rng.bit_generator, np.random.PCG64)
        if guide is None or not plain:
            return super().draw_negatives(rng, distribution, shape, guide)
        return self.to_host(self.draw(rng, shape, *self.to_device(distribution, guide)))

    # --- the recurrent step -----------------------------------------------------------------------

    def _cell(
        self, cell: str, xW: np.ndarray, h: np.ndarray, weights: tuple, act: Activation
    ) -> tuple[np.ndarray, tuple]:
        B, H = h.shape
        arrays = self.to_device(xW, h, *weights)
        r, z, n, kept, h_new = (self.empty((B, H), h.dtype) for _ in range(5))
        self.launch_gru(cell, B, H, self.now(B), *arrays, H, *coded(act), 0.0, r, z, n, kept, h_new)
        return self.to_host(h_new), (arrays[1], r, z, n, kept)

    def _cell_backward(
        self, cell: str, dh_new: np.ndarray, cache: tuple, U: np.ndarray, act: Activation
    ) -> tuple[Any, Any, Any, list[Any]]:
        """dxW, dhU, dh and the cache, on the device."""
        (B, H), dtype = dh_new.shape, dh_new.dtype
        dh_there, U_there, *there = self.to_device(dh_new, U, *cache)
        dxW, dhU = (self.empty((B, 3 * H), dtype) for _ in range(2))
        dh = self.empty((B, H), dtype)
        self.launch_gru_backward(
            cell, B, H, self.now(B), dh_there, 1, B * H, *there, U_there, H, *coded(act), 0.0,
            True, dxW, dhU, dh,
        )  # fmt: skip
        return dxW, dhU, dh, there

    def gru(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """As `cells.gru`."""
        return self._cell("gru", xW, h, (U, b), hidden_act)

    def gru_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `cells.gru_backward`. The array library computes dU."""
        dxW, _, dh, (h, _, _, _, rh) = self._cell_backward("gru", dh_new, cache, U, hidden_act)
        H = dh.shape[1]
        dU, db = self.xp.hstack([h.T @ dxW[:, : 2 * H], rh.T @ dxW[:, 2 * H :]]), dxW.sum(axis=0)
        return self.to_host(dxW), self.to_host(dh), self.to_host(dU), self.to_host(db)

    def gru_reset_after(
        self,
        xW: np.ndarray,
        h: np.ndarray,
        U: np.ndarray,
        b: np.ndarray,
        c: np.ndarray,
        hidden_act: Activation = TANH,
    ) -> tuple[np.ndarray, tuple]:
        """As `cells.gru_reset_after`."""
        return self._cell("gru_reset_after", xW, h, (U, b, c), hidden_act)

    def gru_reset_after_backward(
        self, dh_new: np.ndarray, cache: tuple, U: np.ndarray, hidden_act: Activation = TANH
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `cells.gru_reset_after_backward`. The array library computes dU."""
        dxW, dhU, dh, (h, *_) = self._cell_backward("gru_reset_after", dh_new, cache, U, hidden_act)
        dU, db, dc = (self.to_host(x) for x in (h.T @ dhU, dxW.sum(axis=0), dhU.sum(axis=0)))
        return self.to_host(dxW), self.to_host(dh), dU, db, dc

    # --- scores and loss --------------------------------------------------------------------------

    def scores(
        self, h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `scoring.scores`. Only the scored rows of the table are sent."""
        (B, H), N = h.shape, len(items)
        V = V_y[items]
        rows, y = self.xp.arange(N, dtype=np.int32), self.empty((B, N), h.dtype)
        self.launch_scores(B, N, self.now(B, N), *self.to_device(h, V, b_y[items]), rows, H, N, y)
        return self.to_host(y), V

    def scores_backward(
        self, dr: np.ndarray, h: np.ndarray, V: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `scoring.scores_backward`."""
        (B, N), H, dtype = dr.shape, h.shape[1], dr.dtype
        dy, h, V = self.to_device(dr, h, V)
        now, rows = self.now(B, N), self.xp.arange(N, dtype=np.int32)
        parts = self.empty((n_dh_parts(N), B, H), dtype)
        self.launch_scores_backward_h(B, N, H, now, dy, V, rows, H, N, B * H, parts)
        dV, db = self.empty((N, H), dtype), self.empty((N,), dtype)
        self.launch("scores", "scores_backward_rows", (N,), now, dy, h, H, N, dV, db)
        return self.to_host(parts.sum(axis=0)), self.to_host(dV), self.to_host(db)

    def loss_and_gradient(
        self,
        raw: np.ndarray,
        loss: str,
        final_act: Activation = LINEAR,
        bpreg: float = 1.0,
        smoothing: float = 0.0,
        log_q: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `losses.loss_and_gradient`: here each column is an item of its own, counted once."""
        if log_q is not None and log_q.ndim == 2:
            return super().loss_and_gradient(raw, loss, final_act, bpreg, smoothing, log_q)
        (B, N), dtype = raw.shape, raw.dtype
        ones = np.ones(N, dtype)
        weights = ones if log_q is None else np.exp(-log_q).astype(dtype)
        log_weights = np.array([0 if log_q is None else -log_q.sum()], dtype)
        y, target, count, weight, log_weights = self.to_device(
            raw, np.arange(B), ones, weights, log_weights
        )
        g, losses = self.empty((B, N), dtype), self.empty((B,), dtype)
        self.launch_loss(
            B, N, self.now(B, N), y, target, count, weight, weight, log_weights, N,
            LOSSES.index(loss), *coded(final_act), float(bpreg), float(smoothing), False, 1.0, g,
            losses,
        )  # fmt: skip
        return self.to_host(losses), self.to_host(g)

    def cut_cross_entropy(
        self, h: np.ndarray, V: np.ndarray, b: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `losses.cut_cross_entropy`; the scores stay in registers."""
        (B, H), N, dtype = h.shape, len(V), h.dtype
        parts, lane_tiles = n_cut_parts(B, N), n_blocks(B, Size.CUT_SIDE)
        args, sizes, block = self.to_device(h, V, b, y), (B, N, H), (Size.CUT_THREADS,)
        maxima, totals = (self.empty((parts, B), dtype) for _ in range(2))
        of_targets, losses, highest, inverse = (self.empty((B,), dtype) for _ in range(4))
        dh_parts = self.empty((parts, B, H), dtype)
        dh, dV, db = self.empty((B, H), dtype), self.empty((N, H), dtype), self.empty((N,), dtype)

        def launch(name: str, grid: tuple[int, ...], *args: Any, **how: Any) -> None:
            self.launch("cut", name, grid, *args, **how)

        grid = parts, lane_tiles
        launch("cut_loss", grid, *args, *sizes, maxima, totals, of_targets, block=block)
        launch("cut_join", (n_blocks(B, THREADS),), maxima, totals, of_targets, B, parts, losses,
               highest, inverse)  # fmt: skip
        launch("cut_backward_h", grid, *args, highest, inverse, *sizes, dh_parts, block=block)
        launch("cut_join_h", (n_blocks(B * H, THREADS),), dh_parts, B * H, parts, dh)
        launch("cut_backward_rows", (n_blocks(N, Size.CUT_SIDE),), *args, highest, inverse, *sizes,
               dV, db, block=block)  # fmt: skip
        return self.to_host(losses), self.to_host(dh), self.to_host(dV), self.to_host(db)

    # --- the optimiser and ranks ------------------------------------------------------------------

    def update(
        self,
        p: np.ndarray,
        g: np.ndarray,
        memory: dict[str, np.ndarray],
        adapt: str,
        learning_rate: float,
        momentum: float = 0.0,
        rows: np.ndarray | EllipsisType = ...,
    ) -> None:
        """As `optim.update`. Only the rows that change are sent and come back."""
        if adapt not in OWN_OPTIMISERS:
            return super().update(p, g, memory, adapt, learning_rate, momentum, rows)
        hosts = [p, *memory.values()]
        there = self.to_device(*(x[rows] for x in hosts))
        (g,) = self.to_device(g)
        n, width = len(g), int(np.prod(g.shape[1:]))
        sent = dict(zip(memory, there[1:], strict=True))
        a, v = (sent.get(name, there[0]) for name in "av")  # any array, if it is not used
        self.launch(
            "update", "update_rows", (n_blocks(n * width, THREADS),),
            self.xp.arange(n, dtype=np.int32), g, n, width, adapt == "adagrad",
            float(learning_rate), float(momentum), there[0], a, v,
        )  # fmt: skip
        for host, array in zip(hosts, there, strict=True):
            host[rows] = self.to_host(array)

    def catalogue_scores(self, h: np.ndarray, V_y: np.ndarray, b_y: np.ndarray) -> np.ndarray:
        """As `ranking.catalogue_scores`. Each call sends the whole table."""
        (I, H), dtype = V_y.shape, V_y.dtype  # noqa: E741
        scores, table = np.empty((len(h), I), dtype), self.to_device(V_y, b_y)
        for first in range(0, len(h), MAX_CASES):
            part = h[first : first + MAX_CASES]
            grid, out = (n_blocks(I, THREADS), len(part)), self.empty((len(part), I), dtype)
            self.launch("rank", "catalogue_scores", grid, *self.to_device(part), *table, I, H, out)
            scores[first : first + MAX_CASES] = self.to_host(out)
        return scores

    def resident(self, *arrays: np.ndarray) -> tuple[Any, ...]:
        """As `Ops.resident`."""
        return tuple(self.to_device(*arrays))

    def rank_targets(
        self,
        h: np.ndarray,
        V_y: np.ndarray,
        b_y: np.ndarray,
        targets: np.ndarray,
        ties: str = "conservative",
        lifted: ranking.Lifted | None = None,
    ) -> np.ndarray:
        """As `ranking.rank_targets`."""
        (I, H), dtype, side = V_y.shape, V_y.dtype, Size.RANK_SIDE  # noqa: E741
        table = self.to_device(V_y, b_y)

        def pairs(row: np.ndarray, items: np.ndarray) -> np.ndarray:
            scores = np.empty(len(row), dtype)
            for first in range(0, len(row), MAX_CASES):
                part = slice(first, first + MAX_CASES)
                n, out = len(row[part]), self.empty((len(row[part]),), dtype)
                self.launch(
                    "rank", "target_scores", (n_blocks(n, THREADS),),
                    *self.to_device(h[row[part]]), *table, *self.to_device(items[part]), n, H, out,
                )  # fmt: skip
                scores[part] = self.to_host(out)
            return scores

        def count(of_targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            counts = np.empty((2, len(h)), np.int64)
            for first in range(0, len(h), MAX_CASES):
                part = slice(first, first + MAX_CASES)
                n = len(of_targets[part])
                there = self.xp.zeros((2, n), np.int32)
                grid = min(MAX_CATALOGUE_BLOCKS, n_blocks(I, side)), n_blocks(n, side)
                self.launch(
                    "rank", "rank", grid, *self.to_device(h[part]), *table,
                    *self.to_device(of_targets[part]), n, I, H, there[0], there[1],
                    block=(Size.RANK_THREADS,),
                )  # fmt: skip
                counts[:, part] = self.to_host(there)
            return counts[0], counts[1]

        return ranking.rank_by_counts(pairs, count, targets, I, ties, lifted)

    # --- many steps -------------------------------------------------------------------------------

    fuses = staticmethod(can_fuse_steps)

    def stepper(
        self, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray
    ) -> Stepper | None:
        """As `Ops.stepper`, on the device."""
        from gru4rec_np.backends.cuda.steps import DeviceSteps

        return DeviceSteps(self, hp, W, memory, log_support) if can_fuse_steps(hp) else None


# --- the two ways to run it -----------------------------------------------------------------------


def on_gpu(why: str) -> CudaOps:
    """The backend on a GPU, through CuPy.

    Raises:
        InputError: CuPy is not installed or sees no usable GPU.
    """
    if problem := gpu_problem():
        raise InputError(f"backend: cuda {problem}")
    import cupy

    def compile(path: Path, options: tuple[str, ...]) -> Any:
        # CuPy caches a module by its own text and options. HEADERS makes it notice a change in the
        # files that it includes.
        headers = sorted(path.parent.glob("*.cuh"))
        state = zlib.crc32(b"".join(header.read_bytes() for header in headers))
        options = (*options, f"-DHEADERS={state}", f"-I{path.parent}", "-std=c++17")
        module = cupy.RawModule(code=path.read_text(), options=options)
        module.compile()  # now, since the first launch may be under capture
        return module

    def capture(launch: Callable[[], None]) -> Callable[[], None]:
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            launch()
            graph = stream.end_capture()
        return graph.launch

    ops = CudaOps("cuda", why, cupy, compile, capture)
    # A launch costs more than the work of a few sessions or steps: see docs/performance-gpu.md.
    ops.fed_lanes, ops.chunk_work = 256, 2**37
    return ops


def gpu_problem() -> str | None:
    """Why CUDA cannot be used here, in words that follow "backend: cuda"; None if it can."""
    try:
        import cupy
    except ImportError:
        return "needs CuPy, which is not installed; pip install 'gru4rec_np[cuda]'"
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            return None
        reason = "no device"
    except Exception as error:  # CuPy's own, whose class this file must not import
        reason = " ".join(str(error).split())
    return f"found no usable GPU ({reason}); cuda-emulated runs the same kernels on the CPU"


def emulated(why: str, checks: bool = False) -> CudaOps:
    """The backend on the CPU: the same kernels, compiled with g++, run by the emulator.

    Args:
        checks: look for races, accesses out of bounds and other faults; slower.

    Raises:
        InputError: there is no g++.
    """
    from gru4rec_np.backends import emulator
    from gru4rec_np.backends.emulator.build import require_compiler

    require_compiler()

    def compile(path: Path, options: tuple[str, ...]) -> Any:
        return emulator.Module(path, options, checks=checks)

    return CudaOps("cuda-emulated", why, np, compile, lambda launch: launch)
