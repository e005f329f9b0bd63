"""python -m gru4rec_np.train: from a click log to a trained model, its results and a plot.

A command: parses options, prints, writes files. Imports the models and what is below them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from tqdm import tqdm

from gru4rec_np import cli, hyperparameters, report, runs
from gru4rec_np.baselines import POP, SPOP, Markov, Oracle
from gru4rec_np.errors import InputError
from gru4rec_np.factors import BPRMF
from gru4rec_np.files import write_text
from gru4rec_np.gru4rec import GRU4Rec
from gru4rec_np.hyperparameters import DEFAULTS, FIELDS, MOST
from gru4rec_np.kernels import BACKENDS
from gru4rec_np.neighbours import VSKNN, ItemKNN
from gru4rec_np.ranking import TIES, metrics
from gru4rec_np.sessions import Sessions, clean, split
from gru4rec_np.shop import Shop
from gru4rec_np.tables import COLUMNS, read_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

K = (5, 10, 20)

PARAMS = (
    "hyperparameters as GRU4Rec's users keep them; without constrained_embedding or embedding the "
    "input is onehot; names left out keep this program's defaults"
)

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

FILES = ("model.npz", "config.toml", "history.csv", "metrics.json", "curves.png")
TRAINING = "training.npz"  # where an unfinished run stands


DESCRIPTION = """\
Train GRU4Rec on a click log and compare it with simple baselines. Without any option: on a
simulated shop, whose best possible ranking is known (oracle)."""

EPILOG = """\
Options win over --params, --params over --config.

examples:
  python -m gru4rec_np.train --train clicks.tsv --split 1d
  python -m gru4rec_np.train --train train.tsv --test test.tsv --params \
