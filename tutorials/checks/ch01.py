"""Exercises of notebook 1, sessions."""

import dataclasses
import traceback

import numpy as np

from checks import Exercise, Wrong
from checks.common import sessions_of
from gru4rec_np import Sessions
from gru4rec_np.data.protocols import merge_repeats
from gru4rec_np.data.sessions import DAY
from solutions import ch01

ONE_TOO_FAR = (
    "offsets has one entry more than there are sessions, and its last, the number of events, is no "
    "event; the sessions' first events are offsets[:-1]"
)


ONE_TOO_FAR_LAST = (
    "offsets[1:] are where the next sessions begin, and the last of them, the number of events, is "
    "no event; the sessions' last events are offsets[1:] - 1"
)


def _run_mask(answer, args):
    """As calling does, but an index one past the end, and numbers for a mask, are told as that."""
    try:
        mask = answer(*args)
    except IndexError as error:
        if f"index {args[1][-1]} " not in str(error):
            raise
        raise Wrong(ONE_TOO_FAR) from error
    numbers = mask[0] if isinstance(mask, tuple) and len(mask) == 1 else mask  # as of np.where
    if isinstance(numbers, np.ndarray) and numbers.dtype.kind in "iu":
        raise Wrong(
            "these are numbers; a mask is asked for, True or False for each one. If m are the "
            "numbers of those that are True: mask = np.zeros(n, bool); mask[m] = True"
        )
    return mask


# --- 1.1 ------------------------------------------------------------------------------------------


def _cases(offsets):
    return sessions_of(np.zeros(offsets[-1]), offsets).cases


# --- 1.2 ------------------------------------------------------------------------------------------


def _log(rng, n_sessions=60, n_items=40):
    lengths = rng.integers(1, 6, n_sessions)
    items = np.minimum(rng.geometric(0.08, lengths.sum()) - 1, n_items - 1).astype(np.int32)
    again = rng.random(len(items)) < 0.2
    items[1:][again[1:]] = items[:-1][again[1:]]
    return sessions_of(items, np.concatenate([[0], np.cumsum(lengths)]))


def _run_log(answer, args):
    """As calling does, but no log, one in disorder, or a wrong mask is told as that."""
    try:
        log = answer(*args)
    except (IndexError, ValueError) as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        inside = [f for f in frames if f.f_code.co_name in ("keep_events", "keep_sessions")]
        if not inside:
            raise
        _in_order(inside[0].f_locals["self"])
        raise Wrong(
            "a mask has the wrong length: keep_events wants one True or False for each event of "
            "the log that it is called on (log.support has a number for each item, "
            "log.support[log.items] one for each event), keep_sessions one for each session"
        ) from error
    if log is not None and log is not Ellipsis and not isinstance(log, Sessions):
        raise Wrong(f"it must return Sessions, what keep_sessions gives, not {type(log).__name__}")
    if isinstance(log, Sessions):
        _in_order(log)
    return log


def _in_order(log):
    if log.offsets[-1] != len(log.items):
        raise Wrong(
            f"the log is in disorder: it has {len(log.items)} items, but its offsets count "
            f"{log.offsets[-1]} events. Drop events with log.keep_events, which moves both, and "
            "take the new numbers of what is left"
        )


def _clean_again(log, support, length):
    before = None
    while before != log.n_events:
        before = log.n_events
        log = ch01.clean(log, support, length)
    return log


def _clean_by_sessions(log, support, length):
    session = np.repeat(np.arange(log.n_sessions), log.lengths)
    pairs = np.unique(np.stack([session, log.items]), axis=1)
    log = log.keep_events(np.bincount(pairs[1])[log.items] >= support)
    return log.keep_sessions(log.lengths >= length)


# --- 1.3 ------------------------------------------------------------------------------------------


def _first_of_run(items, offsets):
    kept = merge_repeats(sessions_of(items, offsets))  # whose times are the events' numbers
    return np.isin(np.arange(len(items)), kept.times)


def _first_in_session(items, offsets):
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    _, first = np.unique(np.stack([session, items]), axis=1, return_index=True)
    return np.isin(np.arange(len(items)), first)


# --- 1.4 ------------------------------------------------------------------------------------------


