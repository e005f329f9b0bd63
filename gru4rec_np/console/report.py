"""Tables and plots of data and results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec_np.data.sessions import Sessions
from gru4rec_np.files import write_whole
from gru4rec_np.ops.ranking import metrics, ndcg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gru4rec_np.models.base import Model

# Colours that differ in greyscale and for colour-blind readers (Wong 2011).
COLOURS = {
    "POP": "#999999",
    "S-POP": "#56B4E9",
    "BPR-MF": "#0072B2",
    "Item-KNN": "#E69F00",
    "V-SKNN": "#CC79A7",
    "Markov": "#009E73",
    "GRU4Rec": "#D55E00",
    "oracle": "#000000",
}
LAST_POSITION = 8  # the last group of a plot by position; it takes all later events


def describe(parts: Mapping[str, Sessions], dropped: Mapping[str, int] | None = None) -> str:
    """Sizes of data sets, as an aligned table, and below it what of a log has no part in them.

    Args:
        parts: "raw test" is the test log as read, if that is a log of its own. It has no row; a
            line says what of it is evaluated, if that is not all.
        dropped: rows that were left out, by the reason.
    """
    width = max(9, *map(len, parts)) + 1
    lines = [
        f"{'data':{width}}{'events':>12}{'sessions':>12}{'items':>10}{'events/session':>17}"
        f"{'longest':>10}"
    ]
    evaluated = []
    for name, s in parts.items():
        if name.startswith("raw "):
            continue
        used = int((s.support > 0).sum())
        mean = s.n_events / s.n_sessions
        lines.append(
            f"{name:{width}}{s.n_events:12,}{s.n_sessions:12,}{used:10,}{mean:17.2f}{s.lengths.max():10,}"
        )
        log = parts.get(f"raw {name}", s)
        if log.n_events > s.n_events:
            evaluated.append(f"{name:9} {about_test(log, s)}")
    return "\n".join([*lines, *left_out(dropped or {}), *evaluated])


def left_out(dropped: Mapping[str, int]) -> list[str]:
    """A line for each reason for which rows of a log were left out."""
    return [f"left out  {rows:,} {reason}" for reason, rows in dropped.items()]


def about_test(log: Sessions, test: Sessions) -> str:
    """What of a test log is evaluated: those sessions after `Sessions.restrict`."""
    return (
        f"{log.n_events:,} events in {log.n_sessions:,} sessions; evaluated: "
        f"{test.n_events:,} in {test.n_sessions:,} (known items, 2 events or more)"
    )


def figures(ranks: np.ndarray, k: Sequence[int]) -> dict[str, float]:
    """Recall@K, MRR@K and NDCG@K of some ranks, by name, for each cut-off."""
    return metrics(ranks, k) | {f"ndcg@{cut}": ndcg(ranks, cut) for cut in k}


def coverage(
    model: Model, test: Sessions, k: int, watch: Callable[[int, int], None] = lambda *_: None
) -> float:
    """Share of the catalogue that is in the top k of at least one case (catalogue coverage).

    Herlocker et al. 2004, "Evaluating collaborative filtering recommender systems".

    Args:
        test: over the model's catalogue. watch: called with the sessions done, and of all.
    """
    found: set[Any] = set()
    for s in range(test.n_sessions):
        items = test.session(s).tolist()
        for n in range(1, len(items)):
            found.update(item for item, _ in model.recommend(items[:n], k))
        watch(s + 1, test.n_sessions)
    return len(found) / len(model.item_ids)


def table(results: Mapping[str, Mapping[str, float]], k: Sequence[int]) -> str:
    """Methods as rows; Recall@K, MRR@K, and NDCG and coverage at the last K as columns.

    A star marks the best of each column, the oracle excepted.

    Args:
        results: method to {"recall@5": ..., "mrr@5": ...}. k: the cut-offs to show.
    """
    columns = [f"recall@{c}" for c in k] + [f"mrr@{c}" for c in k]
    last = [f"{name}@{k[-1]}" for name in ("ndcg", "coverage")]
    columns += [c for c in last if all(c in row for row in results.values())]
    best = {
        c: max((m[c] for name, m in results.items() if name != "oracle"), default=None)
        for c in columns
    }
    spelt = {"recall": "Recall", "mrr": "MRR", "ndcg": "NDCG", "coverage": "Coverage"}
    titles = [f"{spelt[name]}@{cut}" for name, cut in (c.split("@") for c in columns)]
    width = max(11, *map(len, titles)) + 1
    names = max(10, *(len(name) + 1 for name in results))
    lines = ["method".ljust(names) + "".join(t.rjust(width) for t in titles)]
    for name, row in results.items():
        cells = []
        for c in columns:
            star = "*" if name != "oracle" and len(results) > 1 and row[c] == best[c] else " "
            cells.append(f"{row[c]:.4f}{star}".rjust(width + 1)[1:])
        lines.append(name.ljust(names) + "".join(cells))
    if len(results) > 1:
        lines.append("(*: the best" + (" but the oracle)" if "oracle" in results else ")"))
    return "\n".join(line.rstrip() for line in lines)


def about_oracle(parts: dict[str, Sessions]) -> str:
    """What the oracle's row means. It is exact only if no event was dropped."""
    kept = sum(part.n_events for name, part in parts.items() if name != "raw")
    dropped = parts["raw"].n_events - kept
    if not dropped:
        return "(oracle: the best that any method can reach on this shop, on average)"
    return (
        "(oracle: approximately the best that any method can reach on this shop, on average; "
        f"cleaning and splitting dropped {dropped:,} events that it does not see)"
    )


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text: the first column left-aligned, numbers right-aligned."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numeric = [i > 0 and all(len(line[i].split()) <= 3 for line in rows) for i in range(len(head))]
    return "\n".join(
        "   ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_position(ranks: np.ndarray, before: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall@k and MRR@k of the cases with 1, 2, ... events before them.

    Args:
        ranks: (cases,), before: (cases,) events of the session so far, from a model's `ranks`.

    Returns:
        two arrays of `LAST_POSITION` values, NaN where there is no case. The last value is of
        all later cases too.
    """
    where = np.minimum(before, LAST_POSITION) - 1
    hit = ranks <= k
    n = np.bincount(where, minlength=LAST_POSITION).astype(float)
    n[n == 0] = np.nan
    recall = np.bincount(where, hit, LAST_POSITION) / n
    mrr = np.bincount(where, np.where(hit, 1 / ranks, 0), LAST_POSITION) / n
    return recall, mrr


def new_figure(**options: Any) -> Figure:
    """A figure that draws with Agg, without pyplot: no window, no global state.

    Importing Matplotlib takes longer than most commands, so it happens here. Matplotlib refuses to
    be imported with an MPLBACKEND that it does not know, as a Jupyter kernel may export one.
    """
    before = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        if before is not None:
            os.environ["MPLBACKEND"] = before
    figure = Figure(layout="constrained", facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def plot_curves(
    path: Path,
    losses: np.ndarray,
    steps_per_epoch: int,
    ranks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    k: int = 20,
) -> None:
    """Plot a run: the loss during training; with ranks, Recall and MRR by position in the session.

    Args:
        path: a .png or .svg file.
        losses: (updates,) the loss of each. steps_per_epoch: updates in an epoch.
        ranks: method to what its `ranks` returned.
    """
    figure = new_figure(figsize=(13, 4) if ranks else (6, 4))
    axes = figure.subplots(1, 3 if ranks else 1, squeeze=False)[0]
    loss_axis = axes[0]

    width = max(1, min(len(losses) // 20, steps_per_epoch // 10))
    smooth = np.convolve(losses, np.full(width, 1 / width), "valid")
    epochs = (np.arange(len(smooth)) + width / 2) / steps_per_epoch
    every = max(1, len(smooth) // 2000)
    loss_axis.plot(epochs[::every], smooth[::every], color=COLOURS["GRU4Rec"])
    loss_axis.set(
        title="GRU4Rec's loss while training",
        xlabel="epochs",
        ylabel=f"loss, mean of {width} updates" if width > 1 else "loss",
    )

    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if ranks:
        _plot_by_position(figure, axes[1:], ranks, k)
    write_whole(path, lambda part: figure.savefig(part, dpi=110))


def _plot_by_position(
    figure: Any, axes: Any, ranks: Mapping[str, tuple[np.ndarray, np.ndarray]], k: int
) -> None:
    positions = np.arange(1, LAST_POSITION + 1)
    for name, (rank, before) in ranks.items():
        style: dict[str, Any] = {
            "color": COLOURS.get(name),
            "marker": ".",
            "linestyle": "--" if name == "oracle" else "-",
            "linewidth": 2.5 if name == "GRU4Rec" else 1.5,
        }
        for axis, values in zip(axes, by_position(rank, before, k), strict=True):
            axis.plot(positions, values, label=name, **style)
    for axis, metric in zip(axes, ("Recall", "MRR"), strict=True):
        axis.set(
            title=f"{metric}@{k} by position in the session",
            xlabel="events seen so far",
            ylabel=f"{metric}@{k}",
            ylim=(0, None),
        )
        axis.set_xticks(positions, [*map(str, positions[:-1]), f"{LAST_POSITION}+"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)


def plot_comparison(
    path: Path,
    found: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    k: int,
) -> None:
    """Plot a comparison: Recall and MRR of each method, a row of axes for each group.

    A whisker is the 95% interval of a method's difference to the best method, relative to the line
    of the best. A difference whose whisker reaches the line may be noise.

    Args:
        path: a .png or .svg file.
        found: method to {"recall", "recall_best", "recall_to_best_low", ..._high} and mrr's alike.
        groups: title to the methods of each row of axes, top to bottom. k: the cut-off.
    """
    heights = [len(group) + 1.5 for group in groups.values()]
    figure = new_figure(figsize=(11, 1 + 0.27 * sum(heights)))
    axes = figure.subplots(
        len(groups), 2, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights}
    )
    for (group_title, group), row in zip(groups.items(), axes, strict=True):
        for axis, metric, title in zip(row, ("recall", "mrr"), ("Recall", "MRR"), strict=True):
            for y, name in enumerate(group):
                figures = found[name]
                best = found[figures[f"{metric}_best"]][metric]
                ends = [best + figures[f"{metric}_to_best_{end}"] for end in ("low", "high")]
                colour = COLOURS.get(name, COLOURS["GRU4Rec"])
                axis.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
                axis.plot(figures[metric], y, "o", color=colour, markersize=6)
            limits = axis.get_xlim()
            axis.axvline(best, color="#000000", linewidth=1, linestyle=":")
            margin = (limits[1] - limits[0]) / 20
            if not limits[0] - margin <= best <= limits[1] + margin:
                axis.set_xlim(limits)  # the best method is in another group, far away
            axis.set_title(f"{group_title}: {title}@{k}", fontsize=10)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_yticks(range(len(group)), group)
            axis.set_ylim(len(group) - 0.5, -0.5)
    figure.supxlabel(
        "dotted: the best (but the oracle); whiskers: 95% interval of the difference to it",
        fontsize=9,
    )
    write_whole(path, lambda part: figure.savefig(part, dpi=110))
