"""Which columns of a table are read, and what to say where one is missing.

Knows no files and no sessions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from gru4rec_np.errors import InputError

# Of the session, which may be several, then of the item, the time and whatever else is read.
Columns = Sequence["str | Sequence[str]"]


def keys_of(columns: Columns, found: Sequence[str], name: str) -> list[tuple[str, ...]]:
    """The columns of a table that each of `columns` stands for.

    The first may be several: a sequence, or names with commas between them.

    Raises:
        InputError: a column is missing, or a name stands there twice.
    """
    keys = names_of(columns, found)
    for key in keys:
        for part in key:
            if part not in found:
                has = ", ".join(map(repr, found))
                has = has if len(has) <= 200 else has[:200] + " ..."
                raise InputError(f"{name}: no column {part!r}; it has {has}")
            if list(found).count(part) > 1:
                raise InputError(f"{name}: two columns are named {part!r}")
    return keys


def names_of(columns: Columns, found: Sequence[str]) -> list[tuple[str, ...]]:
    """The names that each of `columns` stands for, in a table that has the columns `found`."""
    session, *others = columns
    if isinstance(session, str):
        session = [session] if session in found else session.split(",")
    return [tuple(session), *((str(column),) for column in others)]


ROLES = ("session", "item", "time")  # of a table's columns, in this order
# How the first line of a public raw log looks, by the name that `prepare` has for it.
RAW_LOGS = {
    "rsc15": r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,\w+$",
    "diginetica": r"session_?id;user_?id;item_?id;timeframe;eventdate$",
    "retailrocket": r"timestamp,visitorid,event,itemid,transactionid$",
    "rees46": r"event_time,event_type,product_id,category_id,",
    "coveo": r"session_id_hash,event_type,product_action,",
    "otto": r'\{"session": ?\d+, ?"events": ?\[',
}


def spelling(name: str) -> str:
    """A column's name without what is easily written in another way: case, blanks, underscores."""
    return re.sub(r"[\s_-]", "", name).casefold()


def _guess(column: str, found: Sequence[str]) -> str | None:
    """The only column whose name is spelt in another way, None if there is none."""
    like = [name for name in found if spelling(name) == spelling(column)]
    return like[0] if len(like) == 1 else None


def how_to_name(columns: Columns, found: Sequence[str], line: str = "") -> str:
    """The end of a message about columns that a file lacks: which options name them.

    Args:
        columns: those that are read, see `keys_of`. found: those of the file.
        line: the first line of a text file.
    """
    options = []
    for role, key in zip(ROLES, names_of(columns, found), strict=False):
        if not set(key) <= set(found):
            names = [part if part in found else _guess(part, found) or "NAME" for part in key]
            options.append(f"--{role}-column {shlex.quote(','.join(names))}")
    if len(options) == len(ROLES):
        for log, beginning in RAW_LOGS.items():
            if re.match(beginning, line, re.IGNORECASE):
                return f"; is it a raw log? `python -m gru4rec_np.prepare {log}` reads it"
        if any(re.fullmatch(r"[\d.]+", name) for name in found):
            return "; the first line must name the columns"
    return f"; give {' '.join(options)}" if options else ""
