"""GRU4Rec's rows of docs/results.md over several seeds: the losses, or with --units the units.

    python benchmarks/results.py --train train.tsv --test test.tsv [--seeds 1 2 3] [--units]

Prints a Markdown table. Data: the first 100,000 clicks of RSC15, cleaned and split as the
document says. The losses are trained with the usual backend. GRU, LSTM and simple RNN are compared
at equal size, weights and training time, on NumPy, where all three are written alike; time is the
process's own on the CPU, so other work on the machine counts little.
"""

import argparse
import sys
import time

import numpy as np
from common import mean_and_std, table

from gru4rec_np import GRU4Rec, read_table
from gru4rec_np.console.options import read_config

LOSSES = {
    "cross-entropy": "rsc15-100k-cross-entropy",
    "BPR-max": "rsc15-100k-bpr-max",
    "TOP1-max": "rsc15-100k-top1-max",
    "TOP1": "rsc15-100k-top1",
    "BPR": "rsc15-100k-bpr",
    "cross-entropy, 1-of-N input, in-batch negatives": "rsc15-100k-onehot",
}
# Unit, configuration, size: 87 and 174 have as many weights as the GRU, 150 takes its time.
UNITS = [
    ("GRU", "rsc15-100k-top1-max", 100),
    ("LSTM", "rsc15-100k-lstm", 100),
    ("LSTM", "rsc15-100k-lstm", 87),
    ("simple RNN", "rsc15-100k-rnn", 100),
    ("simple RNN", "rsc15-100k-rnn", 150),
    ("simple RNN", "rsc15-100k-rnn", 174),
]


def main() -> None:
    """Train each row once for each seed, print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", required=True, help="a table of sessions")
    p.add_argument("--test", required=True, help="a table of sessions")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3; >= 2")
    p.add_argument("--units", action="store_true", help="compare GRU, LSTM and simple RNN")
    args = p.parse_args()
    if len(args.seeds) < 2:
        p.error("--seeds: must be at least 2, for a standard deviation")
    train, test = read_table(args.train), read_table(args.test)
    rows = UNITS if args.units else [(name, config, None) for name, config in LOSSES.items()]
    found, weights = {row: [] for row in rows}, {}
    for seed in args.seeds:
        for row in rows:
            name, config, size = row
            values = read_config(config) | {"seed": seed} | ({"layers": [size]} if size else {})
            model = GRU4Rec.published(**values, backend="numpy" if args.units else "auto")
            began = time.process_time()
            model.fit(train, verbose=False)
            seconds = time.process_time() - began
            found[row].append([*model.evaluate(test).values(), seconds])
            weights[row] = sum(w.size for n, w in model.weights.items() if n[-2:] != "_y")
            print(name, size or "", seed, *found[row][-1], file=sys.stderr, flush=True)
    lines = []
    for row, values in found.items():
        recall, mrr, seconds = np.transpose(values)
        accuracy = [mean_and_std(recall), mean_and_std(mrr)]
        lines.append([row[0], row[2], f"{weights[row]:,}", *accuracy, f"{np.mean(seconds):.1f}"]
                     if args.units else [row[0], *accuracy, f"`--config {row[1]}`"])  # fmt: skip
    head = ["unit", "units", "recurrent weights", "Recall@20", "MRR@20", "CPU seconds"]
    print(table(head if args.units else ["loss", "Recall@20", "MRR@20", "options"], lines))


if __name__ == "__main__":
    main()
