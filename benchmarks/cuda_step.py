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
from types import SimpleNamespace

import numpy as np
import speed
import torch
from common import bytes_of_rows, device, machine, milliseconds, name_of, table
from cuda_ladder import REPEAT, launches_of, microseconds

from gru4rec_np import Sessions
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.backends.cuda.steps import DeviceSteps
from gru4rec_np.backends.emulator import Module, Report, Traffic
from gru4rec_np.data.batches import draw_negatives, session_parallel
from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters

SECTOR = 32  # bytes
STEPS = 256  # of a round on a GPU
DEFAULTS = "the defaults"  # a setting that the PyTorch models do not have
OURS = name_of("cuda", 1)


def profile(
    setting: str, train: Sessions
) -> tuple[list[Report], Hyperparameters, network.Weights, Counter]:
    """Train a step in the middle of an epoch.

    Returns:
        a report of each launch, the hyperparameters, the weights, and how many distinct items the
        step "scored", "used" (scored or fed) and was "fed".
    """
    reports: list[Report] = []

    def load(path: Path, options: tuple[str, ...]) -> SimpleNamespace:
        """A module for CudaOps that puts a report of each launch into the list."""
        module = Module(path, options, checks=True)

        def get_function(name: str) -> Callable:
            kernel = module.get_function(name)
            return lambda *what, **how: reports.append(kernel(*what, **how, profile=True))

        return SimpleNamespace(get_function=get_function)

    ops = cuda.CudaOps("cuda-emulated", "to count", np, load, lambda f: f)
    hp = Hyperparameters(**speed.SETTINGS[setting])
    rng = np.random.default_rng(0)
    W = network.init_weights(hp, train.n_items, rng)
    batches = session_parallel(train, hp.batch_size)
    ours = speed.Ours(hp, ops, W, train, batches)
    t = (speed.full_steps(hp, batches) - 1) // 2
    samples = draw_negatives(rng, ours.negatives, (1, hp.n_sample))
    ours.run(batches, range(t, t + 1), samples, ours.state, rng)
    fed, scored = np.unique(batches.x[t]), np.union1d(batches.y[t], samples)
    used = np.union1d(fed, scored)
    return reports, hp, W, Counter(fed=len(fed), scored=len(scored), used=len(used))


def must_move(hp: Hyperparameters, W: network.Weights, n: Counter) -> int:
    """Bytes that a step must read or write: of what lasts from step to step, and its items.

    Args:
        n: distinct items, by what they are used for.
    """
    rows = {"V_y": n["used" if hp.input == "shared" else "scored"], "b_y": n["scored"]}
    rows |= {"W_x": n["fed"], "E": n["fed"]}
    supports = n["scored"] if hp.logq and hp.loss == "cross-entropy" else 0
    items = 2 * hp.batch_size + hp.n_sample
    return bytes_of_rows(hp, W, rows) + 4 * (supports + items)


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
        reports, hp, W, used = profile(setting, args.train)
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
        peers = speed.PEERS if torch.cuda.is_available() and setting != DEFAULTS else {}
        hp, batches, found = speed.contenders_of(
            setting, ["cuda", "numba"], args.train, (2,), peers
        )
        seconds, _ = speed.train_in_turns(hp, batches, found, STEPS, args.rounds)
        rows = [
            [name if "numba" in name else name.rpartition(", ")[0], milliseconds(of, 3),
             f"{hp.batch_size / of.min():,.0f}", f"{seconds[OURS].min() / of.min():.2f}"]
            for name, of in seconds.items()
        ]  # fmt: skip
        head = ["ms per step, fastest round (median)", "events per second", "speed, cuda = 1"]
        parts.append(table([setting, *head], rows))
        kernels[setting] = time_kernels(found[OURS][1].run, args.rounds)
    names = dict.fromkeys(name for of in kernels.values() for name in of if name != "all")
    rows = [
        [name, *(f"{of[name]:.1f}" if name in of else "" for of in kernels.values())]
        for name in [*names, "all"]
    ]
    parts.append(table(["µs of each kernel", *kernels], rows))
    args.backends, args.threads = ["numba", "cuda"], [2]
    return {"cuda_step_gpu": "\n\n".join([*parts, speed.fit(args)["fit"]])}
