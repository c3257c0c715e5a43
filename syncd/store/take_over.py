"""Stores the rows of a published target in a mirror that goes on from them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from syncd.core.changes import add_change, request_refresh
from syncd.core.merge import ValueState
from syncd.core.model import ItemDetails, VariantDetails
from syncd.core.policy import Policy
from syncd.core.publishing import Cursor, PlainRow, Slice, Source
from syncd.core.records import ChangeSet, VariantState
from syncd.core.timestamps import maybe_text, to_text
from syncd.store import publishing, rows
from syncd.store.catch_up import last_delivery_at
from syncd.store.rows import get_state, put_state

# Rows of one transaction. No delivery waits for it, but a heartbeat does.
SLICE = 2_000
# If more rows of the mirror differ from the target after a copy, all rows are compared.
MOST_UNEQUAL = 5_000
# The age, against the newest event, up to which an event may lack the read that confirms it.
UNCONFIRMED = timedelta(minutes=5)
_HELD = "publish_held"


class Origin(Struct, frozen=True):
    """How to store the rows: by this policy, at this time of this host.

    `newest_event_at`: of all rows, by the clock of Dreamship.
    """

    policy: Policy
    now: datetime
    newest_event_at: datetime | None


class Stored(Struct, frozen=True):
    """The mirror after a range of rows was stored.

    `cursor`: the end of its feed. `items`, `variants`: the keys of rows that may differ from those
    of the target.
    """

    cursor: Cursor
    items: set[int]
    variants: set[int]


def put(
    db: sqlite3.Connection, part: Slice, origin: Origin, *, before: Cursor | None = None
) -> Stored:
    """Store a range of rows of the target: they replace those of the mirror.

    `before`: the end of the feed after the last range. Changes after it are not of the copy.
    """
    items: set[int] = set()
    variants: set[int] = set()
    if before is not None:
        for variant_id, item_id in publishing.keys_changed_after(db, before.seq, MOST_UNEQUAL + 1):
            variants.add(variant_id)
            if item_id is not None:
                items.add(item_id)
    if part.table == "items":
        _put_items(db, part.rows, origin)
        items |= _unequal(db, part)
    elif part.table == "variants":
        _put_variants(db, part.rows, origin)
        variants |= _unequal(db, part)
    return Stored(publishing.head(db).cursor, items, variants)


def _unequal(db: sqlite3.Connection, part: Slice) -> set[int]:
    """Return the keys of the mirror's rows in a range that the target has not, or differently.

    For example rows that only the mirror has, and times of the other host that are in the future.
    """
    known = {row[0]: row for row in part.rows}
    found: set[int] = set()
    after = part.after
    while len(found) <= MOST_UNEQUAL:
        stored = publishing.range_of(db, part.table, after, SLICE, until=part.end)
        found.update(row[0] for row in stored.rows if known.get(row[0]) != row)
        if (after := stored.end) is None:
            break
    return found


def finish(db: sqlite3.Connection, held: Source, now: datetime) -> None:
    """Store when the last delivery arrived at any host."""
    last_at = held.freshness.last_delivery_at
    if last_at is None:
        return
    last_at = min(last_at, now)
    known_at = last_delivery_at(db)
    if known_at is None or known_at < last_at:
        put_state(db, "last_delivery_at", to_text(last_at))


def probe(db: sqlite3.Connection, now: datetime) -> None:
    """Write something that changes, so that the commit needs the disk."""
    put_state(db, "publish_probed_at", to_text(now))


def note_held(db: sqlite3.Connection, source: str) -> None:
    """Store that this mirror has had the lease of a source."""
    if get_state(db, _HELD) != source:
        put_state(db, _HELD, source)


def has_held(db: sqlite3.Connection, source: str) -> bool:
    """Return whether this mirror has had the lease of a source."""
    return get_state(db, _HELD) == source


def _put_items(db: sqlite3.Connection, found: Sequence[PlainRow], origin: Origin) -> None:
    # The clock of the other host may be ahead: no time in the mirror is later than now.
    db.executemany(
        """INSERT INTO items (item_id, name, confirmed_at, release_status, operational_status,
               countries, is_blocked, read_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET name = excluded.name,
               confirmed_at = excluded.confirmed_at, release_status = excluded.release_status,
               operational_status = excluded.operational_status, countries = excluded.countries,
               is_blocked = excluded.is_blocked, read_at = excluded.read_at, is_gone = 0,
               attempts = 0, not_before = NULL""",
        [
            (
                item_id,
                name,
                maybe_text(None if confirmed_at is None else min(confirmed_at, origin.now)),
                release_status,
                operational_status,
                countries,
                origin.policy.blocks(ItemDetails(release_status, operational_status)),
                maybe_text(read_at),
            )
            for item_id, name, confirmed_at, *details, _, read_at in found
            for release_status, operational_status, countries in (details,)
        ],
    )


def _put_variants(db: sqlite3.Connection, found: Sequence[PlainRow], origin: Origin) -> None:
    stored = rows.variants_by_id(db, [row[0] for row in found])
    item_ids = {row[1] for row in found if row[1] is not None}
    blocked = {one.item_id for one in rows.items_by_id(db, item_ids).values() if one.is_blocked}
    change_set = ChangeSet()
    for row in found:
        before = stored.get(row[0])
        state, is_unconfirmed = _state(row, origin, is_blocked=row[1] in blocked)
        if is_unconfirmed and state.item_id is not None:
            urgent_at = origin.now if state.value_state.verifying else None
            settle_at = origin.now + origin.policy.settle
            request_refresh(change_set, state.item_id, urgent_at, settle_at)
        if before is not None and _is_same(before, state):
            continue
        add_change(
            change_set, before, state, cause="read", occurred_at=state.changed_at, now=origin.now
        )
    rows.save(db, change_set, origin.now)


def _state(row: PlainRow, origin: Origin, *, is_blocked: bool) -> tuple[VariantState, bool]:
    """Return a row as the mirror stores it, and whether a read has to confirm it.

    The requests of the other host to confirm deliveries are lost with it. A value that is being
    verified there is verified here too: the target does not have the other values.
    """
    variant_id, item_id, name, color, size, value, _, verifying, *rest = row
    _, changed_at, confirmed_at, source, cost, basic_cost, event_at = rest
    is_recent = (
        event_at is not None
        and origin.newest_event_at is not None
        and event_at >= origin.newest_event_at - origin.policy.settle - UNCONFIRMED
    )
    is_unconfirmed = verifying or is_recent
    value_state = ValueState(
        value=value,
        conflicting_values=(None,) if verifying else (),
        event_at=event_at,
        # A read soon after the delivery may be answered by a copy that lacks the change.
        delivered_at=origin.now if is_unconfirmed else None,
    )
    state = VariantState(
        variant_id=variant_id,
        item_id=item_id,
        details=VariantDetails(name, color, size, cost, basic_cost),
        value_state=value_state,
        sellable=origin.policy.sells(value_state.candidates, is_blocked=is_blocked),
        changed_at=min(changed_at, origin.now),
        confirmed_at=min(confirmed_at, origin.now),
        source=source,
        rule="taken-over",
        is_blocked=is_blocked,
    )
    return state, is_unconfirmed


def _is_same(before: VariantState, after: VariantState) -> bool:
    """Return whether the row can stay as it is."""
    known = before.value_state
    # Its item may be confirmed later than the variant itself.
    confirmed_at = max(before.confirmed_at, after.confirmed_at)
    unchanged = msgspec.structs.replace(
        after,
        rule=before.rule,
        confirmed_at=confirmed_at,
        value_state=msgspec.structs.replace(
            after.value_state, delivered_at=known.delivered_at, read_at=known.read_at
        ),
    )
    return unchanged == before and after.value_state.delivered_at is None
