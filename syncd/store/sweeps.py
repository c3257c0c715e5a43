"""Sweeps in the mirror: what they still have to read, how far they are and what they did."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from datetime import datetime

import msgspec

from syncd.listing import Position
from syncd.model import Page
from syncd.ports import SweepCause, SweepProgress, SweepSummary
from syncd.state import VariantState, Writes
from syncd.store import rows
from syncd.timestamps import from_text, to_text

_PAGE_ITEMS = 100

_READY = """SELECT sweep_id FROM sweeps w WHERE ended_at IS NULL AND position IS NULL
            AND NOT EXISTS (SELECT 1 FROM sweep_items s
                            WHERE s.sweep_id = w.sweep_id AND s.state = 'todo')"""


def begin(
    connection: sqlite3.Connection,
    cause: SweepCause,
    now: datetime,
    *,
    items: Collection[int],
    is_catalogue: bool,
    position: Position | None,
) -> int:
    """Begin a sweep of `items` and of what is listed from `position` on, each if given."""
    sweep_id = connection.execute(
        "INSERT INTO sweeps (cause, is_catalogue, began_at, position) VALUES (?, ?, ?, ?)",
        (cause, is_catalogue, to_text(now), _position_text(position)),
    ).lastrowid
    if sweep_id is None:
        raise sqlite3.ProgrammingError("an insert names its row")
    connection.executemany(
        "INSERT OR IGNORE INTO items (item_id) VALUES (?)", [(i,) for i in items]
    )
    _add(connection, sweep_id, items)
    return sweep_id


def listed(
    connection: sqlite3.Connection, sweep_id: int, page: Page, following: Position | None
) -> None:
    """Note the items of one page and where the listing goes on."""
    if not _is_open(connection, sweep_id):
        return
    connection.executemany(
        """INSERT INTO items (item_id, name) VALUES (?, ?)
           ON CONFLICT (item_id) DO UPDATE SET name = coalesce(excluded.name, name)""",
        [(item.item_id, item.name) for item in page.items],
    )
    _add(connection, sweep_id, [item.item_id for item in page.items])
    if following is None:
        # What the listing does not show may be gone or may have slid between its pages: only
        # asking for it tells. Nothing is ever removed because a list does not have it.
        known = connection.execute("SELECT item_id FROM items WHERE removed = 0").fetchall()
        _add(connection, sweep_id, [row[0] for row in known])
    connection.execute(
        "UPDATE sweeps SET position = ? WHERE sweep_id = ?",
        (_position_text(following), sweep_id),
    )


def open_catalogue_sweep(connection: sqlite3.Connection) -> tuple[int, SweepCause] | None:
    """Return the sweep of the whole mirrored catalogue that has not ended."""
    row: tuple[int, SweepCause] | None = connection.execute(
        "SELECT sweep_id, cause FROM sweeps WHERE ended_at IS NULL AND is_catalogue = 1"
    ).fetchone()
    return row


def drop(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Forget an open sweep."""
    connection.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    connection.execute("DELETE FROM sweeps WHERE sweep_id = ?", (sweep_id,))


def any_ready(connection: sqlite3.Connection) -> bool:
    """Tell whether `finish` would end one."""
    return connection.execute(f"{_READY} LIMIT 1").fetchone() is not None


def finish(connection: sqlite3.Connection, now: datetime) -> list[SweepSummary]:
    """End every open sweep that is listed whole and has nothing left to read."""
    done = connection.execute(_READY).fetchall()
    return [_end(connection, row[0], now, error="") for row in done]


def fail(connection: sqlite3.Connection, now: datetime, error: str) -> list[SweepSummary]:
    """End every open sweep as failed."""
    unfinished = connection.execute("SELECT sweep_id FROM sweeps WHERE ended_at IS NULL").fetchall()
    return [_end(connection, row[0], now, error=error) for row in unfinished]


