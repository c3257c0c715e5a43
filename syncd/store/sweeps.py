"""Sweeps in the mirror: what they still have to read, how far they are and what they did."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import msgspec

from syncd.core.jobs import SweepCause, SweepProgress, SweepSummary
from syncd.core.pagination import Position
from syncd.core.records import ChangeSet, VariantState
from syncd.core.timestamps import from_text, to_text
from syncd.store import missing_variants, rows, sweep_pages
from syncd.store.missing_variants import Resolve

_PAGE_ITEMS = 100

_READY = """SELECT sweep_id FROM sweeps w WHERE ended_at IS NULL AND is_listing = 0
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
    accepts_removals: bool,
) -> int:
    """Begin a sweep of `items` and of what is listed from `position` on, each if given."""
    sweep_id = connection.execute(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, position, is_listing,
               accepts_removals) VALUES (?, ?, ?, ?, ?, ?)""",
        (
            cause,
            is_catalogue,
            to_text(now),
            sweep_pages.position_text(position),
            position is not None,
            accepts_removals,
        ),
    ).lastrowid
    if sweep_id is None:
        raise sqlite3.ProgrammingError("an insert names its row")
    connection.executemany(
        "INSERT OR IGNORE INTO items (item_id) VALUES (?)", [(i,) for i in items]
    )
    sweep_pages.add(connection, sweep_id, items, run=0)
    if cause == "operator":
        # An operator waits for the end: what was put off after failures is asked at once. Who
        # names items hurries no others.
        connection.execute(
            """UPDATE items SET not_before = NULL WHERE not_before IS NOT NULL
               AND (?1 OR item_id IN (SELECT value FROM json_each(?2)))""",
            (is_catalogue, rows.as_json(items)),
        )
    return sweep_id


def named_items(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many sweeps of named items are open, and how many items they still have."""
    sizes = _sizes(connection)
    return len(sizes), sum(items for _, items in sizes)


def excess(connection: sqlite3.Connection, requests: int, items: int) -> list[int]:
    """Return sweeps of named items that exceed so many requests and items; the largest do."""
    over, waiting = [], 0
    for index, (sweep_id, size) in enumerate(sorted(_sizes(connection), key=lambda one: one[1])):
        waiting += size
        if index >= requests or waiting > items:
            over.append(sweep_id)
    return over


