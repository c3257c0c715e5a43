"""Probes: find out whether the mirror can be written, without storing anything new."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from syncd.core.timestamps import to_text
from syncd.store.rows import put_state

T = TypeVar("T")

# More than a read of one item writes.
MARK_BYTES = 64 * 1024


def mark(db: sqlite3.Connection, now: datetime, *, size: int) -> None:
    """Write an unused text of `size` bytes: a disk that is almost full may still take a page."""
    text = to_text(now)
    put_state(db, "mark", (text * (size // len(text) + 1))[: max(size, len(text))])


def rehearse(
    db: sqlite3.Connection, function: Callable[[sqlite3.Connection], T], now: datetime
) -> T:
    """Run `function`, and undo everything that it wrote."""
    db.execute("SAVEPOINT rehearsal")
    result = function(db)
    db.execute("ROLLBACK TO rehearsal")
    db.execute("RELEASE rehearsal")
    # A transaction without a write commits nothing, and so proves nothing.
    mark(db, now, size=0)
    return result
