"""Does a training step cost the same whatever the size of the catalogue?

Times steps of GRU4Rec on catalogues of growing size, items drawn uniformly (the worst case for
caches), in turns within one run so that all see the same machine, and prints each time as a ratio
to the smallest catalogue's:

    python benchmarks/step_cost.py [--backend numpy] [--steps 200] [--rounds 5]
"""

import argparse
import time

import numpy as np

from gru4rec_np import GRU4Rec, network
from gru4rec_np.batches import Batches
from gru4rec_np.kernels import BACKENDS, one_blas_thread
from gru4rec_np.optim import init_state

CATALOGUES = (10_000, 100_000, 1_000_000)


def prepare(n_items: int, backend: str, steps: int):
    """A function that trains `steps` random steps on n_items, and the arrays that it changes."""
    hp = GRU4Rec(backend=backend, dropout_p_embed=0)
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, n_items, rng)
    memory = {name: init_state(p, hp.adapt, hp.momentum) for name, p in W.items()}
    for state in memory.values():
        for array in state.values():
            array.fill(0)  # else the system hands out the pages one by one while the clock runs
    log_support = np.zeros(n_items, np.float32)
    run = hp.ops.stepper and hp.ops.stepper(hp, W, memory, log_support)
    run = run or network.stepper(hp, W, memory, hp.ops, log_support)
    B = hp.batch_size
    batches = Batches(
        x=rng.integers(0, n_items, (steps, B), np.int32),
        y=rng.integers(0, n_items, (steps, B), np.int32),
        lanes=np.full(steps, B),
        reset=np.zeros((steps, B), bool),
        keep=np.ones((steps, B), bool),
    )
    samples = rng.integers(0, n_items, (steps, hp.n_sample), np.int32)
    state = network.zero_state(hp, B)
    return lambda: run(batches, range(steps), samples, state, rng), W, memory


@one_blas_thread
def seconds(run) -> float:
    """The time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print a Markdown table of ratios."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--backend", choices=BACKENDS, default="numpy")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    models = {n: prepare(n, args.backend, args.steps) for n in CATALOGUES}
    times: dict[int, list[float]] = {n: [] for n in CATALOGUES}
    for _ in range(args.rounds + 1):
        for n, (run, _, _) in models.items():
            times[n].append(seconds(run) / args.steps)
    print("| items | ms per step, median | ratio | weights and memory, bytes per item |")
    print("|---|---|---|---|")
    base = np.median(times[CATALOGUES[0]][1:])  # the first round warms up
    for n, (_, W, memory) in models.items():
        median = np.median(times[n][1:])
        tables = [a for a in W.values() if len(a) == n]
        tables += [a for m in memory.values() for a in m.values() if len(a) == n]
        per_item = sum(a.nbytes for a in tables) / n
        print(f"| {n:,} | {1000 * median:.2f} | {median / base:.2f} | {per_item:.0f} |")


if __name__ == "__main__":
    main()
