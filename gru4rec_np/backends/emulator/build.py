"""Compiles a .cu file to a library or a program with g++, cached in the user's cache folder."""

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
MAX_THREADS = 1024  # of a block
MAX_DYNAMIC = 227 << 10  # bytes of dynamic shared memory: the most of any GPU so far
LIMITS = (f"-DMAX_THREADS={MAX_THREADS}", f"-DMAX_DYNAMIC={MAX_DYNAMIC}")  # for runtime.h
COMMON = ("-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-fno-extern-tls-init", "-g",
          "-gdwarf-4", "-Wno-attributes")  # fmt: skip
FRAMES = ("-Werror=frame-larger-than=98304",)  # that fit a fiber's stack of 128 KiB (runtime.cpp)
SPEED = ("-O2", "-ffp-contract=off")
DEBUG = ("-O0",)
# A call before each access to memory and each index into an array. -fno-thread-jumps and
# -fno-tree-sra keep one access of the source one access: no copies of it for other paths, no float4
# in parts. A memcpy stays a call, which is checked.
CHECKS = ("-O1", "-ffp-contract=off", "-fsanitize=thread", "-fsanitize=bounds-strict",
          "--param=tsan-instrument-func-entry-exit=0", "-fno-thread-jumps",
          "-fno-tree-sra", "-fno-builtin-memcpy", "-fno-builtin-memmove",
          "-fno-builtin-memset")  # fmt: skip
PROGRAM = ("-DEMU_PROGRAM", "-fno-threadsafe-statics")  # no guards, which would be atomic
RUNTIME = ("runtime.cpp",)
CHECKED_RUNTIME = ("runtime.cpp", "checks.cpp", "profile.cpp")
PROGRAM_RUNTIME = (*CHECKED_RUNTIME, "program.cpp")
DYNAMIC_NAME = b"dynamic shared memory"

# What emulated.h makes of `__global__` and of `extern __shared__ T name[]`.
KERNEL = re.compile(
    r'(template\s*<[^;{}]*>\s*)?(?:extern\s*"C"\s*)?'
    r"__attribute__\(\(noinline, emu_global\)\)\s*void\s+(\w+)\s*\(([^)]*)\)"
)
DYNAMIC = re.compile(r"(extern\s+thread_local\b[^;]*?(\w+)\s*\[\s*\])\s*;")
NOINLINE = re.compile(r"__noinline__(?<!\(\(__noinline__)")  # not where it is g++'s attribute

# kernel<<<configuration>>>(arguments): its kernel, and what delimits its parts. Strings are matched
# too, so that what they hold is not taken for any of these.
STRING = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])'"""
LAUNCH = re.compile(STRING + r"|<<\s*<")
KERNEL_NAME = re.compile(r"([\w:]+(?:\s*<[^<>;{}]*(?:<[^<>;{}]*>[^<>;{}]*)*>)?)\s*$")
LONGEST_NAME = 500
DELIMITER = re.compile(STRING + r"|>>\s*>|[()\[\]{}]")
UNCHECKED = '__attribute__((no_sanitize("thread")))'


def compile_library(
    path: Path, source: str, options: tuple[str, ...], checks: bool, debug: bool
) -> tuple[Path, dict[str, list[str]]]:
    """The library of a .cu file with the text `source`, from the cache if it is there.

    Returns:
        the library, and for each kernel the names of its parameters.

    Raises:
        InputError: there is no g++, or it cannot compile the file.
    """
    path = path.resolve()  # so that a debugger finds it, and the cache serves from any folder
    define = ("-DEMU_CHECKS",) if checks else ()
    flags = (*COMMON, *FRAMES, *define, *(CHECKS if checks else DEBUG if debug else SPEED))
    text = _preprocessed(path, source, options, flags)
    signatures = {}
    for template, name, parameters in KERNEL.findall(text):
        if not template:
            listed = [re.findall(r"\w+", parameter) for parameter in parameters.split(",")]
            signatures[name] = [words[-1] for words in listed if words]
    text = _with_tail(text, list(signatures))
    parts = CHECKED_RUNTIME if checks else RUNTIME
    runtime = (*define, *(DEBUG if debug else SPEED))
    return _linked(f"{path.stem}.so", text, flags, parts, runtime, "-shared"), signatures


