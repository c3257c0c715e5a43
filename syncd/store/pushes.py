"""The positions of the pushes in the change feed, and the batches that follow them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable

from msgspec import json
from msgspec.structs import astuple, replace

from syncd.core.model import Row
from syncd.core.pushes import END, Cursor, Step
from syncd.store import views
from syncd.store.history import dicts
from syncd.store.listings import VERSION_KEY
from syncd.store.rows import get_state, put_state

# The key of the id of a mirror. `backup` removes it from the copy: a mirror that was restored is
# another mirror, and has changes with the same `seq`.
MIRROR_ID = "mirror_id"
_MIRROR_INODE = "mirror_inode"
# The last sweep before the mirror got its id: a restored backup has sweeps of another mirror.
SWEEP_BEFORE_ID = "sweep_before_mirror_id"
# Changes of one query, most of which a push of the listings may skip.
SCANNED = 5_000
# The availability of one variant may be as long as a delivery, and a batch is in memory.
MAX_BATCH_BYTES = 1024 * 1024

_SKUS = """(SELECT json_group_array(sku) FROM
               (SELECT sku FROM skus WHERE variant_id = {id} ORDER BY sku))"""
# The tables instead of the view `availability`: SQLite computes the whole view for each statement
# that joins it with LEFT JOIN.
_NOW = f"""CASE WHEN v.variant_id IS NULL THEN 'unknown' ELSE
            {views.REASON} END"""
_CHANGES = f"""
    SELECT c.seq, c.variant_id, c.item_id, {_SKUS.format(id="c.variant_id")} AS skus,
           c.old_availability, c.availability, c.old_sellable, c.sellable, {_NOW} AS reason,
           c.cause, c.missed, c.occurred_at, c.recorded_at
    FROM change_log c LEFT JOIN variants v ON v.variant_id = c.variant_id
         LEFT JOIN items i ON i.item_id = v.item_id
    WHERE c.seq > :after AND c.seq <= :until
      AND (:only = 'all' OR EXISTS (SELECT 1 FROM skus WHERE variant_id = c.variant_id))
    ORDER BY c.seq LIMIT :limit"""  # noqa: S608 - constants
# `seq` is the last change of the variant that the row contains.
_COPY = f"""
    SELECT v.last_change_seq AS seq, ids.variant_id, v.item_id,
           {_SKUS.format(id="ids.variant_id")} AS skus,
           NULL AS old_availability, v.value AS availability, 0 AS old_sellable,
           coalesce(v.sellable, 0) AS sellable, {_NOW} AS reason,
           NULL AS cause, 0 AS missed, v.changed_at AS occurred_at, NULL AS recorded_at
    FROM (SELECT DISTINCT variant_id FROM {{table}}
          WHERE variant_id > :after AND variant_id <= :until
          ORDER BY variant_id LIMIT :limit) ids
    LEFT JOIN variants v ON v.variant_id = ids.variant_id
    LEFT JOIN items i ON i.item_id = v.item_id
    ORDER BY ids.variant_id"""  # noqa: S608 - constants
_COPIES = {"all": _COPY.format(table="variants"), "listings": _COPY.format(table="skus")}


def identify(db: sqlite3.Connection, inode: int) -> None:
    """Give the mirror a new id if it has none, or if it is a copy of the file that had the id."""
    if get_state(db, MIRROR_ID) and get_state(db, _MIRROR_INODE) == str(inode):
        return
    put_state(db, MIRROR_ID, secrets.token_hex(16))
    put_state(db, _MIRROR_INODE, str(inode))
    last = db.execute("SELECT coalesce(max(sweep_id), 0) FROM sweeps").fetchone()[0]
    put_state(db, SWEEP_BEFORE_ID, str(last))


def mirror_id(db: sqlite3.Connection) -> str | None:
    """Return the id of the mirror; None before the first start of a daemon that gives ids."""
    return get_state(db, MIRROR_ID)


def load(db: sqlite3.Connection, name: str) -> Cursor | None:
    """Return the position of a push; None if it has none yet."""
    columns = ", ".join(Cursor.__struct_fields__)
    found = db.execute(f"SELECT {columns} FROM pushes WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constants
    return None if found is None else Cursor(*found)


def save(db: sqlite3.Connection, cursor: Cursor) -> None:
    """Store the position of a push."""
    columns = ", ".join(Cursor.__struct_fields__)
    places = ", ".join("?" * len(Cursor.__struct_fields__))
    db.execute(
        f"INSERT OR REPLACE INTO pushes ({columns}) VALUES ({places})",  # noqa: S608 - constants
        astuple(cursor),
    )


def go_on_from(db: sqlite3.Connection, name: str, only: str, seq: int) -> None:
    """Let a push continue after a change; 0, or a change that is not stored: with a full copy.

    This decides at once: a change of the future would be stored soon, and those before it be lost.
    """
    before = load(db, name)
    save(
        db,
        Cursor(
            name=name,
            # A position of no mirror is not valid, and so leads to a full copy.
            mirror=(mirror_id(db) or "") if seq and has(db, seq) else "",
            only=only,
            listings=_listings(db),
            run=1 if before is None else before.run + 1,
            seq=seq,
        ),
    )


def newest_seq(db: sqlite3.Connection) -> int:
    """Return the last `seq` of the feed, 0 if it is empty."""
    found: int = db.execute("SELECT coalesce(max(seq), 0) FROM change_log").fetchone()[0]
    return found


def has(db: sqlite3.Connection, seq: int) -> bool:
    """Return whether the feed has every change after a `seq`.

    Retention keeps the last change before the ones it keeps, so the feed has a valid position
    itself. A position before the first change is valid while that change is stored.
    """
    if seq == 0:
        oldest = db.execute("SELECT min(seq) FROM change_log").fetchone()[0]
        return oldest is None or oldest == 1
    return db.execute("SELECT 1 FROM change_log WHERE seq = ?", (seq,)).fetchone() is not None


def next_step(
    db: sqlite3.Connection, name: str, cursor: Cursor | None, *, only: str, most: int
) -> Step:
    """Return the next batch of a push, of up to `most` changes, from one state of the mirror."""
    db.execute("BEGIN")
    try:
        return _next_step(db, name, cursor, only, most)
    finally:
        db.execute("COMMIT")


def _next_step(
    db: sqlite3.Connection, name: str, cursor: Cursor | None, only: str, most: int
) -> Step:
    if cursor is None or not _is_valid(db, cursor, only):
        cursor = Cursor(
            name=name,
            mirror=mirror_id(db) or "",
            only=only,
            listings=_listings(db),
            run=1 if cursor is None else cursor.run + 1,
            seq=newest_seq(db),
            copied=0,
        )
    if cursor.copied is not None:
        return _copy(db, cursor, most)
    if cursor.pending is not None:
        return Step(cursor, _rows(db, _CHANGES, cursor, cursor.pending, most=-1))
    scanned = db.execute(
        """SELECT max(seq), count(*) FROM
           (SELECT seq FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?)""",
        (cursor.seq, SCANNED),
    ).fetchone()
    if not scanned[1]:
        return Step(cursor)
    rows = _rows(db, _CHANGES, cursor, scanned[0], most=most)
    if not rows:
        return Step(replace(cursor, seq=scanned[0]))
    return Step(replace(cursor, pending=rows[-1]["seq"]), rows)


def _copy(db: sqlite3.Connection, cursor: Cursor, most: int) -> Step:
    sql = _COPIES[cursor.only]
    if cursor.pending is not None:
        rows = [] if cursor.pending == END else _rows(db, sql, cursor, cursor.pending, most=-1)
        return Step(cursor, rows)
    rows = _rows(db, sql, cursor, END, most=most)
    return Step(replace(cursor, pending=rows[-1]["variant_id"] if rows else END), rows)


def _is_valid(db: sqlite3.Connection, cursor: Cursor, only: str) -> bool:
    """Return whether the feed goes on from a position; if not, the push needs a full copy."""
    if cursor.mirror != mirror_id(db) or cursor.only != only or not has(db, cursor.seq):
        return False
    # A change of the listings is no change of the feed. A copy that runs ends first.
    is_of_these = only == "all" or cursor.listings == _listings(db)
    return is_of_these or cursor.copied is not None or cursor.pending is not None


def _rows(db: sqlite3.Connection, sql: str, cursor: Cursor, until: int, *, most: int) -> list[Row]:
    """Return the rows of a batch; `most` -1: all of a batch whose end is known already."""
    bounds = {"after": cursor.after, "until": until, "limit": most, "only": cursor.only}
    found = db.execute(sql, bounds)
    names = [column[0] for column in found.description]
    rows, size = [], 0
    for values in found:
        row = dict(zip(names, values, strict=True))
        row["skus"] = json.decode(row["skus"])
        rows.append(row)
        size += sum(len(value) for value in values if isinstance(value, str))
        if size > MAX_BATCH_BYTES and most > 0:
            break
    return rows


def _listings(db: sqlite3.Connection) -> int:
    return int(get_state(db, VERSION_KEY) or 0)


def positions(db: sqlite3.Connection, names: Iterable[str]) -> list[Row]:
    """Return the position of each push by name, and its distance to the newest change."""
    newest = newest_seq(db)
    found = {row["name"]: row for row in dicts(db.execute("SELECT * FROM pushes"))}
    return [
        {
            "name": name,
            "seq": (row := found.get(name, {})).get("seq"),
            "lag_changes": newest - row["seq"] if row else newest,
            "copying": row.get("copied") is not None,
        }
        for name in names
    ]
