"""Replays: load stored deliveries and their variants, apply them again, and save the result."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.apply_deliveries import apply_deliveries
from syncd.core.payload import parse
from syncd.core.policy import Policy
from syncd.core.records import DeliveryResult, ReplayResult
from syncd.core.timestamps import from_text, maybe_text
from syncd.store import chains, deliveries, rows


def stored_ids(db: sqlite3.Connection, ids: Collection[int]) -> set[int]:
    """Return which of these deliveries are stored."""
    found = db.execute(
        "SELECT d.delivery_id FROM json_each(?) j JOIN deliveries d ON d.delivery_id = j.value",
        (rows.as_json(ids),),
    )
    return {row[0] for row in found}


def quarantined(db: sqlite3.Connection) -> list[int]:
    """Return the ids of the quarantined deliveries, oldest first."""
    found = db.execute(
        "SELECT delivery_id FROM deliveries WHERE outcome = 'quarantined' ORDER BY delivery_id"
    )
    return [row[0] for row in found]


def apply(
    db: sqlite3.Connection,
    ids: Sequence[int],
    policy: Policy,
    *,
    now: datetime,
    source_now: datetime,
    missed_grace: timedelta,
) -> list[ReplayResult]:
    """Apply stored deliveries again, and return the result of each."""
    found = db.execute(
        """SELECT d.delivery_id, d.body, d.received_at, d.outcome, d.rule
           FROM json_each(?) j JOIN deliveries d ON d.delivery_id = j.value
           ORDER BY d.delivery_id""",
        (rows.as_json(ids),),
    ).fetchall()
    parsed = {row[0]: parse(row[1], from_text(row[2])) for row in found if row[1] is not None}
    batch = list(parsed.values())
    # Without the stored keys: each of these deliveries would be a duplicate of itself.
    snapshot = replace(deliveries.load(db, batch, now - missed_grace), stored_keys={})
    change_set = apply_deliveries(snapshot, batch, policy, now=now, source_now=source_now)
    results = dict(zip(parsed, change_set.results, strict=True))
    deliveries.save(db, change_set, now)
    for delivery_id, _, _, before, rule in found:
        result = results.get(delivery_id)
        # A first outcome stays stored, unless the delivery has more effect today.
        if result is not None and (
            before == "quarantined" or result.outcome in {"applied", "verifying"}
        ):
            _save_result(db, delivery_id, result, is_chained=rule is not None)
    return [
        ReplayResult(
            delivery_id, before, results[delivery_id].outcome if delivery_id in results else None
        )
        for delivery_id, _, _, before, _ in found
    ]


def _save_result(
    db: sqlite3.Connection, delivery_id: int, result: DeliveryResult, *, is_chained: bool
) -> None:
    """Store the new result, and add the delivery to the chain of its variant."""
    delivery, update = result.delivery, result.delivery.update
    variant_id = deliveries.variant_id(delivery)
    db.execute(
        """UPDATE deliveries SET outcome = ?, rule = ?, reason = ?, action = ?, event_at = ?,
               item_id = ?, named_variants = ?, variant_id = ?, event_id = ?, content_key = ?
           WHERE delivery_id = ?""",
        (
            result.outcome,
            result.rule,
            delivery.quarantined,
            delivery.action,
            None if update is None else maybe_text(update.event_at),
            deliveries.item_id(delivery),
            deliveries.named_variants(delivery),
            variant_id,
            *result.key,
            delivery_id,
        ),
    )
    if variant_id is not None and result.rule is not None and not is_chained:
        chains.insert_delivery(db, variant_id, delivery_id)
