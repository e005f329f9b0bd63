"""How long does each version of a ladder of CUDA kernels take on a GPU?

Times the versions in kernels/*.cu, with 32 lanes, 100 units and 1,100 items as in the comments
there. Needs a GPU and CuPy. The tests call the versions from here.

A version's launches are captured into a graph, many times over. So the time is that of the GPU's
work and of the gaps between launches, without Python.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from common import device, table

from gru4rec_np import backends
from gru4rec_np.backends.cuda import operations as cuda
from gru4rec_np.backends.cuda.device import Size, n_blocks
from gru4rec_np.ops import optim, ranking

B, H, N_SCORED, N_ITEMS, CASES = 32, 100, 1_100, 37_483, 2_048  # as in the comments
REPEAT = 20  # of what is timed, in a graph; once only of what takes
LONG = 1000  # us or more

# --- each version, with NumPy arrays in and out ---------------------------------------------------


ONE_WARP = (Size.WARP,)  # the block of most first versions


def warps(n):
    """How many warps cover n threads."""
    return n_blocks(n, Size.WARP)


def gru_rung(ops, version, xW, h, U, b, act=("tanh", 0.0)):
    """h' by version plain, coalesced or tiled."""
    B, H = h.shape
    r, z, n, h_new = (ops.xp.full((B, H), np.nan, h.dtype) for _ in range(4))
    grid, block = {
        "plain": ((H, warps(B)), ONE_WARP),
        "coalesced": ((warps(H), B), ONE_WARP),
        "tiled": ((n_blocks(B, Size.TILE_LANES),), (64,)),
    }[version]
    how = {"block": block, "shared": Size.TILE_LANES * H if version == "tiled" else 0}
    args = ops.now(B), *ops.to_device(xW, h, U, b), H
    ops.launch("gru", f"gru_{version}_gates", grid, *args, r, z, **how)
    ops.launch("gru", f"gru_{version}_candidate", grid, *args, *backends.coded(act), r, z, n, h_new,
               **how)  # fmt: skip
    return ops.to_host(h_new)


def gru_backward_plain(ops, dh_new, cache, U, act=("tanh", 0.0)):
    """dxW and dh, in three launches."""
    (B, H), dtype = dh_new.shape, dh_new.dtype
    now, (dh_new, U, h, r, z, n) = ops.now(B), ops.to_device(dh_new, U, *cache[:4])
    dxW, dh = ops.empty((B, 3 * H), dtype), ops.empty((B, H), dtype)
    for part, args in (
        ("blend", (dh_new, h, z, n, H, *backends.coded(act), dxW)),
        ("reset", (h, r, U, H, dxW, dh)),
        ("state", (dh_new, z, U, dxW, H, dh)),
    ):
        ops.launch("gru", f"gru_backward_plain_{part}", (warps(H), B), now, *args, block=ONE_WARP)
    return ops.to_host(dxW), ops.to_host(dh)


def scores_rung(ops, version, h, V_y, b_y, items):
    """The scores by version plain, coalesced or tiled."""
    (B, H), N, side = h.shape, len(items), Size.TILED_SIDE
    y = ops.xp.full((B, N), np.nan, h.dtype)
    grid, block = {
        "plain": ((warps(N), B), ONE_WARP),
        "coalesced": ((n_blocks(N, 2), B), (2 * Size.WARP,)),
        "tiled": ((n_blocks(N, side), n_blocks(B, side)), (side, side)),
    }[version]
    args = ops.to_device(h, V_y, b_y, items)
    ops.launch("scores", f"scores_{version}", grid, ops.now(B, N), *args, H, N, y, block=block)
    return ops.to_host(y)


def scores_backward_h_plain(ops, dy, V):
    """dh by the first version."""
    (B, N), H = dy.shape, V.shape[1]
    dh, args = ops.empty((B, H), dy.dtype), ops.to_device(dy, V, np.arange(N))
    ops.launch("scores", "scores_backward_h_plain", (warps(H), B), ops.now(B, N), *args, H, N, dh,
               block=ONE_WARP)  # fmt: skip
    return ops.to_host(dh)


