"""How long does a session that is served wait: for a click to be taken in, for its ranking?

Random weights of 100 units, catalogues of two sizes, one thread:

    python benchmarks/serving.py [--rounds 5] [--items 3000 37483]
"""

import argparse
from collections.abc import Sequence

import numpy as np
from common import in_turns, machine, table
from evaluation import random_model

from gru4rec_np import GRU4Rec

ITEMS = (3000, 37_483)  # the second: RSC15
BACKENDS = ("numpy", "numba")
CALLS = 100  # of a round
K = 20


def waits(model: GRU4Rec, n_items: int) -> dict[str, object]:
    """What is waited for to a function that does it CALLS times."""
    live = model.session()
    clicks = np.random.default_rng(0).integers(0, n_items, CALLS).tolist()
    live.feed(clicks[0])
    return {
        "a click taken in": lambda r: [live.feed(click) for click in clicks],
        "the scores of all items": lambda r: [live.scores() for _ in clicks],
        f"the best {K}, scores included": lambda r: [live.recommend(K) for _ in clicks],
    }


def measure(rounds: int, sizes: Sequence[int] = ITEMS) -> str:
    """Milliseconds of a call in the fastest round: a Markdown table."""
    calls = {}
    for backend in BACKENDS:
        for n in sizes:
            for what, call in waits(random_model(n, backend), n).items():
                calls[what, n, backend] = 1, call
    seconds, _ = in_turns(calls, rounds)
    rows = [
        [f"{what}, of {n:,} items"]
        + [f"{1000 * seconds[what, n, backend].min() / CALLS:.2f}" for backend in BACKENDS]
        for what, n in dict.fromkeys((what, n) for what, n, _ in calls)
    ]
    return table(["ms, one thread", *BACKENDS], rows)


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--items", type=int, nargs="+", default=ITEMS)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    print(machine(), end="\n\n")
    print(measure(args.rounds, args.items))


if __name__ == "__main__":
    main()
