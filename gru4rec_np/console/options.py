"""The options of a run beside its hyperparameters: the log and how it is cut; and what they read.

One list serves the command line, TOML files and `config.toml`. Imports cli, the hyperparameters and
the data layer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli, runs
from gru4rec_np.data.protocols import clean, split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import COLUMNS, read_table
from gru4rec_np.errors import InputError
from gru4rec_np.models import hyperparameters
from gru4rec_np.models.hyperparameters import MOST
from gru4rec_np.ops.ranking import TIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a run needs beside the hyperparameters: name -> (default, help). All of it may stand in a
# TOML file, and all of it is written to config.toml.
DATA_OPTIONS: dict[str, tuple[Any, str]] = {
    "train": ("", "training log: TSV, CSV or Parquet. Without it the simulated shop is used"),
    "test": ("", "test log, taken as it is; without it --split cuts the training log"),
    "split": ("1d", "test set: 2d is the last two days, 0.1 the last tenth of the sessions"),
    "session_column": (COLUMNS[0], "column of the session id"),
    "item_column": (COLUMNS[1], "column of the item id"),
    "time_column": (COLUMNS[2], "column of the time: seconds since 1970 or ISO"),
    "min_item_support": (5, "before a split, drop items with fewer events"),
    "min_session_length": (2, "before a split, drop sessions with fewer events"),
    "merge_repeats": (False, "before a split, merge an item's consecutive repeats"),
    "shop_sessions": (20_000, "sessions that the simulated shop has"),
    "shop_items": (1000, "items that it has"),
    "shop_seed": (0, "its seed"),
    "ties": ("conservative", f"rank of equal scores: {', '.join(TIES)}"),
    "backend": ("auto", f"what runs the hot operations: {', '.join(BACKENDS)}"),
}
# What it needs to be watched and stopped; not for the other commands.
RUN_OPTIONS: dict[str, tuple[Any, str]] = {
    "validation": ("", "hold out a part of the training sessions, as --split does, to keep the "
                       "epoch with the best Recall@20 on it"),
    "patience": (0, "with --validation, stop after so many epochs without a better one; 0: never"),
    "checkpoint": ("5m", "write down where the training stands every 5m (minutes) or every 5000 "
                         "(steps); 0: only at the start and when it is stopped"),
}  # fmt: skip
SPLIT_OPTIONS = ("split", "min_item_support", "min_session_length", "merge_repeats")
SHOP_OPTIONS = ("shop_sessions", "shop_items", "shop_seed")
COLUMN_OPTIONS = ("session_column", "item_column", "time_column")

# The hyperparameters that come with the program, by name.
CONFIGURATIONS = {
    p.stem: p for p in sorted(Path(__file__).with_name("configurations").glob("*.toml"))
}


def add_data_options(p: cli.Parser) -> None:
    """Options for what a run needs beside the hyperparameters."""
    group = p.add_argument_group("data")
    for name, (default, text) in DATA_OPTIONS.items():
        add_option(group, name, default, text)


def add_option(group: Any, name: str, default: Any, text: str, *more_names: str) -> None:
    """An option to a group of argparse's: its default says its type, and stands in its help."""
    flag = isinstance(default, bool)
    shown = "/".join(map(str, default)) or "none" if isinstance(default, list) else default
    options: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if flag else {}
    if not flag:
        special = {"train": "FILE", "test": "FILE", "split": "D|S", "validation": "D|S"}
        special |= {"checkpoint": "N|Nm"}
        kind = {int: "N", float: "X", list: "N/N"}.get(type(default), "NAME")
        options["metavar"] = special.get(name, kind)
    suffix = f" (default: {shown})" if shown != "" else ""
    group.add_argument(
        "--" + name.replace("_", "-"), *more_names, dest=name, help=text + suffix, **options
    )


