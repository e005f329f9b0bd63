"""python -m gru4rec_np.compare: all methods on one log, over several seeds, as the papers' tables.

A command: parses options, prints, writes files. What is trained is kept and not trained again.
Imports train.py for the data's options and the configurations, the models and what is below them.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import gru4rec_np
from gru4rec_np import checkpoint, cli, report
from gru4rec_np.bootstrap import interval, resampled_means
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_text
from gru4rec_np.gru4rec import GRU4Rec
from gru4rec_np.hyperparameters import parse_params
from gru4rec_np.kernels import one_blas_thread
from gru4rec_np.losses import LOSSES
from gru4rec_np.models import BASELINES
from gru4rec_np.narm import NARM
from gru4rec_np.runs import alone
from gru4rec_np.sessions import Sessions
from gru4rec_np.shop import Shop
from gru4rec_np.train import (
    CONFIGURATIONS,
    about_oracle,
    add_data_options,
    data_settings,
    load_data,
    parse,
    read_config,
)

SIMPLE = ("POP", "S-POP", "Markov", "Item-KNN", "BPR-MF", "V-SKNN", "oracle")
# GRU4Rec by loss, then with other units: the configuration that each row has.
UNITS = {"RNN": "rsc15-100k-rnn", "LSTM": "rsc15-100k-lstm"}
NETWORKS = {loss: f"rsc15-100k-{loss}" for loss in LOSSES} | UNITS
REFERENCE = "Item-KNN"  # what gains are over, as in the first paper
TABLES = ("Simple methods", "Recurrent networks")
FILES = ("compare.csv", "compare.md", "compare.png")
RESAMPLES = 2000
FEW = 30  # test sessions; from fewer, what others would do cannot be told
NOISE = "not more than noise"

# Recall@20 and MRR@20 that Hidasi et al. 2016 (arXiv 1511.06939) give for RSC15.
PAPER = {
    "POP": (0.0050, 0.0012),
    "S-POP": (0.2672, 0.1775),
    "Item-KNN": (0.5065, 0.2048),
    "BPR-MF": (0.2574, 0.0618),
    "GRU top1 100": (0.5853, 0.2305),
    "GRU bpr 100": (0.6069, 0.2407),
    "GRU cross-entropy 100": (0.6074, 0.2430),
    "GRU top1 1000": (0.6206, 0.2693),
    "GRU bpr 1000": (0.6322, 0.2467),
    "GRU cross-entropy 1000": (0.5777, 0.2153),
}
ABOUT_PAPER = (
    "Published: Hidasi et al. 2016 (arXiv 1511.06939), on the whole of RSC15: 31,637,239 training "
    "clicks, 37,483 items, 71,222 test clicks. On other data the figures are others, and methods "
    "may come in another order; and here GRU4Rec has other hyperparameters."
)

Layout = Callable[[Sequence[str], Sequence[Sequence[str]]], str]  # head and rows to a table

DESCRIPTION = """\
Train and evaluate all methods on a click log, several seeds where a method is random, and lay them
side by side: the simple ones, and GRU4Rec by loss and size with other networks. Says which
differences are more than noise. Started again, it goes on where it was stopped."""

EPILOG = """\
example:
  python -m gru4rec_np.compare --train train.tsv --test test.tsv --seeds 3 --sizes 50 100 --paper"""


@dataclasses.dataclass
class Method:
    """A row of a table.

    Attributes:
        name: its label. table: 0 or 1, of `TABLES`.
        seeds: those it is trained with, None where nothing is random.
        make: the untrained model, of a seed if there are any.
    """

    name: str
    table: int
    seeds: range | None
    make: Callable[..., Any]

    def models(self) -> dict[str, Any]:
        """Name of each run, for a file, to its model, not yet trained."""
        name = self.name.replace(" ", "-")
        if self.seeds is None:
            return {name: self.make()}
        return {f"{name}-seed{seed}": self.make(seed=seed) for seed in self.seeds}


@dataclasses.dataclass
class Run:
    """A method trained and evaluated with one seed.

    Attributes:
        ranks: (cases,). seconds: of training. cases_per_second: of evaluation.
        kept: it was not trained now.
    """

    ranks: np.ndarray
    seconds: float
    cases_per_second: float
    kept: bool


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        prog="python -m gru4rec_np.compare",
        usage="%(prog)s [--train FILE [--test FILE | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    p.add_argument(
        "--out",
        metavar="DIR",
        help="where results, ranks and models go (default: runs/compare-<log's name>)",
    )
    p.add_argument(
        "--models",
        metavar="NAME",
        nargs="+",
        help=f"some of {', '.join((*SIMPLE, *NETWORKS))}, NARM, or a configuration by name, with "
        f"its own size: {', '.join(CONFIGURATIONS)} (default: all but the configurations)",
    )
    p.add_argument(
        "--seeds", type=cli.positive, metavar="N", help="seeds 1 to N of each method (default: 2)"
    )
    p.add_argument(
        "--sizes",
        type=cli.positive,
        metavar="N",
        nargs="+",
        help="units of GRU4Rec, each by each loss; RNN, LSTM and NARM, which are slower, have the "
        "smallest (default: 50 100)",
    )
    p.add_argument(
        "--params",
        metavar="A=1,B=2",
        help="hyperparameters of all of GRU4Rec's rows, which have those of rsc15-100k otherwise",
    )
    p.add_argument("-k", type=cli.positive, metavar="K", help="cut-off (default: 20)")
    p.add_argument("--paper", action="store_true", help="lay the published figures beside")
    add_data_options(p)
    return p


def methods(
    names: Sequence[str] | None,
    sizes: Sequence[int],
    n_seeds: int,
    params: str,
    backend: str,
    shop: Shop | None,
) -> list[Method]:
    """The rows that are asked for: simple methods, GRU4Rec, NARM, configurations.

    Args:
        names: as of --models, None for all; sizes, n_seeds, params: as the options.
        backend: of the networks. shop: of the oracle.

    Raises:
        InputError: an unknown name, the oracle without a shop, an unusable hyperparameter.
    """
    usual = (*SIMPLE, *NETWORKS, "NARM")
    known = (*usual, *CONFIGURATIONS)
    if names is None:
        names = [n for n in usual if n != "oracle" or shop]
    for name in names:
        if name not in known:
            raise InputError(f"models: unknown name {name!r}; known are {', '.join(known)}")
    if "oracle" in names and not shop:
        raise InputError("models: the oracle knows the simulated shop only, not --train's log")

    set_here = parse_params(params)
    for name in ("loss", "unit", "layers", "seed"):
        if name in set_here:
            raise InputError(f"params: {name} differs from row to row; see --models and --sizes")

    seeds, found = range(1, n_seeds + 1), []
    for name in (n for n in known if n in names):
        if name in SIMPLE:
            cls = BASELINES[name]
            if name == "oracle":
                found.append(Method(name, 0, None, partial(cls, shop)))
            else:
                random = "seed" in getattr(cls, "__dataclass_fields__", {})
                found.append(Method(name, 0, seeds if random else None, cls))
        elif name == "NARM":
            make = partial(NARM, embedding=min(sizes), hidden=min(sizes), backend=backend)
            found.append(Method(f"NARM {min(sizes)}", 1, seeds, make))
        else:
            values = read_config(NETWORKS.get(name, name))
            values |= parse_params(params, values["input"]) | {"backend": backend}
            if name in CONFIGURATIONS:
                found.append(Method(name, 1, seeds, partial(GRU4Rec, **values)))
                continue
            for size in sorted(set(sizes)) if name in LOSSES else [min(sizes)]:
                label = f"{values.get('unit', 'gru').upper()} {values['loss']} {size}"
                make = partial(GRU4Rec, **{**values, "layers": [size]})
                found.append(Method(label, 1, seeds, make))
    for method in found:
        method.models()  # what cannot be used is said before any work
    return found


def digest(train: Sessions, test: Sessions) -> str:
    """What tells data sets apart: a hash of all events, times and item ids."""
    found = hashlib.sha256()
    for part in (train, test):
        ids = checkpoint.pack_ids(part.item_ids)
        for array in (part.items, part.offsets, part.times, *ids.values()):
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def identity(model: Any, data: str, ties: str) -> str:
    """All that a result depends on, as JSON: the model, its parameters and backend, data, ties.

    Args:
        model: not yet trained. data: the `digest`.
    """
    about = {"version": gru4rec_np.__version__, "model": model.name, "data": data, "ties": ties}
    if hasattr(model, "hyperparameters"):
        about |= {"parameters": model.hyperparameters(), "backend": model.ops.name}
    elif dataclasses.is_dataclass(model):
        about |= {"parameters": dataclasses.asdict(model)}
    return json.dumps(about)


def train_and_rank(model: Any, train: Sessions, test: Sessions, ties: str, bar: tqdm) -> Run:
    """Fit and evaluate, timed; what is compiled at first use is used before, and not timed."""
    if getattr(model, "backend", "numpy") != "numpy":
        few = train.keep_sessions(np.arange(train.n_sessions) < 50).compact()
        quick = type(model)(**{**model.hyperparameters(), "n_epochs": 1}, backend=model.backend)
        quick.fit(few).ranks(few)

    def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
        bar.set_postfix_str(f"epoch {epoch}/{model.n_epochs}, {done / total:.0%}, loss {loss:.3f}")

    began = time.perf_counter()
    model.fit(train, *([on_chunk] if isinstance(model, GRU4Rec) else []))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    ranks, _ = model.ranks(test, ties)
    return Run(ranks, seconds, len(ranks) / (time.perf_counter() - began), kept=False)


def kept_run(path: Path, wanted: str) -> Run | None:
    """What an earlier start left, or None: nothing, nothing readable, or of another `identity`."""
    try:
        about, arrays = checkpoint.load(path)
        if about["identity"] == wanted:
            return Run(arrays["ranks"], about["seconds"], about["cases_per_second"], kept=True)
    except (InputError, KeyError):
        pass
    return None


def run_all(
    rows: list[Method], parts: dict[str, Sessions], ties: str, k: int, out: Path
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Train and evaluate what `out` does not have yet, with a line for each method.

    Each result is written as soon as it is there, the model before its ranks, both whole or not at
    all: out/models/NAME.npz and out/ranks/NAME.npz. NAME ends in a hash of `identity`, so what
    stems from other data or parameters stays beside it.

    Returns:
        method to its runs, and method to why it has none.
    """
    data = digest(parts["train"], parts["test"])
    for folder in ("models", "ranks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    width = max(len(method.name) for method in rows)
    runs: dict[str, list[Run]] = {}
    failed: dict[str, str] = {}
    total = sum(len(method.seeds or [None]) for method in rows)
    with tqdm(total=total, unit="run", dynamic_ncols=True, disable=None) as bar:
        for method in rows:
            found = []
            for name, model in method.models().items():
                bar.set_description(name)
                wanted = identity(model, data, ties)
                file = f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}.npz"
                run = kept_run(out / "ranks" / file, wanted)
                if run is None:
                    try:
                        run = train_and_rank(model, parts["train"], parts["test"], ties, bar)
                        model.save(out / "models" / file)
                    except InputError as error:
                        failed[method.name] = str(error)
                        break
                    about = {"identity": wanted, "seconds": run.seconds}
                    about |= {"cases_per_second": run.cases_per_second}
                    checkpoint.save(out / "ranks" / file, about, {"ranks": run.ranks})
                found.append(run)
                bar.set_postfix_str("", refresh=False)
                bar.update()
            bar.clear()
            if method.name in failed:
                line = f"not trained: {failed[method.name]}"
            else:
                runs[method.name] = found
                mean = _means(found, k)
                line = f"Recall@{k} {mean['recall']:.4f}   MRR@{k} {mean['mrr']:.4f}"
                line += f"   {sum(run.seconds for run in found):7.1f} s"
                line += "   (kept)" if all(run.kept for run in found) else ""
            print(f"{method.name:{width}}   {line}", flush=True)
    return runs, failed


