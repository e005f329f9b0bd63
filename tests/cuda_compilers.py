"""The compilers of CUDA kernels: registers, shared memory and spills; for test_cuda_build.py.

They are nvcc and NVRTC, whichever is installed. CuPy calls NVRTC; here it comes from
`pip install nvidia-cuda-nvrtc-cu12`. nvcc 13 no longer knows sm_70; NVRTC 12 does. The options are
those that CuPy compiles with, such as flushing denormal floats to zero.
"""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from gru4rec_np.backends.cuda.device import compiler_options
from gru4rec_np.files import KERNELS

REALS = {"float": "float32", "double": "float64"}
FILES = sorted(KERNELS.glob("*.cu"))
OPTIONS = (f"-I{KERNELS}", "-std=c++17", "-ftz=true")


class BuildError(Exception):
    """A file does not compile, or not without a warning."""


@dataclass(frozen=True)
class Usage:
    """Of a kernel: registers of a thread, bytes of static shared memory, bytes spilled."""

    registers: int
    shared: int
    spilled: int


# By (file, real, kernel, architecture).
Build = dict[tuple[str, str, str, str], Usage]

# What ptxas -v says of a kernel, from nvcc and from NVRTC.
PTXAS = re.compile(
    r"Compiling entry function '(\w+)' for '(\w+)'.*?"
    r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)


def parse(file: str, real: str, log: str) -> Build:
    """The kernels of a file, from the compiler's log."""
    found = {}
    for kernel, architecture, stores, loads, registers, more in PTXAS.findall(log):
        shared = re.search(r"(\d+) bytes smem", more)
        usage = Usage(int(registers), int(shared[1]) if shared else 0, int(stores) + int(loads))
        found[file, real, kernel, architecture] = usage
    return found


class Nvcc:
    """nvcc on PATH."""

    @staticmethod
    def here() -> bool:
        return shutil.which("nvcc") is not None

    @cached_property
    def name(self) -> str:
        return "nvcc " + re.search(r"\bV([\d.]+)", _output("nvcc", "--version"))[1]

    @cached_property
    def architectures(self) -> list[str]:
        listed = _output("nvcc", "--list-gpu-arch").split()
        return [name.replace("compute", "sm") for name in listed]

    def compile(self, path: Path, real: str, architectures: tuple[str, ...]) -> str:
        """The log of ptxas."""
        codes = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in architectures]
        with tempfile.TemporaryDirectory() as folder:
            return _output(
                "nvcc", "-fatbin", *codes, *OPTIONS, *compiler_options(REALS[real]), "-Werror",
                "all-warnings",
                "-Wno-deprecated-gpu-targets", "-Xptxas", "-v", "-o", f"{folder}/out", str(path),
            )  # fmt: skip


def _output(*command: str) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


class Nvrtc:
    """NVRTC from the PyPI wheel nvidia-cuda-nvrtc-cu12."""

    @staticmethod
    def here() -> bool:
        return find_spec("nvidia") is not None and find_spec("nvidia.cuda_nvrtc") is not None

    @cached_property
    def _library(self) -> ctypes.CDLL:
        (folder,) = find_spec("nvidia.cuda_nvrtc").submodule_search_locations
        return ctypes.CDLL(str(next(Path(folder, "lib").glob("libnvrtc.so.*"))))

    @cached_property
    def name(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"NVRTC {major.value}.{minor.value}"

    @cached_property
    def architectures(self) -> list[str]:
        n = ctypes.c_int()
        self._library.nvrtcGetNumSupportedArchs(ctypes.byref(n))
        numbers = (ctypes.c_int * n.value)()
        self._library.nvrtcGetSupportedArchs(numbers)
        return [f"sm_{number}" for number in numbers]

    def compile(self, path: Path, real: str, architectures: tuple[str, ...]) -> str:
        """The logs of ptxas."""
        return "".join(self._compile(path, real, architecture) for architecture in architectures)

    def _compile(self, path: Path, real: str, architecture: str) -> str:
        library, program, size = self._library, ctypes.c_void_p(), ctypes.c_size_t()
        library.nvrtcCreateProgram(
            ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None
        )
        own = (f"-arch={architecture}", "--ptxas-options=-v")
        options = (*OPTIONS, *compiler_options(REALS[real]), *own)
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = library.nvrtcCompileProgram(program, len(options), encoded)
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, buffer)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        log = buffer.value.decode()
        # NVRTC has no -Werror, and warns each time that an architecture is old.
        warnings = [line for line in log.splitlines() if "warning" in line]
        if failed or any("deprecated" not in line for line in warnings):
            raise BuildError(f"{self.name} {' '.join(options)} {path}\n{log}")
        return log


def build(compiler: Nvcc | Nvrtc, architectures: dict[str, tuple[str, ...]]) -> Build:
    """Compile all files for float and double.

    Args:
        architectures: those for each of REALS.

    Raises:
        BuildError: with the compiler's message.
    """
    jobs = [(path, real) for path in FILES for real in REALS]
    found: Build = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logs = pool.map(lambda job: compiler.compile(*job, architectures[job[1]]), jobs)
        for (path, real), log in zip(jobs, logs, strict=True):
            found |= parse(path.name, real, log)
    return found
