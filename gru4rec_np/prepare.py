"""python -m gru4rec_np.prepare: from a raw click log to a training and a test set."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from gru4rec_np.console import cli, inspection, report
from gru4rec_np.console.options import (
    DATA_OPTIONS,
    TABLE_OPTIONS,
    add_options,
    default_split,
    parse,
    read_log,
    require_different,
    require_no_days,
)
from gru4rec_np.data.protocols import PROTOCOLS, Protocol, clean, split
from gru4rec_np.data.rawlogs import CUT_AT_GAPS, READERS
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import drop_duplicates, write_table
from gru4rec_np.errors import naming

# The options that only a table has.
OF_TABLE = [n for n in TABLE_OPTIONS if n not in ("session_gap", "layout", "drop_duplicates")]

DESCRIPTION = """\
Turn a raw click log into DIR/train and DIR/test, as GRU4Rec's own scripts do. Short sessions and
rare items are dropped, then the log is split by time. Of the test set, only items that training
has are kept, and sessions that still have 2 events."""

FORMATS = """\
FORMAT, what FILE is:
  rsc15         RecSys Challenge 2015: yoochoose-clicks.dat, yoochoose-test.dat
  diginetica    CIKM Cup 2016: train-item-views.csv
  retailrocket  events.csv; the views. A visitor's log is cut at gaps of more than an hour
  rees46        2019-Oct.csv, 2019-Nov.csv, ...; the views
  coveo         SIGIR eCom 2021: browsing_train.csv; the views of a product's page
  otto          a .jsonl file; the clicks
  table         a .parquet, .csv or .tsv file with named columns for session, item and time
  lists         a text file with a session a line, its items separated by blanks. It has no times,
                so the test set is a share of the sessions: the last tenth, unless --split is given
  check         a table, of which nothing is prepared: only what --check does

--protocol, which published data set's rules to follow (docs/data.md names the scripts):
  rsc15         one pass of cleaning; test: sessions that end in the last day
  all others    repeats are merged, cleaning goes on until nothing changes; test: sessions that
                start in the last day, or 7 days for retailrocket and diginetica. Training ends at
                the cut. rees46, coveo and retailrocket cut sessions at gaps of more than an hour;
                rees46 cuts a user's log. With table, only --session-gap cuts

