"""What the compiler makes of the CUDA kernels: registers, shared memory, spills.

Compiles each kernels/*.cu for float and double, without a warning, and prints a table:

    python benchmarks/cuda_build.py                                # needs no GPU
    python benchmarks/cuda_build.py --write docs/performance.md    # put the table there
    python benchmarks/cuda_build.py --check docs/performance.md    # or compare it with that one

It uses nvcc and NVRTC, whichever is installed. CuPy calls NVRTC; here it comes from
`pip install nvidia-cuda-nvrtc-cu12`. nvcc 13 no longer knows sm_70; NVRTC 12 does. The options are
those that CuPy compiles with, such as flushing denormal floats to zero.
"""

import argparse
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

from common import put, table

from gru4rec_np.backends.cuda.device import compiler_options
from gru4rec_np.files import KERNELS, write_text

ARCHITECTURES = ("sm_70", "sm_80", "sm_90")
REALS = {"float": "float32", "double": "float64"}  # of the kernels, and the dtype
FILES = sorted(KERNELS.glob("*.cu"))
PLACE, HEADING = "cuda_build", "## CUDA kernels: registers, shared memory, spills"
OPTIONS = (f"-I{KERNELS}", "-std=c++17", "-ftz=true")


class BuildError(Exception):
    """A file does not compile, or not without a warning."""


@dataclass(frozen=True)
class Usage:
    """What a kernel takes: registers of a thread; bytes of shared memory; bytes spilled."""

    registers: int
    shared: int
    spilled: int


# (file, real, kernel, architecture) to what it takes.
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
    """nvcc, as it stands on PATH."""

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
                "all-warnings", "-Wno-deprecated-gpu-targets", "-Xptxas", "-v", "-o",
                f"{folder}/out", str(path),
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
        # It has no -Werror, and that an architecture is old it says each time.
        warnings = [line for line in log.splitlines() if "warning" in line]
        if failed or any("deprecated" not in line for line in warnings):
            raise BuildError(f"{self.name} {' '.join(options)} {path}\n{log}")
        return log


COMPILERS = (Nvcc, Nvrtc)


def build(compiler: Nvcc | Nvrtc, architectures: tuple[str, ...]) -> Build:
    """Compile all files for float and double.

    Raises:
        BuildError: with the compiler's message.
    """
    jobs = [(path, real) for path in FILES for real in REALS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        logs = pool.map(lambda job: compiler.compile(*job, architectures), jobs)
        found = [parse(path.name, real, log) for (path, real), log in zip(jobs, logs, strict=True)]
    return {key: usage for part in found for key, usage in part.items()}


def build_all(compilers: list[Nvcc | Nvrtc]) -> tuple[Build, dict[str, str]]:
    """Compile for each architecture with the first compiler that knows it.

    Returns:
        what the kernels take, and the name of each architecture's compiler.
    """
    found, by = {}, {}
    for compiler in compilers:
        known = tuple(a for a in ARCHITECTURES if a in compiler.architectures and a not in by)
        found |= build(compiler, known) if known else {}
        by |= dict.fromkeys(known, compiler.name)
    return found, {a: by[a] for a in ARCHITECTURES if a in by}


def spilling(found: Build) -> list[str]:
    """The kernels that do not get by with their registers."""
    return [f"{' '.join(key)}: {u.spilled} bytes" for key, u in found.items() if u.spilled]


def tabulate(found: Build, by: dict[str, str]) -> str:
    """A row for each kernel, a column of registers for each architecture; float / double."""
    rows = []
    for file, kernel in sorted({(file, kernel) for file, _, kernel, _ in found}):
        of = {(real, a): found[file, real, kernel, a] for real in REALS for a in by}
        registers = [" / ".join(str(of[real, a].registers) for real in REALS) for a in by]
        shared = " / ".join(str(max(of[real, a].shared for a in by)) for real in REALS)
        spilled = max(usage.spilled for usage in of.values())
        rows.append([file, f"`{kernel}`", *registers, shared, spilled])
    heads = [f"registers, {architecture}, {name}" for architecture, name in by.items()]
    return table(["file", "kernel", *heads, "shared memory, bytes", "spills, bytes"], rows)


def columns(markdown: str) -> dict[str, list[str]]:
    """A Markdown table's columns by their heads."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {head: list(column) for head, *column in zip(*cells, strict=True)}


def differences(text: str, new: str) -> list[str]:
    """What a document's table says otherwise than a new one, in the columns that both have.

    A column is that of one compiler: what another version would do is not compared.
    """
    place = re.search(rf"<!-- {PLACE} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    old, new = columns(place[1] if place else ""), columns(new)
    if not old:
        return ["there is no table"]
    kernels = list(zip(new["file"], new["kernel"], strict=True))
    if list(zip(old["file"], old["kernel"], strict=True)) != kernels:
        return ["the kernels are others"]
    found = []
    for head in new.keys() & old.keys():
        for kernel, before, now in zip(kernels, old[head], new[head], strict=True):
            if before != now:
                found.append(f"{' '.join(kernel)}: {head}: {before} in the table, now {now}")
    return sorted(found)


def main() -> None:
    """Print the table; write it or compare it."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--write", metavar="FILE", help="put the table into this document")
    p.add_argument("--check", metavar="FILE", help="fail if the document's table is another one")
    args = p.parse_args()
    compilers = [compiler() for compiler in COMPILERS if compiler.here()]
    if not compilers:
        raise SystemExit("error: no compiler; install CUDA, or pip install nvidia-cuda-nvrtc-cu12")
    try:
        found, by = build_all(compilers)
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None
    print(*(f"{a}: {by.get(a, 'no compiler here knows it')}" for a in ARCHITECTURES), sep="\n")
    markdown = tabulate(found, by)
    print(f"\n{markdown}")
    problems = spilling(found)
    if args.check:
        problems += differences(Path(args.check).read_text(encoding="utf-8"), markdown)
    if problems:
        raise SystemExit("\n".join(["error:", *problems]))
    if args.write:
        text = Path(args.write).read_text(encoding="utf-8")
        write_text(args.write, put(text, PLACE, markdown, HEADING))


if __name__ == "__main__":
    main()