# --- the tables -----------------------------------------------------------------------------------


def _per_case(runs: Sequence[Run], k: int) -> dict[str, np.ndarray]:
    """(seeds, cases) of each metric, whose means are Recall@k and MRR@k."""
    ranks = np.stack([run.ranks for run in runs])
    hit = ranks <= k
    return {"recall": hit.astype(float), "mrr": np.where(hit, 1 / ranks, 0)}


def _means(runs: Sequence[Run], k: int) -> dict[str, float]:
    return {metric: float(values.mean()) for metric, values in _per_case(runs, k).items()}


@one_blas_thread
def summary(
    runs: dict[str, list[Run]], session: np.ndarray, k: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, Any]]:
    """Each method's figures, differences with 95% intervals included.

    A method's value at a case is the mean over its seeds; means over cases are compared on
    resampled sessions and seeds, see `bootstrap.resampled_means`.

    Args:
        runs: method to its runs. session: (cases,) which session each case is of.

    Returns:
        method to {"seeds", "seconds", "cases_per_second"} and, with recall and mrr for M:
        {M, M_std (over seeds; None with one), M_gain (percent over `REFERENCE`; None without it)}
        and, with `REFERENCE` (if it is there) and the best method but the oracle for R:
        {M_to_R, M_to_R_low, M_to_R_high}, R being "knn" or "best", whose name is M_best.
    """
    values = {name: _per_case(found, k) for name, found in runs.items()}
    out: dict[str, dict[str, Any]] = {
        name: {
            "seeds": len(found),
            "seconds": float(np.mean([run.seconds for run in found])),
            "cases_per_second": float(np.mean([run.cases_per_second for run in found])),
        }
        for name, found in runs.items()
    }
    names = list(runs)
    for metric in ("recall", "mrr"):
        per_seed = {name: values[name][metric].mean(axis=1) for name in names}
        mean = {name: float(per_seed[name].mean()) for name in names}
        best = max((n for n in names if n != "oracle"), key=mean.get, default=names[0])
        resampled = resampled_means([values[n][metric] for n in names], session, resamples)
        for i, name in enumerate(names):
            row = out[name]
            row[metric] = mean[name]
            spread = per_seed[name].std(ddof=1) if len(per_seed[name]) > 1 else None
            row[f"{metric}_std"] = spread if spread is None else float(spread)
            base = mean.get(REFERENCE, 0)
            row[f"{metric}_gain"] = 100 * (mean[name] / base - 1) if base else None
            row[f"{metric}_best"] = best
            for short, other in (("knn", REFERENCE), ("best", best)):
                if other in mean:
                    difference = resampled[:, i] - resampled[:, names.index(other)]
                    low, high = interval(difference)
                    row[f"{metric}_to_{short}"] = mean[name] - mean[other]
                    row[f"{metric}_to_{short}_low"] = float(low)
                    row[f"{metric}_to_{short}_high"] = float(high)
    return out


