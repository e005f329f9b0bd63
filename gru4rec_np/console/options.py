"""The options of a run except its hyperparameters: the log, the split, how it is watched.

One list serves the command line, TOML files and `config.toml`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import baselines, cli, inspection, runs
from gru4rec_np.data.protocols import clean, split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import COLUMNS, read_table
from gru4rec_np.errors import InputError, naming
from gru4rec_np.files import same_file, write_text
from gru4rec_np.models import hyperparameters
from gru4rec_np.models.base import Model, cut_off_of
from gru4rec_np.models.checked import MOST
from gru4rec_np.ops.ranking import TIES

# name -> (default, help). All of it may stand in a TOML file, and is written to config.toml.
DATA_OPTIONS: dict[str, tuple[Any, str]] = {
    "train": ([], "training log: TSV, CSV or Parquet; text may be compressed by gzip or Zstandard; "
                  "several files are read as one log. Without it the simulated shop is used"),
    "test": ([], "test log, used as it is; train and evaluate take several, one by one. Without it "
                 "--split cuts the training log"),
    "split": ("1d", "test set: 2d is the last two days, 0.1 the last tenth of the sessions; train "
                    "takes none, too: it trains on the whole log. With --layout lists it is a "
                    "share, 0.1 unless given"),
    "session_column": (COLUMNS[0], "name of the session id column; two names like user,session "
                                   "make one key"),
    "item_column": (COLUMNS[1], "name of the item id column"),
    "time_column": (COLUMNS[2], "name of the time column; seconds since 1970 or ISO date-times"),
    "separator": ("", "character between the columns of a text file; without it the header tells"),
    "time_unit": ("", "unit of numeric times: s, ms, us or ns (default: s)"),
    "session_gap": ("", "cut the session column's events into sessions at gaps longer than this, "
                        "such as 30m or 1h"),
    "layout": ("", "lists: a text file without a header, one session of items a line; such a file "
                   "has no times"),
    "keep": ("", "keep only rows with a value in a column, such as event=view"),
    "drop_duplicates": (False, "drop rows that repeat session, item and time of another"),
    "min_item_support": (5, "before a split, drop items with fewer events; >= 1"),
    "min_session_length": (2, "before a split, drop sessions with fewer events; >= 1"),
    "merge_repeats": (False, "before a split, merge consecutive events of the same item"),
    "shop_sessions": (20_000, "sessions of the simulated shop; >= 1"),
    "shop_items": (1000, "items of the simulated shop; >= 4"),
    "shop_seed": (0, "seed of the simulated shop; >= 0"),
    "ties": ("conservative", f"rank among equal scores: {', '.join(TIES)}"),
    "backend": ("auto", f"what runs the hot operations: {', '.join(BACKENDS)}"),
}  # fmt: skip
# For training only.
RUN_OPTIONS: dict[str, tuple[Any, str]] = {
    "validation": ("", "hold out a part of the training sessions, written as for --split, and keep "
                       "the weights of the epoch that is best on it"),
    "primary_metric": ("recall@20", "what is best for --validation: recall@K or mrr@K"),
    "patience": (0, "with --validation, stop after this many epochs without a better one; 0: "
                    "never"),
    "baselines": ("auto", "simple methods to compare with: all, none, or some of pop, s-pop, "
                          "bpr-mf, item-knn, v-sknn, markov, oracle, with commas between. auto: "
                          "those expected to take less time than the training, or under ten "
                          "seconds"),
    "hybrid": (False, "mix GRU4Rec with V-SKNN, a Markov chain and the session's own items. The "
                      "shares are learnt on --validation, or else on the last tenth of the "
                      "sessions, by a second training without them"),
    "start_from": ("", "go on from the model of an earlier run with the sessions of --train, "
                       "which may have new items. Hyperparameters and columns are those of the "
                       "run, unless given"),
    "keep_counts": (False, "with --start-from, negative sampling and logQ count the events of the "
                           "earlier trainings too"),
    "keep_training": (True, "keep training.npz of the finished run, which has the optimiser's "
                            "memory, for --start-from and for --resume DIR --n-epochs N"),
    "checkpoint": ("5m", "write a checkpoint every 5m (minutes) or every 5000 (steps); 0: only at "
                         "the start, at the end and when the run is stopped"),
}  # fmt: skip
OPTIONS = DATA_OPTIONS | RUN_OPTIONS
SPLIT_OPTIONS = ("split", "min_item_support", "min_session_length", "merge_repeats")
SHOP_OPTIONS = ("shop_sessions", "shop_items", "shop_seed")
TABLE_OPTIONS = (
    "session_column", "item_column", "time_column", "separator", "time_unit", "session_gap",
    "layout", "keep", "drop_duplicates",
)  # fmt: skip
TABLE_ONLY = ("session_column", "item_column", "time_column", "time_unit", "session_gap", "keep")
BY_SPLITTING = "items that training lacks, sessions of one event"  # what a split drops
METAVARS = {
    "train": "FILE", "test": "FILE", "split": "D|S", "validation": "D|S", "checkpoint": "N|Nm",
    "primary_metric": "METRIC", "baselines": "NAMES", "separator": "CHAR", "time_unit": "UNIT",
    "start_from": "DIR|model.npz",
    "session_gap": "TIME", "layout": "LAYOUT", "keep": "COLUMN=VALUE",
}  # fmt: skip

# The configurations that are shipped with the program, by name.
CONFIGURATIONS = {
    p.stem: p for p in sorted(Path(__file__).with_name("configurations").glob("*.toml"))
}


def add_options(group: Any, names: Iterable[str]) -> None:
    """Add some of `OPTIONS` to a group of argparse."""
    for name in names:
        add_option(group, name, *OPTIONS[name])


def add_option(group: Any, name: str, default: Any, text: str, *more_names: str) -> None:
    """Add an option to a group of argparse. The type of its default is its type."""
    options: dict[str, Any] = {"default": argparse.SUPPRESS}
    if isinstance(default, bool):
        options["action"] = argparse.BooleanOptionalAction
    else:
        kind = {int: "N", float: "X", list: "N/N"}.get(type(default), "NAME")
        options["metavar"] = METAVARS.get(name, kind)
    if name in ("train", "test"):
        options |= cli.SEVERAL
    elif default != "":
        is_list = isinstance(default, list)
        text += f" (default: {'/'.join(map(str, default)) or 'none' if is_list else default})"
    group.add_argument("--" + name.replace("_", "-"), *more_names, dest=name, help=text, **options)


def run_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `RUN_OPTIONS`; see `data_settings`."""
    run = {n: _value(n, given.get(n, default)) for n, (default, _) in RUN_OPTIONS.items()}
    if run["validation"]:
        cli.parse_split(run["validation"], "validation")
    if run["patience"] < 0:
        raise InputError(f"patience: must be a whole number >= 0, not {run['patience']}")
    if run["patience"] and not run["validation"]:
        raise InputError("patience: needs --validation")
    if run["hybrid"] and run["start_from"]:
        raise InputError("hybrid: not with --start-from, the run's model stays what it is")
    if run["keep_counts"] and not run["start_from"]:
        raise InputError("keep_counts: has no use without --start-from")
    run["primary_metric"] = run["primary_metric"].lower()
    cut_off_of(run["primary_metric"])
    runs.parse_interval(run["checkpoint"])
    baselines.names_of(run["baselines"])
    return run


