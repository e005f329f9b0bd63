"""Click sessions as flat arrays, and the ids of items.

tables.py and rawlogs.py read them, protocols.py cleans and splits them.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gru4rec_np.errors import InputError

DAY = 86_400.0
CLICKS = 40  # most methods see at most so many of a session's last clicks


@dataclasses.dataclass(frozen=True, eq=False)
class Sessions:
    """A click log: the events of session s are items[offsets[s]:offsets[s + 1]], oldest first.

    `len(log)` is the number of sessions. `log[which]` are some of them, as Sessions: a number, a
    slice, an array of indices or a boolean mask, as for a NumPy array. The catalogue stays.

    Attributes:
        items: (events,) int32, each event's index into `item_ids`.
        offsets: (sessions + 1,) int64.
        times: (events,) float64, seconds since 1970.
        item_ids: (I,) the catalogue: int64, or objects of type str. Frames and Parquet files may
            also give floats, bool or datetime64.
        session_ids: (sessions,) likewise.
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
            sessions: item ids of one type. The catalogue is in order of first appearance.

        Raises:
            InputError: ids of several types, such as 1 and "1", or of a type that cannot be an id.
        """
        clicks = [item for session in sessions for item in session]
        _one_type(clicks, "item ids")
        ids = list(dict.fromkeys(clicks))
        index = {item: i for i, item in enumerate(ids)}
        lengths = np.array([len(session) for session in sessions], np.int64)
        return cls(
            items=np.array([index[item] for item in clicks], np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            times=np.array(
                [3600.0 * s + e for s, session in enumerate(sessions) for e in range(len(session))]
            ),
            item_ids=id_array(ids),
            session_ids=np.arange(len(sessions)),
        )

    def __len__(self) -> int:
        return self.n_sessions

    @property
    def shape(self) -> tuple[int]:
        """(sessions,): what scikit-learn counts samples by."""
        return (self.n_sessions,)

    def __repr__(self) -> str:
        counts = f"{self.n_sessions:,} sessions, {self.n_events:,} events, {self.n_items:,} items"
        if self.n_events == 0:
            return f"Sessions({counts})"
        ends = self.times.min(), self.times.max()
        first, last = (np.datetime64(int(time // DAY), "D") for time in ends)
        return f"Sessions({counts}, {first} to {last})"

    def __getitem__(self, which: Any) -> Sessions:
        """Sessions by number, slice, array of indices or boolean mask, in the order asked for.

        Raises:
            IndexError: as NumPy does, for a session that does not exist.
        """
        sessions = np.atleast_1d(np.arange(self.n_sessions)[which])
        lengths = self.lengths[sessions]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[sessions] - offsets[:-1], lengths)
        return dataclasses.replace(
            self,
            items=self.items[events],
            times=self.times[events],
            offsets=offsets,
            session_ids=self.session_ids[sessions],
        )

    @property
    def n_sessions(self) -> int:
        return len(self.offsets) - 1

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
        return self._times_of(self.offsets[:-1])

    @property
    def ends(self) -> np.ndarray:
        """(sessions,) float64: time of each session's last event, NaN if it has none."""
        return self._times_of(self.offsets[1:] - 1)

    def _times_of(self, events: np.ndarray) -> np.ndarray:
        """(sessions,) float64: the times of one event of each session, NaN if it has none."""
        out = np.full(self.n_sessions, np.nan)
        filled = self.lengths > 0
        out[filled] = self.times[events[filled]]
        return out

    @property
    def durations(self) -> np.ndarray:
        """(sessions,) float64: seconds from each session's first event to its last."""
        return self.ends - self.starts

    @property
    def support(self) -> np.ndarray:
        """(I,) int64: number of events of each item."""
        return np.bincount(self.items, minlength=self.n_items)

    @property
    def cases(self) -> np.ndarray:
        """(cases,) int64: the events that have a next one in their session.

        Case e asks for items[e + 1], given the session up to and including items[e].
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
        """Only the sessions where keep (sessions,) is True, with less memory than `self[keep]`."""
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

    def extend(self, item_ids: np.ndarray) -> Sessions:
        """These sessions over a catalogue that begins with another one, usually a model's.

        Items that it lacks follow, in the order of this catalogue. Items are matched by `index_of`.

        Args:
            item_ids: (I,) the other catalogue.

        Raises:
            InputError: ids of items that it lacks are of another type.
        """
        new = places_of(self.item_ids.tolist(), index_of(item_ids))
        unknown = np.flatnonzero(new < 0)
        new[unknown] = len(item_ids) + np.arange(len(unknown))
        more = self.item_ids[unknown]
        if len(more) and more.dtype != item_ids.dtype:
            names = {"i": "whole numbers", "O": "text", "f": "floats", "b": "booleans"}
            old, other = (names.get(a.dtype.kind, str(a.dtype)) for a in (item_ids, more))
            raise InputError(
                f"item ids: those of the model are {old}, {str(more[0])[:60]!r} is {other}"
            )
        ids = np.concatenate([item_ids, more]) if len(more) else item_ids
        return dataclasses.replace(self, items=new[self.items], item_ids=ids)

    def restrict(self, item_ids: np.ndarray) -> Sessions:
        """These sessions over another catalogue, usually the training set's.

        Events of items that it lacks are dropped, then sessions shorter than 2. Items are matched
        by `index_of`.

        Args:
            item_ids: (I,) the other catalogue.

        Raises:
            InputError: nothing is left.
        """
        known = self if item_ids is self.item_ids else self.over(item_ids, index_of(item_ids))
        known = known.keep_sessions(known.lengths >= 2)
        if known.n_sessions == 0:
            n_known = (places_of(self.item_ids.tolist(), index_of(item_ids)) >= 0).sum()
            raise InputError(
                f"no test session has two items that are known from training: of "
                f"{self.n_items} test items {n_known} are known"
            )
        return known

    def over(self, item_ids: np.ndarray, index: Mapping[str, int]) -> Sessions:
        """These sessions over another catalogue, without the events of items that it lacks.

        Args:
            item_ids: (I,) the other catalogue. index: its `index_of`.
        """
        new = places_of(self.item_ids.tolist(), index)
        known = self.keep_events(new[self.items] >= 0)
        return dataclasses.replace(known, items=new[known.items], item_ids=item_ids)


def id_array(ids: Iterable[Any]) -> np.ndarray:
    """Ids of one type as an array whose `tolist` gives them back, see `Sessions.item_ids`.

    If a whole number does not fit into int64, all ids become text.

    Raises:
        InputError: ids of several types or of a type that cannot be an id, or NaN.
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


