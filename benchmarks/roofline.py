"""Where does a training step stand under the machine's limits: its arithmetic and its memory?

Measures the rate of a large matrix product and the bandwidth of caches and memory, on one thread,
and sets beside them the steps that speed.py timed. A step's flops are those of its matrix products.
Its bytes are those that must move: each row that it uses, of tables, dense weights and optimiser
memory, read once and written once. Williams et al. 2009, doi:10.1145/1498765.1498785.
"""

from pathlib import Path

import numba
import numpy as np
from common import bytes_of_rows, in_turns, name_of, table
from matplotlib.figure import Figure

from gru4rec_np.models import network
from gru4rec_np.models.hyperparameters import Hyperparameters

# Bytes of a triad's three arrays together: well inside L2, inside L3 but not L2, outside both.
LEVELS = {"L2 cache": 384 * 2**10, "L3 cache": 12 * 2**20, "memory": 768 * 2**20}
SIDE = 1536  # of the large matrix product
COLOURS = {
    "numba": "#0072b2", "numpy": "#d55e00", "products alone": "#333333",
    "PyTorch, plain": "#cc79a7", "PyTorch, tuned": "#009e73",
}  # fmt: skip


@numba.njit(fastmath=True)
def triad(a, b, c, times):
    """a = b + 3 c, `times` over (McCalpin's STREAM)."""
    for _ in range(times):
        for i in range(len(a)):
            a[i] = b[i] + np.float32(3) * c[i]


def roofs(rounds: int) -> tuple[float, dict[str, float]]:
    """Flops per second of a large product, and each level's bytes per second."""
    a, b, out = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))
    calls = {"product": (1, lambda r: np.dot(a, b, out=out))}
    times = {level: max(1, 2**28 // size) for level, size in LEVELS.items()}
    for level, size in LEVELS.items():
        arrays = [np.ones(size // 12, np.float32) for _ in range(3)]
        calls[level] = 1, lambda r, arrays=arrays, n=times[level]: triad(*arrays, n)
    seconds, _ = in_turns(calls, rounds)
    rates = {level: size * times[level] / seconds[level].min() for level, size in LEVELS.items()}
    return 2 * SIDE**3 / seconds["product"].min(), rates


def bytes_of(hp: Hyperparameters, scored: int) -> int:
    """Bytes that a step must move that scores `scored` distinct items."""
    W = network.init_weights(hp, 1, np.random.default_rng(0))
    # A fed item is a row of its own with 1-of-N input; with shared tables it is mostly scored too.
    return bytes_of_rows(hp, W, {"V_y": scored, "b_y": scored, "W_x": hp.batch_size})


def measure(results: dict, rounds: int, path: Path | None) -> str:
    """Tables of the roofs and of the steps; and the plot, if it has a path.

    Args:
        results: setting to its `speed.Result`.
    """
    top, bandwidths = roofs(rounds)
    limits = [["matrix product", f"{top / 1e9:.0f} GFLOP/s", ""]]
    limits += [
        [level, f"{rate / 1e9:.0f} GB/s", f"{top / rate:.1f}"] for level, rate in bandwidths.items()
    ]
    rows, points = [], {}
    for setting, result in results.items():
        flops, fastest = result.flops, result.fastest
        moved = bytes_of(result.hp, result.scored)
        least = max(flops / top, moved / bandwidths["memory"])
        ours = fastest.get(name_of("numba", 1), np.nan)
        rows.append([
            setting, f"{flops / 1e6:.1f}", f"{moved / 1e6:.2f}", f"{flops / moved:.1f}",
            f"{1000 * least:.2f}", f"{1000 * fastest['products alone']:.2f}", f"{1000 * ours:.2f}",
        ])  # fmt: skip
        rates = {name: flops / s for name, s in fastest.items() if "2 threads" not in name}
        points[setting] = flops / moved, rates
    if path:
        plot(path, top, bandwidths, points)
    head = ["setting", "MFLOP of products", "MB that must move", "flops per byte",
            "ms under memory's roof", "ms, products alone", "ms, numba"]  # fmt: skip
    first = ["one thread", "measured", "flops per byte where it meets the product"]
    return table(first, limits) + "\n\n" + table(head, rows)


def plot(path: Path, top: float, bandwidths: dict[str, float], points: dict) -> None:
    """The roofs, and under them a column of points for each setting."""
    picture = Figure(figsize=(9, 5), layout="constrained", facecolor="white")
    axis = picture.subplots()
    left, right = 0.4, 60
    axis.axhline(top / 1e9, color="black", label="large matrix product")
    for (level, rate), style in zip(bandwidths.items(), (":", "--", "-"), strict=True):
        x = np.array([left, top / rate])
        axis.plot(x, x * rate / 1e9, color="gray", linestyle=style, label=level)
    for i, (setting, (intensity, rates)) in enumerate(points.items()):
        for name, rate in rates.items():
            what = name.removesuffix(", 1 thread")
            axis.plot(intensity, rate / 1e9, "_" if what == "products alone" else "o", markersize=9,
                      color=COLOURS[what], label="" if i else what)  # fmt: skip
        axis.annotate(setting, (intensity, 1.1 * top / 1e9), ha="center", weight="bold")
    axis.set(
        xscale="log", yscale="log", xlim=(left, right), ylim=(None, 2 * top / 1e9),
        xlabel="flops per byte that must move", ylabel="GFLOP/s of matrix products, one thread",
    )  # fmt: skip
    picture.legend(loc="outside right upper")
    axis.grid(alpha=0.3)
    picture.savefig(path, dpi=110)
