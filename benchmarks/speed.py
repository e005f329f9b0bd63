"""How fast does training go, next to PyTorch and to the matrix products alone?

Trains the same GRU4Rec on the same batches with each of this package's backends and with
`torch_peer.py`, on one thread and on two, in turns within one run so that all see the same machine:

    python benchmarks/speed.py [--train FILE] [--settings A B C] [--backends numpy]
                               [--steps 200] [--rounds 7]

The floor is what BLAS needs, on one thread, for the matrix products that a step cannot do without,
every operand at hand and the scores on distinct rows. Needs the `bench` extra.
"""

import argparse
import os
import platform
import re
import time
from pathlib import Path

import numpy as np
import threadpoolctl
import torch
from torch_peer import CHUNK, Peer

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, network, read_table
from gru4rec_np.batches import (
    Batches,
    draw_negatives,
    guide_table,
    negative_distribution,
    session_parallel,
)
from gru4rec_np.kernels import BACKENDS, one_blas_thread
from gru4rec_np.optim import init_state

SETTINGS = {
    "A": dict(
        input="onehot", reset_after=False, layers=[100], batch_size=32, loss="cross-entropy",
        n_sample=0, logq=0, dropout_p_embed=0.1,
    ),
    "B": dict(
        input="shared", layers=[100], batch_size=32, loss="cross-entropy", n_sample=2048,
        sample_alpha=0.75, logq=1, dropout_p_embed=0,
    ),
    "C": dict(
        input="shared", layers=[224], batch_size=80, loss="bpr-max", elu_param=0.5, n_sample=2048,
        sample_alpha=0.5, learning_rate=0.05, momentum=0.4, dropout_p_embed=0.5,
        dropout_p_hidden=0.05,
    ),
}  # fmt: skip
THREADS = (1, 2)


class Ours:
    """Training as `GRU4Rec.fit` does it, but over the steps asked for."""

    def __init__(self, model: GRU4Rec, train: Sessions, batches: Batches) -> None:
        self.model, self.batches = model, batches
        self.rng = np.random.default_rng(0)
        self.state = network.zero_state(model, batches.x.shape[1])
        self.negatives = negative_distribution(train.support, model.sample_alpha)
        self.guide = guide_table(self.negatives)
        W = initial_weights(model, train)
        memory = {name: init_state(p, model.adapt, model.momentum) for name, p in W.items()}
        log_support = np.log(train.support).astype(np.float32)
        run = model.ops.stepper and model.ops.stepper(model, W, memory, log_support)
        self.run = run or network.stepper(model, W, memory, model.ops, log_support)

    @one_blas_thread
    def train(self, steps: range) -> float:
        """Train on these steps of the epoch: the sum of their events' losses."""
        total = 0.0
        for first in range(steps.start, steps.stop, CHUNK):
            chunk = range(first, min(first + CHUNK, steps.stop))
            shape = len(chunk), self.model.n_sample
            samples = draw_negatives(self.rng, self.negatives, shape, self.guide)
            losses, self.state = self.run(self.batches, chunk, samples, self.state, self.rng)
            total += losses.sum()
        return total * self.model.batch_size


