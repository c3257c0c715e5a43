"""Deliveries: load what is stored about a batch, apply the batch, and save the result."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.apply_deliveries import apply_deliveries
from syncd.core.model import Delivery
from syncd.core.payload import TEST_ACTION, content_key
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult
from syncd.core.timestamps import maybe_text, to_text
from syncd.store import rows


def apply(
    db: sqlite3.Connection,
    batch: Sequence[Delivery],
    policy: Policy,
    *,
    now: datetime,
    source_now: datetime,
    missed_grace: timedelta,
) -> list[DeliveryResult]:
    """Apply a batch of authentic deliveries, and return the result of each.

    A change that a read found within `missed_grace` is not missed if a delivery of it arrives now.
    """
    snapshot = load(db, batch, now - missed_grace)
    change_set = apply_deliveries(snapshot, batch, policy, now=now, source_now=source_now)
    results = _save_deliveries(db, change_set.results)
    save(db, change_set, now)
    arrived = [one.arrived_at for one in batch if one.action != TEST_ACTION]
    if arrived:
        rows.put_state(db, "last_delivery_at", to_text(arrived[-1]))
    return results


def load(
    db: sqlite3.Connection, batch: Sequence[Delivery], missed_since: datetime
) -> BatchSnapshot:
    """Return what is stored about the variants and items of a batch.

    `missed_since`: a late delivery can explain a missed change that was recorded since then.
    """
    updates = [delivery.update for delivery in batch if delivery.update is not None]
    mentions = [delivery.mention for delivery in batch if delivery.mention is not None]
    variant_ids = {update.variant_id for update in updates}
    variant_ids.update(*(mention.variant_ids for mention in mentions))
    variants = rows.variants_by_id(db, variant_ids)
    for item_id in {one for mention in mentions for one in mention.unclear_item_ids}:
        variants |= rows.variants_of_item(db, item_id)
    item_ids = {update.item_id for update in updates if update.item_id is not None}
    item_ids.update(*(mention.item_ids for mention in mentions))
    item_ids |= {state.item_id for state in variants.values() if state.item_id is not None}
    ids = rows.as_json(variant_ids)
    snapshot = BatchSnapshot(
        variants=variants,
        items=rows.items_by_id(db, item_ids),
        stored_keys=_stored_keys(db, batch),
        not_in_catalog={
            row[0]
            for row in db.execute(
                """SELECT u.variant_id FROM json_each(?) j JOIN unplaced_variants u
                   ON u.variant_id = j.value WHERE u.not_found_at IS NOT NULL""",
                (ids,),
            )
        },
    )
    for variant_id, seq, value in db.execute(
        """SELECT c.variant_id, c.seq, c.availability FROM json_each(?) j JOIN change_log c
           ON c.variant_id = j.value AND c.missed = 1 WHERE c.recorded_at >= ?""",
        (ids, to_text(missed_since)),
    ):
        snapshot.missed.setdefault(variant_id, []).append((seq, value))
    return snapshot


def save(db: sqlite3.Connection, change_set: ChangeSet, now: datetime) -> None:
    """Save what a batch changes, except for the deliveries themselves."""
    rows.save(db, change_set, now)
    db.executemany(
        """INSERT INTO unplaced_variants (variant_id, delivered_at) VALUES (?, ?)
           ON CONFLICT (variant_id) DO UPDATE SET delivered_at = excluded.delivered_at,
               not_found_at = NULL""",
        [(variant_id, to_text(now)) for variant_id in change_set.unplaced_variants],
    )
    if change_set.explained_misses:
        db.execute(
            "UPDATE change_log SET missed = 0 WHERE seq IN (SELECT value FROM json_each(?))",
            (rows.as_json(change_set.explained_misses),),
        )


def unique_key(result: DeliveryResult) -> tuple[int | None, str, str]:
    """Return the key that no other stored delivery has, in the order of the index."""
    return (_variant_id(result.delivery), *result.key)


def item_id(delivery: Delivery) -> int | None:
    """Return the item of a delivery, if the delivery names exactly one."""
    if delivery.update is not None:
        return delivery.update.item_id
    named = () if delivery.mention is None else delivery.mention.item_ids
    return named[0] if len(named) == 1 else None


def named_variants(delivery: Delivery) -> str | None:
    """Return the variants that a body names without being understood, as a JSON list."""
    mention = delivery.mention
    return rows.as_json(mention.variant_ids) if mention and mention.variant_ids else None


def _stored_keys(db: sqlite3.Connection, batch: Sequence[Delivery]) -> set[tuple[str, str]]:
    arrived = {(_variant_id(one), one.event_id, content_key(one)) for one in batch}
    # SQLite cannot compare the content key: its JSON functions end a text at the first NUL.
    stored = db.execute(
        """SELECT d.variant_id, d.event_id, d.content_key FROM json_each(?) j JOIN deliveries d
           ON d.variant_id IS json_extract(j.value, '$[0]')
              AND d.event_id = json_extract(j.value, '$[1]')""",
        (rows.as_json({one[:2] for one in arrived}),),
    )
    return {one[1:] for one in arrived & set(stored)}


def _save_deliveries(
    db: sqlite3.Connection, results: Sequence[DeliveryResult]
) -> list[DeliveryResult]:
    """Store the deliveries; return the results with the number of each stored delivery."""
    copies = [one for one in results if one.is_copy]
    db.executemany(
        """INSERT INTO deliveries (event_id, content_key, received_at, event_at, action, variant_id,
               item_id, outcome, rule, reason, body, named_variants)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [_row(one) for one in results if not one.is_copy],
    )
    # There is one writer, so the numbers of one statement are consecutive.
    last_id = db.execute("SELECT last_insert_rowid()").fetchone()[0]
    numbers = itertools.count(last_id - (len(results) - len(copies)) + 1)
    if copies:
        # A copy that counts as a new event (equal bytes without a uuid) has an outcome of its own.
        db.executemany(
            """UPDATE deliveries SET duplicates = duplicates + 1,
                   outcome = CASE WHEN ?1 = 'duplicate' THEN outcome ELSE ?1 END,
                   rule = coalesce(?2, rule)
               WHERE variant_id IS ?3 AND event_id = ?4 AND content_key = ?5""",
            [(one.outcome, one.rule, *unique_key(one)) for one in copies],
        )
    return [
        replace(one, delivery_id=_number(db, one) if one.is_copy else next(numbers))
        for one in results
    ]


def _number(db: sqlite3.Connection, copy: DeliveryResult) -> int:
    row = db.execute(
        """SELECT delivery_id FROM deliveries
           WHERE variant_id IS ? AND event_id = ? AND content_key = ?""",
        unique_key(copy),
    ).fetchone()
    return int(row[0])


def _variant_id(delivery: Delivery) -> int | None:
    return None if delivery.update is None else delivery.update.variant_id


def _row(result: DeliveryResult) -> tuple[object, ...]:
    delivery, update = result.delivery, result.delivery.update
    # A body that is not about a mirrored variant may be an order, with personal data.
    body = None if result.outcome == "ignored" else delivery.body
    return (
        *result.key,
        to_text(delivery.arrived_at),
        None if update is None else maybe_text(update.event_at),
        delivery.action,
        _variant_id(delivery),
        item_id(delivery),
        result.outcome,
        result.rule,
        delivery.quarantined,
        body,
        named_variants(delivery),
    )
