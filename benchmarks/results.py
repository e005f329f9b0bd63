"""GRU4Rec's rows of docs/results.md over several seeds: the losses, or with --units the units.

    python benchmarks/results.py --train train.tsv --test test.tsv [--seeds 1 2 3] [--units]

Prints a Markdown table. Data: the first 100,000 clicks of RSC15, cleaned and split as the
document says. The losses are trained with the usual backend. GRU, LSTM and simple RNN are compared
at equal size, weights and training time, on NumPy, where all three are written alike; time is the
process's own on the CPU, so other work on the machine counts little.
"""

import argparse

from common import mean_and_std, table, trained

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
OF_UNITS = [
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
    rows = OF_UNITS if args.units else [(name, config, None) for name, config in LOSSES.items()]
    lines = []
    for name, config, size in rows:
        values = read_config(config) | ({"layers": [size]} if size else {})
        values |= {"backend": "numpy" if args.units else "auto"}
        models = [GRU4Rec.published(**values | {"seed": seed}) for seed in args.seeds]
        recall, mrr, seconds = trained(f"{name} {size or ''}", models, train, test)
        accuracy = [mean_and_std(recall), mean_and_std(mrr)]
        weights = sum(w.size for n, w in models[0].weights.items() if n[-2:] != "_y")
        lines.append([name, size, f"{weights:,}", *accuracy, f"{seconds.mean():.1f}"]
                     if args.units else [name, *accuracy, f"`--config {config}`"])  # fmt: skip
    head = ["unit", "units", "recurrent weights", "Recall@20", "MRR@20", "CPU seconds"]
    print(table(head if args.units else ["loss", "Recall@20", "MRR@20", "options"], lines))


if __name__ == "__main__":
    main()
