"""The true catalogue at each time in the past: any old copy of it can be read."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

# The status of an item whose variants must not be sold.
BLOCKED = "retired"


@dataclass
class History:
    """The values of one object with their begins, in order; None: not in the catalogue."""

    at_s: list[float] = field(default_factory=list)
    values: list[str | None] = field(default_factory=list)

    def add(self, at_s: float, value: str | None) -> float:
        """Make a value visible from `at_s` on, or just after the value before it."""
        if self.at_s:
            at_s = max(at_s, self.at_s[-1] + 1e-6)
        self.at_s.append(at_s)
        self.values.append(value)
        return at_s

    def at(self, moment_s: float) -> str | None:
        """Return the value in a copy of that moment."""
        index = bisect_right(self.at_s, moment_s)
        return self.values[index - 1] if index else None

    def since(self, moment_s: float, sold: frozenset[str]) -> float | None:
        """Return since when no sellable value is visible, None while one is."""
        index = bisect_right(self.at_s, moment_s) - 1
        since = None
        while index >= 0 and self.values[index] not in sold:
            since = self.at_s[index]
            index -= 1
        return since

    def was_there(self, from_s: float, to_s: float) -> bool:
        """Return whether it was in the catalogue all the time between two moments."""
        return self.at(from_s) is not None and not self.goes(from_s, to_s)

    def goes(self, from_s: float, to_s: float) -> bool:
        """Return whether it left the catalogue between two moments."""
        between = self.values[bisect_right(self.at_s, from_s) : bisect_right(self.at_s, to_s)]
        return None in between

    @property
    def last(self) -> str | None:
        """The last value, visible or not yet."""
        return self.values[-1]


@dataclass
class Truth:
    """Items and variants with their histories. `item_of` has removed variants too."""

    items: dict[int, History] = field(default_factory=dict)
    variants: dict[int, History] = field(default_factory=dict)
    item_of: dict[int, int] = field(default_factory=dict)
    category_of: dict[int, int] = field(default_factory=dict)
    status_of: dict[int, History] = field(default_factory=dict)
    next_id: int = 1000

    def new_item(self, at_s: float, category: int) -> int:
        """Add an item without variants."""
        item_id = self.next_id
        self.next_id += 1
        self.items[item_id] = History()
        self.items[item_id].add(at_s, "")
        self.category_of[item_id] = category
        self.status_of[item_id] = History([at_s], ["released"])
        return item_id

    def new_variant(self, item_id: int, at_s: float, value: str) -> int:
        """Add a variant to an item."""
        variant_id = 1_000_000 + self.next_id
        self.next_id += 1
        self.variants[variant_id] = History()
        self.variants[variant_id].add(at_s, value)
        self.item_of[variant_id] = item_id
        return variant_id

    def of_item(self, item_id: int) -> list[int]:
        """Return all variants of an item, also removed ones."""
        return [v for v, owner in self.item_of.items() if owner == item_id]

    def visible(self, variant_id: int, moment_s: float) -> str | None:
        """Return the value of a variant in a copy of that moment."""
        if self.items[self.item_of[variant_id]].at(moment_s) is None:
            return None
        return self.variants[variant_id].at(moment_s)

    def is_blocked(self, item_id: int, from_s: float, to_s: float) -> bool:
        """Return whether the status of an item forbade sales all the time between two moments."""
        history = self.status_of[item_id]
        statuses = {history.at(from_s), history.at(to_s)}
        statuses |= {
            value
            for at_s, value in zip(history.at_s, history.values, strict=True)
            if from_s < at_s <= to_s
        }
        return statuses == {BLOCKED}

    def now_listed(self) -> list[int]:
        """Return the items that are in the catalogue after the last change."""
        return [item for item, history in self.items.items() if history.last is not None]

    def unsold_since(self, variant_id: int, moment_s: float, sold: frozenset[str]) -> float | None:
        """Return since when a variant cannot be sold, None while it can."""
        moments = [
            self.variants[variant_id].since(moment_s, sold),
            self.items[self.item_of[variant_id]].since(moment_s, frozenset({""})),
        ]
        return min((moment for moment in moments if moment is not None), default=None)
