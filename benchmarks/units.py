"""GRU, LSTM and simple RNN at equal size, equal number of weights and equal training time.

    python benchmarks/units.py --train train.tsv --test test.tsv [--seeds 1 2 3]

Prints the Markdown table of docs/results.md. The NumPy backend, in which all three are written
alike; time is the process's own on the CPU, so other work on the machine counts little. Each
seed trains all of them before the next one. Data as benchmarks/results.py.
"""

import argparse
import sys
import time

import numpy as np
from common import table

from gru4rec_np import GRU4Rec, read_table
from gru4rec_np.console.options import read_config

# Unit, its configuration, how many: 87 and 174 have the GRU's weights, 150 takes its time.
ROWS = [
    ("GRU", "rsc15-100k-top1-max", 100),
    ("LSTM", "rsc15-100k-lstm", 100),
    ("LSTM", "rsc15-100k-lstm", 87),
    ("simple RNN", "rsc15-100k-rnn", 100),
    ("simple RNN", "rsc15-100k-rnn", 150),
    ("simple RNN", "rsc15-100k-rnn", 174),
]


def main() -> None:
    """Train all, print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", required=True)
    p.add_argument("--test", required=True)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = p.parse_args()
    train, test = read_table(args.train), read_table(args.test)
    found = {row: [] for row in ROWS}  # (Recall@20, MRR@20, seconds) of each seed
    weights = {}
    for seed in args.seeds:
        for row in ROWS:
            unit, config, size = row
            values = read_config(config) | {"layers": [size], "seed": seed}
            model = GRU4Rec(**values, backend="numpy")
            began = time.process_time()
            model.fit(train)
            seconds = time.process_time() - began
            found[row].append([*model.evaluate(test).values(), seconds])
            weights[row] = sum(w.size for n, w in model.weights.items() if n[-2:] != "_y")
            print(unit, size, seed, *found[row][-1], file=sys.stderr, flush=True)
    lines = []
    for row, values in found.items():
        mean, std = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
        accuracy = [f"{m:.4f} ± {s:.4f}" for m, s in zip(mean[:2], std[:2], strict=True)]
        lines.append([row[0], row[2], f"{weights[row]:,}", *accuracy, f"{mean[2]:.1f}"])
    head = ["unit", "units", "recurrent weights", "Recall@20", "MRR@20", "CPU seconds"]
    print(table(head, lines))


if __name__ == "__main__":
    main()
