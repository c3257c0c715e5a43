"""Converts rows to records and back. Only this module has the columns of a variant."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from syncd.core.merge import ValueState
from syncd.core.model import ItemDetails, VariantDetails
from syncd.core.records import Change, ChangeSet, ItemState, RefreshRequest, VariantState
from syncd.core.timestamps import from_text, maybe_from_text, maybe_text, to_text
from syncd.store import chains
from syncd.store.chains import Heads

# How much later the last read of a busy item may be, as a share of `reconcile.settle`.
SPARE_SHARE = 0.25
_encode = msgspec.json.encode
_decode_values = msgspec.json.Decoder(tuple[str | None, ...]).decode
_decode_texts = msgspec.json.Decoder(tuple[str, ...]).decode

_VARIANT_COLUMNS = """
    v.variant_id, v.item_id, v.name, v.color, v.size, v.value, v.conflicting_values, v.sellable,
    v.event_at, v.delivered_at, v.changed_at, v.source,
    CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
         THEN max(v.confirmed_at, coalesce(i.confirmed_at, '')) ELSE v.confirmed_at END,
    i.read_at, v.rule, v.missing_since, v.cost, v.basic_cost, i.is_blocked
"""


def as_json(values: Iterable[object]) -> str:
    """Return values as a JSON list: with `json_each`, one statement takes any number of them."""
    return _encode(list(values)).decode()


def variants_by_id(db: sqlite3.Connection, ids: Collection[int]) -> dict[int, VariantState]:
    """Load the variants with these ids; unknown ids are left out."""
    return _variants(
        db.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM json_each(?) j
                JOIN variants v ON v.variant_id = j.value
                LEFT JOIN items i ON i.item_id = v.item_id""",  # noqa: S608 - a constant
            (as_json(ids),),
        )
    )


def variants_of_item(db: sqlite3.Connection, item_id: int) -> dict[int, VariantState]:
    """Load each variant whose stored item is this one."""
    return _variants(
        db.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM variants v
                LEFT JOIN items i ON i.item_id = v.item_id WHERE v.item_id = ?""",  # noqa: S608
            (item_id,),
        )
    )


def variants_where(
    db: sqlite3.Connection, where: str, values: Mapping[str, object] | None = None
) -> dict[int, VariantState]:
    """Load each variant for which `where` is true: a constant SQL expression over `values`."""
    return _variants(
        db.execute(
            f"""SELECT {_VARIANT_COLUMNS} FROM variants v
                LEFT JOIN items i ON i.item_id = v.item_id WHERE {where}""",  # noqa: S608
            values or {},
        )
    )


def next_variants(db: sqlite3.Connection, after: int, limit: int) -> list[VariantState]:
    """Load the next `limit` variants after the id `after`, in the order of their ids."""
    where = "v.variant_id > :after ORDER BY v.variant_id LIMIT :limit"
    return list(variants_where(db, where, {"after": after, "limit": limit}).values())


def items_by_id(db: sqlite3.Connection, ids: Collection[int]) -> dict[int, ItemState]:
    """Load the items with these ids; unknown ids are left out."""
    rows = db.execute(
        """SELECT i.item_id, i.name, i.confirmed_at, i.read_at, i.is_gone, i.is_read,
               i.release_status, i.operational_status, i.countries, i.is_blocked
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
            ItemDetails(row[6], row[7], None if row[8] is None else _decode_texts(row[8])),
            bool(row[9]),
        )
        for row in rows
    }


def save(
    db: sqlite3.Connection,
    change_set: ChangeSet,
    now: datetime,
    heads: Mapping[int, Heads] | None = None,
) -> None:
    """Save the variants, the changes and the requests to read of a change set.

    `heads`: of the chains of these variants, if the caller has added deliveries to them.
    """
    if change_set.refresh_requests:
        _save_requests(db, list(change_set.refresh_requests.values()), now)
    if change_set.variants:
        heads = chains.heads(db, change_set.variants) if heads is None else heads
        _save_changes(db, change_set.changes, heads)
        _save_variants(db, change_set.variants.values(), now, heads)
    # A statement of its own: SQLite writes the index of each column that is set, even to the same
    # value.
    db.executemany(
        "UPDATE variants SET item_id = ? WHERE variant_id = ?",
        [(change_set.variants[moved].item_id, moved) for moved in change_set.moved_variants],
    )


