"""Figures of many methods on one log: means, differences beyond noise, and their tables.

compare.py prints and writes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gru4rec_np.backends import one_blas_thread
from gru4rec_np.files import as_csv
from gru4rec_np.ops.bootstrap import interval, resampled_means

TABLES = SIMPLE, NETWORKS = "Simple methods", "Recurrent networks"
REFERENCE = "Item-KNN"  # gains are relative to it, as in the first paper
RESAMPLES = 2000
FEW = 30  # test sessions; fewer are too few for a bootstrap
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
    "clicks, 37,483 items, 71,222 test clicks. Other data gives other figures, and perhaps another "
    "order of the methods. GRU4Rec has other hyperparameters here."
)

Layout = Callable[[Sequence[str], Sequence[Sequence[str]]], str]  # head, rows -> table


@dataclasses.dataclass
class Run:
    """A method trained and evaluated with one seed.

    Attributes:
        ranks: (cases,). seconds: of training. cases_per_second: of evaluation.
        kept: it is the result of an earlier start.
    """

    ranks: np.ndarray
    seconds: float
    cases_per_second: float
    kept: bool


def per_case(ranks: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """The values whose means are Recall@k and MRR@k, in the shape of ranks (seeds, cases)."""
    hit = ranks <= k
    return {"recall": hit.astype(float), "mrr": np.where(hit, 1 / ranks, 0)}


def _ranks(runs: Sequence[Run]) -> np.ndarray:
    """(seeds, cases)"""
    return np.stack([run.ranks for run in runs])


def means(runs: Sequence[Run], k: int) -> dict[str, float]:
    """Recall@k and MRR@k over cases and seeds."""
    return {metric: float(values.mean()) for metric, values in per_case(_ranks(runs), k).items()}


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
    values = {name: per_case(_ranks(found), k) for name, found in runs.items()}
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
        best = max((n for n in names if n != "oracle"), key=mean.__getitem__, default=names[0])
        resampled = resampled_means([values[n][metric] for n in names], session, resamples)
        for i, name in enumerate(names):
            row = out[name]
            row[metric] = mean[name]
            several = len(per_seed[name]) > 1
            row[f"{metric}_std"] = float(per_seed[name].std(ddof=1)) if several else None
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
    """+0.0123 [+0.0100, +0.0146], marked as noise if the interval contains 0."""
    low, high = row[f"{which}_low"], row[f"{which}_high"]
    if low == high == row[which] == 0:
        return "-"
    text = f"{row[which]:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"{text} {NOISE}" if low <= 0 <= high else text


def tables(
    table_of: Mapping[str, str],
    found: dict[str, dict[str, Any]],
    k: int,
    layout: Layout,
) -> list[str]:
    """The tables and the differences, each formatted by `layout`.

    Args:
        table_of: method to one of `TABLES`. found: from `summary`. k: the cut-off.
    """
    out = []
    for title in TABLES:
        head = ["method", f"Recall@{k}", "gain", f"MRR@{k}", "gain", "training, s", "cases/s"]
        lines = [
            [
                name,
                *(f(row, m) for m in ("recall", "mrr") for f in (_number, _gain)),
                f"{row['seconds']:.1f}",
                f"{row['cases_per_second']:,.0f}",
            ]
            for name, row in found.items()
            if table_of[name] == title
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
    """What the figures of the tables mean."""
    parts = [f"Mean ± standard deviation over {n_seeds} seeds."] * (n_seeds > 1)
    parts += [f"Gain: over {REFERENCE}."] * reference
    parts += [
        f"Differences with 95% intervals by a paired bootstrap over the {n_sessions:,} test "
        f"sessions and the seeds, {RESAMPLES:,} resamples. If the interval contains 0, the "
        f"difference is {NOISE}. About one in twenty such intervals is wrong by chance."
    ]
    if n_seeds == 1:
        parts += ["With one seed the intervals do not cover the variation between seeds."]
    if n_sessions < FEW:
        parts += [f"{n_sessions} sessions are too few for that: no difference here is reliable."]
    return " ".join(parts)


def paper_table(runs: dict[str, list[Run]], layout: Layout) -> str:
    """The published figures beside those found here."""
    head = ["method", "Recall@20 published", "here", "MRR@20 published", "here"]
    lines = []
    for name, (recall, mrr) in PAPER.items():
        here = ["not run"] * 2
        if name in runs:
            here = [f"{value:.4f}" for value in means(runs[name], 20).values()]
        lines.append([name, f"{recall:.4f}", here[0], f"{mrr:.4f}", here[1]])
    return f"Published figures\n\n{layout(head, lines)}"


def figures_csv(table_of: Mapping[str, str], found: dict[str, dict[str, Any]]) -> str:
    """All figures of `summary` as CSV, a line for each method."""
    rows = [{"method": name, "table": table_of[name], **row} for name, row in found.items()]
    return as_csv(rows[0], rows)