def _days_of_sessions(rng):
    """A log whose last click is not its last session's, with a session that starts at the border
    and some across it."""
    starts = np.arange(12) * DAY / 4
    lengths = rng.integers(1, 5, 12)
    lengths[[3, 5, 7, 8]] = 3
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    times = np.repeat(starts, lengths) + place * DAY / 8
    times[offsets[9] - 1] = starts[-1] + DAY / 2  # session 8 has the last click
    return times, offsets


def _by_calendar(times, offsets, days):
    return times[offsets[:-1]] // DAY > times.max() // DAY - days


# --- 1.5 ------------------------------------------------------------------------------------------


def _two_catalogues(rng):
    log = _log(rng, 30, 25)
    # Some of the ids could be numbers of items: a dict that is turned round finds these.
    log = dataclasses.replace(log, item_ids=15 + rng.permutation(log.n_items))
    other = rng.permutation(np.concatenate([log.item_ids[2::2], np.arange(500, 520)]))
    return log, np.concatenate([log.item_ids[:1], other])  # a frequent item is number 0


# Pieces of the solution of 1.5.
NEW = "np.array([number.get(item, -1) for item in log.item_ids.tolist()])"
DROP_UNKNOWN = "    log = log.keep_events(new[log.items] >= 0)\n"
DROP_SHORT = "    log = log.keep_sessions(log.lengths >= 2)\n"