examples:
  python -m gru4rec_np.prepare rsc15 yoochoose-clicks.dat --out rsc15
  python -m gru4rec_np.prepare retailrocket events.csv --protocol retailrocket --out retailrocket
  python -m gru4rec_np.prepare check clicks.tsv"""

ARGUMENTS: cli.Arguments = {
    "log": ({"metavar": "FORMAT", "choices": [*READERS, "table", "lists", "check"]},
            "what FILE is; see below"),
    "files": (cli.SEVERAL | cli.FILE,
              "the log; text may be compressed by gzip, and a table or lists by Zstandard; several "
              "files are read as one log"),
    "--out": (cli.DIR,
              "folder for the files train and test, made if missing; older ones of that format "
              "are replaced"),
    "--format": ({"choices": ["tsv", "csv", "parquet"], "default": "tsv"},
                 "format of the files written (default: tsv)"),
    "--protocol": ({"metavar": "NAME", "choices": [*PROTOCOLS]},
                   "follow the script of a published data set: rsc15, yoochoose, rees46, coveo, "
                   "retailrocket or diginetica; see below (default: rsc15)"),
    "--check": (cli.FLAG,
                "also tell whether the order of clicks matters, what of the test set training "
                "lacks, and how sessions are spread over time; with a plot in DIR/check.png"),
}  # fmt: skip
RULES: cli.Arguments = {
    "--min-item-support": (cli.COUNT | {"default": 5},
                           "drop items with fewer events, >= 1 (default: 5)"),
    "--min-session-length": (cli.COUNT | {"default": 2},
                             "drop sessions with fewer events, >= 1 (default: 2)"),
    "--merge-repeats": (cli.ON_OR_OFF,
                        "first merge consecutive events of the same item (default: the protocol's; "
                        "rsc15: no)"),
    "--until-stable": (cli.ON_OR_OFF,
                       "drop sessions and items until nothing changes (default: the protocol's; "
                       "rsc15: no)"),
    "--session-gap": (cli.UNSET | {"metavar": "TIME"},
                      "cut a user's log into sessions at gaps longer than this, such as 30m or 1h; "
                      "for retailrocket (default: 1h), rees46, coveo, table"),
    "--drop-duplicates": (cli.FLAG, "drop events that repeat session, item and time of another"),
    "--split": ({"metavar": "D|S"},
                "test set: 2d is the last two days, 0.1 the last tenth of the sessions (default: "
                "the protocol's days; 0.1 for lists)"),
    "--split-by": ({"choices": ["end", "start"]},
                   "which event of a session decides whether it is a test session. With start, "
                   "training sessions lose their events after the cut (default: the protocol's; "
                   "rsc15: end)"),
}  # fmt: skip


def main() -> None:
    """Run the command with the arguments in `sys.argv`.

    Raises:
        InputError: bad input; then nothing is written.
        OSError: a file that cannot be read or written.
    """
    parser = _parser()
    defaults = {name: DATA_OPTIONS[name][0] for name in (*OF_TABLE, "session_gap")}
    args = argparse.Namespace(**defaults | parse(parser, sys.argv[1:]))
    args.files = [Path(file) for file in args.files]
    _check_arguments(parser, args)
    protocol, how = _protocol(args)
    has_times = args.log != "lists"
    only_check = args.log == "check"
    out = Path(args.out) if args.out else args.files[0].parent
    names = [] if only_check else [f"train.{args.format}", f"test.{args.format}"]
    pictures = [f"{args.files[0].stem}.check.png"] if only_check else ["check.png"] * args.check
    cli.check_output(out, names + pictures, args.files)

    dropped: Counter[str] = Counter()
    raw = _read(args, protocol, dropped)
    files = ", ".join(map(str, args.files))
    with naming(files), cli.progress("cleaning and splitting") as watch:
        cleaned = clean(
            raw,
            args.min_item_support,
            args.min_session_length,
            protocol.repeats,
            protocol.until_stable,
        )
        watch(1, 2)
        with inspection.asking_for_users(raw):
            train, test = split(cleaned, **how)

    if not only_check:
        with cli.new_folder(out):
            _write(out, dict(zip(names, (train, test), strict=True)))
        print(report.describe({"raw": raw, "cleaned": cleaned, "train": train, "test": test}))
        print()
    rules = _rules(args, protocol, how.get("share"))
    print(*report.left_out(dropped), f"rules     {rules}", sep="\n")
    if has_times and not pictures:  # the check shows them
        print(f"durations {inspection.about_durations(raw.durations)}")
    if has_times and (line := inspection.warning(raw.durations)):
        print(f"warning: {line}", file=sys.stderr)
    for picture in pictures:
        with cli.progress("checking"):
            found = inspection.inspect(cleaned, **how, has_times=has_times)
            with cli.new_folder(out):
                inspection.plot(out / picture, found)
        print(f"\n{inspection.table(found)}\n\nplot      {out / picture}")
    if not only_check:
        paths = [str(out / name) for name in names]
        print("written   " + "\n          ".join(paths))
        command = ["python", "-m", "gru4rec_np.train", "--train", paths[0], "--test", paths[1]]
        print(f"to train  {shlex.join(command)}")


def _read(args: argparse.Namespace, protocol: Protocol, dropped: Counter[str]) -> Sessions:
    """The log of all files. dropped: counts the rows that are left out, by the reason."""
    if args.log in READERS:
        gap = {"gap_minutes": protocol.gap_minutes} if args.log in CUT_AT_GAPS else {}
        with cli.progress(f"reading {', '.join(path.name for path in args.files)}") as watch:
            log = READERS[args.log](args.files, watch=watch, dropped=dropped, **gap)
    else:
        how = {"layout": "lists" if args.log == "lists" else "", "drop_duplicates": False}
        log = read_log([str(path) for path in args.files], vars(args) | how, dropped)
    return drop_duplicates(log, dropped) if args.drop_duplicates else log


def _write(out: Path, parts: dict[str, Sessions]) -> None:
    """Write each part under its name. All are complete before any takes its place."""
    with (
        tempfile.TemporaryDirectory(prefix=".prepare-", dir=out) as new,
        cli.progress("writing") as watch,
    ):
        done, total = 0, sum(part.n_events for part in parts.values())
        for name, part in parts.items():
            try:
                write_table(part, Path(new, name))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(out / name)) from error
            done += part.n_events
            watch(done, total)
        for name in parts:
            Path(new, name).replace(out / name)


def _protocol(args: argparse.Namespace) -> tuple[Protocol, dict[str, Any]]:
    """The rules asked for, and how to split: keyword arguments of `split`."""
    protocol = PROTOCOLS[args.protocol or "rsc15"]
    given: dict[str, Any] = {}
    if args.merge_repeats is not None:
        given["repeats"] = not args.merge_repeats
    if args.until_stable is not None:
        given["until_stable"] = args.until_stable
    if args.split_by is not None:
        given["by"] = args.split_by
    if args.session_gap:
        given["gap_minutes"] = cli.parse_time(args.session_gap, "session_gap") / 60
    elif args.log not in CUT_AT_GAPS:
        given["gap_minutes"] = None
    elif args.log == "retailrocket":  # has no sessions of its own
        given["gap_minutes"] = protocol.gap_minutes or 60.0
    if args.split or args.log == "lists":
        require_no_days({"split": args.split}, args.log)
        how = cli.parse_split(args.split or default_split("lists"))
    else:
        how = {"days": protocol.days}
    # A share of the sessions has no use for the hour of the log's end.
    protocol = dataclasses.replace(
        protocol,
        **given,
        days=how.get("days", protocol.days),
        full_hour=protocol.full_hour and "days" in how,
    )
    return protocol, how | {"by": protocol.by, "full_hour": protocol.full_hour}


def _rules(args: argparse.Namespace, protocol: Protocol, share: float | None) -> str:
    """What was done, in a line. share: of the sessions that are test sessions, None for days."""
    gap = protocol.gap_minutes
    days = "last day" if protocol.days == 1 else f"last {protocol.days:g} days"
    test = f"sessions that {protocol.by} in the {days}"
    if share is not None:
        order = "in the order of the file" if args.log == "lists" else f"by their {protocol.by}"
        test = f"the last {share:g} of the sessions, {order}"
    rules = [
        f"sessions cut at gaps over {gap:g} min" if gap else "",
        "" if protocol.repeats else "repeats merged",
        f"sessions under {args.min_session_length} and items under {args.min_item_support} events "
        + ("dropped until nothing changes" if protocol.until_stable else "dropped in one pass"),
        f"test set: {test}" + (", counted from the full hour" if protocol.full_hour else ""),
    ]
    return "; ".join(rule for rule in rules if rule)


def _check_arguments(parser: cli.Parser, args: argparse.Namespace) -> None:
    """End the command where options do not fit together."""
    if args.out is None and args.log != "check":
        parser.error("the following arguments are required: --out")
    if args.out is None and args.files[0].parent in (Path("/dev"), Path("/dev/fd")):
        parser.error(f"--out: is needed, since the plot cannot be beside {args.files[0]}")
    try:
        (args.out or "").encode()
    except UnicodeEncodeError as error:  # Polars writes nothing there
        parser.error(f"--out {args.out}: the path must be UTF-8: {error.reason}")
    if args.log in READERS:
        require_different(args.files)
        if any(getattr(args, name) != DATA_OPTIONS[name][0] for name in OF_TABLE):
            parser.error(
                f"the columns of {args.log} are known; columns, --separator, --time-unit and "
                "--keep are options of a table"
            )
        if args.session_gap and args.log not in CUT_AT_GAPS:
            parser.error(
                f"--session-gap: {args.log} has sessions; it is an option of "
                f"{', '.join(CUT_AT_GAPS)} and table"
            )


def _parser() -> cli.Parser:
    parser = cli.Parser("prepare", description=DESCRIPTION, epilog=FORMATS)
    cli.add_arguments(parser, ARGUMENTS)
    rules = parser.add_argument_group("rules, where they differ from the protocol's")
    cli.add_arguments(rules, RULES)
    add_options(parser.add_argument_group("a table's columns"), OF_TABLE)
    return parser


if __name__ == "__main__":
    cli.run(main)
