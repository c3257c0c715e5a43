"""How sweeps end, and their results."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from syncd.core.jobs import SweepSummary
from syncd.core.policy import Policy
from syncd.core.timestamps import from_text, to_text
from syncd.store import missing_variants, rows, sweep_pages
from syncd.store.sweeps import open_requests

_READY = """SELECT sweep_id FROM sweeps w WHERE ended_at IS NULL AND is_listing = 0 AND NOT EXISTS
    (SELECT 1 FROM sweep_items s WHERE s.sweep_id = w.sweep_id AND s.state = 'todo'
     AND s.item_id NOT IN (SELECT value FROM json_each(?)))"""


def any_ready(db: sqlite3.Connection, read: Collection[int]) -> bool:
    """Return whether `finish` has a sweep to end, once the reads of some items are written."""
    return bool(db.execute(_READY, (rows.as_json(read),)).fetchall())


def finish(
    db: sqlite3.Connection, now: datetime, policy: Policy, categories: tuple[int, ...]
) -> list[SweepSummary]:
    """End each open sweep that has no page and no item left to read.

    A sweep whose list changed while it was read lists `categories` again instead.
    """
    sweep_pages.list_again(db, categories)
    ended = []
    for (sweep_id,) in db.execute(_READY, ("[]",)).fetchall():
        missing_variants.finish_missing(db, sweep_id, policy, now)
        ended.append(_end(db, sweep_id, now, error=""))
    return ended


def fail(
    db: sqlite3.Connection,
    now: datetime,
    policy: Policy,
    error: str,
    only: Sequence[int] | None = None,
) -> list[SweepSummary]:
    """End each open sweep, or `only` these, as failed."""
    ended = []
    if only is None:
        found = db.execute("SELECT sweep_id FROM sweeps WHERE ended_at IS NULL")
        only = [row[0] for row in found.fetchall()]
    for sweep_id in only:
        missing_variants.requeue_missing(db, sweep_id, policy, now)
        ended.append(_end(db, sweep_id, now, error=error))
    return ended


def fail_excess(
    db: sqlite3.Connection, now: datetime, policy: Policy, *, requests: int, items: int
) -> list[SweepSummary]:
    """End the largest sweeps of named items, beyond these limits, as failed."""
    error = f"it named too many items; {items} items of {requests} requests may wait"
    return fail(db, now, policy, error, _excess(db, requests, items))


def _excess(db: sqlite3.Connection, requests: int, items: int) -> list[int]:
    """Return the largest sweeps of named items, beyond this number of requests and items."""
    over, waiting = [], 0
    for index, (sweep_id, size) in enumerate(sorted(open_requests(db), key=lambda one: one[1])):
        waiting += size
        if index >= requests or waiting > items:
            over.append(sweep_id)
    return over


def is_filled(db: sqlite3.Connection) -> bool:
    """Return whether a sweep of the catalogue has ever ended."""
    row = db.execute(
        "SELECT 1 FROM sweeps WHERE is_catalogue = 1 AND ended_at IS NOT NULL LIMIT 1"
    ).fetchone()
    return row is not None


def summary(db: sqlite3.Connection, sweep_id: int) -> SweepSummary | None:
    """Return the results of an ended sweep."""
    row = db.execute(
        """SELECT is_catalogue, began_at, result, items, variants, changed, added, removed, missed,
                  calls, throttled, ended_at, failed_items, error, removals_held, is_paced
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
        removals_held=row[14],
        is_paced=bool(row[15]),
    )


def _end(db: sqlite3.Connection, sweep_id: int, now: datetime, *, error: str) -> SweepSummary:
    """End one sweep; `error` is the reason if it ends too soon."""
    left = db.execute(
        """SELECT item_id, error FROM sweep_items
           WHERE sweep_id = ? AND (state = 'failed' OR (? AND state = 'todo')) ORDER BY item_id""",
        (sweep_id, bool(error)),
    ).fetchall()
    errors = [error] if error else _errors(db, sweep_id, left)
    read = db.execute("SELECT items FROM sweeps WHERE sweep_id = ?", (sweep_id,))
    result = "complete"
    if errors:
        # The items that were read are stored, so only a sweep that could read none has failed.
        is_whole_failure = (error or left) and read.fetchone()[0] == 0
        result = "failed" if is_whole_failure else "partial"
    db.execute(
        """UPDATE sweeps SET ended_at = ?, is_listing = 0, result = ?, failed_items = ?, error = ?
           WHERE sweep_id = ?""",
        (to_text(now), result, rows.as_json(row[0] for row in left), "; ".join(errors), sweep_id),
    )
    _delete_invented_items(db, sweep_id)
    db.execute("DELETE FROM sweep_items WHERE sweep_id = ?", (sweep_id,))
    ended = summary(db, sweep_id)
    if ended is None:
        raise sqlite3.ProgrammingError("an ended sweep has a summary")
    return ended


def _delete_invented_items(db: sqlite3.Connection, sweep_id: int) -> None:
    """Delete the items of a sweep that Dreamship never showed: a request may name any id."""
    db.execute(
        """DELETE FROM items WHERE name IS NULL AND (is_gone OR confirmed_at IS NULL)
               AND item_id IN (SELECT item_id FROM sweep_items WHERE sweep_id = ?1)
               AND NOT EXISTS (SELECT 1 FROM variants v WHERE v.item_id = items.item_id)
               AND NOT EXISTS (SELECT 1 FROM refresh_queue q WHERE q.item_id = items.item_id)
               AND item_id NOT IN
                   (SELECT s.item_id FROM sweeps w JOIN sweep_items s ON s.sweep_id = w.sweep_id
                    WHERE w.ended_at IS NULL AND w.sweep_id != ?1)""",
        (sweep_id,),
    )


def _errors(
    db: sqlite3.Connection, sweep_id: int, left: Sequence[tuple[int, str | None]]
) -> list[str]:
    """Return the reasons why a sweep is not complete; no reason if it is."""
    held, position_text, is_catalogue = db.execute(
        "SELECT removals_held, position, is_catalogue FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    errors = []
    if held:
        errors.append(f"{held} variants were not found; that many are not removed automatically")
    if position_text is not None:
        position = sweep_pages.position_of(position_text)
        errors += position.errors
        if position.is_unsure and not position.errors:
            errors.append("the list changed during each reading, or came from a cache")
    if left:
        item_id, reason = left[0]
        count = "1 item" if len(left) == 1 else f"{len(left)} items"
        errors.append(
            f"{count} could not be read, item {item_id}: {reason or 'it was not answered'}"
        )
    if not is_catalogue:
        gone = db.execute(
            """SELECT s.item_id FROM sweep_items s JOIN items i ON i.item_id = s.item_id
               WHERE s.sweep_id = ? AND i.is_gone = 1 ORDER BY 1 LIMIT 20""",
            (sweep_id,),
        ).fetchall()
        if gone:
            errors.append(f"Dreamship has no item {', '.join(str(row[0]) for row in gone)}")
    return errors
