"""Do a log of RSC15's size, from the file to the ranks, and a catalogue of a million items fit?

    python benchmarks/scale.py [--scale 1] [--train-seconds 120] [--folder DIR]

Makes 7,966,257 sessions of the simulated shop, 36 million clicks on 37,483 items, as files of all
kinds. Reads, cleans and splits them, lays out an epoch, trains for a while, evaluates, and fits the
baselines. Then every method ranks 10,000 cases among a million items. Each stage is a process of
its own, whose time and largest memory (imports included) are printed; over 4 GiB is an error. The
files, 6 GB, go to a temporary folder. Linux.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from common import machine, peak, random_model, table

from gru4rec_np import GRU4Rec, Sessions, Shop, prepare, read_table
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.data.protocols import clean, split
from gru4rec_np.data.rawlogs import read_rsc15
from gru4rec_np.data.sessions import id_array
from gru4rec_np.data.tables import write_table
from gru4rec_np.models import BASELINES
from gru4rec_np.models.training import Stopped

SESSIONS, ITEMS, DAYS = 7_966_257, 37_483, 182  # RSC15
PART = 250_000  # sessions that are simulated at once
CATALOGUE, CASES = 1_000_000, 10_000
LIMIT = 4096  # MiB
BLOCK = 1_000_000  # events written to RSC15's format at once

# --- stages: each takes the folder and the arguments, and returns sessions or a text --------------


def simulate(folder: Path, args: argparse.Namespace) -> Sessions:
    """The log as arrays; ids are whole numbers and times whole milliseconds, as RSC15's are."""
    n_sessions = int(SESSIONS * args.scale)
    shop = Shop(max(500, int(ITEMS * args.scale)))
    sizes = [min(PART, n_sessions - first) for first in range(0, n_sessions, PART)]
    days = DAYS / len(sizes)
    parts, lengths = [], []
    for seed, size in enumerate(sizes, 1):
        part = shop.simulate(size, seed, days)
        later = 86_400 * days * (seed - 1)
        parts.append((part.items, np.round((part.times + later) * 1000) / 1000))
        lengths.append(part.lengths)
    items, times = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    log = Sessions(
        items=items,
        times=times,
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        item_ids=214_500_000 + np.arange(shop.n_items),
        session_ids=np.arange(1, n_sessions + 1),
    ).compact()
    keep(log, folder / "log.npz")
    return log


def write(ending: str, folder: Path, args: argparse.Namespace) -> Sessions:
    """Write the log as a table."""
    log = kept(folder / "log.npz")
    write_table(log, folder / f"log.{ending}")
    return log


def write_names(folder: Path, args: argparse.Namespace) -> Sessions:
    """Write the log as tables whose ids are texts."""
    log = kept(folder / "log.npz")
    items, sessions = log.item_ids.tolist(), log.session_ids.tolist()
    names = id_array(f"item-{i}" for i in items), id_array(f"session-{i}" for i in sessions)
    log = Sessions(log.items, log.offsets, log.times, *names)
    for ending in ("csv", "parquet"):
        write_table(log, folder / f"names.{ending}")
    return log


def write_rsc15(folder: Path, args: argparse.Namespace) -> Sessions:
    """Write the log in RSC15's format."""
    log = kept(folder / "log.npz")
    session = np.repeat(log.session_ids, log.lengths)
    with (folder / "log.dat").open("wb") as file:
        for i in range(0, log.n_events, BLOCK):
            ms = pl.Series("time", np.round(log.times[i : i + BLOCK] * 1000).astype(np.int64))
            frame = pl.DataFrame({
                "session": session[i : i + BLOCK],
                "time": ms.cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
                "item": log.item_ids[log.items[i : i + BLOCK]],
                "category": np.zeros(len(ms), np.int8),
            })  # fmt: skip
            frame.write_csv(file, include_header=False)
    return log


def cleaning(folder: Path, args: argparse.Namespace) -> tuple[Sessions, Sessions]:
    """Clean and split."""
    train, test = split(clean(kept(folder / "log.npz")), days=1)
    keep(train, folder / "train.npz")
    keep(test, folder / "test.npz")
    return train, test


def command(folder: Path, args: argparse.Namespace) -> str:
    """The command `prepare`, from RSC15's format to two Parquet files."""
    sys.argv = ["prepare", "rsc15", str(folder / "log.dat"), "--out", str(folder)]
    sys.argv += ["--format", "parquet"]
    prepare.main()
    return ""