def _sizes(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return the open sweeps of named items, and how many items each still has."""
    return connection.execute(
        """SELECT w.sweep_id, count(s.item_id) FROM sweeps w
           LEFT JOIN sweep_items s ON s.sweep_id = w.sweep_id AND s.state = 'todo'
           WHERE w.ended_at IS NULL AND NOT w.is_catalogue GROUP BY w.sweep_id"""
    ).fetchall()


def accept_removals(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Let an open sweep remove whatever it does not find."""
    connection.execute("UPDATE sweeps SET accepts_removals = 1 WHERE sweep_id = ?", (sweep_id,))


def open_catalogue_sweep(connection: sqlite3.Connection) -> tuple[int, SweepCause] | None:
    """Return the sweep of the whole mirrored catalogue that has not ended."""
    row: tuple[int, SweepCause] | None = connection.execute(
        "SELECT sweep_id, cause FROM sweeps WHERE ended_at IS NULL AND is_catalogue = 1"
    ).fetchone()
    return row


def drop(connection: sqlite3.Connection, sweep_id: int, lift: Resolve, now: datetime) -> None:
    """Forget an open sweep."""
    missing_variants.give_up(connection, sweep_id, lift, now)
    connection.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    connection.execute("DELETE FROM sweeps WHERE sweep_id = ?", (sweep_id,))


def any_ready(connection: sqlite3.Connection) -> bool:
    """Tell whether `finish` would end one."""
    return connection.execute(f"{_READY} LIMIT 1").fetchone() is not None


def finish(
    connection: sqlite3.Connection, now: datetime, resolve: Callable[[int], None]
) -> list[SweepSummary]:
    """End every open sweep that has nothing left to list or to read.

    `resolve` decides about what the sweep of that id did not find.
    """
    ended = []
    for (sweep_id,) in connection.execute(_READY).fetchall():
        resolve(sweep_id)
        ended.append(_end(connection, sweep_id, now, error=""))
    return ended


def fail(
    connection: sqlite3.Connection,
    now: datetime,
    error: str,
    lift: Resolve,
    only: Sequence[int] | None = None,
) -> list[SweepSummary]:
    """End every open sweep, or `only` those, as failed."""
    ended = []
    if only is None:
        found = connection.execute("SELECT sweep_id FROM sweeps WHERE ended_at IS NULL")
        only = [row[0] for row in found.fetchall()]
    for sweep_id in only:
        missing_variants.give_up(connection, sweep_id, lift, now)
        ended.append(_end(connection, sweep_id, now, error=error))
    return ended


def progress(connection: sqlite3.Connection, sweep_id: int) -> SweepProgress | None:
    """Return how far an open sweep is."""
    row = connection.execute(
        """SELECT w.began_at, CASE WHEN w.is_listing THEN w.position END, count(s.item_id),
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
        position = sweep_pages.position_of(position_text)
        if position.count is not None:
            missing = max(0, position.count - (position.page - 1) * _PAGE_ITEMS)
            total = listed_so_far + missing
            remaining += missing + missing // _PAGE_ITEMS + 1
    return SweepProgress(sweep_id, from_text(began_at), checked, total, remaining)


def summary(connection: sqlite3.Connection, sweep_id: int) -> SweepSummary | None:
    """Return what an ended sweep did."""
    row = connection.execute(
        """SELECT is_catalogue, began_at, result, items, variants, changed, added, removed, missed,
                  calls, throttled, ended_at, failed_items, error, removals_held
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
        held=row[14],
    )


def close_unplaced(
    connection: sqlite3.Connection,
    began_at: datetime,
    judge: Callable[[dict[int, VariantState]], ChangeSet],
    now: datetime,
) -> None:
    """After a whole sweep: what it did not find is in no item of the mirrored catalogue."""
    states = rows.all_variants(connection, "v.item_id IS NULL")
    rows.write_observed(connection, judge(states), now)
    connection.execute(
        """UPDATE unplaced_variants SET not_found_at = ?
           WHERE not_found_at IS NULL AND delivered_at <= ?""",
        (to_text(now), to_text(began_at)),
    )


def has_unplaced_variants(connection: sqlite3.Connection) -> bool:
    """Tell whether there are variants that only a sweep of the catalogue can place."""
    row = connection.execute(
        "SELECT 1 FROM unplaced_variants WHERE not_found_at IS NULL"
    ).fetchone()
    return row is not None


def _end(
    connection: sqlite3.Connection, sweep_id: int, now: datetime, *, error: str
) -> SweepSummary:
    """End one sweep; `error`: why it ends too soon."""
    left = connection.execute(
        """SELECT item_id, error FROM sweep_items
           WHERE sweep_id = ? AND (state = 'failed' OR (? AND state = 'todo')) ORDER BY item_id""",
        (sweep_id, bool(error)),
    ).fetchall()
    faults = [error] if error else _faults(connection, sweep_id, left)
    read = connection.execute("SELECT items FROM sweeps WHERE sweep_id = ?", (sweep_id,))
    result = "complete"
    if faults:
        # What was read is in the mirror: only a sweep that could read nothing at all has failed.
        is_whole_failure = (error or left) and read.fetchone()[0] == 0
        result = "failed" if is_whole_failure else "partial"
    connection.execute(
        """UPDATE sweeps SET ended_at = ?, is_listing = 0, result = ?, failed_items = ?, error = ?
           WHERE sweep_id = ?""",
        (to_text(now), result, rows.as_json(row[0] for row in left), "; ".join(faults), sweep_id),
    )
    _forget_unknown(connection, sweep_id)
    connection.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    ended = summary(connection, sweep_id)
    if ended is None:
        raise sqlite3.ProgrammingError("a sweep that was ended has ended")
    return ended


def _forget_unknown(connection: sqlite3.Connection, sweep_id: int) -> None:
    """Delete items of a sweep that Dreamship never showed: anybody may invent ids."""
    connection.execute(
        """DELETE FROM items WHERE name IS NULL AND (is_gone OR confirmed_at IS NULL)
               AND item_id IN (SELECT item_id FROM sweep_items WHERE sweep_id = ?1)
               AND NOT EXISTS (SELECT 1 FROM variants v WHERE v.item_id = items.item_id)
               AND NOT EXISTS (SELECT 1 FROM refresh_queue q WHERE q.item_id = items.item_id)
               AND item_id NOT IN
                   (SELECT s.item_id FROM sweeps w JOIN sweep_items s ON s.sweep_id = w.sweep_id
                    WHERE w.ended_at IS NULL AND w.sweep_id != ?1)""",
        (sweep_id,),
    )


def _faults(
    connection: sqlite3.Connection, sweep_id: int, left: Sequence[tuple[int, str | None]]
) -> list[str]:
    """Return why a sweep that came to its end is not complete; nothing if it is."""
    held, position_text, is_catalogue = connection.execute(
        "SELECT removals_held, position, is_catalogue FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    faults = []
    if held:
        faults.append(f"{held} variants were not found; so many are not removed without you")
    if position_text is not None:
        position = sweep_pages.position_of(position_text)
        faults += position.faults
        if position.is_unsure and not position.faults:
            faults.append("the list moved each time it was read, or came from a cache")
    if left:
        item_id, why = left[0]
        count = "1 item" if len(left) == 1 else f"{len(left)} items"
        faults.append(f"{count} could not be read, item {item_id}: {why or 'it was not answered'}")
    if not is_catalogue:
        gone = connection.execute(
            """SELECT s.item_id FROM sweep_items s JOIN items i ON i.item_id = s.item_id
               WHERE s.sweep_id = ? AND i.is_gone = 1 ORDER BY 1 LIMIT 20""",
            (sweep_id,),
        ).fetchall()
        if gone:
            faults.append(f"Dreamship has no item {', '.join(str(row[0]) for row in gone)}")
    return faults
