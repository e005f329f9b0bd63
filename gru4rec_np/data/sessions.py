"""Click sessions as flat arrays: the vocabulary, cleaning, splitting by time.

NumPy alone; tables.py reads and writes them. Imports errors.py; knows no model.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gru4rec_np.errors import InputError

DAY = 86_400.0


@dataclasses.dataclass(frozen=True, eq=False)
class Sessions:
    """A click log: the events of session s are items[offsets[s]:offsets[s + 1]], oldest first.

    Attributes:
        items: (events,) int32, each event's index into `item_ids`.
        offsets: (sessions + 1,) int64.
        times: (events,) float64, seconds since 1970.
        item_ids: (I,) the catalogue: int64, or objects of type str; of columns that hold such,
            floats, bool or datetime64.
        session_ids: (sessions,) the same for sessions.
    """

    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    item_ids: np.ndarray
    session_ids: np.ndarray

    @classmethod
    def from_lists(cls, sessions: Sequence[Sequence[Any]]) -> Sessions:
        """Sessions from lists of item ids, a second between clicks, an hour between sessions.

        Args:
            sessions: item ids of one type; the catalogue is in order of appearance.

        Raises:
            InputError: ids of more than one type, as 1 and "1", or of one that is none of
                `Sessions.item_ids`.
        """
        _one_type((item for session in sessions for item in session), "item ids")
        ids = list(dict.fromkeys(item for session in sessions for item in session))
        index = {item: i for i, item in enumerate(ids)}
        lengths = np.array([len(session) for session in sessions], np.int64)
        return cls(
            items=np.array([index[i] for session in sessions for i in session], np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            times=np.array(
                [3600.0 * s + e for s, session in enumerate(sessions) for e in range(len(session))]
            ),
            item_ids=id_array(ids),
            session_ids=np.arange(len(sessions)),
        )

    @property
    def n_sessions(self) -> int:
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int]:
        """(sessions,): scikit-learn takes sessions for samples."""
        return (self.n_sessions,)

    def __len__(self) -> int:
        return self.n_sessions

    def __getitem__(self, which: Any) -> Sessions:
        """The chosen sessions in that order, with the same catalogue.

        Args:
            which: what indexes an array (sessions,): a number, a slice, numbers, or booleans.
        """
        chosen = np.atleast_1d(np.arange(self.n_sessions)[which])
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return dataclasses.replace(
            self,
            items=self.items[events],
            times=self.times[events],
            offsets=offsets,
            session_ids=self.session_ids[chosen],
        )

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def n_items(self) -> int:
        """Size of the catalogue, whether or not an item occurs in these sessions."""
        return len(self.item_ids)

    @property
    def lengths(self) -> np.ndarray:
        """(sessions,) int64: events of each session."""
        return np.diff(self.offsets)

    @property
    def starts(self) -> np.ndarray:
        """(sessions,) float64: time of each session's first event, NaN if it has none."""
        out = np.full(self.n_sessions, np.nan)
        filled = self.lengths > 0
        out[filled] = self.times[self.offsets[:-1][filled]]
        return out

    @property
    def support(self) -> np.ndarray:
        """(I,) int64: number of events of each item."""
        return np.bincount(self.items, minlength=self.n_items)

    @property
    def cases(self) -> np.ndarray:
        """(cases,) int64: the events that have a next one in their session.

        Case e asks for items[e + 1], given the session up to and with items[e].
        """
        has_next = np.ones(self.n_events, bool)
        has_next[self.offsets[1:][self.lengths > 0] - 1] = False
        return np.flatnonzero(has_next)

    @property
    def positions(self) -> np.ndarray:
        """(events,) int64: how many events of its session came before each one."""
        return np.arange(self.n_events) - np.repeat(self.offsets[:-1], self.lengths)

    def session(self, s: int) -> np.ndarray:
        """The item ids of session s, oldest first."""
        return self.item_ids[self.items[self.offsets[s] : self.offsets[s + 1]]]

    def keep_events(self, keep: np.ndarray) -> Sessions:
        """The same sessions without the events where keep (events,) is False."""
        before = np.concatenate([[0], np.cumsum(keep)])
        return dataclasses.replace(
            self, items=self.items[keep], times=self.times[keep], offsets=before[self.offsets]
        )

    def keep_sessions(self, keep: np.ndarray) -> Sessions:
        """Only the sessions where keep (sessions,) is True."""
        events = np.repeat(keep, self.lengths)
        return dataclasses.replace(
            self,
            items=self.items[events],
            times=self.times[events],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[keep])]),
            session_ids=self.session_ids[keep],
        )

    def compact(self) -> Sessions:
        """The same sessions with a catalogue of just the items that occur, in the same order."""
        used = np.flatnonzero(self.support)
        index = np.zeros(self.n_items, np.int32)
        index[used] = np.arange(len(used))
        return dataclasses.replace(self, items=index[self.items], item_ids=self.item_ids[used])

    def restrict(self, item_ids: np.ndarray) -> Sessions:
        """These sessions seen with another catalogue, usually the training set's.

        Events of items that it lacks are dropped, then sessions shorter than 2. Items are matched
        as `index_of` says.

        Args:
            item_ids: (I,) the other catalogue.

        Raises:
            InputError: nothing is left.
        """
        if item_ids is self.item_ids:
            new = np.arange(self.n_items)
            known = self
        else:
            index = index_of(item_ids)
            new = np.array([index.get(str(i), -1) for i in self.item_ids.tolist()], np.int32)
            known = self.keep_events(new[self.items] >= 0)
            known = dataclasses.replace(known, items=new[known.items], item_ids=item_ids)
        known = known.keep_sessions(known.lengths >= 2)
        if known.n_sessions == 0:
            raise InputError(
                f"no test session has two items that are known from training: of "
                f"{self.n_items} test items {(new >= 0).sum()} are known"
            )
        return known


