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

    `deliveries`, `changes` and `confirmed` have one row for each hour: `label`, and a count of each
    kind. `begins` is the beginning of the first hour. `stale` counts the items that were not
    confirmed since then, `verifying` the verifying variants. `webhooks` has each `state` of the
    webhook, and when it began. `off_sale` is of any age.
    """

    begins: datetime
    deliveries: list[Row]
    changes: list[Row]
    confirmed: list[Row]
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
            row | {"label": row["ended_at"][:16].replace("T", " ")}
            for row in reversed(self.sweeps)
            if row["added"] < row["variants"] or not row["variants"]
        ]


def day(db: sqlite3.Connection, now: datetime) -> Day:
    """Return the last 24 hours."""
    begins = (now - timedelta(hours=HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    since = to_text(begins)
    hours = [to_text(begins + timedelta(hours=n))[:13] for n in range(HOURS)]
    deliveries = db.execute(
        """SELECT substr(received_at, 1, 13), outcome, count(*) FROM deliveries
           WHERE delivery_id >= ? AND received_at >= ? GROUP BY 1, 2""",
        (first_id_since(db, "deliveries", begins), since),
    )
    changes = db.execute(
        """SELECT substr(recorded_at, 1, 13), CASE WHEN missed THEN 'missed' ELSE cause END,
                  count(*)
           FROM change_log WHERE seq >= ? AND recorded_at >= ? GROUP BY 1, 2""",
        (first_id_since(db, "change_log", begins), since),
    )
    confirmed = db.execute(
        """SELECT substr(confirmed_at, 1, 13), 'confirmed', count(*) FROM items
           WHERE confirmed_at >= ? AND is_gone = 0 GROUP BY 1""",
        (since,),
    )
    return Day(
        begins=begins,
        deliveries=_by_hour(hours, deliveries),
        changes=_by_hour(hours, changes),
        confirmed=_by_hour(hours, confirmed),
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
    rows: dict[str, Row] = {hour: {"label": f"{hour[11:]}:00"} for hour in hours}
    for hour, kind, count in counted:
        if hour in rows:
            rows[hour][kind] = count
    return list(rows.values())