loss=bpr-max,constrained_embedding=True
  python -m gru4rec_np.train --train train.tsv --test test.tsv --config rsc15-100k-bpr-max"""


def parser() -> cli.Parser:
    """The command's options: data, hyperparameters, output."""
    p = cli.Parser(
        prog="python -m gru4rec_np.train",
        usage="%(prog)s [--train FILE [--test FILE | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    p.add_argument("--out", metavar="DIR", help="where the results go (default: runs/<log's name>)")
    p.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with the run that was stopped there, to the bits that it would have had; alone",
    )
    shipped = "; or, of those that come with this program: " + ", ".join(CONFIGURATIONS)
    p.add_argument(
        "--config",
        metavar="FILE|NAME",
        help="options from a TOML file, e.g. a run's config.toml" + shipped,
    )
    p.add_argument("--params", metavar="A=1,B=2", help=PARAMS)
    add_data_options(p)
    group = p.add_argument_group("run")
    for name, (default, text) in RUN_OPTIONS.items():
        _add_option(group, name, default, text)
    model = p.add_argument_group("hyperparameters")
    for name, field in FIELDS.items():
        extra = ["--epochs"] if name == "n_epochs" else []
        _add_option(model, name, DEFAULTS[name], field.metadata["help"], *extra)
    return p


def add_data_options(p: cli.Parser) -> None:
    """Options for what a run needs beside the hyperparameters."""
    group = p.add_argument_group("data")
    for name, (default, text) in DATA_OPTIONS.items():
        _add_option(group, name, default, text)


def _add_option(group: Any, name: str, default: Any, text: str, *more_names: str) -> None:
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


def settings(argv: list[str]) -> tuple[dict[str, Any], GRU4Rec, Path]:
    """Everything that a run needs, from options, --params and --config.

    Args:
        argv: the command's arguments; `--n_sample` is understood as `--n-sample`.

    Returns:
        data options, the untrained model, the output directory.

    Raises:
        InputError: a value or a combination that cannot be used.
    """
    given = parse(parser(), argv)
    out, config, params = (given.pop(name, None) for name in ("out", "config", "params"))
    resume = given.pop("resume", None)
    if resume is not None:
        if given or (out, config, params) != (None, None, None):
            raise InputError("resume: goes alone; the run's options are in its config.toml")
        out, config = resume, _unfinished(Path(resume))

    values: dict[str, Any] = read_config(config) if config else {}
    if params is not None:
        values |= hyperparameters.parse_params(params, values.get("input", "onehot"))
    for name, text in given.items():
        if name in FIELDS and isinstance(text, str):
            text = hyperparameters.parse_value(name, text)
        values[name] = text

    data = data_settings(values) | _run_settings(values)
    values = {name: value for name, value in values.items() if name not in data}
    model = GRU4Rec(**values, backend=data["backend"])
    name = Path(data["train"]).name.split(".")[0] if data["train"] else "shop"
    out = Path(out or f"runs/{name}")
    if resume is None and (out / TRAINING).exists():
        raise InputError(
            f"--out {out}: an unfinished run is there; --resume {out} goes on with it, or delete "
            f"{out / TRAINING}"
        )
    return data, model, out


def _unfinished(folder: Path) -> str:
    """The configuration of a run that can go on.

    Raises:
        InputError: there is none.
    """
    if not (folder / TRAINING).is_file():
        raise InputError(
            f"resume: {folder}: nothing to go on with, there is no {TRAINING}: the run is "
            "finished, or was stopped in its first steps"
        )
    return str(folder / "config.toml")


def _run_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options of RUN_OPTIONS, as `data_settings`."""
    run = {n: _data_value(n, given.get(n, default)) for n, (default, _) in RUN_OPTIONS.items()}
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
    of_data = {n: _data_value(n, value) for n, value in given.items() if n in DATA_OPTIONS}
    data = {n: of_data.get(n, default) for n, (default, _) in DATA_OPTIONS.items()}
    _check_data(data, set(of_data))
    return data


def _unused(data: dict[str, Any]) -> dict[str, str]:
    """The data options that have no part in a run, and why."""
    unused = {}
    if data["train"]:
        unused |= dict.fromkeys(SHOP_OPTIONS, "has no use with --train, the shop is not simulated")
    else:
        unused |= dict.fromkeys(COLUMN_OPTIONS, "has no use without --train FILE")
    if data["test"]:
        unused |= dict.fromkeys(
            SPLIT_OPTIONS, "has no use with --test, whose files are taken as they are"
        )
    return unused


def _check_data(data: dict[str, Any], given: set[str]) -> None:
    """Raise InputError for data options that cannot be used.

    Args:
        data: all of them. given: those that did not come from the defaults.
    """
    if data["ties"] not in TIES:
        raise InputError(f"ties: must be one of {', '.join(TIES)}, not {data['ties']!r}")
    if data["test"] and not data["train"]:
        raise InputError("test: a test log needs a training log, --train FILE")
    for name, why in _unused(data).items():
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


def _data_value(name: str, value: Any) -> Any:
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


def train_with_progress(
    model: GRU4Rec,
    train: Sessions,
    validation: Sessions | None,
    patience: int,
    keeper: runs.Keeper,
) -> None:
    """Fit the model behind a progress bar, with a line for each epoch.

    Goes on from what the keeper has kept, if there is something.

    Raises:
        Stopped: a signal asked for it.
    """
    resume = keeper.path if keeper.path.exists() else None
    with tqdm(unit=" events", unit_scale=True, dynamic_ncols=True, disable=None) as bar:

        def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
            bar.total = total * model.n_epochs
            bar.set_description(f"epoch {epoch}/{model.n_epochs}", refresh=False)
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update((epoch - 1) * total + done - bar.n)
            keeper.after_chunk(model.training)

        def on_epoch(row: dict[str, float]) -> None:
            bar.clear()
            valid = f"   Recall@20 {row['recall@20']:.4f}" if "recall@20" in row else ""
            print(
                f"epoch {row['epoch']:>{len(str(model.n_epochs))}}/{model.n_epochs}"
                f"   loss {row['loss']:.4f}{valid}   {row['events_per_second']:,.0f} events/s"
                f"   {row['seconds']:.1f} s",
                flush=True,
            )

        model.fit(train, on_chunk, on_epoch, validation, patience, resume)


def write_config(out: Path, data: dict[str, Any], model: GRU4Rec) -> None:
    """Leave in a directory what it takes to run again, or to go on."""
    absolute = {n: str(Path(data[n]).resolve()) for n in ("train", "test") if data[n]}
    config = {**data, **absolute, **model.hyperparameters()}
    for name in _unused(data):
        del config[name]
    write_text(
        out / "config.toml",
        "# python -m gru4rec_np.train --config config.toml\n"
        + tomli_w.dumps({n: v for n, v in config.items() if v != ""}),
    )


def write_results(
    out: Path,
    model: GRU4Rec,
    results: dict[str, dict[str, float]],
    ranks: dict[str, Any],
) -> None:
    """Leave history, metrics and plot in a directory, beside the model."""
    text = io.StringIO()
    rows = csv.DictWriter(text, model.history[0], lineterminator="\n")
    rows.writeheader()
    rows.writerows(model.history)

    write_text(out / "history.csv", text.getvalue())
    write_text(out / "metrics.json", json.dumps(results, indent=2) + "\n")
    updates = len(model.losses) // len(model.history)
    report.plot_curves(out / "curves.png", model.losses, updates, ranks)


def main() -> None:
    """Run the command on sys.argv."""
    data, model, out = settings(sys.argv[1:])
    cli.check_output(out, FILES, [Path(data[name]) for name in ("train", "test") if data[name]])
    parts, shop = load_data(data)
    out.mkdir(parents=True, exist_ok=True)
    with runs.alone(out):
        run(data, model, out, parts, shop)


def run(
    data: dict[str, Any],
    model: GRU4Rec,
    out: Path,
    parts: dict[str, Sessions],
    shop: Shop | None,
) -> None:
    """Train, compare, write: what `main` does when all is read."""
    test = parts["test"]
    if data["validation"]:
        parts["train"], parts["validation"] = _held_out(parts["train"], data)
        test = test.restrict(parts["train"].item_ids)
    train = parts["train"]
    if shop:
        print(f"simulated shop: {shop.n_items:,} items, seed {shop.seed}")
    print(report.describe(parts), "", sep="\n")
    print(
        f"GRU4Rec: {model.unit} layers {'/'.join(map(str, model.layers))}, input {model.input}, "
        f"loss {model.loss}, {model.n_sample} extra negatives; backend {model.ops.name} "
        f"({model.ops.why})"
    )
    interval = runs.parse_interval(data["checkpoint"])
    keeper = runs.Keeper(out / TRAINING, *interval, partial(write_config, out, data, model))
    try:
        with keeper:
            train_with_progress(model, train, parts.get("validation"), data["patience"], keeper)
    except runs.Stopped:
        again = shlex.join(["python", "-m", "gru4rec_np.train", "--resume", str(out)])
        print(f"stopped; to go on: {again}", file=sys.stderr)
        sys.exit(128 + keeper.asked)
    if parts.get("validation") and len(model.history) < model.n_epochs:
        print(f"no better epoch in {data['patience']}: stopped")
    model.save(out / "model.npz")  # now, whatever becomes of the rest

    methods = [POP(), SPOP(), BPRMF(), ItemKNN(), VSKNN(), Markov(), model]
    methods += [Oracle(shop)] if shop else []
    ranks = _ranks(methods, model, train, test, data["ties"])
    results = {name: metrics(rank, K) for name, (rank, _) in ranks.items()}
    print(f"\nnext item among {train.n_items:,}, {len(test.cases):,} cases, ties {data['ties']}")
    print(report.table(results, K))
    if shop:
        print(about_oracle(parts))

    write_results(out, model, results, ranks)
    keeper.path.unlink(missing_ok=True)
    print(f"\nwritten to {out}/: {', '.join(FILES)}")
    example = [str(out), *map(str, test.session(0)[:2])]
    print("try:", shlex.join(["python", "-m", "gru4rec_np.recommend", *example]))


def _ranks(
    methods: list[Any], trained: GRU4Rec, train: Sessions, test: Sessions, ties: str
) -> dict[str, tuple[Any, Any]]:
    """Each method's name to its `ranks`, once it has learnt, unless it is the trained one."""
    ranks = {}
    for n, method in enumerate(methods, 1):
        of_all = f"{method.name}, {n} of {len(methods)}"
        if method is not trained:
            with cli.progress(f"{of_all}: learning") as watch:
                method.fit(train, watch)
        with cli.progress(f"{of_all}: ranking") as watch:
            ranks[method.name] = method.ranks(test, ties, watch)
    return ranks


def _held_out(train: Sessions, data: dict[str, Any]) -> tuple[Sessions, Sessions]:
    """Training sessions, and those of the validation set.

    Raises:
        InputError: nothing is left of one of them.
    """
    try:
        return split(train, **cli.parse_split(data["validation"]))
    except InputError as error:
        raise InputError(f"validation: {error}") from None


def about_oracle(parts: dict[str, Sessions]) -> str:
    """What the oracle's row means: it is exact only where it sees all that the shop did."""
    kept = sum(part.n_events for name, part in parts.items() if name != "raw")
    dropped = parts["raw"].n_events - kept
    if not dropped:
        return "(oracle: the best that any method can reach on this shop, on average)"
    return (
        "(oracle: approximately the best that any method can reach on this shop, on average; "
        f"cleaning and splitting dropped {dropped:,} events that it does not see)"
    )


if __name__ == "__main__":
    cli.run(main)
