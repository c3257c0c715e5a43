"""A batch of deliveries in one transaction: load what is known, judge, write."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.model import Delivery
from syncd.core.payload import TEST_ACTION, content_key
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult
from syncd.core.timestamps import maybe_text, to_text
from syncd.store import rows


def record(
    connection: sqlite3.Connection,
    batch: Sequence[Delivery],
    judge: Callable[[BatchSnapshot], ChangeSet],
    *,
    now: datetime,
    missed_grace: timedelta,
) -> list[DeliveryResult]:
    """Judge a batch against what the mirror knows and write everything it says."""
    writes = judge(snapshot(connection, batch, now - missed_grace))
    judged = _keep(connection, writes.results)
    write(connection, writes, now)
    arrived = [one.arrived_at for one in batch if one.action != TEST_ACTION]
    if arrived:
        rows.put_state(connection, "last_delivery_at", to_text(arrived[-1]))
    return judged


def write(connection: sqlite3.Connection, writes: ChangeSet, now: datetime) -> None:
    """Write what a judged batch says of variants, and which misses it explains."""
    rows.write_observed(connection, writes, now)
    _record_unplaced(connection, writes.unplaced_variants, now)
    if writes.explained_misses:
        connection.execute(
            "UPDATE change_log SET missed = 0 WHERE seq IN (SELECT value FROM json_each(?))",
            (rows.as_json(writes.explained_misses),),
        )


def snapshot(
    connection: sqlite3.Connection, batch: Sequence[Delivery], missed_since: datetime
) -> BatchSnapshot:
    """Return what the mirror knows about a batch; what it missed since then is explained by it."""
    updates = [delivery.update for delivery in batch if delivery.update is not None]
    mentions = [delivery.mention for delivery in batch if delivery.mention is not None]
    variant_ids = {update.variant_id for update in updates}
    variant_ids.update(*(mention.variant_ids for mention in mentions))
    variants = rows.variants_by_id(connection, variant_ids)
    for item_id in {one for mention in mentions for one in mention.unclear_item_ids}:
        variants |= rows.variants_of_item(connection, item_id)
    item_ids = {update.item_id for update in updates if update.item_id is not None}
    item_ids.update(*(mention.item_ids for mention in mentions))
    item_ids |= {state.item_id for state in variants.values() if state.item_id is not None}
    ids = rows.as_json(variant_ids)
    known = BatchSnapshot(
        variants=variants,
        items=rows.items_by_id(connection, item_ids),
        stored_keys=_seen(connection, batch),
        not_in_catalog={
            row[0]
            for row in connection.execute(
                """SELECT u.variant_id FROM json_each(?) j JOIN unplaced_variants u
                   ON u.variant_id = j.value WHERE u.not_found_at IS NOT NULL""",
                (ids,),
            )
        },
    )
    for variant_id, seq, value in connection.execute(
        """SELECT c.variant_id, c.seq, c.availability FROM json_each(?) j JOIN change_log c
           ON c.variant_id = j.value AND c.missed = 1 WHERE c.recorded_at >= ?""",
        (ids, to_text(missed_since)),
    ):
        known.missed.setdefault(variant_id, []).append((seq, value))
    return known


def _seen(connection: sqlite3.Connection, batch: Sequence[Delivery]) -> set[tuple[str, str]]:
    told = {(_variant_id(one), one.event_id, content_key(one)) for one in batch}
    # The content key stays out of it: SQLite's JSON ends a text at its first NUL.
    kept = connection.execute(
        """SELECT d.variant_id, d.event_id, d.content_key FROM json_each(?) j JOIN deliveries d
           ON d.variant_id IS json_extract(j.value, '$[0]')
              AND d.event_id = json_extract(j.value, '$[1]')""",
        (rows.as_json({one[:2] for one in told}),),
    )
    return {one[1:] for one in told & set(kept)}


def _keep(connection: sqlite3.Connection, judged: Sequence[DeliveryResult]) -> list[DeliveryResult]:
    """Keep what was judged; return it with the number each is kept under."""
    connection.executemany(
        """INSERT INTO deliveries (event_id, content_key, received_at, event_at, action, variant_id,
               item_id, outcome, rule, reason, body, named_variants)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [_row(one) for one in judged if not one.is_copy],
    )
    copies = [one for one in judged if one.is_copy]
    # One writer, one statement: the numbers given follow one another.
    last_id = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
    numbers = itertools.count(last_id - (len(judged) - len(copies)) + 1)
    if copies:
        # A copy that was judged as news (equal bytes, no uuid) brings its own verdict.
        connection.executemany(
            """UPDATE deliveries SET duplicates = duplicates + 1,
                   outcome = CASE WHEN ?1 = 'duplicate' THEN outcome ELSE ?1 END,
                   rule = coalesce(?2, rule)
               WHERE variant_id IS ?3 AND event_id = ?4 AND content_key = ?5""",
            [(one.outcome, one.rule, *name(one)) for one in copies],
        )
    return [
        replace(one, delivery_id=_number(connection, one) if one.is_copy else next(numbers))
        for one in judged
    ]


def _number(connection: sqlite3.Connection, copy: DeliveryResult) -> int:
    row = connection.execute(
        """SELECT delivery_id FROM deliveries
           WHERE variant_id IS ? AND event_id = ? AND content_key = ?""",
        name(copy),
    ).fetchone()
    return int(row[0])


def name(judged: DeliveryResult) -> tuple[int | None, str, str]:
    """Return what one kept delivery has alone, in the order of its index."""
    return (_variant_id(judged.delivery), *judged.key)


def _variant_id(delivery: Delivery) -> int | None:
    return None if delivery.update is None else delivery.update.variant_id


def item_id(delivery: Delivery) -> int | None:
    """Return the item that a delivery names, if it names one alone."""
    if delivery.update is not None:
        return delivery.update.item_id
    named = () if delivery.mention is None else delivery.mention.item_ids
    return named[0] if len(named) == 1 else None


def named_variants(delivery: Delivery) -> str | None:
    """Return the variants named by a body that was not understood, as a JSON list."""
    mention = delivery.mention
    return rows.as_json(mention.variant_ids) if mention and mention.variant_ids else None


def _row(judged: DeliveryResult) -> tuple[object, ...]:
    delivery, update = judged.delivery, judged.delivery.update
    # What is not about a mirrored variant may be an order: personal, and not ours to keep.
    body = None if judged.outcome == "ignored" else delivery.body
    return (
        *judged.key,
        to_text(delivery.arrived_at),
        None if update is None else maybe_text(update.event_at),
        delivery.action,
        _variant_id(delivery),
        item_id(delivery),
        judged.outcome,
        judged.rule,
        delivery.quarantined,
        body,
        named_variants(delivery),
    )


def _record_unplaced(connection: sqlite3.Connection, variant_ids: set[int], now: datetime) -> None:
    connection.executemany(
        """INSERT INTO unplaced_variants (variant_id, delivered_at) VALUES (?, ?)
           ON CONFLICT (variant_id) DO UPDATE SET delivered_at = excluded.delivered_at,
               not_found_at = NULL""",
        [(variant_id, to_text(now)) for variant_id in variant_ids],
    )
