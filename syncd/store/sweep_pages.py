"""The pages of the list that a sweep reads: their items, and the next page."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

import msgspec

from syncd.core import pagination
from syncd.core.model import Page
from syncd.core.pagination import Position
from syncd.core.read_age import COPY_AGE
from syncd.core.timestamps import to_text
from syncd.store import items, rows


def apply(
    db: sqlite3.Connection,
    sweep_id: int,
    page: Page,
    position: Position,
    categories: tuple[int, ...],
) -> None:
    """Add the items of the page at `position` to a sweep, and store the position of the next."""
    began_at = _open_since(db, sweep_id)
    if began_at is None:
        return
    shown = [item.item_id for item in page.items]
    stats = pagination.page_stats(
        shown,
        _listed_in(db, sweep_id, position.run, shown),
        listed=position.listed,
        count=page.count,
        has_next=page.has_next,
        broken_rows=page.broken_rows,
        is_old=page.age >= COPY_AGE and to_text(page.began_at) < began_at,
    )
    next_position = pagination.following(position, stats, categories)
    db.executemany(
        """INSERT INTO items (item_id, name) VALUES (?, ?)
           ON CONFLICT (item_id) DO UPDATE SET name = coalesce(excluded.name, name)""",
        [(item.item_id, item.name) for item in page.items],
    )
    add_items(db, sweep_id, set(shown), run=position.run)
    _save_position(db, sweep_id, next_position)


def go_to(db: sqlite3.Connection, sweep_id: int, position: Position) -> None:
    """Continue the listing of a sweep at `position`, if the sweep is open."""
    if _open_since(db, sweep_id) is not None:
        _save_position(db, sweep_id, position)


def list_again(db: sqlite3.Connection, categories: tuple[int, ...]) -> None:
    """Begin the list again for each sweep whose list is read, and changed while it was read."""
    for sweep_id, text in db.execute(
        """SELECT sweep_id, position FROM sweeps
           WHERE ended_at IS NULL AND listing_changed = 1 AND is_listing = 0
             AND position IS NOT NULL"""
    ).fetchall():
        db.execute("UPDATE sweeps SET listing_changed = 0 WHERE sweep_id = ?", (sweep_id,))
        position = pagination.again(position_of(text), categories)
        if position is not None:
            _save_position(db, sweep_id, position)


def add_items(
    db: sqlite3.Connection, sweep_id: int, item_ids: Collection[int], *, run: int
) -> None:
    """Add items to a sweep. Those that were read since its beginning are done, and count as read.

    A call that nobody waits for may read an item before the list shows it to the sweep.
    """
    ids = rows.as_json(item_ids)
    done = _read_already(db, sweep_id, ids)
    db.execute(
        """INSERT INTO sweep_items (sweep_id, item_id, state, run)
           SELECT w.sweep_id, i.item_id, CASE WHEN i.confirmed_at >= w.began_at THEN 'done'
                                              ELSE 'todo' END, ?
           FROM json_each(?) j JOIN items i ON i.item_id = j.value JOIN sweeps w
           WHERE w.sweep_id = ?
           ON CONFLICT (sweep_id, item_id) DO UPDATE SET run = max(run, excluded.run)""",
        (run, ids, sweep_id),
    )
    if done:
        _count_as_read(db, sweep_id, done)


def _read_already(db: sqlite3.Connection, sweep_id: int, ids: str) -> list[int]:
    """Return which of these items are new in a sweep, and were read since its beginning."""
    found = db.execute(
        """SELECT i.item_id FROM sweeps w JOIN items i ON i.confirmed_at >= w.began_at
           WHERE w.sweep_id = ?1 AND i.item_id IN (SELECT value FROM json_each(?2))
             AND NOT EXISTS (SELECT 1 FROM sweep_items s
                             WHERE s.sweep_id = w.sweep_id AND s.item_id = i.item_id)""",
        (sweep_id, ids),
    )
    return [row[0] for row in found]


def _count_as_read(db: sqlite3.Connection, sweep_id: int, item_ids: Collection[int]) -> None:
    """Add items that were read since the beginning of a sweep to its totals, with their changes.

    `calls` stays: it has the calls that the sweep itself requests.
    """
    totals = db.execute(
        """SELECT coalesce(sum(v.value IS NOT NULL AND v.missing_since IS NULL), 0),
                  coalesce(sum(c.old_availability != c.availability), 0),
                  coalesce(sum(c.seq IS NOT NULL AND c.old_availability IS NULL), 0),
                  coalesce(sum(c.seq IS NOT NULL AND c.availability IS NULL), 0),
                  coalesce(sum(c.missed), 0)
           FROM json_each(?) j CROSS JOIN variants v ON v.item_id = j.value
           CROSS JOIN sweeps w ON w.sweep_id = ?
           -- Only the changes since its beginning are read: an older row may be damaged.
           LEFT JOIN change_log c ON c.seq = v.last_change_seq AND c.cause = 'read'
               AND v.changed_at >= w.began_at AND c.recorded_at >= w.began_at""",
        (rows.as_json(item_ids), sweep_id),
    ).fetchone()
    db.execute(
        """UPDATE sweeps SET items = items + ?, variants = variants + ?, changed = changed + ?,
               added = added + ?, removed = removed + ?, missed = missed + ? WHERE sweep_id = ?""",
        (len(item_ids), *totals, sweep_id),
    )


def position_of(text: str) -> Position:
    """Return the position in a text of `position_text`."""
    return msgspec.json.decode(text, type=Position)


def position_text(position: Position | None) -> str | None:
    """Return a position as it is stored."""
    return None if position is None else msgspec.json.encode(position).decode()


def _listed_in(
    db: sqlite3.Connection, sweep_id: int, run: int, item_ids: Collection[int]
) -> set[int]:
    """Return which of these items a run has shown before."""
    found = db.execute(
        # CROSS JOIN makes SQLite look up each of these items, instead of reading the whole sweep.
        """SELECT s.item_id FROM json_each(?) j CROSS JOIN sweep_items s
           WHERE s.item_id = j.value AND s.sweep_id = ? AND s.run = ?""",
        (rows.as_json(item_ids), sweep_id, run),
    )
    return {row[0] for row in found}


def _save_position(db: sqlite3.Connection, sweep_id: int, position: Position) -> None:
    if pagination.is_whole(position):
        # An item that the list does not show may be gone, or may have moved between its pages. Only
        # a read of the item shows which: a list alone never removes anything.
        add_items(db, sweep_id, items.ids_with_variants(db), run=0)
    db.execute(
        "UPDATE sweeps SET position = ?, is_listing = ? WHERE sweep_id = ?",
        (position_text(position), not pagination.is_whole(position), sweep_id),
    )


def _open_since(db: sqlite3.Connection, sweep_id: int) -> str | None:
    row = db.execute(
        "SELECT began_at FROM sweeps WHERE sweep_id = ? AND ended_at IS NULL", (sweep_id,)
    ).fetchone()
    return None if row is None else row[0]
