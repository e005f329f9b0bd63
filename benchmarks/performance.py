"""Measure the tables and the picture of docs/performance.md, and the tables of performance-gpu.md.

    pip install -e '.[bench]'
    python benchmarks/performance.py [PART ...] [--train train.tsv] [--write]

Without PART it measures what a CPU can, in about twelve minutes. Nothing else should be running.
Of the other parts `cold_start` takes 15 minutes a round, `cuda_step` needs a C++ compiler,
`cuda_step_gpu`, `cuda_ladder` and `cuda_start` need a GPU. `peers` takes a GPU if PyTorch sees one;
on a CPU it needs a C++ compiler. `items` and `large` measure catalogues of up to ten million and of
a million items on one thread.
"""

import argparse
import time
from importlib import import_module
from pathlib import Path

from common import machine, put

from gru4rec_np import Sessions, Shop, read_table
from gru4rec_np.backends import BACKENDS
from gru4rec_np.files import write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
DOCUMENTS = [DOCS / "performance.md", DOCS / "performance-gpu.md"]
# The module of each part. There a function of the part's name takes the options and returns
# Markdown by the name of its place in the document.
ON_CPU = {"training": "speed", "fit": "speed", "cost": "step_cost"}
ON_CPU |= {"evaluation": "evaluation", "serving": "evaluation", "many": "evaluation"}
PARTS = {**ON_CPU, "cuda_step": "cuda_step", "cuda_step_gpu": "cuda_step"}
PARTS |= {"cuda_ladder": "cuda_ladder", "cold_start": "cold_start", "peers": "speed"}
PARTS |= {"items": "step_cost", "large": "evaluation", "cuda_start": "cold_start"}
SETTINGS, USUAL, THREADS = ["A", "B", "C"], ["numpy", "numba"], [1, 2]


def training_log(path: str | None) -> Sessions:
    """The log to train on: a table of sessions, or the simulated shop."""
    train = read_table(path) if path else Shop().simulate(20_000)
    return train.keep_sessions(train.lengths >= 2).compact()


def main() -> None:
    """Print the tables, and write them."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("parts", metavar="PART", nargs="*", help=f"of {', '.join(PARTS)}; default: the "
                   f"first {len(ON_CPU)}")  # fmt: skip
    p.add_argument("--train", help="a table of sessions (default: the simulated shop)")
    p.add_argument("--rounds", type=int, default=5, help="default 5; fewer are less certain")
    p.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    p.add_argument("--backends", nargs="+", choices=BACKENDS, default=USUAL)
    p.add_argument("--threads", nargs="+", type=int, default=THREADS, help="default 1 2")
    p.add_argument("--items", type=int, default=37_483, help="of evaluation and serving (RSC15's)")
    p.add_argument("--write", action="store_true", help="into the two pages")
    args = p.parse_args()
    if unknown := set(args.parts) - PARTS.keys():
        p.error(f"PART: must be one of {', '.join(PARTS)}, not {', '.join(unknown)}")
    if min(args.rounds, args.items, *args.threads) < 1:
        p.error("--rounds, --items and --threads: must be at least 1")
    usual = SETTINGS, USUAL, THREADS, 37_483
    if args.write and (args.settings, args.backends, args.threads, args.items) != usual:
        p.error("--write: not with --settings, --backends, --threads or --items, which change the "
                "tables")  # fmt: skip
    args.log = Path(args.train).parent.name if args.train else "the simulated shop"
    args.train = training_log(args.train)
    args.log += f": {args.train.n_items:,} items, {args.train.n_events:,} events"
    args.docs = DOCS if args.write else None
    names = args.parts or list(ON_CPU)
    try:
        modules = {name: import_module(PARTS[name]) for name in names}
    except ModuleNotFoundError as error:
        p.error(f"{error.name} is not installed: pip install -e '.[bench]'")
    about = f"{machine()}. Trained on {args.log}."
    print(about)
    found = {"machine": about} if names == list(ON_CPU) else {}
    for name in names:
        began = time.perf_counter()
        tables = getattr(modules[name], name)(args)
        print(f"\n\n# {name}: {time.perf_counter() - began:.0f} s")
        for place, markdown in tables.items():
            print(f"\n## {place}\n\n{markdown}", flush=True)
        found |= tables
    if args.write:
        for document in DOCUMENTS:
            text = document.read_text(encoding="utf-8")
            for place in [place for place in found if f"<!-- {place} -->" in text]:
                text = put(text, place, found.pop(place))
            write_text(document, text)
        if found:
            raise SystemExit(f"error: the documents have no place for {', '.join(found)}")


if __name__ == "__main__":
    main()
