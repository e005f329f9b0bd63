"""How fast does training go, next to PyTorch and to the matrix products alone?

Trains the same GRU4Rec on the same batches with each backend and with both models of
`torch_peer.py`, on one thread and on two, in turns. Needs the `bench` extra.

The floor is the matrix products that a step cannot do without, by BLAS on one thread, with every
operand at hand and the scores on distinct rows.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import roofline
import torch
from common import device, in_turns, machine, milliseconds, name_of, table
from settings import SETTINGS
from torch_peer import Peer, PlainPeer

from gru4rec_np import GRU4Rec, InputError, Sessions
from gru4rec_np.backends import Ops, load, one_blas_thread
from gru4rec_np.data.batches import Batches, guide_table, negative_distribution, session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.training import chunk_of
from gru4rec_np.ops.optim import init_memory

STEPS = {"A": 512, "B": 376, "C": 64}  # of a round: a chunk
WHOLE, EPOCHS = "B", 5  # what is trained from start to end
PEERS = {"PyTorch, plain": PlainPeer, "PyTorch, tuned": Peer}
STATIC_PEERS = {
    "PyTorch, compiled": partial(Peer, compiled=True),
    "PyTorch, graph": partial(Peer, graph=True),
    "PyTorch, compiled, graph": partial(Peer, compiled=True, graph=True),
}
PEER_STEPS = 256  # of a round of `peers`
SAME = 0.05  # how far the losses may be apart: each model draws its own negatives
PRODUCTS, FASTEST = "products alone", "the fastest PyTorch"


@dataclasses.dataclass
class Result:
    """What was measured in a setting.

    Attributes:
        scored: distinct scored items of a step, on average.
        flops: of its matrix products.
        seconds: name to the seconds per step of each round.
        losses: name to the mean loss per event; NaN for the products.
    """

    hp: Hyperparameters
    scored: int
    flops: int
    seconds: dict[str, np.ndarray]
    losses: dict[str, float]

    @property
    def fastest(self) -> dict[str, float]:
        """Name to the seconds per step of its fastest round: the least disturbed one."""
        return {name: float(s.min()) for name, s in self.seconds.items()}


class Ours:
    """Training as `GRU4Rec.fit` does it, but over the steps asked for; W changes in place."""

    def __init__(
        self, hp: Hyperparameters, ops: Ops, W: network.Weights, train: Sessions, batches: Batches
    ) -> None:
        self.hp, self.ops, self.batches = hp, ops, batches
        self.rng = np.random.default_rng(0)
        self.state = network.zero_state(hp, hp.batch_size)
        self.negatives = negative_distribution(train.support, hp.sample_alpha)
        self.guide = guide_table(self.negatives)
        memory = {name: init_memory(p, hp.adapt, hp.momentum) for name, p in W.items()}
        log_support = np.log(train.support).astype(np.float32)
        self.run = ops.stepper(hp, W, memory, log_support)
        self.run = self.run or network.StepByStep(hp, W, memory, ops, log_support)

    @one_blas_thread
    def train(self, steps: range) -> float:
        """Train on these steps of the epoch: the sum of their events' losses."""
        total, size = 0.0, chunk_of(self.hp, self.ops)
        for first in range(steps.start, steps.stop, size):
            chunk = range(first, min(first + size, steps.stop))
            shape = len(chunk), self.hp.n_sample
            samples = self.run.draw_negatives(self.rng, self.negatives, shape, self.guide)
            losses, self.state = self.run(self.batches, chunk, samples, self.state, self.rng)
            total += losses.sum()
        return total * self.hp.batch_size


