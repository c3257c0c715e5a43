"""The listing of a sweep: which items its pages show, and where it goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

import msgspec

from syncd.core import pagination
from syncd.core.model import Page
from syncd.core.pagination import PageStats, Position
from syncd.core.read_age import COPY_AGE
from syncd.core.timestamps import to_text
from syncd.store import reads, rows


def listed(
    connection: sqlite3.Connection,
    sweep_id: int,
    page: Page,
    position: Position,
    follow: Callable[[PageStats], Position],
) -> None:
    """Note the items of the page at `position` and where the listing goes on after it."""
    began_at = _open_since(connection, sweep_id)
    if began_at is None:
        return
    shown = [item.item_id for item in page.items]
    before = _listed_in(connection, sweep_id, position.run, shown)
    connection.executemany(
        """INSERT INTO items (item_id, name) VALUES (?, ?)
           ON CONFLICT (item_id) DO UPDATE SET name = coalesce(excluded.name, name)""",
        [(item.item_id, item.name) for item in page.items],
    )
    add(connection, sweep_id, set(shown), run=position.run)
    seen = pagination.look(
        shown,
        before,
        listed=position.listed,
        count=page.count,
        has_next=page.has_next,
        broken_rows=page.broken_rows,
        is_old=page.age >= COPY_AGE and to_text(page.began_at) < began_at,
    )
    _go_on(connection, sweep_id, follow(seen))


def relist(connection: sqlite3.Connection, again: Callable[[Position], Position | None]) -> None:
    """List again for every sweep whose listing is whole and is now known to have moved."""
    for sweep_id, text in connection.execute(
        """SELECT sweep_id, position FROM sweeps
           WHERE ended_at IS NULL AND listing_changed = 1 AND is_listing = 0
             AND position IS NOT NULL"""
    ).fetchall():
        connection.execute("UPDATE sweeps SET listing_changed = 0 WHERE sweep_id = ?", (sweep_id,))
        position = again(position_of(text))
        if position is not None:
            _go_on(connection, sweep_id, position)


def add(connection: sqlite3.Connection, sweep_id: int, items: Collection[int], *, run: int) -> None:
    """Add items to a sweep; those read since it began are done already."""
    connection.execute(
        """INSERT INTO sweep_items (sweep_id, item_id, state, run)
           SELECT w.sweep_id, i.item_id, CASE WHEN i.confirmed_at >= w.began_at THEN 'done'
                                              ELSE 'todo' END, ?
           FROM json_each(?) j JOIN items i ON i.item_id = j.value JOIN sweeps w
           WHERE w.sweep_id = ?
           ON CONFLICT (sweep_id, item_id) DO UPDATE SET run = max(run, excluded.run)""",
        (run, rows.as_json(items), sweep_id),
    )


def position_of(text: str) -> Position:
    """Read back what `position_text` wrote."""
    return msgspec.json.decode(text, type=Position)


def position_text(position: Position | None) -> str | None:
    """Return a position as it is kept."""
    return None if position is None else msgspec.json.encode(position).decode()


def _listed_in(
    connection: sqlite3.Connection, sweep_id: int, run: int, items: Collection[int]
) -> set[int]:
    """Return which of these items a run has shown; the run may have shown very many."""
    found = connection.execute(
        # CROSS JOIN has SQLite look up each of these items, and not go through the whole sweep.
        """SELECT s.item_id FROM json_each(?) j CROSS JOIN sweep_items s
           WHERE s.item_id = j.value AND s.sweep_id = ? AND s.run = ?""",
        (rows.as_json(items), sweep_id, run),
    )
    return {row[0] for row in found}


def _go_on(connection: sqlite3.Connection, sweep_id: int, position: Position) -> None:
    if pagination.is_whole(position):
        # What the listing does not show may be gone or may have slid between its pages: only
        # asking for it tells. Nothing is ever removed because a list does not have it.
        add(connection, sweep_id, reads.known_items(connection), run=0)
    connection.execute(
        "UPDATE sweeps SET position = ?, is_listing = ? WHERE sweep_id = ?",
        (position_text(position), not pagination.is_whole(position), sweep_id),
    )


def _open_since(connection: sqlite3.Connection, sweep_id: int) -> str | None:
    row = connection.execute(
        "SELECT began_at FROM sweeps WHERE sweep_id = ? AND ended_at IS NULL", (sweep_id,)
    ).fetchone()
    return None if row is None else row[0]
