"""What does a training step cost a GPU: how many launches, and how many bytes of its memory?

Runs a few steps of speed.py's settings with the CUDA kernels on the emulator, which counts the
32-byte sectors that each warp asks for, and sets them beside the bytes that must move:

    python benchmarks/cuda_step.py [--train FILE] [--settings A B C] [--steps 1] [--write FILE]
    python benchmarks/cuda_step.py --gpu [--train FILE] [--settings A B C] [--rounds 7]

The first needs no GPU. The second needs one, CuPy, and a PyTorch that sees it: it times steps next
to Numba and to both models of `torch_peer.py` on the same GPU. Needs the `bench` extra.

Must move: each row that a step uses, of tables, dense weights and the optimiser's memory, once in
and once out, and the batch's items. What a kernel hands to the next is none of that.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import speed
import torch
from common import device, in_turns, item_weights, machine, put, table
from cuda_ladder import REPEAT, launches_of, microseconds

from gru4rec_np import GRU4Rec, Sessions
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.backends.cuda.steps import DeviceSteps
from gru4rec_np.backends.emulator import Module, Report, Traffic
from gru4rec_np.data.batches import draw_negatives, negative_distribution, session_parallel
from gru4rec_np.files import write_text
from gru4rec_np.models import network
from gru4rec_np.ops.optim import init_state

SECTOR = 32  # bytes
STEPS = 256  # of a round on a GPU
PLACE, HEADING = "cuda_step", "## CUDA: launches and bytes of a step"


class Profiled:
    """A module whose launches are counted: to be passed to CudaOps in place of `Module`."""

    def __init__(self, path: Path, options: tuple[str, ...], reports: list[Report]) -> None:
        self.module, self.reports = Module(path, options, checks=True), reports

    def get_function(self, name: str) -> Callable:
        """The kernel, which puts a report of each launch into the list."""
        kernel = self.module.get_function(name)

        def launch(grid: tuple, block: tuple, args: tuple, shared_mem: int) -> None:
            self.reports.append(kernel(grid, block, args, shared_mem, profile=True))

        return launch


def profile(
    setting: str, train: Sessions, n: int
) -> tuple[list[Report], GRU4Rec, network.Weights, list[Counter]]:
    """Train n steps from the middle of an epoch.

    Returns:
        a report of each launch, the model, its weights, and for each step how many distinct items
        it "scored", "used" (scored or fed) and was "fed".
    """
    reports: list[Report] = []
    ops = cuda.CudaOps(
        "cuda-emulated", "to count", np, lambda *what: Profiled(*what, reports), lambda f: f
    )
    hp = GRU4Rec(**speed.SETTINGS[setting], backend="numpy")
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, train.n_items, rng)
    memory = {name: init_state(p, hp.adapt, hp.momentum) for name, p in W.items()}
    batches = session_parallel(train, hp.batch_size)
    full = int(np.count_nonzero(batches.lanes == hp.batch_size))
    if full < n:
        raise SystemExit(f"error: too few sessions for {n} steps of {hp.batch_size} lanes")
    steps = range((full - n) // 2, (full - n) // 2 + n)
    negatives = negative_distribution(train.support, hp.sample_alpha)
    samples = draw_negatives(rng, negatives, (n, hp.n_sample))
    run = ops.stepper(hp, W, memory, np.log(train.support))
    run(batches, steps, samples, network.zero_state(hp, hp.batch_size), rng)
    counts = []
    for t, extra in zip(steps, samples, strict=True):
        fed, scored = np.unique(batches.x[t]), np.union1d(batches.y[t], extra)
        used = np.union1d(fed, scored)
        counts.append(Counter(fed=len(fed), scored=len(scored), used=len(used)))
    return reports, hp, W, counts


def must_move(hp: GRU4Rec, W: network.Weights, n: Counter) -> int:
    """Bytes that a step cannot but read or write: of what stays from step to step, and its items.

    Args:
        n: distinct items, by what they are used for.
    """
    rows = {"V_y": n["used" if hp.input == "shared" else "scored"], "b_y": n["scored"]}
    rows |= {"W_x": n["fed"], "E": n["fed"]}
    tables = item_weights(hp)
    numbers = sum(p[0].size * rows[name] if name in tables else p.size for name, p in W.items())
    kinds = 1 + (hp.adapt == "adagrad") + (hp.momentum > 0)
    supports = n["scored"] if hp.logq and hp.loss == "cross-entropy" else 0
    items = 2 * hp.batch_size + hp.n_sample
    return 4 * (2 * kinds * numbers + supports + items)


def traffic(report: Report) -> Traffic:
    """A launch's accesses to global memory."""
    total = Traffic()
    for sort in ("loads", "stores", "atomics"):
        total.add(report.total(sort))
    return total


