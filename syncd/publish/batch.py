"""One transaction of a publication: rows, changes, position, freshness and sign of life."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection

from syncd.core import publishing
from syncd.core.publishing import (
    COLUMNS,
    COPIED,
    Change,
    Cursor,
    Freshness,
    Key,
    PlainRow,
    Position,
    Slice,
    Source,
)
from syncd.errors import TargetError
from syncd.publish import sources
from syncd.publish.rows import TargetRows
from syncd.publish.schema import Tables, is_mysql

CHANNEL = "syncd_changes"


class Moved(TargetError):
    """The position in the target is not the expected one: a commit succeeded without an answer."""


class Batch(Struct, frozen=True, kw_only=True):
    """The content of one transaction: a part of one state of the mirror.

    `before`, `after`: the position in the feed. `now`: of the mirror's host. `parts`: rows to
    compare; the last one may be a range. `changes`: those that it follows; `last`: the last change
    of each variant. `copy`: the position of a copy, whose next range is the last part.
    `listings_version`: of the SKUs, if their last range is the last part. `columns`: further
    columns of the row of the source. `freshness`: only if everything is published.
    `after_seq`: the feed goes on after it, if the target has a smaller one.
    """

    before: Cursor | None
    after: Cursor
    now: datetime
    parts: Sequence[Slice] = ()
    changes: Sequence[Change] = ()
    last: dict[int, Change] = {}
    copy: Position | None = None
    listings_version: int | None = None
    columns: dict[str, Any] = {}
    freshness: Freshness | None = None
    after_seq: int = 0


class Written(Struct, frozen=True):
    """The result of a transaction: the row of the source, and the end of the last range."""

    source: Source
    end: Key | None
    rows: int


def write(db: Connection, tables: Tables, rows: TargetRows, held: Source, batch: Batch) -> Written:
    """Publish a batch in a transaction that has just begun.

    `held`: the row of the source as the publisher knows it, with its lease. Raises TargetFenced if
    another publisher has the lease, and Moved if another position is in the target.
    """
    assert held.holder is not None  # noqa: S101 - for mypy
    source = sources.locked(db, tables, held.source, held.holder, held.epoch)
    if (source.cursor, source.copy) != (batch.before, held.copy):
        raise Moved("the position in the target is another one", is_conflict=True)
    writer = _Writer(db, rows, source, batch)
    end: Key | None = None
    for part in batch.parts:
        end = writer.publish(part)
    writer.finish()
    seq = writer.first_seq + len(writer.feed)
    values: dict[str, Any] = sources.cursor_values(batch.after) | batch.columns
    values |= {"seq": seq, "lease_seen_at": tables.now}
    if batch.copy is not None:
        following = publishing.next_position(batch.copy, end, COPIED)
        values |= sources.position_values(following)
        values |= {} if following else {"is_filled": True}
    if batch.listings_version is not None and end is None:
        values["listings_version"] = batch.listings_version
    if batch.freshness is not None:
        shown = publishing.freshness_to_show(source, batch.freshness)
        values |= {name: getattr(shown, name) for name in Freshness.__struct_fields__}
        values |= {"daemon_seen_at": tables.now}
    sources.update(db, tables, source.source, values)
    if writer.feed and not is_mysql(tables.dialect):
        message = f"{source.source} {seq}"
        db.execute(
            sa.text("SELECT pg_notify(:channel, :message)"),
            {"channel": CHANNEL, "message": message},
        )
    after = sources.load(db, tables, source.source)
    assert after is not None  # noqa: S101 - for mypy
    return Written(after, end, writer.rows)


class _Writer:
    """The differences of one batch."""

    def __init__(self, db: Connection, rows: TargetRows, source: Source, batch: Batch) -> None:
        self.feed: list[Change] = []
        self.rows = 0
        self.first_seq = max(source.seq, batch.after_seq)
        self._db = db
        self._target = rows
        self._source = source
        self._batch = batch
        self._changes = publishing.by_variant(batch.changes)

    def publish(self, part: Slice) -> Key | None:
        """Make the target equal to a slice; return the last compared key, None at its end."""
        stored, is_truncated = self._target.stored(self._db, part)
        difference = publishing.compare(part, stored, is_truncated=is_truncated)
        changed = difference.changed
        if part.table == "variants":
            if self._source.is_swept:
                changed = changed + [
                    publishing.removed(row, self._batch.now)
                    for row in difference.gone
                    if row[_AVAILABILITY] is not None
                ]
                changed.sort(key=_key)
            self._follow(part, stored, changed)
        elif part.table == "skus" and difference.gone:
            self._target.delete(self._db, "skus", [row[0] for row in difference.gone])
        self._target.write(
            self._db,
            part.table,
            changed,
            epoch=self._source.epoch,
            mirror_seq=self._batch.after.seq,
        )
        self.rows += len(changed) + len(difference.gone)
        return difference.end

    def _follow(self, part: Slice, stored: Sequence[PlainRow], changed: Sequence[PlainRow]) -> None:
        """Add the rows of the feed. The first fill has none: its reader begins with the table."""
        if not self._source.is_filled:
            return
        before = {row[0]: row for row in stored}
        new = {row[0]: row for row in changed}
        followed = {row[0]: row for row in part.rows if row[0] in self._changes}
        for variant_id, row in sorted((followed | new).items()):
            self.feed += publishing.feed(
                before.get(variant_id),
                row,
                self._changes.pop(variant_id, ()),
                self._batch.last.get(variant_id),
            )

    def finish(self) -> None:
        """Write the feed, in the order of the mirror's feed as far as it has one."""
        self.feed.sort(key=_seq)
        if self.feed:
            self._target.add_changes(self._db, self.feed, self.first_seq)


_AVAILABILITY = COLUMNS["variants"].index("availability")


def _key(row: PlainRow) -> Key:
    found: Key = row[0]
    return found


def _seq(change: Change) -> int:
    return change.seq
