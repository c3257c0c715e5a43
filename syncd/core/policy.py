"""The part of the configuration that decides what is sellable, mirrored and removed."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from syncd.core.merge import Value

# So many may vanish within a day, unless they are more than half of all that is mirrored.
FEW_REMOVALS = 50


class Policy(Struct, frozen=True):
    """What the configuration says about judging: see `[availability]`, `[catalog]`, `settle`."""

    sellable: frozenset[str]
    settle: timedelta
    items: frozenset[int] = frozenset()
    has_categories: bool = False
    removal_limit_percent: int = 20

    def sells(self, candidates: tuple[Value, ...]) -> bool:
        """Tell whether a variant that has one of these values may be sold whichever it is."""
        return all(
            value is not None and value.strip().casefold() in self.sellable for value in candidates
        )

    def brakes(self, absent: int, mirrored: int) -> bool:
        """Tell whether it is not believed that `absent` of `mirrored` variants are gone."""
        is_few = absent <= FEW_REMOVALS and absent * 2 <= mirrored
        return not is_few and absent * 100 > self.removal_limit_percent * mirrored

    def excludes(self, item_id: int | None) -> bool:
        """Tell whether an item is surely not mirrored; which a category has, only reads tell."""
        only_items = bool(self.items) and not self.has_categories
        return only_items and item_id is not None and item_id not in self.items

    @property
    def is_restricted(self) -> bool:
        """Whether only a part of the catalogue is mirrored."""
        return bool(self.items) or self.has_categories
