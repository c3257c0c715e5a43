"""Copies the rows of the target into a mirror that goes on from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import sqlalchemy as sa

from syncd.core.publishing import COPIED, Key, PlainRow, Slice, Source, Table
from syncd.publish import sources
from syncd.publish.rows import TargetRows
from syncd.publish.target import Target


class RowSink(Protocol):
    """Stores rows of the target in the mirror; called in the thread of the publisher."""

    def put(self, table: Table, rows: Sequence[PlainRow], newest_event_at: datetime | None) -> None:
        """Store rows of one table; raises MirrorErrors."""
        ...

    def note_held(self) -> None:
        """Store that this mirror has had the lease; raises MirrorErrors."""
        ...

    def finish(self, held: Source) -> None:
        """Store that all rows are in; raises MirrorErrors."""
        ...


def copy_rows(target: Target, rows: TargetRows, held: Source, sink: RowSink) -> int:
    """Copy all rows, range by range; return their number.

    Each range renews the lease, so that no other publisher takes it meanwhile. Raises leaves of
    TargetError and of MirrorError. A copy that ends early begins again: only the first transaction
    after it writes the id of this mirror into the target.
    """
    newest = _newest_event_at(target, held)
    count = 0
    for table in COPIED:
        after: Key | None = None
        while True:
            with target.transaction() as db:
                sources.renew(db, target.tables, held)
                found, has_more = rows.stored(db, Slice(table, (), is_range=True, after=after))
            sink.put(table, found, newest)
            count += len(found)
            if not has_more:
                break
            after = found[-1][0]
    sink.finish(held)
    return count


def _newest_event_at(target: Target, held: Source) -> datetime | None:
    column = target.tables.variants.c.event_at
    query = sa.select(sa.func.max(column)).where(target.tables.variants.c.source == held.source)
    with target.transaction() as db:
        found: datetime | None = db.execute(query).scalar()
    return found
