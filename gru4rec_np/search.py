"""python -m gru4rec_np.search: the best hyperparameters for a log, by many trials.

A command: prints and writes files. Imports the search, the options and the models.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gru4rec_np.console import baselines, cli, report, runs, tuning
from gru4rec_np.console.options import (
    RUN_OPTIONS,
    add_data_options,
    add_option,
    data_settings,
    held_out,
    load_data,
    parse,
    run_settings,
    write_config,
)
from gru4rec_np.console.spaces import MODELS, SPACES, Space, make, read_space, suggest
from gru4rec_np.data.protocols import split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_text
from gru4rec_np.models.base import Model, Network
from gru4rec_np.models.gru4rec import GRU4Rec, cut_off_of
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.ops.bootstrap import interval, resampled_means

if TYPE_CHECKING:
    import optuna

K = (5, 10, 20)
JOURNAL = "trials.journal"

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


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "search",
        usage="%(prog)s [--train FILE ... [--test FILE | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    p.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        choices=[*MODELS],
        help=f"what to search: {', '.join(MODELS)}; each gets --trials trials (default: gru4rec)",
    )
    p.add_argument(
        "--space",
        metavar="NAME|FILE",
        help="what gru4rec, or the only model of --models, may be: a TOML file, or a shipped one: "
        f"{', '.join(SPACES)} (default: that of the model's name; small for the shop)",
    )
    p.add_argument(
        "--trials",
        type=cli.positive,
        metavar="N",
        help="finished trials of each model, of all workers and earlier starts, >= 1 (default: "
        "100)",
    )
    p.add_argument(
        "--timeout",
        metavar="TIME",
        help="begin no trial after this time, such as 30m or 2h (default: none)",
    )
    p.add_argument(
        "--workers",
        type=cli.positive,
        metavar="N",
        help="processes, of one thread each if there are several, >= 1 (default: 1)",
    )
    p.add_argument(
        "--storage",
        metavar="URL|FILE",
        help="where trials are kept: postgresql:// or mysql:// for several machines, or a journal "
        f"file for one (default: OUT/{JOURNAL})",
    )
    p.add_argument(
        "--study",
        metavar="NAME",
        help="the search's name in the storage (default: the log's name)",
    )
    p.add_argument("--seed", type=int, metavar="N", help="of trials and models (default: 0)")
    p.add_argument(
        "--pruning",
        action=argparse.BooleanOptionalAction,
        help="stop a trial whose metric is below the median of earlier trials at that epoch "
        "(default: on)",
    )
    p.add_argument(
        "--out", metavar="DIR", help="folder of the results (default: runs/search-<log's name>)"
    )
    for name, default in (("validation", "1d"), ("primary_metric", "mrr@20"), ("baselines", None)):
        add_option(p, name, default or RUN_OPTIONS[name][0], RUN_OPTIONS[name][1])
    add_data_options(p)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    given = parse(parser(), sys.argv[1:])
    names = list(dict.fromkeys(given.pop("models", ["gru4rec"])))
    trials, workers = given.pop("trials", 100), given.pop("workers", 1)
    storage, seed = given.pop("storage", None), given.pop("seed", 0)
    prune, timeout = given.pop("pruning", True), _seconds(given.pop("timeout", None))
    out, study, space = (given.pop(name, None) for name in ("out", "study", "space"))
    if seed < 0:
        raise InputError(f"seed: must be a whole number >= 0, not {seed}")
    data = data_settings(given)
    chosen = run_settings({"validation": "1d", "primary_metric": "mrr@20", **given})
    if len(data["test"]) > 1:
        raise InputError("test: a search takes one test file")
    if not chosen["validation"]:
        raise InputError("validation: a search needs one")
    log = runs.name_of(data["train"] or ["shop"])
    folder = Path(out or f"runs/search-{log}")
    spaces = _spaces(names, space, not data["train"])
    tuning.require_optuna()
    cli.check_output(folder, ["trials.csv"], [Path(f) for n in ("train", "test") for f in data[n]])

    with cli.surviving_output():
        parts, shop = load_data(data)
        train, validation = held_out(parts["train"], chosen | data)
        print(report.describe({**parts, "search": train, "validation": validation}), "", sep="\n")
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.time() + timeout
        studies: dict[str, Any] = {}
        for name in names:
            job = tuning.Job(
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
                folder=tuning.workers_of(storage or str(folder / JOURNAL)),
            )
            with Shown(job) as shown:
                studies[name] = tuning.run(job, shown.look)
            write_trials(folder / "trials.csv", studies, spaces, job.primary)
            done = len(tuning.finished(studies[name]))
            if done < trials and time.time() < deadline:
                print(f"stopped after {done} of {trials} trials; the same command goes on")
                sys.exit(130)
        for name in [n for n in names if not complete(studies[n])]:
            if len(studies) == 1:
                best_of(studies[name])  # says why there is none
            cli.say(f"{name}: no trial was trained to its end in the time; it is left out")
            del studies[name]
        with runs.alone(folder):
            finish(folder, studies, spaces, data, chosen, parts, shop, seed)


def _seconds(text: str | None) -> float:
    """The seconds of --timeout."""
    if text is None:
        return float("inf")
    try:
        return cli.parse_gap(text)
    except InputError:
        raise InputError(f"timeout: must be a time such as 30m or 2h, not {text[:60]!r}") from None


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


class Shown:
    """What a search shows while it runs: a bar, and a line for each trial that matters."""

    def __init__(self, job: tuning.Job) -> None:
        self.job, self._best = job, -np.inf
        self._seen: set[int] | None = None

    def __enter__(self) -> Shown:
        self._bar = tqdm(
            total=self.job.trials,
            desc=self.job.model,
            unit="trial",
            dynamic_ncols=True,
            disable=None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def look(self, study: optuna.Study) -> None:
        """Show what is new since the last look."""
        done = tuning.finished(study)
        if self._seen is None:  # trials of an earlier start say nothing about the speed
            self._seen, self._bar.initial, self._bar.n = set(), len(done), len(done)
        self._bar.update(len(done) - self._bar.n)
        for trial in done:
            if trial.number not in self._seen and (line := self._line(trial)):
                tqdm.write(line, file=sys.stdout)
                sys.stdout.flush()
            self._seen.add(trial.number)
        if np.isfinite(self._best):
            self._bar.set_postfix_str(f"best {self.job.primary} {self._best:.4f}")

    def _line(self, trial: optuna.trial.FrozenTrial) -> str:
        if trial.state.name == "COMPLETE" and trial.value is not None and trial.value > self._best:
            self._best = trial.value
            values = " ".join(f"{n}={_short(v)}" for n, v in trial.params.items())
            seconds = trial.user_attrs.get("seconds", 0.0)
            metric = f"{self.job.primary} {trial.value:.4f}"
            return f"trial {trial.number:3}  {metric}  {seconds:5.1f} s  {values}"
        if "error" in trial.user_attrs:
            why = trial.user_attrs["error"].split("; ")[0]
            return f"trial {trial.number:3}  failed: {why[:200]}"
        return ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- results --------------------------------------------------------------------------------------


def write_trials(
    path: Path, studies: dict[str, Any], spaces: dict[str, Space], primary: str
) -> None:
    """Write a line for each trial: its parameters, and its metrics after each epoch."""
    rows: list[dict[str, Any]] = []
    for name, study in studies.items():
        for trial in tuning.finished(study):
            row = {
                "model": name,
                "trial": trial.number,
                "state": "FAILED" if trial.state.name == "FAIL" else trial.state.name,
                primary: trial.value,
                "seconds": trial.user_attrs.get("seconds"),
                "error": trial.user_attrs.get("error"),
                **parameters(spaces[name], trial),
            }
            for after in trial.user_attrs.get("history", []):
                row |= {f"{m} epoch {after['epoch']}": v for m, v in after.items() if m != "epoch"}
            rows.append(row)
    fields = dict.fromkeys(field for row in rows for field in row if " epoch " not in field)
    fields |= dict.fromkeys(field for row in rows for field in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def parameters(space: Space, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """All hyperparameters of a trial, those that the space fixes included."""
    optuna = tuning.require_optuna()
    try:
        return suggest(space, optuna.trial.FixedTrial(trial.params))
    except ValueError:  # it ended before it had drawn all of them
        return dict(trial.params)


def complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that were trained to their end."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]


def best_of(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The trial with the highest metric.

    Raises:
        InputError: none was trained to its end.
    """
    try:
        return study.best_trial
    except ValueError:
        errors = [t.user_attrs["error"] for t in study.trials if "error" in t.user_attrs]
        why = f"; the first: {errors[0]}" if errors else ""
        raise InputError(f"search: no trial was trained to its end{why}") from None


