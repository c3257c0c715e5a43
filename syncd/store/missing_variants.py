"""What sweeps do not find: kept until the sweep ends, and weighed there all together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from syncd.core.records import AbsenceMode, ChangeSet, VariantState
from syncd.core.timestamps import to_text
from syncd.store import rows

# As `remove_missing` and `restore_unconfirmed` are, the policy and the moment given.
Resolve = Callable[[Iterable[VariantState]], ChangeSet]
# The time within which removals are counted together (syncd/docs/reconciling.md, rule 6).
REMOVAL_WINDOW = timedelta(days=1)

# As `Policy.brakes` is.
Brakes = Callable[[int, int], bool]


def mode(
    connection: sqlite3.Connection,
    item_id: int,
    began_at: str,
    *,
    absent: int,
    blocks_removals: Brakes,
    now: datetime,
) -> AbsenceMode:
    """Return what it means that a read of this item misses `absent` variants.

    A read of no sweep, begun at `began_at`, removes them at once, unless too many were removed
    within a day: what would empty a shop item by item waits for an operator as well.
    """
    row = connection.execute(
        """SELECT min(w.removals_blocked)
           FROM sweep_items s JOIN sweeps w ON w.sweep_id = s.sweep_id
           WHERE s.item_id = ? AND s.state != 'done' AND w.ended_at IS NULL
             AND w.began_at <= ?""",
        (item_id, began_at),
    ).fetchone()
    if row[0] is None:
        return (
            "record"
            if absent and _is_too_much(connection, absent, blocks_removals, now)
            else "remove"
        )
    return "record" if row[0] else "mark"


def brake(
    connection: sqlite3.Connection, blocks_removals: Brakes, lift: Resolve, now: datetime
) -> None:
    """Stop doubting in every open sweep that already misses too much to be believed."""
    for sweep_id, accepts in connection.execute(
        """SELECT sweep_id, accepts_removals FROM sweeps
           WHERE ended_at IS NULL AND removals_blocked = 0"""
    ).fetchall():
        absent = _absent(connection, sweep_id)
        if absent and not accepts and _is_too_much(connection, len(absent), blocks_removals, now):
            connection.execute(
                "UPDATE sweeps SET removals_blocked = 1 WHERE sweep_id = ?", (sweep_id,)
            )
            rows.write_observed(connection, lift(absent), now)


def resolve(
    connection: sqlite3.Connection,
    sweep_id: int,
    blocks_removals: Brakes,
    *,
    remove: Resolve,
    lift: Resolve,
    now: datetime,
) -> None:
    """At the end of a sweep, remove its missing variants, or none of them if they are too many."""
    absent = _absent(connection, sweep_id)
    if not absent:
        return
    (accepts,) = connection.execute(
        "SELECT accepts_removals FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if not accepts and _is_too_much(connection, len(absent), blocks_removals, now):
        rows.write_observed(connection, lift(absent), now)
        connection.execute(
            "UPDATE sweeps SET removals_held = ? WHERE sweep_id = ?", (len(absent), sweep_id)
        )
        return
    writes = remove(absent)
    rows.write_observed(connection, writes, now)
    if accepts:
        rows.put_state(connection, "removals_accepted_at", to_text(now))
    connection.execute(
        "UPDATE sweeps SET removed = removed + ? WHERE sweep_id = ?",
        (len(writes.variants), sweep_id),
    )


def give_up(connection: sqlite3.Connection, sweep_id: int, lift: Resolve, now: datetime) -> None:
    """Have the source asked, item by item, about what a sweep did not find that ends too soon."""
    absent = _absent(connection, sweep_id)
    (removals_blocked,) = connection.execute(
        "SELECT removals_blocked FROM sweeps WHERE sweep_id = ?", (sweep_id,)
    ).fetchone()
    if removals_blocked:
        rows.write_observed(connection, lift(absent), now)
        return
    connection.executemany(
        """INSERT INTO refresh_queue (item_id, urgent_at, settle_at, final_at)
           VALUES (?1, ?2, ?2, ?2)
           ON CONFLICT (item_id) DO UPDATE SET urgent_at = excluded.urgent_at""",
        {(state.item_id, to_text(now)) for state in absent if state.item_id is not None},
    )


def _is_too_much(
    connection: sqlite3.Connection, absent: int, blocks_removals: Brakes, now: datetime
) -> bool:
    """Tell whether so many more removals are not believed, after those of the last day.

    Removals that an operator accepted do not count, and neither do variants that are back.
    """
    accepted_at = rows.get_state(connection, "removals_accepted_at") or ""
    since = max(to_text(now - REMOVAL_WINDOW), accepted_at)
    removed = connection.execute(
        """SELECT count(DISTINCT c.variant_id) FROM change_log c
           JOIN variants v ON v.variant_id = c.variant_id AND v.value IS NULL
           WHERE c.availability IS NULL AND c.recorded_at > ? AND c.cause = 'read'""",
        (since,),
    ).fetchone()[0]
    lost = absent + removed
    return blocks_removals(lost, _mirrored(connection, at_most=100 * lost + 1) + removed)


def _absent(connection: sqlite3.Connection, sweep_id: int) -> list[VariantState]:
    return list(
        rows.all_variants(
            connection,
            # By the index of what is absent, which is little: a damaged page of any other variant
            # must not keep a sweep from its end.
            """v.missing_since >= (SELECT began_at FROM sweeps WHERE sweep_id = :sweep_id)
               AND +v.item_id IN (SELECT item_id FROM sweep_items WHERE sweep_id = :sweep_id)""",
            {"sweep_id": sweep_id},
        ).values()
    )


def _mirrored(connection: sqlite3.Connection, *, at_most: int) -> int:
    """Count what is not removed; no further than can matter, for counting all takes a while."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM variants WHERE value IS NOT NULL LIMIT ?)", (at_most,)
    ).fetchone()
    return int(row[0])
