"""The last 24 hours, as the status page shows them."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.core.model import Row
from syncd.core.timestamps import to_text
from syncd.store import off_sale
from syncd.store.history import dicts
from syncd.store.time_ranges import first_id_since

HOURS = 24
_RECENT = 20
# As many columns as a day has hours, so that all charts look the same.
_SWEEPS = 24
# The webhook may change its state every few seconds; a chart cannot show more than this.
_STATES = 100


class Day(Struct, frozen=True):
    """Counts of each hour (oldest first), and the newest rows of each kind (newest first).

    `deliveries` and `changes` have one row for each hour: `at`, and a count of each kind. The
    variants that the first fill added are no changes; `has_first_fill`: there are some in these
    hours. `begins` is the beginning of the first hour. `stale` counts the items that were not
    confirmed since then, `verifying` the verifying variants. `webhooks` has each `state` of the
    webhook, and when it began. `off_sale` is of any age.
    """

    begins: datetime
    deliveries: list[Row]
    changes: list[Row]
    has_first_fill: bool
    stale: int
    webhooks: list[Row]
    off_sale: list[Row]
    recent: list[Row]
    sweeps: list[Row]
    quarantined: list[Row]
    verifying: int

    @property
    def drift(self) -> list[Row]:
        """The differences that each sweep found, oldest first; not those of the first fill."""
        return [
            row | {"at": row["ended_at"]}
            for row in reversed(self.sweeps)
            if row["added"] < row["variants"] or not row["variants"]
        ]


def day(db: sqlite3.Connection, now: datetime) -> Day:
    """Return the last 24 hours."""
    begins = (now - timedelta(hours=HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    since = to_text(begins)
    hours = [to_text(begins + timedelta(hours=n)) for n in range(HOURS)]
    deliveries = db.execute(
        """SELECT substr(received_at, 1, 13), outcome, count(*) FROM deliveries
           WHERE delivery_id >= ? AND received_at >= ? GROUP BY 1, 2""",
        (first_id_since(db, "deliveries", begins), since),
    )
    first_seq = first_id_since(db, "change_log", begins)
    # Before its end, each added variant is only new to the mirror. It would flatten the chart.
    (filled_at,) = db.execute(
        """SELECT coalesce(min(ended_at), '~') FROM sweeps
           WHERE is_catalogue AND ended_at IS NOT NULL"""
    ).fetchone()
    first_fill = (filled_at, first_seq, since)
    changes = db.execute(
        """SELECT substr(recorded_at, 1, 13), CASE WHEN missed THEN 'missed' ELSE cause END,
                  count(*)
           FROM change_log
           WHERE NOT (old_availability IS NULL AND cause = 'read' AND recorded_at <= ?)
             AND seq >= ? AND recorded_at >= ? GROUP BY 1, 2""",
        first_fill,
    )
    (has_first_fill,) = db.execute(
        """SELECT EXISTS (SELECT 1 FROM change_log
           WHERE old_availability IS NULL AND cause = 'read' AND recorded_at <= ?
             AND seq >= ? AND recorded_at >= ?)""",
        first_fill,
    ).fetchone()
    return Day(
        begins=begins,
        deliveries=_by_hour(hours, deliveries),
        changes=_by_hour(hours, changes),
        has_first_fill=bool(has_first_fill),
        stale=db.execute(
            """SELECT count(*) FROM items
               WHERE is_gone = 0 AND (confirmed_at IS NULL OR confirmed_at < ?)""",
            (since,),
        ).fetchone()[0],
        webhooks=dicts(
            db.execute(
                "SELECT state, began_at FROM webhook_states ORDER BY change_id DESC LIMIT ?",
                (_STATES,),
            )
        ),
        off_sale=off_sale.newest(db),
        recent=dicts(
            db.execute(
                """SELECT c.*, v.name, v.color, v.size, i.name AS item_name FROM changes c
                   LEFT JOIN variants v ON v.variant_id = c.variant_id
                   LEFT JOIN items i ON i.item_id = c.item_id ORDER BY c.seq DESC LIMIT ?""",
                (_RECENT,),
            )
        ),
        sweeps=dicts(
            db.execute(
                """SELECT sweep_id, cause, began_at, ended_at, result, items, variants, changed,
                          added, removed, removals_held, missed, calls, throttled
                   FROM sweeps WHERE is_catalogue AND ended_at IS NOT NULL
                       -- A sweep in the background is shown if it found something, or failed.
                       AND (NOT is_paced OR result != 'complete' OR changed + added + removed > 0)
                   ORDER BY sweep_id DESC LIMIT ?""",
                (_SWEEPS,),
            )
        ),
        quarantined=dicts(
            db.execute(
                """SELECT delivery_id, received_at, reason FROM deliveries
                   WHERE outcome = 'quarantined' ORDER BY delivery_id DESC LIMIT ?""",
                (_RECENT,),
            )
        ),
        verifying=db.execute(
            "SELECT count(*) FROM variants WHERE conflicting_values IS NOT NULL"
        ).fetchone()[0],
    )


def _by_hour(hours: list[str], counted: sqlite3.Cursor) -> list[Row]:
    rows: dict[str, Row] = {hour[:13]: {"at": hour} for hour in hours}
    for hour, kind, count in counted:
        if hour in rows:
            rows[hour][kind] = count
    return list(rows.values())
