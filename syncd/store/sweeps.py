"""Open sweeps: how they begin, and their progress."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime

from msgspec import Struct

from syncd.core.jobs import SweepCause, SweepProgress
from syncd.core.pagination import Position
from syncd.core.policy import Policy
from syncd.core.removals import remove_unplaced
from syncd.core.timestamps import from_text, to_text
from syncd.store import missing_variants, rows, sweep_pages

_PAGE_ITEMS = 100


def begin(
    db: sqlite3.Connection,
    cause: SweepCause,
    now: datetime,
    *,
    items: Collection[int],
    is_catalogue: bool,
    position: Position | None,
    accepts_removals: bool,
    is_paced: bool = False,
) -> int:
    """Begin a sweep of `items` and, with a `position`, of each item listed from there on.

    `is_paced`: it only makes background calls.
    """
    sweep_id = db.execute(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, position, is_listing,
               accepts_removals, is_paced) VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            cause,
            is_catalogue,
            to_text(now),
            sweep_pages.position_text(position),
            position is not None,
            accepts_removals,
            is_paced,
        ),
    ).lastrowid
    if sweep_id is None:
        raise sqlite3.ProgrammingError("an insert returns its row id")
    db.executemany("INSERT OR IGNORE INTO items (item_id) VALUES (?)", [(i,) for i in items])
    sweep_pages.add_items(db, sweep_id, items, run=0)
    if cause == "operator":
        # An operator waits for the end, so postponed items are read at once. A request that names
        # items does not change the turn of other items.
        db.execute(
            """UPDATE items SET not_before = NULL WHERE not_before IS NOT NULL
               AND (?1 OR item_id IN (SELECT value FROM json_each(?2)))""",
            (is_catalogue, rows.as_json(items)),
        )
    return sweep_id


def named_items(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of open sweeps of named items, and of the items they still have to read."""
    return len(sizes := open_requests(db)), sum(items for _, items in sizes)


def open_requests(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return each open sweep of named items, and the number of items it still has to read."""
    return db.execute(
        """SELECT w.sweep_id, count(s.item_id) FROM sweeps w
           LEFT JOIN sweep_items s ON s.sweep_id = w.sweep_id AND s.state = 'todo'
           WHERE w.ended_at IS NULL AND NOT w.is_catalogue GROUP BY w.sweep_id"""
    ).fetchall()


def accept_removals(db: sqlite3.Connection, sweep_id: int) -> None:
    """Let an open sweep remove every variant that it does not find."""
    db.execute("UPDATE sweeps SET accepts_removals = 1 WHERE sweep_id = ?", (sweep_id,))


class OpenSweep(Struct, frozen=True):
    """The open sweep of the whole mirrored catalogue."""

    sweep_id: int
    cause: SweepCause
    is_paced: bool


def open_catalogue_sweep(db: sqlite3.Connection) -> OpenSweep | None:
    """Return the open sweep of the whole mirrored catalogue, if there is one."""
    row = db.execute(
        "SELECT sweep_id, cause, is_paced FROM sweeps WHERE ended_at IS NULL AND is_catalogue = 1"
    ).fetchone()
    return None if row is None else OpenSweep(row[0], row[1], bool(row[2]))


def has_open(db: sqlite3.Connection) -> bool:
    """Return whether any sweep is open."""
    return db.execute("SELECT 1 FROM sweeps WHERE ended_at IS NULL").fetchone() is not None


def hurry(db: sqlite3.Connection) -> None:
    """Let each open sweep use all calls, and not only background calls."""
    db.execute("UPDATE sweeps SET is_paced = 0 WHERE ended_at IS NULL AND is_paced")


def drop(db: sqlite3.Connection, sweep_id: int, policy: Policy, now: datetime) -> None:
    """Delete an open sweep, because another one replaces it."""
    missing_variants.requeue_missing(db, sweep_id, policy, now)
    db.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    db.execute("DELETE FROM sweeps WHERE sweep_id = ?", (sweep_id,))


def progress(db: sqlite3.Connection, sweep_id: int) -> SweepProgress | None:
    """Return the progress of an open sweep; None once it has ended."""
    row = db.execute(
        """SELECT w.began_at, CASE WHEN w.is_listing THEN w.position END, count(s.item_id),
                  coalesce(sum(s.state != 'todo'), 0), w.is_paced
           FROM sweeps w LEFT JOIN sweep_items s ON s.sweep_id = w.sweep_id
           WHERE w.sweep_id = ? AND w.ended_at IS NULL GROUP BY w.sweep_id""",
        (sweep_id,),
    ).fetchone()
    if row is None:
        return None
    began_at, position_text, listed_so_far, checked, is_paced = row
    total = listed_so_far if position_text is None else None
    remaining = listed_so_far - checked
    if position_text is not None:
        position = sweep_pages.position_of(position_text)
        if position.count is not None:
            missing = max(0, position.count - (position.page - 1) * _PAGE_ITEMS)
            total = listed_so_far + missing
            remaining += missing + missing // _PAGE_ITEMS + 1
    return SweepProgress(
        sweep_id, from_text(began_at), checked, total, remaining, is_paced=bool(is_paced)
    )


def close_unplaced(
    db: sqlite3.Connection, began_at: datetime, policy: Policy, now: datetime
) -> None:
    """Remove the variants for which a whole sweep, begun at `began_at`, found no item.

    The sweep is no evidence for a delivery that arrived less than `settle` before its beginning: it
    may have read a copy that does not list the variant yet.
    """
    stored = rows.variants_where(db, "v.item_id IS NULL")
    settled_at = began_at - policy.settle
    rows.save(db, remove_unplaced(stored, began_at, policy, now=now), now)
    db.execute(
        """UPDATE unplaced_variants SET not_found_at = ?
           WHERE not_found_at IS NULL AND delivered_at <= ?""",
        (to_text(now), to_text(settled_at)),
    )


def has_unplaced_variants(db: sqlite3.Connection) -> bool:
    """Return whether deliveries named variants whose item only a sweep of the catalogue finds."""
    return bool(db.execute("SELECT 1 FROM unplaced_variants WHERE not_found_at IS NULL").fetchall())
