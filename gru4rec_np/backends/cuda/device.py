"""A device: arrays on it, kernels compiled for it, launches. A GPU through CuPy, or the emulator.

Imports the errors and where the kernels are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gru4rec_np.errors import InputError
from gru4rec_np.files import KERNELS

WARP = 32
THREADS = 128  # of a block, where the kernel does not say otherwise
COLLECTORS = 512  # threads that look for a step's distinct items
TILE, COLUMNS, PARTS = 4, 128, 8  # of tile.cuh: a block of gru and of encode has 128 x 8 threads
WIDE = 1024  # the most threads that a block can have
SCORERS = 256  # threads of scores
LOSS, UPDATE = 512, 256  # the most threads of loss, and of update_scored for its many registers
ROWS = 8  # rows of a block of update_scored and of update_dense
# Bytes of dynamic shared memory that a kernel may use without being told of more: 48 KB less the 32
# that gru and encode have of their own in double.
SHARED_LIMIT = 16 << 10

# As enum Now in common.cuh.
STEP, PLACE, LANES, SCORED, DISTINCT, SEED, NOW_SIZE = range(7)


def blocks(n: int, size: int) -> int:
    """How many blocks of `size` cover n."""
    return -(-n // size)


class Device:
    """Where kernels run. What makes arrays and what compiles is passed in, so the code that tests
    run on the emulator is the code that runs on a GPU.

    Args:
        name: of the backend, for messages.
        xp: what makes arrays on the device: CuPy; NumPy for the emulator.
        compile: a .cu file and compiler options to a module, as CuPy's RawModule.
        capture: a function that launches kernels to one that launches the same ones again; on a
            GPU, as a graph.

    Attributes:
        launches: how many kernels have been launched, those of graphs counted once.
    """

    def __init__(
        self,
        name: str,
        xp: ModuleType,
        compile: Callable[[Path, tuple[str, ...]], Any],
        capture: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.name, self.xp, self.capture = name, xp, capture
        self.launches = 0
        self._compile = compile
        self._modules: dict[tuple[str, np.dtype], Any] = {}

    def to_device(self, *arrays: np.ndarray) -> list[Any]:
        """Copies on the device; whole numbers become int32, and an empty array gets one place.

        What lies on a GPU already is not copied.
        """
        there = () if self.xp is np else self.xp.ndarray
        return [x if isinstance(x, there) else self.xp.array(_plain(x)) for x in arrays]

    def to_host(self, array: Any) -> np.ndarray:
        """A copy as a NumPy array."""
        return np.array(array) if self.xp is np else self.xp.asnumpy(array)

    def empty(self, shape: tuple[int, ...], dtype: type) -> Any:
        """An array on the device."""
        return self.xp.empty(shape, dtype)

    def module(self, file: str, dtype: type) -> Any:
        """cuda/<file>.cu, compiled for real = float or double."""
        key = file, np.dtype(dtype)
        if key not in self._modules:
            real = {"float32": "float", "float64": "double"}[key[1].name]
            self._modules[key] = self._compile(KERNELS / f"{file}.cu", (f"-Dreal={real}",))
        return self._modules[key]

    def launch(
        self,
        file: str,
        name: str,
        dtype: type,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
    ) -> None:
        """Launch a kernel. Of its arguments, whole numbers are sent as int, others as real.

        Args:
            shared: numbers of dynamic shared memory that a block gets.
        """
        whole = (int, bool, np.integer, np.bool_)
        args = tuple(
            a
            if isinstance(a, self.xp.ndarray)
            else np.int32(a)
            if isinstance(a, whole)
            else np.dtype(dtype).type(a)
            for a in args
        )
        size = shared * np.dtype(dtype).itemsize
        self.launches += 1
        kernel = self.module(file, dtype).get_function(name)
        if size > SHARED_LIMIT:
            try:
                kernel.max_dynamic_shared_size_bytes = size
            except Exception as error:  # CuPy's own, which this must not import to name
                raise InputError(
                    f"backend: {self.name} has too little memory for a layer this wide, a block of "
                    f"{name} needs {size:,} bytes of shared memory; take numba"
                ) from error
        kernel(grid, block, args, shared_mem=size)

    def now(self, lanes: int, scored: int = 0) -> Any:
        """The counters for an operation on its own: all lanes and items in use, no dropout."""
        now = np.zeros(NOW_SIZE, np.int32)
        now[[LANES, SCORED, DISTINCT]] = lanes, scored, scored
        return self.xp.array(now)


def _plain(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.dtype.kind in "iu":
        array = array.astype(np.int32)
    return array if array.size else np.zeros(1, array.dtype)


def parts_of(columns: int) -> int:
    """Parts of the sum over items in scores_backward_h: a tile each, up to what is soon added."""
    return min(48, blocks(columns, 32))


def block_for(n: int, most: int = WIDE) -> tuple[int]:
    """A block of whole warps with a thread for each of n, or of `most` threads."""
    return (min(most, WARP * blocks(n, WARP)),)
