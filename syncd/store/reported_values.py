"""Which values of availability somebody was told of already."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from syncd.core.plain_text import shortened
from syncd.core.status import MAX_VALUE_CHARS
from syncd.store.rows import get_state, put_state

# The newest of them; what Dreamship may say is not bounded by us.
REMEMBERED = 2000


def untold(connection: sqlite3.Connection, values: Sequence[str]) -> list[str]:
    """Return those of `values` that were never noted, in their order."""
    told = set(_told(connection))
    return [value for value in values if value not in told]


def note(connection: sqlite3.Connection, values: Sequence[str]) -> list[str]:
    """Keep that somebody is told of these values; return those that are new."""
    new = untold(connection, values)
    kept = [*_told(connection), *new][-REMEMBERED:]
    put_state(connection, "told_values", msgspec.json.encode(kept).decode())
    return new


def _told(connection: sqlite3.Connection) -> list[str]:
    told = msgspec.json.decode(get_state(connection, "told_values") or "[]", type=list[str])
    # Before 0.2.0 they were kept whole.
    return [shortened(value, MAX_VALUE_CHARS) for value in told]