EXERCISES = [
    Exercise(
        number="1.1",
        title="the cases of a log",
        right=_cases,
        cases=lambda rng: [
            (np.array([0, 4, 5, 7]),),
            (np.concatenate([[0], np.cumsum(rng.integers(1, 5, 20))]),),
        ],
        solution=ch01.find_cases,
        mistakes={
            "the last event of every session has no next one; you left out only the log's very "
            "last": {"offsets[1:] - 1": "-1"},
            "these are the answers, each session's events but its first; a case is the event "
            "before the answer: each session's events but its last": {
                "offsets[1:] - 1": "offsets[:-1]"
            },
            "offsets[s + 1] is where the next session begins; the last event of session s is one "
            "before it": {"offsets[1:] - 1": "offsets[1:-1]"},
            "offsets[-1] is how many events there are, numbered from 0; the last one is "
            "offsets[-1] - 1, and yours goes one further": {
                "np.ones(offsets[-1]": "np.ones(offsets[-1] + 1"
            },
            ONE_TOO_FAR_LAST: [
                {"offsets[1:] - 1": "offsets[1:]"},
                lambda offsets: np.delete(np.arange(offsets[-1]), offsets[1:]),
            ],
            "that is a mask of the events, rightly True where there is a next one; "
            "np.flatnonzero(mask) gives their numbers": {"np.flatnonzero(has_next)": "has_next"},
        },
        hints=[
            "There are offsets[-1] events, numbered from 0. All are cases but one per session.",
            "That one is the session's last: event offsets[s + 1] - 1.",
            "Make a mask of ones (bool), one per event; set it to False at all sessions' last "
            "events at once; np.flatnonzero gives the numbers of those left.",
        ],
    ),
    Exercise(
        number="1.2",
        title="rare items go, then short sessions",
        right=ch01.clean,
        cases=lambda rng: [(_log(rng), 5, 2), (_log(rng), 4, 3)],
        mistakes={
            "the short sessions go before the rare items here; so sessions that lose events "
            "afterwards stay, too short": {
                "    return log.keep_sessions(log.lengths >= min_length)": "    return log",
                "    log = ": "    log = log.keep_sessions(log.lengths >= min_length)\n    log = ",
            },
            "an item with exactly min_support events, or a session with exactly min_length, is to "
            "stay: >=, not >": {"items] >=": "items] >", "lengths >=": "lengths >"},
            "an item with exactly min_support events is to stay: >=, not >": {
                "items] >=": "items] >"
            },
            "a session with exactly min_length events is to stay: >=, not >": {
                "lengths >=": "lengths >"
            },
            "it repeats until nothing changes; one pass is asked for": _clean_again,
            "the support is counted in sessions; it is the number of events: a session that has "
            "an item twice counts twice": _clean_by_sessions,
            "the sessions' lengths are those from before the rare items went; count them anew on "
            "the log that is left": {
                "    log = ": "    long = log.lengths >= min_length\n    log = ",
                "sessions(log.lengths >= min_length)": "sessions(long)",
            },
            "the rare items are gone, but the short sessions are still there": {
                "return log.keep_sessions(log.lengths >= min_length)": "return log"
            },
            "the short sessions are gone, but the rare items are still there": {
                "    log = log.keep_events(log.support[log.items] >= min_support)\n": ""
            },
            "the log is as it was: keep_events and keep_sessions do not change it, they return a "
            "new one": lambda log, support, length: log,
            "compact() gives the items new numbers; here they are to keep theirs": {
                ">= min_length)": ">= min_length).compact()"
            },
        },
        run=_run_log,
        hints=[
            "log.support is the number of events of each item; log.lengths that of each session.",
            "log.support[log.items] is, for each event, the support of its item: compare that "
            "with min_support and give it to keep_events.",
            "log = log.keep_events(...), then the same with keep_sessions, on the new log.",
        ],
    ),
    Exercise(
        number="1.3",
        title="the first of each run of the same item",
        right=_first_of_run,
        cases=lambda rng: [
            (np.array([3, 3, 1, 3, 3, 3, 2, 2]), np.array([0, 4, 5, 8])),
            (rng.integers(0, 3, 40), np.array([0, 1, 9, 17, 18, 30, 40])),
        ],
        solution=ch01.first_of_run,
        mistakes={
            "a session's first event is compared with the last one of the session before; they "
            "have nothing to do with each other": {"    first[offsets[:-1]] = True\n": ""},
            "of each run you keep the last event; the first is to stay": {
                "first[1:]": "first[:-1]",
                "offsets[:-1]": "offsets[1:] - 1",
            },
            "an item that comes back later in the session is dropped too; only consecutive "
            "repeats are to go": _first_in_session,
            "it is the other way round: True is for the events that stay": {
                "return first": "return ~first"
            },
            "one entry is missing: the log's very first event has none before it, and stays": {
                "first[offsets[:-1]] = True": "first = first[1:]"
            },
        },
        run=_run_mask,
        hints=[
            "Compare items[1:] with items[:-1]. What of the very first event?",
            "Afterwards set the first event of every session to True: those are offsets[:-1].",
            "Begin with first = np.ones(len(items), bool), so that the first event has its True. "
            "Put the comparison into first[1:]. Then mend the sessions' first events.",
        ],
    ),
    Exercise(
        number="1.4",
        title="the sessions that start in the last days",
        right=ch01.in_test,
        cases=lambda rng: [
            (*_days_of_sessions(rng), 1),
            (*_days_of_sessions(rng), 0.75),
            (*_days_of_sessions(rng), 2),
        ],
        mistakes={
            "a session that starts before the border and ends after it belongs to training: what "
            "counts is its first event": {
                "times[offsets[:-1]]": "np.maximum.reduceat(times, offsets[:-1])"
            },
            "a session that starts exactly at the border belongs to the test set: >=, not >": {
                ">=": ">"
            },
            "the days are counted back from the start of the last session; the log ends with its "
            "last click, times.max()": {"times.max()": "times[offsets[:-1]].max()"},
            "the days are counted back from times[-1]; the last line of the last session need not "
            "be the log's last click: times.max()": {"times.max()": "times[-1]"},
            "that is an answer for each event; one for each session is asked for, so that none is "
            "cut in two": {"[offsets[:-1]]": ""},
            "it is the other way round: True is for the test set": {">=": "<"},
            "it looks as if days were not turned into seconds": {" * 86_400": ""},
            "the border is one day back, whatever days says": {"days * ": ""},
            "the days are counted from the log's first click; the test set is its last days, so "
            "the border is times.max() - days * 86_400": [
                {"max() -": "min() +"},
                {"max() -": "min() +", ">=": ">"},
                {"max() -": "min() +", ">=": "<="},
                {"max() -": "min() +", ">=": "<"},
            ],
            "<= finds what starts before the border, the training set; True is for the test set": {
                ">=": "<="
            },
            "these are calendar days, from midnight to midnight; the last days are days * 86,400 "
            "s, counted back from the last click": _by_calendar,
        },
        run=_run_mask,
        hints=[
            "When does session s start? At times[offsets[s]].",
            "The border is times.max() - days * 86_400.",
            "times[offsets[:-1]] are all starts at once; compare them with the border.",
        ],
    ),
    Exercise(
        number="1.5",
        title="a log in another catalogue's numbers",
        right=Sessions.restrict,
        cases=lambda rng: [_two_catalogues(rng), _two_catalogues(rng)],
        solution=ch01.restrict,
        mistakes={
            "the right events are left, but with their old numbers: these now mean other items": {
                "items=new[log.items], ": ""
            },
            "sessions that are left with fewer than 2 events are still there": {DROP_SHORT: ""},
            "events of unknown items are still there": {DROP_UNKNOWN: ""},
            "the numbers are new, but nothing is dropped: events of unknown items are still there "
            "(number -1), and so are short sessions": {DROP_UNKNOWN: "", DROP_SHORT: ""},
            "np.searchsorted wants a sorted catalogue, and item_ids is not sorted: the numbers are "
            "wrong; look the ids up in a dict": {
                NEW: "np.searchsorted(item_ids, log.item_ids)",
                DROP_UNKNOWN: "    new = np.where(np.isin(log.item_ids, item_ids), new, -1)\n"
                + DROP_UNKNOWN,
            },
            "these are places in the sorted catalogue; item_ids is not sorted, and an item's "
            "number is its place in item_ids": {
                "enumerate(item_ids": "enumerate(np.sort(item_ids)"
            },
            "np.searchsorted wants a sorted catalogue, and item_ids is not sorted: known items are "
            "not found; look the ids up in a dict": {
                NEW: "np.searchsorted(item_ids, log.item_ids)",
                DROP_UNKNOWN: "    found = np.take(item_ids, new, mode='clip') == log.item_ids\n"
                "    new = np.where(found, new, -1)\n" + DROP_UNKNOWN,
            },
            "a session with one unknown item is dropped as a whole; only the event is to go": {
                DROP_UNKNOWN: "    known = new[log.items] >= 0\n"
                "    log = log.keep_sessions(np.logical_and.reduceat(known, log.offsets[:-1]))\n"
            },
            "short sessions go before the unknown items here; so those that become short by it "
            "stay": {DROP_UNKNOWN: "", DROP_SHORT: DROP_SHORT + DROP_UNKNOWN},
            "the item with number 0 is dropped; it is known too: >= 0": {">= 0": "> 0"},
            "the right events are left, but all is still as in the old catalogue: items and "
            "item_ids are to be those of the other one": {
                "dataclasses.replace(log, items=new[log.items], item_ids=item_ids)": "log"
            },
            "the items have their new numbers, but item_ids is still the old catalogue": {
                ", item_ids=item_ids": ""
            },
            "only item_ids is the other catalogue's; no event is dropped, and items still has the "
            "old numbers, which now mean other items": {
                DROP_UNKNOWN: "",
                DROP_SHORT: "",
                "items=new[log.items], ": "",
            },
            "the dict gives the id for a number; it is to give the number for an id, {item: i for "
            "i, item in enumerate(item_ids.tolist())}": {"{item: i for": "{i: item for"},
            "number[id] stops at the first id that the other catalogue lacks; number.get(id, -1) "
            "gives -1 there": [
                {"number.get(item, -1)": "number[item]"},
                {
                    "number.get(item, -1)": "number[item]",
                    "(item_ids.tolist())": "(item_ids)",
                    "log.item_ids.tolist()": "log.item_ids",
                },
            ],
            "the map is the wrong way round: it gives the old number of each new one; asked is the "
            "new number of each old one, in the order of log.item_ids": {
                "(item_ids.": "(log.item_ids.",
                "item in log.item_ids": "item in item_ids",
            },
            "it looks for the items' old numbers among the ids; an event's id is "
            "log.item_ids[log.items]": lambda log, item_ids: log.keep_events(
                np.isin(log.items, item_ids)
            ),
        },
        run=_run_log,
        hints=[
            "Make a dict from id to new number: number = {item: i for i, item in "
            "enumerate(item_ids.tolist())}. Then number.get(item, -1) is an item's new number, or "
            "-1.",
            "Do that for the whole old catalogue, log.item_ids.tolist(), and make it an array, "
            "new: then new[log.items] are the events' new numbers.",
            "Keep the events where new[log.items] >= 0, then sessions of 2 or more; new[log.items] "
            "of what is left is what dataclasses.replace needs.",
        ],
    ),
]