def read_parts(folder: Path, args: argparse.Namespace) -> tuple[Sessions, Sessions]:
    """What the command wrote, as the command `train` reads it."""
    log, test = (read_table(folder / f"{side}.parquet") for side in ("train", "test"))
    train = log.keep_sessions(log.lengths >= 2).compact()
    return train, test.restrict(train.item_ids)


def batches(folder: Path, args: argparse.Namespace) -> str:
    """Lay out an epoch."""
    train = kept(folder / "train.npz")
    epoch = session_parallel(train, 32)
    if epoch.lanes.sum() > len(train.cases):
        raise SystemExit("error: more cases than the log has")
    return f"{epoch.lanes.sum():,} events in {len(epoch):,} steps of 32 lanes"


def training(folder: Path, args: argparse.Namespace) -> str:
    """The first minutes of an epoch, 100 units, 2048 extra negatives, cross-entropy."""
    train = kept(folder / "train.npz")
    began, first, rate = 0.0, 0, 0.0

    def on_chunk(epoch: int, done: int, total: int, loss: float) -> None:
        nonlocal began, first, rate
        now = time.perf_counter()
        if not began:  # layout and compilation end with the first chunk
            began, first = now, done
        elif now - began > args.train_seconds:
            rate = (done - first) / (now - began)
            raise Stopped

    model = GRU4Rec.published(layers=[100], n_epochs=1, batch_size=32, n_sample=2048)
    try:
        model.fit(train, on_chunk)
    except Stopped:
        pass
    else:
        rate = model.history[0]["events_per_second"]
    return f"{rate:,.0f} events/s with {model.ops.name}"


def evaluation(backend: str, folder: Path, args: argparse.Namespace) -> str:
    """Rank the log's test set by a GRU4Rec of random weights."""
    test = kept(folder / "test.npz")
    ranks, _ = random_model(test.item_ids, backend).ranks(test)
    return f"{len(ranks):,} cases among {test.n_items:,} items"


def baseline(name: str, folder: Path, args: argparse.Namespace) -> str:
    """Fit a baseline on the log, rank its test set."""
    return ranked(name, kept(folder / "train.npz"), kept(folder / "test.npz"))


