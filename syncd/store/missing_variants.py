"""Variants that a sweep does not find. The end of the sweep decides about all of them together."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from syncd.core.model import ItemRead
from syncd.core.policy import Policy
from syncd.core.records import AbsenceMode, VariantState
from syncd.core.removals import (
    REMOVAL_WINDOW,
    exceed_limit,
    remove_missing,
    restore_unconfirmed,
)
from syncd.core.timestamps import to_text
from syncd.store import rows


def absence_mode(
    db: sqlite3.Connection, read: ItemRead, policy: Policy, *, missing: int, now: datetime
) -> AbsenceMode:
    """Return what a read does with the variants of its item that it does not find.

    A read outside a sweep removes its `missing` variants at once, unless too many were removed
    within a day: otherwise single reads could empty a shop without an operator.
    """
    blocked: int | None
    (blocked,) = db.execute(
        # CROSS JOIN: from the few open sweeps, and not through the items of all sweeps.
        """SELECT min(w.removals_blocked)
           FROM sweeps w CROSS JOIN sweep_items s ON s.sweep_id = w.sweep_id
           WHERE s.item_id = ? AND s.state != 'done' AND w.ended_at IS NULL
             AND w.began_at <= ?""",
        (read.item_id, to_text(read.began_at)),
    ).fetchone()
    if blocked is None:
        return "record" if missing and _are_too_many(db, missing, policy, now) else "remove"
    return "record" if blocked else "mark"


def block_removals(db: sqlite3.Connection, policy: Policy, now: datetime) -> None:
    """Restore the missing variants of each open sweep that misses too many already."""
    for sweep_id, accepts in db.execute(
        """SELECT sweep_id, accepts_removals FROM sweeps
           WHERE ended_at IS NULL AND removals_blocked = 0"""
    ).fetchall():
        missing = _load(db, sweep_id)
        if missing and not accepts and _are_too_many(db, len(missing), policy, now):
            db.execute("UPDATE sweeps SET removals_blocked = 1 WHERE sweep_id = ?", (sweep_id,))
            rows.save(db, restore_unconfirmed(missing, policy, now=now), now)


def finish_missing(db: sqlite3.Connection, sweep_id: int, policy: Policy, now: datetime) -> None:
    """Remove the missing variants of a sweep at its end, or none of them if they are too many."""
    missing = _load(db, sweep_id)
    if not missing:
        return
    (accepts,) = db.execute(
        "SELECT accepts_removals FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if not accepts and _are_too_many(db, len(missing), policy, now):
        rows.save(db, restore_unconfirmed(missing, policy, now=now), now)
        db.execute(
            "UPDATE sweeps SET removals_held = ? WHERE sweep_id = ?", (len(missing), sweep_id)
        )
        return
    change_set = remove_missing(missing, policy, now=now)
    rows.save(db, change_set, now)
    if accepts:
        rows.put_state(db, "removals_accepted_at", to_text(now))
    db.execute(
        "UPDATE sweeps SET removed = removed + ? WHERE sweep_id = ?",
        (len(change_set.variants), sweep_id),
    )


def requeue_missing(db: sqlite3.Connection, sweep_id: int, policy: Policy, now: datetime) -> None:
    """Queue reads of the missing variants of a sweep that ends too soon to decide about them."""
    missing = _load(db, sweep_id)
    (blocked,) = db.execute(
        "SELECT removals_blocked FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if blocked:
        rows.save(db, restore_unconfirmed(missing, policy, now=now), now)
        return
    db.executemany(
        """INSERT INTO refresh_queue (item_id, urgent_at, settle_at, final_at)
           VALUES (?1, ?2, ?2, ?2)
           ON CONFLICT (item_id) DO UPDATE SET urgent_at = excluded.urgent_at""",
        {(state.item_id, to_text(now)) for state in missing if state.item_id is not None},
    )


def _load(db: sqlite3.Connection, sweep_id: int) -> list[VariantState]:
    """Return the variants that a sweep has not found."""
    variants = rows.variants_where(
        db,
        # By the index of missing variants, which are few: a damaged page of any other variant must
        # not prevent the end of a sweep.
        """v.missing_since >= (SELECT began_at FROM sweeps WHERE sweep_id = :sweep_id)
           AND +v.item_id IN (SELECT item_id FROM sweep_items WHERE sweep_id = :sweep_id)""",
        {"sweep_id": sweep_id},
    )
    return list(variants.values())


def _are_too_many(db: sqlite3.Connection, missing: int, policy: Policy, now: datetime) -> bool:
    """Return whether more removals, together with those of the last day, need an operator.

    Removals that an operator accepted do not count, and neither do variants that came back.
    """
    accepted_at = rows.get_state(db, "removals_accepted_at") or ""
    since = max(to_text(now - REMOVAL_WINDOW), accepted_at)
    removed = db.execute(
        """SELECT count(DISTINCT c.variant_id) FROM change_log c
           JOIN variants v ON v.variant_id = c.variant_id AND v.value IS NULL
           WHERE c.availability IS NULL AND c.recorded_at > ? AND c.cause = 'read'""",
        (since,),
    ).fetchone()[0]
    lost = missing + removed
    return exceed_limit(lost, _count_mirrored(db, at_most=100 * lost + 1) + removed, policy)


def _count_mirrored(db: sqlite3.Connection, *, at_most: int) -> int:
    """Count the variants that are not removed; a larger number makes no difference."""
    row = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM variants WHERE value IS NOT NULL LIMIT ?)", (at_most,)
    ).fetchone()
    return int(row[0])
