"""What sweeps do not find: kept until the sweep ends, and weighed there all together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime

from syncd.state import AbsenceMode, VariantState, Writes
from syncd.store import rows
from syncd.timestamps import to_text

# As `observations.remove` and `observations.lift` are, the policy and the moment given.
Resolve = Callable[[Iterable[VariantState]], Writes]
# As `Policy.brakes` is.
Brakes = Callable[[int, int], bool]


def mode(connection: sqlite3.Connection, item_id: int, began_at: str) -> AbsenceMode:
    """Return what it means that a read of this item, begun at `began_at`, misses a variant."""
    row = connection.execute(
        """SELECT min(w.is_braked) FROM sweep_items s JOIN sweeps w ON w.sweep_id = s.sweep_id
           WHERE s.item_id = ? AND s.state != 'done' AND w.ended_at IS NULL
             AND w.began_at <= ?""",
        (item_id, began_at),
    ).fetchone()
    if row[0] is None:
        return "removes"
    return "is-noted" if row[0] else "doubts"


def brake(connection: sqlite3.Connection, brakes: Brakes, lift: Resolve, now: datetime) -> None:
    """Stop doubting in every open sweep that already misses too much to be believed."""
    for sweep_id, accepts in connection.execute(
        "SELECT sweep_id, accepts_removals FROM sweeps WHERE ended_at IS NULL AND is_braked = 0"
    ).fetchall():
        absent = _absent(connection, sweep_id)
        # Counting the mirror takes a while; a few brake nothing, however small it is.
        if not accepts and brakes(len(absent), 0) and brakes(len(absent), _mirrored(connection)):
            connection.execute("UPDATE sweeps SET is_braked = 1 WHERE sweep_id = ?", (sweep_id,))
            rows.write_observed(connection, lift(absent), now)


def resolve(
    connection: sqlite3.Connection,
    sweep_id: int,
    brakes: Brakes,
    *,
    remove: Resolve,
    lift: Resolve,
    now: datetime,
) -> None:
    """End the doubts of a sweep that ends: remove what it did not find, or believe none of it."""
    absent = _absent(connection, sweep_id)
    if not absent:
        return
    (accepts,) = connection.execute(
        "SELECT accepts_removals FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if not accepts and brakes(len(absent), _mirrored(connection)):
        rows.write_observed(connection, lift(absent), now)
        connection.execute("UPDATE sweeps SET held = ? WHERE sweep_id = ?", (len(absent), sweep_id))
        return
    writes = remove(absent)
    rows.write_observed(connection, writes, now)
    connection.execute(
        "UPDATE sweeps SET removed = removed + ? WHERE sweep_id = ?",
        (len(writes.variants), sweep_id),
    )


def give_up(connection: sqlite3.Connection, sweep_id: int, lift: Resolve, now: datetime) -> None:
    """Have the source asked, item by item, about what a sweep did not find that ends too soon."""
    absent = _absent(connection, sweep_id)
    (is_braked,) = connection.execute(
        "SELECT is_braked FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if is_braked:
        rows.write_observed(connection, lift(absent), now)
        return
    connection.executemany(
        """INSERT INTO refresh_queue (item_id, asked_at, settle_at, latest_at)
           VALUES (?1, ?2, ?2, ?2)
           ON CONFLICT (item_id) DO UPDATE SET asked_at = excluded.asked_at""",
        {(state.item_id, to_text(now)) for state in absent if state.item_id is not None},
    )


def _absent(connection: sqlite3.Connection, sweep_id: int) -> list[VariantState]:
    return list(
        rows.all_variants(
            connection,
            """v.absent_at >= (SELECT began_at FROM sweeps WHERE sweep_id = :sweep_id)
               AND v.item_id IN (SELECT item_id FROM sweep_items WHERE sweep_id = :sweep_id)""",
            {"sweep_id": sweep_id},
        ).values()
    )


def _mirrored(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM variants WHERE value IS NOT NULL").fetchone()
    return int(row[0])
