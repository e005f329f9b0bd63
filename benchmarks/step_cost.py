"""What does a training step cost, by items, lanes, units and samples; and memory, by items?

Steps of setting B of speed.py on random clicks, one size changed at a time, all sizes in turns
within one run:

    python benchmarks/step_cost.py [--backends numpy numba] [--rounds 5] [--plot FILE]

Items are drawn uniformly, the worst case for caches; or, for the cost by items, also in proportion
to 1 / rank, as clicks on real shops roughly are.
"""

import argparse
import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import COLOURS, figure, in_turns, machine, resident, table, tidy

from gru4rec_np import GRU4Rec
from gru4rec_np.backends import BACKENDS, one_blas_thread
from gru4rec_np.data.batches import Batches
from gru4rec_np.models import network
from gru4rec_np.ops.optim import init_state

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


@dataclasses.dataclass
class Case:
    """A model of some size.

    Attributes:
        train: trains STEPS steps. scored: distinct items that a step scores, on average.
        arrays, resident: bytes per item of what has a row for each; and by what the process grew.
    """

    train: Callable
    scored: float
    arrays: float
    resident: float


def drawn(rng: np.random.Generator, n_items: int, shape: tuple[int, int], draw: str) -> np.ndarray:
    """Item indices, uniform or ∝ 1 / (rank + 1); popular items lie anywhere in the table."""
    if draw == "uniform":
        return rng.integers(0, n_items, shape, np.int32)
    # The inverse of the continuous distribution ∝ 1 / x on [1, I + 1).
    rank = (np.exp(rng.random(shape) * np.log(n_items + 1)) - 1).astype(np.int64)
    return (np.minimum(rank, n_items - 1) * 7_368_787 % n_items).astype(np.int32)


def prepare(backend: str, size: dict[str, int], draw: str = "uniform") -> Case:
    """A model of random weights, and STEPS steps of random clicks."""
    before = resident()
    n_items, B = size["items"], size["lanes"]
    hp = GRU4Rec(
        layers=[size["units"]], batch_size=B, n_sample=size["samples"], dropout_p_embed=0,
        backend=backend,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, n_items, rng)
    memory = {name: init_state(p, hp.adapt, hp.momentum) for name, p in W.items()}
    for state in memory.values():
        for array in state.values():
            array.fill(0)  # else the system hands out the pages one by one while the clock runs
    log_support = np.zeros(n_items, np.float32)
    run = hp.ops.stepper and hp.ops.stepper(hp, W, memory, log_support)
    run = run or network.stepper(hp, W, memory, hp.ops, log_support)
    grown = resident() - before
    batches = Batches(
        x=drawn(rng, n_items, (STEPS, B), draw),
        y=drawn(rng, n_items, (STEPS, B), draw),
        lanes=np.full(STEPS, B),
        reset=np.zeros((STEPS, B), bool),
        keep=np.ones((STEPS, B), bool),
    )
    samples = drawn(rng, n_items, (STEPS, hp.n_sample), draw)
    state = network.zero_state(hp, B)
    tables = [*W.values(), *(a for m in memory.values() for a in m.values()), log_support]
    return Case(
        train=one_blas_thread(lambda r: run(batches, range(STEPS), samples, state, rng)),
        scored=np.mean([
            len(np.union1d(y, extra)) for y, extra in zip(batches.y, samples, strict=True)
        ]),
        arrays=sum(a.nbytes for a in tables if len(a) == n_items) / n_items,
        resident=grown / n_items,
    )  # fmt: skip


def sweep(name: str, backends: list[str], rounds: int) -> tuple[dict, dict]:
    """(backend, draw, value) to the case, and to the milliseconds per step of its fastest round."""
    cases = {
        (backend, draw, value): prepare(backend, {**BASE, name: value}, draw)
        for backend in backends
        for draw in (DRAWS if name == "items" else DRAWS[:1])
        for value in reversed(SWEEPS[name])  # the largest first: its memory is the best to measure
    }
    seconds, _ = in_turns({key: (THREADS, case.train) for key, case in cases.items()}, rounds)
    ms = {key: 1000 * s.min() / STEPS for key, s in seconds.items()}
    for case in cases.values():
        case.train = None  # and with it the tables
    gc.collect()
    return cases, ms


def items_table(cases: dict, ms: dict) -> str:
    """The cost by items: a Markdown table."""
    rows = []
    for backend, draw in dict.fromkeys((backend, draw) for backend, draw, _ in cases):
        for n in SWEEPS["items"]:
            case, cost = cases[backend, draw, n], ms[backend, draw, n]
            # Small tables would drown in what else a process allocates.
            measured = n == SWEEPS["items"][-1] and draw == DRAWS[0]
            rows.append([
                f"{backend}, {draw}", f"{n:,}", f"{case.scored:,.0f}", f"{cost:.2f}",
                f"{cost / ms[backend, draw, SWEEPS['items'][0]]:.2f}", f"{case.arrays:.0f}",
                f"{case.resident:.0f}" if measured else "",
            ])  # fmt: skip
    head = [
        "draws", "items", "items scored", "ms per step", "ratio", "bytes per item, arrays",
        "measured",
    ]  # fmt: skip
    return table(head, rows)


def size_table(name: str, cases: dict, ms: dict) -> str:
    """The cost by another size: a Markdown table, the sizes side by side."""
    rows = []
    for backend in dict.fromkeys(backend for backend, _, _ in cases):
        costs = (ms[backend, DRAWS[0], value] for value in SWEEPS[name])
        rows.append([f"{backend}, ms per step", *(f"{cost:.2f}" for cost in costs)])
    return table([name, *(f"{value:,}" for value in SWEEPS[name])], rows)


def plot(path: str | Path, found: dict[str, tuple[dict, dict]]) -> None:
    """Four panels: time per step by items, lanes, units, samples."""
    picture = figure(12, 3.4)
    axes = picture.subplots(1, len(found), sharey=True)
    for axis, (name, (_, ms)) in zip(axes, found.items(), strict=True):
        for backend, draw in dict.fromkeys((backend, draw) for backend, draw, _ in ms):
            axis.loglog(
                SWEEPS[name], [ms[backend, draw, value] for value in SWEEPS[name]], marker="o",
                color=COLOURS.get(backend), linestyle="-" if draw == DRAWS[0] else "--",
                label=f"{backend}, {draw} draws",
            )  # fmt: skip
        axis.set_xticks(SWEEPS[name], [f"{value:,}".replace(",000,000", "M").replace(",000", "k")
                                       for value in SWEEPS[name]])  # fmt: skip
        axis.minorticks_off()
        axis.set_xlabel(name)
        tidy(axis)
    costs = [cost for _, ms in found.values() for cost in ms.values()]
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if min(costs) / 2 < t < 2 * max(costs)]
    axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes[0].set_ylabel("ms per step")
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    picture.savefig(path, dpi=110)


def measure(backends: list[str], rounds: int, path: str | Path | None = None) -> str:
    """Markdown tables; and the plot, if it has a path."""
    found = {name: sweep(name, backends, rounds) for name in SWEEPS}
    if path:
        plot(path, found)
    tables = [items_table(*found["items"])]
    tables += [size_table(name, *found[name]) for name in SWEEPS if name != "items"]
    return "\n\n".join(tables)


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--backends", nargs="+", choices=BACKENDS, default=["numpy", "numba"])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--plot", help="a .png or .svg file to write")
    args = p.parse_args()
    print(machine(), end="\n\n")
    print(measure(args.backends, args.rounds, args.plot))


if __name__ == "__main__":
    main()
