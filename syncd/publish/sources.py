"""The row of a source in the target: its position, and the lease that fences other publishers.

Each transaction that writes begins with `locked`. The lock of the row puts the publishers of one
source in order, and the epoch in it refuses all but one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Connection

from syncd.core.lease import LEASE_S, lease_step
from syncd.core.publishing import Cursor, Freshness, Position, Source, Table
from syncd.errors import TargetFenced
from syncd.publish.schema import Tables, is_mysql


def load(db: Connection, tables: Tables, source: str, *, is_locked: bool = False) -> Source | None:
    """Return the row of a source; None if it does not exist."""
    query = sa.select(tables.sources).where(tables.sources.c.source == source)
    row = db.execute(query.with_for_update() if is_locked else query).one_or_none()
    return None if row is None else _source(row)


def locked(db: Connection, tables: Tables, source: str, mirror: str, epoch: int) -> Source:
    """Lock the row of a source until the end of the transaction; raises TargetFenced."""
    return _held(load(db, tables, source, is_locked=True), mirror, epoch)


def require(db: Connection, tables: Tables, held: Source) -> None:
    """Raise TargetFenced if another publisher has the lease; only reads."""
    _held(load(db, tables, held.source), held.holder, held.epoch)


def acquire(
    db: Connection,
    tables: Tables,
    source: str,
    mirror: str,
    epoch: int | None,
    *,
    host: str | None = None,
    lease_s: float = LEASE_S,
    may_take_old: bool = True,
) -> Source:
    """Return the row of a source with the lease for a mirror; raises TargetFenced.

    `epoch`: of the lease that this process had last; None since its start. `host`: of this process.
    `may_take_old`: a lease whose holder gives no sign of life may be taken.
    """
    table = tables.sources
    new: dict[str, Any] = {"source": source, "seq": 0, "epoch": 0}
    new |= dict.fromkeys(("is_filled", "is_swept", "is_granted"), False)
    if load(db, tables, source) is None:
        add = mysql.insert(table) if is_mysql(tables.dialect) else postgresql.insert(table)
        if isinstance(add, mysql.Insert):
            db.execute(add.on_duplicate_key_update(source=add.inserted.source), new)
        else:
            db.execute(add.on_conflict_do_nothing(), new)
    found = load(db, tables, source, is_locked=True)
    assert found is not None  # noqa: S101 - for mypy
    age_s = _age_s(found.lease_seen_at, clock(db, tables))
    step = lease_step(found, mirror, epoch, age_s, lease_s=lease_s, may_take_old=may_take_old)
    if step == "wait":
        raise _fenced(found)
    if step == "take":
        values = {"holder": mirror, "epoch": found.epoch + 1, "is_granted": False, "host": host}
        update(db, tables, source, values | {"lease_seen_at": tables.now})
        found = load(db, tables, source)
        assert found is not None  # noqa: S101 - for mypy
    return found


def renew(db: Connection, tables: Tables, held: Source) -> Source:
    """Write a sign of life of the holder; raises TargetFenced."""
    assert held.holder is not None  # noqa: S101 - for mypy
    found = locked(db, tables, held.source, held.holder, held.epoch)
    update(db, tables, held.source, {"lease_seen_at": tables.now})
    return found


def release(db: Connection, tables: Tables, held: Source) -> None:
    """Release the lease, so that another publisher takes it at once; raises TargetFenced."""
    renew(db, tables, held)
    update(db, tables, held.source, {"holder": None, "host": None, "is_granted": False})


def grant(
    db: Connection, tables: Tables, source: str, mirror: str, host: str | None = None
) -> Source | None:
    """Give the lease to a mirror, even if another one has it; return the row before, or None."""
    found = load(db, tables, source, is_locked=True)
    if found is not None:
        values = {"holder": mirror, "epoch": found.epoch + 1, "is_granted": True, "host": host}
        update(db, tables, source, values | {"lease_seen_at": tables.now})
    return found


def update(db: Connection, tables: Tables, source: str, values: dict[str, Any]) -> None:
    """Write columns of the row of a source."""
    table = tables.sources
    db.execute(sa.update(table).where(table.c.source == source).values(values))


def position_values(copy: Position | None) -> dict[str, Any]:
    """Return the columns of the position of a copy."""
    return {
        "copy_table": None if copy is None else copy.table,
        "copy_after": None if copy is None else copy.after,
    }


def cursor_values(cursor: Cursor) -> dict[str, Any]:
    """Return the columns of a cursor."""
    return {
        "mirror": cursor.mirror,
        "mirror_seq": cursor.seq,
        "recorded_at": cursor.recorded_at,
    }


def clock(db: Connection, tables: Tables) -> datetime:
    """Return the time of the target."""
    found: datetime = db.execute(sa.select(tables.now)).scalar_one()
    return found


def _held(found: Source | None, mirror: str | None, epoch: int) -> Source:
    if found is None or (found.holder, found.epoch) != (mirror, epoch):
        raise _fenced(found)
    return found


def _fenced(found: Source | None) -> TargetFenced:
    host = None if found is None else found.host
    name = host or (None if found is None else found.holder) or "nobody"
    return TargetFenced(f"another syncd has the lease of this source ({name})", host=host)


def _age_s(seen_at: datetime | None, now: datetime) -> float | None:
    return None if seen_at is None else (now - seen_at).total_seconds()


def _source(row: Any) -> Source:
    table: Table | None = row.copy_table
    return Source(
        source=row.source,
        cursor=None if row.mirror is None else Cursor(row.mirror, row.mirror_seq, row.recorded_at),
        seq=row.seq,
        is_filled=row.is_filled,
        copy=None if table is None else Position(table, row.copy_after),
        is_swept=row.is_swept,
        confirmed_until=row.confirmed_until,
        listings_version=row.listings_version,
        holder=row.holder,
        host=row.host,
        epoch=row.epoch,
        is_granted=row.is_granted,
        lease_seen_at=row.lease_seen_at,
        freshness=Freshness(
            row.last_delivery_at,
            row.last_sweep_finished_at,
            row.oldest_confirmed_at,
            row.webhooks_state or "unknown",
        ),
        daemon_seen_at=row.daemon_seen_at,
    )