def count(setting: str, train: Sessions, n: int) -> str:
    """A Markdown table of the kernels of a step, on average over n steps."""
    reports, hp, W, counts = profile(setting, train, n)
    launches: Counter = Counter()
    moved: dict[str, Traffic] = {}
    for report in reports:
        launches[report.kernel] += 1
        moved.setdefault(report.kernel, Traffic()).add(traffic(report))
    total = Traffic()
    for of in moved.values():
        total.add(of)
    once = "1 for a chunk"  # of steps, as GRU4Rec.fit calls it; here, once for the n

    def row(name: str, times: str | int, of: Traffic) -> list:
        size = of.sectors * SECTOR / n / 1e6
        return [name, times, f"{of.sectors / n:,.0f}", f"{of.ideal / n:,.0f}", f"{size:.3f}"]

    rows = [
        row(f"`{name}`", once if name == "collect" else launches[name] // n, of)
        for name, of in moved.items()
    ]
    per_step = sum(times for name, times in launches.items() if name != "collect") // n
    rows.append(row("all", per_step, total))
    least = sum(must_move(hp, W, of) for of in counts) / n
    rows.append(["must move", "", "", f"{least / SECTOR:,.0f}", f"{least / 1e6:.3f}"])
    used = sum(counts, Counter())["used"] / n
    ratio = total.sectors * SECTOR / n / least
    head = [
        f"{setting}: {used:,.0f} distinct items", "launches", "sectors asked for", "ideal", "MB",
    ]  # fmt: skip
    return f"{table(head, rows)}\n\n{setting} asks for {ratio:.1f} times what must move."


def time_steps(setting: str, train: Sessions, rounds: int) -> str:
    """A Markdown table of ms per step on the GPU, with a call of `train` for STEPS steps.

    Each call ends with the losses on the host, so the device has finished.
    """
    hp = GRU4Rec(**speed.SETTINGS[setting], backend="cuda")
    batches = session_parallel(train, hp.batch_size)
    full = int(np.count_nonzero(batches.lanes == hp.batch_size))
    steps = range(min(STEPS, full))
    W = network.init_weights(hp, train.n_items, np.random.default_rng(0))
    own = {name: array.copy() for name, array in W.items()}
    contenders: dict[str, Any] = {"cuda": speed.Ours(hp, own, train, batches)}
    if find_spec("numba"):
        numba = GRU4Rec(**speed.SETTINGS[setting], backend="numba")
        own = {name: array.copy() for name, array in W.items()}
        contenders["numba"] = speed.Ours(numba, own, train, batches)
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        for name, peer in speed.PEERS.items():
            contenders[name] = peer(hp, W, train.support)
            contenders[name].begin(batches)
    calls = {
        speed.name_of(name, 2) if name == "numba" else name: (2, lambda r, c=c: c.train(steps))
        for name, c in contenders.items()
    }
    seconds, _ = in_turns(calls, rounds)
    rows = []
    for name, of in seconds.items():
        fastest, median = of.min() / len(steps), np.median(of) / len(steps)
        rows.append([
            name, f"{1000 * fastest:.3f} ({1000 * median:.3f})", f"{hp.batch_size / fastest:,.0f}",
            f"{seconds['cuda'].min() / of.min():.2f}",
        ])  # fmt: skip
    head = [setting, "ms per step, fastest round (median)", "events per second", "speed, cuda = 1"]
    return f"{table(head, rows)}\n\n{time_kernels(setting, contenders['cuda'].run, rounds)}"


def time_kernels(setting: str, run: DeviceSteps, rounds: int) -> str:
    """A Markdown table of us of each kernel of a step, of a stepper that has trained."""
    run.send_now(0)
    found = launches_of(run.ops, run.launch_step)
    (_, begin), *_ = found
    repeat = min(REPEAT, run.room // rounds - 1)  # end_step counts on, up to the end of the chunk
    rows = []
    for name, launch in found:
        run.send_now(0)
        begin()
        rows.append([f"`{name}`", f"{microseconds(run.ops, [launch], rounds, repeat):.1f}"])
    rows.append(["all", f"{sum(float(us) for _, us in rows):.1f}"])
    return table([f"{setting}: kernel", "us"], rows)


def main() -> None:
    """Print a Markdown table for each setting."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--settings", nargs="+", choices=speed.SETTINGS, default=list(speed.SETTINGS))
    p.add_argument("--steps", type=int, default=1, help="steps to count")
    p.add_argument("--gpu", action="store_true", help="time steps on a GPU instead")
    p.add_argument("--rounds", type=int, default=7, help="of the timing, after one to warm up")
    p.add_argument("--write", metavar="FILE", help="put the tables into this document")
    args = p.parse_args()
    if args.gpu and (problem := cuda.gpu_problem()):
        raise SystemExit(f"error: --gpu {problem}")
    train = speed.training_log(args.train)
    log = f"{Path(args.train).parent.name if args.train else 'The simulated shop'}"
    parts = [f"{log}: {train.n_items:,} items, {train.n_events:,} events."]
    if args.gpu:
        parts[0] = f"{device()}; {machine()}. {parts[0]}"
    print(parts[0], flush=True)
    for setting in args.settings:
        one = time_steps if args.gpu else count
        parts.append(one(setting, train, args.rounds if args.gpu else args.steps))
        print(f"\n{parts[-1]}", flush=True)
    if args.gpu:
        parts.append(speed.whole_runs(train, ["numba", "cuda"], 2))
        print(f"\n{parts[-1]}")
    if args.write:
        text = Path(args.write).read_text(encoding="utf-8")
        place, heading = (f"{PLACE}_gpu", f"{HEADING}, timed") if args.gpu else (PLACE, HEADING)
        write_text(args.write, put(text, place, "\n\n".join(parts), heading))


if __name__ == "__main__":
    main()
