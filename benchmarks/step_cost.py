"""What does a training step cost, by items, lanes, units and samples?

Steps of setting B of settings.py on random clicks. `cost` changes one other size at a time, with
items that are drawn uniformly.

`items` goes up to ten million items, or as many as fit into half of the free memory. They are drawn
uniformly, the worst case for caches, or in proportion to 1 / rank, as clicks on real shops roughly
are. It takes one thread's CPU time, which other processes change less than the wall time; with
`--backends cuda` the time of a GPU.
"""

import argparse
import os
import time
from types import SimpleNamespace

import numpy as np
import speed
from common import device, in_turns, item_weights, milliseconds, table

from gru4rec_np.backends import load
from gru4rec_np.data.batches import Batches
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters

STEPS = 50  # of a round
BASE = {"items": 100_000, "lanes": 32, "units": 100, "samples": 2048}
SWEEPS = {
    "lanes": (8, 16, 32, 64, 128, 256),
    "units": (32, 64, 128, 256, 512),
    "samples": (128, 512, 2048, 8192),
}
LARGE = (10_000, 100_000, 1_000_000, 10_000_000)  # items of `items`
DRAWS = ("uniform", "popular")
THREADS = 2


def prepare(backend: str, size: dict[str, int], draw: str) -> tuple[speed.Ours, float]:
    """Random weights and clicks to train on, and how many distinct items a step scores."""
    # A step more, so that no epoch ends: a GPU would send all weights back.
    n_items, shape = size["items"], (STEPS + 1, size["lanes"])
    sizes = {"layers": [size["units"]], "batch_size": size["lanes"], "n_sample": size["samples"]}
    hp = Hyperparameters(**speed.SETTINGS["B"] | sizes | {"sample_alpha": 1.0})
    rng = np.random.default_rng(0)
    support = 1 / np.arange(1, n_items + 1) if draw == "popular" else np.ones(n_items)
    support = rng.permutation(support / support.sum())  # popular items lie anywhere in the table
    x, y = (rng.choice(n_items, shape, p=support).astype(np.int32) for _ in range(2))
    batches = Batches(
        x=x, y=y, lanes=np.full(shape[0], shape[1]), reset=np.zeros(shape, bool),
        keep=np.ones(shape, bool),
    )  # fmt: skip
    W = network.init_weights(hp, 1, rng)
    for name in item_weights(hp):  # in float32 at once: `init_weights` needs three times the memory
        W[name] = rng.random((n_items, *W[name].shape[1:]), np.float32)
        W[name] -= 0.5
        W[name] *= 0.2
    ours = speed.Ours(hp, load(backend), W, SimpleNamespace(support=support), batches)
    shape = STEPS, hp.n_sample
    samples = ours.ops.draw_negatives(np.random.default_rng(0), ours.negatives, shape, ours.guide)
    scored = np.mean([len(np.union1d(*both)) for both in zip(y[:STEPS], samples, strict=True)])
    return ours, scored


def cost(args: argparse.Namespace) -> dict[str, str]:
    """A table for each size, with its values side by side."""
    tables = []
    for name, values in SWEEPS.items():
        keys = [(backend, value) for backend in args.backends for value in values]
        found = {key: prepare(key[0], {**BASE, name: key[1]}, DRAWS[0])[0] for key in keys}
        calls = {key: (THREADS, lambda r, o=o: o.train(range(STEPS))) for key, o in found.items()}
        seconds, _ = in_turns(calls, args.rounds)
        rows = [
            [f"{b}, ms per step", *(f"{1000 * seconds[b, n].min() / STEPS:.2f}" for n in values)]
            for b in args.backends
        ]
        tables.append(table([name, *(f"{n:,}" for n in values)], rows))
    return {"cost": "\n\n".join(tables)}


def items(args: argparse.Namespace) -> dict[str, str]:
    """The table of `items`: each draw's sizes side by side, in turns."""
    # Each number has its Adagrad sum; the step also reads the logarithm of an item's frequency.
    of_item = 8 * (BASE["units"] + 1) + 4
    room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    sizes = [n for i, n in enumerate(LARGE, 1) if of_item * sum(LARGE[:i]) < room] or LARGE[:1]
    rows, on_gpu = [], args.backends == ["cuda"]
    backend, clock = ("cuda", time.perf_counter) if on_gpu else ("numba", time.process_time)
    for draw in DRAWS:
        found = {n: prepare(backend, BASE | {"items": n}, draw) for n in sizes}
        calls = {n: (1, lambda r, o=o: o.train(range(STEPS))) for n, (o, _) in found.items()}
        seconds, _ = in_turns(calls, args.rounds, clock)
        least = {n: 1000 * seconds[n].min() / STEPS for n in sizes}
        for n, (_, scored) in found.items():
            rows.append([draw, f"{n:,}", f"{scored:,.0f}", milliseconds(seconds[n] / STEPS),
                         f"{least[n] / least[sizes[0]]:.2f}",
                         f"{1000 * least[n] / scored:.2f}"])  # fmt: skip
        del found, calls
    of = f"{device()}: ms" if on_gpu else "CPU ms"
    head = ["draws", "items", "items scored", f"{of} per step, fastest round (median)",
            f"time, {sizes[0]:,} items = 1", "µs per scored item"]  # fmt: skip
    return {"items_gpu" if on_gpu else "items": table(head, rows)}
