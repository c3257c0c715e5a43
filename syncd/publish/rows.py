"""Rows of the target: read to be compared, written in batches in the order of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from operator import itemgetter
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.sql.compiler import SQLCompiler

from syncd.core.publishing import COLUMNS, Change, Key, PlainRow, Slice, Table
from syncd.publish.schema import Tables, is_mysql
from syncd.publish.sources import clock

# Rows of the target in memory for one slice. If a range has more, the comparison ends earlier.
MOST_STORED = 5_000
# Keys of one statement.
_MOST_KEYS = 1_000


class TargetRows:
    """Reads and writes the rows of one source."""

    def __init__(self, tables: Tables, source: str) -> None:
        self._tables = tables
        self._source = source
        self._named: dict[Table, sa.Table] = {
            "items": tables.items,
            "variants": tables.variants,
            "skus": tables.skus,
        }

    def stored(self, db: Connection, part: Slice) -> tuple[list[PlainRow], bool]:
        """Return the rows to compare with a slice; and whether its range has more of them."""
        table = self._named[part.table]
        key = table.c[COLUMNS[part.table][0]]
        query = self._selects[part.table]
        if not part.is_range:
            found: list[PlainRow] = []
            for first in range(0, len(part.rows), _MOST_KEYS):
                keys = list(part.keys[first : first + _MOST_KEYS])
                some = db.execute(query.where(self._has_key(key)), {"keys": keys})
                found += map(tuple, some.all())
            return found, False
        if part.after is not None:
            query = query.where(key > part.after)
        if part.end is not None:
            query = query.where(key <= part.end)
        rows = db.execute(query.order_by(key).limit(MOST_STORED)).all()
        return list(map(tuple, rows)), len(rows) == MOST_STORED

    def write(
        self, db: Connection, name: Table, rows: Sequence[PlainRow], *, epoch: int, mirror_seq: int
    ) -> None:
        """Insert or update rows.

        A row of a newer epoch, or of a newer state of the mirror, stays: nothing of an older one
        can replace it, even if a server does not keep the lock of the source.
        """
        if rows:
            stamp = {"source": self._source, "epoch": epoch, "mirror_seq": mirror_seq}
            self._writers[name].write(db, rows, stamp)

    def delete(self, db: Connection, name: Table, keys: Sequence[Key]) -> None:
        """Delete rows by their keys."""
        table = self._named[name]
        key = table.c[COLUMNS[name][0]]
        for first in range(0, len(keys), _MOST_KEYS):
            some = list(keys[first : first + _MOST_KEYS])
            gone = sa.delete(table).where(table.c.source == self._source, self._has_key(key))
            db.execute(gone, {"keys": some})

    def add_changes(self, db: Connection, changes: Sequence[Change], seq: int) -> None:
        """Add rows to the feed, numbered from the one after `seq`."""
        rows = [
            (seq + number, *(getattr(change, name) for name in _COPIED), change.seq)
            for number, change in enumerate(changes, 1)
        ]
        stamp = {"source": self._source, "published_at": clock(db, self._tables)}
        self._feed_writer.write(db, rows, stamp)

    def _has_key(self, key: sa.Column[Any]) -> sa.ColumnElement[bool]:
        """Return the condition that a key is one of the parameter `keys`.

        PostgreSQL takes an array: SQLAlchemy and the driver would handle each key of a list.
        """
        if is_mysql(self._tables.dialect):
            return key.in_(sa.bindparam("keys", expanding=True))
        return key == sa.any_(sa.bindparam("keys", type_=postgresql.ARRAY(key.type)))

    @cached_property
    def _selects(self) -> dict[Table, sa.Select[Any]]:
        return {
            name: sa.select(*(table.c[column] for column in COLUMNS[name])).where(
                table.c.source == self._source
            )
            for name, table in self._named.items()
        }

    @cached_property
    def _writers(self) -> dict[Table, _Writer]:
        stamp = ("source", "epoch", "mirror_seq")
        return {
            name: self._writer(table, COLUMNS[name], stamp, is_upsert=True)
            for name, table in self._named.items()
        }

    @cached_property
    def _feed_writer(self) -> _Writer:
        columns = ("seq", *_COPIED, "mirror_seq")
        stamp = ("source", "published_at")
        return self._writer(self._tables.changes, columns, stamp, is_upsert=False)

    def _writer(
        self, table: sa.Table, columns: Sequence[str], stamp: Sequence[str], *, is_upsert: bool
    ) -> _Writer:
        dialect = self._tables.dialect
        if is_mysql(dialect):
            insert = _mysql_insert(table, is_upsert=is_upsert)
            return _RowWriter(insert, dialect, columns, stamp)
        insert = _postgresql_insert(table, columns, stamp, is_upsert=is_upsert)
        return _JsonWriter(insert, dialect, columns, stamp)


# The columns of a change that are the same in the target.
_COPIED = (
    *("variant_id", "item_id", "old_availability", "availability", "old_sellable", "sellable"),
    *("cause", "missed", "occurred_at", "recorded_at"),
)


class _Writer(Protocol):
    """Writes rows with one statement, which is compiled once.

    SQLAlchemy (2.0) keeps compiled statements, but none of `insert` of a dialect.
    """

    def write(self, db: Connection, rows: Sequence[PlainRow], stamp: dict[str, Any]) -> None:
        """Write rows, all with the same stamp."""


class _JsonWriter:
    """Gives PostgreSQL all rows as one parameter.

    PostgreSQL then plans the statement once, not once for each row, and the driver does not handle
    each value.
    """

    def __init__(
        self, insert: sa.Insert, dialect: sa.Dialect, columns: Sequence[str], stamp: Sequence[str]
    ) -> None:
        named = copy(dialect)
        named.paramstyle, named.positional = "named", False
        compiled = _compiled(insert, named, [*columns, *stamp])
        types = {name: bind.type for name, bind in compiled.binds.items()}
        # Before a cast, `text` only finds a parameter that ends with a space.
        self._insert = sa.text(str(compiled).replace("::", " ::")).bindparams(
            *(sa.bindparam(name, type_=kind) for name, kind in types.items())
        )
        self._columns = columns

    def write(self, db: Connection, rows: Sequence[PlainRow], stamp: dict[str, Any]) -> None:
        """Write rows, all with the same stamp."""
        named = [dict(zip(self._columns, row, strict=True)) for row in rows]
        db.execute(self._insert, {"rows": msgspec.json.encode(named).decode()} | stamp)


class _RowWriter:
    """Gives PyMySQL one tuple for each row; PyMySQL joins them to one statement.

    SQLAlchemy would handle each parameter, for a tenth of the time of a batch. PyMySQL writes a
    time without its zone, and all times are in UTC.
    """

    def __init__(
        self, insert: sa.Insert, dialect: sa.Dialect, columns: Sequence[str], stamp: Sequence[str]
    ) -> None:
        given = [*columns, *stamp]
        by_position = copy(dialect)
        by_position.paramstyle, by_position.positional = "format", True
        compiled = _compiled(insert, by_position, given)
        self._insert = str(compiled)
        self._ordered = itemgetter(*(given.index(name) for name in compiled.positiontup or ()))
        self._stamp = stamp

    def write(self, db: Connection, rows: Sequence[PlainRow], stamp: dict[str, Any]) -> None:
        """Write rows, all with the same stamp."""
        same = tuple(stamp[name] for name in self._stamp)
        db.exec_driver_sql(self._insert, [self._ordered((*row, *same)) for row in rows])


def _compiled(insert: sa.Insert, dialect: sa.Dialect, columns: Sequence[str]) -> SQLCompiler:
    """Compile a statement. `dialect` is connected: the text depends on the server's version."""
    compiled = insert.compile(dialect=dialect, column_keys=columns)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - for mypy
    return compiled