def compile_program(path: Path, source: str) -> Path:
    """The program of a .cu file with a main and with the text `source`, with checks.

    Raises:
        InputError: there is no g++, or it cannot compile the file. One line, of the first error.
    """
    require_compiler("emulate")
    path = path.resolve()
    flags = (*COMMON, *PROGRAM, "-DEMU_CHECKS", *CHECKS)
    try:
        text = _with_tail(with_launches(_preprocessed(path, source, (), flags)), [])
        runtime = ("-DEMU_CHECKS", *SPEED)
        return _linked(f"{path.stem}.exe", text, flags, PROGRAM_RUNTIME, runtime, "-pie")
    except InputError as error:
        if "undefined reference to `main'" in str(error):
            raise InputError(f"{path.name}: has no main()") from None
        said = str(error).splitlines()
        found = re.compile("undefined reference|fatal error: |error: ")
        line = next((line for line in said if found.search(line)), said[-1])
        raise InputError(line.replace(str(path), path.name)) from None


def with_launches(text: str) -> str:
    """A preprocessed source with its `kernel<<<...>>>(...)` as C++: see cuda_runtime.h."""
    parts, at = [], 0
    for launch in LAUNCH.finditer(text):
        before = text[max(at, launch.start() - LONGEST_NAME) : launch.start()]
        kernel = launch[0].startswith("<") and KERNEL_NAME.search(before)
        if not kernel:
            continue
        name, start = " ".join(kernel[1].split()), launch.start() - len(kernel[0])
        configuration, end = _until(">>>", text, launch.end())
        between, end = _until("(", text, end)
        arguments, end = _until(")", text, end)
        if between.strip() or end > len(text):  # no launch: g++ will say so
            continue
        arguments = re.sub(r"\b__null\b", "nullptr", arguments)  # NULL, which is an integer to auto
        call = f"[=](auto... emu_a) {UNCHECKED} {{ {name}(emu_a...); }}"
        parts += [text[at:start], f'EmuLauncher({configuration})("{name}", {call}']
        parts += [", " if arguments.strip() else "", arguments, ")"]
        at = end
    return "".join(parts) + text[at:]


def _until(closing: str, text: str, start: int) -> tuple[str, int]:
    """What stands before the next `closing` that is not within brackets, and where that ends.

    Without one, the end is past the end of the text.
    """
    depth = 0
    for token in DELIMITER.finditer(text, start):
        if depth == 0 and re.sub(r"\s", "", token[0]) == closing:
            return text[start : token.start()], token.end()
        depth += (token[0] in "([{") - (token[0] in ")]}")
    return "", len(text) + 1


def _preprocessed(path: Path, source: str, options: tuple[str, ...], flags: tuple) -> str:
    if sys.platform != "linux":
        raise InputError(f"the CUDA emulator runs on Linux, not on {sys.platform}")
    # Macros come after the header, which one such as T would change.
    others = [option for option in options if not option.startswith("-D")]
    macros = [option[2:].partition("=")[::2] for option in options if option not in others]
    defines = [f"#define {name} {value or 1}" for name, value in macros]
    text = "\n".join(['#include "emulated.h"', *defines, f'# 1 "{path}"', source])
    folders = (f"-I{HERE}", f"-I{path.parent}")
    text = _run("-E", "-x", "c++", *flags, *folders, *others, "-", text=text)
    return NOINLINE.sub("__attribute__((noinline))", text)


