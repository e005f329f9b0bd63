"""GRU4Rec's rows of docs/results.md's first table: each trained by the command, over several seeds.

    python benchmarks/results.py --train train.tsv --test test.tsv [--seeds 1 2 3] [--rows top1]

Prints a Markdown table with the mean over the seeds and the command of each row. Data: the first
100,000 clicks of RSC15, cleaned and split as the table's text says.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Where each row's settings come from: docs/results.md.
ROWS = {
    "cross-entropy": "--config rsc15-100k-cross-entropy",
    "BPR-max": "--config rsc15-100k-bpr-max",
    "TOP1-max": "--config rsc15-100k-top1-max",
    "TOP1": "--config rsc15-100k-top1",
    "BPR": "--config rsc15-100k-bpr",
    "cross-entropy, 1-of-N input, in-batch negatives": "--config rsc15-100k-onehot",
}


def train(options: list[str]) -> dict[str, dict[str, float]]:
    """Run the training command and return what it left in metrics.json."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "gru4rec_np.train", *options, "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(out, "metrics.json").read_text())


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", required=True)
    p.add_argument("--test", required=True)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = p.parse_args()
    log = ["--train", args.train, "--test", args.test]
    print("| loss | Recall@20 | MRR@20 | options |\n|---|---|---|---|")
    for name in args.rows:
        found = [
            train([*log, *ROWS[name].split(), "--seed", str(seed)])["GRU4Rec"]
            for seed in args.seeds
        ]
        cells = []
        for metric in ("recall@20", "mrr@20"):
            values = [row[metric] for row in found]
            cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}")
        print(f"| {name} | {cells[0]} | {cells[1]} | `{ROWS[name]}` |", flush=True)


if __name__ == "__main__":
    main()
