"""python -m gru4rec_np.search: the best hyperparameters for a log, by many trials."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec_np.console import baselines, cli, options, report, runs, tuning
from gru4rec_np.console.findings import Shown, gain, plots, write_trials
from gru4rec_np.console.spaces import MODELS, SPACES, Space, make, read_space
from gru4rec_np.console.trials import (
    Job,
    best_of,
    complete,
    finished,
    parameters,
    require_optuna,
)
from gru4rec_np.data.protocols import split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_text
from gru4rec_np.models.base import Model, cut_off_of
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.neural import Network

if TYPE_CHECKING:
    import optuna

K = (5, 10, 20)
JOURNAL, RESULTS = "trials.journal", "results.json"

DESCRIPTION = """\
Search for the hyperparameters that are best on a validation set, then train the best on the whole
training log and evaluate it once on the test set. Without a log: on the simulated shop."""

EPILOG = """\
The same command goes on with a search that was stopped. With --storage URL, start it on any number
of machines: they share the trials. docs/search.md has more.

examples:
  python -m gru4rec_np.search --train clicks.tsv --trials 100 --workers 2
  python -m gru4rec_np.search --train train.tsv --test test.tsv --space bpr-max --timeout 2h
  python -m gru4rec_np.search --train clicks.tsv --models gru4rec v-sknn item-knn"""

ARGUMENTS: cli.Arguments = {
    "--models": (cli.SEVERAL | {"metavar": "NAME", "choices": [*MODELS]},
                 f"what to search: {', '.join(MODELS)}; each gets --trials trials (default: "
                 "gru4rec)"),
    "--space": ({"metavar": "NAME|FILE"},
                "the ranges of gru4rec's hyperparameters, or of the only model's of --models: a "
                f"TOML file, or a shipped space: {', '.join(SPACES)} (default: that of the model's "
                "name; small for the shop)"),
    "--trials": (cli.COUNT,
                 "finished trials of each model, of all workers and earlier starts, >= 1 (default: "
                 "100)"),
    "--timeout": ({"metavar": "TIME"},
                  "begin no trial after this time, such as 30m or 2h (default: none)"),
    "--workers": (cli.COUNT,
                  "processes, of one thread each if there are several, >= 1 (default: 1)"),
    "--storage": ({"metavar": "URL|FILE"},
                  "where trials are kept: postgresql:// or mysql:// for several machines, or a "
                  f"journal file for one (default: OUT/{JOURNAL})"),
    "--study": ({"metavar": "NAME"}, "the search's name in the storage (default: the log's name)"),
    "--seed": ({"metavar": "N", "type": int},
               "seed of the trials and the models, >= 0 (default: 0)"),
    "--pruning": (cli.ON_OR_OFF,
                  "stop a trial whose metric is below the median of earlier trials at that epoch "
                  "(default: on)"),
    "--out": (cli.DIR, "folder of the results (default: runs/search-<log's name>)"),
    "--validation": ({"metavar": "D|S"},
                     "hold out a part of the training sessions, written as for --split; trials are "
                     "judged on it after their last epoch (default: 1d; 0.1 with --layout lists)"),
    "--primary-metric": ({"metavar": "METRIC"},
                         "what trials are judged by: recall@K or mrr@K (default: mrr@20)"),
}  # fmt: skip


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "search",
        usage="%(prog)s [--train FILE ... [--test FILE | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    cli.add_arguments(p, ARGUMENTS)
    options.add_options(p, ["baselines"])
    options.add_options(p.add_argument_group("data"), options.DATA_OPTIONS)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    given = options.parse(parser(), sys.argv[1:])
    names = list(dict.fromkeys(given.pop("models", ["gru4rec"])))
    trials, workers = given.pop("trials", 100), given.pop("workers", 1)
    storage, seed = given.pop("storage", None), given.pop("seed", 0)
    prune = given.pop("pruning", True)
    timeout = cli.parse_time(given.pop("timeout"), "timeout") if "timeout" in given else np.inf
    out, study, space = (given.pop(name, None) for name in ("out", "study", "space"))
    if seed < 0:
        raise InputError(f"seed: must be a whole number >= 0, not {seed}")
    data = options.data_settings(given)
    options.require_no_days(given, data["layout"])
    chosen = options.run_settings(
        {
            "validation": options.default_split(data["layout"]),
            "primary_metric": "mrr@20",
            **given,
        }
    )
    options.require_one_test(data, "a search")
    if not chosen["validation"]:
        raise InputError("validation: a search needs one")
    log = runs.name_of(data["train"] or ["shop"])
    folder = Path(out or f"runs/search-{log}")
    spaces = _spaces(names, space, not data["train"])
    require_optuna()
    _require_own(folder, study or log)
    cli.check_output(folder, ["trials.csv"], data["train"] + data["test"])

    with cli.surviving_output():
        dropped: Counter[str] = Counter()
        parts, shop = options.load_data(data, dropped=dropped)
        train, validation = options.held_out(parts["train"], chosen | data, None, dropped)
        sets = {**parts, "search": train, "validation": validation}
        print(report.describe(sets, dropped), "", sep="\n")
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.time() + timeout
        studies: dict[str, Any] = {}
        for name in names:
            job = Job(
                model=name,
                space=spaces[name],
                train=train,
                validation=validation,
                primary=chosen["primary_metric"],
                trials=trials,
                seed=seed,
                backend=data["backend"],
                storage=storage or str(folder / JOURNAL),
                study=f"{study or log}-{name}",
                workers=workers,
                prune=prune,
                deadline=deadline,
            )
            with Shown(job) as shown, cli.heeding("the trials that run") as asked:
                studies[name] = tuning.run(job, shown.look, asked)
            write_trials(folder / "trials.csv", studies, spaces, job.primary)
            done = len(finished(studies[name]))
            if asked:
                print(f"stopped after {done} of {trials} trials; the same command goes on")
                sys.exit(128 + asked[0])
        for name in [n for n in names if not complete(studies[n])]:
            if len(studies) == 1:
                best_of(studies[name])  # says why there is none
            cli.say(f"{name}: no trial was trained to its end in the time; it is left out")
            del studies[name]
        with runs.alone(folder):
            runs.remove_parts(folder, ("trials.csv", RESULTS, *(f"{name}.npz" for name in MODELS)))
            finish(folder, study or log, studies, spaces, data, chosen, parts, shop, seed)


def _require_own(folder: Path, study: str) -> None:
    """Raise InputError if the folder has the results of another search."""
    try:
        other = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if other != study:
        raise InputError(
            f"--out {folder}: {RESULTS} is of the search {other!r}, this one is {study!r}; choose "
            "another folder"
        )


def _spaces(names: Sequence[str], space: str | None, is_shop: bool) -> dict[str, Space]:
    """The space of each model to be searched.

    Raises:
        InputError: see `read_space`, or it is not said which model --space is for.
    """
    owner = names[0] if len(names) == 1 else "gru4rec"
    if space is not None and owner not in names:
        raise InputError("space: give it with gru4rec, or with one model")
    own = {name: "small" if is_shop and name == "gru4rec" else name for name in names}
    own |= {owner: space} if space is not None else {}
    return {name: read_space(text, MODELS[name]) for name, text in own.items()}


# --- results --------------------------------------------------------------------------------------


def finish(
    out: Path,
    search_name: str,
    studies: dict[str, Any],
    spaces: dict[str, Space],
    data: dict[str, Any],
    chosen: dict[str, Any],
    parts: dict[str, Sessions],
    shop: Shop | None,
    seed: int,
) -> None:
    """Train the best on the whole training log, evaluate them once, print and write it all."""
    train, test = parts["train"], parts["test"]
    best: dict[str, Model] = {}
    written = ["trials.csv", RESULTS]
    for name, study in studies.items():  # before the training, which may diverge
        found = parameters(spaces[name], best_of(study))
        best[name] = make(MODELS[name], found, seed, data["backend"])
        if isinstance(model := best[name], GRU4Rec):
            options.write_config(out / "best.toml", data | options.run_settings({}), model)
            written.append("best.toml")
        written += plots(study, out, name, f"{chosen['primary_metric']} on validation")
    methods: dict[str, Model] = {}
    for name, model in best.items():
        methods[f"{model.name}, tuned"] = model
        methods[f"{model.name}, defaults"] = make(MODELS[name], {}, seed, data["backend"])
    hp = best["gru4rec"].hp if "gru4rec" in best else Hyperparameters()
    assert isinstance(hp, Hyperparameters)
    others, left_out = baselines.chosen(chosen["baselines"], hp, train, {"test": test}, shop)
    methods |= {m.name: m for m in others if m.name.lower() not in studies}
    ranks: dict[str, np.ndarray] = {}
    for n, (label, model) in enumerate(methods.items(), 1):
        with cli.progress(f"{label}, {n} of {len(methods)}") as watch:
            try:
                if isinstance(model, Network):
                    model.fit(train, verbose=False)  # type: ignore[call-arg]
                else:
                    model.fit(train, watch)  # type: ignore[call-arg]
            except InputError as error:  # it diverged
                cli.say(f"{label}: {error}")
                continue
            ranks[label] = model.ranks(test, data["ties"])[0]
    results = {label: report.figures(found, K) for label, found in ranks.items()}
    print(f"\ntest: next item among {train.n_items:,}, {len(test.cases):,} cases")
    print(report.table(results, K))
    print()
    gains = {
        name: gain(ranks, model.name, test)
        for name, model in best.items()
        if {f"{model.name}, tuned", f"{model.name}, defaults"} <= ranks.keys()
    }
    for name, rows in gains.items():
        for metric, (by, low, high) in rows.items():
            noise = ", not more than noise" if low <= 0 <= high else ""
            by_tuning = f"{by:+.4f} [{low:+.4f}, {high:+.4f}]{noise}"
            print(f"{name}: tuned - defaults in {metric}: {by_tuning}")
    if left_out:
        print(f"not compared with, would take longer than the training: {', '.join(left_out)}")
    for name, model in best.items():
        if f"{model.name}, tuned" in ranks:
            model.save(out / f"{name}.npz")
            written.append(f"{name}.npz")
    document = {
        "study": search_name,
        "test": results,
        "tuned - defaults": gains,
        "best": {name: model.hyperparameters() for name, model in best.items()},
        "validation": {
            name: {"trial": best_of(s).number, chosen["primary_metric"]: best_of(s).value,
                   "trials": len(finished(s))}
            for name, s in studies.items()
        },
    }  # fmt: skip
    write_text(out / RESULTS, json.dumps(document, indent=2) + "\n")
    print(f"\nwritten to {out}/: {', '.join(written)}")
    if "best.toml" in written:
        print(f"to train again: python -m gru4rec_np.train --config {out / 'best.toml'}")


# --- from Python ----------------------------------------------------------------------------------


def search(
    train: Any,
    space: str | dict[str, Any] | None = None,
    trials: int = 100,
    *,
    model: str = "gru4rec",
    validation: Any = 1.0,
    primary: str = "mrr@20",
    seed: int = 0,
    workers: int = 1,
    backend: str = "auto",
    pruning: bool = True,
    storage: str = "",
    verbose: bool = True,
) -> tuple[optuna.Study, Model]:
    """Search for the best hyperparameters, then train the best on all of `train`.

        study, model = search(train, space="small", trials=30)

    Args:
        train: as for `fit`. space: a TOML file, what one holds, or a shipped name; None: the
            model's name.
        model: gru4rec, narm, bpr-mf, v-sknn or item-knn.
        validation: the last days of `train` to choose by, or sessions of their own.
        primary: the metric to maximise, recall@K or mrr@K.
        workers: processes; more than one need a storage and `if __name__ == "__main__":`.
        storage: a journal file or a database's URL, to go on later; "": this process's memory.
        verbose: show a bar, and a line for each trial that matters.

    A signal that asks to stop, such as Ctrl-C, ends the search after the trials that run. The best
    model so far is then trained.

    Returns:
        Optuna's study, and the model trained on all of `train`.

    Raises:
        InputError: Optuna is missing, or something given cannot be used.
    """
    if model not in MODELS:
        raise InputError(f"model: must be one of {', '.join(MODELS)}, not {model!r}")
    cut_off_of(primary.lower())  # refuses what is no metric
    if workers > 1 and not storage:
        raise InputError("workers: more than one need a storage, such as storage='trials.journal'")
    log = as_sessions(train)
    if isinstance(validation, int | float):
        first, last = split(log, days=validation)
    else:
        first = log.keep_sessions(log.lengths >= 2).compact()
        last = as_sessions(validation).restrict(first.item_ids)
    ranges = read_space(space or model, MODELS[model])
    job = Job(
        model=model, space=ranges, train=first, validation=last, primary=primary.lower(),
        trials=trials, seed=seed, backend=backend, storage=storage, study=model, workers=workers,
        prune=pruning,
    )  # fmt: skip
    with cli.heeding("the trials that run") as asked:
        if verbose:
            with Shown(job) as shown:
                study = tuning.run(job, shown.look, asked)
        else:
            study = tuning.run(job, lambda study: None, asked)
    best = make(MODELS[model], parameters(ranges, best_of(study)), seed, backend)
    best.fit(log)
    return study, best


if __name__ == "__main__":
    cli.run(main)
