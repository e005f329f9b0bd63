"""How long does ranking over the whole catalogue take, and the whole of `GRU4Rec.evaluate`?

At the size of RSC15's test set: 37,483 items, 55,898 cases, 100 units; random weights and clicks:

    python benchmarks/evaluation.py [--rounds 3] [--items 37483] [--sessions 15324]
                                    [--backends numpy numba cuda]

The floor is the product of all cases' vectors with the whole output table, alone, through BLAS, in
the shape of blocks that it does fastest.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import in_turns, machine, name_of, peak_memory, table, threads

from gru4rec_np import GRU4Rec, Sessions, backends
from gru4rec_np.backends import load, one_blas_thread
from gru4rec_np.models import network
from gru4rec_np.ops import ranking

ITEMS, SESSIONS, CASES, UNITS = 37_483, 15_324, 55_898, 100  # RSC15
SHAPES = ((256, 512), (512, 512), (1024, 256), (ranking.SCORES_AT_ONCE // ITEMS, ITEMS))
THREADS = (1, 2)
BACKENDS = ("numpy", "numba")


def random_sessions(n_items: int, n_sessions: int, rng: np.random.Generator) -> Sessions:
    """About as many cases a session as RSC15 has, exactly at its size; items uniform."""
    cases = round(CASES * n_sessions / SESSIONS)
    # Session lengths: a case each, the rest of the cases thrown at random, some sessions long.
    likely = rng.exponential(size=n_sessions)
    lengths = 2 + rng.multinomial(cases - n_sessions, likely / likely.sum())
    events = int(lengths.sum())
    return Sessions(
        items=rng.integers(0, n_items, events, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        times=np.arange(events, dtype=float),
        item_ids=np.arange(n_items),
        session_ids=np.arange(n_sessions),
    )


def random_model(n_items: int, backend: str) -> GRU4Rec:
    """A model as if it had been fit."""
    model = GRU4Rec(layers=[UNITS], backend=backend)
    model.weights = network.init_weights(model, n_items, np.random.default_rng(0))
    model._set_catalogue(np.arange(n_items))
    return model


def products(h: np.ndarray, V: np.ndarray, block: int, tile: int) -> None:
    """h V^T, in products of (block, H) and (H, tile)."""
    block, tile = min(block, len(h)), min(tile, len(V))
    s = np.empty((block, tile), h.dtype)
    for i in range(0, len(h), block):
        i = min(i, len(h) - block)
        for j in range(0, len(V), tile):
            j = min(j, len(V) - tile)
            np.dot(h[i : i + block], V[j : j + tile].T, out=s)


@one_blas_thread
def products_on(n: int, h: np.ndarray, V: np.ndarray, shape: tuple[int, int]) -> None:
    """The same on n threads, each with its part of h and its own products, as Numba has them."""
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(lambda part: products(part, V, *shape), np.array_split(h, n)))


def fastest_shape(h: np.ndarray, V: np.ndarray) -> tuple[int, int]:
    """Of SHAPES, on one thread."""
    calls = {s: (1, lambda r, s=s: products(h[: len(h) // 8], V, *s)) for s in SHAPES}
    seconds, _ = in_turns(calls, 3)
    return min(SHAPES, key=lambda s: seconds[s].min())


def threads_of(backend: str) -> tuple[int, ...]:
    """What to time it on: a GPU has threads of its own."""
    return THREADS[:1] if backend == "cuda" else THREADS


def rank_table(sessions: Sessions, n_items: int, rounds: int, backends: Sequence[str]) -> str:
    """Ranking alone: a Markdown table."""
    W = random_model(n_items, "numpy").weights
    V, b = W["V_y"], W["b_y"]
    rng = np.random.default_rng(0)
    b += rng.normal(scale=0.1, size=n_items).astype(b.dtype)
    h = np.tanh(rng.normal(size=(len(sessions.cases), UNITS))).astype(V.dtype)
    targets = sessions.items[sessions.cases + 1]
    shape = fastest_shape(h, V)
    floor = "product alone"
    calls = {}
    for backend in backends:
        ops = load(backend)
        # Compiled threads each have a product of their own. NumPy's are BLAS's.
        rank = one_blas_thread(ops.rank_targets) if backend == "numba" else ops.rank_targets
        for n in threads_of(backend):
            calls[name_of(backend, n)] = n, lambda r, rank=rank: rank(h, V, b, targets)
    for n in THREADS:
        calls[name_of(floor, n)] = n, lambda r, n=n: products_on(n, h, V, shape)
    seconds, results = in_turns(calls, rounds)
    first = name_of(backends[0], 1)
    if not all((r == results[first][0]).mean() > 0.999
               for name in calls if "alone" not in name for r in results[name]):  # fmt: skip
        raise SystemExit("error: the backends' ranks differ")
    rows = []
    for name, (n, call) in calls.items():
        with threads(n):
            memory = peak_memory(lambda call=call: call(0))
        s = seconds[name].min()
        rows.append([
            name, f"{s:.2f}", f"{len(h) / s:,.0f}",
            f"{seconds[first].min() / s:.2f}",
            f"{s / seconds[name_of(floor, n)].min():.2f}", f"{memory / 1e6:.0f}",
        ])  # fmt: skip
    head = [
        f"{n_items:,} items, {len(h):,} cases", "seconds", "cases per second",
        f"speed, {backends[0]} on 1 thread = 1", "time, product on as many threads = 1",
        "memory, MB",
    ]  # fmt: skip
    return table(head, rows)


def evaluate_table(sessions: Sessions, n_items: int, rounds: int, backends: Sequence[str]) -> str:
    """`GRU4Rec.evaluate` from end to end: a Markdown table."""
    models = {backend: random_model(n_items, backend) for backend in backends}

    def evaluate(model):
        def call(r: int) -> float:
            """The seconds that the network took to read the sessions."""
            began = time.perf_counter()
            one_blas_thread(model._last_vectors)(sessions)
            reading = time.perf_counter() - began
            model.evaluate(sessions)
            return reading

        return call

    calls = {
        name_of(backend, n): (n, evaluate(model))
        for backend, model in models.items()
        for n in (THREADS if backend == "numba" else (1,))
    }
    seconds, readings = in_turns(calls, rounds)
    rows = []
    for name in calls:
        reading = min(readings[name])
        whole = (seconds[name] - readings[name][1:]).min()
        rows.append([name, f"{whole:.2f}", f"{reading:.2f}", f"{100 * reading / whole:.0f} %"])
    return table(["evaluate", "seconds", "of them: reading the sessions", "share"], rows)


def measure(n_items: int, n_sessions: int, rounds: int, backends: Sequence[str] = BACKENDS) -> str:
    """Both tables."""
    sessions = random_sessions(n_items, n_sessions, np.random.default_rng(0))
    tables = rank_table, evaluate_table
    return "\n\n".join(table_of(sessions, n_items, rounds, backends) for table_of in tables)


def main() -> None:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--items", type=int, default=ITEMS)
    p.add_argument("--sessions", type=int, default=SESSIONS)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument(
        "--backends", nargs="+", choices=backends.BACKENDS, default=BACKENDS, help="the first is 1"
    )
    args = p.parse_args()
    print(machine(), end="\n\n")
    print(measure(args.items, args.sessions, args.rounds, args.backends))


if __name__ == "__main__":
    main()
