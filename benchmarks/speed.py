"""How fast does training go, next to PyTorch and to the matrix products alone?

Trains the same GRU4Rec on the same batches with each of this package's backends and with both
models of `torch_peer.py`, on one thread and on two, in turns within one run:

    python benchmarks/speed.py [--train FILE] [--settings A B C] [--backends numpy]
                               [--steps 200] [--rounds 7]

The floor is what BLAS needs, on one thread, for the matrix products that a step cannot do without,
every operand at hand and the scores on distinct rows. Needs the `bench` extra.
"""

import argparse
import dataclasses
import time

import numpy as np
import torch
from common import in_turns, machine, name_of
from common import table as markdown
from torch_peer import Peer, PlainPeer

from gru4rec_np import GRU4Rec, InputError, Sessions, Shop, read_table
from gru4rec_np.backends import BACKENDS, one_blas_thread
from gru4rec_np.data.batches import (
    Batches,
    guide_table,
    negative_distribution,
    session_parallel,
)
from gru4rec_np.models import network
from gru4rec_np.models.training import chunk_of
from gru4rec_np.ops.optim import init_state

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
STEPS = {"A": 512, "B": 376, "C": 64}  # of a round: a chunk
THREADS = (1, 2)
WHOLE, EPOCHS = "B", 5  # what is trained from start to end
PEERS = {"PyTorch, plain": PlainPeer, "PyTorch, tuned": Peer}
PRODUCTS = "products alone"


@dataclasses.dataclass
class Result:
    """What was measured in a setting.

    Attributes:
        lanes: events of a step. scored: its distinct scored items, on average.
        seconds: name to the seconds per step of each round.
        losses: name to the mean loss per event; NaN for the products.
    """

    lanes: int
    scored: int
    seconds: dict[str, np.ndarray]
    losses: dict[str, float]

    @property
    def fastest(self) -> dict[str, float]:
        """Name to the seconds per step of its fastest round: the least disturbed one."""
        return {name: float(s.min()) for name, s in self.seconds.items()}


class Ours:
    """Training as `GRU4Rec.fit` does it, but over the steps asked for."""

    def __init__(
        self, model: GRU4Rec, weights: network.Weights, train: Sessions, batches: Batches
    ) -> None:
        self.model, self.batches = model, batches
        self.rng = np.random.default_rng(0)
        self.state = network.zero_state(model, batches.x.shape[1])
        self.negatives = negative_distribution(train.support, model.sample_alpha)
        self.guide = guide_table(self.negatives)
        memory = {n: init_state(p, model.adapt, model.momentum) for n, p in weights.items()}
        log_support = np.log(train.support).astype(np.float32)
        run = model.ops.stepper and model.ops.stepper(model, weights, memory, log_support)
        self.run = run or network.stepper(model, weights, memory, model.ops, log_support)

    @one_blas_thread
    def train(self, steps: range) -> float:
        """Train on these steps of the epoch: the sum of their events' losses."""
        total = 0.0
        size = chunk_of(self.model, self.model.ops)
        for first in range(steps.start, steps.stop, size):
            chunk = range(first, min(first + size, steps.stop))
            shape = len(chunk), self.model.n_sample
            samples = self.model.ops.draw_negatives(self.rng, self.negatives, shape, self.guide)
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
        self.flops = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in pairs)

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


def distinct_rows(model: GRU4Rec, train: Sessions, batches: Batches) -> int:
    """How many different items a step scores, on average over 64 steps."""
    rng = np.random.default_rng(0)
    negatives = negative_distribution(train.support, model.sample_alpha)
    samples = model.ops.draw_negatives(rng, negatives, (64, model.n_sample))
    steps = zip(batches.y[: len(samples)], samples, strict=False)
    return round(np.mean([len(np.union1d(y, extra)) for y, extra in steps]))


def prepare(
    setting: str, backends: list[str], train: Sessions, weights: network.Weights | None = None
) -> tuple[Batches, dict, int]:
    """The setting's batches; name to (threads, something to train); the distinct scored items."""
    found = {}
    model = GRU4Rec(**SETTINGS[setting], backend="numpy")
    batches = session_parallel(train, model.batch_size)
    if weights is None:
        weights = network.init_weights(model, train.n_items, np.random.default_rng(0))
    for backend in backends:
        for n in THREADS if backend == "numba" else (1,):
            try:
                ours = GRU4Rec(**SETTINGS[setting], backend=backend)
            except InputError as error:
                print(f"left out: {error}\n")
                break
            own = {name: array.copy() for name, array in weights.items()}
            found[name_of(backend, n)] = n, Ours(ours, own, train, batches)
    for name, peer_of in PEERS.items():
        for n in THREADS:
            peer = peer_of(model, weights, train.support)
            peer.begin(batches)
            found[name_of(name, n)] = n, peer
    scored = distinct_rows(model, train, batches)
    found[PRODUCTS] = 1, Floor(model, scored)
    return batches, found, scored


