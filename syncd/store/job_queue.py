"""What to read next, and when the next read is due."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from syncd.core.jobs import Job, JobKind
from syncd.core.pagination import Position
from syncd.core.timestamps import maybe_from_text, to_text
from syncd.store import rows

_PICKS: dict[JobKind, str] = {
    "doubt": """
        SELECT q.item_id, NULL FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.urgent_at <= :now AND {ready} ORDER BY q.urgent_at LIMIT 1""",
    "settle": """
        SELECT q.item_id, NULL FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.settle_at <= :now AND {ready} ORDER BY q.settle_at LIMIT 1""",
    # The smallest request first: who asks for one item does not wait for who asks for hundreds.
    "asked": """
        WITH requests AS (
            SELECT w.sweep_id, count(*) AS items FROM sweeps w
            JOIN sweep_items s ON s.sweep_id = w.sweep_id
            WHERE w.ended_at IS NULL AND NOT w.is_catalogue AND s.state = 'todo' GROUP BY 1)
        SELECT q.item_id, q.sweep_id FROM requests r JOIN sweep_items q ON q.sweep_id = r.sweep_id
        JOIN items i ON i.item_id = q.item_id
        WHERE q.state = 'todo' AND {ready} ORDER BY r.items, r.sweep_id LIMIT 1""",
    "unread": """
        SELECT q.item_id, q.sweep_id FROM sweeps w JOIN sweep_items q ON q.sweep_id = w.sweep_id
        JOIN items i ON i.item_id = q.item_id
        WHERE w.ended_at IS NULL AND w.is_catalogue AND q.state = 'todo' AND {ready}
          -- What failed lately is no longer first, but last (see "stale").
          AND i.confirmed_at IS NULL AND i.attempts = 0 LIMIT 1""",
    "stale": """
        SELECT q.item_id, q.sweep_id FROM sweeps w JOIN sweep_items q ON q.sweep_id = w.sweep_id
        JOIN items i ON i.item_id = q.item_id
        WHERE w.ended_at IS NULL AND w.is_catalogue AND q.state = 'todo' AND {ready}
        ORDER BY i.attempts > 0, i.confirmed_at LIMIT 1""",
}
# By the queue's own id: the row of an item that is left out may be damaged, and is not looked at.
_READY = """q.item_id NOT IN (SELECT value FROM json_each(:busy))
            AND (i.not_before IS NULL OR i.not_before <= :now)"""
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
        elif kind == "look":
            continue  # nothing of the mirror
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
               SELECT (SELECT min(urgent_at) FROM refresh_queue WHERE urgent_at > :now)
               UNION ALL
               SELECT (SELECT min(not_before) FROM items WHERE not_before > :now))""",
        {"now": to_text(now)},
    ).fetchone()
    return maybe_from_text(row[0])
