"""What the benchmarks share: rounds in turns, the machine, Markdown tables, the look of plots."""

import contextlib
import ctypes
import gc
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

import gru4rec_np.backends  # noqa: F401 - loads all the BLAS libraries that the controller is to find
from gru4rec_np.models import network

_libraries = ThreadpoolController()


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """All that is timed inside runs on at most n threads: BLAS, Numba, and PyTorch if it is in use.

    Training and evaluation of GRU4Rec keep BLAS to one thread whatever n is.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(n)
    if find_spec("numba"):
        import numba

        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    with _libraries.limit(limits=n, user_api="blas"):
        yield


def name_of(what: str, n: int) -> str:
    """Something on n threads, as the tables call it."""
    return f"{what}, {n} thread{'s'[: n > 1]}"


def in_turns(
    contenders: dict[str, tuple[int, Callable]], rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Time each contender once a round, so that all see the same machine.

    Args:
        contenders: name to (threads, function of the round's number).
        rounds: how many count; one more, before them, compiles and warms up.

    Returns:
        name to seconds (rounds,), and name to what the function returned, warm-up included.
    """
    seconds = {name: np.empty(rounds + 1) for name in contenders}
    results = {name: [] for name in contenders}
    gc.disable()
    for r in range(rounds + 1):
        for name, (n, call) in contenders.items():
            with threads(n):
                began = time.perf_counter()
                result = call(r)
                seconds[name][r] = time.perf_counter() - began
            results[name].append(result)
    gc.enable()
    return {name: s[1:] for name, s in seconds.items()}, results


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def put(text: str, name: str, markdown: str, heading: str | None = None) -> str:
    """A document with the place between <!-- name --> and <!-- end --> filled.

    Args:
        heading: of a section to add at the end where there is no such place; or an error.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        if heading is None:
            raise SystemExit(f"error: the document has no place <!-- {name} -->")
        text = f"{text.rstrip()}\n\n{heading}\n\n<!-- {name} -->\n<!-- end -->\n"
    return place.sub(lambda found: f"{found[1]}\n{markdown}\n\n{found[2]}", text)


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1])


def resident() -> int:
    """Bytes of memory that this process holds now, free memory given back first (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def peak_memory(call: Callable) -> int:
    """Bytes by which a call's peak exceeds what the process held before it (Linux)."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call()
    return _status("VmHWM") - before


def machine() -> str:
    """What the numbers were taken on."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*:\s*(.*)", info.read_text(), re.MULTILINE)
        cpu = names[0] if names else cpu
    blas = {
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture')})"
        for lib in _libraries.info()
        if lib["user_api"] == "blas"
    }
    parts = [f"Python {platform.python_version()}"]
    parts.append(f"NumPy {np.__version__} on {', '.join(sorted(blas))}")
    if find_spec("numba"):
        import numba

        parts.append(f"Numba {numba.__version__}")
    if torch := sys.modules.get("torch"):
        theirs = re.findall(r"oneAPI (Math Kernel Library Version \S+)", torch.__config__.show())
        parts.append(f"torch {torch.__version__} on {', '.join(theirs) or 'its own kernels'}")
    return f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; " + "; ".join(parts)


def device() -> str:
    """The GPU, and what runs on it."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    parts = [name, f"CuPy {cupy.__version__}"]
    if torch := sys.modules.get("torch"):
        peer = torch.__version__ if torch.cuda.is_available() else "sees no GPU, and is left out"
        parts.append(f"PyTorch {peer}")
    return "; ".join(parts)


# A line's colour says what was timed, in all plots.
COLOURS = {
    "numba": "#0072b2",
    "numpy": "#d55e00",
    "products": "#333333",
    "PyTorch, plain": "#cc79a7",
    "PyTorch, tuned": "#009e73",
}


def figure(width: float, height: float):
    """An empty picture; white, so that it can be read on a dark page too."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def tidy(axis) -> None:
    """A light grid, and no lines where there is nothing to read."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def item_weights(hp) -> list[str]:
    """The weights that have a row for each item."""
    items = -1  # a number that no other weight has
    return [name for name, (rows, *_) in network.blocks(hp, items).items() if rows == items]
