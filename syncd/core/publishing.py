"""Publication of the mirror into the target: the rules that need neither database.

One primitive does all the work: rows of the mirror are compared with the rows of the target, and
the difference is written. The follower of the feed, the confirmations of items, a first fill, a
full comparison and the slow rolling comparison differ only in the rows that they compare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from syncd.core.plain_text import shortened
from syncd.core.timestamps import from_text

Key = int | str
# One row of the mirror or of the target, in the order of COLUMNS.
PlainRow = tuple[Any, ...]
Table = Literal["items", "variants", "skus"]

# The columns of each table; the first one is the key. `read_at` and `event_at` are by the clock of
# Dreamship. They are in no view: a mirror that goes on from these rows needs them.
COLUMNS: dict[Table, tuple[str, ...]] = {
    "items": (
        *("item_id", "name", "confirmed_at", "release_status", "operational_status"),
        *("countries", "is_blocked", "read_at"),
    ),
    "variants": (
        *("variant_id", "item_id", "name", "color", "size", "availability", "sellable"),
        *("verifying", "follows_item", "changed_at", "confirmed_at", "value_source"),
        *("cost", "basic_cost", "event_at"),
    ),
    "skus": ("sku", "title", "variant_id"),
}
_ITEM_ID, _AVAILABILITY, _SELLABLE, _VERIFYING, _FOLLOWS, _CHANGED_AT, _CONFIRMED_AT, _SOURCE = (
    COLUMNS["variants"].index(name)
    for name in (
        *("item_id", "availability", "sellable", "verifying", "follows_item", "changed_at"),
        *("confirmed_at", "value_source"),
    )
)
# The order of a copy and of the rolling comparison. Items first: the views join them.
ORDER: tuple[Table, ...] = ("items", "variants", "skus")
# The tables of a copy. A comparison of the SKUs follows it, as after each change of the listings.
COPIED: tuple[Table, ...] = ("items", "variants")


# A longer value of Dreamship is cut in the target, not in the mirror.
MAX_TEXT_CHARS = 100_000


class Position(Struct, frozen=True):
    """The end of the last compared range: a table and a key of it, None before the first row."""

    table: Table
    after: Key | None = None


class Cursor(Struct, frozen=True):
    """The change of the mirror up to which everything is published."""

    mirror: str
    seq: int
    recorded_at: datetime | None = None


class Change(Struct, frozen=True, gc=False):
    """One row of the mirror's change feed."""

    seq: int
    variant_id: int
    item_id: int | None
    old_availability: str | None
    availability: str | None
    old_sellable: bool
    sellable: bool
    cause: str
    missed: bool
    occurred_at: datetime
    recorded_at: datetime


class Slice(Struct, frozen=True):
    """Rows of the mirror to compare: those with some keys, or all of a range after `after`.

    `is_range`: the target may have rows of the range that the mirror lacks. `end`: the last key of
    the range; None: it has no end.
    """

    table: Table
    rows: Sequence[PlainRow]
    is_range: bool = False
    after: Key | None = None
    end: Key | None = None

    @property
    def keys(self) -> list[Key]:
        """The keys of the rows."""
        return [row[0] for row in self.rows]


class Difference(Struct, frozen=True):
    """The writes that make the rows of the target equal to those of a slice.

    `gone`: rows of the target that the mirror lacks. `end`: the last compared key, None at the end
    of the table.
    """

    changed: list[PlainRow]
    gone: list[PlainRow]
    end: Key | None


class Freshness(Struct, frozen=True):
    """The row of the view `freshness`, without the sign of life."""

    last_delivery_at: datetime | None
    last_sweep_finished_at: datetime | None
    oldest_confirmed_at: datetime | None
    webhooks_state: str


class Source(Struct, frozen=True):
    """The row of a source in the target: position, lease and freshness.

    `is_filled`: the first fill is whole. `copy`: the position of a copy, None without one.
    `is_swept`: this mirror had completed a sweep of its own when the last copy began.
    `confirmed_until`: items confirmed before this time by the clock of the mirror's host are
    published. `listings_version`: of the SKUs in the target, None if it is not known.
    `holder`: None if the last one has released the lease. `host`: the host of the holder.
    `is_granted`: an operator gave the lease to `holder`, who has not taken it yet. `lease_seen_at`:
    the last sign of life of the holder, by the clock of the database.
    """

    source: str
    cursor: Cursor | None
    seq: int
    is_filled: bool
    copy: Position | None
    is_swept: bool
    confirmed_until: datetime | None
    listings_version: int | None
    holder: str | None
    epoch: int
    is_granted: bool
    lease_seen_at: datetime | None
    freshness: Freshness
    daemon_seen_at: datetime | None
    host: str | None = None


