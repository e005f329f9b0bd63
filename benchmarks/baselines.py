"""Time and memory of Item-KNN, V-SKNN and BPR-MF on a shop of RSC15's size, or a part of it.

    python benchmarks/baselines.py [--scale 0.25] [--method V-SKNN]

RSC15 has 31.6 million clicks in 7,966,257 sessions, 37,483 items. One method a run, since the
process's largest memory is what is read; BPR-MF for one epoch. Linux.
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from gru4rec_np import Sessions, Shop
from gru4rec_np.data.sessions import DAY
from gru4rec_np.models import BASELINES

SESSIONS, ITEMS = 7_966_257, 37_483
PART = 2_000_000  # sessions that are simulated at once


def simulate(shop: Shop, n_sessions: int) -> Sessions:
    """Sessions of a shop in parts of ten days, which bounds what simulating them takes."""
    sizes = [min(PART, n_sessions - first) for first in range(0, n_sessions, PART)]
    parts = [shop.simulate(size, seed) for seed, size in enumerate(sizes, 1)]
    lengths = np.concatenate([part.lengths for part in parts])
    return Sessions(
        items=np.concatenate([part.items for part in parts]),
        times=np.concatenate([part.times + 10 * DAY * i for i, part in enumerate(parts)]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item_ids=shop.item_ids,
        session_ids=np.arange(len(lengths)),
    )


def peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Fit, evaluate, print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scale", type=float, default=0.1)
    p.add_argument("--method", default="V-SKNN", choices=["Item-KNN", "V-SKNN", "BPR-MF"])
    args = p.parse_args()
    shop = Shop(ITEMS)
    # In another process, whose memory is then not this one's.
    with ProcessPoolExecutor(1) as child:
        log = child.submit(simulate, shop, int(SESSIONS * args.scale)).result()
    test = shop.simulate(6000, seed=1000)
    before = peak()
    options = {"n_epochs": 1} if args.method == "BPR-MF" else {}
    began = time.perf_counter()
    method = BASELINES[args.method](**options).fit(log)
    fitted = time.perf_counter()
    ranks, _ = method.ranks(test)
    evaluated = time.perf_counter() - fitted
    print(
        f"{args.method}: {log.n_events:,} clicks, {log.n_sessions:,} sessions; fit "
        f"{fitted - began:.1f} s, {len(ranks) / evaluated:,.0f} cases/s; peak {peak():,.0f} MB, "
        f"{before:,.0f} MB before"
    )


if __name__ == "__main__":
    main()
