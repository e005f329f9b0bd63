"""What the benchmarks share: contenders in turns, the machine, Markdown tables in a document."""

import contextlib
import gc
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

import gru4rec_np.backends  # noqa: F401 - loads every BLAS library before the controller looks
from gru4rec_np import GRU4Rec, Sessions
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters

H = 100  # of the models of random weights
_libraries = ThreadpoolController()


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Limit BLAS, Numba, and PyTorch where it is loaded, to n threads.

    GRU4Rec itself keeps BLAS to one thread, whatever n is.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(n)
    if find_spec("numba"):
        import numba

        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    with _libraries.limit(limits=n, user_api="blas"):
        yield


def name_of(what: str, n: int) -> str:
    """A contender on n threads, as the tables call it."""
    return f"{what}, {n} thread{'s'[: n > 1]}"


def in_turns(
    contenders: dict[str, tuple[int, Callable]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Time each contender once a round, so that all see the same machine.

    Args:
        contenders: name to (threads, function of the round's number).
        rounds: how many count; one more, before them, compiles and warms up.
        clock: time.process_time leaves out what other processes take.

    Returns:
        name to seconds (rounds,), and name to what the function returned, warm-up included.
    """
    seconds = {name: np.empty(rounds + 1) for name in contenders}
    results = {name: [] for name in contenders}
    gc.disable()
    for r in range(rounds + 1):
        for name, (n, call) in contenders.items():
            with threads(n):
                began = clock()
                result = call(r)
                seconds[name][r] = clock() - began
            results[name].append(result)
    gc.enable()
    return {name: s[1:] for name, s in seconds.items()}, results


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def put(text: str, name: str, markdown: str) -> str:
    """A document with the place between <!-- name --> and <!-- end --> filled."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise SystemExit(f"error: the document has no place <!-- {name} -->")
    return place.sub(lambda found: f"{found[1]}\n{markdown}\n\n{found[2]}", text)


def milliseconds(seconds: np.ndarray, digits: int = 2) -> str:
    """Of the fastest round and, in brackets, of the median one."""
    least, middle = 1000 * seconds.min(), 1000 * np.median(seconds)
    return f"{least:.{digits}f} ({middle:.{digits}f})"


def mean_and_std(values: Sequence[float]) -> str:
    """Over seeds, as in docs/results.md."""
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def trained(label: str, models: Iterable[GRU4Rec], train: Sessions, test: Sessions) -> np.ndarray:
    """Train each model. Returns (3, models): Recall@20, MRR@20 and the process's CPU seconds."""
    found = []
    for model in models:
        began = time.process_time()
        model.fit(train, verbose=False)
        seconds = time.process_time() - began
        found.append([*model.evaluate(test).values(), seconds])
        print(label, model.seed, *found[-1], file=sys.stderr, flush=True)
    return np.transpose(found)


def random_model(item_ids: np.ndarray, backend: str) -> GRU4Rec:
    """A model of random weights, as if it had been fit on these items."""
    model = GRU4Rec.published(layers=[H], backend=backend)
    model.weights = network.init_weights(model.hp, len(item_ids), np.random.default_rng(0))
    model._set_catalogue(item_ids)
    return model


def item_weights(hp: Hyperparameters) -> list[str]:
    """The weights that have a row for each item."""
    items = -1  # a number that no other weight has
    return [name for name, (rows, *_) in network.gate_blocks(hp, items).items() if rows == items]


def bytes_of_rows(hp: Hyperparameters, W: network.Weights, rows: dict[str, int]) -> int:
    """Bytes of weights and their optimiser memory, each read once and written once.

    Args:
        W: tables may have any number of rows.
        rows: how many count, of each weight that has a row for each item.
    """
    tables = item_weights(hp)
    numbers = sum(p[0].size * rows[name] if name in tables else p.size for name, p in W.items())
    kinds = 1 + (hp.adapt == "adagrad") + (hp.momentum > 0)
    return 4 * 2 * kinds * numbers


def peak() -> float:
    """Largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    """Processor, load and versions."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*:\s*(.*)", info.read_text(), re.MULTILINE)
        cpu = names[0] if names else cpu
    blas = {
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture')})"
        for lib in _libraries.info()
        if lib["user_api"] == "blas"
    }
    parts = [f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"]
    parts.append(f"Python {platform.python_version()}")
    parts.append(f"NumPy {np.__version__} on {', '.join(sorted(blas))}")
    if find_spec("numba"):
        import numba

        parts.append(f"Numba {numba.__version__}")
    if torch := sys.modules.get("torch"):
        theirs = re.findall(r"oneAPI (Math Kernel Library Version \S+)", torch.__config__.show())
        parts.append(f"torch {torch.__version__} on {', '.join(theirs) or 'its own kernels'}")
    return "; ".join(parts)


def device() -> str:
    """The GPU, and what runs on it."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    parts = [name, f"CuPy {cupy.__version__}"]
    if torch := sys.modules.get("torch"):
        peer = torch.__version__ if torch.cuda.is_available() else "sees no GPU, and is left out"
        parts.append(f"PyTorch {peer}")
    return "; ".join(parts)
