"""Deletes old changes of the target in small batches, and keeps the newest of the old ones."""

from __future__ import annotations

import time
from datetime import timedelta

import sqlalchemy as sa

from syncd.core.publishing import Source
from syncd.publish import sources
from syncd.publish.target import Target

# Rows of one transaction: the next batch waits for it.
SLICE = 500
EVERY_S = 60.0


class Retention:
    """Deletes at most one slice in a transaction, and looks again later if nothing is too old."""

    def __init__(self, keep_s: float) -> None:
        self._keep = timedelta(seconds=keep_s)
        self._next_at_s = 0.0

    def run(self, target: Target, held: Source) -> bool:
        """Delete one slice if it is due; return whether there may be more of them at once.

        Raises leaves of TargetError.
        """
        now_s = time.monotonic()
        if now_s < self._next_at_s:
            return False
        has_more = self._delete(target, held) == SLICE
        self._next_at_s = now_s if has_more else now_s + EVERY_S
        return has_more

    def _delete(self, target: Target, held: Source) -> int:
        """Delete old changes, except the last old one; return their number.

        As in the mirror: a reader that finds the row of its own position has missed nothing.
        """
        assert held.holder is not None  # noqa: S101 - for mypy
        table = target.tables.changes
        oldest = (
            sa.select(table.c.seq, table.c.published_at)
            .where(table.c.source == held.source)
            .order_by(table.c.seq)
            .limit(SLICE + 1)
        )
        with target.transaction() as db:
            before = sources.clock(db, target.tables) - self._keep
            last_old = 0
            for row in db.execute(oldest):
                if row.published_at >= before:
                    break
                last_old = row.seq
            if not last_old:
                return 0
            sources.locked(db, target.tables, held.source, held.holder, held.epoch)
            gone = db.execute(
                sa.delete(table).where(table.c.source == held.source, table.c.seq < last_old)
            )
            return gone.rowcount