def among_million(name: str, folder: Path, args: argparse.Namespace, backend: str = "") -> str:
    """Rank cases among a large catalogue, each of whose items was clicked four times."""
    n_items, n_cases = int(CATALOGUE * args.scale), int(CASES * args.scale)
    rng = np.random.default_rng(0)
    items = np.arange(4 * n_items, dtype=np.int32) % n_items
    log = sessions_of(rng.permutation(items), 4, n_items)
    test = sessions_of(rng.integers(0, n_items, 3 * (n_cases // 2), np.int32), 3, n_items)
    return ranked(name, log, test, backend)


STAGES: dict[str, Callable[[Path, argparse.Namespace], Sessions | tuple | str]] = {
    "simulate": simulate,
    "write Parquet": partial(write, "parquet"),
    "write CSV": partial(write, "csv"),
    "write RSC15's format": write_rsc15,
    "write names": write_names,
    "read Parquet": lambda folder, args: read_table(folder / "log.parquet"),
    "read CSV": lambda folder, args: read_table(folder / "log.csv"),
    "read RSC15's format": lambda folder, args: read_rsc15(folder / "log.dat"),
    "read Parquet, ids are texts": lambda folder, args: read_table(folder / "names.parquet"),
    "read CSV, ids are texts": lambda folder, args: read_table(folder / "names.csv"),
    "clean and split": cleaning,
    "command prepare, RSC15's format to Parquet": command,
    "read what it wrote": read_parts,
    "batches of an epoch": batches,
    "training": training,
    "evaluation, numba": partial(evaluation, "numba"),
    "evaluation, numpy": partial(evaluation, "numpy"),
    **{f"fit and rank: {name}": partial(baseline, name)
       for name in ("Item-KNN", "V-SKNN", "BPR-MF")},
    "million items: GRU4Rec, numba": partial(among_million, "GRU4Rec", backend="numba"),
    "million items: GRU4Rec, numpy": partial(among_million, "GRU4Rec", backend="numpy"),
    **{f"million items: {name}": partial(among_million, name)
       for name in ("POP", "S-POP", "Markov", "Item-KNN", "V-SKNN", "BPR-MF")},
}  # fmt: skip
UNMEASURED = ("simulate", "write RSC15's format", "write names")  # the benchmark's own work

# --- what the stages share ------------------------------------------------------------------------


def ranked(name: str, log: Sessions, test: Sessions, backend: str = "") -> str:
    """Fit a method (GRU4Rec: random weights; BPR-MF: one epoch), rank the cases of a test set."""
    began = time.perf_counter()
    if name == GRU4Rec.name:
        model = random_model(log.item_ids, backend)
    else:
        model = BASELINES[name](**({"n_epochs": 1} if name == "BPR-MF" else {})).fit(log)
    fitted, memory = time.perf_counter(), peak()
    ranks, _ = model.ranks(test)
    rate = len(ranks) / (time.perf_counter() - fitted)
    return (f"{len(ranks):,} cases among {log.n_items:,} items, {rate:,.0f} a second; fit "
            f"{fitted - began:.1f} s; {memory:,.0f} MiB before the ranks")  # fmt: skip


def sessions_of(items: np.ndarray, length: int, n_items: int) -> Sessions:
    """Sessions of some length, one after the other."""
    return Sessions(
        items=items,
        offsets=np.arange(0, len(items) + 1, length),
        times=np.arange(len(items), dtype=float),
        item_ids=np.arange(n_items),
        session_ids=np.arange(len(items) // length),
    )


def keep(sessions: Sessions, path: Path) -> None:
    np.savez(path, **vars(sessions))


def kept(path: Path) -> Sessions:
    with np.load(path) as file:
        return Sessions(**file)


def facts(result: Sessions | tuple | str) -> dict:
    """Of sessions, sizes and a hash that does not depend on the order of the catalogue."""
    if isinstance(result, str):
        return {"text": result}
    found, texts = hashlib.sha256(), []
    for sessions in result if isinstance(result, tuple) else (result,):
        number = numbers(sessions.item_ids)
        for i in range(0, sessions.n_events, BLOCK):
            found.update(number[sessions.items[i : i + BLOCK]])
        for array in (numbers(sessions.session_ids), sessions.offsets, sessions.times):
            found.update(array)
        texts.append(f"{sessions.n_events:,} events, {sessions.n_sessions:,} sessions, "
                     f"{sessions.n_items:,} items")  # fmt: skip
    return {"digest": found.hexdigest(), "text": "; ".join(texts)}


def numbers(ids: np.ndarray) -> np.ndarray:
    """Whole numbers as they are; of texts like item-214500000 the number."""
    texts = ids.dtype == object
    return np.array([int(text[text.index("-") + 1 :]) for text in ids]) if texts else ids


def run(name: str, folder: Path, argv: list[str]) -> dict:
    """A stage in a process of its own: what it returns, its seconds and its peak."""
    done = subprocess.run(
        [sys.executable, __file__, *argv, "--folder", str(folder), "--stage", name],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: stage {name!r} ended with {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['seconds']:.1f} s, {found['peak']:,.0f} MiB", file=sys.stderr)
    return found


def check(results: dict[str, dict]) -> None:
    """Stages with the same log have the same sessions; none takes more than the limit."""
    for name, result in results.items():
        source = "clean and split" if name == "read what it wrote" else "simulate"
        if name.startswith(("write", "read")) and result["digest"] != results[source]["digest"]:
            raise SystemExit(f"error: {name}: not the same sessions as of {source}")
    over = [n for n, r in results.items() if n not in UNMEASURED and r["peak"] > LIMIT]
    if over:
        raise SystemExit(f"error: more than {LIMIT} MiB: {', '.join(over)}")


def main() -> None:
    """Run all stages in turn, print the table, check the results."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scale", type=float, default=1.0, help="default 1; 0.01 takes half a minute")
    p.add_argument("--train-seconds", type=float, default=120.0, help="default 120")
    p.add_argument("--folder", help="where the temporary folder is made")
    p.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.stage:
        began = time.perf_counter()
        result = STAGES[args.stage](Path(args.folder), args)
        used = {"seconds": time.perf_counter() - began, "peak": peak()}
        print("\n" + json.dumps(used | facts(result)))
        return
    argv = ["--scale", str(args.scale), "--train-seconds", str(args.train_seconds)]
    print(machine(), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="scale-", dir=args.folder) as folder:
        results = {name: run(name, Path(folder), argv) for name in STAGES}
    rows = [
        [name, f"{r['seconds']:.1f}", f"{r['peak']:,.0f}", r["text"]]
        for name, r in results.items()
        if name not in UNMEASURED
    ]
    print(table(["stage", "seconds", "peak memory, MiB", "what"], rows))
    check(results)


if __name__ == "__main__":
    main()
