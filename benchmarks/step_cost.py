"""What does a training step cost, by items, lanes, units and samples?

Steps of setting B of settings.py on random clicks, one size changed at a time. Items are drawn
uniformly, the worst case for caches. For the cost by items they are also drawn in proportion to
1 / rank, as clicks on real shops roughly are.

`items` goes on to ten million items, or as many as fit into half of the free memory. It takes one
thread's CPU time, which other processes change less than the wall time; with `--backends cuda` the
time of a GPU.
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
    "items": (10_000, 100_000, 1_000_000),
    "lanes": (8, 16, 32, 64, 128, 256),
    "units": (32, 64, 128, 256, 512),
    "samples": (128, 512, 2048, 8192),
}
LARGE = (10_000, 100_000, 1_000_000, 10_000_000)  # items of `items`
DRAWS = ("uniform", "popular")
THREADS = 2


def prepare(backend: str, size: dict[str, int], draw: str) -> tuple[speed.Ours, float, float]:
    """Random weights and clicks to train on; how many distinct items a step scores; bytes per item.

    Bytes are those of the arrays that have a row for each item.
    """
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
    # Each number has its Adagrad sum; the step also reads the logarithm of an item's frequency.
    return ours, scored, 2 * sum(W[name][0].nbytes for name in item_weights(hp)) + 4


def sweep(name: str, args: argparse.Namespace) -> dict[tuple, tuple[float, float, float]]:
    """(backend, draw, value) to its ms per step in the fastest round, scored items, bytes."""
    found = {
        (backend, draw, value): prepare(backend, {**BASE, name: value}, draw)
        for backend in args.backends
        for draw in (DRAWS if name == "items" else DRAWS[:1])
        for value in SWEEPS[name]
    }
    calls = {key: (THREADS, lambda r, o=o: o.train(range(STEPS))) for key, (o, *_) in found.items()}
    seconds, _ = in_turns(calls, args.rounds)
    return {key: (1000 * seconds[key].min() / STEPS, *rest) for key, (_, *rest) in found.items()}


def cost(args: argparse.Namespace) -> dict[str, str]:
    """A table by items, and one for each other size with its values side by side."""
    found, rows = sweep("items", args), []
    for (backend, draw, n), (ms, scored, memory) in found.items():
        least = found[backend, draw, SWEEPS["items"][0]][0]
        rows.append([f"{backend}, {draw}", f"{n:,}", f"{scored:,.0f}", f"{ms:.2f}",
                     f"{ms / least:.2f}", f"{memory:.0f}"])  # fmt: skip
    head = ["draws", "items", "items scored", "ms per step", "ratio", "bytes per item, arrays"]
    tables = [table(head, rows)]
    for name in list(SWEEPS)[1:]:
        found = sweep(name, args)
        rows = [
            [f"{b}, ms per step", *(f"{found[b, DRAWS[0], n][0]:.2f}" for n in SWEEPS[name])]
            for b in args.backends
        ]
        tables.append(table([name, *(f"{n:,}" for n in SWEEPS[name])], rows))
    return {"cost": "\n\n".join(tables)}


def items(args: argparse.Namespace) -> dict[str, str]:
    """The table of `items`: each draw's sizes side by side, in turns."""
    of_item = 8 * (BASE["units"] + 1) + 4
    room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    sizes = [n for i, n in enumerate(LARGE, 1) if of_item * sum(LARGE[:i]) < room] or LARGE[:1]
    rows, on_gpu = [], args.backends == ["cuda"]
    backend, clock = ("cuda", time.perf_counter) if on_gpu else ("numba", time.process_time)
    for draw in DRAWS:
        found = {n: prepare(backend, BASE | {"items": n}, draw) for n in sizes}
        calls = {n: (1, lambda r, o=o: o.train(range(STEPS))) for n, (o, *_) in found.items()}
        seconds, _ = in_turns(calls, args.rounds, clock)
        least = {n: 1000 * seconds[n].min() / STEPS for n in sizes}
        for n, (_, scored, _) in found.items():
            rows.append([draw, f"{n:,}", f"{scored:,.0f}", milliseconds(seconds[n] / STEPS),
                         f"{least[n] / least[sizes[0]]:.2f}",
                         f"{1000 * least[n] / scored:.2f}"])  # fmt: skip
        del found, calls
    of = f"{device()}: ms" if on_gpu else "CPU ms"
    head = ["draws", "items", "items scored", f"{of} per step, fastest round (median)",
            f"time, {sizes[0]:,} items = 1", "µs per scored item"]  # fmt: skip
    return {"items_gpu" if on_gpu else "items": table(head, rows)}
