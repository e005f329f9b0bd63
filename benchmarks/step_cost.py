"""What does a training step cost, by items, lanes, units and samples?

Steps of setting B of speed.py on random clicks, one size changed at a time. Items are drawn
uniformly, the worst case for caches. For the cost by items they are also drawn in proportion to
1 / rank, as clicks on real shops roughly are.
"""

import argparse
from types import SimpleNamespace

import numpy as np
import speed
from common import in_turns, item_weights, table

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
DRAWS = ("uniform", "popular")
THREADS = 2


def prepare(backend: str, size: dict[str, int], draw: str) -> tuple[speed.Ours, float, float]:
    """Random weights and clicks to train on; how many distinct items a step scores; bytes per item.

    Bytes are those of the arrays that have a row for each item.
    """
    n_items, shape = size["items"], (STEPS, size["lanes"])
    sizes = {"layers": [size["units"]], "batch_size": size["lanes"], "n_sample": size["samples"]}
    hp = Hyperparameters(**speed.SETTINGS["B"] | sizes | {"sample_alpha": 1.0})
    rng = np.random.default_rng(0)
    support = 1 / np.arange(1, n_items + 1) if draw == "popular" else np.ones(n_items)
    support = rng.permutation(support / support.sum())  # popular items lie anywhere in the table
    x, y = (rng.choice(n_items, shape, p=support).astype(np.int32) for _ in range(2))
    batches = Batches(
        x=x, y=y, lanes=np.full(STEPS, shape[1]), reset=np.zeros(shape, bool),
        keep=np.ones(shape, bool),
    )  # fmt: skip
    W = network.init_weights(hp, n_items, rng)
    ours = speed.Ours(hp, load(backend), W, SimpleNamespace(support=support), batches)
    shape = STEPS, hp.n_sample
    samples = ours.ops.draw_negatives(np.random.default_rng(0), ours.negatives, shape, ours.guide)
    scored = np.mean([len(np.union1d(*both)) for both in zip(y, samples, strict=True)])
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