def _values(table: sa.Table) -> list[str]:
    """Return the columns that are not part of the key; the two that guard the row are the last."""
    guards = ("epoch", "mirror_seq")
    keys = set(table.primary_key.columns.keys())
    others = [name for name in table.columns.keys() if name not in keys | set(guards)]  # noqa: SIM118
    # MySQL assigns in this order: while the others are assigned, the guards have their old values.
    return [*others, "mirror_seq", "epoch"]


def _postgresql_insert(
    table: sa.Table, columns: Sequence[str], stamp: Sequence[str], *, is_upsert: bool
) -> sa.Insert:
    rows = sa.cast(sa.bindparam("rows", type_=sa.Text()), postgresql.JSON)
    given = sa.func.json_to_recordset(rows).table_valued(
        *(sa.column(name, _plain(table.c[name].type)) for name in columns)
    )
    new = given.render_derived(name="given", with_types=True)
    stamps = [sa.bindparam(name, type_=table.c[name].type) for name in stamp]
    add = postgresql.insert(table).from_select(
        [*columns, *stamp], sa.select(*(new.c[name] for name in columns), *stamps)
    )
    if not is_upsert:
        return add
    excluded, old = add.excluded, table.c
    return add.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: excluded[name] for name in _values(table)},
        where=(
            sa.tuple_(old.epoch, old.mirror_seq) <= sa.tuple_(excluded.epoch, excluded.mirror_seq)
        ),
    )


def _plain(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Return the type for a value that has no column yet: text without a length or an order."""
    return sa.Text() if isinstance(kind, sa.String) else kind


def _mysql_insert(table: sa.Table, *, is_upsert: bool) -> sa.Insert:
    add = mysql.insert(table)
    if not is_upsert:
        return add
    new, old = add.inserted, table.c
    is_newer = sa.or_(
        old.epoch < new.epoch, sa.and_(old.epoch == new.epoch, old.mirror_seq <= new.mirror_seq)
    )
    # `epoch` is the last one: then the sequence is compared with the new one, and is equal.
    return add.on_duplicate_key_update(
        [(name, sa.func.if_(is_newer, new[name], old[name])) for name in _values(table)]
    )