# The types of ids, and the dtype of an array of them.
_ID_TYPES: dict[type, Any] = {
    int: np.int64,
    str: object,
    float: np.float64,
    bool: np.bool_,
    datetime.date: "datetime64[D]",
    datetime.datetime: "datetime64[us]",
}


def _one_type(values: Iterable[Any], what: str) -> type:
    """The Python type of all values; int if there are none."""
    kinds = {type(v.item() if isinstance(v, np.generic) else v) for v in values}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{what}: values of more than one type, {names}")
    kind = kinds.pop() if kinds else int
    if kind not in _ID_TYPES:
        raise InputError(f"{what}: values of type {kind.__name__} are no ids")
    return kind


def index_of(ids: np.ndarray) -> dict[str, int]:
    """Each id's index in a catalogue, by the id's text.

    One id that is not a number makes all ids of its file text. So the number 7 and the text "7"
    are the same item here; "007", " 7" and 7.0 are other items.

    Args:
        ids: (I,) as `id_array` gives them.
    """
    return {str(item): i for i, item in enumerate(ids.tolist())}


def places_of(ids: Iterable[Any], index: Mapping[str, int]) -> np.ndarray:
    """(n,) int32: the place of each id in a catalogue, -1 where it lacks it. index: `index_of`."""
    return np.array([index.get(str(item), -1) for item in ids], np.int32)


def item_list(session: Any) -> list[Any]:
    """The items of a session that a model is given, as a list.

    Raises:
        InputError: it is a single id, or a set, which has no order.
    """
    if isinstance(session, set | frozenset):
        raise InputError("session: must be a list of item ids, oldest first; a set has no order")
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


def recent(
    sessions: Sessions, cases: np.ndarray, most: int = CLICKS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each case, its event and those before it in the session.

    Args:
        cases: (n,) events. most: the largest number of events per case, the last ones.

    Returns:
        row (events,): the case, ascending. item (events,). place (events,): 1 for the oldest event
        of a case, 2 for the next, and so on.
    """
    session = np.searchsorted(sessions.offsets, cases, side="right") - 1
    lengths = np.minimum(cases - sessions.offsets[session] + 1, most)
    row = np.repeat(np.arange(len(cases)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    return row, sessions.items[cases[row] - lengths[row] + place], place


def own_items(sessions: Sessions, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each event (n,), the distinct items among it and the clicks before it, `CLICKS` in all.

    Returns:
        row (pairs,): the event's number, ascending. item (pairs,).
    """
    row, item, _ = recent(sessions, events)
    return np.divmod(np.unique(row * sessions.n_items + item), sessions.n_items)
