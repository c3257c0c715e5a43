"""The rows of the mirror that a publication compares with its target.

All functions of one round run in one read transaction, so that they see one state of the mirror.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

from msgspec import Struct

from syncd.core.publishing import (
    Change,
    Cursor,
    Freshness,
    Key,
    PlainRow,
    Slice,
    Table,
    clean,
    moment,
)
from syncd.core.timestamps import from_text, to_text
from syncd.store.listings import VERSION_KEY
from syncd.store.pushes import SWEEP_BEFORE_ID, has, mirror_id, newest_seq
from syncd.store.rows import as_json, get_state

# Text in memory at one time: a value may be as long as a delivery.
MAX_BYTES = 4 * 1024 * 1024
_SELECT = {
    "items": """SELECT i.item_id, i.name, i.confirmed_at, i.release_status, i.operational_status,
               i.countries, i.is_blocked, i.read_at FROM {source}""",
    "variants": """SELECT v.variant_id, v.item_id, v.name, v.color, v.size, v.value, v.sellable,
               v.conflicting_values IS NOT NULL,
               v.conflicting_values IS NULL AND v.missing_since IS NULL,
               v.changed_at, v.confirmed_at, v.source, v.cost, v.basic_cost,
               v.event_at FROM {source}""",
    "skus": "SELECT s.sku, s.title, s.variant_id FROM {source}",
}
_KEYS = {"items": ("items i", "i.item_id"), "variants": ("variants v", "v.variant_id")} | {
    "skus": ("skus s", "s.sku")
}
_CHANGE = """SELECT c.seq, c.variant_id, c.item_id, c.old_availability, c.availability,
           c.old_sellable, c.sellable, c.cause, c.missed, c.occurred_at, c.recorded_at"""


class Head(Struct, frozen=True):
    """The state of the mirror as a whole.

    `is_swept`: it has completed a sweep since it has its id. `listings_version`: 0 if it never had
    listings.
    """

    mirror: str
    seq: int
    recorded_at: datetime | None
    is_swept: bool
    listings_version: int

    @property
    def cursor(self) -> Cursor:
        """The position at the end of the feed."""
        return Cursor(self.mirror, self.seq, self.recorded_at)


def head(db: sqlite3.Connection) -> Head:
    """Return the state of the mirror as a whole."""
    seq = newest_seq(db)
    before = int(get_state(db, SWEEP_BEFORE_ID) or 0)
    swept = db.execute(
        """SELECT 1 FROM sweeps WHERE is_catalogue = 1 AND result = 'complete' AND sweep_id > ?
           LIMIT 1""",
        (before,),
    ).fetchone()
    return Head(
        mirror=mirror_id(db) or "",
        seq=seq,
        recorded_at=_recorded_at(db, seq),
        is_swept=swept is not None,
        listings_version=int(get_state(db, VERSION_KEY) or 0),
    )


def has_change(db: sqlite3.Connection, cursor: Cursor) -> bool:
    """Return whether the feed goes on from a position.

    A mirror that was set back with its whole machine has the same id, and another time there.
    """
    return has(db, cursor.seq) and _recorded_at(db, cursor.seq) == cursor.recorded_at


def changes_after(db: sqlite3.Connection, seq: int, most: int) -> list[Change]:
    """Return up to `most` changes after a position, oldest first."""
    found = db.execute(f"{_CHANGE} FROM change_log c WHERE c.seq > ? ORDER BY c.seq", (seq,))
    changes, size = [], 0
    for row in found:
        changes.append(_change(row))
        size += len(row[3] or "") + len(row[4] or "")
        if len(changes) == most or size > MAX_BYTES:
            break
    return changes


def first_waiting_at(db: sqlite3.Connection, seq: int) -> datetime | None:
    """Return when the first change after a position was recorded; None if there is none."""
    found = db.execute(
        "SELECT recorded_at FROM change_log WHERE seq > ? ORDER BY seq LIMIT 1", (seq,)
    ).fetchone()
    return None if found is None else moment(found[0])


def keys_changed_after(db: sqlite3.Connection, seq: int, most: int) -> list[tuple[int, int | None]]:
    """Return the variants and items of up to `most` changes after a position."""
    return db.execute(
        "SELECT variant_id, item_id FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?", (seq, most)
    ).fetchall()


def last_changes(db: sqlite3.Connection, variant_ids: Collection[int]) -> dict[int, Change]:
    """Return the last stored change of each of these variants."""
    found = db.execute(
        f"""{_CHANGE} FROM json_each(?) j JOIN variants v ON v.variant_id = j.value
            JOIN change_log c ON c.seq = v.last_change_seq""",
        (as_json(variant_ids),),
    )
    return {change.variant_id: change for change in map(_change, found)}


def rows_of(db: sqlite3.Connection, table: Table, keys: Iterable[Key]) -> Slice:
    """Return the rows with these keys, in the order of the keys."""
    source, key = _KEYS[table]
    sql = _SELECT[table].format(
        source=f"json_each(?) j CROSS JOIN {source} ON {key} = j.value ORDER BY {key}"
    )
    return Slice(table, list(map(_ROWS[table], db.execute(sql, (as_json(keys),)))))


def range_of(
    db: sqlite3.Connection, table: Table, after: Key | None, most: int, *, until: Key | None = None
) -> Slice:
    """Return up to `most` rows after a key and not after `until`, in the order of the keys."""
    source, key = _KEYS[table]
    first: Key = after if after is not None else ("" if table == "skus" else 0)
    condition, values = f"{key} > ?", [first]
    if until is not None:
        condition, values = f"{condition} AND {key} <= ?", [first, until]
    sql = _SELECT[table].format(source=f"{source} WHERE {condition} ORDER BY {key} LIMIT ?")
    rows, size = [], 0
    is_end = True
    for row in db.execute(sql, (*values, most)):
        rows.append(_ROWS[table](row))
        size += sum(len(value) for value in row if isinstance(value, str))
        if len(rows) == most or size > MAX_BYTES:
            is_end = False
            break
    end = None if is_end else rows[-1][0]
    return Slice(table, rows, is_range=True, after=after, end=end)


def confirmed_since(db: sqlite3.Connection, since: datetime) -> list[tuple[int, str]]:
    """Return the items whose last read began at or after a time, each with this time."""
    return db.execute(
        "SELECT item_id, confirmed_at FROM items WHERE confirmed_at >= ? ORDER BY confirmed_at",
        (to_text(since),),
    ).fetchall()


def variants_of(db: sqlite3.Connection, item_id: int) -> list[int]:
    """Return the variants of an item."""
    found = db.execute("SELECT variant_id FROM variants WHERE item_id = ?", (item_id,))
    return [row[0] for row in found]


def freshness(db: sqlite3.Connection) -> Freshness:
    """Return the row of the view, without the sign of life."""
    row = db.execute(
        """SELECT last_delivery_at, last_sweep_finished_at, oldest_confirmed_at, webhooks_state
           FROM freshness"""
    ).fetchone()
    return Freshness(moment(row[0]), moment(row[1]), moment(row[2]), row[3])


def _recorded_at(db: sqlite3.Connection, seq: int) -> datetime | None:
    found = db.execute("SELECT recorded_at FROM change_log WHERE seq = ?", (seq,)).fetchone()
    return None if found is None else from_text(found[0])


def _change(row: tuple[Any, ...]) -> Change:
    seq, variant_id, item_id = row[:3]
    return Change(
        seq,
        variant_id,
        item_id,
        clean(row[3]),
        clean(row[4]),
        bool(row[5]),
        bool(row[6]),
        row[7],
        bool(row[8]),
        from_text(row[9]),
        from_text(row[10]),
    )


def _item(row: tuple[Any, ...]) -> PlainRow:
    return (
        row[0],
        clean(row[1]),
        moment(row[2]),
        clean(row[3]),
        clean(row[4]),
        clean(row[5]),
        bool(row[6]),
        moment(row[7]),
    )


def _variant(row: tuple[Any, ...]) -> PlainRow:
    return (
        row[0],
        row[1],
        clean(row[2]),
        clean(row[3]),
        clean(row[4]),
        clean(row[5]),
        bool(row[6]),
        bool(row[7]),
        bool(row[8]),
        from_text(row[9]),
        from_text(row[10]),
        row[11],
        clean(row[12]),
        clean(row[13]),
        moment(row[14]),
    )


def _sku(row: tuple[Any, ...]) -> PlainRow:
    return (clean(row[0]), clean(row[1]), row[2])


_ROWS: dict[str, Callable[[tuple[Any, ...]], PlainRow]] = {
    "items": _item,
    "variants": _variant,
    "skus": _sku,
}
