"""CUDA without a GPU: compiles .cu files unchanged with g++ and runs their kernels on the CPU.

    module = Module("twice.cu", ("-Dreal=float",))
    module.get_function("twice")((grid,), (block,), (array, np.int32(3)))

`Module` and its kernels are called as CuPy's `RawModule` and `RawKernel` are. With `checks`, a
launch looks for faults and raises the first as a `Fault`: see kernels/emulator/README.md.
`run_program` runs a file that has a main.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.backends.emulator.build import (
    DYNAMIC_NAME,
    MAX_THREADS,
    compile_library,
    compile_program,
    shared_arrays,
)
from gru4rec_np.backends.emulator.report import (
    REMEDIES,
    Fault,
    Line,
    Report,
    Step,
    Traffic,
    fault_of,
    source_lines,
)
from gru4rec_np.errors import InputError

__all__ = [
    "REMEDIES", "Fault", "Kernel", "Line", "Module", "Report", "Step", "Traffic",
    "run_program", "without_barriers",
]  # fmt: skip

MAX_BLOCK = (MAX_THREADS, MAX_THREADS, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
DYNAMIC_SHARED = 48 << 10  # bytes a launch may have without raising max_dynamic_shared_size_bytes

# One launch at a time: modules keep state, and all fibers' stacks are one piece of memory.
_lock = threading.Lock()
_stacks: list[mmap.mmap] = []


def without_barriers(source: str) -> list[tuple[int, str]]:
    """(line, source) for each __syncthreads() and __syncwarp(): the source without that one."""
    variants = []
    for found in re.finditer(r"__sync(?:threads|warp)\([^()]*\);", source):
        line_start = source.rfind("\n", 0, found.start()) + 1
        if "//" not in source[line_start : found.start()]:
            line = source.count("\n", 0, found.start()) + 1
            variants.append((line, source[: found.start()] + ";" + source[found.end() :]))
    return variants


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text in UTF-8") from None


def run_program(path: str | Path, arguments: Sequence[str] = (), source: str | None = None) -> int:
    """Compile a .cu file that has a main, with checks, and run it in a process of its own.

    Args:
        path: the file; its folder is on the include path.
        arguments: the program's.
        source: what to compile instead of the file's text.

    Returns:
        its exit status; of a program that a signal ended, minus the signal.

    Raises:
        InputError: there is no such file or no g++, or it cannot compile the file.
        Fault: a kernel, a launch or a call of the CUDA runtime has a fault.
    """
    path = Path(path)
    binary = compile_program(path, _text_of(path) if source is None else source)
    shared = "".join(
        f"{offset} {size} {name.decode()}\n" for name, offset, size in shared_arrays(binary)
    )
    with tempfile.TemporaryFile() as report:
        given = {"EMU_SHARED": shared, "EMU_REPORT": str(report.fileno())}
        done = subprocess.run(
            [path, *arguments], executable=binary, env={**os.environ, **given},
            pass_fds=[report.fileno()],
        )  # fmt: skip
        report.seek(0)
        text = report.read().decode(errors="replace").strip()
    if text:
        kernel, _, fault = text.partition("\n")
        raise fault_of(fault, kernel, binary)
    return done.returncode


class Module:
    """The kernels of one .cu file, compiled.

    Args:
        path: the file; its folder is on the include path.
        options: the compiler's, such as "-Dreal=float" or "-Ifolder".
        checks: look for faults, which is much slower, and allow `profile`.
        source: what to compile instead of the file's text.
        debug: compile without optimisation, to step through with gdb.
        orders: with checks, in how many orders of blocks and threads to run a kernel. The first is
            ascending and gives the result; the second is descending.
        seconds: of CPU time that a launch may take in one order, 0 for any. After them it is
            stopped with a `Fault` of the kind "endless".

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
        orders: int = 3,
        seconds: float = 0,
    ) -> None:
        self.path = Path(path)
        self.source = source = _text_of(self.path) if source is None else source
        self.checks = checks
        self.orders = orders
        self.seconds = seconds
        self.binary, signatures = compile_library(self.path, source, tuple(options), checks, debug)
        self._library = ctypes.CDLL(str(self.binary))
        self._shared = shared_arrays(self.binary) if checks else []
        self.kernels = {}
        for entry in (_Kernel * 2**16).in_dll(self._library, "emu_kernels"):
            if entry.name is None:  # ends the list
                break
            name = entry.name.decode()
            self.kernels[name] = Kernel(self, entry, signatures[name])

    def get_function(self, name: str) -> Kernel:
        """The kernel of that name."""
        if name not in self.kernels:
            there = ", ".join(self.kernels) or "none"
            raise InputError(f"{self.path.name} has no kernel {name!r}; it has {there}")
        return self.kernels[name]


