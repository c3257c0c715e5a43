"""The last 24 hours as the status page draws them."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.model import Row
from syncd.store.stories import dicts
from syncd.timestamps import to_text

HOURS = 24
_RECENT = 20
_SWEEPS = 8
_FOUND = 25


class Day(Struct, frozen=True):
    """Counts by hour (oldest first), and the newest of everything.

    `deliveries` and `changes` have one row an hour: `hour`, and a count by kind; `verifying` are
    the variants in doubt.
    """

    deliveries: list[Row]
    changes: list[Row]
    recent: list[Row]
    sweeps: list[Row]
    quarantined: list[Row]
    verifying: int


def day(connection: sqlite3.Connection, now: datetime) -> Day:
    """Return the last 24 hours."""
    begins = (now - timedelta(hours=HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    since = to_text(begins)
    hours = [to_text(begins + timedelta(hours=n))[:13] for n in range(HOURS)]
    deliveries = connection.execute(
        """SELECT substr(received_at, 1, 13), outcome, count(*) FROM deliveries
           WHERE received_at >= ? GROUP BY 1, 2""",
        (since,),
    )
    changes = connection.execute(
        """SELECT substr(recorded_at, 1, 13), CASE WHEN missed THEN 'missed' ELSE cause END,
                  count(*)
           FROM change_log WHERE recorded_at >= ? GROUP BY 1, 2""",
        (since,),
    )
    return Day(
        deliveries=_by_hour(hours, deliveries),
        changes=_by_hour(hours, changes),
        recent=dicts(
            connection.execute(
                """SELECT c.*, v.name, v.color, v.size, i.name AS item_name FROM changes c
                   LEFT JOIN variants v ON v.variant_id = c.variant_id
                   LEFT JOIN items i ON i.item_id = c.item_id ORDER BY c.seq DESC LIMIT ?""",
                (_RECENT,),
            )
        ),
        sweeps=dicts(
            connection.execute(
                """SELECT sweep_id, cause, began_at, ended_at, result, items, changed, added,
                          removed, missed, calls, throttled
                   FROM sweeps WHERE is_catalogue AND ended_at IS NOT NULL
                   ORDER BY sweep_id DESC LIMIT ?""",
                (_SWEEPS,),
            )
        ),
        quarantined=dicts(
            connection.execute(
                """SELECT delivery_id, received_at, action, reason FROM deliveries
                   WHERE outcome = 'quarantined' ORDER BY delivery_id DESC LIMIT ?""",
                (_RECENT,),
            )
        ),
        verifying=connection.execute(
            "SELECT count(*) FROM variants WHERE doubts IS NOT NULL"
        ).fetchone()[0],
    )


def find(connection: sqlite3.Connection, text: str) -> list[Row]:
    """Return some variants whose id, item id, item or own name matches what somebody typed."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1  # noqa: PLR2004
    like = f"%{text.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
    return dicts(
        connection.execute(
            """SELECT variant_id, item_id, item_name, variant_name, availability, sellable, removed,
                      verifying FROM availability
               WHERE variant_id = :number OR item_id = :number OR item_name LIKE :like ESCAPE '!'
                  OR variant_name LIKE :like ESCAPE '!'
               ORDER BY variant_id = :number DESC, item_name, variant_id LIMIT :most""",
            {"number": number, "like": like, "most": _FOUND},
        )
    )


def _by_hour(hours: list[str], counted: sqlite3.Cursor) -> list[Row]:
    rows: dict[str, Row] = {hour: {"hour": f"{hour[11:]}:00"} for hour in hours}
    for hour, kind, count in counted:
        if hour in rows:
            rows[hour][kind] = count
    return list(rows.values())
