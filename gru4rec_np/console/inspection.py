"""Is a log sequential at all, and does its test set resemble its training set?

Figures, a table and a plot for the command `prepare`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.console import report
from gru4rec_np.data.protocols import By, cut_by_time, split
from gru4rec_np.data.sessions import DAY, Sessions
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole
from gru4rec_np.models.baselines import Markov

K = 20
MOST = 10_000  # test sessions that are ranked
LONG = DAY  # a longer session is worth a warning
IN_ORDER, SHUFFLED, PLAIN, TEST = "#009E73", "#999999", "#56B4E9", "#D55E00"


@dataclasses.dataclass(frozen=True)
class Times:
    """How sessions are spread over time.

    Attributes:
        first_day: of the log, in days since 1970.
        per_day: (days,) sessions that start on each day, (days,) of them test sessions.
        durations: (sessions,) seconds.
    """

    first_day: int
    per_day: tuple[np.ndarray, np.ndarray]
    durations: np.ndarray


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` finds.

    Attributes:
        recall, mrr: of a first-order Markov chain at K, its clicks in order.
        recall_shuffled, mrr_shuffled: the same with each session's clicks shuffled.
        cases: how many were ranked.
        items: distinct items of the test set; unseen_items: those without a training event.
        events, unseen_events: the test set's events, and those of unseen items.
        pairs: consecutive events of the test set, unseen items dropped; unseen_pairs: those whose
            two items never follow each other in training.
        times: None for a log without times.
    """

    recall: float
    recall_shuffled: float
    mrr: float
    mrr_shuffled: float
    cases: int
    items: int
    unseen_items: int
    events: int
    unseen_events: int
    pairs: int
    unseen_pairs: int
    times: Times | None

    @property
    def verdict(self) -> str:
        """Whether the order of clicks matters, in one sentence.

        The limits of 5 and 15 % are ours.
        """
        noise = 2 * np.sqrt(self.recall * (1 - self.recall) * 2 / self.cases)
        lost = self.recall - self.recall_shuffled
        if lost <= noise:
            return (
                f"The order of clicks makes no difference that {self.cases:,} cases could show. "
                "For such a log also try --fade 1 --cosine 8 --dropout-p-embed 0.4."
            )
        share = lost / self.recall
        effect = "hardly matters"
        if share >= 0.05:
            effect = "matters" if share >= 0.15 else "matters a little"
        return f"The order of clicks {effect}: shuffling loses {share:.0%} of the Recall@{K}."


def shuffle(sessions: Sessions) -> Sessions:
    """The same sessions, each with its items in random order."""
    session = np.repeat(np.arange(sessions.n_sessions), sessions.lengths)
    order = np.lexsort((np.random.default_rng(0).random(sessions.n_events), session))
    return dataclasses.replace(sessions, items=sessions.items[order])


def inspect(
    log: Sessions,
    days: float | None = None,
    share: float | None = None,
    by: By = "end",
    full_hour: bool = False,
    has_times: bool = True,
) -> Inspection:
    """Compare a log with itself shuffled, and its test set with its training set.

    A first-order Markov chain learns from the training sessions and ranks the next items of at most
    `MOST` test sessions, once with the clicks in order and once with those of each session
    shuffled, in training and test alike. If the order carried no information, both would do equally
    well.

    Args:
        log: a cleaned log. days, share, by, full_hour: as for `protocols.split`.
        has_times: False leaves out what tells of times, for a log whose times are made up.

    Raises:
        InputError: as `protocols.split`.

    Source: Klenitskiy et al. 2024, "Does It Look Sequential?", arXiv 2408.12008, who shuffle the
    test sessions of SASRec and GRU4Rec.
    """
    train, test = split(log, days, share, by, full_hour)
    accuracy = []
    some = test[:: -(-test.n_sessions // MOST)]
    for of_train, of_test in ((train, some), (shuffle(train), shuffle(some))):
        accuracy.append(Markov().fit(of_train).evaluate(of_test, K))
    whole_train, whole_test = cut_by_time(log, days, share, by, full_hour)
    used, known = whole_test.support, whole_train.support > 0
    followed = np.unique(_pairs(train))
    pairs = _pairs(test)
    return Inspection(
        recall=accuracy[0][f"recall@{K}"],
        recall_shuffled=accuracy[1][f"recall@{K}"],
        mrr=accuracy[0][f"mrr@{K}"],
        mrr_shuffled=accuracy[1][f"mrr@{K}"],
        cases=len(some.cases),
        items=int((used > 0).sum()),
        unseen_items=int(((used > 0) & ~known).sum()),
        events=whole_test.n_events,
        unseen_events=int(used[~known].sum()),
        pairs=len(pairs),
        unseen_pairs=int((~np.isin(pairs, followed)).sum()),
        times=_times(log, whole_test) if has_times else None,
    )


def _times(log: Sessions, test: Sessions) -> Times:
    start, test_start = (np.floor(part.starts / DAY).astype(int) for part in (log, test))
    first, n = start.min(), np.ptp(start) + 1
    per_day = (
        np.bincount(start - first, minlength=n),
        np.bincount(test_start - first, minlength=n),
    )
    return Times(int(first), per_day, log.durations)


def _pairs(sessions: Sessions) -> np.ndarray:
    """(cases,) int64: each case's item and the next one, as one number."""
    items = sessions.items.astype(np.int64)
    return items[sessions.cases] * sessions.n_items + items[sessions.cases + 1]


def table(found: Inspection) -> str:
    """What was found, as an aligned table and a sentence."""
    rows = [
        (f"Recall@{K} of a Markov chain, clicks in order", f"{found.recall:.4f}"),
        (f"Recall@{K} of a Markov chain, clicks shuffled", f"{found.recall_shuffled:.4f}"),
        (f"MRR@{K} of a Markov chain, clicks in order", f"{found.mrr:.4f}"),
        (f"MRR@{K} of a Markov chain, clicks shuffled", f"{found.mrr_shuffled:.4f}"),
        ("test items that training lacks", _of(found.unseen_items, found.items)),
        ("test events of such items, not evaluated", _of(found.unseen_events, found.events)),
        ("test steps from one item to the next, unseen", _of(found.unseen_pairs, found.pairs)),
    ]
    if found.times:
        per_day = found.times.per_day[0]
        rows += [
            ("sessions a day, on average", f"{per_day.mean():,.1f}"),
            ("sessions a day, fewest and most", f"{per_day.min():,} and {per_day.max():,}"),
        ]
        rows += [
            (f"session duration, {name}", text) for name, text in _durations(found.times.durations)
        ]
    return report.aligned(("what", "found"), rows) + "\n\n" + found.verdict


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / max(whole, 1):.1%})"


