"""python -m gru4rec_np.compare: all methods on one log, several seeds, in the papers' tables.

Results are kept, so that nothing is trained twice.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import gru4rec_np
from gru4rec_np.console import cli, comparison, options, report, runs
from gru4rec_np.console.comparison import NETWORKS, REFERENCE, SIMPLE, TABLES, Layout, Run
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_text
from gru4rec_np.models import BASELINES, checkpoint
from gru4rec_np.models.base import Model
from gru4rec_np.models.baselines import Oracle
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.models.narm import NARM
from gru4rec_np.models.neural import Network
from gru4rec_np.models.params import parse_params
from gru4rec_np.ops.losses import LOSSES

METHODS = ("POP", "S-POP", "Markov", "Item-KNN", "BPR-MF", "V-SKNN", "oracle")
# The configuration of each row of GRU4Rec: the defaults, the papers' by loss, then other units.
ALL_SIZES = ("cosine", *LOSSES)
OTHER_UNITS = {"RNN": "rsc15-100k-rnn", "LSTM": "rsc15-100k-lstm"}
CONFIGURATION_OF = {name: f"rsc15-100k-{name}" for name in ALL_SIZES} | OTHER_UNITS
FILES = ("compare.csv", "compare.md", "compare.png")

DESCRIPTION = """\
Train and evaluate all methods on a click log, random ones with several seeds, and compare them in
tables: simple methods, and GRU4Rec by loss and size beside other networks. Says which differences
are more than noise. If it is stopped, the same command continues it."""

EPILOG = """\
example:
  python -m gru4rec_np.compare --train train.tsv --test test.tsv --seeds 3 --sizes 50 100 --paper"""

ARGUMENTS: cli.Arguments = {
    "--out": (cli.DIR,
              "folder of results, ranks and models, which must not be of another log (default: "
              "runs/compare-<log's name>, with a number after it if that is of another log)"),
    "--models": (cli.SEVERAL | {"metavar": "NAME"},
                 f"methods to compare: {', '.join((*METHODS, *CONFIGURATION_OF))}, NARM, hybrid, "
                 "or shipped configurations, each with its own size: "
                 f"{', '.join(options.CONFIGURATIONS)} (default: all but the configurations)"),
    "--seeds": (cli.COUNT, "use seeds 1 to N, N >= 1 (default: 2)"),
    "--sizes": (cli.SEVERAL | cli.COUNT,
                "units of GRU4Rec, >= 1, each with each loss and with cosine scores; RNN, LSTM, "
                "NARM and hybrid are slower and take the smallest (default: 50 100)"),
    "--params": ({"metavar": "A=1,B=2|FILE.py"},
                 "hyperparameters of all rows of GRU4Rec; names left out are those of the "
                 "rsc15-100k configurations"),
    "-k": (cli.K, "cut-off, >= 1 (default: 20)"),
    "--paper": (cli.FLAG, "add a table of the published figures"),
}  # fmt: skip


@dataclasses.dataclass
class Method:
    """A row of a table.

    Attributes:
        name: its label. table: one of `TABLES`.
        seeds: the seeds it is trained with; None if nothing is random.
        make: returns the untrained model; takes the seed, if there are seeds.
    """

    name: str
    table: str
    seeds: range | None
    make: Callable[..., Any]

    def models(self) -> dict[str, Any]:
        """File name of each run to its untrained model."""
        name = self.name.replace(" ", "-")
        if self.seeds is None:
            return {name: self.make()}
        return {f"{name}-seed{seed}": self.make(seed=seed) for seed in self.seeds}


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "compare",
        usage="%(prog)s [--train FILE ... [--test FILE | --split 1d]] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    cli.add_arguments(p, ARGUMENTS)
    options.add_options(p.add_argument_group("data"), options.DATA_OPTIONS)
    return p


def methods(
    names: Sequence[str] | None,
    sizes: Sequence[int],
    n_seeds: int,
    params: str,
    backend: str,
    shop: Shop | None,
) -> list[Method]:
    """The rows: simple methods, GRU4Rec, NARM, configurations.

    Args:
        names: as of --models, None for all; sizes, n_seeds, params: as the options.
        backend: of the networks. shop: of the oracle.

    Raises:
        InputError: an unknown name, the oracle without a shop, an unusable hyperparameter.
    """
    usual = (*METHODS, *CONFIGURATION_OF, "NARM", "hybrid")
    known = (*usual, *options.CONFIGURATIONS)
    if names is None:
        names = [n for n in usual if n != "oracle" or shop]
    for name in names:
        if name not in known:
            raise InputError(f"models: unknown name {name!r}; known are {', '.join(known)}")
    if "oracle" in names and not shop:
        raise InputError("models: the oracle knows the simulated shop only, not --train's log")

    set_here = parse_params(params).values
    for name in ("loss", "unit", "layers", "seed"):
        if name in set_here:
            raise InputError(f"params: {name} differs from row to row; see --models and --sizes")

    seeds, found = range(1, n_seeds + 1), []
    for name in (n for n in known if n in names):
        if name in METHODS:
            cls = BASELINES[name]
            if cls is Oracle and shop:
                found.append(Method(name, SIMPLE, None, partial(Oracle, shop)))
            else:
                random = "seed" in {f.name for f in dataclasses.fields(cls.Hyperparameters)}
                found.append(Method(name, SIMPLE, seeds if random else None, cls))
        elif name == "NARM":
            narm = partial(NARM, embedding=min(sizes), hidden=min(sizes), backend=backend)
            found.append(Method(f"NARM {min(sizes)}", NETWORKS, seeds, narm))
        elif name == "hybrid":
            hybrid = partial(Hybrid, **set_here, layers=[min(sizes)], backend=backend)
            found.append(Method(f"hybrid {min(sizes)}", NETWORKS, seeds, hybrid))
        else:
            values = options.read_config(CONFIGURATION_OF.get(name, name))
            values |= set_here | {"backend": backend}
            if name in options.CONFIGURATIONS:
                found.append(Method(name, NETWORKS, seeds, partial(GRU4Rec, **values)))
                continue
            of = "cosine" if name == "cosine" else values["loss"]
            for size in sorted(set(sizes)) if name in ALL_SIZES else [min(sizes)]:
                label = f"{values.get('unit', 'gru').upper()} {of} {size}"
                make = partial(GRU4Rec, **{**values, "layers": [size]})
                found.append(Method(label, NETWORKS, seeds, make))
    for method in found:
        method.models()  # raises on bad values, before any work
    return found


def digest(train: Sessions, test: Sessions) -> str:
    """A hash of all events, times and item ids."""
    found = hashlib.sha256()
    for part in (train, test):
        ids = checkpoint.pack_ids(part.item_ids)
        for array in (part.items, part.offsets, part.times, *ids.values()):
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def identity(model: Model, data: str, ties: str) -> str:
    """All that a result depends on, as JSON: the model, its parameters and backend, data, ties.

    Args:
        model: not yet trained. data: the `digest`.
    """
    about: dict[str, Any] = {"version": gru4rec_np.__version__, "model": model.name}
    about |= {"data": data, "ties": ties, "parameters": model.hyperparameters()}
    if isinstance(model, Network | Hybrid):
        about["backend"] = model.ops.name
    return json.dumps(about)


def train_and_rank(model: Any, train: Sessions, test: Sessions, ties: str, bar: tqdm) -> Run:
    """Fit and evaluate, timed. A short run before it compiles what is compiled at first use."""
    if isinstance(model, Network | Hybrid) and model.backend != "numpy":
        few = train.keep_sessions(np.arange(train.n_sessions) < 50).compact()
        quick = type(model)(**{**model.hyperparameters(), "n_epochs": 1}, backend=model.backend)
        # Of so few sessions a hybrid could hold out some without a known item.
        quick.fit(few, **({"validation": few} if isinstance(model, Hybrid) else {})).ranks(few)

    def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
        bar.set_postfix_str(f"epoch {epoch}/{model.n_epochs}, {done / total:.0%}, loss {loss:.3f}")

    began = time.perf_counter()
    if isinstance(model, GRU4Rec | Hybrid):
        model.fit(train, on_chunk=on_chunk, verbose=False)
    else:
        model.fit(train)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    ranks, _ = model.ranks(test, ties)
    return Run(ranks, seconds, len(ranks) / (time.perf_counter() - began), kept=False)


def kept_run(path: Path, wanted: str) -> Run | None:
    """The result of an earlier start; None if missing, damaged or of another `identity`."""
    with contextlib.suppress(InputError, KeyError):
        about, arrays = checkpoint.load(path)
        if about["identity"] == wanted:
            return Run(arrays["ranks"], about["seconds"], about["cases_per_second"], kept=True)
    return None


def run_all(
    rows: list[Method], parts: dict[str, Sessions], ties: str, k: int, out: Path
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Train and evaluate what `out` lacks, with a line for each method.

    Each result is written at once, the model before its ranks, both whole or not at all:
    out/models/NAME.npz and out/ranks/NAME.npz. NAME ends in a hash of `identity`, so results of
    other data or parameters stay.

    Returns:
        method to its runs, and method to why it has none.
    """
    data = digest(parts["train"], parts["test"])
    for folder in ("models", "ranks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    width = max(len(method.name) for method in rows)
    results: dict[str, list[Run]] = {}
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
                results[method.name] = found
                mean = comparison.means(found, k)
                line = f"Recall@{k} {mean['recall']:.4f}   MRR@{k} {mean['mrr']:.4f}"
                line += f"   {sum(run.seconds for run in found):7.1f} s"
                line += "   (kept)" if all(run.kept for run in found) else ""
            print(f"{method.name:{width}}   {line}", flush=True)
    return results, failed


def folder_for(base: Path, data: str) -> Path:
    """The folder, or else folder-2, ...: the first that is unused or has results of this data.

    Args:
        data: the `digest`.
    """
    place, n = base, 1
    while place.exists() and any(place.iterdir()) and not (place / marker(data)).exists():
        n += 1
        place = base.with_name(f"{base.name}-{n}")
    return place


def require_own(out: Path, data: str) -> None:
    """Raise InputError if a folder has results that are not of this data.

    Args:
        data: the `digest`.
    """
    if (out / marker(data)).exists():
        return
    there = [name for name in FILES if (out / name).exists()]
    there += [path.name for path in out.glob(marker("?" * 12))]
    if there:
        raise InputError(
            f"--out {out}: {out / there[0]} is of another log or another split; choose another "
            "folder"
        )


def marker(data: str) -> str:
    """The name of an empty file by which a folder tells of which data its results are."""
    return f"data-{data[:12]}"


def main() -> None:
    """Run the command on sys.argv."""
    given = options.parse(parser(), sys.argv[1:])
    data = options.data_settings(given)
    options.require_no_days(given, data["layout"])
    options.require_one_test(data, "a comparison")
    k = given.get("k", 20)
    shop = None if data["train"] else Shop(n_items=data["shop_items"], seed=data["shop_seed"])
    rows = methods(
        given.get("models"),
        given.get("sizes", [50, 100]),
        given.get("seeds", 2),
        given.get("params", ""),
        data["backend"],
        shop,
    )
    base = Path(given.get("out", f"runs/compare-{runs.name_of(data['train'] or ['shop'])}"))
    cli.check_output(base, FILES, data["train"] + data["test"])
    with cli.surviving_output():
        dropped: Counter[str] = Counter()
        parts, _ = options.load_data(data, dropped=dropped)
        content = digest(parts["train"], parts["test"])
        if "out" in given:
            require_own(base, content)
        out = base if "out" in given else folder_for(base, content)
        table = report.describe(parts, dropped)
        print(table, "", f"results go to {out}/", "", sep="\n", flush=True)
        out.mkdir(parents=True, exist_ok=True)
        with runs.alone(out):
            runs.remove_parts(out, FILES)
            (out / marker(content)).touch()
            results, failed = run_all(rows, parts, data["ties"], k, out)
            if not results:
                raise InputError(f"no method could be trained; {next(iter(failed.values()))}")
            write_tables(out, rows, results, failed, parts, k, given)


def write_tables(
    out: Path,
    rows: list[Method],
    results: dict[str, list[Run]],
    failed: dict[str, str],
    parts: dict[str, Sessions],
    k: int,
    given: dict[str, Any],
) -> None:
    """Print the tables and write them, the figures and the plot.

    Args:
        results, failed: from `run_all`. k: the cut-off. given: the command's options.
    """
    test = parts["test"]
    session = np.searchsorted(test.offsets, test.cases, side="right")
    found = comparison.summary(results, session, k)
    table_of = {method.name: method.table for method in rows if method.name in results}

    def document(layout: Layout) -> str:
        text = comparison.tables(table_of, found, k, layout)
        n_seeds = given.get("seeds", 2)
        text += [comparison.notes(test.n_sessions, n_seeds, REFERENCE in results)]
        if "oracle" in results:
            text += [report.about_oracle(parts)]
        if given.get("paper"):
            text += [comparison.paper_table(results, layout), comparison.ABOUT_PAPER]
        return "\n\n".join(text + [f"Not trained: {n}: {why}" for n, why in failed.items()])

    print(f"\n{document(report.aligned)}")
    write_text(out / "compare.md", document(report.markdown) + "\n")
    write_text(out / "compare.csv", comparison.figures_csv(table_of, found))
    groups = {t: [name for name in table_of if table_of[name] == t] for t in TABLES}
    report.plot_comparison(
        out / "compare.png", found, {t: names for t, names in groups.items() if names}, k
    )
    print(f"\nwritten to {out}/: {', '.join(FILES)}; models/ and ranks/ of each run")


if __name__ == "__main__":
    cli.run(main)
