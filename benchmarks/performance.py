"""All the numbers and pictures of docs/performance.md, in one run of about twelve minutes:

    pip install -e '.[bench]'
    python benchmarks/performance.py [--train FILE] [--only training denormals ...] [--write]

Prints the tables; --write puts them and the pictures into docs/. Nothing else should be running.
"""

import argparse
import time
from pathlib import Path

import denormals
import evaluation
import roofline
import serving
import speed
import step_cost
import torch
from common import machine, put

from gru4rec_np import Sessions

DOCS = Path(__file__).resolve().parents[1] / "docs"
BACKENDS = ["numpy", "numba"]


def training(train: Sessions, rounds: int, docs: Path | None) -> dict[str, str]:
    """The tables of speed.py, and from the same run the roofline."""
    results = {s: speed.measure(s, BACKENDS, train, rounds) for s in speed.SETTINGS}
    tables = [speed.table(setting, result) for setting, result in results.items()]
    roofs = roofline.measure(results, rounds, docs and docs / "roofline.png")
    return {"training": "\n\n".join(tables), "roofline": roofs}


# What to run by name: it returns Markdown by the name of its place in the document.
PARTS = {
    "training": training,
    "fit": lambda train, rounds, docs: {"fit": speed.whole_runs(train, BACKENDS, min(2, rounds))},
    "cost": lambda train, rounds, docs: {
        "cost": step_cost.measure(BACKENDS, rounds, docs and docs / "step_cost.png")
    },
    "evaluation": lambda train, rounds, docs: {
        "evaluation": evaluation.measure(evaluation.ITEMS, evaluation.SESSIONS, min(3, rounds))
    },
    "serving": lambda train, rounds, docs: {"serving": serving.measure(rounds)},
    "denormals": lambda train, rounds, docs: {"denormals": denormals.measure(train, rounds)},
}


def main() -> None:
    """Print the tables, and write them."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    p.add_argument("--rounds", type=int, default=5, help="fewer are faster and less certain")
    p.add_argument("--write", action="store_true", help="into docs/performance.md and its pictures")
    args = p.parse_args()
    torch.manual_seed(0)
    train = speed.training_log(args.train)
    about = machine()
    log = f"{Path(args.train).parent.name if args.train else 'the simulated shop'}"
    about += f". Trained on {log}: {train.n_items:,} items, {train.n_events:,} events."
    print(about)
    # A run of some parts leaves the others, and what they were taken on, as they are.
    found = {"machine": about} if len(args.only) == len(PARTS) else {}
    for name in args.only:
        began = time.perf_counter()
        parts = PARTS[name](train, args.rounds, DOCS if args.write else None)
        print(f"\n\n# {name}: {time.perf_counter() - began:.0f} s")
        for place, markdown in parts.items():
            print(f"\n## {place}\n\n{markdown}", flush=True)
        found |= parts
    if args.write:
        path = DOCS / "performance.md"
        text = path.read_text(encoding="utf-8")
        for name, markdown in found.items():
            text = put(text, name, markdown)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
