"""python -m gru4rec_np.train: from a click log to a trained model, its results and a plot.

A command: prints and writes files. Imports the options, the models and what is below them.
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

from gru4rec_np.console import cli, report, runs
from gru4rec_np.console.options import (
    CONFIGURATIONS,
    RUN_OPTIONS,
    add_data_options,
    add_option,
    data_settings,
    load_data,
    parse,
    read_config,
    run_settings,
    unused,
)
from gru4rec_np.data.protocols import split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_text
from gru4rec_np.models import hyperparameters
from gru4rec_np.models.baselines import POP, SPOP, Markov, Oracle
from gru4rec_np.models.factors import BPRMF
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hyperparameters import DEFAULTS, FIELDS
from gru4rec_np.models.neighbours import VSKNN, ItemKNN
from gru4rec_np.models.training import Diverged
from gru4rec_np.ops.ranking import metrics

K = (5, 10, 20)

PARAMS = (
    "hyperparameters as GRU4Rec's users keep them; without constrained_embedding or embedding the "
    "input is onehot; names left out keep this program's defaults"
)

FILES = ("model.npz", "config.toml", "history.csv", "metrics.json", "curves.png")
TRAINING = "training.npz"  # where an unfinished run stands
DIVERGED = "diverged.npz"  # and one that diverged, some steps before: nothing that can go on


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
        add_option(group, name, default, text)
    model = p.add_argument_group("hyperparameters")
    for name, field in FIELDS.items():
        extra = ["--epochs"] if name == "n_epochs" else []
        add_option(model, name, DEFAULTS[name], field.metadata["help"], *extra)
    return p


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
    logs = {name: given.get(name, values.get(name, "")) for name in ("train", "test")}
    if "train" in given or "test" in given:  # the file's ways with its own log may not fit another
        values = {name: value for name, value in values.items() if name not in unused(logs)}
    if params is not None:
        values |= hyperparameters.parse_params(params, values.get("input", "onehot"))
    for name, text in given.items():
        if name in FIELDS and isinstance(text, str):
            text = hyperparameters.parse_value(name, text)
        values[name] = text

    data = data_settings(values) | run_settings(values)
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

    def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
        keeper.after_chunk(model.training)

    def on_epoch(row: dict[str, float]) -> None:
        valid = f"   Recall@20 {row['recall@20']:.4f}" if "recall@20" in row else ""
        tqdm.write(  # above the bar
            f"epoch {row['epoch']:>{len(str(model.hp.n_epochs))}}/{model.hp.n_epochs}"
            f"   loss {row['loss']:.4f}{valid}   {row['events_per_second']:,.0f} events/s"
            f"   {row['seconds']:.1f} s"
        )
        sys.stdout.flush()
        if keeper.asked is not None:  # while it was judged
            keeper.after_chunk(model.training)

    model.fit(train, on_chunk, on_epoch, validation, patience, resume)


def write_config(out: Path, data: dict[str, Any], model: GRU4Rec) -> None:
    """Leave in a directory what it takes to run again, or to go on."""
    absolute = {n: str(Path(data[n]).resolve()) for n in ("train", "test") if data[n]}
    config = {**data, **absolute, **model.hyperparameters()}
    for name in unused(data):
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
        parts["test"] = test = test.restrict(parts["train"].item_ids)
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
    except Diverged as error:
        if not keeper.path.exists():
            raise
        keeper.path.replace(out / DIVERGED)  # there it is in no other run's way
        raise InputError(f"{error}; {out / DIVERGED} holds where it stood before") from None
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
        print(report.about_oracle(parts))

    write_results(out, model, results, ranks)
    keeper.path.unlink(missing_ok=True)
    print(f"\nwritten to {out}/: {', '.join(FILES)}")
    items = [str(item) for item in test.session(0)[:2]]
    example = [str(out), *["--"] * any(item.startswith("-") for item in items), *items]
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


if __name__ == "__main__":
    cli.run(main)
