"""Deletes old rows in slices, except those that an operator or a rule still needs."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from syncd.core.timestamps import to_text
from syncd.store import list_rows
from syncd.store.rows import put_state
from syncd.store.time_ranges import first_id_since
from syncd.store.views import LAST_DELIVERY_AT

# Rows of one slice. Deliveries wait for a slice: about 6 ms (measured; four times as many rows took
# 25 ms, and 50 ms with a checkpoint).
SLICE = 500
COUNTS_RETENTION = timedelta(days=8)
# The health of the webhook depends on the rows of the last day, so they always stay.
DAY = timedelta(days=1)


def prune(
    db: sqlite3.Connection,
    *,
    deliveries_before: datetime,
    changes_before: datetime,
    now: datetime,
    missed_grace: timedelta,
) -> int:
    """Delete one slice of rows older than their retention; return the number of deleted rows."""
    gone = _prune_deliveries(db, min(deliveries_before, now - DAY))
    gone += _prune_changes(db, min(changes_before, now - DAY - missed_grace), now)
    _prune_webhook_states(db, min(changes_before, now - DAY))
    db.execute("DELETE FROM counts WHERE hour < ?", (to_text(now - COUNTS_RETENTION),))
    db.execute(
        """DELETE FROM sweeps WHERE ended_at < ?
           AND sweep_id NOT IN (SELECT max(sweep_id) FROM sweeps GROUP BY is_catalogue, result)""",
        (to_text(changes_before),),
    )
    # A background sweep that found nothing is no event; there may be hundreds a day.
    db.execute(
        """DELETE FROM sweeps WHERE is_paced AND ended_at < ? AND result = 'complete'
           AND changed + added + removed = 0
           AND sweep_id NOT IN (SELECT max(sweep_id) FROM sweeps GROUP BY is_catalogue, result)""",
        (to_text(now - DAY),),
    )
    if not gone:
        list_rows.prune(db)
    return gone


def _prune_deliveries(db: sqlite3.Connection, before: datetime) -> int:
    """Delete settled deliveries: not quarantined, and of no verifying or unplaced variant."""
    last = db.execute(LAST_DELIVERY_AT).fetchone()[0]
    if last is not None:
        put_state(db, "last_delivery_at", last)
    return db.execute(
        """DELETE FROM deliveries WHERE delivery_id IN (
               SELECT d.delivery_id FROM deliveries d
               WHERE d.delivery_id < min(?, (SELECT max(delivery_id) FROM deliveries))
                 AND d.received_at < ? AND d.outcome != 'quarantined'
                 AND NOT EXISTS (SELECT 1 FROM variants v
                                 WHERE v.variant_id = d.variant_id
                                   AND v.conflicting_values IS NOT NULL)
                 AND NOT EXISTS (SELECT 1 FROM unplaced_variants u
                                 WHERE u.variant_id = d.variant_id AND u.not_found_at IS NULL)
               LIMIT ?)""",
        (first_id_since(db, "deliveries", before), to_text(before), SLICE),
    ).rowcount


def _prune_webhook_states(db: sqlite3.Connection, before: datetime) -> None:
    """Delete states that ended before then; the last older row is the state at that time."""
    db.execute(
        """DELETE FROM webhook_states WHERE change_id <
               (SELECT max(change_id) FROM webhook_states WHERE began_at < ?)""",
        (to_text(before),),
    )


def _prune_changes(db: sqlite3.Connection, before: datetime, now: datetime) -> int:
    """Delete the oldest changes, except the last one that is too old.

    A reader that takes each change within the retention always finds its last row. If the row is
    missing, the reader paused for too long (syncd/docs/shops.md, "Follow changes").
    """
    oldest = db.execute(
        "SELECT seq, recorded_at FROM change_log ORDER BY seq LIMIT ?", (SLICE + 1,)
    ).fetchall()
    last_old, limit, at = 0, to_text(before), to_text(now)
    for seq, recorded_at in oldest:
        if recorded_at < limit:
            last_old = seq
        elif recorded_at <= at:
            break  # a row in the future, of a clock that ran ahead, is deleted with its neighbours
    return db.execute("DELETE FROM change_log WHERE seq < ?", (last_old,)).rowcount