class Floor:
    """The matrix products of a step, each once.

    Without the gradient of the state before the step, which is a constant (bptt = 1).
    """

    @one_blas_thread
    def __init__(self, hp: Hyperparameters, rows: int) -> None:
        B, H, N = hp.batch_size, hp.layers[0], rows
        rng = np.random.default_rng(0)

        def matrix(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        h, U, V, dr = matrix(B, H), matrix(H, 3 * H), matrix(N, H), matrix(B, N)
        if hp.reset_after:
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


def contenders_of(
    setting: str,
    backends: list[str],
    train: Sessions,
    thread_counts: Sequence[int],
    peers: dict[str, Callable[..., Peer]] = PEERS,
) -> tuple[Hyperparameters, Batches, dict[str, tuple[int, Ours | Peer]]]:
    """The setting, its batches, and name to (threads, something to train from the same weights)."""
    hp = Hyperparameters(**SETTINGS[setting])
    batches = session_parallel(train, hp.batch_size)
    W = network.init_weights(hp, train.n_items, np.random.default_rng(0))
    found = {}
    for backend in backends:
        for n in thread_counts if backend == "numba" else (1,):
            try:
                copy = {weight: array.copy() for weight, array in W.items()}
                found[name_of(backend, n)] = n, Ours(hp, load(backend), copy, train, batches)
            except InputError as error:
                print(f"left out: {error}\n")
                break
    for name, peer_of in peers.items():
        for n in thread_counts:
            found[name_of(name, n)] = n, peer_of(hp, W, train.support)
            found[name_of(name, n)][1].begin(batches)
    return hp, batches, found


def full_steps(hp: Hyperparameters, batches: Batches) -> int:
    """How many steps of an epoch have all lanes; lanes only ever become fewer."""
    full = int(np.count_nonzero(batches.lanes == hp.batch_size))
    if full < 1:
        raise SystemExit(f"error: too few sessions for a step of {hp.batch_size} lanes")
    return full


def train_in_turns(
    hp: Hyperparameters,
    batches: Batches,
    contenders: dict[str, tuple[int, Ours | Peer | Floor]],
    most: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train all on the same steps from the middle of an epoch, at most `most` a round, in turns.

    Returns:
        name to the seconds per step of each round, and name to the mean loss per event.
    """
    full = full_steps(hp, batches)
    steps = min(most, full)
    first = max(0, (full - (rounds + 1) * steps) // 2)
    fit_in = (full - first) // steps  # a longer run begins again

    def trains(contender):
        def call(r: int) -> float:
            start = first + r % fit_in * steps
            return contender.train(range(start, start + steps)) / (steps * hp.batch_size)

        return call

    calls = {name: (n, trains(contender)) for name, (n, contender) in contenders.items()}
    seconds, losses = in_turns(calls, rounds, clock)
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    return {name: s / steps for name, s in seconds.items()}, means


def measure(setting: str, args: argparse.Namespace) -> Result:
    """Train all contenders on the same steps of a setting, in turns."""
    hp, batches, found = contenders_of(setting, args.backends, args.train, args.threads)
    negatives = negative_distribution(args.train.support, hp.sample_alpha)
    samples = Ops().draw_negatives(np.random.default_rng(0), negatives, (64, hp.n_sample))
    items = zip(batches.y[:64], samples, strict=False)
    scored = round(np.mean([len(np.union1d(y, extra)) for y, extra in items]))
    floor = Floor(hp, scored)
    found[PRODUCTS] = 1, floor
    timed = train_in_turns(hp, batches, found, STEPS[setting], args.rounds)
    return Result(hp, scored, floor.flops, *timed)


def result_table(setting: str, result: Result, thread_counts: Sequence[int]) -> str:
    """The setting's results as a Markdown table."""
    fastest = result.fastest
    plain, tuned = (min(fastest[name_of(name, n)] for n in thread_counts) for name in PEERS)
    rows = []
    for name, s in fastest.items():
        loss = result.losses[name]
        rows.append([
            name, milliseconds(result.seconds[name]), f"{result.hp.batch_size / s:,.0f}",
            f"{plain / s:.2f}", f"{tuned / s:.2f}", f"{s / fastest[PRODUCTS]:.2f}",
            "" if np.isnan(loss) else f"{loss:.3f}",
        ])  # fmt: skip
    head = [
        f"{setting}: {result.scored:,} items scored", "ms per step, fastest round (median)",
        "events per second", "speed, plain PyTorch = 1", "speed, tuned PyTorch = 1",
        "time, products = 1", "loss per event",
    ]  # fmt: skip
    return table(head, rows)


def training(args: argparse.Namespace) -> dict[str, str]:
    """A table for each setting, and from the same run the roofline."""
    torch.manual_seed(0)
    results = {setting: measure(setting, args) for setting in args.settings}
    tables = [result_table(name, result, args.threads) for name, result in results.items()]
    path = args.docs and args.docs / "roofline.png"
    roofs = roofline.measure(results, args.rounds, path)
    return {"training": "\n\n".join(tables), "roofline": roofs}


def fit(args: argparse.Namespace) -> dict[str, str]:
    """EPOCHS epochs of WHOLE by `GRU4Rec.fit`, from start to end."""
    rounds, settings = min(2, args.rounds), SETTINGS[WHOLE] | {"n_epochs": EPOCHS}

    def fits(backend: str):
        model = GRU4Rec.published(**settings, backend=backend)
        return lambda r: model.fit(args.train, verbose=False).history[-1]["loss"]

    calls = {backend: (args.threads[-1], fits(backend)) for backend in args.backends}
    seconds, losses = in_turns(calls, rounds)
    fastest = {name: s.min() for name, s in seconds.items()}
    rows = [
        [name, f"{s:.1f}", f"{max(fastest.values()) / s:.1f}", f"{losses[name][0]:.3f}"]
        for name, s in fastest.items()
    ]
    head = [f"{EPOCHS} epochs of {WHOLE}", "seconds", "speed, slowest = 1", "last epoch's loss"]
    return {"fit": table(head, rows)}


def peers(args: argparse.Namespace) -> dict[str, str]:
    """This package beside every PyTorch model: on a GPU if PyTorch sees one, else on one thread.

    On a GPU each call ends with the losses on the host, so the device has finished. On a CPU the
    times are CPU seconds, and graphs are left out.
    """
    gpu = torch.cuda.is_available()
    about = machine()
    if gpu:
        torch.set_default_device("cuda")
        about = f"{device()}; {about}"
    ours, clock = ("cuda", time.perf_counter) if gpu else ("numba", time.process_time)
    models = PEERS | {name: p for name, p in STATIC_PEERS.items() if gpu or "graph" not in name}
    rows, head = {name: [name] for name in (ours, *models, FASTEST)}, [args.log]
    for setting in args.settings:
        hp, batches, found = contenders_of(setting, [ours], args.train, (1,), models)
        found = {name.rpartition(", ")[0]: contender for name, contender in found.items()}
        seconds, losses = train_in_turns(hp, batches, found, PEER_STEPS, args.rounds, clock)
        wrong = [name for name, loss in losses.items() if not abs(loss / losses[ours] - 1) < SAME]
        if wrong:
            raise SystemExit(f"error: {setting}: not {ours}'s loss: {', '.join(wrong)}: {losses}")
        seconds[FASTEST] = min((seconds[name] for name in models), key=np.min)
        for name, of in seconds.items():
            rows[name] += [milliseconds(of, 3), f"{of.min() / seconds[ours].min():.2f}"]
        head += [f"{setting}, ms per step, fastest round (median)", f"{setting}, time, {ours} = 1"]
    return {"peers_gpu" if gpu else "peers": f"{about}.\n\n{table(head, list(rows.values()))}"}