def _durations(seconds: np.ndarray) -> list[tuple[str, str]]:
    middle, most = np.quantile(seconds, [0.5, 0.99], method="higher")
    values = ("half up to", middle), ("99 % up to", most), ("the longest", seconds.max())
    return [(name, duration(value)) for name, value in values]


def about_durations(seconds: np.ndarray) -> str:
    """Durations of sessions (sessions,) in one line."""
    return ", ".join(f"{name} {text}" for name, text in _durations(seconds))


def warning(seconds: np.ndarray) -> str | None:
    """A line if sessions of these durations (sessions,) look like users, else None."""
    long = int((seconds > LONG).sum())
    if not long:
        return None
    return (
        f"{long:,} of {len(seconds):,} sessions last longer than a day, the longest "
        f"{duration(seconds.max())}: is the session column a user's? See --session-gap"
    )


@contextmanager
def asking_for_users(log: Sessions) -> Iterator[None]:
    """Add `warning` to the message of an `InputError` of the block."""
    try:
        yield
    except InputError as error:
        line = warning(log.durations)
        raise InputError(f"{error}; {line}" if line else str(error)) from None


def duration(seconds: float) -> str:
    """12 s, 3.4 min, 1.5 h or 2.1 days."""
    for unit, length in (("days", DAY), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def plot(path: Path, found: Inspection) -> None:
    """Accuracy in order and shuffled, sessions per day, durations; to a .png or .svg file."""
    figure = report.new_figure(figsize=(13 if found.times else 4.5, 4))
    axes = figure.subplots(1, 3 if found.times else 1, squeeze=False)[0]
    accuracy = axes[0]

    names = [f"Recall@{K}", f"MRR@{K}"]
    in_order, shuffled = (found.recall, found.mrr), (found.recall_shuffled, found.mrr_shuffled)
    for shift, values, colour, label in (
        (-0.2, in_order, IN_ORDER, "clicks in order"),
        (0.2, shuffled, SHUFFLED, "clicks shuffled"),
    ):
        bars = accuracy.bar(np.arange(2) + shift, values, 0.38, color=colour, label=label)
        accuracy.bar_label(bars, fmt="%.3f", padding=2, fontsize=9)
    accuracy.set(title="A Markov chain's accuracy", xticks=range(2), xticklabels=names)
    accuracy.set_ylim(0, 1.25 * max(*in_order, *shuffled, 1e-9))
    accuracy.legend(frameon=False, loc="upper right")

    if found.times:
        _plot_times(axes[1], axes[2], found.times)
    for axis in axes:
        axis.grid(alpha=0.3, axis="y")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda part: figure.savefig(part, dpi=110))


def _plot_times(days: Any, durations: Any, times: Times) -> None:
    whole, test = times.per_day
    date = (times.first_day + np.arange(len(whole) + 1)).astype("datetime64[D]")
    # One shape for all days: a log with a stray date in 1970 has thousands.
    whole, test = (np.append(count, count[-1]) for count in (whole, test))
    shape = {"step": "post", "linewidth": 0}
    days.fill_between(date, whole, color=PLAIN, label="training", **shape)
    days.fill_between(date, whole - test, whole, color=TEST, label="test", **shape)
    days.set(title=f"Sessions by the day they start, from {date[0]}", ylabel="sessions")
    days.set_ylim(0, 1.25 * whole.max())
    some = date[:-1][:: -(-len(date) // 5)]
    form = "%d %b" if len(date) < 300 else "%b %Y"
    days.set_xticks(some, [f"{day:{form}}" for day in some.astype(object)])
    days.legend(frameon=False, loc="upper right", ncols=2)

    seconds = np.maximum(times.durations, 1)
    durations.hist(seconds, np.geomspace(1, max(seconds.max(), 2 * LONG), 40), color=PLAIN)
    durations.set(title="Durations of sessions", ylabel="sessions", xscale="log")
    ticks = {1: "1 s", 60: "1 min", 3600: "1 h", DAY: "1 day", 30 * DAY: "30 days"}
    shown = [second for second in ticks if second <= max(seconds.max(), DAY)]
    durations.set_xticks(shown, [ticks[second] for second in shown])
    durations.minorticks_off()
