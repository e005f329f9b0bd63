"""python -m gru4rec_np.evaluate: Recall, MRR and NDCG of a trained model on test logs."""

import argparse
import sys
from collections import Counter

from gru4rec_np import models
from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli, report
from gru4rec_np.console.options import TABLE_OPTIONS, add_options, parse, read_log
from gru4rec_np.console.titles import check_items, read_items
from gru4rec_np.data.sessions import index_of
from gru4rec_np.errors import naming
from gru4rec_np.ops.ranking import TIES

CUT_OFFS = [5, 10, 20]

ARGUMENTS: cli.Arguments = {
    "model": cli.MODEL,
    "--test": (cli.SEVERAL | cli.FILE | cli.UNSET | {"required": True},
               "test logs, TSV, CSV or Parquet; evaluated one by one"),
}  # fmt: skip
OPTIONS: cli.Arguments = {
    "-k": (cli.SEVERAL | cli.K | cli.UNSET,
           f"cut-offs, each >= 1 (default: {' '.join(map(str, CUT_OFFS))})"),
    "--ties": ({"choices": TIES, "default": TIES[0]},
               "rank among items with the target's score: last, first, or in the middle"),
    "--coverage": (cli.FLAG,
                   "also the share of the catalogue that is recommended at the last cut-off; "
                   "slower"),
    "--candidates": (cli.FILE | cli.UNSET,
                     "rank only the items of a file, one a line; a case of another item is a miss"),
    "--backend": ({"choices": BACKENDS, "default": "auto"}, "what runs a network"),
}  # fmt: skip


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "evaluate",
        description="Recall@K, MRR@K and NDCG@K of a trained model. Every event of a test session "
        "except its first is ranked among all items that the model knows.",
    )
    cli.add_arguments(p, ARGUMENTS)
    add_options(p.add_argument_group("format of the test logs"), TABLE_OPTIONS)
    cli.add_arguments(p, OPTIONS)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = argparse.Namespace(**parse(parser(), sys.argv[1:]))
    candidates = read_items(args.candidates) if "candidates" in args else None
    model, ks = models.load(args.model, args.backend), vars(args).get("k", CUT_OFFS)
    if candidates is not None:
        check_items(args.candidates, candidates, index_of(model.item_ids), some=True)
    for n, file in enumerate(dict.fromkeys(args.test)):
        dropped: Counter[str] = Counter()
        log = read_log([file], vars(args), dropped)
        with naming(file):
            test = log.restrict(model.item_ids)
        if len(args.test) > 1:
            print("\n" * bool(n) + cli.shown(file, 200))
        print(*report.left_out(dropped), report.about_test(log, test), sep="\n")
        among = f"{test.n_items:,}" if candidates is None else f"the items of {args.candidates}"
        print(f"next item among {among}, {len(test.cases):,} cases, ties {args.ties}")
        with cli.progress("ranking") as watch:
            ranks, _ = model.ranks(test, args.ties, watch, candidates)
        figures = report.figures(ranks, ks)
        if args.coverage:
            with cli.progress("coverage") as watch:
                found = report.coverage(model, test, ks[-1], watch)
            figures[f"coverage@{ks[-1]}"] = found
        print(report.table({model.name: figures}, ks), flush=True)


if __name__ == "__main__":
    cli.run(main)