def parse(p: cli.Parser, argv: list[str]) -> dict[str, Any]:
    """The options given, by name; `--n_sample` is read as `--n-sample`.

    Raises:
        InputError: an option is empty.
    """
    given = vars(p.parse_args([_with_dashes(a) if a.startswith("--") else a for a in argv]))
    require_values(given)
    return given


def require_values(given: Mapping[str, Any]) -> None:
    """Raise InputError if an option is empty, as with an unset variable of the shell."""
    for name, value in given.items():
        empty = value == "" or (isinstance(value, list) and "" in value)
        if empty and name not in ("layers", "feedforward", "items"):
            raise InputError(f"{name}: is empty; leave the option out, or give it a value")


def data_settings(given: dict[str, Any]) -> dict[str, Any]:
    """All data options: those given, as text or as a TOML file has them, and defaults.

    Args:
        given: other options are passed over, but start_from leaves some without effect.

    Raises:
        InputError: a value or a combination that cannot be used.
    """
    data = {n: _value(n, given.get(n, default)) for n, (default, _) in DATA_OPTIONS.items()}
    if "split" not in given:
        data["split"] = default_split(data["layout"])
    if data["ties"] == "tiebreaking":
        raise InputError(
            "ties: tiebreaking, which adds random noise to the scores, is not offered; median "
            "gives the mean of the ranks that it draws from"
        )
    if data["ties"] not in TIES:
        raise InputError(f"ties: must be one of {', '.join(TIES)}, not {data['ties']!r}")
    if data["test"] and not data["train"]:
        raise InputError("test: a test log needs a training log, --train FILE")
    for name, why in unused(data | {"start_from": given.get("start_from")}).items():
        if name in given:
            raise InputError(f"{name}: {why}")
    if data["merge_repeats"] and not data["train"]:
        raise InputError("merge_repeats: not with the simulated shop, whose oracle knows repeats")
    for name in ("min_item_support", "min_session_length", "shop_sessions", "shop_items"):
        if not 1 <= data[name] <= MOST:
            raise InputError(f"{name}: must be a whole number >= 1 and <= {MOST}, not {data[name]}")
    if data["shop_seed"] < 0:
        raise InputError(f"shop_seed: must be a whole number >= 0, not {data['shop_seed']}")
    if data["split"] != "none":
        cli.parse_split(data["split"])
    table_keywords(data)
    for test in data["test"]:
        for train in data["train"]:
            if same_file(test, train):
                raise InputError(f"test: {test} is the training log itself")
    return data


