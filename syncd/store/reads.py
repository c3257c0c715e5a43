"""Finished reads into the mirror, and what to read next out of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import msgspec

from syncd.listing import Position
from syncd.model import ItemRead
from syncd.ports import Job, JobKind
from syncd.state import Change, Known, VariantState, Writes, count
from syncd.store import absences, rows
from syncd.timestamps import from_text, maybe_from_text, maybe_text, to_text

Judge = Callable[[Known], Writes]

_PICKS: dict[JobKind, str] = {
    "doubt": """
        SELECT q.item_id, NULL FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.asked_at <= :now AND {ready} ORDER BY q.asked_at LIMIT 1""",
    "unread": """
        SELECT s.item_id, w.sweep_id FROM sweeps w JOIN sweep_items s ON s.sweep_id = w.sweep_id
        JOIN items i ON i.item_id = s.item_id
        WHERE w.ended_at IS NULL AND s.state = 'todo'
          AND (i.confirmed_at IS NULL OR NOT w.is_catalogue) AND {ready}
        ORDER BY w.is_catalogue LIMIT 1""",
    "settle": """
        SELECT q.item_id, NULL FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.settle_at <= :now AND {ready} ORDER BY q.settle_at LIMIT 1""",
    "stale": """
        SELECT s.item_id, w.sweep_id FROM sweeps w JOIN sweep_items s ON s.sweep_id = w.sweep_id
        JOIN items i ON i.item_id = s.item_id
        WHERE w.ended_at IS NULL AND s.state = 'todo' AND {ready}
        ORDER BY i.confirmed_at LIMIT 1""",
}
_READY = """(i.not_before IS NULL OR i.not_before <= :now)
            AND i.item_id NOT IN (SELECT value FROM json_each(:busy))"""
_PICKS = {kind: sql.format(ready=_READY) for kind, sql in _PICKS.items()}


def next_job(
    connection: sqlite3.Connection,
    now: datetime,
    busy: Collection[int],
    order: Sequence[JobKind],
    *,
    listing: bool,
) -> Job | None:
    """Return a job of the first kind in `order` that has one."""
    values = {"now": to_text(now), "busy": rows.as_json(busy)}
    for kind in order:
        if kind == "page":
            job = _next_page(connection) if listing else None
            if job is not None:
                return job
        elif (row := connection.execute(_PICKS[kind], values).fetchone()) is not None:
            return Job(kind, item_id=row[0], sweep_id=row[1])
    return None


def _next_page(connection: sqlite3.Connection) -> Job | None:
    row = connection.execute(
        """SELECT sweep_id, position FROM sweeps
           WHERE ended_at IS NULL AND is_listing = 1 LIMIT 1"""
    ).fetchone()
    if row is None:
        return None
    return Job("page", sweep_id=row[0], position=msgspec.json.decode(row[1], type=Position))


def next_due_at(connection: sqlite3.Connection, now: datetime) -> datetime | None:
    """Return the next moment after `now` at which something becomes due by itself."""
    row = connection.execute(
        # Three ends of three indexes; one min() over a union would read all of what waits.
        """SELECT min(at) FROM (
               SELECT (SELECT min(settle_at) FROM refresh_queue WHERE settle_at > :now) AS at
               UNION ALL
               SELECT (SELECT min(asked_at) FROM refresh_queue WHERE asked_at > :now)
               UNION ALL
               SELECT (SELECT min(not_before) FROM items WHERE not_before > :now))""",
        {"now": to_text(now)},
    ).fetchone()
    return maybe_from_text(row[0])


def record(connection: sqlite3.Connection, seen: ItemRead, judge: Judge, now: datetime) -> Writes:
    """Judge one finished read, write what it says and tick it off wherever it was asked for."""
    before = rows.items_by_id(connection, [seen.item_id]).get(seen.item_id)
    told = rows.as_json(v.variant_id for v in seen.variants or ())
    began_at = to_text(seen.began_at)
    known = Known(
        variants=known_variants(connection, seen),
        item=before,
        absence=absences.mode(connection, seen.item_id, began_at),
        heard=_heard(connection, told),
    )
    writes = judge(known)
    _answer(connection, seen.item_id, began_at)
    rows.write_observed(connection, writes, now)
    if not seen.is_whole:
        _write_part_of_item(connection, seen)
    elif before is None or before.confirmed_at is None or before.confirmed_at <= seen.began_at:
        _write_item(connection, seen)
    connection.execute(
        """DELETE FROM unlocated WHERE variant_id IN
               (SELECT j.value FROM json_each(?) j JOIN variants v ON v.variant_id = j.value)""",
        (told,),
    )
    _tick_off(connection, seen, writes.changes)
    return writes


def _answer(connection: sqlite3.Connection, item_id: int, began_at: str) -> None:
    """Take off the queue what a read begun then has answered; the rest is due once, for all."""
    connection.execute(
        "DELETE FROM refresh_queue WHERE item_id = ? AND latest_at <= ?", (item_id, began_at)
    )
    # A doubt raised after the request left was not asked by it.
    connection.execute(
        """UPDATE refresh_queue SET settle_at = latest_at,
               asked_at = CASE WHEN asked_at > ?2 THEN asked_at END
           WHERE item_id = ?1""",
        (item_id, began_at),
    )


def _heard(connection: sqlite3.Connection, variant_ids: str) -> dict[int, datetime]:
    found = connection.execute(
        """SELECT u.variant_id, u.asked_at FROM json_each(?) j JOIN unlocated u
           ON u.variant_id = j.value""",
        (variant_ids,),
    )
    return {row[0]: from_text(row[1]) for row in found}


def known_variants(connection: sqlite3.Connection, seen: ItemRead) -> dict[int, VariantState]:
    """Return what a read is judged against: what the item had, and what it names."""
    known = rows.variants_of_item(connection, seen.item_id)
    known |= rows.variants_by_id(connection, [v.variant_id for v in seen.variants or ()])
    return known


def known_items(connection: sqlite3.Connection) -> list[int]:
    """Return every item that is not gone, or gone and has variants left that are not."""
    rows_of_items = connection.execute(
        """SELECT item_id FROM items i WHERE is_gone = 0 OR EXISTS
               (SELECT 1 FROM variants v WHERE v.item_id = i.item_id AND v.value IS NOT NULL)"""
    )
    return [row[0] for row in rows_of_items]


def failed(
    connection: sqlite3.Connection, item_id: int, not_before: datetime, give_up_after: int
) -> None:
    """Put one item off after a failed read; a sweep goes on without it after some tries."""
    connection.execute(
        "UPDATE items SET attempts = attempts + 1, not_before = ? WHERE item_id = ?",
        (to_text(not_before), item_id),
    )
    connection.execute(
        """UPDATE sweep_items SET tries = tries + 1,
               state = CASE WHEN tries + 1 >= ? THEN 'failed' ELSE state END
           WHERE item_id = ? AND state = 'todo'
             AND sweep_id IN (SELECT sweep_id FROM sweeps WHERE ended_at IS NULL)""",
        (give_up_after, item_id),
    )


def _write_item(connection: sqlite3.Connection, seen: ItemRead) -> None:
    connection.execute(
        """INSERT INTO items (item_id, name, confirmed_at, read_at, is_gone) VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), confirmed_at = excluded.confirmed_at,
               read_at = max(coalesce(excluded.read_at, ''), coalesce(read_at, '')),
               is_gone = excluded.is_gone, attempts = 0, not_before = NULL""",
        (
            seen.item_id,
            seen.name,
            to_text(seen.began_at),
            maybe_text(seen.source_at),
            seen.variants is None,
        ),
    )
    connection.execute(
        "UPDATE items SET read_at = NULL WHERE item_id = ? AND read_at = ''", (seen.item_id,)
    )


def _write_part_of_item(connection: sqlite3.Connection, seen: ItemRead) -> None:
    """Note an item of which not every variant was read: it does not confirm the others."""
    connection.execute(
        """INSERT INTO items (item_id, name) VALUES (?, ?)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), is_gone = 0, attempts = 0,
               not_before = NULL""",
        (seen.item_id, seen.name),
    )


def _tick_off(connection: sqlite3.Connection, seen: ItemRead, changes: list[Change]) -> None:
    sweeps = [
        row[0]
        for row in connection.execute(
            """UPDATE sweep_items SET state = ?1 WHERE item_id = ?2 AND state NOT IN ('done', ?1)
                 AND sweep_id IN (SELECT sweep_id FROM sweeps
                                  WHERE ended_at IS NULL AND began_at <= ?3)
               RETURNING sweep_id""",
            # The sweep names an item that it could not read whole.
            ("done" if seen.is_whole else "failed", seen.item_id, to_text(seen.began_at)),
        )
    ]
    if seen.variants is None:
        # It was listed and is gone: others may have slid into its place on a page already read.
        connection.executemany(
            """UPDATE sweeps SET has_moved = 1 WHERE sweep_id = ?1 AND EXISTS
                   (SELECT 1 FROM sweep_items s
                    WHERE s.sweep_id = ?1 AND s.item_id = ?2 AND s.run > 0)""",
            [(sweep_id, seen.item_id) for sweep_id in sweeps],
        )
    counted = count(changes)
    connection.executemany(
        """UPDATE sweeps SET items = items + 1, variants = variants + ?, changed = changed + ?,
               added = added + ?, removed = removed + ?, missed = missed + ? WHERE sweep_id = ?""",
        [
            (
                len(seen.variants or ()),
                counted.changed,
                counted.added,
                counted.removed,
                counted.missed,
                sweep_id,
            )
            for sweep_id in sweeps
        ],
    )
