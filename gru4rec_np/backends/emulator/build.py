"""From a .cu file to a shared library, by g++, kept in the user's cache. Imports the errors."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from threading import get_ident

from gru4rec_np.errors import InputError
from gru4rec_np.files import KERNELS

HERE = KERNELS / "emulator"
# A fiber's stack has 128 KiB (runtime.cpp).
COMMON = ("-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-fno-extern-tls-init", "-g",
          "-gdwarf-4", "-Wno-attributes", "-Werror=frame-larger-than=98304")  # fmt: skip
SPEED = ("-O2", "-ffp-contract=off")
DEBUG = ("-O0",)
# A call before each access to memory and each index into an array. One access of the source stays
# one access: no copies of it for other paths, no float4 in parts.
CHECKS = ("-O1", "-ffp-contract=off", "-fsanitize=thread", "-fsanitize=bounds-strict",
          "--param=tsan-instrument-func-entry-exit=0", "-fno-thread-jumps",
          "-fno-tree-sra")  # fmt: skip
RUNTIME = ("runtime.cpp",)
CHECKED_RUNTIME = ("runtime.cpp", "checks.cpp", "profile.cpp")
DYNAMIC_NAME = b"dynamic shared memory"
MAX_DYNAMIC_SHARED = 227 << 10  # the most that any GPU so far has; as in runtime.h

# What emulated.h makes of `__global__` and of `extern __shared__ T name[]`.
KERNEL = re.compile(
    r'(template\s*<[^;{}]*>\s*)?(?:extern\s*"C"\s*)?'
    r"__attribute__\(\(noinline, emu_global\)\)\s*void\s+(\w+)\s*\(([^)]*)\)"
)
DYNAMIC = re.compile(r"\bextern\s+thread_local\b[^;]*?(\w+)\s*\[\s*\]\s*;")


def compile_library(
    path: Path, source: str, options: tuple[str, ...], checks: bool, debug: bool
) -> tuple[Path, dict[str, list[str]]]:
    """The library of a .cu file that says `source`, from the cache if it is there.

    Returns:
        the library, and for each kernel the names of its parameters.

    Raises:
        InputError: there is no g++, or it refuses the file.
    """
    if sys.platform != "linux":
        raise InputError(f"backend: cuda-emulated runs on Linux, not on {sys.platform}")
    path = path.resolve()  # for a debugger; and what is cached serves from any folder
    define = ("-DEMU_CHECKS",) if checks else ()
    flags = (*COMMON, *define, *(CHECKS if checks else DEBUG if debug else SPEED))
    # After the header, lest a macro such as T changes what it says.
    macros = [f"#define {name} {value or 1}" for name, value in _macros(options)]
    text = "\n".join(['#include "emulated.h"', *macros, f'# 1 "{path}"', source])
    others = [option for option in options if not option.startswith("-D")]
    folders = (f"-I{HERE}", f"-I{path.parent}")
    text = _run("-E", "-x", "c++", *flags, *folders, *others, "-", text=text)
    signatures = {}
    for template, name, parameters in KERNEL.findall(text):
        if not template:
            listed = [re.findall(r"\w+", parameter) for parameter in parameters.split(",")]
            signatures[name] = [words[-1] for words in listed if words]
    text += _tail(text, list(signatures))
    parts = CHECKED_RUNTIME if checks else RUNTIME
    runtime = (*COMMON, *define, *(DEBUG if debug else SPEED), "-c")
    objects = [_cached(f"{part}.o", "", runtime, HERE / part) for part in parts]
    # In two steps: to link with -fsanitize would bring in g++'s own runtime for it.
    kernels = _cached(f"{path.stem}.o", text, (*flags, "-c", "-x", "c++", "-fpreprocessed"), "-")
    return _cached(f"{path.stem}.so", "", ("-shared",), kernels, *objects), signatures


def _macros(options: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, value) of each -Dname=value."""
    return [option[2:].partition("=")[::2] for option in options if option.startswith("-D")]


def shared_arrays(library: Path) -> list[tuple[bytes, int, int]]:
    """(name, offset, bytes) of the shared arrays in a library, by offset; dynamic memory has 0."""
    command = ["readelf", "--wide", "--symbols", "--demangle", str(library)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found = re.findall(r": (\w+) +(\w+) TLS +\w+ +\w+ +\w+ (.+)", done.stdout)
    arrays = {(f"shared array {n.split('::')[-1]}".encode(), int(at, 16), int(size, 0))
              for at, size, n in found if int(size, 0)}  # fmt: skip
    dynamic = next(int(at, 16) for at, _, name in found if name == "emu_dynamic")
    return sorted({*arrays, (DYNAMIC_NAME, dynamic, 0)}, key=lambda array: array[1])


def _tail(text: str, names: list[str]) -> str:
    """Declarations that a preprocessed source lacks: the list of kernels, the dynamic memory."""
    entries = "".join(f'emu_kernel<&{name}>("{name}"), ' for name in names)
    labels = dict.fromkeys(["emu_dynamic", *DYNAMIC.findall(text)])
    # One block of the memory that `thread_local` arrays lie in, under all the names it has.
    assembly = ['.section .tbss, \\"awT\\", @nobits', ".balign 256"]
    for label in labels:
        assembly += [f".hidden {label}", f".globl {label}", f".type {label}, @tls_object"]
        assembly += [f"{label}:"]
    assembly += [f".zero {MAX_DYNAMIC_SHARED}", ".text"]
    return f"""
# 1 "list of kernels"
extern "C" __attribute__((visibility("default")))
const EmuKernel emu_kernels[] = {{ {entries}{{}} }};
asm("{"; ".join(assembly)}");
"""


def _cached(name: str, text: str, flags: tuple, *inputs: str | Path) -> Path:
    """What g++ makes of `text`, or of files, with `flags`; made once for each state of them."""
    state = [_compiler(), text, *map(str, flags + inputs)]
    files = [*sorted(HERE.glob("*.h")), *(part for part in inputs if str(part).endswith(".cpp"))]
    state += [file.read_text() for file in files]
    digest = hashlib.sha256("\0".join(state).encode()).hexdigest()[:20]
    path = _folder() / f"{digest}-{name}"
    if not path.exists():
        # Written under a name of its own and moved: others may want the same file now.
        part = path.with_name(f"{path.stem}.{os.getpid()}-{get_ident()}{path.suffix}")
        try:
            _run(*flags, "-o", part, *inputs, text=text)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def require_compiler() -> None:
    """Raises InputError, with what to install, where there is no g++."""
    if shutil.which("g++") is None:
        raise InputError(
            "backend: cuda-emulated needs g++: install a C++ compiler (apt install g++)"
        )


@cache
def _compiler() -> str:
    """g++'s version."""
    return _run("--version").splitlines()[0]


def _run(*arguments: str | Path, text: str = "") -> str:
    """g++'s output."""
    require_compiler()
    done = subprocess.run(
        ["g++", *map(str, arguments)], input=text, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise InputError(f"g++ cannot compile this:\n{done.stderr.strip()}")
    return done.stdout


@cache
def _private() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="gru4rec_np-emulator-")


def _folder() -> Path:
    """Where compiled files are kept: the user's cache, or until the end if it is not writable."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache).expanduser() / "gru4rec_np" / "emulator"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(_private().name)
    return folder if os.access(folder, os.W_OK) else Path(_private().name)
