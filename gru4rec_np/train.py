"""python -m gru4rec_np.train: from a click log to a trained model, its results and a plot."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gru4rec_np import signals
from gru4rec_np.console import advice, baselines, cli, inspection, options, report, runs
from gru4rec_np.console.settings import Say, settle, short
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.errors import InputError
from gru4rec_np.files import as_csv, write_text
from gru4rec_np.models.base import Model
from gru4rec_np.models.checked import allowed
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid, hold_out
from gru4rec_np.models.hyperparameters import DEFAULTS, FIELDS
from gru4rec_np.models.training import Diverged, fingerprint

K = (5, 10, 20)

DESCRIPTION = """\
Train GRU4Rec on a click log and compare it with simple baselines. Without any option: on a
simulated shop, whose best possible ranking is known (oracle)."""

EPILOG = """\
Options win over --params, --params over --config.

examples:
  python -m gru4rec_np.train --train clicks.tsv --split 1d
  python -m gru4rec_np.train --train train.tsv --test test.tsv --params \
loss=bpr-max,constrained_embedding=True
  python -m gru4rec_np.train --train train.tsv --test test.tsv --config rsc15-100k-bpr-max
  python -m gru4rec_np.train --start-from runs/clicks --train tomorrow.tsv --keep-counts"""

ARGUMENTS: cli.Arguments = {
    "--out": (cli.DIR,
              "folder of the results (default: runs/<log's name>, with a number after it if that "
              "is in use)"),
    "--overwrite": (cli.FLAG, "replace the results of an earlier run in --out"),
    "--resume": (cli.DIR,
                 "resume the run in DIR, bit-identically; allows no other option but --n-epochs"),
    "--config": ({"metavar": "FILE|NAME"},
                 "read options from a TOML file, such as a run's config.toml, or of a shipped "
                 f"configuration: {', '.join(options.CONFIGURATIONS)}"),
    "--params": ({"metavar": "A=1,B=2|FILE.py"},
                 "hyperparameters as a string or a parameter file of GRU4Rec's reference "
                 "implementations. Names left out keep --config's values; without --config they "
                 "take the defaults of GRU4Rec_PyTorch_Official"),
}  # fmt: skip


def parser() -> cli.Parser:
    """The command's options: data, hyperparameters, output."""
    p = cli.Parser(
        "train",
        usage="%(prog)s [--train FILE ... [--test FILE ... | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    cli.add_arguments(p, ARGUMENTS)
    options.add_options(p.add_argument_group("data"), options.DATA_OPTIONS)
    options.add_options(p.add_argument_group("run"), options.RUN_OPTIONS)
    model = p.add_argument_group("hyperparameters")
    for name, field in FIELDS.items():
        extra = ["--epochs"] if name == "n_epochs" else []
        text = field.metadata["help"]
        if not isinstance(DEFAULTS[name], bool):
            text += f"; {allowed(field.metadata['check'])}"
        options.add_option(model, name, DEFAULTS[name], text, *extra)
    return p


def settings(argv: list[str], say: Say = lambda line: None) -> tuple[dict[str, Any], GRU4Rec, Path]:
    """What `console.settings.settle` makes of the command's arguments.

    Args:
        argv: `--n_sample` is read as `--n-sample`. say: called with lines to print.
    """
    return settle(options.parse(parser(), argv), say)


def train_with_progress(
    model: GRU4Rec,
    train: Sessions,
    validation: Sessions | None,
    data: dict[str, Any],
    keeper: runs.Keeper,
) -> None:
    """Fit the model behind a progress bar, with a line for each epoch.

    Resumes from the keeper's file if there is one.

    Raises:
        Stopped: a signal asked for it.
    """
    primary = data["primary_metric"]

    def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
        keeper.after_chunk(model.training)

    def on_epoch(row: dict[str, float]) -> None:
        name = primary.replace("recall", "Recall").replace("mrr", "MRR")
        valid = f"   {name} {row[primary]:.4f}" if primary in row else ""
        tqdm.write(  # above the bar
            f"epoch {row['epoch']:>{len(str(model.hp.n_epochs))}}/{model.hp.n_epochs}"
            f"   loss {row['loss']:.4f}{valid}   {row['events_per_second']:,.0f} events/s"
            f"   {row['seconds']:.1f} s",
            file=sys.stdout,
        )
        sys.stdout.flush()
        if keeper.asked is not None:  # during the evaluation of the epoch
            keeper.after_chunk(model.training)
        elif row["epoch"] == model.hp.n_epochs or data["patience"]:  # it may be the last one
            keeper.keep(model.training)  # so that --resume need not train again

    start = data["start_from"]
    fit = partial(model.fit_more, keep_counts=data["keep_counts"]) if start else model.fit
    fit(
        train,
        on_chunk=on_chunk,
        on_epoch=on_epoch,
        validation=validation,
        patience=data["patience"],
        resume=keeper.path if data["resume"] else None,
        primary=primary,
    )


def main() -> None:
    """Run the command on sys.argv."""
    lines: list[str] = []
    data, model, out = settings(sys.argv[1:], lines.append)
    cli.check_output(out, runs.FILES, data["train"] + data["test"])
    with cli.surviving_output():
        dropped: Counter[str] = Counter()
        known = model.item_ids if data["start_from"] else None
        parts, shop = options.load_data(data, known, dropped)
        if not data["names_folder"]:  # another run may have taken it meanwhile
            out = runs.default_folder(data["train"])
        with cli.new_folder(out), runs.alone(out, "--resume" if data["resume"] else "--out"):
            # Another run may have finished here meanwhile.
            if not data["overwrite"] and not data["resume"]:
                runs.require_free(out, False)
            runs.remove_parts(out, (*runs.FILES, runs.TRAINING, runs.SETTINGS))
            run(data, model, out, parts, shop, dropped, lines)


def run(
    data: dict[str, Any],
    model: GRU4Rec,
    out: Path,
    parts: dict[str, Sessions],
    shop: Shop | None,
    dropped: Counter[str],
    lines: Sequence[str] = (),
) -> None:
    """Train, compare, write: what `main` does when all is read.

    Args:
        parts, shop, dropped: from `load_data`. lines: printed before the training.
    """
    tests = {name: part for name, part in parts.items() if name.startswith("test")}
    known = model.item_ids if data["start_from"] else None
    if data["validation"]:
        parts["train"], parts["validation"] = options.held_out(parts["train"], data, known, dropped)
        before, reason = tests, "events of the test set, of items that only the validation set has"
        tests = {name: test.restrict(parts["train"].item_ids) for name, test in tests.items()}
        if "raw" in parts and tests:  # else `describe` says it of each test log
            options.count_lost(dropped, reason, before["test"], tests["test"])
        parts.update(tests)
    train, validation = parts["train"], parts.get("validation")
    judged = _fingerprints(data, tests, validation)
    if data["resume"]:
        runs.require_judged(out / runs.TRAINING, train, judged)
    wanted = "none" if not tests or known is not None else data["baselines"]
    methods, left_out = baselines.chosen(wanted, model.hp, train, tests, shop)
    if data["hybrid"] and not data["validation"] and known is None:
        hold_out(train)  # refuses a log that is too short before it is trained on
    if shop:
        print(f"simulated shop: {shop.n_items:,} items, seed {shop.seed}")
    print(report.describe(parts, dropped), "", *lines, sep="\n")
    users = inspection.warning(parts.get("raw", train).durations)
    # Tomorrow's log may be smaller than its test set.
    compared = {} if known is not None else tests
    cautions = advice.cautions(model.hp, train, compared, not data["test"], validation)
    for line in [users] * bool(users) + cautions:
        cli.say(f"warning: {line}")
    extra = f"{model.n_sample} extra negatives"
    negatives = "all items as negatives" if model.hp.scores_all else extra
    print(
        f"GRU4Rec: {model.unit} layers {short(model.layers)}, input {model.input}, "
        f"loss {model.loss}, {negatives}; backend {model.ops.name} "
        f"({model.ops.why})",
        flush=True,
    )
    if known is not None:
        print(
            f"going on from {data['start_from']}: {len(known):,} items are known, "
            f"{train.n_items - len(known):,} are new",
            flush=True,
        )
    interval = runs.parse_interval(data["checkpoint"])
    begin = partial(options.write_config, out / runs.SETTINGS, data, model)
    keeper = runs.Keeper(out / runs.TRAINING, *interval, begin, list(judged.values()))
    try:
        with keeper:
            train_with_progress(model, train, validation, data, keeper)
    except Diverged as error:
        if not data["resume"] and not keeper.has_written:
            raise
        (out / runs.SETTINGS).replace(out / f"{runs.DIVERGED}.toml")
        keeper.path.replace(out / f"{runs.DIVERGED}.npz")
        raise InputError(
            f"{error}; {out / runs.DIVERGED}.npz is the last checkpoint before"
        ) from None
    except runs.Stopped:
        cli.say(f"stopped; to go on: {_resume(out)}")
        sys.exit(128 + (keeper.asked or 0))

    has_checkpoint = (data["resume"] or keeper.has_written) and keeper.path.is_file()
    go_on = f"; to go on: {_resume(out)}" if has_checkpoint else ""
    # The model comes first. Older results go before it, so that no two runs' files are mixed.
    for name in (*runs.FILES[1:], *[runs.TRAINING] * (not has_checkpoint)):
        with contextlib.suppress(OSError):
            (out / name).unlink(missing_ok=True)
    lost = "there is no checkpoint, so the training is lost"
    with _going_on(f"the checkpoint is kept in {out}{go_on}" if has_checkpoint else lost):
        best = mixed(data, model, train, validation) if data["hybrid"] else model
        best.save(out / "model.npz")
    with _going_on(f"the model is kept in {out}{go_on}"):
        options.write_config(out / "config.toml", data, model)
        if validation and len(model.history) < model.n_epochs:
            print(f"no better epoch in {data['patience']}: stopped")
        finish(data, model, best, out, parts, tests, methods)
        (out / runs.SETTINGS).unlink(missing_ok=True)  # without it the run is finished
        if not data["keep_training"]:
            (out / runs.TRAINING).unlink(missing_ok=True)

    if left_out:
        names = ",".join(left_out).lower()
        print(
            "not compared with, would take longer than the training: "
            f"{', '.join(left_out)} (--baselines all, or --baselines {names})"
        )
    if better := advice.fitting_config(model.hp, train.n_events):
        print(better)
    written = [name for name in (*runs.FILES, runs.TRAINING) if (out / name).exists()]
    print(f"\nwritten to {out}/: {', '.join(written)}")
    items = [str(item) for item in next(iter(tests.values()), train).session(0)[:2]]
    example = [str(out), *["--"] * any(item.startswith("-") for item in items), *items]
    print("try:", shlex.join(["python", "-m", "gru4rec_np.recommend", *example]))


def mixed(
    data: dict[str, Any], model: GRU4Rec, train: Sessions, validation: Sessions | None
) -> Hybrid:
    """The trained model as a part of a hybrid, of that of start_from if there is one."""
    if data["start_from"]:
        hybrid = Hybrid.load(data["start_from"], data["backend"])
    else:
        hybrid = Hybrid(**model.get_params())
        how = "on the validation set" if validation else "by a second training, on 9 of 10 sessions"
        print(f"hybrid: learning the shares {how}", flush=True)
    hybrid.network = model
    hybrid.join(train, validation)
    shares = zip(hybrid.PARTS, hybrid.shares, strict=True)
    print("hybrid:", ", ".join(f"{part} {share:.1%}" for part, share in shares), flush=True)
    return hybrid


def finish(
    data: dict[str, Any],
    model: GRU4Rec,
    best: GRU4Rec | Hybrid,
    out: Path,
    parts: dict[str, Sessions],
    tests: dict[str, Sessions],
    methods: Sequence[Model],
) -> None:
    """Compare the trained model with the methods on each test set; print and write the results.

    Args:
        best: the hybrid that the model is a part of, or the model.
    """
    train = parts["train"]
    fitted = {m.name: m for m in best.methods} if isinstance(best, Hybrid) else {}
    # The oracle comes last.
    ordered = [fitted.get(m.name, m) for m in methods if m.name != "oracle"]
    ordered += [model, best] if best is not model else [model]
    ordered += [m for m in methods if m.name == "oracle"]
    ranks = _ranks(ordered, train, tests, data["ties"])
    results = {
        name.removeprefix("test "): {m: report.figures(r, K) for m, (r, _) in found.items()}
        for name, found in ranks.items()
    }
    for (name, test), figures in zip(tests.items(), results.values(), strict=True):
        where = f"{name}: " if len(tests) > 1 else ""
        print(
            f"\n{where}next item among {train.n_items:,}, {len(test.cases):,} cases, "
            f"ties {data['ties']}"
        )
        print(report.table(figures, K))
    if tests and ordered[-1].name == "oracle":
        print(report.about_oracle(parts))
    write_text(out / "history.csv", as_csv(model.history[0], model.history))
    if results:
        written = results["test"] if list(results) == ["test"] else results
        write_text(out / "metrics.json", json.dumps(written, indent=2) + "\n")
    updates = len(model.losses) // len(model.history)
    report.plot_curves(out / "curves.png", model.losses, updates, next(iter(ranks.values()), {}))


def _fingerprints(
    data: dict[str, Any], tests: Mapping[str, Sessions], validation: Sessions | None
) -> dict[str, str]:
    """For `runs.require_judged`: what a run's model is judged on."""
    log = ", ".join(data["train"]) or "the simulated shop"
    found = {}
    for name, test in tests.items():
        source = name.removeprefix("test ") if name != "test" else next(iter(data["test"]), log)
        found[f"test set than {source} gives now"] = fingerprint(test)
    if validation:
        found[f"validation set than {log} gives now"] = fingerprint(validation)
    return found


@contextlib.contextmanager
def _going_on(hint: str) -> Iterator[None]:
    """Add to an error what is kept of the run, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        cli.say(f"stopped; {hint}")
        sys.exit(signals.status_of(stop))
    except (MemoryError, OSError) as error:
        raise InputError(f"{cli.in_words(error, 'file')}; {hint}") from None


def _resume(out: Path) -> str:
    return shlex.join(["python", "-m", "gru4rec_np.train", "--resume", str(out)])


def _ranks(
    methods: Sequence[Any],
    train: Sessions,
    tests: Mapping[str, Sessions],
    ties: str,
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Fit the methods that are not trained. Each test's name to each method's `ranks`."""
    ranks: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {name: {} for name in tests}
    for n, method in enumerate(methods, 1):
        of_all = f"{method.name}, {n} of {len(methods)}"
        if not method._is_trained():
            with cli.progress(f"{of_all}: learning") as watch:
                method.fit(train, watch)
        for name, test in tests.items():
            with cli.progress(f"{of_all}: ranking") as watch:
                ranks[name][method.name] = method.ranks(test, ties, watch)
    return ranks


if __name__ == "__main__":
    cli.run(main)