def require_no_days(given: Mapping[str, Any], layout: str) -> None:
    """Raise InputError if options on the command line cut lists by days.

    A run of an earlier version may have cut them so, and goes on.
    """
    for name in ("split", "validation"):
        if layout == "lists" and (given.get(name) or "").endswith("d"):
            raise InputError(
                f"{name}: lists have no times, so no days; give a share of the sessions like 0.1, "
                f"not {given[name]!r}"
            )


def default_split(layout: str) -> str:
    """What is held out of a log unless an option says it: of lists, which have no days, a share."""
    return "0.1" if layout == "lists" else DATA_OPTIONS["split"][0]


def unused(data: dict[str, Any]) -> dict[str, str]:
    """The data options that have no effect in a run, and why."""
    found: dict[str, str] = {}
    if data["train"]:
        found |= dict.fromkeys(SHOP_OPTIONS, "has no use with --train, the shop is not simulated")
    else:
        found |= dict.fromkeys(TABLE_OPTIONS, "has no use without --train FILE")
    if data["test"]:
        found |= dict.fromkeys(
            SPLIT_OPTIONS, "has no use with --test, whose files are used as they are"
        )
    elif data.get("start_from"):
        found |= dict.fromkeys(SPLIT_OPTIONS, "has no use with --start-from, which splits no log")
    return found


def _with_dashes(option: str) -> str:
    name, equals, value = option.partition("=")
    return name.replace("_", "-") + equals + value


def _value(name: str, value: Any) -> Any:
    """A data option, from the command line (text) or a TOML file, as its default's type."""
    default = OPTIONS[name][0]
    if isinstance(default, list):
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise InputError(f"{name}: must be text or a list of texts, not {value!r}")
        return [v for v in value if v]
    if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise InputError(f"{name}: must be a whole number, not {value!r}") from None
    if type(value) is not type(default):
        kind = {str: "text", int: "a whole number", bool: "true or false"}[type(default)]
        raise InputError(f"{name}: must be {kind}, not {value!r}")
    return value


def read_config(config: str) -> dict[str, Any]:
    """Hyperparameters and data options from a TOML file.

    Args:
        config: the file's path, or the name of one of `CONFIGURATIONS`.

    Raises:
        InputError: no such file or name, not TOML, a name or a value that cannot be used.
    """
    path, values = cli.read_toml(config, CONFIGURATIONS, "configuration")
    hyperparameters.check_names((name for name in values if name not in OPTIONS), str(path))
    return values


