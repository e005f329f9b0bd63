"""What does a training step cost a GPU: launches, bytes of its memory, time?

`cuda_step` needs no GPU. It runs a step of the settings on the emulator, which counts the
32-byte sectors that each warp asks for. Beside them stand the bytes that must move: each row that a
step uses, of tables, dense weights and optimiser memory, once in and once out, and the batch's
items. What a kernel hands to the next is not part of that.

`cuda_step_gpu` needs a GPU, CuPy, and a PyTorch that sees it. It times steps next to Numba and to
both models of `torch_peer.py` on the same GPU. Both need the `bench` extra.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import speed
import torch
from common import device, in_turns, item_weights, machine, table
from cuda_ladder import REPEAT, launches_of, microseconds

from gru4rec_np import Sessions
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.backends.cuda.steps import DeviceSteps
from gru4rec_np.backends.emulator import Module, Report, Traffic
from gru4rec_np.data.batches import draw_negatives, negative_distribution, session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.ops.optim import init_state

SECTOR = 32  # bytes
STEPS = 256  # of a round on a GPU
DEFAULTS = "the defaults"  # a setting that the PyTorch models do not have


class Profiled:
    """A module whose launches are counted: for CudaOps in place of `Module`."""

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
) -> tuple[list[Report], Hyperparameters, network.Weights, list[Counter]]:
    """Train n steps from the middle of an epoch.

    Returns:
        a report of each launch, the hyperparameters, the weights, and for each step how many
        distinct items it "scored", "used" (scored or fed) and was "fed".
    """
    reports: list[Report] = []
    ops = cuda.CudaOps(
        "cuda-emulated", "to count", np, lambda *what: Profiled(*what, reports), lambda f: f
    )
    hp = Hyperparameters(**speed.SETTINGS[setting])
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


def must_move(hp: Hyperparameters, W: network.Weights, n: Counter) -> int:
    """Bytes that a step must read or write: of what lasts from step to step, and its items.

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


def traffic(reports: list[Report]) -> Traffic:
    """The accesses of launches to global memory."""
    total = Traffic()
    for report in reports:
        for sort in ("loads", "stores", "atomics"):
            total.add(report.total(sort))
    return total


def cuda_step(args: argparse.Namespace) -> dict[str, str]:
    """For each setting, what a step asks for beside what must move."""
    rows = []
    for setting in args.settings:
        reports, hp, W, (used,) = profile(setting, args.train, 1)
        of = {r.kernel: traffic([s for s in reports if s.kernel == r.kernel]) for r in reports}
        asked, least = traffic(reports), must_move(hp, W, used)
        largest = max(of, key=lambda kernel: of[kernel].sectors)
        rows.append([
            setting, f"{used['used']:,}", sum(report.kernel != "collect" for report in reports),
            f"{asked.sectors:,}", f"{asked.ideal:,}", f"{asked.sectors * SECTOR / 1e6:.3f}",
            f"{least / 1e6:.3f}", f"{asked.sectors * SECTOR / least:.1f}",
            f"`{largest}`, {100 * of[largest].sectors / asked.sectors:.0f} %",
        ])  # fmt: skip
    head = ["setting", "distinct items", "launches", "sectors asked for", "ideal", "MB",
            "MB that must move", "ratio", "most by"]  # fmt: skip
    return {"cuda_step": f"{args.log}.\n\n{table(head, rows)}"}


def time_kernels(run: DeviceSteps, rounds: int) -> dict[str, float]:
    """The us of each kernel of a step, of a stepper that has trained."""
    run.send_now(0)
    launches = launches_of(run.ops, run.launch_step)
    (_, begin), *_ = launches
    repeat = min(REPEAT, run.room // rounds - 1)  # end_step counts on, up to the end of the chunk
    found = {}
    for name, launch in launches:
        run.send_now(0)
        begin()
        found[f"`{name}`"] = microseconds(run.ops, [launch], rounds, repeat)
    return found | {"all": sum(found.values())}


def cuda_step_gpu(args: argparse.Namespace) -> dict[str, str]:
    """For each setting, ms per step; the kernels of a step; and whole trainings.

    Each call of `train` ends with the losses on the host, so the device has finished.
    """
    if problem := cuda.gpu_problem():
        raise SystemExit(f"error: this {problem}")
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
    parts, kernels = [f"{device()}; {machine()}. {args.log}."], {}
    speed.SETTINGS[DEFAULTS] = {}
    for setting in [*args.settings, DEFAULTS]:
        hp, batches, found = speed.contenders_of(
            setting, ["cuda", "numba"], args.train, (2,), {} if setting == DEFAULTS else speed.PEERS
        )
        steps = range(min(STEPS, int(np.count_nonzero(batches.lanes == hp.batch_size))))
        calls = {
            name if "numba" in name else name.rpartition(", ")[0]: (
                2, lambda r, train=contender.train, steps=steps: train(steps))
            for name, (_, contender) in found.items()
            if torch.cuda.is_available() or "PyTorch" not in name
        }  # fmt: skip
        seconds, _ = in_turns(calls, args.rounds)
        rows = []
        for name, of in seconds.items():
            fastest, median = of.min() / len(steps), np.median(of) / len(steps)
            rows.append([
                name, f"{1000 * fastest:.3f} ({1000 * median:.3f})",
                f"{hp.batch_size / fastest:,.0f}", f"{seconds['cuda'].min() / of.min():.2f}",
            ])  # fmt: skip
        head = ["ms per step, fastest round (median)", "events per second", "speed, cuda = 1"]
        parts.append(table([setting, *head], rows))
        kernels[setting] = time_kernels(found["cuda, 1 thread"][1].run, args.rounds)
    names = dict.fromkeys(name for of in kernels.values() for name in of if name != "all")
    rows = [
        [name, *(f"{of[name]:.1f}" if name in of else "" for of in kernels.values())]
        for name in [*names, "all"]
    ]
    parts.append(table(["µs of each kernel", *kernels], rows))
    args.backends, args.threads = ["numba", "cuda"], [2]
    return {"cuda_step_gpu": "\n\n".join([*parts, speed.fit(args)["fit"]])}
