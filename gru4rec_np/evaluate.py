"""python -m gru4rec_np.evaluate: Recall and MRR of a trained model on a test log.

A command: parses options and prints. Imports the models and what is below it.
"""

import argparse
from pathlib import Path

from gru4rec_np import models
from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli, report
from gru4rec_np.data.tables import read_table
from gru4rec_np.errors import InputError
from gru4rec_np.ops.ranking import TIES, metrics


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = cli.Parser(
        prog="python -m gru4rec_np.evaluate",
        description="Recall@K and MRR@K of a trained model: every event of a test session but its "
        "first is to be found among all items that the model knows.",
    )
    p.add_argument(
        "model", metavar="DIR|model.npz", help="what the training or a model's save left"
    )
    p.add_argument(
        "--test",
        required=True,
        default=argparse.SUPPRESS,  # which --help does not show
        metavar="FILE",
        help="test log: TSV, CSV or Parquet",
    )
    cli.add_column_options(p)
    p.add_argument(
        "-k", type=cli.positive, nargs="+", default=[5, 10, 20], metavar="K", help="cut-offs"
    )
    p.add_argument(
        "--ties",
        choices=TIES,
        default=TIES[0],
        help="items with the target's score: all before it, all behind it, half",
    )
    p.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs GRU4Rec")
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = parser().parse_args()
    model = models.load(args.model, args.backend)
    with cli.progress(f"reading {Path(args.test).name}") as watch:
        log = read_table(args.test, cli.columns(args), watch)
    try:
        test = log.restrict(model.item_ids)
    except InputError as error:
        raise InputError(f"{args.test}: {error}") from None
    print(
        f"{log.n_events:,} events in {log.n_sessions:,} sessions; of them known to the model, in "
        f"sessions of 2 or more: {test.n_events:,} in {test.n_sessions:,}"
    )
    print(f"next item among {test.n_items:,}, {len(test.cases):,} cases, ties {args.ties}")
    with cli.progress("ranking") as watch:
        ranks, _ = model.ranks(test, args.ties, watch)
    print(report.table({model.name: metrics(ranks, args.k)}, args.k))


if __name__ == "__main__":
    cli.run(main)
