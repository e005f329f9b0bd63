"""The public click logs in the formats they are published in, read into `Sessions`.

A file is read in blocks of whole lines. So only the numbers of a log stay in memory, and an error
names the line.

All readers take
    files: a path, or several that together are one log: a session may go on in the next file.
    watch: called during the reading with the bytes read so far, and all.
    dropped: counts the events that are left out, by the reason. All others are in the result.
They raise InputError if a file is missing or empty, a column is missing, a line is not of the
format, no event is left, or gap_minutes is not above 0.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from gru4rec_np.data.columns import distinct
from gru4rec_np.data.rawcolumns import (
    LATEST_MS,
    MS,
    WHOLE,
    Files,
    Table,
    blocks_of,
    ids,
    in_range,
    is_utf8,
    milliseconds,
    moments,
    parse,
    paths_of,
    tables_of,
    whole_numbers,
)
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import COLUMNS, ROWS, from_parts
from gru4rec_np.data.text import Watch
from gru4rec_np.errors import InputError

SESSION, ITEM, TIME = COLUMNS
DAY_MS = 86_400_000


def read_rsc15(
    files: Files, watch: Watch | None = None, dropped: Counter[str] | None = None
) -> Sessions:
    """Read `yoochoose-clicks.dat` or `yoochoose-test.dat` of the RecSys Challenge 2015, or both.

    Lines are `session,time,item,category` without a header, the time like
    2014-04-07T10:51:09.277Z. The category is not used.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64.

    Source: the data set's dataset-README.txt; Ben-Shimon et al., "RecSys Challenge 2015 and the
    YOOCHOOSE Dataset", RecSys 2015.
    """

    def numbers(table: Table) -> pl.DataFrame:
        session, item = whole_numbers(table, "session"), whole_numbers(table, "item")
        time = moments(table, "time", "%Y-%m-%dT%H:%M:%S%.fZ", "2014-04-07T10:51:09.277Z")
        return _frame(session, item, time)

    columns = "session", "time", "item", "category"
    return _sessions(files, map(numbers, tables_of(files, ",", [columns], watch, header=False)))


def read_diginetica(
    files: Files, watch: Watch | None = None, dropped: Counter[str] | None = None
) -> Sessions:
    """Read `train-item-views.csv` of the CIKM Cup 2016, track 2 (Diginetica).

    Columns are separated by ';' under the header sessionId;userId;itemId;timeframe;eventdate, or
    session_id;user_id;item_id;timeframe;eventdate. An event's time is midnight (UTC) of its
    session's first eventdate plus timeframe, the milliseconds since the session's first query. The
    user, mostly NA, is not used.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64.

    Source: the data page of CIKM Cup 2016, track 2, "Personalized E-Commerce Search Challenge". The
    first eventdate: diginetica_preproc.py of hidasib/gru4rec_third_party_comparison.
    """
    date = pl.col("eventdate").str.to_date("%Y-%m-%d", strict=False)
    days = date.to_physical().cast(pl.Int64)  # since 1970
    days = pl.when(in_range(days * DAY_MS)).then(days)

    def numbers(table: Table) -> pl.DataFrame:
        session, item, timeframe, _ = table.rows.columns[1:]
        day = parse(table, "eventdate", days, "a date like 2016-05-09")
        frame = _frame(
            whole_numbers(table, session),
            whole_numbers(table, item),
            milliseconds(table, timeframe),
        )
        return frame.with_columns(day.alias("day"))

    spellings = [
        ("sessionId", "itemId", "timeframe", "eventdate"),
        ("session_id", "item_id", "timeframe", "eventdate"),
    ]
    log = pl.concat(map(numbers, tables_of(files, ";", spellings, watch)))
    midnight = pl.col("day").min().over(SESSION) * DAY_MS
    return _sessions(files, [log.select(SESSION, ITEM, pl.col(TIME) + midnight)])


def read_retailrocket(
    files: Files,
    gap_minutes: float = 60.0,
    event: str = "view",
    watch: Watch | None = None,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Read `events.csv` of the Retailrocket recommender system dataset.

    Columns are separated by ',' under the header timestamp,visitorid,event,itemid,transactionid,
    the timestamp in milliseconds since 1970. The file is not in order of time and has no sessions.
    A visitor's events, of all kinds, are cut into sessions at gaps. Then other kinds are left out.

    Args:
        gap_minutes: a new session starts after a longer time than this without an event.
        event: the kind of event to keep: view, addtocart or transaction.

    Returns:
        Sessions in order of visitor, then of time, with numbers for ids; item ids int64.

    Source: the data set's page on Kaggle, "Retailrocket recommender system dataset". The order of
    the steps: retailrocket_preproc.py of hidasib/gru4rec_third_party_comparison.
    """

    def numbers(table: Table) -> pl.DataFrame:
        item = whole_numbers(table, "itemid", table.rows["event"] == event)
        return _frame(whole_numbers(table, "visitorid"), item, milliseconds(table, "timestamp"))

    columns = "timestamp", "visitorid", "event", "itemid"
    parts = _cut_at_gaps(map(numbers, tables_of(files, ",", [columns], watch)), gap_minutes)
    return _sessions(files, _of_kind(parts, event, dropped), f"event of kind {event!r}")


