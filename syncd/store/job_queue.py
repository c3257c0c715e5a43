"""The queue of reads: the next read, completed requests, and postponed items."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from syncd.core.jobs import Job, JobKind
from syncd.core.model import ItemRead
from syncd.core.pagination import Position
from syncd.core.records import Change, count
from syncd.core.timestamps import maybe_from_text, to_text
from syncd.store import rows

# The condition of items that reads outside of sweeps may choose: sweeps repeat broken items. `only`
# is a list of items, or NULL. No other table is read here, because one of its pages may be damaged.
READABLE = """i.is_gone = 0 AND i.attempts = 0 AND i.confirmed_at IS NOT NULL
    AND (:only IS NULL OR i.item_id IN (SELECT value FROM json_each(:only)))"""
_PICKS: dict[JobKind, str] = {
    "conflict": """
        SELECT q.item_id, NULL, 0 FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.urgent_at <= :now AND {ready} ORDER BY q.urgent_at LIMIT 1""",
    "confirm": """
        SELECT q.item_id, NULL, 0 FROM refresh_queue q JOIN items i ON i.item_id = q.item_id
        WHERE q.settle_at <= :now AND {ready} ORDER BY q.settle_at LIMIT 1""",
    # The smallest request first: a request for one item does not wait for one for hundreds.
    "requested": """
        WITH requests AS (
            SELECT w.sweep_id, count(*) AS items FROM sweeps w
            CROSS JOIN sweep_items s ON s.sweep_id = w.sweep_id
            WHERE w.ended_at IS NULL AND NOT w.is_catalogue AND s.state = 'todo' GROUP BY 1)
        SELECT q.item_id, q.sweep_id, 0
        FROM requests r JOIN sweep_items q ON q.sweep_id = r.sweep_id
        JOIN items i ON i.item_id = q.item_id
        WHERE q.state = 'todo' AND {ready} ORDER BY r.items, r.sweep_id LIMIT 1""",
    # Through the index of the last read: in a large catalogue, the first items that it finds are
    # those of the sweep.
    "unread": """
        SELECT q.item_id, s.sweep_id, :is_paced
        FROM items q CROSS JOIN sweep_items s ON s.sweep_id = :sweep AND s.item_id = q.item_id
        CROSS JOIN items i ON i.item_id = q.item_id
        WHERE q.confirmed_at IS NULL AND s.state = 'todo' AND {ready}
          -- An item whose last read failed comes last, not first (see "stale").
          AND i.attempts = 0 LIMIT 1""",
    "stale": """
        SELECT q.item_id, s.sweep_id, :is_paced
        FROM items q CROSS JOIN sweep_items s ON s.sweep_id = :sweep AND s.item_id = q.item_id
        CROSS JOIN items i ON i.item_id = q.item_id
        WHERE s.state = 'todo' AND {ready} AND i.attempts = 0
        ORDER BY q.confirmed_at LIMIT 1""",
    "hinted": """
        SELECT q.item_id, NULL, 1 FROM list_rows q JOIN items i ON i.item_id = q.item_id
        WHERE q.changed_at IS NOT NULL AND {readable} AND {ready}
        -- The plus: from the few rows that have changed, and not through the index of all items.
        ORDER BY +i.confirmed_at LIMIT 1""",
    "background": """
        SELECT q.item_id, NULL, 1 FROM items q JOIN items i ON i.item_id = q.item_id
        WHERE q.confirmed_at <= :recent AND {readable} AND {ready}
        ORDER BY q.confirmed_at LIMIT 1""",
}
# By the id of the queue: the row of a busy item may be damaged, and then it must not be read.
_READY = """q.item_id NOT IN (SELECT value FROM json_each(:busy))
            AND (i.not_before IS NULL OR i.not_before <= :now)"""
_PICKS = {kind: sql.format(ready=_READY, readable=READABLE) for kind, sql in _PICKS.items()}
_CATALOGUE_SWEEP = """SELECT sweep_id, is_paced FROM sweeps
    WHERE ended_at IS NULL AND is_catalogue AND is_paced <= :background LIMIT 1"""
# After all others: the items of a sweep whose last read failed.
_PICK_FAILED = f"""
    SELECT q.item_id, q.sweep_id, :is_paced
    FROM sweep_items q CROSS JOIN items i ON i.item_id = q.item_id
    WHERE q.sweep_id = :sweep AND q.state = 'todo' AND {_READY}
    ORDER BY i.attempts > 0, i.confirmed_at LIMIT 1"""  # noqa: S608 - a constant


class Choice(Struct, frozen=True):
    """Which items may be read although nobody waits for them.

    `recent`: an item that was read since then is not read again in the background. `only`:
    the mirrored items, if the configuration names each one.
    """

    recent: datetime | None = None
    only: Collection[int] | None = None


def next_job(
    db: sqlite3.Connection,
    now: datetime,
    busy: Collection[int],
    order: Sequence[JobKind],
    *,
    listing: bool,
    paced: bool = False,
    rest: Sequence[JobKind] = (),
    choice: Choice | None = None,
    list_at: Position | None = None,
) -> Job | None:
    """Return a job of the first kind in `order` that has one; of a paced sweep only if `paced`.

    If there is none, return one of the first kind in `rest`, also for a background call. `listing`:
    it may be a page. `choice`: which items reads of `rest` may choose. `list_at`: the page of the
    list that is due for its rows.
    """
    choice = choice or Choice()
    values: dict[str, object] = {
        "now": to_text(now),
        "recent": to_text(choice.recent or now),
        "busy": rows.as_json(busy),
        "only": None if choice.only is None else rows.as_json(choice.only),
    }
    for background, kinds in ((paced, order), (True, rest)):
        for kind in kinds:
            if kind == "dry_run":
                continue  # the mirror does not store these
            if kind == "page":
                job = _next_page(db, background) if listing else None
            elif kind == "list":
                job = None
                if listing and list_at is not None:
                    job = Job("list", position=list_at, is_background=True)
            else:
                job = _next_item(db, kind, values | {"background": background})
            if job is not None:
                return job
    return None


def _next_item(db: sqlite3.Connection, kind: JobKind, values: dict[str, object]) -> Job | None:
    if kind in {"unread", "stale"}:
        sweep = db.execute(_CATALOGUE_SWEEP, values).fetchone()
        if sweep is None:
            return None
        values = values | {"sweep": sweep[0], "is_paced": sweep[1]}
    row = db.execute(_PICKS[kind], values).fetchone()
    if row is None and kind == "stale":
        row = db.execute(_PICK_FAILED, values).fetchone()
    if row is None:
        return None
    return Job(kind, item_id=row[0], sweep_id=row[1], is_background=bool(row[2]))


def _next_page(db: sqlite3.Connection, background: bool) -> Job | None:  # noqa: FBT001
    row = db.execute(
        """SELECT sweep_id, position, is_paced FROM sweeps
           WHERE ended_at IS NULL AND is_listing = 1 AND is_paced <= ? LIMIT 1""",
        (background,),
    ).fetchone()
    if row is None:
        return None
    position = msgspec.json.decode(row[1], type=Position)
    return Job("page", sweep_id=row[0], position=position, is_background=bool(row[2]))


def next_due_at(db: sqlite3.Connection, now: datetime) -> datetime | None:
    """Return the next time after `now` at which a read becomes due."""
    row = db.execute(
        # The first entry of each of three indexes: one min() over a union would read all rows.
        """SELECT min(at) FROM (
               SELECT (SELECT min(settle_at) FROM refresh_queue WHERE settle_at > :now) AS at
               UNION ALL
               SELECT (SELECT min(urgent_at) FROM refresh_queue WHERE urgent_at > :now)
               UNION ALL
               SELECT (SELECT min(not_before) FROM items WHERE not_before > :now))""",
        {"now": to_text(now)},
    ).fetchone()
    return maybe_from_text(row[0])


def complete(db: sqlite3.Connection, read: ItemRead) -> None:
    """Delete the request that a read answers. Unsettled deliveries get one later read."""
    began_at = to_text(read.began_at)
    db.execute(
        "DELETE FROM refresh_queue WHERE item_id = ? AND final_at <= ?", (read.item_id, began_at)
    )
    # A conflict that arose after the request left is not answered by it.
    db.execute(
        """UPDATE refresh_queue SET settle_at = final_at,
               urgent_at = CASE WHEN urgent_at > ?2 THEN urgent_at END
           WHERE item_id = ?1""",
        (read.item_id, began_at),
    )


def complete_in_sweeps(
    db: sqlite3.Connection, read: ItemRead, state: Literal["done", "failed"]
) -> list[int]:
    """Mark an item as read in each open sweep; return the sweeps that waited for it.

    "failed": the read lacks variants, and the sweep reports the item.
    """
    sweeps = [
        row[0]
        for row in db.execute(
            """UPDATE sweep_items SET state = ?1, error = 'some variants could not be read'
               WHERE item_id = ?2 AND state NOT IN ('done', ?1)
                 AND sweep_id IN (SELECT sweep_id FROM sweeps
                                  WHERE ended_at IS NULL AND began_at <= ?3)
               RETURNING sweep_id""",
            (state, read.item_id, to_text(read.began_at)),
        )
    ]
    if read.variants is None:
        # The list has the item, and it is gone: another item may have moved to a page that was
        # read before.
        db.executemany(
            """UPDATE sweeps SET listing_changed = 1 WHERE sweep_id = ?1 AND EXISTS
                   (SELECT 1 FROM sweep_items s
                    WHERE s.sweep_id = ?1 AND s.item_id = ?2 AND s.run > 0)""",
            [(sweep_id, read.item_id) for sweep_id in sweeps],
        )
    return sweeps


def sweeps_waiting_for(db: sqlite3.Connection, read: ItemRead) -> list[int]:
    """Return the open sweeps that still have to read an item."""
    found = db.execute(
        """SELECT s.sweep_id FROM sweep_items s JOIN sweeps w ON w.sweep_id = s.sweep_id
           WHERE s.item_id = ? AND s.state = 'todo' AND w.ended_at IS NULL AND w.began_at <= ?""",
        (read.item_id, to_text(read.began_at)),
    )
    return [row[0] for row in found]


def count_in_sweeps(
    db: sqlite3.Connection,
    sweeps: list[int],
    changes: list[Change],
    *,
    items: int,
    variants: int,
) -> None:
    """Add the items, variants and changes of a read to the totals of these sweeps."""
    n = count(changes)
    db.executemany(
        """UPDATE sweeps SET items = items + ?, variants = variants + ?, changed = changed + ?,
               added = added + ?, removed = removed + ?, missed = missed + ? WHERE sweep_id = ?""",
        [
            (items, variants, n.changed, n.added, n.removed, n.missed, sweep_id)
            for sweep_id in sweeps
        ],
    )


def postpone(db: sqlite3.Connection, item_id: int, not_before: datetime) -> None:
    """Read an item after others, and not before that time; its read has not failed."""
    db.execute(
        "UPDATE items SET attempts = attempts + 1, not_before = ? WHERE item_id = ?",
        (to_text(not_before), item_id),
    )


def postpone_failed(
    db: sqlite3.Connection, item_id: int, not_before: datetime, error: str, *, max_attempts: int
) -> None:
    """Postpone an item whose read failed. A sweep gives it up after `max_attempts`."""
    postpone(db, item_id, not_before)
    db.execute(
        """UPDATE sweep_items SET attempts = attempts + 1, error = ?,
               state = CASE WHEN attempts + 1 >= ? THEN 'failed' ELSE state END
           WHERE item_id = ? AND state = 'todo'
             AND sweep_id IN (SELECT sweep_id FROM sweeps WHERE ended_at IS NULL)""",
        (error, max_attempts, item_id),
    )