def finish(
    out: Path,
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
    written = ["trials.csv", "results.json"]
    for name, study in studies.items():  # before the training, which may diverge
        found = parameters(spaces[name], best_of(study))
        best[name] = make(MODELS[name], found, seed, data["backend"])
        if isinstance(model := best[name], GRU4Rec):
            write_config(out / "best.toml", data | run_settings({}), model)
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
        "test": results,
        "tuned - defaults": gains,
        "best": {name: model.hyperparameters() for name, model in best.items()},
        "validation": {
            name: {"trial": best_of(s).number, chosen["primary_metric"]: best_of(s).value,
                   "trials": len(tuning.finished(s))}
            for name, s in studies.items()
        },
    }  # fmt: skip
    write_text(out / "results.json", json.dumps(document, indent=2) + "\n")
    print(f"\nwritten to {out}/: {', '.join(written)}")
    if "best.toml" in written:
        print(f"to train again: python -m gru4rec_np.train --config {out / 'best.toml'}")


def gain(
    ranks: dict[str, np.ndarray], name: str, test: Sessions, k: int = 20
) -> dict[str, tuple[float, float, float]]:
    """What tuning brings in Recall@k and MRR@k: the difference, and its 95 % interval.

    A paired bootstrap over the test sessions, see `bootstrap.resampled_means`.
    """
    session = np.searchsorted(test.offsets, test.cases, side="right")
    out = {}
    for metric in ("Recall", "MRR"):
        values = [
            np.where(found <= k, 1.0 if metric == "Recall" else 1 / found, 0.0)[None]
            for found in (ranks[f"{name}, tuned"], ranks[f"{name}, defaults"])
        ]
        means = resampled_means(values, session)
        low, high = interval(means[:, 0] - means[:, 1])
        out[f"{metric}@{k}"] = float(values[0].mean() - values[1].mean()), float(low), float(high)
    return out


