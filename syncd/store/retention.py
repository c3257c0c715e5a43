"""What is old goes, in slices; what somebody still has to look at or to explain stays."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from syncd.core.timestamps import to_text

# Deleted at a time, so that deliveries never wait for the broom: some 6 ms (measured; four times
# as many took 25 and, with a checkpoint, 50).
SLICE = 500
COUNTS_KEPT = timedelta(days=8)
# What the health of a day is judged by is kept, however short the retention.
DAY = timedelta(days=1)


def prune(
    db: sqlite3.Connection,
    *,
    deliveries_before: datetime,
    changes_before: datetime,
    now: datetime,
    missed_grace: timedelta,
) -> int:
    """Delete one slice of what is older than its retention; return how many rows went."""
    gone = _prune_deliveries(db, min(deliveries_before, now - DAY))
    gone += _prune_changes(db, min(changes_before, now - DAY - missed_grace), now)
    _prune_webhook_states(db, min(changes_before, now - DAY))
    db.execute("DELETE FROM counts WHERE hour < ?", (to_text(now - COUNTS_KEPT),))
    db.execute(
        """DELETE FROM sweeps WHERE ended_at < ?
           AND sweep_id NOT IN (SELECT max(sweep_id) FROM sweeps GROUP BY is_catalogue, result)""",
        (to_text(changes_before),),
    )
    return gone


def _prune_deliveries(db: sqlite3.Connection, before: datetime) -> int:
    """Delete what is settled: not quarantined, of no variant in doubt or not yet located."""
    return db.execute(
        """DELETE FROM deliveries WHERE delivery_id IN (
               SELECT d.delivery_id FROM deliveries d
               WHERE d.received_at < ? AND d.outcome != 'quarantined'
                 AND NOT EXISTS (SELECT 1 FROM variants v
                                 WHERE v.variant_id = d.variant_id
                                   AND v.conflicting_values IS NOT NULL)
                 AND NOT EXISTS (SELECT 1 FROM unplaced_variants u
                                 WHERE u.variant_id = d.variant_id AND u.not_found_at IS NULL)
               LIMIT ?)""",
        (to_text(before), SLICE),
    ).rowcount


def _prune_webhook_states(db: sqlite3.Connection, before: datetime) -> None:
    """Delete what ended before then: of the rows that are too old, the last says what came next."""
    db.execute(
        """DELETE FROM webhook_states WHERE change_id <
               (SELECT max(change_id) FROM webhook_states WHERE began_at < ?)""",
        (to_text(before),),
    )


def _prune_changes(db: sqlite3.Connection, before: datetime, now: datetime) -> int:
    """Delete from the beginning of the feed, and of what is too old keep the last row.

    So a reader finds the row it remembers as long as it takes each change within the retention,
    and tells by its absence that it slept too long (syncd/docs/shops.md, "Follow changes").
    """
    oldest = db.execute(
        "SELECT seq, recorded_at FROM change_log ORDER BY seq LIMIT ?", (SLICE + 1,)
    ).fetchall()
    last_old, limit, at = 0, to_text(before), to_text(now)
    for seq, recorded_at in oldest:
        if recorded_at < limit:
            last_old = seq
        elif recorded_at <= at:
            break  # else a clock that ran ahead wrote it: it goes with what came after it
    return db.execute("DELETE FROM change_log WHERE seq < ?", (last_old,)).rowcount
