"""CUDA without a GPU: compiles .cu files unchanged with g++ and runs their kernels on the CPU.

    module = Module(Path("kernels/cuda/scores.cu"), ("-Dreal=float",))
    module.get_function("scores")((grid,), (block,), (array, np.int32(3)))

`Module` and its kernels are called as CuPy's `RawModule` and `RawKernel` are. With `checks`, a
launch looks for faults and raises the first as a `Fault`; see README.md. Imports the errors.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from pathlib import Path

import numpy as np

from gru4rec_np.errors import InputError
from gru4rec_np.kernels.emulator.build import build

__all__ = ["Fault", "Kernel", "Module"]

MAX_THREADS = 1024  # of a block
MAX_GRID = (2**31 - 1, 65535, 65535)
DYNAMIC_SHARED = 48 << 10  # bytes that a kernel may ask for without being told of more

# Modules keep state, and their fibers' stacks are one piece of memory: one launch at a time.
_lock = threading.Lock()
_stacks: list[mmap.mmap] = []


class Fault(Exception):
    """A fault of a kernel.

    Attributes:
        kind: "race", "out of bounds", "misaligned", "uninitialised", "barrier", "warp", "deadlock",
            "const", "order" or "stack overflow".
        lines: (file, line) of the accesses or barriers at fault, the later access first.
    """

    def __init__(self, kind: str, message: str, lines: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.lines = lines


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("size", ctypes.c_int),
        ("pointer", ctypes.c_int),
        ("constant", ctypes.c_int),
    )


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("count", ctypes.c_int),
    )


class Module:
    """The kernels of one .cu file, compiled.

    Args:
        path: the file; its folder is on the include path.
        options: the compiler's, such as "-Dreal=float" or "-Ifolder".
        checks: look for faults, at some tenth of the speed.
        source: what to compile in place of the file's text.
        debug: without optimisation, to be stepped through with gdb.

    Raises:
        InputError: there is no g++, or it cannot compile the file.
    """

    def __init__(
        self,
        path: str | Path,
        options: tuple[str, ...] = (),
        checks: bool = False,
        source: str | None = None,
        debug: bool = False,
    ) -> None:
        self.path = Path(path)
        self.checks = checks
        self.binary = build(self.path, tuple(options), checks, source, debug)
        self._library = ctypes.CDLL(str(self.binary))
        self._library.emu_launch.restype = ctypes.c_char_p
        self.kernels = {}
        table = (_Kernel * 2**16).in_dll(self._library, "emu_kernels")
        for entry in table:
            if entry.name is None:
                break
            self.kernels[entry.name.decode()] = Kernel(self, entry)

    def get_function(self, name: str) -> Kernel:
        """The kernel of that name."""
        if name not in self.kernels:
            there = ", ".join(self.kernels) or "none"
            raise InputError(f"{self.path.name} has no kernel {name!r}; it has {there}")
        return self.kernels[name]


class Kernel:
    """A `__global__` function; call it with a grid, a block and the arguments.

    Attributes:
        max_dynamic_shared_size_bytes: raise it for kernels that want more, as with CuPy.
    """

    def __init__(self, module: Module, entry: _Kernel) -> None:
        self.module = module
        self.name = entry.name.decode()
        self.max_dynamic_shared_size_bytes = DYNAMIC_SHARED
        self._entry = entry
        self._parameters = entry.parameters[: entry.count]

    def __call__(self, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0) -> None:
        """Run it.

        Args:
            grid, block: up to three sizes each.
            args: C-contiguous NumPy arrays for pointers, NumPy scalars of the exact type.
            shared_mem: bytes of dynamic shared memory.

        Raises:
            InputError: an argument does not suit the kernel.
            Fault: the kernel is at fault; what the arrays then hold is undefined.
        """
        grid, block = self._sizes("grid", grid, MAX_GRID), self._sizes("block", block, (1024,) * 3)
        if np.prod(block) > MAX_THREADS:
            raise InputError(f"{self.name}: block {block} has more than {MAX_THREADS} threads")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise InputError(
                f"{self.name}: shared_mem {shared_mem} is more than "
                f"max_dynamic_shared_size_bytes, {self.max_dynamic_shared_size_bytes}"
            )
        pointers = self._pointers(args)
        with _lock:
            self._launch(grid, block, pointers, shared_mem)

    def _launch(self, grid: tuple, block: tuple, pointers: list, shared_mem: int) -> None:
        library = self.module._library
        if not _stacks:
            size = ctypes.c_size_t.in_dll(library, "emu_stack_bytes").value
            _stacks.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        fault = library.emu_launch(
            ctypes.byref(self._entry),
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            (ctypes.c_void_p * len(pointers))(*(p.ctypes.data for p in pointers)),
            ctypes.byref(ctypes.c_char.from_buffer(_stacks[0])),
            ctypes.c_uint(0),
        )
        if fault is not None:
            kind, _, message = fault.decode().partition("|")
            raise Fault(kind, f"{self.name}: {kind}: {message}")

    def _sizes(self, what: str, sizes: tuple, limits: tuple) -> tuple[int, int, int]:
        sizes = tuple(int(size) for size in sizes)
        whole = (*sizes, 1, 1)[:3]
        if not 1 <= len(sizes) <= 3 or not all(
            1 <= size <= limit for size, limit in zip(whole, limits, strict=True)
        ):
            raise InputError(f"{self.name}: {what} must be 1 to 3 sizes within {limits}: {sizes}")
        return whole

    def _pointers(self, args: tuple) -> list[np.ndarray]:
        """One array per argument that holds its value: of a pointer, the address."""
        count = len(self._parameters)
        if len(args) != count:
            raise InputError(f"{self.name} takes {count} arguments, not {len(args)}")
        pointers = []
        for i, (arg, parameter) in enumerate(zip(args, self._parameters, strict=True)):
            where = f"{self.name}: argument {i}"
            wanted = parameter.type.decode()
            if parameter.pointer:
                if not isinstance(arg, np.ndarray):
                    raise InputError(f"{where} must be an array of {wanted}, not {arg!r}")
                if wanted and arg.dtype != wanted and not (wanted == "int8" and arg.dtype == bool):
                    raise InputError(f"{where} must be an array of {wanted}, not of {arg.dtype}")
                if not arg.flags.c_contiguous:
                    raise InputError(f"{where} must be C-contiguous")
                pointers.append(np.array(arg.ctypes.data, np.uintp))
            else:
                if not isinstance(arg, np.generic) or arg.dtype.name != wanted:
                    raise InputError(f"{where} must be an np.{wanted}, not {arg!r}")
                pointers.append(np.array(arg))
        return pointers
