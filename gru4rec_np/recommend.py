"""python -m gru4rec_np.recommend: the next items of one session, or of all sessions in a file."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gru4rec_np import models
from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli
from gru4rec_np.console.options import TABLE_OPTIONS, add_options, read_log, require_values
from gru4rec_np.console.report import left_out
from gru4rec_np.console.titles import (
    check_items,
    print_ranking,
    read_items,
    read_titles,
    require_header,
)
from gru4rec_np.data.sessions import index_of, places_of
from gru4rec_np.data.tables import full_disks, readable_text, require_tsv
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole
from gru4rec_np.models.base import Model
from gru4rec_np.models.narm import NARM

AT_ONCE = 20_000  # sessions whose recommendations are in memory
ENDINGS = (".tsv", ".jsonl", ".parquet")

EPILOG = """\
examples:
  python -m gru4rec_np.recommend runs/clicks 214716935 214832672 -k 5
  python -m gru4rec_np.recommend runs/clicks --sessions today.tsv --out recs.parquet --exclude seen

recs.tsv and recs.parquet have a row for each item: SessionId, Rank, ItemId, Score, and Title with
--names. recs.jsonl has a line for each session: its id and its items with their scores."""

ARGUMENTS: cli.Arguments = {
    "model": cli.MODEL,
    "items": ({"metavar": "ITEM", "nargs": "*"}, "the session so far, oldest first"),
    "-k": (cli.K, "how many items, >= 1 (default: 20)"),
    "--exclude": ({"metavar": "seen|FILE"},
                  "do not recommend the session's own items, or those of a file, one a line"),
    "--candidates": (cli.FILE, "recommend only the items of a file, one a line"),
    "--names": cli.NAMES,
    # numpy: it answers before Numba would have loaded.
    "--backend": ({"choices": BACKENDS},
                  "what runs a network (default: numpy for one session, else auto)"),
}  # fmt: skip
OF_MANY: cli.Arguments = {
    "--sessions": (cli.SEVERAL | cli.FILE, "sessions, in a table as train reads it"),
    "--out": (cli.FILE, f"where to write: {', '.join(ENDINGS)} say the format"),
}


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "recommend",
        usage="%(prog)s DIR|model.npz (ITEM ... | --sessions FILE --out FILE) [options]",
        description="Rank the items that may follow in a session.",
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    cli.add_arguments(p, ARGUMENTS)
    many = p.add_argument_group("many sessions")
    cli.add_arguments(many, OF_MANY)
    add_options(many, TABLE_OPTIONS)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = vars(parser().parse_intermixed_args())  # items may follow options
    require_values(args)
    items, files = args.get("items", []), args.get("sessions")
    if bool(items) == bool(files):
        raise InputError("give either the items of one session, or --sessions FILE")
    unused = [n for n in ("out", *TABLE_OPTIONS) if n in args and not files]
    if unused:
        raise InputError(f"{unused[0]}: has no use without --sessions FILE")
    exclude = args.get("exclude", ())
    how: dict[str, Any] = {
        "k": args.get("k", 20),
        "exclude": exclude if exclude in ("seen", ()) else read_items(exclude),
        "candidates": read_items(args["candidates"]) if "candidates" in args else None,
    }
    titles, header = read_titles(args["names"]) if "names" in args else (None, "")
    model = models.load(args["model"], args.get("backend", "auto" if files else "numpy"))
    known = index_of(model.item_ids)
    if "candidates" in args:
        check_items(args["candidates"], how["candidates"], known, some=True)
    if exclude and exclude != "seen":
        check_items(exclude, how["exclude"], known)
    if "names" in args:
        require_header(args["names"], header, known)
    if files:
        many(model, args, how, titles)
    else:
        one(model, args, how, titles)


def one(
    model: Model, args: dict[str, Any], how: dict[str, Any], titles: dict[str, str] | None
) -> None:
    """Print the ranking of one session."""
    items, known = args["items"], index_of(model.item_ids)
    unknown = list(dict.fromkeys(text for text in items if text not in known))
    names = ", ".join(cli.shown(text) for text in unknown)
    if all(text not in known for text in items):
        raise InputError(
            f"{args['model']}: none of the given items is among the model's "
            f"{len(model.item_ids):,}, such as {cli.shown(model.item_ids[0])}: {names}"
        )
    if unknown:
        cli.say(f"ignored, unknown to the model: {names}")
    print_ranking(model.recommend(items, **how), "score", titles)
    if isinstance(model, NARM):
        clicks = zip(items, model.attention(items).tolist(), strict=True)
        print("attention: " + ", ".join(f"{cli.shown(i)} {a:.3f}" for i, a in clicks))


# --- many sessions --------------------------------------------------------------------------------


def many(
    model: Model, args: dict[str, Any], how: dict[str, Any], titles: dict[str, str] | None
) -> None:
    """Recommend for all sessions of a file; write them as they come."""
    if "out" not in args:
        raise InputError("out: --sessions needs --out FILE")
    out = Path(args["out"])
    if out.suffix not in ENDINGS:
        raise InputError(f"out: must end in {', '.join(ENDINGS)}, not {out.name!r}")
    lists = [args[name] for name in ("names", "exclude", "candidates") if name in args]
    cli.check_output(out.parent, [out.name], [*args["sessions"], *lists])
    dropped: Counter[str] = Counter()
    sessions = read_log(args["sessions"], args, dropped)
    known = index_of(model.item_ids)
    unknown = places_of(sessions.item_ids.tolist(), known) < 0
    if unknown.all():
        raise InputError(
            f"{', '.join(args['sessions'])}: none of its items, such as "
            f"{cli.shown(sessions.item_ids[0])}, is among the model's {len(known):,}, such "
            f"as {cli.shown(model.item_ids[0])}"
        )
    if lost := int(sessions.support[unknown].sum()):
        dropped["events of items that the model does not know"] += lost
    session_ids, item_ids, empty = sessions.session_ids, model.item_ids, 0
    if out.suffix == ".tsv":
        session_ids, item_ids = readable_text(session_ids), readable_text(item_ids)
        names = np.array([t for i in known if (t := (titles or {}).get(i))], object)
        require_tsv(out, [session_ids, item_ids, names], ".jsonl or .parquet")

    def blocks(watch: Callable[[float, float], None]) -> Iterator[pl.DataFrame]:
        nonlocal empty
        for first in range(0, sessions.n_sessions, AT_ONCE):
            part = sessions[first : first + AT_ONCE]
            items, scores = model.recommend_many(part, **how)
            empty += int((items[:, 0] < 0).sum())
            row, rank = np.nonzero(items >= 0)
            frame = pl.DataFrame(
                {
                    "SessionId": _column(session_ids[first:][row]),
                    "Rank": rank + 1,
                    "ItemId": _column(item_ids[items[row, rank]]),
                    "Score": scores[row, rank].astype(np.float32),
                }
            )
            if titles is not None:
                names = [titles.get(str(item), "") for item in frame["ItemId"].to_list()]
                frame = frame.with_columns(pl.Series("Title", names, pl.String))
            watch(min(first + AT_ONCE, sessions.n_sessions), sessions.n_sessions)
            yield frame

    with cli.new_folder(out.parent), cli.progress("recommending") as watch:
        write = {".tsv": write_tsv, ".jsonl": write_jsonl, ".parquet": write_parquet}[out.suffix]
        write_whole(out, lambda path: write(path, blocks(watch)))
    if empty:
        cli.say(
            f"{empty:,} of {sessions.n_sessions:,} sessions got none: no item known, or none left"
        )
    written = f"written to {out}: {sessions.n_sessions - empty:,} sessions"
    print(*left_out(dropped), written, sep="\n")


def _column(ids: np.ndarray) -> pl.Series:
    """Ids with their type, which Polars does not see where there are none."""
    return pl.Series(ids.tolist(), dtype=pl.String) if ids.dtype == object else pl.Series(ids)


def write_tsv(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write frames below each other."""
    with open(path, "wb") as file:
        for n, frame in enumerate(frames):
            frame.write_csv(file, separator="\t", quote_style="never", include_header=n == 0)


def write_jsonl(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write a line for each session that has recommendations."""
    with open(path, "w", encoding="utf-8") as file:
        for frame in frames:
            names = {"ItemId": "item", "Score": "score", "Title": "title"}
            rows = frame.iter_rows(named=True)
            for session, group in itertools.groupby(rows, lambda row: row["SessionId"]):
                items = [{names[n]: v for n, v in row.items() if n in names} for row in group]
                line = {"session": session, "items": items}
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def write_parquet(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Write the frames as parts, then join them without holding them in memory."""
    temporary = tempfile.TemporaryDirectory(prefix=".recommend-", dir=path.parent)
    with temporary as folder:
        for n, frame in enumerate(frames):
            with full_disks():
                frame.write_parquet(Path(folder, f"{n:06}.parquet"))
        with full_disks():
            pl.scan_parquet(Path(folder, "*.parquet")).sink_parquet(path)


if __name__ == "__main__":
    cli.run(main)
