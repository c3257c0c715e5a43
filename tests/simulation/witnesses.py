"""Who has spoken against selling a variant, and whose word has answered that."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncd.core.model import VariantUpdate

# What one of these says makes the mirror take the variant off sale or keep it off.
HEARD = frozenset({"applied", "unchanged", "verifying"})


@dataclass
class Objection:
    """One delivery that told a value which is not for sale.

    `is_doubt`: it contradicted the mirror, so it stands until a read answers it or a newer delivery
    tells the same value; else a newer delivery with a value for sale takes its place.
    """

    value: str | None
    event_at: datetime | None
    is_doubt: bool


@dataclass
class Record:
    """What is known of one variant's deliveries; moments are the host's."""

    last_at: datetime | None = None
    unconfirmed_since: datetime | None = None
    objections: list[Objection] = field(default_factory=list)

    def hear(
        self,
        update: VariantUpdate,
        arrived_at: datetime,
        rule: str,
        *,
        event_at: datetime | None,
        is_sold: bool,
    ) -> None:
        """Note a delivery that was judged; `event_at` None where it could not be placed."""
        self.arrive(arrived_at)
        if rule in {"newer", "first-word"} and is_sold:
            self.objections = [
                one
                for one in self.objections
                if one.is_doubt or not _is_later(event_at, one.event_at)
            ]
        elif rule == "newer":
            # What was doubted is now what the mirror says: as old as this delivery.
            for one in self.objections:
                if one.value == update.value:
                    one.is_doubt, one.event_at = False, event_at
        if not is_sold and (update.value is not None or rule == "contradicts"):
            is_doubt = rule in {"contradicts", "first-word-doubted"}
            self.objections.append(Objection(update.value, event_at, is_doubt))

    def arrive(self, arrived_at: datetime) -> None:
        """Note that a delivery waits to be confirmed."""
        self.last_at = arrived_at if self.last_at is None else max(self.last_at, arrived_at)
        self.unconfirmed_since = arrived_at

    def is_settled(self, began_at: datetime, settle: timedelta) -> bool:
        """Tell whether a read that began then is the truth for this variant."""
        return self.last_at is None or began_at >= self.last_at + settle

    def agree(self, value: str | None) -> None:
        """Note an unsettled read that says what the mirror says: conflicts end (rule 5)."""
        self.objections = [
            one for one in self.objections if not one.is_doubt and one.value == value
        ]


def _is_later(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and (other is None or moment > other)