def cross_entropy_rung(ops, version, y):
    """Losses and gradient by version plain, tree or online."""
    (B, N), dtype = y.shape, y.dtype
    g, losses = ops.xp.full((B, N), np.nan, dtype), ops.empty((B,), dtype)
    plain = version == "plain"
    ops.launch("loss", f"cross_entropy_{version}", (warps(B) if plain else B,), ops.now(B, N),
               *ops.to_device(y, np.arange(B)), N, g, losses,
               block=ONE_WARP if plain else (Size.TREE_THREADS,))  # fmt: skip
    return ops.to_host(losses), ops.to_host(g)


def cut_plain(ops, h, V, b, y):
    """The first version of `losses.cut_cross_entropy`."""
    (B, H), N, dtype = h.shape, len(V), h.dtype
    operands, sizes = ops.to_device(h, V, b, y), (B, N, H)
    losses, maxima, inverse = (ops.empty((B,), dtype) for _ in range(3))
    dh, dV, db = (ops.empty(shape, dtype) for shape in ((B, H), (N, H), (N,)))
    ops.launch("cut", "cut_plain_loss", (warps(B),), *operands, *sizes, losses, maxima, inverse,
               block=ONE_WARP)  # fmt: skip
    operands += maxima, inverse
    ops.launch("cut", "cut_plain_h", (warps(B),), *operands, *sizes, dh, block=ONE_WARP)
    ops.launch("cut", "cut_plain_rows", (warps(N),), *operands, *sizes, dV, db, block=ONE_WARP)
    return tuple(map(ops.to_host, (losses, dh, dV, db)))


def cut_rung(ops, version, *operands):
    """Version plain; or `stored`: the scores, the loss and the backward pass, each launched."""
    if version == "plain":
        return cut_plain(ops, *operands)
    h, V, b, _ = operands  # the loss kernel's targets are the first columns: the same work
    r, V = ops.scores(h, V, b, np.arange(len(V)))
    losses, dr = ops.loss_and_gradient(r, "cross-entropy")
    return losses, *ops.scores_backward(dr, h, V)


def update_plain(ops, p, g, memory, adapt, rate, momentum, rows):
    """The first version of `optim.update`."""
    hosts = [p, *memory.values()]
    there = ops.to_device(*hosts)
    sent = dict(zip(memory, there[1:], strict=True))
    n = len(rows)
    ops.launch("update", "update_plain", (warps(n),), *ops.to_device(rows, g), n, p.shape[1],
               adapt == "adagrad", rate, momentum, there[0],
               *(sent.get(name, there[0]) for name in "av"), block=ONE_WARP)  # fmt: skip
    for host, array in zip(hosts, there, strict=True):
        host[:] = ops.to_host(array)


def encode_plain(ops, x, table, W_x):
    """The input's part of the gates by the first version."""
    (X, width), B = W_x.shape, len(x)
    xW, args = ops.empty((B, width), W_x.dtype), ops.to_device(x, table, W_x)
    ops.launch("encode", "encode_plain", (warps(width), B), ops.now(B), *args, X, width // 3, xW,
               block=ONE_WARP)  # fmt: skip
    return ops.to_host(xW)


def rank_rung(ops, version, h, V_y, b_y, targets, parts=64):
    """Ranks by version plain or spread, that with the catalogue in parts."""
    (I, H), n = V_y.shape, len(h)  # noqa: E741
    counts = ops.xp.zeros((2, n), np.int32)
    grid = (warps(n),) if version == "plain" else (parts, n)
    args = ops.to_device(h, V_y, b_y, targets)
    ops.launch("rank", f"rank_{version}", grid, *args, n, I, H, counts[0], counts[1],
               block=ONE_WARP)  # fmt: skip
    return ranking.from_counts(*ops.to_host(counts), I, "conservative")


# --- timing ---------------------------------------------------------------------------------------


def launches_of(ops: cuda.CudaOps, call: Callable) -> list[tuple[str, Callable]]:
    """What `call` launches: a kernel's name, and a function that launches it again."""
    found, launch = [], ops.launch

    def record(file: str, name: str, *args: Any, **how: Any) -> None:
        again = functools.partial(launch, file, name, *args, **how)
        found.append((name, again))
        again()

    ops.launch = record
    try:
        call()
    finally:
        ops.launch = launch
    return found


