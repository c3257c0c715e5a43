"""The part of the configuration that decides what is sellable, mirrored and removed."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from syncd.core.merge import Value


class Policy(Struct, frozen=True):
    """The settings `[availability]`, `[catalog]`, `settle` and `removal_limit_percent`."""

    sellable: frozenset[str]
    settle: timedelta
    items: frozenset[int] = frozenset()
    has_categories: bool = False
    removal_limit_percent: int = 20

    def sells(self, candidates: tuple[Value, ...]) -> bool:
        """Return whether a variant may be sold, whichever of these values it has."""
        return all(
            value is not None and value.strip().casefold() in self.sellable for value in candidates
        )

    def excludes(self, item_id: int | None) -> bool:
        """Return whether an item is certainly not mirrored; only reads know a category's items."""
        only = self.only_items
        return only is not None and item_id is not None and item_id not in only

    @property
    def only_items(self) -> frozenset[int] | None:
        """The mirrored items, if the configuration names each one; None: other items may be too."""
        return self.items if self.items and not self.has_categories else None

    @property
    def is_restricted(self) -> bool:
        """Whether only a part of the catalogue is mirrored."""
        return bool(self.items) or self.has_categories