class Kernel:
    """A `__global__` function; call it with a grid, a block and the arguments.

    Attributes:
        max_dynamic_shared_size_bytes: to be raised for kernels that need more, as with CuPy.
        depends_on_order: whether the last launch with checks gave other bits when blocks and
            threads ran in another order. Without atomics that is a fault.
    """

    def __init__(self, module: Module, entry: _Kernel, names: list[str]) -> None:
        self.module = module
        self.name = entry.name.decode()
        self.max_dynamic_shared_size_bytes = DYNAMIC_SHARED
        self.depends_on_order = False
        self._entry = entry
        self._parameters = entry.parameters[: entry.count]
        self._names = names

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple,
        shared_mem: int = 0,
        profile: bool = False,
    ) -> Report | None:
        """Run it.

        Args:
            grid, block: up to three sizes each.
            args: C-contiguous NumPy arrays for pointers (None is the null pointer), and NumPy
                scalars of the exact type.
            shared_mem: bytes of dynamic shared memory.
            profile: count the memory traffic; needs a module with checks.

        Returns:
            the counts with `profile`, else None.

        Raises:
            InputError: an argument does not fit the kernel.
            Fault: the kernel has a fault. With checks the arrays are then as before the launch.
        """
        grid = self._sizes("grid", grid, MAX_GRID)
        block = self._sizes("block", block, MAX_BLOCK)
        if np.prod(block) > MAX_THREADS:
            raise InputError(f"{self.name}: block {block} has more than {MAX_THREADS} threads")
        if not 0 <= shared_mem <= self.max_dynamic_shared_size_bytes:
            raise InputError(
                f"{self.name}: shared_mem {shared_mem} is not within "
                f"max_dynamic_shared_size_bytes, {self.max_dynamic_shared_size_bytes}"
            )
        if profile and not self.module.checks:
            raise InputError(f"{self.name}: profile needs a Module with checks=True")
        values = self._values(args)
        with _lock:
            if self.module.checks:
                return self._run_checked(grid, block, args, values, shared_mem, profile)
            self._run("emu_launch", grid, block, values, 0)
        return None

    def _run(
        self, function: str, grid: tuple, block: tuple, values: list, seed: int, *more: Any
    ) -> None:
        library = self.module._library
        if not _stacks:
            size = ctypes.c_size_t.in_dll(library, "emu_stack_bytes").value
            _stacks.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        ctypes.c_double.in_dll(library, "emu_seconds").value = self.module.seconds
        launch = getattr(library, function)
        launch.restype = ctypes.c_char_p
        fault = launch(
            ctypes.byref(self._entry),
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values)),
            ctypes.byref(ctypes.c_char.from_buffer(_stacks[0])),
            ctypes.c_uint(seed),
            *more,
        )
        if fault is not None:
            raise fault_of(fault.decode(), self.name, self.module.binary)

    def _run_checked(
        self, grid: tuple, block: tuple, args: tuple, values: list, shared_mem: int, profile: bool
    ) -> Report | None:
        regions, pointers = self._regions(args)
        shared = [_Region(name, None, size, offset) for name, offset, size in self.module._shared]
        dynamic = next(r for r in shared if r.name == DYNAMIC_NAME)
        dynamic.size = shared_mem
        before = [
            np.ctypeslib.as_array((ctypes.c_ubyte * r.size).from_address(r.data)) for r in regions
        ]
        results: list[list[np.ndarray]] = []
        self.depends_on_order = False
        for seed in range(1 if profile else self.module.orders):
            results.append([array.copy() for array in before])
            for region, array in zip(regions, results[-1], strict=True):
                region.data = array.ctypes.data
            self._run(
                "emu_check", grid, block, values, seed,
                (_Region * len(shared))(*shared), len(shared), ctypes.c_uint64(dynamic.offset),
                (_Region * len(regions))(*regions), len(regions),
                (ctypes.c_int64 * len(pointers))(*pointers), int(profile),
            )  # fmt: skip
            same = [np.array_equal(a, b) for a, b in zip(results[0], results[-1], strict=True)]
            if not all(same):
                self.depends_on_order = True
                if not self.module._library.emu_used_atomics():
                    name = regions[same.index(False)].name.decode()
                    raise Fault("order", f"{self.name}: order: the order of threads changes {name}")
        for array, result in zip(before, results[0], strict=True):
            array[:] = result
        return self._report(int(np.prod(block))) if profile else None

    # --- arguments --------------------------------------------------------------------------------

    def _sizes(self, what: str, sizes: tuple, limits: tuple) -> tuple[int, int, int]:
        sizes = tuple(int(size) for size in sizes)
        whole = (*sizes, 1, 1)[:3]
        if not 1 <= len(sizes) <= 3 or not all(
            1 <= size <= limit for size, limit in zip(whole, limits, strict=True)
        ):
            raise InputError(f"{self.name}: {what} must be 1 to 3 sizes within {limits}: {sizes}")
        return whole

    def _where(self, i: int) -> str:
        return f"argument {i} ({self._names[i]})"

    def _values(self, args: tuple) -> list[np.ndarray]:
        """One array per argument that holds its value: of a pointer, the address."""
        count = len(self._parameters)
        if len(args) != count:
            raise InputError(f"{self.name} takes {count} arguments, not {len(args)}")
        values = []
        for i, (arg, parameter) in enumerate(zip(args, self._parameters, strict=True)):
            where = f"{self.name}: {self._where(i)}"
            wanted = parameter.type.decode()
            if not parameter.pointer:
                if not isinstance(arg, np.generic) or arg.dtype.name != wanted:
                    raise InputError(f"{where} must be an np.{wanted}, not {arg!r}")
                values.append(np.array(arg))
            elif arg is None:
                values.append(np.array(0, np.uintp))
            else:
                if not isinstance(arg, np.ndarray):
                    raise InputError(f"{where} must be an array of {wanted}, not {arg!r}")
                if wanted and arg.dtype != wanted and not (wanted == "int8" and arg.dtype == bool):
                    raise InputError(f"{where} must be an array of {wanted}, not of {arg.dtype}")
                if not arg.flags.c_contiguous:
                    raise InputError(f"{where} must be C-contiguous")
                if not arg.flags.writeable and not parameter.constant:
                    raise InputError(f"{where} must be writeable")
                values.append(np.array(arg.ctypes.data, np.uintp))
        return values

    def _regions(self, args: tuple) -> tuple[list[_Region], list[int]]:
        """The pieces of memory of the arrays, and for each argument its region and offset.

        Arrays that overlap, such as one that is both input and output, share a region.
        """
        arrays = [(i, arg) for i, arg in enumerate(args) if isinstance(arg, np.ndarray)]
        arrays.sort(key=lambda pair: pair[1].ctypes.data)
        pointers = [-1, 0] * len(args)
        regions: list[_Region] = []
        for i, array in arrays:
            start, size, name = array.ctypes.data, array.nbytes, self._where(i)
            constant = self._parameters[i].constant
            last = regions[-1] if regions else None
            if last is not None and start < last.data + last.size and size:
                last.size = max(last.size, start + size - last.data)
                last.constant = last.constant and constant
                last.name += b" and " + name.encode()
            else:
                # As a GPU's allocator would place it: its base at a multiple of 256.
                base = array
                while isinstance(base.base, np.ndarray):
                    base = base.base
                offset = (start - base.ctypes.data) % 256
                last = _Region(name.encode(), start, size, offset, array.itemsize, constant)
                regions.append(last)
            pointers[2 * i : 2 * i + 2] = len(regions) - 1, start - last.data
        return regions, pointers

    # --- what was found ---------------------------------------------------------------------------

    def _report(self, threads: int) -> Report:
        module = self.module
        library = module._library
        report = Report(self.name, sources={module.path.name: module.source}, threads=threads)
        sites = ctypes.POINTER(_Site)()
        found = sites[: library.emu_sites(ctypes.byref(sites))]
        places = source_lines(self.module.binary, tuple(f"{site.pc:x}" for site in found))
        for site, place in zip(found, places, strict=True):
            sort = ("shared_" if site.is_shared else "") + ("loads", "stores", "atomics")[site.kind]
            counts = (site.sectors, site.ideal, site.conflicts)
            traffic = Traffic(site.requests, site.accesses, site.accesses * site.size, *counts)
            getattr(report.line(*(place or [("?", 0)])[0]), sort).add(traffic)
        barriers = ctypes.POINTER(_Barrier)()
        for barrier in barriers[: library.emu_barriers(ctypes.byref(barriers))]:
            report.line(barrier.file.decode(), barrier.line).barriers += barrier.count
        place_of = {site.pc: place for site, place in zip(found, places, strict=True)}
        steps = ctypes.POINTER(_Step)()
        for step in steps[: library.emu_steps(ctypes.byref(steps))]:
            if step.kind < 0:
                met = Path(step.file.decode()).name, step.bytes
                report.steps.append(Step(step.block, 0, "barrier", met))
                continue
            path, number = (place_of[step.pc] or [("?", 0)])[0]
            lanes = [i for i in range(32) if step.threads >> i & 1]
            report.steps.append(
                Step(
                    step.block, step.warp, ("read", "write", "atomic")[step.kind],
                    (Path(path).name, number), step.array.decode(), step.bytes,
                    bool(step.is_shared), step.size, {i: step.offset[i] for i in lanes},
                )
            )  # fmt: skip
        return report