def progress(connection: sqlite3.Connection, sweep_id: int) -> SweepProgress | None:
    """Return how far an open sweep is."""
    row = connection.execute(
        """SELECT w.began_at, w.position, count(s.item_id),
                  coalesce(sum(s.state != 'todo'), 0)
           FROM sweeps w LEFT JOIN sweep_items s ON s.sweep_id = w.sweep_id
           WHERE w.sweep_id = ? AND w.ended_at IS NULL GROUP BY w.sweep_id""",
        (sweep_id,),
    ).fetchone()
    if row is None:
        return None
    began_at, position_text, listed_so_far, checked = row
    total = listed_so_far if position_text is None else None
    remaining = listed_so_far - checked
    if position_text is not None:
        position = msgspec.json.decode(position_text, type=Position)
        if position.count is not None:
            missing = max(0, position.count - (position.page - 1) * _PAGE_ITEMS)
            total = listed_so_far + missing
            remaining += missing + missing // _PAGE_ITEMS + 1
    return SweepProgress(sweep_id, from_text(began_at), checked, total, remaining)


def summary(connection: sqlite3.Connection, sweep_id: int) -> SweepSummary | None:
    """Return what an ended sweep did."""
    row = connection.execute(
        """SELECT is_catalogue, began_at, result, items, variants, changed, added, removed, missed,
                  calls, throttled, ended_at, failed_items, error
           FROM sweeps WHERE sweep_id = ? AND ended_at IS NOT NULL""",
        (sweep_id,),
    ).fetchone()
    if row is None:
        return None
    began_at = from_text(row[1])
    return SweepSummary(
        sweep_id=sweep_id,
        is_catalogue=bool(row[0]),
        began_at=began_at,
        result=row[2],
        items=row[3],
        variants=row[4],
        changed=row[5],
        added=row[6],
        removed=row[7],
        missed=row[8],
        calls=row[9],
        throttled=row[10],
        seconds=round((from_text(row[11]) - began_at).total_seconds(), 3),
        failed_items=msgspec.json.decode(row[12], type=list[int]),
        error=row[13],
    )


def close_unlocated(
    connection: sqlite3.Connection,
    began_at: datetime,
    judge: Callable[[dict[int, VariantState]], Writes],
    now: datetime,
) -> None:
    """After a whole sweep: what it did not find is in no item of the mirrored catalogue."""
    rows.write_observed(connection, judge(rows.all_variants(connection, "v.item_id IS NULL")))
    connection.execute(
        "UPDATE unlocated SET answered_at = ? WHERE answered_at IS NULL AND asked_at <= ?",
        (to_text(now), to_text(began_at)),
    )


def wants_locating(connection: sqlite3.Connection) -> bool:
    """Tell whether there are variants that only a sweep of the catalogue can place."""
    row = connection.execute("SELECT 1 FROM unlocated WHERE answered_at IS NULL").fetchone()
    return row is not None


def _add(connection: sqlite3.Connection, sweep_id: int, items: Collection[int]) -> None:
    """Add items to a sweep; those read since it began are done already."""
    connection.execute(
        """INSERT OR IGNORE INTO sweep_items (sweep_id, item_id, state)
           SELECT w.sweep_id, i.item_id, CASE WHEN i.confirmed_at >= w.began_at THEN 'done'
                                              ELSE 'todo' END
           FROM json_each(?) j JOIN items i ON i.item_id = j.value JOIN sweeps w
           WHERE w.sweep_id = ?""",
        (rows.as_json(items), sweep_id),
    )


def _end(
    connection: sqlite3.Connection, sweep_id: int, now: datetime, *, error: str
) -> SweepSummary:
    left = [
        row[0]
        for row in connection.execute(
            """SELECT item_id FROM sweep_items WHERE sweep_id = ? AND state = 'failed'
               ORDER BY item_id""",
            (sweep_id,),
        )
    ]
    result = "failed" if error else "partial" if left else "complete"
    connection.execute(
        """UPDATE sweeps SET ended_at = ?, position = NULL, result = ?, failed_items = ?, error = ?
           WHERE sweep_id = ?""",
        (to_text(now), result, rows.as_json(left), error, sweep_id),
    )
    connection.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    ended = summary(connection, sweep_id)
    if ended is None:
        raise sqlite3.ProgrammingError("a sweep that was ended has ended")
    return ended


def _is_open(connection: sqlite3.Connection, sweep_id: int) -> bool:
    row = connection.execute(
        "SELECT 1 FROM sweeps WHERE sweep_id = ? AND ended_at IS NULL", (sweep_id,)
    ).fetchone()
    return row is not None


def _position_text(position: Position | None) -> str | None:
    return None if position is None else msgspec.json.encode(position).decode()
