"""The values of Dreamship that were reported already: of availability, and of statuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

import msgspec

from syncd.core.health import MAX_VALUE_CHARS
from syncd.core.plain_text import shortened
from syncd.store.rows import get_state, put_state

Kind = Literal["values", "release_status", "operational_status"]
ITEM_STATUSES: tuple[Kind, ...] = ("release_status", "operational_status")

# Only the newest values are stored, because Dreamship may send any number of them.
MAX_STORED = 2000


def unreported(db: sqlite3.Connection, values: Sequence[str], kind: Kind = "values") -> list[str]:
    """Return the values that were never reported, in their order."""
    reported = set(_reported(db, kind))
    return [value for value in values if value not in reported]


def has_reported(db: sqlite3.Connection, kind: Kind) -> bool:
    """Return whether any value of a kind was reported."""
    return bool(_reported(db, kind))


def mark_reported(
    db: sqlite3.Connection, values: Sequence[str], kind: Kind = "values"
) -> list[str]:
    """Store that these values are reported; return those that are new."""
    new = unreported(db, values, kind)
    reported = [*_reported(db, kind), *new][-MAX_STORED:]
    put_state(db, f"reported_{kind}", msgspec.json.encode(reported).decode())
    return new


def item_statuses(db: sqlite3.Connection, kind: Kind) -> dict[str, int]:
    """Return the number of items with each status, the most frequent first.

    Before the first sweep has ended there are none: the first items do not show all statuses.
    """
    rows = db.execute(
        f"""SELECT {kind}, count(*) FROM items WHERE {kind} IS NOT NULL AND EXISTS
                (SELECT 1 FROM sweeps WHERE is_catalogue = 1 AND ended_at IS NOT NULL)
            GROUP BY 1 ORDER BY 2 DESC LIMIT ?""",  # noqa: S608 - constants
        (MAX_STORED // 2,),
    )
    counted: dict[str, int] = {}
    for value, count in rows:
        short = shortened(value, MAX_VALUE_CHARS)
        counted[short] = counted.get(short, 0) + count
    return counted


def _reported(db: sqlite3.Connection, kind: Kind) -> list[str]:
    stored = msgspec.json.decode(get_state(db, f"reported_{kind}") or "[]", type=list[str])
    # Version 0.1.0 stored them without a limit.
    return [shortened(value, MAX_VALUE_CHARS) for value in stored]
