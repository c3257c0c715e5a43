"""The unlisted values of availability that were reported already."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from syncd.core.health import MAX_VALUE_CHARS
from syncd.core.plain_text import shortened
from syncd.store.rows import get_state, put_state

# Only the newest values are stored, because Dreamship may send any number of them.
MAX_STORED = 2000


def unreported(db: sqlite3.Connection, values: Sequence[str]) -> list[str]:
    """Return the values that were never reported, in their order."""
    reported = set(_reported(db))
    return [value for value in values if value not in reported]


def mark_reported(db: sqlite3.Connection, values: Sequence[str]) -> list[str]:
    """Store that these values are reported; return those that are new."""
    new = unreported(db, values)
    reported = [*_reported(db), *new][-MAX_STORED:]
    put_state(db, "reported_values", msgspec.json.encode(reported).decode())
    return new


def _reported(db: sqlite3.Connection) -> list[str]:
    stored = msgspec.json.decode(get_state(db, "reported_values") or "[]", type=list[str])
    # Version 0.1.0 stored them without a limit.
    return [shortened(value, MAX_VALUE_CHARS) for value in stored]
