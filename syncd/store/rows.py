"""Rows to records and back; the only place that knows both."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import msgspec

from syncd.core.merge import ValueState
from syncd.core.model import Labels
from syncd.core.records import Change, ChangeSet, ItemState, RefreshRequest, VariantState
from syncd.core.timestamps import from_text, maybe_from_text, maybe_text, to_text

_encode = msgspec.json.encode
_decode_values = msgspec.json.Decoder(tuple[str | None, ...]).decode

_VARIANT_COLUMNS = """
    v.variant_id, v.item_id, v.name, v.color, v.size, v.value, v.conflicting_values, v.sellable,
    v.event_at, v.delivered_at, v.changed_at, v.source,
    CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
         THEN max(v.confirmed_at, coalesce(i.confirmed_at, '')) ELSE v.confirmed_at END,
    i.read_at, v.rule, v.missing_since
"""


def as_json(values: Iterable[object]) -> str:
    """Return a list that SQL unpacks with json_each, so that one statement serves any number."""
    return _encode(list(values)).decode()


def variants_by_id(connection: sqlite3.Connection, ids: Collection[int]) -> dict[int, VariantState]:
    """Load the named variants that the mirror has."""
    return _variants(
        connection.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM json_each(?) j
                JOIN variants v ON v.variant_id = j.value
                LEFT JOIN items i ON i.item_id = v.item_id""",  # noqa: S608 - a constant
            (as_json(ids),),
        )
    )


def variants_of_item(connection: sqlite3.Connection, item_id: int) -> dict[int, VariantState]:
    """Load every variant that the mirror places in an item."""
    return _variants(
        connection.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM variants v
                LEFT JOIN items i ON i.item_id = v.item_id WHERE v.item_id = ?""",  # noqa: S608
            (item_id,),
        )
    )


def all_variants(
    connection: sqlite3.Connection, where: str = "1", values: Mapping[str, object] | None = None
) -> dict[int, VariantState]:
    """Load every variant for which `where`, an expression of ours over `values`, holds."""
    return _variants(
        connection.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM variants v
                LEFT JOIN items i ON i.item_id = v.item_id WHERE {where}""",  # noqa: S608
            values or {},
        )
    )


def next_variants(connection: sqlite3.Connection, after: int, limit: int) -> list[VariantState]:
    """Load the variants whose ids follow `after`, in their order."""
    where = "v.variant_id > :after ORDER BY v.variant_id LIMIT :limit"
    return list(all_variants(connection, where, {"after": after, "limit": limit}).values())


def items_by_id(connection: sqlite3.Connection, ids: Collection[int]) -> dict[int, ItemState]:
    """Load the named items that the mirror has."""
    rows = connection.execute(
        """SELECT i.item_id, i.name, i.confirmed_at, i.read_at, i.is_gone, i.is_read
           FROM json_each(?) j JOIN items i ON i.item_id = j.value""",
        (as_json(ids),),
    )
    return {
        row[0]: ItemState(
            row[0],
            row[1],
            maybe_from_text(row[2]),
            maybe_from_text(row[3]),
            bool(row[4]),
            bool(row[5]),
        )
        for row in rows
    }