def measure(
    setting: str,
    backends: list[str],
    train: Sessions,
    rounds: int,
    steps: int | None = None,
    weights: network.Weights | None = None,
) -> Result:
    """Train all contenders on the same steps of a setting, in turns."""
    batches, found, scored = prepare(setting, backends, train, weights)
    B = batches.x.shape[1]
    full = int(np.count_nonzero(batches.lanes == B))  # lanes only ever become fewer
    steps = min(steps or STEPS[setting], full)
    if steps < 1:
        raise SystemExit(f"error: too few sessions for {B} lanes and a step of all of them")
    first = max(0, (full - (rounds + 1) * steps) // 2)
    fit_in = (full - first) // steps  # a longer run begins again

    def trains(contender):
        def call(r: int) -> float:
            start = first + r % fit_in * steps
            return contender.train(range(start, start + steps)) / (steps * B)

        return call

    seconds, losses = in_turns({name: (n, trains(c)) for name, (n, c) in found.items()}, rounds)
    return Result(
        lanes=B,
        scored=scored,
        seconds={name: s / steps for name, s in seconds.items()},
        losses={name: float(np.mean(values)) for name, values in losses.items()},
    )


def table(setting: str, result: Result) -> str:
    """The setting's results as a Markdown table."""
    fastest = result.fastest
    plain, tuned = (min(fastest[name_of(name, n)] for n in THREADS) for name in PEERS)
    rows = []
    for name, s in fastest.items():
        median, loss = 1000 * np.median(result.seconds[name]), result.losses[name]
        rows.append([
            name, f"{1000 * s:.2f} ({median:.2f})", f"{result.lanes / s:,.0f}", f"{plain / s:.2f}",
            f"{tuned / s:.2f}", f"{s / fastest[PRODUCTS]:.2f}",
            "" if np.isnan(loss) else f"{loss:.3f}",
        ])  # fmt: skip
    head = [
        f"{setting}: {result.scored:,} items scored", "ms per step, fastest round (median)",
        "events per second", "speed, plain PyTorch = 1", "speed, tuned PyTorch = 1",
        "time, products = 1", "loss per event",
    ]  # fmt: skip
    return markdown(head, rows)


def whole_runs(train: Sessions, backends: list[str], rounds: int) -> str:
    """EPOCHS epochs of WHOLE by `GRU4Rec.fit`, start to end, as a Markdown table.

    Beside the steps that is laying out batches and finding out how many threads go fastest.
    """

    def fits(backend: str):
        settings = SETTINGS[WHOLE] | {"n_epochs": EPOCHS}
        return lambda r: GRU4Rec(**settings, backend=backend).fit(train).history[-1]["loss"]

    seconds, losses = in_turns({name: (THREADS[-1], fits(name)) for name in backends}, rounds)
    fastest = {name: s.min() for name, s in seconds.items()}
    rows = [
        [name, f"{s:.1f}", f"{max(fastest.values()) / s:.1f}", f"{losses[name][0]:.3f}"]
        for name, s in fastest.items()
    ]
    head = [f"{EPOCHS} epochs of {WHOLE}", "seconds", "speed, slowest = 1", "last epoch's loss"]
    return markdown(head, rows)


def training_log(path: str | None) -> Sessions:
    """The log to train on: a table of sessions, or the simulated shop."""
    train = read_table(path) if path else Shop().simulate(20_000)
    return train.keep_sessions(train.lengths >= 2).compact()


def main() -> None:
    """Print the machine, the data and a Markdown table for each setting."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    p.add_argument("--backends", nargs="+", choices=BACKENDS, default=["numpy", "numba"])
    p.add_argument("--steps", type=int, help=f"steps of a round, by default {STEPS}")
    p.add_argument("--rounds", type=int, default=7, help="rounds, after one that warms up")
    args = p.parse_args()
    train = training_log(args.train)
    torch.manual_seed(0)
    print(machine())
    print(f"{train.n_items:,} items, {train.n_events:,} events\n")
    for setting in args.settings:
        result = measure(setting, args.backends, train, args.rounds, args.steps)
        print(table(setting, result), flush=True)
        print()


if __name__ == "__main__":
    main()
