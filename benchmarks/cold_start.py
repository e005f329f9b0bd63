"""How long until N epochs are done, from the start of Python, imports and compiling included?

Each contender trains setting B of speed.py on about 70,000 events, in a new process each time.
Cold: Numba has compiled nothing yet. Warm: it finds its machine code on disk. NumPy and PyTorch
compile nothing; their second time only has its files in memory. PyTorch needs the `bench` extra
and is left out without it. `performance.py cold_start` runs it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

EVENTS = 70_000
EPOCHS = (1, 5, 20)
CONTENDERS = {
    "numpy": "NumPy",
    "operations": "Numba, one operation at a time",
    "numba": "Numba, the fused loop",
    "torch": "PyTorch, tuned",
}


def work(contender: str, path: str, epochs: int) -> None:
    """Train in this process; print the number of each epoch when it is done."""
    from gru4rec_np import GRU4Rec, Sessions

    with np.load(path) as arrays:
        train = Sessions(**arrays)

    def done(epoch: int) -> None:
        print(epoch, flush=True)

    if contender == "torch":
        import torch
        from speed import SETTINGS
        from torch_peer import Peer

        from gru4rec_np.data.batches import session_parallel
        from gru4rec_np.models import network

        torch.set_num_threads(os.cpu_count() or 1)
        model = GRU4Rec.published(**SETTINGS["B"], backend="numpy")
        weights = network.init_weights(model, train.n_items, np.random.default_rng(0))
        peer, batches = Peer(model, weights, train.support), session_parallel(train, 32)
        for epoch in range(epochs):
            peer.begin(batches)
            peer.train(range(len(batches)))
            done(epoch + 1)
        return
    # As in speed.py, whose import would load PyTorch.
    model = GRU4Rec.published(
        input="shared", layers=[100], batch_size=32, loss="cross-entropy", n_sample=2048,
        sample_alpha=0.75, logq=1, dropout_p_embed=0, n_epochs=epochs,
        backend="numpy" if contender == "numpy" else "numba",
    )  # fmt: skip
    if contender == "operations":
        model.ops.fuses = lambda hp: False
        model.ops.stepper = lambda *args: None
    model.fit(train, on_epoch=lambda row: done(int(row["epoch"])))


def measure(contender: str, path: str, cache: str) -> list[float]:
    """Seconds from the start of a new process until each of EPOCHS was done."""
    command = [sys.executable, __file__, contender, path, str(max(EPOCHS))]
    env = {**os.environ, "NUMBA_CACHE_DIR": cache}
    began, seconds = time.perf_counter(), {}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        for line in process.stdout:
            seconds[int(line)] = time.perf_counter() - began
        errors = process.stderr.read()
    if process.returncode:
        raise SystemExit(f"error: {CONTENDERS[contender]}: {errors}")
    return [seconds[n] for n in EPOCHS]


def cold_start(args: argparse.Namespace) -> dict[str, str]:
    """The part `cold_start` of performance.py."""
    from common import table

    train = args.train
    few = np.arange(train.n_sessions) < np.searchsorted(train.offsets, EVENTS)
    train = train.keep_sessions(few).compact()
    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "log.npz"))
        np.savez(
            path, items=train.items, offsets=train.offsets, times=train.times,
            item_ids=np.arange(train.n_items), session_ids=np.arange(train.n_sessions),
        )  # fmt: skip
        for r in range(args.rounds):
            for contender in CONTENDERS:
                if contender == "torch" and not find_spec("torch"):
                    continue
                for state in ("cold", "warm"):
                    seconds = measure(contender, path, str(Path(folder, str(r))))
                    found.setdefault((contender, state), []).append(seconds)
    rows = [
        [f"{CONTENDERS[contender]}, {state}", *(f"{s:.1f}" for s in np.min(rounds, axis=0))]
        for (contender, state), rounds in found.items()
    ]
    head = [
        f"seconds until so many epochs of {train.n_events:,} events are done",
        *map(str, EPOCHS),
    ]
    return {"cold_start": table([*head, *map(str, EPOCHS)], rows)}


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