def _number(row: dict[str, Any], metric: str) -> str:
    std = row[f"{metric}_std"]
    return f"{row[metric]:.4f}" + (f" ± {std:.4f}" if std is not None else "")


def _gain(row: dict[str, Any], metric: str) -> str:
    gain = row[f"{metric}_gain"]
    return "" if gain is None else f"{gain:+.1f}%"


def _difference(row: dict[str, Any], which: str) -> str:
    """+0.0123 [+0.0100, +0.0146] and, if 0 is inside, that it is not more than noise."""
    low, high = row[f"{which}_low"], row[f"{which}_high"]
    if low == high == row[which] == 0:
        return "-"
    text = f"{row[which]:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"{text} {NOISE}" if low <= 0 <= high else text


def tables(
    rows: list[Method],
    found: dict[str, dict[str, Any]],
    k: int,
    layout: Layout,
) -> list[str]:
    """The two tables and the differences, each as `layout` of head and rows has it."""
    out = []
    for number, title in enumerate(TABLES):
        head = ["method", f"Recall@{k}", "gain", f"MRR@{k}", "gain", "training, s", "cases/s"]
        lines = [
            [
                name,
                *(f(row, m) for m in ("recall", "mrr") for f in (_number, _gain)),
                f"{row['seconds']:.1f}",
                f"{row['cases_per_second']:,.0f}",
            ]
            for name, row in ((m.name, found.get(m.name)) for m in rows if m.table == number)
            if row
        ]
        if lines:
            out += [f"{title}\n\n{layout(head, lines)}"]
    for metric, title in (("recall", f"Recall@{k}"), ("mrr", f"MRR@{k}")):
        first = next(iter(found.values()))
        references = [("best", f"to the best, {first[f'{metric}_best']}")]
        if f"{metric}_to_knn" in first:
            references.insert(0, ("knn", f"to {REFERENCE}"))
        head = ["method", *(text for _, text in references)]
        lines = [
            [name, *(_difference(row, f"{metric}_to_{r}") for r, _ in references)]
            for name, row in found.items()
        ]
        out += [f"Differences in {title}\n\n{layout(head, lines)}"]
    return out


