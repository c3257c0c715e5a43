"""The records of the mirror: what it has stored, and the change set that one transaction writes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from syncd.core.merge import Rule, ValueState
from syncd.core.model import Cause, Delivery, ItemDetails, Outcome, VariantDetails

AbsenceMode = Literal["remove", "mark", "record"]
"""What a settled read does with a variant that it does not find. A read of no sweep removes it. A
read of a sweep marks it as verifying until the end of the sweep decides about all missing variants
together; once too many are missing, it only records the absence."""


class VariantState(Struct, frozen=True):
    """One row of the mirror. `confirmed_at`: when its value was last known to be true.

    `missing_since`: when a sweep that has not ended did not find it. `rule`: what wrote this row.
    `is_blocked`: its item may not be sold; this belongs to the row of the item.
    """

    variant_id: int
    item_id: int | None
    details: VariantDetails
    value_state: ValueState
    sellable: bool
    changed_at: datetime
    confirmed_at: datetime
    source: Literal["webhook", "read"]
    rule: Rule
    missing_since: datetime | None = None
    is_blocked: bool = False


class ItemState(Struct, frozen=True):
    """One item: when its last read began here, and the `Date` of that answer.

    `is_gone`: that read was answered 404. `was_read`: the item itself was read, not only listed.
    `is_blocked`: its statuses forbid that its variants are sold.
    """

    item_id: int
    name: str | None
    confirmed_at: datetime | None
    read_at: datetime | None
    is_gone: bool = False
    was_read: bool = False
    details: ItemDetails = ItemDetails()
    is_blocked: bool = False


class Change(Struct, frozen=True):
    """One row of the change feed, the view `changes`.

    `during_downtime`: missed, but this daemon could not receive deliveries all the time.
    """

    variant_id: int
    item_id: int | None
    old_availability: str | None
    availability: str | None
    old_sellable: bool
    sellable: bool
    cause: Cause
    rule: Rule
    missed: bool
    occurred_at: datetime
    recorded_at: datetime
    during_downtime: bool = False


class ChangeCounts(Struct, frozen=True):
    """Changes by kind. A variant that only becomes verifying is not counted."""

    added: int
    removed: int
    changed: int
    missed: int


def count(changes: Iterable[Change]) -> ChangeCounts:
    """Count changes by kind."""
    added = removed = changed = missed = 0
    for change in changes:
        added += change.old_availability is None
        removed += change.availability is None
        changed += None not in (change.old_availability, change.availability) and (
            change.old_availability != change.availability
        )
        missed += change.missed
    return ChangeCounts(added, removed, changed, missed)


class RefreshRequest(Struct, frozen=True):
    """A request to read an item: at `urgent_at` (None: not urgent), and at `settle_at`.

    Several requests of one item become one. The first one sets `settle_at`, so no variant waits
    for another. From `final_at` on, a read is settled for all of them.
    """

    item_id: int
    urgent_at: datetime | None
    settle_at: datetime
    final_at: datetime


class DeliveryResult(Struct, frozen=True):
    """The result of one delivery. `is_copy`: a delivery with the same key is stored already.

    `delivery_id` is the number under which it is stored; 0 before that.
    """

    delivery: Delivery
    key: tuple[str, str]
    outcome: Outcome
    rule: Rule | None = None
    is_copy: bool = False
    delivery_id: int = 0


class ChangeSet(Struct):
    """Everything that one transaction writes.

    `explained_misses` are positions of missed changes that a late delivery explains.
    `moved_variants` are variants of `variants` that have another item than before.
    """

    variants: dict[int, VariantState] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    refresh_requests: dict[int, RefreshRequest] = field(default_factory=dict)
    results: list[DeliveryResult] = field(default_factory=list)
    unplaced_variants: set[int] = field(default_factory=set)
    explained_misses: set[int] = field(default_factory=set)
    moved_variants: set[int] = field(default_factory=set)


class ItemSnapshot(Struct, frozen=True):
    """What the mirror has stored of one item when a read of it ends.

    `variants` are those of the item and those of the read; `item` is its row;
    `unplaced_deliveries` has the time of the last delivery of each variant without an item.
    """

    variants: dict[int, VariantState]
    item: ItemState | None = None
    absence_mode: AbsenceMode = "remove"
    unplaced_deliveries: dict[int, datetime] = {}


class BatchSnapshot(Struct):
    """What the mirror has stored about the variants of a batch of deliveries.

    `stored_keys`: ids of stored deliveries by their keys. `missed`: recent changes without
    a delivery, as (seq, availability) by variant. `not_in_catalog`: variants that a whole sweep did
    not find.
    """

    variants: dict[int, VariantState] = field(default_factory=dict)
    items: dict[int, ItemState] = field(default_factory=dict)
    stored_keys: dict[tuple[str, str], int] = field(default_factory=dict)
    missed: dict[int, list[tuple[int, str | None]]] = field(default_factory=dict)
    not_in_catalog: set[int] = field(default_factory=set)


class ReplayResult(Struct, frozen=True):
    """The result of one stored delivery; `outcome` None: its body is not stored."""

    delivery_id: int
    before: Outcome
    outcome: Outcome | None
