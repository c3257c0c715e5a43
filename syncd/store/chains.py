"""The history of a variant as two chains: its deliveries and its changes.

The row of a variant has the id of its last delivery and of its last change, and each of these rows
has the id of the one before. An index by variant would write one page at a random place for every
delivery. A chain only writes to rows that are written anyway.

The chain of deliveries has the deliveries with a rule: only these changed or confirmed a variant.
The index `deliveries_without_rule` finds the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from msgspec import Struct, json

# A copy of a delivery is looked for among this many of the newest deliveries of its variant. The
# rule of merging treats a copy correctly even if it is not found.
COPY_DEPTH = 64


class Heads(Struct):
    """The ids of the last delivery and of the last change of a variant; None: it has none."""

    delivery_id: int | None = None
    seq: int | None = None


def heads(db: sqlite3.Connection, variant_ids: Collection[int]) -> dict[int, Heads]:
    """Return the heads of both chains for each of these variants."""
    found = db.execute(
        """SELECT v.variant_id, v.last_delivery_id, v.last_change_seq
           FROM json_each(?) j JOIN variants v ON v.variant_id = j.value""",
        (json.encode(list(variant_ids)).decode(),),
    )
    stored = {variant_id: Heads(delivery_id, seq) for variant_id, delivery_id, seq in found}
    return {variant_id: stored.get(variant_id) or Heads() for variant_id in variant_ids}


def next_delivery_id(db: sqlite3.Connection) -> int:
    """Return the id of the next delivery; no id is given twice."""
    return _next_id(db, "SELECT max(delivery_id) FROM deliveries", "last_id_0_1_deliveries")


def next_seq(db: sqlite3.Connection) -> int:
    """Return the `seq` of the next change; no `seq` is given twice."""
    return _next_id(db, "SELECT max(seq) FROM change_log", "last_id_0_1_change_log")


def _next_id(db: sqlite3.Connection, last: str, state_key: str) -> int:
    # The newest row is never deleted. Version 0.1.0 deleted it, so its last id counts as well.
    (newest,) = db.execute(last).fetchone()
    before = db.execute("SELECT value FROM state WHERE key = ?", (state_key,)).fetchone()
    return max(newest or 0, 0 if before is None else int(before[0])) + 1


def stored_copies(
    db: sqlite3.Connection, named: Collection[tuple[int, str]]
) -> list[tuple[int, str, str]]:
    """Return (delivery_id, event_id, content_key) of recent deliveries with the same event id.

    `named` has the variant and the event id of each delivery that may be a copy.
    """
    return db.execute(
        """WITH RECURSIVE chain (event_id, delivery_id, depth) AS (
               SELECT json_extract(j.value, '$[1]'), v.last_delivery_id, 1
               FROM json_each(?1) j JOIN variants v ON v.variant_id = json_extract(j.value, '$[0]')
               WHERE v.last_delivery_id IS NOT NULL
               UNION ALL
               SELECT c.event_id, d.previous_delivery_id, c.depth + 1
               FROM chain c JOIN deliveries d ON d.delivery_id = c.delivery_id
               WHERE d.previous_delivery_id IS NOT NULL AND c.depth < ?2)
           SELECT d.delivery_id, d.event_id, d.content_key FROM chain c
           JOIN deliveries d ON d.delivery_id = c.delivery_id AND d.event_id = c.event_id""",
        (json.encode(list(named)).decode(), COPY_DEPTH),
    ).fetchall()


def insert_delivery(db: sqlite3.Connection, variant_id: int, delivery_id: int) -> None:
    """Add a stored delivery to the chain of its variant, at its place in the order of ids."""
    (newer,) = db.execute(
        "SELECT last_delivery_id FROM variants WHERE variant_id = ?", (variant_id,)
    ).fetchone()
    if newer is None or newer < delivery_id:
        older = newer
        db.execute(
            "UPDATE variants SET last_delivery_id = ? WHERE variant_id = ?",
            (delivery_id, variant_id),
        )
    else:
        while (older := _previous(db, newer)) is not None and older > delivery_id:
            newer = older
        if delivery_id in {newer, older}:
            return
        _set_previous(db, newer, delivery_id)
    _set_previous(db, delivery_id, older)


def _previous(db: sqlite3.Connection, delivery_id: int) -> int | None:
    row = db.execute(
        "SELECT previous_delivery_id FROM deliveries WHERE delivery_id = ?", (delivery_id,)
    ).fetchone()
    return None if row is None else row[0]


def _set_previous(db: sqlite3.Connection, delivery_id: int, previous: int | None) -> None:
    db.execute(
        "UPDATE deliveries SET previous_delivery_id = ? WHERE delivery_id = ?",
        (previous, delivery_id),
    )