def put_state(db: sqlite3.Connection, key: str, value: str) -> None:
    """Store one value of the state of the daemon."""
    db.execute(
        "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def get_state(db: sqlite3.Connection, key: str) -> str | None:
    """Return a value that `put_state` stored."""
    row = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _save_variants(
    db: sqlite3.Connection,
    states: Iterable[VariantState],
    now: datetime,
    heads: Mapping[int, Heads],
) -> None:
    decided_at = to_text(now)
    db.executemany(
        """INSERT INTO variants (variant_id, item_id, name, color, size, value, conflicting_values,
               sellable, event_at, delivered_at, confirmed_at, changed_at, source, rule,
               missing_since, cost, basic_cost, decided_at, last_delivery_id, last_change_seq)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (variant_id) DO UPDATE SET
               name = excluded.name, color = excluded.color, size = excluded.size,
               value = excluded.value, conflicting_values = excluded.conflicting_values,
               sellable = excluded.sellable, event_at = excluded.event_at,
               delivered_at = excluded.delivered_at, confirmed_at = excluded.confirmed_at,
               changed_at = excluded.changed_at, source = excluded.source,
               rule = excluded.rule, missing_since = excluded.missing_since,
               cost = excluded.cost, basic_cost = excluded.basic_cost,
               decided_at = excluded.decided_at, last_delivery_id = excluded.last_delivery_id,
               last_change_seq = excluded.last_change_seq""",
        [
            (*_variant_row(state), decided_at, head.delivery_id, head.seq)
            for state in states
            for head in (heads[state.variant_id],)
        ],
    )


def _save_changes(
    db: sqlite3.Connection, changes: Sequence[Change], heads: Mapping[int, Heads]
) -> None:
    """Add changes to the feed, and each one to the chain of its variant."""
    if not changes:
        return
    added = []
    for seq, change in enumerate(changes, chains.next_seq(db)):
        head = heads[change.variant_id]
        added.append((seq, head.seq, *_change_row(change)))
        head.seq = seq
    db.executemany(
        """INSERT INTO change_log (seq, previous_seq, variant_id, item_id, old_availability,
               availability, old_sellable, sellable, cause, rule, missed, during_downtime,
               occurred_at, recorded_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        added,
    )


def _save_requests(
    db: sqlite3.Connection, requests: Sequence[RefreshRequest], now: datetime
) -> None:
    """Merge requests with the queue, and write the rows that change.

    A second delivery of an item moves `final_at` by more than it needs, so that most of the
    deliveries that follow write nothing here. The last read of a busy item is that much later.
    """
    stored = {
        row[0]: row[1:]
        for row in db.execute(
            """SELECT q.item_id, q.urgent_at, q.settle_at, q.final_at
               FROM json_each(?) j JOIN refresh_queue q ON q.item_id = j.value""",
            (as_json(one.item_id for one in requests),),
        )
    }
    added, changed = [], []
    for one in requests:
        urgent_at, settle_at = maybe_text(one.urgent_at), to_text(one.settle_at)
        final_at = to_text(one.final_at)
        before = stored.get(one.item_id)
        if before is None:
            added.append((one.item_id, urgent_at, settle_at, final_at))
            continue
        if final_at > before[2]:
            final_at = to_text(one.final_at + SPARE_SHARE * max(timedelta(), one.final_at - now))
        after = (
            urgent_at or before[0],
            min(settle_at, before[1]),
            max(final_at, before[2]),
        )
        if after != before:
            changed.append((*after, one.item_id))
    db.executemany("INSERT OR IGNORE INTO items (item_id) VALUES (?)", [row[:1] for row in added])
    db.executemany("INSERT INTO refresh_queue VALUES (?, ?, ?, ?)", added)
    db.executemany(
        """UPDATE refresh_queue SET urgent_at = ?, settle_at = ?, final_at = ?
           WHERE item_id = ?""",
        changed,
    )


def _variants(rows: Iterable[tuple[object, ...]]) -> dict[int, VariantState]:
    return {state.variant_id: state for state in map(_variant, rows)}


def _variant(row: tuple) -> VariantState:  # type: ignore[type-arg]  # SQLite has types of its own
    return VariantState(
        variant_id=row[0],
        item_id=row[1],
        details=VariantDetails(row[2], row[3], row[4], row[16], row[17]),
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
        is_blocked=bool(row[18]),
    )


def _variant_row(state: VariantState) -> tuple[object, ...]:
    value_state = state.value_state
    return (
        state.variant_id,
        state.item_id,
        state.details.name,
        state.details.color,
        state.details.size,
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
        state.details.cost,
        state.details.basic_cost,
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
