"""Finished reads into the mirror."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from syncd.core.apply_read import is_no_evidence
from syncd.core.model import ItemRead
from syncd.core.policy import Policy
from syncd.core.records import Change, ChangeSet, ItemSnapshot, VariantState, count
from syncd.core.removals import count_missing, shows_every_variant
from syncd.core.timestamps import from_text, maybe_text, to_text
from syncd.store import missing_variants, rows

Judge = Callable[[ItemSnapshot], ChangeSet]


def record(
    connection: sqlite3.Connection, seen: ItemRead, judge: Judge, policy: Policy, now: datetime
) -> ChangeSet:
    """Judge one finished read, write what it says and tick it off wherever it was asked for.

    A row of a list that may lack variants is no read of its item, which is asked by itself: only
    what the row shows is written.
    """
    before = rows.items_by_id(connection, [seen.item_id]).get(seen.item_id)
    told = rows.as_json(v.variant_id for v in seen.variants or ())
    began_at = to_text(seen.began_at)
    variants = known_variants(connection, seen)
    known = ItemSnapshot(
        variants=variants,
        item=before,
        absence_mode=missing_variants.mode(
            connection,
            seen.item_id,
            began_at,
            absent=count_missing(variants, seen),
            blocks_removals=policy.blocks_removals,
            now=now,
        ),
        unplaced_deliveries=_heard(connection, told),
    )
    writes = judge(known)
    if is_no_evidence(known, seen):
        rows.write_observed(connection, writes, now)
        return writes
    shows_all = shows_every_variant(known, seen)
    is_read = shows_all or not seen.is_row
    if is_read:
        _answer(connection, seen.item_id, began_at)
    rows.write_observed(connection, writes, now)
    if not shows_all:
        _write_part_of_item(connection, seen)
    elif before is None or before.confirmed_at is None or before.confirmed_at <= seen.began_at:
        _write_item(connection, seen)
    connection.execute(
        """DELETE FROM unplaced_variants WHERE variant_id IN
               (SELECT j.value FROM json_each(?) j JOIN variants v ON v.variant_id = j.value)""",
        (told,),
    )
    if is_read:
        sweeps = _tick_off(connection, seen, "done" if shows_all else "failed")
        _count_in(connection, sweeps, writes.changes, items=1, variants=len(seen.variants or ()))
    else:
        sweeps = _waiting_for(connection, seen)
        _count_in(connection, sweeps, writes.changes, items=0, variants=0)
    return writes


def _answer(connection: sqlite3.Connection, item_id: int, began_at: str) -> None:
    """Take off the queue what a read begun then has answered; the rest is due once, for all."""
    connection.execute(
        "DELETE FROM refresh_queue WHERE item_id = ? AND final_at <= ?", (item_id, began_at)
    )
    # A doubt raised after the request left was not asked by it.
    connection.execute(
        """UPDATE refresh_queue SET settle_at = final_at,
               urgent_at = CASE WHEN urgent_at > ?2 THEN urgent_at END
           WHERE item_id = ?1""",
        (item_id, began_at),
    )


def _heard(connection: sqlite3.Connection, variant_ids: str) -> dict[int, datetime]:
    found = connection.execute(
        """SELECT u.variant_id, u.delivered_at FROM json_each(?) j JOIN unplaced_variants u
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
    """Return every item that is not gone, or gone and has variants left that are not.

    An id that somebody named, and that Dreamship has never shown, is not known.
    """
    rows_of_items = connection.execute(
        """SELECT item_id FROM items i
           WHERE (is_gone = 0 AND (confirmed_at IS NOT NULL OR name IS NOT NULL)) OR EXISTS
               (SELECT 1 FROM variants v WHERE v.item_id = i.item_id AND v.value IS NOT NULL)"""
    )
    return [row[0] for row in rows_of_items]


def failed(
    connection: sqlite3.Connection,
    item_id: int,
    not_before: datetime,
    error: str,
    give_up_after: int,
) -> None:
    """Put one item off after a failed read; a sweep goes on without it after some tries."""
    put_off(connection, item_id, not_before)
    connection.execute(
        """UPDATE sweep_items SET attempts = attempts + 1, error = ?,
               state = CASE WHEN attempts + 1 >= ? THEN 'failed' ELSE state END
           WHERE item_id = ? AND state = 'todo'
             AND sweep_id IN (SELECT sweep_id FROM sweeps WHERE ended_at IS NULL)""",
        (error, give_up_after, item_id),
    )


