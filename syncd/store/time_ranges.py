"""Ranges of time in tables whose ids grow with time, found without an index.

A row is stored when it arrives, so the order of ids is the order of time. Only a host clock that
was set back breaks it; then a range may begin too late or too early by the rows of that moment, so
the statements that use a range compare the time of each row as well.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from syncd.core.timestamps import to_text

# Table to its id and to the time at which a row was stored.
_COLUMNS = {"deliveries": ("delivery_id", "received_at"), "change_log": ("seq", "recorded_at")}


def first_id_since(db: sqlite3.Connection, table: str, moment: datetime) -> int:
    """Return the id of the first row at or after `moment`; beyond the last id if there is none."""
    id_column, time_column = _COLUMNS[table]
    # Two statements: SQLite finds one end of a table at once, but scans it for both.
    (low,) = db.execute(f"SELECT coalesce(min({id_column}), 1) FROM {table}").fetchone()  # noqa: S608 - constants
    (last,) = db.execute(f"SELECT coalesce(max({id_column}), 0) FROM {table}").fetchone()  # noqa: S608 - constants
    high = last + 1
    since = to_text(moment)
    while low < high:
        middle = (low + high) // 2
        found_id, found_at = db.execute(
            f"""SELECT {id_column}, {time_column} FROM {table}
                WHERE {id_column} >= ? ORDER BY {id_column} LIMIT 1""",  # noqa: S608 - constants
            (middle,),
        ).fetchone()
        if found_at >= since:
            high = middle
        else:
            low = found_id + 1
    return int(low)
