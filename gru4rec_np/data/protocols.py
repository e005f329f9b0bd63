"""From a click log to a training and a test set, by the rules of GRU4Rec's own scripts.

`clean` and `split` follow the script for RSC15 unless told otherwise. `PROTOCOLS` holds the rules
of all published sets by name; docs/data.md names the script that each one follows. Imports
sessions.py and tables.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from gru4rec_np.data.sessions import DAY, Sessions
from gru4rec_np.data.tables import as_sessions
from gru4rec_np.errors import InputError

HOUR = 3600.0
By = Literal["end", "start"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one published data set is made from its raw log.

    Attributes:
        gap_minutes: a new session starts after a longer time than this without an event of the
            same user or session. None keeps the log's sessions.
        repeats, until_stable: as for `clean`.
        days, by, full_hour: as for `split`.
    """

    gap_minutes: float | None = None
    repeats: bool = False
    until_stable: bool = True
    days: float = 1
    by: By = "start"
    full_hour: bool = False


# rsc15: examples/rsc15/preprocess.py of hidasib/GRU4Rec. The others: the *_preproc.py files of
# hidasib/gru4rec_third_party_comparison (Hidasi and Czapp 2023, arXiv 2307.14956).
PROTOCOLS = {
    "rsc15": Protocol(repeats=True, until_stable=False, by="end"),
    "yoochoose": Protocol(),
    "rees46": Protocol(gap_minutes=60, full_hour=True),
    "coveo": Protocol(gap_minutes=60),
    "retailrocket": Protocol(gap_minutes=60, days=7, full_hour=True),
    "diginetica": Protocol(days=7),
}


def merge_repeats(sessions: Sessions) -> Sessions:
    """Only the first of consecutive events with the same item in the same session."""
    other = np.diff(sessions.items, prepend=-1) != 0
    other[sessions.offsets[:-1][sessions.lengths > 0]] = True
    return sessions.keep_events(other)


def clean(
    data: Any,
    min_item_support: int = 5,
    min_session_length: int = 2,
    repeats: bool = True,
    until_stable: bool = False,
) -> Sessions:
    """Drop short sessions and rare items.

    As RSC15's script does: first sessions of one event, then rare items, then short sessions. With
    `until_stable` as the other scripts do: short sessions, then rare items, again and again until
    nothing changes.

    Args:
        data: `Sessions`, or a Polars or pandas frame with the columns SessionId, ItemId, Time.
        min_item_support: fewest events of an item.
        min_session_length: fewest events of a session. At 1, sessions of one event stay.
        repeats: False merges an item's consecutive events first.
        until_stable: repeat both filters until nothing changes.

    Raises:
        InputError: nothing is left, or the frame cannot be used.

    Source: hidasib/GRU4Rec, examples/rsc15/preprocess.py; Hidasi and Czapp 2023, arXiv 2307.14956.
    """
    sessions = as_sessions(data)
    merged = sessions if repeats else merge_repeats(sessions)
    kept = _filtered(merged, min_item_support, min_session_length, until_stable)
    if kept.n_sessions == 0:
        lowest = {
            "min_item_support": (1, min_session_length),
            "min_session_length": (min_item_support, min(2, min_session_length)),
        }
        helps = [n for n, how in lowest.items() if _filtered(merged, *how, until_stable).n_sessions]
        raise InputError(
            f"no session is left: none of {sessions.n_sessions} has {min_session_length} or more "
            f"events of items with {min_item_support} events or more"
            + (f"; lower {' or '.join(helps)}?" if helps else "")
        )
    return kept.compact()


def _filtered(sessions: Sessions, support: int, length: int, until_stable: bool) -> Sessions:
    """What `clean` leaves of sessions."""
    # One pass first drops only sessions without a next event, whatever the shortest length is.
    kept = sessions.keep_sessions(sessions.lengths >= (length if until_stable else min(2, length)))
    while True:
        before = kept.n_events
        kept = kept.keep_events(kept.support[kept.items] >= support)
        kept = kept.keep_sessions(kept.lengths >= length)
        if not until_stable or kept.n_events == before:
            return kept


def cut_by_time(
    data: Any,
    days: float | None = None,
    share: float | None = None,
    by: By = "end",
    full_hour: bool = False,
) -> tuple[Sessions, Sessions]:
    """Training and test sessions by time, both over the catalogue of `data`; see `split`."""
    sessions = as_sessions(data)
    if (days is None) == (share is None):
        raise InputError("split: give either days or share")
    if days is not None and not 0 < days < np.inf:
        raise InputError(f"split: days must be > 0, not {days:g}")
    if share is not None and not 0 < share < 1:
        raise InputError(f"split: share must be > 0 and < 1, not {share:g}")
    if by not in ("end", "start"):
        raise InputError(f"split: by must be 'end' or 'start', not {by!r}")
    if sessions.n_events == 0:
        raise InputError("split: the log has no event")
    times = sessions.ends if by == "end" else sessions.starts
    if days is not None:
        last = sessions.times.max()
        at = (np.ceil(last / HOUR) * HOUR if full_hour else last) - days * DAY
        how = f"the last {days:g} day(s)"
    else:
        assert share is not None
        # Sessions with the time of the cut are test sessions, all of them.
        at = np.sort(times)[min(round((1 - share) * len(times)), len(times) - 1)]
        how = f"the last {share:g} of the sessions"
    in_test = times >= at
    train, test = sessions.keep_sessions(~in_test), sessions.keep_sessions(in_test)
    if by == "start":  # a training session may go on after the cut
        train = train.keep_events(train.times < at)
    for side, part in (("training", train), ("test", test)):
        if not (part.lengths >= 2).any():
            raise InputError(
                f"split: with {how} as the test set, {side} gets {part.n_sessions} of "
                f"{sessions.n_sessions} sessions, none with 2 events or more"
            )
    return train, test


def split(
    data: Any,
    days: float | None = None,
    share: float | None = None,
    by: By = "end",
    full_hour: bool = False,
    known: np.ndarray | None = None,
) -> tuple[Sessions, Sessions]:
    """Split by time into training and test sessions; the test set has the training catalogue.

    No training event is later than the cut.

    Args:
        data: `Sessions`, or a frame as for `clean`.
        days: the cut is so many days before the log's last event. Or
        share: the last `share` of the sessions come after the cut. Exactly one is given.
        by: "end": a session whose last event is at the cut or later is a test session (RSC15).
            "start": one whose first event is; training loses its events from the cut on (all
            other sets).
        full_hour: count `days` from the full hour after the log's last event.
        known: item ids that the catalogue begins with, those of a model to go on from.

    Returns:
        train, test. Training sessions shorter than 2 are dropped. Test events of items that train
        lacks are dropped, then test sessions shorter than 2. Both share one `item_ids`.

    Raises:
        InputError: one side has no session of 2 events, or the frame cannot be used.

    Source: as for `clean`.
    """
    train, test = cut_by_time(data, days, share, by, full_hour)
    # A session of one event trains no network. Dropped, so that all methods have the same items.
    train = train.keep_sessions(train.lengths >= 2).compact()
    train = train if known is None else train.extend(known)
    return train, test.restrict(train.item_ids)
