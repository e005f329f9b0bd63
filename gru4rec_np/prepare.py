"""python -m gru4rec_np.prepare: from a raw click log to a training and a test set.

A command: parses options, prints, writes files. Imports the data layer and what commands share.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path

from gru4rec_np.console import cli, report
from gru4rec_np.data.protocols import clean, split
from gru4rec_np.data.rawlogs import READERS
from gru4rec_np.data.tables import COLUMNS, read_table, write_table
from gru4rec_np.errors import InputError

DESCRIPTION = """\
Turn a raw click log into DIR/train and DIR/test. Rare items are dropped, then short sessions;
then the log is split by the time at which its sessions start. Of the test sessions only items
that are known from training are kept, and sessions that still have 2 events."""

FORMATS = """\
formats of FILE:
  rsc15         RecSys Challenge 2015, yoochoose-clicks.dat
  diginetica    CIKM Cup 2016, train-item-views.csv
  retailrocket  events.csv; the views, a visitor's log cut at gaps of more than 30 minutes
  otto          a .jsonl file; the clicks
  table         any .parquet, .csv (comma) or other (tab) file with named columns for the session,
                the item and the time, in seconds since 1970 or as an ISO date-time

example:
  python -m gru4rec_np.prepare rsc15 yoochoose-clicks.dat --out data/rsc15"""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults, and keeps the lines of the texts around the options."""


def main() -> None:
    """Run the command with the arguments in `sys.argv`.

    Raises:
        InputError: bad input; then nothing is written.
        OSError: a file that cannot be read or written.
    """
    parser = _parser()
    args = parser.parse_args()
    columns = cli.columns(args)
    if args.log != "table" and columns != COLUMNS:
        parser.error(f"the columns of {args.log} are known; only a table's can be named")
    how = cli.parse_split(args.split)
    names = [f"{side}.{args.format}" for side in ("train", "test")]
    cli.check_output(args.out, names, [args.file])
    out = [args.out / name for name in names]

    with cli.progress(f"reading {args.file.name}") as watch:
        if args.log == "table":
            raw = read_table(args.file, columns, watch)
        else:
            raw = READERS[args.log](args.file, watch=watch)
    repeats = "merge_repeats" not in args
    try:
        with cli.progress("cleaning and splitting") as watch:
            cleaned = clean(raw, args.min_item_support, args.min_session_length, repeats)
            watch(1, 2)
            train, test = split(cleaned, **how)
    except InputError as error:
        raise InputError(f"{args.file}: {error}") from None

    args.out.mkdir(parents=True, exist_ok=True)
    # Both are written in full before either takes its place.
    with (
        tempfile.TemporaryDirectory(prefix=".prepare-", dir=args.out) as new,
        cli.progress("writing") as watch,
    ):
        for part, path in zip((train, test), out, strict=True):
            write_table(part, Path(new, path.name))
            watch(train.n_events, train.n_events + test.n_events)
        for path in out:
            Path(new, path.name).replace(path)

    print(report.describe({"raw": raw, "cleaned": cleaned, "train": train, "test": test}))
    print(f"\nwritten  {out[0]}\n         {out[1]}")
    command = ["python", "-m", "gru4rec_np.train", "--train", str(out[0]), "--test", str(out[1])]
    print(f"to train {shlex.join(command)}")


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m gru4rec_np.prepare",
        description=DESCRIPTION,
        epilog=FORMATS,
        formatter_class=_Help,
    )
    parser.add_argument(
        "log", metavar="FORMAT", choices=[*READERS, "table"], help="what FILE is; see below"
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="the log, as it is or compressed by gzip"
    )
    # SUPPRESS: an option without a default shows none in the help.
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        help="folder for the train and test files; made if missing, older files are replaced",
    )
    parser.add_argument(
        "--format",
        choices=["tsv", "csv", "parquet"],
        default="tsv",
        help="format of the files written",
    )
    group = parser.add_argument_group("cleaning")
    group.add_argument(
        "--min-item-support",
        type=cli.positive,
        default=5,
        metavar="N",
        help="drop items with fewer events",
    )
    group.add_argument(
        "--min-session-length",
        type=cli.positive,
        default=2,
        metavar="N",
        help="then drop sessions with fewer events",
    )
    group.add_argument(
        "--merge-repeats",
        action="store_true",
        default=argparse.SUPPRESS,
        help="first merge a session's consecutive events of the same item into one",
    )
    parser.add_argument(
        "--split",
        default="1d",
        metavar="D|S",
        help="test set: 2d is the last two days, 0.1 the last tenth of the sessions",
    )
    cli.add_column_options(parser.add_argument_group("names of a table's columns"))
    return parser


if __name__ == "__main__":
    cli.run(main)