def id_array(ids: Iterable[Any]) -> np.ndarray:
    """Ids of one type as an array whose `tolist` gives them back, see `Sessions.item_ids`.

    Whole numbers beyond int64 become text, all of them.

    Raises:
        InputError: ids of more than one type or of one that is none, or NaN.
    """
    ids = list(ids)
    kind = _one_type(ids, "ids")
    if kind is int and all(-(2**63) <= i < 2**63 for i in ids):
        return np.array(ids, np.int64)
    if kind is float and any(i != i for i in ids):
        raise InputError("ids: nan is no id")
    if kind not in (int, str):
        return np.array(ids, _ID_TYPES[kind])
    out = np.empty(len(ids), object)
    out[:] = list(map(str, ids))
    return out


# What an id may be, and the array that holds such ids.
_ID_TYPES = {
    int: np.int64,
    str: object,
    float: np.float64,
    bool: np.bool_,
    datetime.date: "datetime64[D]",
    datetime.datetime: "datetime64[us]",
}


def _one_type(values: Iterable[Any], what: str) -> type:
    """The type that all values are of, NumPy's as Python's; int if there are none."""
    kinds = {type(v.item() if isinstance(v, np.generic) else v) for v in values}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{what}: values of more than one type, {names}")
    kind = kinds.pop() if kinds else int
    if kind not in _ID_TYPES:
        raise InputError(f"{what}: values of type {kind.__name__} are no ids")
    return kind


def index_of(ids: np.ndarray) -> dict[str, int]:
    """Each id's place in a catalogue, by the id's text.

    By text, since one id that is no number makes all of its file's ids text: the number 7 and the
    text "7" are the same item; "007", " 7" and 7.0 are others.

    Args:
        ids: (I,) as `id_array` gives them.
    """
    return {str(item): i for i, item in enumerate(ids.tolist())}


def item_list(session: Any) -> list[Any]:
    """A session that a model is asked about, as a list of item ids.

    Raises:
        InputError: it is a single id.
    """
    if isinstance(session, str | bytes) or not isinstance(session, Iterable):
        raise InputError(f"session: must be a list of item ids, oldest first, not {session!r}")
    return list(session)


def check_k(k: Any) -> None:
    """Raise InputError unless k is a number of items to recommend."""
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InputError(f"k: must be a whole number >= 1, not {k!r}")


def check_cut_offs(k: Any) -> None:
    """Raise InputError unless k is a cut-off of the metrics, or a sequence of them."""
    for cut in k if isinstance(k, Sequence | np.ndarray) and len(k) else [k]:
        check_k(cut)


# --- cleaning and splitting -----------------------------------------------------------------------


def merge_repeats(sessions: Sessions) -> Sessions:
    """Only the first of consecutive events with the same item in the same session."""
    same = np.zeros(sessions.n_events, bool)
    same[1:] = sessions.items[1:] == sessions.items[:-1]
    first = sessions.offsets[:-1][sessions.lengths > 0]
    same[first] = False
    return sessions.keep_events(~same)


def clean(
    sessions: Sessions,
    min_item_support: int = 5,
    min_session_length: int = 2,
    repeats: bool = True,
) -> Sessions:
    """Drop rare items, then short sessions (Hidasi et al. 2016, §4).

    Args:
        min_item_support: fewest events of an item.
        min_session_length: fewest events of a session, once the rare items are gone.
        repeats: False merges an item's consecutive repeats first.

    Raises:
        InputError: nothing is left.
    """
    kept = sessions if repeats else merge_repeats(sessions)
    kept = kept.keep_events(kept.support[kept.items] >= min_item_support)
    kept = kept.keep_sessions(kept.lengths >= min_session_length)
    if kept.n_sessions == 0:
        raise InputError(
            f"no session is left: of {sessions.n_sessions} none has {min_session_length} events "
            f"of items with at least {min_item_support} events; lower min_item_support?"
        )
    return kept.compact()


def split(
    sessions: Sessions, days: float | None = None, share: float | None = None
) -> tuple[Sessions, Sessions]:
    """Split by time into training and test sessions; the test set sees the training catalogue.

    Args:
        days: sessions that start in the log's last `days` are the test set. Or
        share: the last `share` of the sessions by start time are. Exactly one is given.

    Returns:
        train, test. Training sessions shorter than 2 are dropped; of the test sessions events of
        items that train lacks, then sessions shorter than 2. Both share one `item_ids`.

    Raises:
        InputError: one side has no session of length 2.
    """
    if (days is None) == (share is None):
        raise InputError("split: give either days or share")
    if share is not None and not 0 < share < 1:
        raise InputError(f"split: share must be > 0 and < 1, not {share:g}")
    starts = sessions.starts
    if days is not None:
        in_test = starts >= sessions.times.max() - days * DAY
        how = f"the last {days:g} day(s)"
    else:
        in_test = np.zeros(sessions.n_sessions, bool)
        in_test[np.argsort(starts, kind="stable")[round((1 - share) * len(starts)) :]] = True
        how = f"the last {share:g} of the sessions"
    train, test = sessions.keep_sessions(~in_test), sessions.keep_sessions(in_test)
    for side, part in (("training", train), ("test", test)):
        if not (part.lengths >= 2).any():
            raise InputError(
                f"split: with {how} as the test set, {part.n_sessions} of {sessions.n_sessions} "
                f"sessions are for {side} and none of them has 2 events"
            )
    # Shorter sessions teach nothing, but would leave items to some methods and not to others.
    train = train.keep_sessions(train.lengths >= 2).compact()
    return train, test.restrict(train.item_ids)