# --- the structures of runtime.h, checks.cpp and profile.cpp --------------------------------------

_int, _int32, _int64 = ctypes.c_int, ctypes.c_int32, ctypes.c_int64
_uint32, _uint64 = ctypes.c_uint32, ctypes.c_uint64
_text, _pointer = ctypes.c_char_p, ctypes.c_void_p


class _Parameter(ctypes.Structure):
    _fields_ = (("type", _text), ("size", _int), ("pointer", _int), ("constant", _int))


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", _text), ("run", _pointer), ("parameters", ctypes.POINTER(_Parameter)),
        ("count", _int),
    )  # fmt: skip


class _Region(ctypes.Structure):
    _fields_ = (
        ("name", _text), ("data", _pointer), ("size", _uint64), ("offset", _uint64),
        ("item", _int), ("constant", _int), ("begin", _pointer), ("end", _pointer),
        ("words", _pointer), ("written", _pointer), ("managed", _int), ("freed", _int),
    )  # fmt: skip


class _Site(ctypes.Structure):
    _fields_ = (
        ("pc", _uint32), ("kind", _int32), ("is_shared", _int32), ("size", _int32),
        ("requests", _uint64), ("accesses", _uint64), ("sectors", _uint64), ("ideal", _uint64),
        ("conflicts", _uint64),
    )  # fmt: skip


class _Barrier(ctypes.Structure):
    _fields_ = (("file", _text), ("line", _int64), ("count", _int64))


class _Step(ctypes.Structure):
    _fields_ = (
        ("block", _int32), ("warp", _int32), ("kind", _int32), ("is_shared", _int32),
        ("size", _int32), ("pc", _uint32), ("threads", _uint32), ("array", _text),
        ("file", _text), ("bytes", _uint64), ("offset", _uint64 * 32),
    )  # fmt: skip
