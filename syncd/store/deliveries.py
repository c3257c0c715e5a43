"""Deliveries: load what is stored about a batch, apply the batch, and save the result."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.apply_deliveries import apply_deliveries
from syncd.core.model import Delivery
from syncd.core.payload import TEST_ACTION
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult
from syncd.core.timestamps import maybe_text, to_text
from syncd.store import catch_up, chains, rows
from syncd.store.chains import Heads
from syncd.store.views import LAST_DELIVERY_AT


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
    if any(one.is_copy or one.delivery.action == TEST_ACTION for one in change_set.results):
        _save_last_arrival(db, batch)
    heads = chains.heads(db, change_set.variants)
    results = _save_deliveries(db, change_set.results, snapshot.stored_keys, heads)
    if change_set.explained_misses:
        catch_up.note_late(db, change_set.explained_misses, now, policy.settle)
    save(db, change_set, now, heads)
    _count_copies(db, [result for result in results if result.is_copy])
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
        stored_keys=_stored_keys(db, batch, variants),
        not_in_catalog=_not_in_catalog(db, variant_ids - variants.keys()),
    )
    for variant_id, seq, value in db.execute(
        """SELECT c.variant_id, c.seq, c.availability FROM json_each(?) j JOIN change_log c
           ON c.variant_id = j.value AND c.missed = 1 WHERE c.recorded_at >= ?""",
        (ids, to_text(missed_since)),
    ):
        snapshot.missed.setdefault(variant_id, []).append((seq, value))
    return snapshot


def save(
    db: sqlite3.Connection,
    change_set: ChangeSet,
    now: datetime,
    heads: Mapping[int, Heads] | None = None,
) -> None:
    """Save what a batch changes, except for the deliveries themselves."""
    rows.save(db, change_set, now, heads)
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


def variant_id(delivery: Delivery) -> int | None:
    """Return the variant that a delivery updates, if it updates one."""
    return None if delivery.update is None else delivery.update.variant_id


def item_id(delivery: Delivery) -> int | None:
    """Return the item of a delivery, if the delivery names exactly one."""
    if delivery.update is not None:
        return delivery.update.item_id
    named = () if delivery.mention is None else delivery.mention.item_ids
    return named[0] if len(named) == 1 else None


def named_variants(delivery: Delivery) -> str | None:
    """Return the variants that a body names without a value, as a JSON list."""
    mention = delivery.mention
    return rows.as_json(mention.variant_ids) if mention and mention.variant_ids else None


def _not_in_catalog(db: sqlite3.Connection, unknown: Collection[int]) -> set[int]:
    if not unknown:
        return set()
    found = db.execute(
        """SELECT u.variant_id FROM json_each(?) j JOIN unplaced_variants u
           ON u.variant_id = j.value WHERE u.not_found_at IS NOT NULL""",
        (rows.as_json(unknown),),
    )
    return {row[0] for row in found}


def _stored_keys(
    db: sqlite3.Connection, batch: Sequence[Delivery], stored: Collection[int]
) -> dict[tuple[str, str], int]:
    """Return ids of stored deliveries by their keys, as far as a copy may be in this batch.

    `stored`: the variants of the batch that the mirror has. Their deliveries are in chains.
    """
    chained: set[tuple[int, str]] = set()
    others: set[tuple[int | None, str]] = set()
    for one in batch:
        of_variant = variant_id(one)
        if of_variant is not None and of_variant in stored:
            chained.add((of_variant, one.event_id))
        else:
            others.add((of_variant, one.event_id))
    # SQLite does not compare the content keys: its JSON functions end a text at the first NUL.
    found = chains.stored_copies(db, chained) if chained else []
    if others:
        found += db.execute(
            """SELECT d.delivery_id, d.event_id, d.content_key
               FROM json_each(?) j JOIN deliveries d ON d.rule IS NULL
                   AND d.variant_id IS json_extract(j.value, '$[0]')
                   AND d.event_id = json_extract(j.value, '$[1]')""",
            (rows.as_json(others),),
        ).fetchall()
    return {(event_id, key): delivery_id for delivery_id, event_id, key in found}


def _save_deliveries(
    db: sqlite3.Connection,
    results: Sequence[DeliveryResult],
    stored_keys: Mapping[tuple[str, str], int],
    heads: Mapping[int, Heads],
) -> list[DeliveryResult]:
    """Store the deliveries; return the results with the id of each stored delivery."""
    ids = dict(stored_keys)
    added: list[tuple[object, ...]] = []
    numbered: list[DeliveryResult] = []
    next_id = chains.next_delivery_id(db)
    for result in results:
        if not result.is_copy:
            ids[result.key] = next_id
            added.append((next_id, _chained(result, next_id, heads), *_row(result)))
            next_id += 1
        numbered.append(replace(result, delivery_id=ids[result.key]))
    db.executemany(
        """INSERT INTO deliveries (delivery_id, previous_delivery_id, event_id, content_key,
               received_at, event_at, action, variant_id, item_id, outcome, rule, reason, body,
               named_variants)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        added,
    )
    return numbered


def _chained(result: DeliveryResult, delivery_id: int, heads: Mapping[int, Heads]) -> int | None:
    """Make a delivery the head of the chain of its variant; return the delivery before it."""
    of_variant = variant_id(result.delivery)
    if of_variant is None or result.rule is None:
        return None
    head = heads[of_variant]
    previous, head.delivery_id = head.delivery_id, delivery_id
    return previous


def _count_copies(db: sqlite3.Connection, copies: Sequence[DeliveryResult]) -> None:
    # A copy that counts as a new event (equal bytes without a uuid) has its own outcome.
    db.executemany(
        """UPDATE deliveries SET duplicates = duplicates + 1,
               outcome = CASE WHEN ?1 = 'duplicate' THEN outcome ELSE ?1 END,
               rule = coalesce(?2, rule)
           WHERE delivery_id = ?3""",
        [(one.outcome, one.rule, one.delivery_id) for one in copies],
    )
    for one in copies:
        of_variant = variant_id(one.delivery)
        if of_variant is not None and one.rule is not None:
            chains.insert_delivery(db, of_variant, one.delivery_id)


def _save_last_arrival(db: sqlite3.Connection, batch: Sequence[Delivery]) -> None:
    """Store when the last delivery arrived: the newest row of this batch may not show it."""
    arrivals = [to_text(one.arrived_at) for one in batch if one.action != TEST_ACTION]
    (stored,) = db.execute(LAST_DELIVERY_AT).fetchone()
    if arrivals or stored is not None:
        rows.put_state(db, "last_delivery_at", max([*arrivals, stored or ""]))


def _row(result: DeliveryResult) -> tuple[object, ...]:
    delivery, update = result.delivery, result.delivery.update
    # A body that is not about a mirrored variant may be an order, with personal data.
    body = None if result.outcome == "ignored" else delivery.body
    return (
        *result.key,
        to_text(delivery.arrived_at),
        None if update is None else maybe_text(update.event_at),
        delivery.action,
        variant_id(delivery),
        item_id(delivery),
        result.outcome,
        result.rule,
        delivery.quarantined,
        body,
        named_variants(delivery),
    )
