"""How long until N epochs are done, from the start of Python, imports and compiling included?

Each contender trains setting B of settings.py on about 70,000 events, in a new process each time.
Cold: Numba has compiled nothing yet. Warm: it finds its machine code on disk. NumPy and PyTorch
compile nothing; their second time only has its files in memory. PyTorch needs the `bench` extra
and is left out without it. `performance.py cold_start` runs it.

`cuda_start` does the same on a GPU, for this package and PyTorch, and times the parts of the start.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gru4rec_np import Sessions

EVENTS = 70_000
EPOCHS = (1, 5, 20)
CONTENDERS = {
    "numpy": "NumPy",
    "operations": "Numba, one operation at a time",
    "numba": "Numba, the fused loop",
    "torch": "PyTorch, tuned",
}
ON_GPU = {"cuda": "CUDA", "torch": "PyTorch, tuned"}


def work(contender: str, path: str, epochs: int) -> None:
    """Train in this process; print the number of each epoch when it is done."""
    from settings import SETTINGS

    from gru4rec_np import GRU4Rec, Sessions

    with np.load(path) as arrays:
        train = Sessions(**arrays)

    def done(epoch: int) -> None:
        print(epoch, flush=True)

    if contender == "torch":
        import torch
        from torch_peer import Peer

        from gru4rec_np.data.batches import session_parallel
        from gru4rec_np.models import network

        torch.set_num_threads(os.cpu_count() or 1)
        if torch.cuda.is_available():
            torch.set_default_device("cuda")
        model = GRU4Rec.published(**SETTINGS["B"], backend="numpy")
        weights = network.init_weights(model, train.n_items, np.random.default_rng(0))
        peer, batches = Peer(model, weights, train.support), session_parallel(train, 32)
        for epoch in range(epochs):
            peer.begin(batches)
            peer.train(range(len(batches)))
            done(epoch + 1)
        return
    backend = "numba" if contender == "operations" else contender
    model = GRU4Rec.published(**SETTINGS["B"], n_epochs=epochs, backend=backend)
    if contender == "operations":
        model.ops.fuses = lambda hp: False
        model.ops.stepper = lambda *args: None
    model.fit(train, on_epoch=lambda row: done(int(row["epoch"])))


def work_in_parts(path: str) -> None:
    """Start as `work` does on a GPU; print the name of each part when it is done."""

    def done(name: str) -> None:
        print(name, flush=True)

    import cupy
    import speed

    from gru4rec_np import Sessions, backends
    from gru4rec_np.backends.cuda.steps import FILES
    from gru4rec_np.data.batches import session_parallel
    from gru4rec_np.models import network
    from gru4rec_np.models.hyperparameters import Hyperparameters

    ops = backends.load("cuda")
    done("Python, imports, PyTorch's too")
    cupy.zeros(1)
    done("CUDA's context")
    with np.load(path) as arrays:
        train = Sessions(**arrays)
    hp = Hyperparameters(**speed.SETTINGS["B"])
    W = network.init_weights(hp, train.n_items, np.random.default_rng(0))
    ours = speed.Ours(hp, ops, W, train, session_parallel(train, hp.batch_size))
    done("weights and batches, sent")
    for file in FILES:
        ops.module(file, np.float32)
    done("compiling the kernels of a step")
    ours.train(range(1))
    done("the first step, with the capture of the graph")
    ours.train(range(1, 2))
    done("the second step")


def measure(what: str, path: str, cache: str, epochs: int) -> dict[str, float]:
    """Each line that a new process prints, and the seconds from its start until then.

    Args:
        what: a contender, for `work`; or "parts", for `work_in_parts`.
        cache: the folder for the process's machine code.
    """
    command = [sys.executable, __file__, what, path, str(epochs)]
    names = "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR", "CUDA_CACHE_PATH"
    env = {**os.environ, **dict.fromkeys(names, cache)}
    began, seconds = time.perf_counter(), {}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        for line in process.stdout:
            seconds[line.strip()] = time.perf_counter() - began
        errors = process.stderr.read()
    if process.returncode:
        raise SystemExit(f"error: {what}: {errors}")
    return seconds


def starts(
    train: "Sessions", contenders: Iterable[str], epochs: int, rounds: int
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """(contender, "cold" or "warm") to what `measure` found in each round, in turns."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "log.npz"))
        np.savez(
            path, items=train.items, offsets=train.offsets, times=train.times,
            item_ids=np.arange(train.n_items), session_ids=np.arange(train.n_sessions),
        )  # fmt: skip
        for r in range(rounds):
            for contender in contenders:
                for state in ("cold", "warm"):
                    ends = measure(contender, path, str(Path(folder, str(r))), epochs)
                    found.setdefault((contender, state), []).append(ends)
    return found


def cold_start(
    args: argparse.Namespace,
    contenders: dict[str, str] = CONTENDERS,
    epochs: tuple[int, ...] = EPOCHS,
) -> dict[str, str]:
    """The part `cold_start` of performance.py."""
    from common import table

    train = args.train
    few = np.arange(train.n_sessions) < np.searchsorted(train.offsets, EVENTS)
    train = train.keep_sessions(few).compact()
    there = [name for name in contenders if name != "torch" or find_spec("torch")]
    rows = []
    for (contender, state), found in starts(train, there, max(epochs), args.rounds).items():
        least = [min(ends[str(n)] for ends in found) for n in epochs]
        rows.append([f"{contenders[contender]}, {state}", *(f"{s:.1f}" for s in least)])
    head = f"seconds until so many epochs of {train.n_events:,} events are done"
    return {"cold_start": table([head, *map(str, epochs)], rows)}


def cuda_start(args: argparse.Namespace) -> dict[str, str]:
    """The part `cuda_start` of performance.py: as `cold_start`, and the parts of the start."""
    from common import device, machine, table

    text = cold_start(args, ON_GPU, EPOCHS[:2])["cold_start"]
    columns = []
    for found in starts(args.train, ["parts"], 1, args.rounds).values():
        names = list(found[0])
        columns.append(np.min([np.diff([0, *ends.values()]) for ends in found], axis=0))
    rows = [[name, *(f"{s:.2f}" for s in of)] for name, *of in zip(names, *columns, strict=True)]
    parts = table(["seconds", "cold", "warm"], rows)
    return {"cuda_start": f"{device()}; {machine()}.\n\n{text}\n\n{parts}"}


if __name__ == "__main__":
    what, log, epochs = sys.argv[1:]
    work_in_parts(log) if what == "parts" else work(what, log, int(epochs))