def read_rees46(
    files: Files,
    gap_minutes: float | None = None,
    event: str = "view",
    watch: Watch | None = None,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Read `2019-Oct.csv`, `2019-Nov.csv` or other months of REES46's multi-category store.

    Columns are separated by ',' under a header that has event_time, event_type, product_id, user_id
    and user_session, the time like 2019-10-01 00:00:00 UTC. Other kinds of events are left out.

    Args:
        gap_minutes: None takes user_session for the session, and leaves out the few events that
            have none. A number cuts a user's events, of the kind, at gaps longer than this instead.
        event: the kind of event to keep: view, cart, remove_from_cart or purchase.

    Returns:
        Sessions as `tables.read_table` gives them; with gap_minutes, as `read_retailrocket` does.
        Item ids int64.

    Source: the data set's page on Kaggle, "eCommerce behavior data from multi category store". The
    gap: rees46_preproc.py of hidasib/gru4rec_third_party_comparison.
    """
    by_user = gap_minutes is not None

    def numbers(table: Table) -> pl.DataFrame:
        kept = table.rows["event_type"] == event
        time = moments(table, "event_time", "%Y-%m-%d %H:%M:%S UTC", "2019-10-01 00:00:00 UTC")
        session = (
            whole_numbers(table, "user_id", kept)
            if by_user
            else parse(
                table,
                "user_session",
                pl.when(is_utf8(table, "user_session")).then("user_session"),
                "text in UTF-8",
                kept,
            )
        )
        return _frame(session, whole_numbers(table, "product_id", kept), time)

    columns = "event_time", "event_type", "product_id", "user_id" if by_user else "user_session"
    parts = _of_kind(map(numbers, tables_of(files, ",", [columns], watch)), event, dropped)
    if by_user:
        parts = _cut_at_gaps(parts, gap_minutes)
    else:
        parts = _where(parts, pl.col(SESSION) != "", "events without a user_session", dropped)
    return _sessions(files, parts, f"event of kind {event!r}")


def read_coveo(
    files: Files,
    gap_minutes: float | None = None,
    event: str = "detail",
    watch: Watch | None = None,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Read `browsing_train.csv` of the SIGIR eCom 2021 data challenge (Coveo).

    Columns are separated by ',' under a header that has session_id_hash, product_action,
    product_sku_hash and server_timestamp_epoch_ms. `release_10_23_2020.csv`, which the paper used,
    has product_skus_hash. Other actions, page views among them, are left out.

    Args:
        gap_minutes: None keeps the file's sessions. A number cuts them where no event of any kind
            happens for longer than this; then they have numbers for ids.
        event: the product_action to keep: detail, add, remove, purchase or click.

    Returns:
        Sessions as `tables.read_table` gives them; with gap_minutes in order of appearance.

    Source: the README of coveooss/SIGIR-ecom-data-challenge; Tagliabue et al., "SIGIR 2021
    E-Commerce Workshop Data Challenge", arXiv 2104.09423. The order of the steps: coveo_preproc.py
    of hidasib/gru4rec_third_party_comparison.
    """

    def numbers(table: Table) -> pl.DataFrame:
        session, action, item, time = table.rows.columns[1:]
        kept = table.rows[action] == event
        items = ids(table, item, kept)
        return _frame(ids(table, session), items, milliseconds(table, time))

    spellings = [
        ("session_id_hash", "product_action", sku, "server_timestamp_epoch_ms")
        for sku in ("product_sku_hash", "product_skus_hash")
    ]
    parts: Iterable[pl.DataFrame] = map(numbers, tables_of(files, ",", spellings, watch))
    if gap_minutes is not None:
        parts = _cut_at_gaps(parts, gap_minutes)
    return _sessions(files, _of_kind(parts, event, dropped), f"event of kind {event!r}")


def read_otto(
    files: Files,
    event: str = "clicks",
    watch: Watch | None = None,
    dropped: Counter[str] | None = None,
) -> Sessions:
    """Read `.jsonl` files of the OTTO recommender systems dataset.

    Each line is a session as a JSON object, its times in milliseconds since 1970:
    {"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}, ...]}

    Args:
        event: the type of event to keep: clicks, carts or orders.

    Returns:
        Sessions as `tables.read_table` gives them, ids int64. Sessions without such an event are
        left out.

    Source: the README of otto-de/recsys-dataset; Normann et al., "OTTO - Recommender Systems
    Dataset", 2022.
    """
    fields = pl.Struct({"aid": pl.Int64, "ts": pl.Int64, "type": pl.String})
    schema: dict[str, Any] = {"session": pl.Int64, "events": pl.List(fields)}
    item = pl.when(pl.col("type") == event).then("aid")

    def numbers(path: Path, first_line: int, block: bytes) -> pl.DataFrame:
        try:
            lines = pl.read_ndjson(block, schema=schema)
            some = lines.filter(pl.col("events").list.len() > 0)
            events = some.explode("events").unnest("events")
            broken = any(frame.null_count().sum_horizontal().sum() for frame in (lines, events))
            broken = broken or not events.select(in_range(pl.col("ts")).all()).item()
        except pl.exceptions.PolarsError:
            broken = True
        if broken:  # Polars does not say where
            raise _otto_error(path, first_line, block)
        return events.select(
            pl.col("session").alias(SESSION), item.alias(ITEM), pl.col("ts").alias(TIME)
        )

    parts = itertools.starmap(numbers, blocks_of(files, watch))
    return _sessions(files, _of_kind(parts, event, dropped), f"event of type {event!r}")


READERS: dict[str, Callable[..., Sessions]] = {
    "rsc15": read_rsc15,
    "diginetica": read_diginetica,
    "retailrocket": read_retailrocket,
    "rees46": read_rees46,
    "coveo": read_coveo,
    "otto": read_otto,
}
CUT_AT_GAPS = ("retailrocket", "rees46", "coveo")  # those that take gap_minutes


# --- parts of the readers -------------------------------------------------------------------------


def _frame(session: pl.Series, item: pl.Series, ms: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({SESSION: session, ITEM: item, TIME: ms})


def _cut_at_gaps(
    parts: Iterable[pl.DataFrame], gap_minutes: float | None
) -> Iterator[pl.DataFrame]:
    """One frame of all parts, with a new session after each gap, numbered from 1."""
    if gap_minutes is None or not gap_minutes > 0:
        raise InputError(f"gap_minutes must be above 0, not {gap_minutes}")
    frame = pl.concat(parts)
    if frame[SESSION].dtype == pl.Categorical:  # its codes depend on what the process read before
        frame = frame.with_columns(pl.Series(SESSION, distinct(frame[SESSION])[1]))
    # The order is kept among equals: equal times stay in file order.
    frame = frame.sort(SESSION, TIME, maintain_order=True)
    session, ms = pl.col(SESSION), pl.col(TIME)
    starts = (session != session.shift()) | (ms - ms.shift() > gap_minutes * 60_000)
    yield frame.with_columns(starts.fill_null(True).cum_sum().alias(SESSION))


def _of_kind(
    parts: Iterable[pl.DataFrame], event: str, dropped: Counter[str] | None
) -> Iterator[pl.DataFrame]:
    """The events that have an item: those of other kinds were not given one."""
    return _where(parts, pl.col(ITEM).is_not_null(), f"events of other kinds than {event}", dropped)


def _where(
    parts: Iterable[pl.DataFrame], keep: pl.Expr, reason: str, dropped: Counter[str] | None
) -> Iterator[pl.DataFrame]:
    for part in parts:
        kept = part.filter(keep)
        if dropped is not None and len(kept) < len(part):
            dropped[reason] += len(part) - len(kept)
        yield kept


def _sessions(files: Files, parts: Iterable[pl.DataFrame], what: str = "event") -> Sessions:
    """Sessions of frames whose times are whole milliseconds."""
    name = ", ".join(map(str, paths_of(files)))

    def in_seconds() -> Iterator[pl.DataFrame]:
        some = False
        for part in itertools.chain.from_iterable(part.iter_slices(ROWS) for part in parts):
            some = some or len(part) > 0
            # In NumPy: Polars divides by multiplying with the inverse, which rounds twice.
            yield part.with_columns(pl.Series(TIME, part[TIME].to_numpy() / 1000))
        if not some:
            raise InputError(f"{name}: the log has no {what}")

    return from_parts(in_seconds(), COLUMNS, name)


def _otto_error(path: Path, first_line: int, block: bytes) -> InputError:
    """The first faulty line of a block that Polars cannot use, found in plain Python."""
    for number, line in enumerate(block.split(b"\n"), first_line):
        if line.strip() and (fault := _otto_fault(line)):
            return InputError(f"{path}, line {number}{fault}")
    return InputError(f"{path}, line {first_line} or later: not of the OTTO format")


def _otto_fault(line: bytes) -> str | None:
    try:
        session = json.loads(line)
    except (ValueError, RecursionError):
        session = None
    if not isinstance(session, dict):
        shown = line[:60].decode(errors="replace")
        return f": {shown!r} where a JSON object with session and events is expected"
    faults = [_fault(session, "session", int, WHOLE), _fault(session, "events", list, "a list")]
    if not any(faults):
        for event in session["events"]:
            if not isinstance(event, dict):
                return f", events: {str(event)[:60]!r} where an object is expected"
            faults += [_fault(event, "aid", int, WHOLE), _fault(event, "ts", int, MS, LATEST_MS)]
            faults += [_fault(event, "type", str, "a text")]
    return next(filter(None, faults), None)


def _fault(
    values: dict[str, Any], key: str, kind: type, expected: str, most: int = 2**63 - 1
) -> str | None:
    value = values.get(key)
    # Not isinstance: True is no number. int64 is what Polars reads.
    if type(value) is kind and (type(value) is not int or -most - 1 <= value <= most):
        return None
    found = "nothing" if value is None else repr(str(value)[:60])
    return f", {key}: {found} where {expected} is expected"
