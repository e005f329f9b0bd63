"""Does a training step cost the same whatever the size of the catalogue?

Times steps of GRU4Rec on catalogues of growing size, in turns within one run so that all see the
same machine, and prints each time as a ratio to the smallest catalogue's:

    python benchmarks/step_cost.py [--backend numpy] [--steps 200] [--rounds 5]
"""

import argparse
import time

import numpy as np

from gru4rec_np import GRU4Rec, network
from gru4rec_np.kernels import BACKENDS, one_blas_thread
from gru4rec_np.optim import init_state

CATALOGUES = (10_000, 100_000, 1_000_000)


def prepare(n_items: int, backend: str):
    """Weights of a model for n_items, and a window of one step drawn at random."""
    hp = GRU4Rec(backend=backend)
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, n_items, rng)
    memory = {name: init_state(p, hp.adapt, hp.momentum) for name, p in W.items()}
    for state in memory.values():
        for array in state.values():
            array.fill(0)  # else the system hands out the pages one by one while the clock runs
    return hp, W, memory, rng, network.zero_state(hp, hp.batch_size)


@one_blas_thread
def seconds_per_step(hp, W, memory, rng, state, steps: int) -> float:
    """Mean time of a step; its items are drawn before the clock starts."""
    n_items, B = len(W["b_y"]), hp.batch_size
    x = rng.integers(0, n_items, (steps, B))
    items = rng.integers(0, n_items, (steps, B + hp.n_sample))
    reset, keep = np.zeros(B, bool), np.ones(B, bool)
    began = time.perf_counter()
    for t in range(steps):
        window = network.Window([x[t]], [reset], [keep], [items[t]], [None])
        _, state = network.train_window(W, memory, hp, hp.ops, window, state, rng)
    return (time.perf_counter() - began) / steps


def main() -> None:
    """Print a Markdown table of ratios."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--backend", choices=BACKENDS, default="numpy")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    models = {n: prepare(n, args.backend) for n in CATALOGUES}
    times: dict[int, list[float]] = {n: [] for n in CATALOGUES}
    for _ in range(args.rounds + 1):
        for n, model in models.items():
            times[n].append(seconds_per_step(*model, args.steps))
    print("| items | ms per step, median | ratio | weights and memory, bytes per item |")
    print("|---|---|---|---|")
    base = np.median(times[CATALOGUES[0]][1:])  # the first round warms up
    for n, (_, W, memory, _, _) in models.items():
        median = np.median(times[n][1:])
        tables = [a for a in W.values() if len(a) == n]
        tables += [a for m in memory.values() for a in m.values() if len(a) == n]
        per_item = sum(a.nbytes for a in tables) / n
        print(f"| {n:,} | {1000 * median:.2f} | {median / base:.2f} | {per_item:.0f} |")


if __name__ == "__main__":
    main()
