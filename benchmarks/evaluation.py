"""How long do ranking over the whole catalogue, `GRU4Rec.evaluate` and a served click take?

At the size of RSC15's test set: 37,483 items, 55,898 cases, 100 units; random weights and clicks.
The floor is the product of all cases' vectors with the output table, through BLAS, in the shape of
blocks that it does fastest. `large` compares both on a million items and 100,000 cases, by CPU
time, in about 20 minutes.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import H, in_turns, name_of, peak, random_model, table, threads

from gru4rec_np import GRU4Rec, Sessions
from gru4rec_np.backends import load, one_blas_thread
from gru4rec_np.ops import ranking

ITEMS, SESSIONS, CASES = 37_483, 15_324, 55_898  # RSC15
SHAPES = ((256, 512), (512, 512), (1024, 256), (ranking.MAX_SCORES // ITEMS, ITEMS))
THREADS = (1, 2)
FLOOR = "product alone"
SMALL, CALLS, K = 3000, 100, 20  # serving: the other catalogue, calls of a round, how many items
LARGE, LARGE_CASES, PIECES = 1_000_000, 100_000, 10  # items, cases; measured in so many pieces
ALONE, AT_ONCE = 200, 10_000  # sessions that are recommended for one by one, and all at once


def random_sessions(n_items: int, cases: float = 0, seed: int = 0) -> Sessions:
    """As many cases for each session, and without `cases` for each item, as RSC15 has; uniform."""
    rng = np.random.default_rng(seed)
    n_sessions = max(1, round(SESSIONS * (cases / CASES if cases else n_items / ITEMS)))
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
    """The same on n threads, each with its part of h."""
    with ThreadPoolExecutor(n) as pool:
        list(pool.map(lambda part: products(part, V, *shape), np.array_split(h, n)))


def fastest_shape(h: np.ndarray, V: np.ndarray) -> tuple[int, int]:
    """Of SHAPES, on one thread."""
    part = h[: -(-len(h) // 8)]
    seconds, _ = in_turns({s: (1, lambda r, s=s: products(part, V, *s)) for s in SHAPES}, 3)
    return min(SHAPES, key=lambda s: seconds[s].min())


def rank_table(sessions: Sessions, n_items: int, rounds: int, backends: list[str]) -> str:
    """Ranking alone: a Markdown table."""
    W = random_model(np.arange(n_items), "numpy").weights
    V, b = W["V_y"], W["b_y"]
    rng = np.random.default_rng(0)
    b += rng.normal(scale=0.1, size=n_items).astype(b.dtype)
    h = np.tanh(rng.normal(size=(len(sessions.cases), H))).astype(V.dtype)
    targets, shape = sessions.items[sessions.cases + 1], fastest_shape(h, V)
    calls = {}
    for backend in backends:
        rank = load(backend).rank_targets
        # Numba's threads each have a product of their own. NumPy's are BLAS's.
        rank = one_blas_thread(rank) if backend == "numba" else rank
        for n in THREADS[:1] if backend == "cuda" else THREADS:
            calls[name_of(backend, n)] = n, lambda r, rank=rank: rank(h, V, b, targets)
    for n in THREADS:
        calls[name_of(FLOOR, n)] = n, lambda r, n=n: products_on(n, h, V, shape)
    seconds, results = in_turns(calls, rounds)
    first = name_of(backends[0], 1)
    if not all((ranks == results[first][0]).mean() > 0.999
               for name in calls if FLOOR not in name for ranks in results[name]):  # fmt: skip
        raise SystemExit("error: the backends' ranks differ")
    rows = []
    for name, (n, _) in calls.items():
        s = seconds[name].min()
        rows.append([
            name, f"{s:.2f}", f"{len(h) / s:,.0f}", f"{seconds[first].min() / s:.2f}",
            f"{s / seconds[name_of(FLOOR, n)].min():.2f}",
        ])  # fmt: skip
    head = [
        f"{n_items:,} items, {len(h):,} cases", "seconds", "cases per second",
        f"speed, {backends[0]} on 1 thread = 1", "time, product on as many threads = 1",
    ]  # fmt: skip
    return table(head, rows)


def evaluate_table(sessions: Sessions, n_items: int, rounds: int, backends: list[str]) -> str:
    """`GRU4Rec.evaluate` from end to end: a Markdown table."""

    def evaluate(model: GRU4Rec):
        def call(r: int) -> float:
            """The seconds that the network took to read the sessions."""
            began = time.perf_counter()
            one_blas_thread(model._last_vectors)(sessions)
            reading = time.perf_counter() - began
            model.evaluate(sessions)
            return reading

        return call

    calls = {
        name_of(backend, n): (n, evaluate(random_model(np.arange(n_items), backend)))
        for backend in backends
        for n in (THREADS if backend == "numba" else (1,))
    }
    seconds, readings = in_turns(calls, rounds)
    rows = []
    for name in calls:
        reading = min(readings[name])
        whole = (seconds[name] - readings[name][1:]).min()
        rows.append([name, f"{whole:.2f}", f"{reading:.2f}", f"{100 * reading / whole:.0f} %"])
    return table(["evaluate", "seconds", "of them: reading the sessions", "share"], rows)


def evaluation(args: argparse.Namespace) -> dict[str, str]:
    """Both tables."""
    how = random_sessions(args.items), args.items, min(3, args.rounds), args.backends
    return {"evaluation": rank_table(*how) + "\n\n" + evaluate_table(*how)}


def large(args: argparse.Namespace) -> dict[str, str]:
    """Evaluation among LARGE items beside the product alone, piece by piece in turns."""
    model = random_model(np.arange(LARGE), "numba")
    V, rng, before = model.weights["V_y"], np.random.default_rng(0), peak()
    h = np.tanh(rng.normal(size=(LARGE_CASES // PIECES, H))).astype(V.dtype)
    seconds, cases = np.zeros((2, PIECES)), 0
    with threads(1):
        shape = fastest_shape(h[:1024], V)
        model.ranks(random_sessions(LARGE, 100))  # compiles
        for piece in range(PIECES):
            sessions = random_sessions(LARGE, len(h), piece)
            times = [time.process_time()]
            cases += len(model.ranks(sessions)[0])
            times.append(time.process_time())
            products_on(1, h[: len(sessions.cases)], V, shape)
            times.append(time.process_time())
            seconds[:, piece] = np.diff(times)
            print(f"{cases:,} cases: {seconds.sum(axis=1).round(1)} s", file=sys.stderr, flush=True)
    (ours, alone), ratios = seconds.sum(axis=1), seconds[0] / seconds[1]
    rows = [
        ["`GRU4Rec.ranks`, numba", f"{ours:.0f}", f"{ours / alone:.2f}",
         f"{ratios.min():.2f} to {ratios.max():.2f}", f"{peak():,.0f}, {before:,.0f} before it"],
        ["product alone", f"{alone:.0f}", "1.00", "", ""],
    ]  # fmt: skip
    head = [f"{LARGE:,} items, {cases:,} cases, 1 thread", "CPU seconds", "product = 1",
            f"of each of {PIECES} pieces", "peak memory, MiB"]  # fmt: skip
    return {"large": table(head, rows)}


def waits(model: GRU4Rec, n_items: int) -> dict[str, object]:
    """What a client waits for to a function that does it CALLS times."""
    live = model.session()
    clicks = np.random.default_rng(0).integers(0, n_items, CALLS).tolist()
    live.feed(clicks[0])
    return {
        "a click taken in": lambda r: [live.feed(click) for click in clicks],
        "the scores of all items": lambda r: [live.scores() for _ in clicks],
        f"the best {K}, scores included": lambda r: [live.recommend(K) for _ in clicks],
    }


def many(args: argparse.Namespace) -> dict[str, str]:
    """Milliseconds a session: `recommend` one by one, and `recommend_many`."""

    rows = []
    for n in (SMALL, args.items):
        log, calls = random_sessions(n)[:AT_ONCE], {}
        few = [log.session(s).tolist() for s in range(ALONE)]
        for backend in args.backends:
            model = random_model(np.arange(n), backend)
            calls[backend, "alone"] = 1, lambda r, m=model, of=few: [m.recommend(s, K) for s in of]
            calls[backend, "many"] = 2, lambda r, m=model, log=log: m.recommend_many(log, K)
        seconds, _ = in_turns(calls, min(3, args.rounds))
        for backend in args.backends:
            alone = 1000 * seconds[backend, "alone"].min() / ALONE
            side_by_side = 1000 * seconds[backend, "many"].min() / len(log)
            times = f"{alone / side_by_side:.0f}"
            rows.append([f"{n:,}", backend, f"{alone:.2f}", f"{side_by_side:.3f}", times])
    head = ["items", "backend", "one by one, ms a session", "recommend_many", "times as fast"]
    return {"many": table(head, rows)}


def serving(args: argparse.Namespace) -> dict[str, str]:
    """Milliseconds of a call in the fastest round, for catalogues of two sizes."""
    calls = {
        (what, n, backend): (1, call)
        for backend in args.backends
        for n in (SMALL, args.items)
        for what, call in waits(random_model(np.arange(n), backend), n).items()
    }
    seconds, _ = in_turns(calls, args.rounds)
    rows = [
        [f"{what}, of {n:,} items"]
        + [f"{1000 * seconds[what, n, backend].min() / CALLS:.2f}" for backend in args.backends]
        for what, n in dict.fromkeys((what, n) for what, n, _ in calls)
    ]
    return {"serving": table(["ms, one thread", *args.backends], rows)}