def notes(n_sessions: int, n_seeds: int, reference: bool) -> str:
    """What the tables' figures mean."""
    parts = [f"Mean ± standard deviation over {n_seeds} seeds of what is random."] * (n_seeds > 1)
    parts += [f"Gain: over {REFERENCE}."] * reference
    parts += [
        f"Differences with 95% intervals by a paired bootstrap over the {n_sessions:,} test "
        f"sessions and the seeds, {RESAMPLES:,} resamples; with 0 inside, the difference is "
        f"{NOISE}. Of twenty such intervals about one misses by chance."
    ]
    if n_seeds == 1:
        parts += ["With one seed, what another one would give is not in the intervals."]
    if n_sessions < FEW:
        parts += [f"{n_sessions} sessions are too few for that: believe no difference here."]
    return " ".join(parts)


def paper_table(runs: dict[str, list[Run]], layout: Layout) -> str:
    """The published figures beside those found here."""
    head = ["method", "Recall@20 published", "here", "MRR@20 published", "here"]
    lines = []
    for name, (recall, mrr) in PAPER.items():
        here = ["not run"] * 2
        if name in runs:
            here = [f"{value:.4f}" for value in _means(runs[name], 20).values()]
        lines.append([name, f"{recall:.4f}", here[0], f"{mrr:.4f}", here[1]])
    return f"Published figures\n\n{layout(head, lines)}"