def put_off(connection: sqlite3.Connection, item_id: int, not_before: datetime) -> None:
    """Have one item read after others, and not before that moment."""
    connection.execute(
        "UPDATE items SET attempts = attempts + 1, not_before = ? WHERE item_id = ?",
        (to_text(not_before), item_id),
    )


def _write_item(connection: sqlite3.Connection, seen: ItemRead) -> None:
    connection.execute(
        """INSERT INTO items (item_id, name, confirmed_at, read_at, is_gone, is_read)
           VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), confirmed_at = excluded.confirmed_at,
               read_at = coalesce(excluded.read_at, read_at),
               is_gone = excluded.is_gone, is_read = max(is_read, excluded.is_read),
               attempts = 0, not_before = NULL""",
        (
            seen.item_id,
            seen.name,
            to_text(seen.began_at),
            maybe_text(seen.source_at),
            seen.variants is None,
            not seen.is_row,
        ),
    )


def _write_part_of_item(connection: sqlite3.Connection, seen: ItemRead) -> None:
    """Note an item of which not every variant was read: it does not confirm the others."""
    connection.execute(
        """INSERT INTO items (item_id, name) VALUES (?1, ?2)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), is_gone = 0,
               attempts = CASE WHEN ?3 THEN attempts ELSE 0 END,
               not_before = CASE WHEN ?3 THEN not_before END""",
        # A row is no answer of the item itself, which may go on failing.
        (seen.item_id, seen.name, seen.is_row),
    )


def _tick_off(
    connection: sqlite3.Connection, seen: ItemRead, state: Literal["done", "failed"]
) -> list[int]:
    """Note in every open sweep that an item was read; return the sweeps that waited for it.

    "failed": it was not read whole, and the sweep names it.
    """
    sweeps = [
        row[0]
        for row in connection.execute(
            """UPDATE sweep_items SET state = ?1, error = 'some variants could not be read'
               WHERE item_id = ?2 AND state NOT IN ('done', ?1)
                 AND sweep_id IN (SELECT sweep_id FROM sweeps
                                  WHERE ended_at IS NULL AND began_at <= ?3)
               RETURNING sweep_id""",
            (state, seen.item_id, to_text(seen.began_at)),
        )
    ]
    if seen.variants is None:
        # It was listed and is gone: others may have slid into its place on a page already read.
        connection.executemany(
            """UPDATE sweeps SET listing_changed = 1 WHERE sweep_id = ?1 AND EXISTS
                   (SELECT 1 FROM sweep_items s
                    WHERE s.sweep_id = ?1 AND s.item_id = ?2 AND s.run > 0)""",
            [(sweep_id, seen.item_id) for sweep_id in sweeps],
        )
    return sweeps


def _waiting_for(connection: sqlite3.Connection, seen: ItemRead) -> list[int]:
    """Return the open sweeps that still have to read an item."""
    found = connection.execute(
        """SELECT s.sweep_id FROM sweep_items s JOIN sweeps w ON w.sweep_id = s.sweep_id
           WHERE s.item_id = ? AND s.state = 'todo' AND w.ended_at IS NULL AND w.began_at <= ?""",
        (seen.item_id, to_text(seen.began_at)),
    )
    return [row[0] for row in found]


def _count_in(
    connection: sqlite3.Connection,
    sweeps: list[int],
    changes: list[Change],
    *,
    items: int,
    variants: int,
) -> None:
    """Add what a read has shown and changed to the sums of these sweeps."""
    counted = count(changes)
    connection.executemany(
        """UPDATE sweeps SET items = items + ?, variants = variants + ?, changed = changed + ?,
               added = added + ?, removed = removed + ?, missed = missed + ? WHERE sweep_id = ?""",
        [
            (
                items,
                variants,
                counted.changed,
                counted.added,
                counted.removed,
                counted.missed,
                sweep_id,
            )
            for sweep_id in sweeps
        ],
    )
