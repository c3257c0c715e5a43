"""The records of the mirror: what it holds, and the change set that one transaction writes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from syncd.core.merge import Rule, ValueState
from syncd.core.model import Cause, Delivery, Labels, Outcome

AbsenceMode = Literal["removes", "doubts", "is-noted"]
"""What a settled read does that no longer finds a variant: it removes it, or, in a sweep, whose
end weighs all absences together, it doubts it or, once there are too many, only notes it."""


class VariantState(Struct, frozen=True):
    """One row of the mirror. `confirmed_at`: when its value was last known to be true.

    `absent_at`: since when a sweep does not find it and has not ended. `rule`: what wrote this row.
    """

    variant_id: int
    item_id: int | None
    labels: Labels
    value_state: ValueState
    sellable: bool
    changed_at: datetime
    confirmed_at: datetime
    source: Literal["webhook", "read"]
    rule: Rule
    absent_at: datetime | None = None


class ItemState(Struct, frozen=True):
    """What is known of an item: when its last read began here and what `Date` that one had.

    `is_gone`: that read was answered 404. `was_read`: it was read by itself, not only listed.
    """

    item_id: int
    name: str | None
    confirmed_at: datetime | None
    read_at: datetime | None
    is_gone: bool = False
    was_read: bool = False


class Change(Struct, frozen=True):
    """One row of the change feed, the view `changes`.

    `is_excused`: missed, but this daemon was not there all the time to hear of it.
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
    is_excused: bool = False


class Counted(Struct, frozen=True):
    """Changes by kind. A doubt is a row of the feed, and no change of what Dreamship says."""

    added: int
    removed: int
    changed: int
    missed: int


def count(changes: Iterable[Change]) -> Counted:
    """Count changes by kind."""
    added = removed = changed = missed = 0
    for change in changes:
        added += change.old_availability is None
        removed += change.availability is None
        changed += None not in (change.old_availability, change.availability) and (
            change.old_availability != change.availability
        )
        missed += change.missed
    return Counted(added, removed, changed, missed)


class RefreshRequest(Struct, frozen=True):
    """An item the source must be asked about: from `asked_at` (None: no hurry) and `settle_at` on.

    Of several deliveries the first one says when, so that a variant never waits for its neighbours;
    `latest_at` is when a read is settled for all of them, and nothing is left to ask.
    """

    item_id: int
    asked_at: datetime | None
    settle_at: datetime
    latest_at: datetime


class DeliveryResult(Struct, frozen=True):
    """What became of one delivery. `is_copy`: one that told the same is kept under this key.

    `delivery_id` is the number it is kept under; 0 before it is.
    """

    delivery: Delivery
    key: tuple[str, str]
    outcome: Outcome
    rule: Rule | None = None
    is_copy: bool = False
    delivery_id: int = 0


class ChangeSet(Struct):
    """Everything one transaction must write; filled by one batch, then written once.

    `moved` are variants of `variants` that have another item than before.
    """

    variants: dict[int, VariantState] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    query_runner: dict[int, RefreshRequest] = field(default_factory=dict)
    judged: list[DeliveryResult] = field(default_factory=list)
    unlocated: set[int] = field(default_factory=set)
    explained: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)


class ItemSnapshot(Struct, frozen=True):
    """What the mirror knows of one item when a read of it has ended.

    `variants` are those that the mirror places in it and those that the read names; `item` is its
    row; `heard` are deliveries of variants that nobody could place, by variant, the last of each.
    """

    variants: dict[int, VariantState]
    item: ItemState | None = None
    absence: AbsenceMode = "removes"
    heard: dict[int, datetime] = {}


class BatchSnapshot(Struct):
    """What the mirror knows about a batch of deliveries.

    `seen`: keys of kept deliveries. `missed`: recent changes that no delivery had told, as
    (seq, availability) by variant. `foreign`: variants a whole sweep did not find.
    """

    variants: dict[int, VariantState] = field(default_factory=dict)
    items: dict[int, ItemState] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    missed: dict[int, list[tuple[int, str | None]]] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)


class Replayed(Struct, frozen=True):
    """What became of one kept delivery; `outcome` None: its body was not kept."""

    delivery_id: int
    before: Outcome
    outcome: Outcome | None