def compare(part: Slice, stored: Sequence[PlainRow], *, is_truncated: bool) -> Difference:
    """Return the difference between rows of the mirror and the `stored` rows of the target.

    `is_truncated`: the target has more rows in the range than these, which are the first ones. Then
    the comparison ends at the last of them.
    """
    end = part.end
    rows = part.rows
    if is_truncated:
        last = stored[-1][0]
        if end is None or last < end:
            end = last
            rows = [row for row in rows if row[0] <= last]
    known = {row[0]: row for row in stored}
    changed = [row for row in rows if known.get(row[0]) != row]
    gone: list[PlainRow] = []
    if part.is_range:
        there = {row[0] for row in rows}
        gone = [row for key, row in known.items() if key not in there]
    return Difference(changed, gone, end)


def removed(row: PlainRow, now: datetime) -> PlainRow:
    """Return a variant that the mirror lacks, as removed."""
    values = list(row)
    values[_AVAILABILITY], values[_SELLABLE] = None, False
    values[_VERIFYING], values[_FOLLOWS] = False, False
    values[_CHANGED_AT] = values[_CONFIRMED_AT] = now
    values[_SOURCE] = "read"
    return tuple(values)


def feed(
    before: PlainRow | None, after: PlainRow, changes: Sequence[Change], last: Change | None
) -> list[Change]:
    """Return the rows of the target's feed for one variant.

    `before`, `after`: its row in the target and its new row. `changes`: the changes of the mirror
    that this batch follows. If they lead from one to the other, the feed gets each of them, also if
    both rows are equal. Otherwise it gets the difference as one row, with the cause and the times
    of `last`, the last change of the variant in the mirror.
    """
    old, new = _state(before), _state(after)
    if changes and _leads(changes, old, new):
        return list(changes)
    if old == new:
        return []
    return [
        Change(
            seq=0 if last is None else last.seq,
            variant_id=after[0],
            item_id=after[_ITEM_ID],
            old_availability=old[0],
            availability=new[0],
            old_sellable=old[1],
            sellable=new[1],
            cause="read" if last is None else last.cause,
            missed=False if last is None else last.missed,
            occurred_at=after[_CHANGED_AT] if last is None else last.occurred_at,
            recorded_at=after[_CHANGED_AT] if last is None else last.recorded_at,
        )
    ]


def _leads(
    changes: Sequence[Change], old: tuple[str | None, bool], new: tuple[str | None, bool]
) -> bool:
    at = old
    for change in changes:
        if (change.old_availability, change.old_sellable) != at:
            return False
        at = change.availability, change.sellable
    return at == new


def _state(row: PlainRow | None) -> tuple[str | None, bool]:
    """Return what a reader of the feed knows of a variant; a removed one is like an unknown one."""
    return (None, False) if row is None else (row[_AVAILABILITY], row[_SELLABLE])


def by_variant(changes: Iterable[Change]) -> dict[int, list[Change]]:
    """Return the changes of each variant, in their order."""
    found: dict[int, list[Change]] = {}
    for change in changes:
        found.setdefault(change.variant_id, []).append(change)
    return found


def next_position(
    position: Position, end: Key | None, tables: Collection[Table]
) -> Position | None:
    """Return the position after a compared range; None after the last of the tables."""
    if end is not None:
        return Position(position.table, end)
    order = [table for table in ORDER if table in tables]
    following = order[order.index(position.table) + 1 :]
    return Position(following[0]) if following else None


def needs_copy(source: Source, mirror: str, *, has_change: bool, is_swept: bool) -> bool:
    """Return whether the whole target has to be compared with the mirror.

    `has_change`: the feed of the mirror has the change of the cursor. `is_swept`: this mirror has
    completed a sweep of its own; before, nothing that it lacks counts as removed.
    """
    if source.cursor is None or source.cursor.mirror != mirror or not has_change:
        return True
    return source.copy is None and is_swept and not source.is_swept


def freshness_to_show(stored: Source, now: Freshness) -> Freshness:
    """Return the freshness of the target at a moment at which everything is published.

    Until a mirror has completed a sweep of its own, the target may have rows of an earlier mirror,
    which are as old as they were.
    """
    oldest = now.oldest_confirmed_at
    before = stored.freshness.oldest_confirmed_at
    if not stored.is_swept and oldest is not None and before is not None:
        oldest = min(oldest, before)
    return Freshness(
        last_delivery_at=now.last_delivery_at,
        last_sweep_finished_at=now.last_sweep_finished_at,
        oldest_confirmed_at=oldest,
        webhooks_state=now.webhooks_state,
    )


def clean(text: str | None) -> str | None:
    """Return text that every server stores, or None.

    PostgreSQL takes no NUL. A value may be as long as a delivery, and a server refuses a statement
    that is too long: one such value would stop the publication for ever.
    """
    if text is None:
        return None
    if len(text) > MAX_TEXT_CHARS:
        text = shortened(text, MAX_TEXT_CHARS)
    return text.replace("\0", "\ufffd") if "\0" in text else text


def moment(text: str | None) -> datetime | None:
    """Return a time of the mirror."""
    return from_text(text) if text else None