def plots(study: optuna.Study, out: Path, name: str, primary: str) -> list[str]:
    """Draw Optuna's pictures of a study; returns the names of the files, none for few trials."""
    optuna = tuning.require_optuna()
    done = complete(study)
    if len(done) < 4 or len({t.value for t in done}) < 2:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as draw

    def figure_of(axes: Any) -> Any:
        return np.ravel(axes)[0].figure

    pictures = {
        "history": lambda: draw.plot_optimization_history(study, target_name=primary),
        "parameters": lambda: draw.plot_slice(study, target_name=primary),
        "importance": lambda: draw.plot_param_importances(
            study, target_name=primary, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        ),
    }
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what, picture in pictures.items():
            try:
                figure = figure_of(picture())
            except (RuntimeError, ValueError):  # too few values of a parameter for it
                continue
            if what != "parameters":
                figure.set_size_inches(8, 4.5)
            figure.savefig(out / f"{name}-{what}.png", dpi=120, bbox_inches="tight")
            plt.close(figure)
            written.append(f"{name}-{what}.png")
    return written


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
    job = tuning.Job(
        model=model, space=ranges, train=first, validation=last, primary=primary.lower(),
        trials=trials, seed=seed, backend=backend, storage=storage, study=model, workers=workers,
        prune=pruning,
        folder=tuning.workers_of(storage),
    )  # fmt: skip
    if verbose:
        with Shown(job) as shown:
            study = tuning.run(job, shown.look)
    else:
        study = tuning.run(job, lambda study: None)
    best = make(MODELS[model], parameters(ranges, best_of(study)), seed, backend)
    best.fit(log)
    return study, best


if __name__ == "__main__":
    cli.run(main)
