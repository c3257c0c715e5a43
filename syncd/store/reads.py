"""Reads: load what is stored of an item, apply the finished read, and save the result."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from syncd.core.apply_read import apply_read, is_no_evidence, item_details
from syncd.core.model import ItemRead
from syncd.core.policy import Policy
from syncd.core.records import ChangeSet, ItemSnapshot
from syncd.core.removals import count_missing, shows_every_variant
from syncd.core.timestamps import from_text
from syncd.store import items, job_queue, missing_variants, rows


def apply(
    db: sqlite3.Connection,
    read: ItemRead,
    policy: Policy,
    *,
    now: datetime,
    accepting_since: datetime | None = None,
) -> ChangeSet:
    """Apply one finished read, and return what it changes.

    The read answers each request for the item: of deliveries, and of the open sweeps.
    """
    snapshot = _load(db, read, policy, now)
    change_set = apply_read(snapshot, read, policy, now=now, accepting_since=accepting_since)
    _save(db, snapshot, read, change_set, policy=policy, now=now)
    if any(state.missing_since is not None for state in change_set.variants.values()):
        missing_variants.block_removals(db, policy, now)
    return change_set


def save_of_unchanged(
    db: sqlite3.Connection,
    read: ItemRead,
    policy: Policy,
    *,
    now: datetime,
    accepting_since: datetime | None = None,
) -> Callable[[sqlite3.Connection], None] | None:
    """Return the function that saves a read that only confirms its item; None for any other read.

    The function is right for the state of the mirror at this moment.
    """
    snapshot = _load(db, read, policy, now)
    change_set = apply_read(snapshot, read, policy, now=now, accepting_since=accepting_since)
    if not _only_confirms(snapshot, read, change_set):
        return None
    # A damaged page of the queue must fail this read alone, and not the reads that wait with it.
    db.execute("SELECT * FROM refresh_queue WHERE item_id = ?", (read.item_id,)).fetchall()
    return lambda db: _save(db, snapshot, read, change_set, policy=policy, now=now)


def _only_confirms(snapshot: ItemSnapshot, read: ItemRead, change_set: ChangeSet) -> bool:
    """Return whether a read changes nothing that a shop sees, except the time of confirmation."""
    item = snapshot.item
    return (
        change_set == ChangeSet()
        and not read.age
        and bool(read.variants)
        and shows_every_variant(snapshot, read)
        and not snapshot.unplaced_deliveries
        and item is not None
        and not item.is_gone
        and item.confirmed_at is not None
        and item.confirmed_at <= read.began_at
        and read.name in {None, item.name}
        and item_details(snapshot, read) == item.details
    )


def _load(db: sqlite3.Connection, read: ItemRead, policy: Policy, now: datetime) -> ItemSnapshot:
    variants = items.stored_variants(db, read)
    return ItemSnapshot(
        variants=variants,
        item=rows.items_by_id(db, [read.item_id]).get(read.item_id),
        absence_mode=missing_variants.absence_mode(
            db, read, policy, missing=count_missing(variants, read), now=now
        ),
        unplaced_deliveries=_unplaced_deliveries(db, read),
    )


def _save(
    db: sqlite3.Connection,
    snapshot: ItemSnapshot,
    read: ItemRead,
    change_set: ChangeSet,
    *,
    policy: Policy,
    now: datetime,
) -> None:
    if is_no_evidence(snapshot, read):
        rows.save(db, change_set, now)
        return
    shows_all = shows_every_variant(snapshot, read)
    # A row of a list that may lack variants does not count as a read of its item. Only the
    # variants that it shows are saved, and the item itself is still to be read.
    is_read = shows_all or not read.is_row
    if is_read:
        # Before `rows.save`, which may add a new request.
        job_queue.complete(db, read)
    rows.save(db, change_set, now)
    last = None if snapshot.item is None else snapshot.item.confirmed_at
    details = item_details(snapshot, read)
    is_blocked = policy.blocks(details)
    if not shows_all:
        items.save_part(db, read, details, is_blocked=is_blocked)
    elif last is None or last <= read.began_at:
        items.save(db, read, details, is_blocked=is_blocked)
    db.execute(
        """DELETE FROM unplaced_variants WHERE variant_id IN
               (SELECT j.value FROM json_each(?) j JOIN variants v ON v.variant_id = j.value)""",
        (_variant_ids(read),),
    )
    if is_read:
        sweeps = job_queue.complete_in_sweeps(db, read, "done" if shows_all else "failed")
        counts = {"items": 1, "variants": len(read.variants or ())}
    else:
        sweeps = job_queue.sweeps_waiting_for(db, read)
        counts = {"items": 0, "variants": 0}
    job_queue.count_in_sweeps(db, sweeps, change_set.changes, **counts)


def _unplaced_deliveries(db: sqlite3.Connection, read: ItemRead) -> dict[int, datetime]:
    found = db.execute(
        """SELECT u.variant_id, u.delivered_at FROM json_each(?) j JOIN unplaced_variants u
           ON u.variant_id = j.value""",
        (_variant_ids(read),),
    )
    return {row[0]: from_text(row[1]) for row in found}


def _variant_ids(read: ItemRead) -> str:
    return rows.as_json(variant.variant_id for variant in read.variants or ())