def _linked(
    name: str, text: str, flags: tuple, parts: tuple[str, ...], runtime: tuple, kind: str
) -> Path:
    """A preprocessed source compiled with `flags`, linked to `parts` of the emulator."""
    own = (*COMMON, *LIMITS, *runtime, "-c")
    objects = [_cached(f"{part}.o", "", own, HERE / part) for part in parts]
    # In two steps, since linking with -fsanitize would add g++'s own runtime for it.
    compiled = _cached(f"{name}.o", text, (*flags, "-c", "-x", "c++", "-fpreprocessed"), "-")
    return _cached(name, "", (kind,), compiled, *objects)


def shared_arrays(library: Path) -> list[tuple[bytes, int, int]]:
    """(name, offset, bytes) of a library's shared arrays, by offset; 0 bytes for dynamic memory."""
    command = ["readelf", "--wide", "--symbols", "--demangle", str(library)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found = re.findall(r": (\w+) +(\w+) TLS +\w+ +\w+ +\w+ (.+)", done.stdout)
    arrays = {(f"shared array {name.split('::')[-1]}".encode(), int(offset, 16), int(size, 0))
              for offset, size, name in found if int(size, 0)}  # fmt: skip
    dynamic = next(int(offset, 16) for offset, _, name in found if name == "emu_dynamic")
    return sorted({*arrays, (DYNAMIC_NAME, dynamic, 0)}, key=lambda array: array[1])


def _with_tail(text: str, names: list[str]) -> str:
    """A preprocessed source with what it lacks: the list of its kernels, dynamic shared memory."""
    entries = "".join(f'emu_kernel<&{name}>("{name}"), ' for name in names)
    labels = dict.fromkeys(["emu_dynamic", *(name for _, name in DYNAMIC.findall(text))])
    # One block of thread-local memory, under all its names. Within a namespace the name is mangled:
    # there __asm__ names the block, which g++ in turn ignores in a template.
    text = DYNAMIC.sub(r'\1 __asm__("emu_dynamic");', text)
    assembly = ['.section .tbss, \\"awT\\", @nobits', ".balign 256"]
    for label in labels:
        assembly += [f".hidden {label}", f".globl {label}", f".type {label}, @tls_object"]
        assembly += [f"{label}:"]
    assembly += [f".zero {MAX_DYNAMIC}", ".text"]
    return f"""{text}
# 1 "list of kernels"
extern "C" __attribute__((visibility("default")))
const EmuKernel emu_kernels[] = {{ {entries}{{}} }};
asm("{"; ".join(assembly)}");
"""


def _cached(name: str, text: str, flags: tuple, *inputs: str | Path) -> Path:
    """What g++ makes of `text` or of files with `flags`. A change in any of them compiles again."""
    state = [_compiler(), text, *map(str, flags + inputs)]
    files = [*HERE.glob("*.h"), *(p for p in inputs if isinstance(p, Path) and p.suffix == ".cpp")]
    state += [file.read_text() for file in sorted(files)]
    digest = hashlib.sha256("\0".join(state).encode()).hexdigest()[:20]
    path = _folder() / f"{digest}-{name}"
    if not path.exists():
        # Written under its own name and moved, since other processes may compile the same file now.
        part = path.with_name(f"{path.stem}.{os.getpid()}-{get_ident()}{path.suffix}")
        try:
            _run(*flags, "-o", part, *inputs, text=text)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def require_compiler(what: str = "backend: cuda-emulated") -> None:
    """Raises InputError, which says what to install, if there is no g++."""
    if shutil.which("g++") is None:
        raise InputError(f"{what} needs g++: install a C++ compiler (apt install g++)")


@cache
def _compiler() -> str:
    """g++'s version."""
    return _run("--version").splitlines()[0]


def _run(*arguments: str | Path, text: str = "") -> str:
    """g++'s output. Raises InputError with its message if it fails."""
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
    """The user's cache, or, if it is not writable, a folder that is deleted when Python exits."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(cache).expanduser() / "gru4rec_np" / "emulator"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(_private().name)
    return folder if os.access(folder, os.W_OK) else Path(_private().name)