def as_csv(rows: list[Method], found: dict[str, dict[str, Any]]) -> str:
    """All figures, a line for each method."""
    text = io.StringIO()
    fields = ["method", "table", *next(iter(found.values()))]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for method in rows:
        if method.name in found:
            about = {"method": method.name, "table": TABLES[method.table]}
            writer.writerow({**about, **found[method.name]})
    return text.getvalue()


def main() -> None:
    """Run the command on sys.argv."""
    given = parse(parser(), sys.argv[1:])
    data = data_settings(given)
    k = given.get("k", 20)
    name = Path(data["train"]).name.split(".")[0] if data["train"] else "shop"
    out = Path(given.get("out", f"runs/compare-{name}"))
    shop = None if data["train"] else Shop(n_items=data["shop_items"], seed=data["shop_seed"])
    rows = methods(
        given.get("models"),
        given.get("sizes", [50, 100]),
        given.get("seeds", 2),
        given.get("params", ""),
        data["backend"],
        shop,
    )
    cli.check_output(out, FILES, [Path(data[n]) for n in ("train", "test") if data[n]])
    parts, _ = load_data(data)
    print(report.describe(parts), "", f"results go to {out}/", "", sep="\n", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        runs, failed = run_all(rows, parts, data["ties"], k, out)
    if not runs:
        raise InputError(f"no method could be trained; {next(iter(failed.values()))}")
    test = parts["test"]
    session = np.searchsorted(test.offsets, test.cases, side="right")
    found = summary(runs, session, k)

    def document(layout: Layout) -> str:
        text = tables(rows, found, k, layout)
        text += [notes(test.n_sessions, given.get("seeds", 2), REFERENCE in runs)]
        if "oracle" in runs:
            text += [about_oracle(parts)]
        if given.get("paper"):
            text += [paper_table(runs, layout), ABOUT_PAPER]
        return "\n\n".join(text + [f"Not trained: {n}: {why}" for n, why in failed.items()])

    print(f"\n{document(report.aligned)}")
    write_text(out / "compare.md", document(report.markdown) + "\n")
    write_text(out / "compare.csv", as_csv(rows, found))
    of_tables = [[m.name for m in rows if m.table == t and m.name in runs] for t in (0, 1)]
    groups = {title: names for title, names in zip(TABLES, of_tables, strict=True) if names}
    report.plot_comparison(out / "compare.png", found, groups, k)
    print(f"\nwritten to {out}/: {', '.join(FILES)}; models/ and ranks/ of each run")


if __name__ == "__main__":
    cli.run(main)
