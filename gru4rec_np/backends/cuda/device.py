"""A device: arrays on it, compiled kernels, launches. A GPU through CuPy, or the emulator.

`compiler_options` has every constant that the kernels share with Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gru4rec_np.errors import InputError
from gru4rec_np.files import KERNELS
from gru4rec_np.ops.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE
from gru4rec_np.ops.losses import LOSSES
from gru4rec_np.ops.optim import EPSILON
from gru4rec_np.ops.scoring import TINY


class Size:
    """Sizes of blocks and tiles, for the kernels and for their launches."""

    WARP = 32  # threads
    MAX_THREADS = 1024  # of a block, on every GPU
    TILE_LANES = 4  # lanes of a block of gru and of encode
    TILE_COLUMNS = 128  # matrix columns of such a block at a time, threadIdx.x
    TILE_PARTS = 8  # parts of each of its sums, threadIdx.y
    TREE_THREADS = 128  # of a block of cross_entropy_tree
    TILED_SIDE = 16  # lanes and items of a block of scores_tiled
    SCORES_SIDE = 32  # lanes and items of a block of scores; units of one of scores_backward_h
    SCORES_THREADS = 256  # of both
    CUT_SIDE = 32  # lanes and items of a tile of cut_loss and its backward kernels
    CUT_COLUMNS = 64  # columns of such a block's gradient in shared memory
    CUT_THREADS = 256  # of a block
    RANK_SIDE = 32  # cases and items of a block of rank
    RANK_THREADS = 64  # of it
    UPDATE_ROWS = 8  # rows of a block of update_scored and of update_dense
    SKIP_LANES = 32  # lanes of a block of skip_backward at a time, a warp each
    COSINE_LANES = 8  # the same of cosines_backward
    DRAWS = 8  # negatives that a thread of draw_negatives draws


class Now(IntEnum):
    """The counters `now` of a step in device memory, by which all kernels know where they are."""

    STEP = 0  # of the epoch
    PLACE = 1  # of the step in its chunk
    LANES = 2  # in use
    SCORED = 3  # distinct targets and samples
    DISTINCT = 4  # distinct items: the scored ones come first, then those that are only fed in
    SEED = 5  # of the chunk's dropout


class Bucket(IntEnum):
    """The fields of a bucket of the hash table by which `collect` finds distinct items."""

    ITEM = 0
    FIRST = 1  # column with this item
    TARGETS = 2  # columns that are targets
    SAMPLES = 3  # columns that are samples
    SLOT = 4  # the item's place among the distinct ones


THREADS = 128  # of a block, where the kernel does not say otherwise
COLLECT_THREADS = 512  # of a block of collect
LOSS_THREADS = 512  # the most of a block of loss
UPDATE_THREADS = 256  # the most of a block of update_scored, for its many registers
MAX_DH_PARTS = 48  # of scores_backward_h's sum over items
CUT_BLOCKS = 264  # about as many of cut_loss, and of cut_backward_h: 2 a multiprocessor of an H200
# Bytes of dynamic shared memory that a kernel may use without asking for more: the 48 KB of every
# GPU, less the static ones of gru and encode in double.
SHARED_LIMIT = (48 << 10) - 8 * Size.TILE_PARTS * Size.TILE_LANES * Size.TILE_COLUMNS


def compiler_options(dtype: DTypeLike) -> tuple[str, ...]:
    """The macros that every .cu file of kernels/ is compiled with, `-Dreal=...` first.

    They are `real`, Adagrad's and SELU's constants, each of `Size`, and numbers for `Now` (NOW_*),
    `Bucket` (BUCKET_*), `ACTIVATIONS` (ACT_*) and `LOSSES` (LOSS_*). NOW_SIZE etc. count them.

    Args:
        dtype: float32 or float64, for real = float or double.
    """
    real = {"float32": "float", "float64": "double"}[np.dtype(dtype).name]
    values: dict[str, object] = {"real": real, "EPSILON": EPSILON, "TINY": TINY}
    values |= {"SELU_ALPHA": SELU_ALPHA, "SELU_SCALE": SELU_SCALE}
    values |= {name: size for name, size in vars(Size).items() if name.isupper()}
    numbered: dict[str, Iterable[str]] = {
        "NOW": Now.__members__, "BUCKET": Bucket.__members__, "ACT": ACTIVATIONS, "LOSS": LOSSES
    }  # fmt: skip
    for prefix, names in numbered.items():
        for i, name in enumerate((*names, "size")):
            values[f"{prefix}_{name.upper().replace('-', '_')}"] = i
    return tuple(f"-D{name}={value}" for name, value in values.items())


def n_blocks(n: int, size: int) -> int:
    """How many blocks of `size` cover n."""
    return -(-n // size)


def n_dh_parts(columns: int) -> int:
    """Into how many parts scores_backward_h cuts the sum over items: a tile each, up to a limit."""
    return min(MAX_DH_PARTS, n_blocks(columns, Size.SCORES_SIDE))


def n_cut_parts(lanes: int, columns: int) -> int:
    """Into how many parts cut_loss and cut_backward_h cut the columns: whole tiles, none empty."""
    tiles = n_blocks(columns, Size.CUT_SIDE)
    wanted = max(1, CUT_BLOCKS // n_blocks(lanes, Size.CUT_SIDE))
    return n_blocks(tiles, n_blocks(tiles, wanted))


def block_for(n: int, most: int = Size.MAX_THREADS) -> tuple[int]:
    """A block of whole warps with a thread for each of n, or with `most` threads."""
    return (min(most, Size.WARP * n_blocks(n, Size.WARP)),)


class Device:
    """Where kernels run. The array library and the compiler are passed in, so that tests run the
    same code on the emulator as on a GPU.

    Args:
        name: of the backend, for messages. why: why it was chosen.
        xp: the array library: CuPy, or NumPy for the emulator.
        compile: makes a module of a .cu file and compiler options, as CuPy's RawModule does.
        capture: makes, of a function that launches kernels, one that launches the same ones again;
            on a GPU, as a graph.

    Attributes:
        launches: how many kernels have been launched; those of a graph count once.
    """

    def __init__(
        self,
        name: str,
        why: str,
        xp: ModuleType,
        compile: Callable[[Path, tuple[str, ...]], Any],
        capture: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.name, self.why, self.xp, self.capture = name, why, xp, capture
        self.launches = 0
        self.lock: AbstractContextManager[Any] = threading.Lock()
        self._compile = compile
        self._modules: dict[tuple[str, np.dtype], Any] = {}

    def to_device(self, *arrays: Any) -> list[Any]:
        """Copies on the device: integers become int32, and an empty array gets one element.

        Arrays that are on a GPU already are not copied.
        """
        there = () if self.xp is np else self.xp.ndarray
        return [x if isinstance(x, there) else self.xp.array(_plain(x)) for x in arrays]

    def to_host(self, array: Any) -> np.ndarray:
        """A copy as a NumPy array."""
        return np.array(array) if self.xp is np else self.xp.asnumpy(array)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """An array on the device."""
        return self.xp.empty(shape, dtype)

    def now(self, lanes: int, scored: int = 0) -> Any:
        """The counters for a single operation: all lanes and items in use, no dropout."""
        now = np.zeros(len(Now), np.int32)
        now[[Now.LANES, Now.SCORED, Now.DISTINCT]] = lanes, scored, scored
        return self.xp.array(now)

    def module(self, file: str, dtype: DTypeLike) -> Any:
        """kernels/<file>.cu, compiled for float32 or float64."""
        key = file, np.dtype(dtype)
        if key not in self._modules:
            self._modules[key] = self._compile(KERNELS / f"{file}.cu", compiler_options(dtype))
        return self._modules[key]

    def launch(
        self,
        file: str,
        name: str,
        grid: tuple[int, ...],
        *args: Any,
        block: tuple[int, ...] = (THREADS,),
        shared: int = 0,
    ) -> None:
        """Launch a kernel, compiled for the dtype of its arrays of floats.

        Args:
            args: the kernel's. Python's integers are sent as int, its floats as real.
            shared: numbers of dynamic shared memory that a block gets.

        Raises:
            InputError: a block cannot have so much shared memory.
        """
        is_array = self.xp.ndarray
        dtype = next(a.dtype for a in args if isinstance(a, is_array) and a.dtype.kind == "f")
        whole = (int, bool, np.integer, np.bool_)
        values = tuple(
            a if isinstance(a, is_array) else np.int32(a) if isinstance(a, whole) else dtype.type(a)
            for a in args
        )
        size = shared * dtype.itemsize
        self.launches += 1
        kernel = self.module(file, dtype).get_function(name)
        if size > SHARED_LIMIT:
            try:
                kernel.max_dynamic_shared_size_bytes = size
            except Exception as error:  # CuPy's own, whose class this file must not import
                raise InputError(
                    f"backend: {self.name} has too little memory for a layer this wide, a block of "
                    f"{name} needs {size:,} bytes of shared memory; take numba"
                ) from error
        kernel(grid, block, values, shared_mem=size)

    # --- launches of CudaOps and of DeviceSteps alike; args as in the .cu files -------------------

    def launch_gru(self, cell: str, B: int, H: int, *args: Any) -> None:
        """`gru` or `gru_reset_after` of B lanes."""
        self.launch(
            "gru", cell, (n_blocks(B, Size.TILE_LANES),), *args,
            block=(Size.TILE_COLUMNS, Size.TILE_PARTS), shared=2 * Size.TILE_LANES * H,
        )  # fmt: skip

    def launch_gru_backward(self, cell: str, B: int, H: int, *args: Any) -> None:
        """Its backward pass, with a warp for each row of U, as far as a block has warps."""
        self.launch(
            "gru", f"{cell}_backward", (n_blocks(B, Size.TILE_LANES),), *args,
            block=block_for(Size.WARP * H), shared=4 * Size.TILE_LANES * H,
        )  # fmt: skip

    def launch_scores(self, B: int, N: int, *args: Any) -> None:
        """`scores` of at most N items for B lanes."""
        side = Size.SCORES_SIDE
        self.launch(
            "scores", "scores", (n_blocks(N, side), n_blocks(B, side)), *args,
            block=(Size.SCORES_THREADS,),
        )  # fmt: skip

    def launch_scores_backward_h(self, B: int, N: int, H: int, *args: Any) -> None:
        """`scores_backward_h` in n_dh_parts(N) parts."""
        side = Size.SCORES_SIDE
        self.launch(
            "scores", "scores_backward_h", (n_blocks(H, side), n_blocks(B, side), n_dh_parts(N)),
            *args, block=(side, Size.SCORES_THREADS // side),
        )  # fmt: skip

    def launch_loss(self, B: int, N: int, *args: Any) -> None:
        """`loss` of at most N items for B lanes."""
        self.launch("loss", "loss", (B,), *args, block=block_for(N, LOSS_THREADS))

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, ...], distribution: Any, guide: Any
    ) -> Any:
        """`draw_negatives` with arrays on the device; rng goes on as if it had drawn them.

        Args:
            rng: NumPy's, on PCG64 (`numpy.random.default_rng`). shape: (steps, n_sample).
            distribution: (I,) float64, guide: (K + 1,) int32, see data/batches.py; sent.

        Returns:
            int32 of this shape, on the device.
        """
        drawn = self.empty(shape, np.int32)
        now = rng.bit_generator.state
        state, inc = (now["state"][name] for name in ("state", "inc"))
        halves = [number >> bits & 2**64 - 1 for number in (state, inc) for bits in (64, 0)]
        if drawn.size:
            self.launch(
                "draw", "draw_negatives", (n_blocks(drawn.size, Size.DRAWS * THREADS),),
                self.xp.array(np.array(halves, np.uint64)), distribution, guide, len(guide) - 1,
                len(distribution), drawn.size, drawn,
            )  # fmt: skip
        # Not by `advance`, which would forget the half of a number that `integers` left over.
        now["state"]["state"] = jump(state, inc, drawn.size)
        rng.bit_generator.state = now
        return drawn


def jump(state: int, inc: int, n: int) -> int:
    """The state of PCG64 after n steps, as in kernels/draw.cu."""
    factor, addend = 0x2360ED051FC65DA44385DF649FCCF645, inc
    while n:
        if n & 1:
            state = (state * factor + addend) % 2**128
        addend = (factor + 1) * addend % 2**128
        factor = factor * factor % 2**128
        n >>= 1
    return state


def _plain(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.dtype.kind in "iu":
        array = array.astype(np.int32)
    return array if array.size else np.zeros(1, array.dtype)