def run_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options of RUN_OPTIONS, as `data_settings`."""
    run = {n: _value(n, given.get(n, default)) for n, (default, _) in RUN_OPTIONS.items()}
    if run["validation"]:
        try:
            cli.parse_split(run["validation"])
        except InputError as error:
            raise InputError(str(error).replace("split:", "validation:")) from None
    if run["patience"] < 0 or (run["patience"] and not run["validation"]):
        raise InputError(
            "patience: must be a whole number >= 0, and 0 without --validation, not "
            f"{run['patience']}"
        )
    runs.parse_interval(run["checkpoint"])
    return run


def parse(p: cli.Parser, argv: list[str]) -> dict[str, Any]:
    """The options given, by name; `--n_sample` is understood as `--n-sample`."""
    return vars(p.parse_args([_with_dashes(a) if a.startswith("--") else a for a in argv]))


def data_settings(given: dict[str, Any]) -> dict[str, Any]:
    """All data options: those given, as text or as a TOML file has them, and defaults.

    Raises:
        InputError: a value or a combination that cannot be used.
    """
    of_data = {n: _value(n, value) for n, value in given.items() if n in DATA_OPTIONS}
    data = {n: of_data.get(n, default) for n, (default, _) in DATA_OPTIONS.items()}
    _check_data(data, set(of_data))
    return data


def unused(data: dict[str, Any]) -> dict[str, str]:
    """The data options that have no part in a run, and why."""
    found = {}
    if data["train"]:
        found |= dict.fromkeys(SHOP_OPTIONS, "has no use with --train, the shop is not simulated")
    else:
        found |= dict.fromkeys(COLUMN_OPTIONS, "has no use without --train FILE")
    if data["test"]:
        found |= dict.fromkeys(
            SPLIT_OPTIONS, "has no use with --test, whose files are taken as they are"
        )
    return found


def _check_data(data: dict[str, Any], given: set[str]) -> None:
    """Raise InputError for data options that cannot be used.

    Args:
        data: all of them. given: those that did not come from the defaults.
    """
    if data["ties"] not in TIES:
        raise InputError(f"ties: must be one of {', '.join(TIES)}, not {data['ties']!r}")
    if data["test"] and not data["train"]:
        raise InputError("test: a test log needs a training log, --train FILE")
    for name, why in unused(data).items():
        if name in given:
            raise InputError(f"{name}: {why}")
    if data["merge_repeats"] and not data["train"]:
        raise InputError("merge_repeats: not with the simulated shop, whose oracle knows repeats")
    for name in ("min_item_support", "min_session_length", "shop_sessions", "shop_items"):
        if not 1 <= data[name] <= MOST:
            raise InputError(f"{name}: must be a whole number >= 1 and <= {MOST}, not {data[name]}")
    if data["shop_seed"] < 0:
        raise InputError(f"shop_seed: must be a whole number >= 0, not {data['shop_seed']}")
    cli.parse_split(data["split"])


def _with_dashes(option: str) -> str:
    name, equals, value = option.partition("=")
    return name.replace("_", "-") + equals + value


def _value(name: str, value: Any) -> Any:
    """A data option, from the command line (text) or a TOML file, as its default's type."""
    default = {**DATA_OPTIONS, **RUN_OPTIONS}[name][0]
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
    path = Path(config) if Path(config).is_file() else CONFIGURATIONS.get(config, Path(config))
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        repr(values)  # fails for a number that is too long for any message
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, and no configuration of that name; there are "
            + ", ".join(CONFIGURATIONS)
        ) from None
    except (ValueError, RecursionError) as error:  # not only of TOML: numbers, UTF-8
        raise InputError(f"{path}: not a TOML file: {error}") from None
    hyperparameters.check_names(
        (n for n in values if n not in DATA_OPTIONS and n not in RUN_OPTIONS), str(path)
    )
    return values


def load_data(data: dict[str, Any]) -> tuple[dict[str, Sessions], Shop | None]:
    """Training and test sessions over the training catalogue, and the shop if it is simulated.

    Args:
        data: from `settings`.

    Returns:
        {"raw": the log before it was cleaned and split, if it was, "train": ..., "test": ...},
        the shop or None.

    Raises:
        InputError: a file that cannot be used, or nothing to train on or test with.
    """
    shop = None
    if data["train"]:
        columns = data["session_column"], data["item_column"], data["time_column"]
        log = _read(data["train"], columns)
    else:
        shop = Shop(n_items=data["shop_items"], seed=data["shop_seed"])
        log = shop.simulate(data["shop_sessions"], seed=data["shop_seed"] + 1)
    if data["test"]:
        test = _read(data["test"], columns)
        train = log.keep_sessions(log.lengths >= 2).compact()
        if train.n_sessions == 0:
            raise InputError(f"{data['train']}: no session has 2 events or more")
        try:
            return {"train": train, "test": test.restrict(train.item_ids)}, None
        except InputError as error:
            raise InputError(f"{data['test']}: {error}") from None
    where = data["train"] or "the simulated shop"
    try:
        with cli.progress("cleaning and splitting") as watch:
            cleaned = clean(
                log, data["min_item_support"], data["min_session_length"], not data["merge_repeats"]
            )
            watch(1, 2)
            train, test = split(cleaned, **cli.parse_split(data["split"]))
        return {"raw": log, "train": train, "test": test}, shop
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _read(path: str, columns: tuple[str, str, str]) -> Sessions:
    """A log, behind a progress bar."""
    with cli.progress(f"reading {Path(path).name}") as watch:
        return read_table(path, columns, watch)