class Floor:
    """The matrix products of a step: nothing else, and nothing twice.

    Left out is the gradient of the state before the step: it is a constant (bptt = 1).
    """

    @one_blas_thread
    def __init__(self, model: GRU4Rec, rows: int) -> None:
        B, H, N = model.batch_size, model.layers[0], rows
        rng = np.random.default_rng(0)

        def matrix(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        h, U, V, dr = matrix(B, H), matrix(H, 3 * H), matrix(N, H), matrix(B, N)
        if model.reset_after:
            x, W, da = matrix(B, H), matrix(H, 3 * H), matrix(B, 3 * H)
            pairs = [(x, W), (h, U), (x.T, da), (h.T, da), (da, W.T)]
        else:
            U_rz, U_n, da_rz, da_n = matrix(H, 2 * H), matrix(H, H), matrix(B, 2 * H), matrix(B, H)
            pairs = [(h, U_rz), (h, U_n), (da_n, U_n.T), (h.T, da_rz), (h.T, da_n)]
        pairs += [(h, V.T), (dr, V), (dr.T, h)]
        self.products = [faster(a, b) for a, b in pairs]

    @one_blas_thread
    def train(self, steps: range) -> float:
        """The products, once a step; there is no loss."""
        for _ in steps:
            for a, b, out in self.products:
                np.dot(a, b, out=out)
        return np.nan


def faster(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The product a b, or its transpose b' a', whichever BLAS does faster: left, right, out."""
    best = {}
    for left, right in ((a, b), (b.T, a.T)):
        out = np.empty((len(left), right.shape[1]), np.float32)
        times = []
        for _ in range(30):
            began = time.perf_counter()
            np.dot(left, right, out=out)
            times.append(time.perf_counter() - began)
        best[min(times)] = left, right, out
    return best[min(best)]


def initial_weights(model: GRU4Rec, train: Sessions) -> network.Weights:
    return network.init_weights(model, train.n_items, np.random.default_rng(0))


def distinct_rows(model: GRU4Rec, train: Sessions, batches: Batches) -> int:
    """How many different items a step scores, on average over a chunk of steps."""
    rng = np.random.default_rng(0)
    negatives = negative_distribution(train.support, model.sample_alpha)
    samples = draw_negatives(rng, negatives, (CHUNK, model.n_sample))
    steps = zip(batches.y[: len(samples)], samples, strict=False)
    return round(np.mean([len(np.union1d(y, extra)) for y, extra in steps]))


def contenders(setting: str, backends: list[str], train: Sessions) -> tuple[Batches, dict]:
    """The setting's batches; and name to (threads of PyTorch, something to train)."""
    found = {}
    model = GRU4Rec(**SETTINGS[setting], backend="numpy")
    batches = session_parallel(train, model.batch_size)
    for backend in backends:
        try:
            ours = GRU4Rec(**SETTINGS[setting], backend=backend)
            found[f"gru4rec_np, {backend}"] = 1, Ours(ours, train, batches)
        except InputError as error:
            print(f"left out: {error}\n")
    for threads in THREADS:
        peer = Peer(model, initial_weights(model, train), train.support)
        peer.begin(batches)
        found[f"PyTorch, {threads} thread{'s'[: threads > 1]}"] = threads, peer
    found["matrix products"] = 1, Floor(model, distinct_rows(model, train, batches))
    return batches, found


def measure(batches: Batches, found: dict, steps: int, rounds: int) -> tuple[dict, dict]:
    """Seconds per step of each round but the first, and the mean loss of all rounds' events."""
    B = batches.x.shape[1]
    full = int(np.count_nonzero(batches.lanes == B))  # lanes only ever become fewer
    steps = min(steps, full)
    if steps < 1:
        raise SystemExit(f"error: too few sessions for {B} lanes and a step of all of them")
    first = max(0, (full - (rounds + 1) * steps) // 2)
    fit_in = (full - first) // steps  # a longer run begins again
    seconds = {name: [] for name in found}
    losses = {name: [] for name in found}
    for r in range(rounds + 1):
        start = first + r % fit_in * steps
        for name, (threads, contender) in found.items():
            torch.set_num_threads(threads)
            began = time.perf_counter()
            loss = contender.train(range(start, start + steps))
            seconds[name].append((time.perf_counter() - began) / steps)
            losses[name].append(loss / (steps * B))
    return (
        {name: np.array(values[1:]) for name, values in seconds.items()},
        {name: np.mean(values) for name, values in losses.items()},
    )


def table(setting: str, batch_size: int, seconds: dict, losses: dict) -> str:
    """The setting's results as a Markdown table."""
    median = {name: np.median(values) for name, values in seconds.items()}
    peer = min(median[name] for name in median if name.startswith("PyTorch"))
    floor = median["matrix products"]
    lines = [
        f"| {setting} | ms per step (fastest, slowest round) | events per second "
        "| speed, PyTorch = 1 | time, products = 1 | loss per event |",
        "|---|---|---|---|---|---|",
    ]
    for name, s in median.items():
        low, high = 1000 * seconds[name].min(), 1000 * seconds[name].max()
        loss = "" if np.isnan(losses[name]) else f"{losses[name]:.3f}"
        lines.append(
            f"| {name} | {1000 * s:.2f} ({low:.2f}, {high:.2f}) | {batch_size / s:,.0f} "
            f"| {peer / s:.2f} | {s / floor:.1f} | {loss} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What the numbers were taken on."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    blas = {
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture')})"
        for lib in threadpoolctl.threadpool_info()
        if lib["user_api"] == "blas"
    }
    theirs = re.findall(r"oneAPI (Math Kernel Library Version \S+)", torch.__config__.show())
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, NumPy {np.__version__} on {', '.join(sorted(blas))}; "
        f"torch {torch.__version__} on {', '.join(theirs) or 'its own kernels'}"
    )


def main() -> None:
    """Print the machine, the data and a Markdown table for each setting."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    backends = [name for name in BACKENDS if name != "auto"]
    p.add_argument("--backends", nargs="+", choices=backends, default=backends)
    p.add_argument("--steps", type=int, default=200, help="steps of a round")
    p.add_argument("--rounds", type=int, default=7, help="rounds, after one that warms up")
    args = p.parse_args()
    train = read_table(args.train) if args.train else Shop().simulate(20_000)
    train = train.keep_sessions(train.lengths >= 2).compact()
    torch.manual_seed(0)
    print(machine())
    print(f"{train.n_items:,} items, {train.n_events:,} events\n")
    for setting in args.settings:
        batches, found = contenders(setting, args.backends, train)
        results = measure(batches, found, args.steps, args.rounds)
        print(table(setting, batches.x.shape[1], *results), flush=True)
        print()


if __name__ == "__main__":
    main()
