"""The deliveries that contradict the sale of a variant, and the reads that settle them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncd.core.model import VariantUpdate

# Deliveries with these outcomes can make a variant unsellable.
COUNTED_OUTCOMES = frozenset({"applied", "unchanged", "verifying"})


@dataclass
class Objection:
    """One delivery with a value that is not sellable.

    `is_conflict`: it contradicted the mirror, so it counts until a read settles it or a newer
    delivery has the same value; otherwise a newer delivery with a sellable value replaces it.
    """

    value: str | None
    event_at: datetime | None
    is_conflict: bool


@dataclass
class Record:
    """The deliveries of one variant; times are by the clock of the host."""

    last_at: datetime | None = None
    unconfirmed_since: datetime | None = None
    objections: list[Objection] = field(default_factory=list)

    def add_delivery(
        self,
        update: VariantUpdate,
        arrived_at: datetime,
        rule: str,
        *,
        event_at: datetime | None,
        is_sold: bool,
    ) -> None:
        """Add a delivery with its rule; `event_at` None: it has no usable timestamp."""
        self.arrive(arrived_at)
        if rule in {"newer", "first-word"} and is_sold:
            self.objections = [
                one
                for one in self.objections
                if one.is_conflict or not _is_later(event_at, one.event_at)
            ]
        elif rule == "newer":
            # The conflicting value is now the stored value: as old as this delivery.
            for one in self.objections:
                if one.value == update.value:
                    one.is_conflict, one.event_at = False, event_at
        if not is_sold and (update.value is not None or rule == "contradicts"):
            is_conflict = rule in {"contradicts", "first-word-doubted"}
            self.objections.append(Objection(update.value, event_at, is_conflict))

    def arrive(self, arrived_at: datetime) -> None:
        """Add a delivery that waits for its confirmation."""
        self.last_at = arrived_at if self.last_at is None else max(self.last_at, arrived_at)
        self.unconfirmed_since = arrived_at

    def is_settled(self, began_at: datetime, settle: timedelta) -> bool:
        """Return whether a read that began then settles this variant."""
        return self.last_at is None or began_at >= self.last_at + settle

    def agree(self, value: str | None) -> None:
        """Add an unsettled read that agrees with the mirror: conflicts end (rule 5)."""
        self.objections = [
            one for one in self.objections if not one.is_conflict and one.value == value
        ]


def _is_later(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and (other is None or moment > other)
