"""Copies the rows of the target into a mirror that goes on from them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa
from msgspec import Struct

from syncd.core.publishing import COPIED, Cursor, Key, Slice, Source
from syncd.publish import sources
from syncd.publish.rows import TargetRows
from syncd.publish.target import Target
from syncd.store.take_over import MOST_UNEQUAL, SLICE, Stored


class RowSink(Protocol):
    """Stores rows of the target in the mirror; called in the thread of the publisher."""

    def put(self, part: Slice, newest_event_at: datetime | None, before: Cursor | None) -> Stored:
        """Store a range of rows; raises MirrorErrors. `before`: the cursor of the last range."""
        ...

    def probe(self) -> None:
        """Write the mirror; raises MirrorErrors."""
        ...

    def note_held(self) -> None:
        """Store that this mirror has had the lease; raises MirrorErrors."""
        ...

    def finish(self, held: Source) -> None:
        """Store that all rows are in; raises MirrorErrors."""
        ...


class Copy(Struct, frozen=True):
    """A complete copy of the target in the mirror.

    `before`, `epoch`: the position in the target, and the lease, during the copy. `began_at`: by
    the clock of this host. `cursor`: the end of the mirror's feed after it. `items`, `variants`:
    the keys of the mirror's rows that may differ from those of the target. All others are equal.
    """

    before: Cursor | None
    epoch: int
    began_at: datetime
    cursor: Cursor
    items: set[int]
    variants: set[int]
    count: int

    @property
    def is_almost_equal(self) -> bool:
        """Whether one batch makes the target equal to the mirror."""
        return len(self.items) + len(self.variants) <= MOST_UNEQUAL


def copy_rows(target: Target, rows: TargetRows, held: Source, sink: RowSink) -> Copy:
    """Copy all rows, range by range.

    Each range renews the lease, so that no other publisher takes it meanwhile. Raises leaves of
    TargetError and of MirrorError. A copy that ends early begins again: only the first transaction
    after it writes the id of this mirror into the target.
    """
    began_at = datetime.now(UTC)
    newest = _newest_event_at(target, held)
    count = 0
    cursor: Cursor | None = None
    items: set[int] = set()
    variants: set[int] = set()
    for part in _ranges(target, rows, held):
        stored = sink.put(part, newest, cursor)
        count += len(part.rows)
        cursor = stored.cursor
        # A set that is too large already stays as it is: all rows are compared then.
        if len(items) + len(variants) <= MOST_UNEQUAL:
            items |= stored.items
            variants |= stored.variants
    sink.finish(held)
    assert cursor is not None  # noqa: S101 - for mypy: each table has a range
    return Copy(held.cursor, held.epoch, began_at, cursor, items, variants, count)


def _ranges(target: Target, rows: TargetRows, held: Source) -> Iterator[Slice]:
    """Yield all rows of the target in ranges without a gap, none larger than a transaction."""
    for table in COPIED:
        after: Key | None = None
        has_more = True
        while has_more:
            with target.transaction() as db:
                sources.renew(db, target.tables, held)
                found, has_more = rows.stored(db, Slice(table, (), is_range=True, after=after))
            last = found[-1][0] if has_more else None
            pieces = [found[at : at + SLICE] for at in range(0, len(found), SLICE)] or [found]
            for piece in pieces:
                end = last if piece is pieces[-1] else piece[-1][0]
                yield Slice(table, piece, is_range=True, after=after, end=end)
                after = end


def _newest_event_at(target: Target, held: Source) -> datetime | None:
    column = target.tables.variants.c.event_at
    query = sa.select(sa.func.max(column)).where(target.tables.variants.c.source == held.source)
    with target.transaction() as db:
        found: datetime | None = db.execute(query).scalar()
    return found