def write_observed(connection: sqlite3.Connection, writes: ChangeSet, now: datetime) -> None:
    """Write variants, changes and questions of one judged batch."""
    if writes.refresh_requests:
        _write_questions(connection, writes.refresh_requests.values())
    decided_at = to_text(now)
    if writes.variants:
        connection.executemany(
            """INSERT INTO variants (variant_id, item_id, name, color, size, value,
                   conflicting_values, sellable, event_at, delivered_at, confirmed_at,
                   changed_at, source, rule, missing_since, decided_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (variant_id) DO UPDATE SET
                   name = excluded.name, color = excluded.color, size = excluded.size,
                   value = excluded.value, conflicting_values = excluded.conflicting_values,
                   sellable = excluded.sellable, event_at = excluded.event_at,
                   delivered_at = excluded.delivered_at, confirmed_at = excluded.confirmed_at,
                   changed_at = excluded.changed_at, source = excluded.source,
                   rule = excluded.rule, missing_since = excluded.missing_since,
                   decided_at = excluded.decided_at""",
            [(*_variant_row(state), decided_at) for state in writes.variants.values()],
        )
    # Apart: SQLite writes an index whose column is set, whether it is another value or not.
    connection.executemany(
        "UPDATE variants SET item_id = ? WHERE variant_id = ?",
        [(writes.variants[moved].item_id, moved) for moved in writes.moved_variants],
    )
    if writes.changes:
        connection.executemany(
            """INSERT INTO change_log (variant_id, item_id, old_availability, availability,
                   old_sellable, sellable, cause, rule, missed, during_downtime, occurred_at,
                   recorded_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            map(_change_row, writes.changes),
        )


def put_state(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Keep one value of the daemon's own."""
    connection.execute(
        "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def get_state(connection: sqlite3.Connection, key: str) -> str | None:
    """Return what `put_state` kept."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _write_questions(connection: sqlite3.Connection, requests: Iterable[RefreshRequest]) -> None:
    rows = [
        (q.item_id, maybe_text(q.urgent_at), to_text(q.settle_at), to_text(q.final_at))
        for q in requests
    ]
    connection.executemany(
        "INSERT OR IGNORE INTO items (item_id) VALUES (?)", [(row[0],) for row in rows]
    )
    connection.executemany(
        """INSERT INTO refresh_queue (item_id, urgent_at, settle_at, final_at)
           VALUES (?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET final_at = max(final_at, excluded.final_at)""",
        rows,
    )
    # Apart, and only where it is news, as both have an index (see above).
    connection.executemany(
        """UPDATE refresh_queue
           SET urgent_at = coalesce(?2, urgent_at), settle_at = min(settle_at, ?3)
           WHERE item_id = ?1 AND (urgent_at IS NOT coalesce(?2, urgent_at) OR settle_at > ?3)""",
        [row[:3] for row in rows],
    )


def _variants(rows: Iterable[tuple[object, ...]]) -> dict[int, VariantState]:
    return {state.variant_id: state for state in map(_variant, rows)}


def _variant(row: tuple) -> VariantState:  # type: ignore[type-arg]  # SQLite's own types
    return VariantState(
        variant_id=row[0],
        item_id=row[1],
        labels=Labels(row[2], row[3], row[4]),
        value_state=ValueState(
            value=row[5],
            conflicting_values=() if row[6] is None else _decode_values(row[6]),
            event_at=maybe_from_text(row[8]),
            read_at=maybe_from_text(row[13]),
            delivered_at=maybe_from_text(row[9]),
        ),
        sellable=bool(row[7]),
        changed_at=from_text(row[10]),
        confirmed_at=from_text(row[12]),
        source=row[11],
        rule=row[14],
        missing_since=maybe_from_text(row[15]),
    )


def _variant_row(state: VariantState) -> tuple[object, ...]:
    value_state = state.value_state
    return (
        state.variant_id,
        state.item_id,
        state.labels.name,
        state.labels.color,
        state.labels.size,
        value_state.value,
        _encode(value_state.conflicting_values).decode()
        if value_state.conflicting_values
        else None,
        state.sellable,
        maybe_text(value_state.event_at),
        maybe_text(value_state.delivered_at),
        to_text(state.confirmed_at),
        to_text(state.changed_at),
        state.source,
        state.rule,
        maybe_text(state.missing_since),
    )


def _change_row(change: Change) -> tuple[object, ...]:
    return (
        change.variant_id,
        change.item_id,
        change.old_availability,
        change.availability,
        change.old_sellable,
        change.sellable,
        change.cause,
        change.rule,
        change.missed,
        change.during_downtime,
        to_text(change.occurred_at),
        to_text(change.recorded_at),
    )