def table_keywords(data: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `read_table` that the options ask for, none for the defaults.

    Raises:
        InputError: an option is not of its form.
    """
    if data["layout"] == "lists":
        for name in (n for n in TABLE_ONLY if data[n] != DATA_OPTIONS[n][0]):
            raise InputError(f"{name}: has no use with lists, which have no times and no columns")
    found: dict[str, Any] = {n: data[n] for n in ("separator", "time_unit", "layout") if data[n]}
    if data["session_gap"]:
        found["session_gap"] = cli.parse_time(data["session_gap"], "session_gap")
    if data["keep"]:
        found["keep"] = cli.parse_keep(data["keep"])
    if data["drop_duplicates"]:
        found["duplicates"] = False
    return found


def require_one_test(data: dict[str, Any], what: str) -> None:
    """Raise InputError unless the data options give one test set, which `what` needs."""
    if len(data["test"]) > 1:
        raise InputError(f"test: {what} takes one test file")
    if data["split"] == "none" and not data["test"]:
        raise InputError(f"split: {what} needs a test set, not none")


def load_data(
    data: dict[str, Any], known: np.ndarray | None = None, dropped: Counter[str] | None = None
) -> tuple[dict[str, Sessions], Shop | None]:
    """Training and test sessions over the training catalogue, and the shop if it is simulated.

    Args:
        data: from `data_settings`.
        known: the item ids of a model to go on from, which the catalogue begins with. The training
            log is then used as it is.
        dropped: counts the training log's events that have no part in it, by the reason, and the
            rows that `read_log` counts.

    Returns:
        {"raw": the log before cleaning and splitting, unless used as it is, "train": ..., "test":
        ...}, the shop or None. With several test files there is a part "test PATH" for each, with
        split=none and no test files none. A test file is also there as read, as "raw test".

    Raises:
        InputError: a file that cannot be used, or nothing to train on or test with.
    """
    shop = None
    if data["train"]:
        log = read_log(data["train"], data, dropped)
    else:
        shop = Shop(n_items=data["shop_items"], seed=data["shop_seed"])
        log = shop.simulate(data["shop_sessions"], seed=data["shop_seed"] + 1)
    where = ", ".join(data["train"]) or "the simulated shop"
    if data["test"] or known is not None:
        with naming(where):
            train = _trainable(log, dropped)
            if known is not None:
                train = train.extend(known)
        parts = {"train": train}
        tests = dict.fromkeys(data["test"])
        for path in tests:
            name = "test" if len(tests) == 1 else f"test {path}"
            test = read_log([path], data, dropped)
            with naming(path):
                parts[name] = test.restrict(train.item_ids)
            parts[f"raw {name}"] = test
        return parts, None
    with naming(where), cli.progress("cleaning and splitting") as watch:
        cleaned = clean(
            log, data["min_item_support"], data["min_session_length"], not data["merge_repeats"]
        )
        rules = "short sessions, rare items" + ", repeats" * data["merge_repeats"]
        count_lost(dropped, f"events by cleaning ({rules})", log, cleaned)
        watch(1, 2)
        if data["split"] == "none":
            return {"raw": log, "train": _trainable(cleaned, dropped)}, shop
        with inspection.asking_for_users(log):
            train, test = split(cleaned, **cli.parse_split(data["split"]))
    count_lost(dropped, f"events by the split ({BY_SPLITTING})", cleaned, train, test)
    return {"raw": log, "train": train, "test": test}, shop


def _trainable(log: Sessions, dropped: Counter[str] | None) -> Sessions:
    """The sessions of 2 events or more. dropped: counts the other events."""
    train = log.keep_sessions(log.lengths >= 2).compact()
    if train.n_sessions == 0:
        raise InputError("no session has 2 events or more")
    count_lost(dropped, "events of sessions with one event", log, train)
    return train


def count_lost(
    dropped: Counter[str] | None, reason: str, before: Sessions, *after: Sessions
) -> None:
    """Count the events of one log that none of the others has, by the reason."""
    lost = before.n_events - sum(part.n_events for part in after)
    if dropped is not None and lost:
        dropped[reason] += lost


def held_out(
    train: Sessions,
    data: dict[str, Any],
    known: np.ndarray | None = None,
    dropped: Counter[str] | None = None,
) -> tuple[Sessions, Sessions]:
    """Training sessions, and those of the validation set.

    Args:
        known: see `load_data`. dropped: counts the events that are in neither, by the reason.

    Raises:
        InputError: nothing is left of one of them.
    """
    with naming("validation"):
        how = cli.parse_split(data["validation"], "validation")
        parts = split(train, **how, known=known)
    count_lost(dropped, f"events by --validation ({BY_SPLITTING})", train, *parts)
    return parts


def read_log(
    paths: list[str], data: dict[str, Any], dropped: Counter[str] | None = None
) -> Sessions:
    """One log from one file or more, behind a progress bar.

    Args:
        data: options, of which those in `TABLE_OPTIONS` count; the defaults hold for the others.
        dropped: counts the rows that the options leave out, by the reason.
    """
    require_different(paths)
    data = {name: data.get(name, DATA_OPTIONS[name][0]) for name in TABLE_OPTIONS}
    columns = data["session_column"], data["item_column"], data["time_column"]
    with cli.progress(f"reading {', '.join(Path(path).name for path in paths)}") as watch:
        tell = partial(print, file=sys.stderr)
        how = table_keywords(data)
        return read_table(paths, columns, watch, tell=tell, dropped=dropped, **how)


def require_different(paths: Sequence[str | Path]) -> None:
    """Raise InputError for a file that is there twice, under one name or two."""
    for i, path in enumerate(paths):
        if any(same_file(path, other) for other in paths[:i]):
            raise InputError(f"{path}: is given twice")


def write_config(path: Path, data: dict[str, Any], model: Model) -> None:
    """Write what it takes to run again, or to resume."""
    config = {name: data[name] for name in OPTIONS}
    for name in ("train", "test"):
        config[name] = [os.path.abspath(file) for file in data[name]]
    if data["start_from"]:
        config["start_from"] = os.path.abspath(data["start_from"])
    config |= model.hyperparameters()
    for name in unused(config):
        del config[name]
    write_text(
        path, runs.HEADER + tomli_w.dumps({n: v for n, v in config.items() if v not in ("", [])})
    )
