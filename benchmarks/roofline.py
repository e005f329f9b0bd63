"""Where does training stand under the roofs of the machine: its arithmetic and its memory?

Measures the rate of a large matrix product and the bandwidth of memory and caches, on one thread,
and puts the steps of speed.py under them:

    python benchmarks/roofline.py [--train FILE] [--rounds 3] [--plot FILE]

A step's flops are those of its matrix products. Its bytes are what it cannot but move: each row
that it uses, of tables, dense weights and the optimiser's memory, read once and written once.
Williams et al. 2009, "Roofline", doi:10.1145/1498765.1498785. Needs the `bench` extra and Numba.
"""

import argparse
import time
from pathlib import Path

import numba
import numpy as np
import speed
from common import COLOURS, figure, item_weights, machine, name_of, table, threads, tidy

from gru4rec_np import GRU4Rec, Sessions
from gru4rec_np.models import network

# Bytes of a triad's three arrays together: well inside L2, inside L3 but not L2, outside both.
LEVELS = {"L2 cache": 384 * 2**10, "L3 cache": 12 * 2**20, "memory": 768 * 2**20}


@numba.njit(fastmath=True)
def triad(a, b, c, times):
    """a = b + 3 c, `times` over (McCalpin's STREAM)."""
    for _ in range(times):
        for i in range(len(a)):
            a[i] = b[i] + np.float32(3) * c[i]


def fastest(call, rounds: int) -> float:
    """Seconds of the fastest of some calls, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def bandwidth(size: int, rounds: int) -> float:
    """Bytes per second that a triad over `size` bytes reads and writes."""
    a, b, c = (np.ones(size // 12, np.float32) for _ in range(3))
    times = max(1, 2**28 // size)
    return size * times / fastest(lambda: triad(a, b, c, times), rounds)


def peak(rounds: int, n: int = 1536) -> float:
    """Flops per second of a matrix product (n, n) (n, n) in float32."""
    a, b, out = (np.ones((n, n), np.float32) for _ in range(3))
    return 2 * n**3 / fastest(lambda: np.dot(a, b, out=out), rounds)


def work(setting: str, scored: int) -> tuple[float, float]:
    """Flops and bytes of a step that scores `scored` distinct items."""
    hp = GRU4Rec(**speed.SETTINGS[setting], backend="numpy")
    W = network.init_weights(hp, 1, np.random.default_rng(0))
    tables = item_weights(hp)
    # A fed item is a row of its own with 1-of-N input; of shared tables, mostly scored anyway.
    rows = {"V_y": scored, "b_y": scored, "W_x": hp.batch_size}
    numbers = sum(p.size * (rows[name] if name in tables else 1) for name, p in W.items())
    kinds = 3 if hp.momentum else 2  # the weight, Adagrad's sum, the velocity
    return speed.Floor(hp, scored).flops, 4 * numbers * kinds * 2


def measure(results: dict[str, speed.Result], rounds: int, path: str | Path | None = None) -> str:
    """Markdown tables of the roofs and the steps; and the plot, if it has a path."""
    with threads(1):
        top = peak(rounds)
        bandwidths = {level: bandwidth(size, rounds) for level, size in LEVELS.items()}
    rows = [["matrix product", f"{top / 1e9:.0f} GFLOP/s", ""]]
    rows += [
        [level, f"{rate / 1e9:.0f} GB/s", f"{top / rate:.1f}"] for level, rate in bandwidths.items()
    ]
    roofs = table(["one thread", "measured", "flops per byte where it meets the product"], rows)
    points, rows = {}, []
    for setting, result in results.items():
        flops, moved = work(setting, result.scored)
        least = max(flops / top, moved / bandwidths["memory"])
        points[setting] = (
            flops / moved,
            {name: flops / s for name, s in result.fastest.items() if "2 threads" not in name},
        )
        rows.append([
            setting, f"{flops / 1e6:.1f}", f"{moved / 1e6:.2f}", f"{flops / moved:.1f}",
            f"{1000 * least:.2f}", f"{1000 * result.fastest[speed.PRODUCTS]:.2f}",
            f"{1000 * result.fastest[name_of('numba', 1)]:.2f}",
        ])  # fmt: skip
    head = [
        "setting", "MFLOP of products", "MB that must move", "flops per byte",
        "ms under memory's roof", "ms, products alone", "ms, numba",
    ]  # fmt: skip
    if path:
        plot(path, top, bandwidths, points)
    return roofs + "\n\n" + table(head, rows)


def plot(path: str | Path, top: float, bandwidths: dict[str, float], points: dict) -> None:
    """The roofs, and under them a column of points for each setting."""
    picture = figure(8, 5.2)
    axis = picture.subplots()
    reach = np.array([0.4, 60])
    axis.axhline(top / 1e9, color="black", linewidth=1.5)
    axis.text(reach[1], 1.05 * top / 1e9, "large matrix product", ha="right", va="bottom")
    for level, rate in bandwidths.items():
        x = np.array([reach[0], top / rate])
        axis.plot(x, x * rate / 1e9, color="gray", linewidth=1.2)
        below = level == "memory"  # its roof may lie close under another one
        axis.annotate(
            level, (x[0], x[0] * rate / 1e9), xytext=(10, -4) if below else (2, 9),
            textcoords="offset points", va="top" if below else "baseline",
            rotation=38, rotation_mode="anchor", color="dimgray",
        )  # fmt: skip
    for setting, (intensity, rates) in points.items():
        axis.axvline(intensity, color="lightgray", linewidth=0.8, zorder=0)
        for name, rate in rates.items():
            plain = "products" if name == speed.PRODUCTS else name.removesuffix(", 1 thread")
            first = setting == next(iter(points))
            axis.plot(
                intensity, rate / 1e9, "_" if plain == "products" else "o", color=COLOURS[plain],
                markersize=16 if plain == "products" else 8, markeredgewidth=2.5,
                label=(name if plain == "products" else plain) if first else None,
            )  # fmt: skip
    low = min(rate for _, rates in points.values() for rate in rates.values()) / 1e9
    for setting, (intensity, _) in points.items():
        axis.annotate(setting, (intensity, low / 1.7), ha="center", weight="bold")
    axis.set(
        xscale="log", yscale="log", xlim=reach, ylim=(low / 2, 2 * top / 1e9),
        xlabel="flops per byte that must move", ylabel="GFLOP/s of matrix products, one thread",
    )  # fmt: skip
    axis.legend(loc="lower right", frameon=True)
    tidy(axis)
    picture.savefig(path, dpi=110)


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--plot", help="a .png or .svg file to write")
    args = p.parse_args()
    print(machine(), end="\n\n")
    train = speed.training_log(args.train)
    print(measure(train_all(train, args.rounds), args.rounds, args.plot))


def train_all(train: Sessions, rounds: int) -> dict[str, speed.Result]:
    """What speed.py measures in all settings."""
    return {s: speed.measure(s, ["numpy", "numba"], train, rounds) for s in speed.SETTINGS}


if __name__ == "__main__":
    main()
