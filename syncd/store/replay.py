"""Kept deliveries, read back and judged again in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from syncd.core.model import Delivery
from syncd.core.payload import parse
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, ReplayResult
from syncd.core.timestamps import from_text, maybe_text
from syncd.store import deliveries, rows


def kept(connection: sqlite3.Connection, ids: Collection[int]) -> set[int]:
    """Return which of these deliveries are kept."""
    found = connection.execute(
        "SELECT d.delivery_id FROM json_each(?) j JOIN deliveries d ON d.delivery_id = j.value",
        (rows.as_json(ids),),
    )
    return {row[0] for row in found}


def quarantined(connection: sqlite3.Connection) -> list[int]:
    """Return the deliveries that were not understood, oldest first."""
    found = connection.execute(
        "SELECT delivery_id FROM deliveries WHERE outcome = 'quarantined' ORDER BY delivery_id"
    )
    return [row[0] for row in found]


def replay(
    connection: sqlite3.Connection,
    ids: Sequence[int],
    judge: Callable[[BatchSnapshot, Sequence[Delivery]], ChangeSet],
    *,
    now: datetime,
    missed_grace: timedelta,
) -> list[ReplayResult]:
    """Judge some kept deliveries again, write what they say and what became of them."""
    found = connection.execute(
        """SELECT d.delivery_id, d.body, d.received_at, d.outcome
           FROM json_each(?) j JOIN deliveries d ON d.delivery_id = j.value
           ORDER BY d.delivery_id""",
        (rows.as_json(ids),),
    ).fetchall()
    batch = {row[0]: parse(row[1], from_text(row[2])) for row in found if row[1] is not None}
    snapshot = deliveries.snapshot(connection, list(batch.values()), now - missed_grace)
    writes = judge(replace(snapshot, stored_keys=set()), list(batch.values()))
    judged = dict(zip(batch, writes.results, strict=True))
    for row in found:
        one = judged.get(row[0])
        # What it did when it came stays what is told of it, unless it does more today.
        if one is not None and (row[3] == "quarantined" or one.outcome in {"applied", "verifying"}):
            _note(connection, row[0], one)
    deliveries.write(connection, writes, now)
    return [
        ReplayResult(row[0], row[3], judged[row[0]].outcome if row[0] in judged else None)
        for row in found
    ]


def _note(connection: sqlite3.Connection, delivery_id: int, judged: DeliveryResult) -> None:
    """Keep the new verdict. What another kept delivery told already keeps its old name."""
    delivery, update = judged.delivery, judged.delivery.update
    connection.execute(
        """UPDATE deliveries SET outcome = ?, rule = ?, reason = ?, action = ?, event_at = ?,
               item_id = ?, named_variants = ? WHERE delivery_id = ?""",
        (
            judged.outcome,
            judged.rule,
            delivery.quarantined,
            delivery.action,
            None if update is None else maybe_text(update.event_at),
            deliveries.item_id(delivery),
            deliveries.named_variants(delivery),
            delivery_id,
        ),
    )
    name = deliveries.name(judged)
    # All of it or the variant alone: a copy is looked for by all of it.
    named = connection.execute(
        """UPDATE OR IGNORE deliveries SET variant_id = ?, event_id = ?, content_key = ?
           WHERE delivery_id = ?""",
        (*name, delivery_id),
    )
    if not named.rowcount:
        connection.execute(
            "UPDATE OR IGNORE deliveries SET variant_id = ? WHERE delivery_id = ?",
            (name[0], delivery_id),
        )