def microseconds(
    ops: cuda.CudaOps, launches: list[Callable], rounds: int, repeat: int = REPEAT
) -> float:
    """The GPU's time for these launches, one after the other, in the fastest round.

    They are launched rounds (repeat + 1) times.
    """
    import cupy

    def time(times: int) -> float:
        replay = ops.capture(lambda: [launch() for _ in range(times) for launch in launches])
        found = []
        for _ in range(rounds):
            began, ended = cupy.cuda.Event(), cupy.cuda.Event()
            began.record()
            replay()
            ended.record()
            ended.synchronize()
            found.append(1000 * cupy.cuda.get_elapsed_time(began, ended) / times)
        return min(found)

    once = time(1)
    return min(once, time(repeat)) if once < LONG else once


def ladders(ops: cuda.CudaOps) -> list[tuple]:
    """What is computed; its rung and versions; the package's operation and kernels; arguments."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def only(rung: Callable) -> Callable:
        """A rung that has one version."""
        return lambda ops, _, *args: rung(ops, *args)

    early = "plain", "coalesced", "tiled"
    h, U, gates = draw(B, H), draw(H, 3 * H), (draw(B, 3 * H), draw(3 * H))
    gru = gates[0], h, U, gates[1]
    back = draw(B, H), ops.gru(*gru)[1], U
    catalogue, rows = (draw(N_ITEMS, H), draw(N_ITEMS)), rng.permutation(N_ITEMS)[:N_SCORED]
    y, V = ops.scores(h, *catalogue, rows)
    memory = optim.init_memory(catalogue[0], "adagrad", 0.0)
    update = catalogue[0], draw(N_SCORED, H), memory, "adagrad", 0.1, 0.0, rows
    cases = draw(CASES, H), *catalogue, rng.integers(0, N_ITEMS, CASES)
    return [
        ("a step of the GRU", gru_rung, early, ops.gru, "gru", gru),
        ("its backward pass", only(gru_backward_plain), early[:1], ops.gru_backward,
         "gru_backward", back),
        ("scores", scores_rung, early, ops.scores, "scores", (h, *catalogue, rows)),
        ("the state's part of their backward pass",
         only(lambda ops, dy, h, V: scores_backward_h_plain(ops, dy, V)), early[:1],
         ops.scores_backward, "scores_backward_h", (y, h, V)),
        ("cross-entropy and gradient", cross_entropy_rung, ("plain", "tree", "online"),
         lambda y: ops.loss_and_gradient(y, "cross-entropy"), "loss", (y,)),
        (f"cross-entropy over {N_ITEMS:,} items", cut_rung, ("stored", "plain"),
         ops.cut_cross_entropy, "cut_loss cut_join cut_backward_h cut_join_h cut_backward_rows",
         (h, *catalogue, rng.integers(0, N_ITEMS, B))),
        ("Adagrad of the scored rows", only(update_plain), early[:1], ops.update, "update_rows",
         update),
        (f"ranks of {CASES:,} cases among {N_ITEMS:,} items", rank_rung, ("plain", "spread"),
         ops.rank_targets, "target_scores rank", cases),
    ]  # fmt: skip


def cuda_ladder(args: argparse.Namespace) -> dict[str, str]:
    """The time of each version, in float."""
    if problem := cuda.gpu_problem():
        raise SystemExit(f"error: this {problem}")
    ops, rows = cuda.on_gpu("to time"), []
    for what, rung, versions, own, kernels, operands in ladders(ops):
        calls = {version: functools.partial(rung, ops, version, *operands) for version in versions}
        found = {version: launches_of(ops, call) for version, call in calls.items()}
        used = launches_of(ops, functools.partial(own, *operands))
        found["the package's"] = [pair for pair in used if pair[0] in kernels.split()]
        for version, launches in found.items():
            us = microseconds(ops, [again for _, again in launches], args.rounds)
            first = what if version == versions[0] else ""
            rows.append([first, version, len(launches), f"{us:,.1f}"])
    return {"cuda_ladder": f"{device()}.\n\n{table(['', 'version', 'launches', 'µs'], rows)}"}
