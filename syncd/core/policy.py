"""The part of the configuration that decides what is sellable, mirrored and removed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from msgspec import Struct

from syncd.core.merge import Value
from syncd.core.model import ItemDetails


class Policy(Struct, frozen=True):
    """The settings `[availability]`, `[catalog]`, `settle` and `removal_limit_percent`.

    `items`: those that the configuration names, or those of the listings (`is_listed_only`).
    `wanted`: while items of listings are still looked for in the whole catalogue, the variants that
    these items have; None at any other time.
    """

    sellable: frozenset[str]
    settle: timedelta
    items: frozenset[int] = frozenset()
    has_categories: bool = False
    removal_limit_percent: int = 20
    blocked_item_statuses: frozenset[str] = frozenset()
    is_listed_only: bool = False
    wanted: frozenset[int] | None = None

    def sells(self, candidates: tuple[Value, ...], *, is_blocked: bool) -> bool:
        """Return whether a variant may be sold, whichever of these values it has.

        `is_blocked`: its item may not be sold.
        """
        return not is_blocked and all(map(self.lists, candidates))

    def lists(self, value: Value) -> bool:
        """Return whether variants with a value may be sold."""
        return value is not None and _folded(value) in self.sellable

    def blocks(self, details: ItemDetails) -> bool:
        """Return whether one of its statuses forbids to sell the variants of an item."""
        statuses = (details.release_status, details.operational_status)
        return any(
            status is not None and _folded(status) in self.blocked_item_statuses
            for status in statuses
        )

    def excludes(self, item_id: int | None) -> bool:
        """Return whether an item is certainly not mirrored; only reads know a category's items."""
        only = self.only_items
        return only is not None and item_id is not None and item_id not in only

    def excludes_read(
        self, item_id: int, found: Collection[int], mirrored: Collection[int]
    ) -> bool:
        """Return whether an item is not mirrored.

        `found`: its variants in a read; `mirrored`: those of the mirror that are not removed.
        """
        if self.wanted is None:
            return self.excludes(item_id)
        return item_id not in self.items and not mirrored and self.wanted.isdisjoint(found)

    @property
    def only_items(self) -> frozenset[int] | None:
        """The mirrored items, if all of them are known; None: other items may be mirrored too."""
        if self.wanted is not None or self.has_categories:
            return None
        return self.items if self.items or self.is_listed_only else None

    def needs_more(self, before: Policy) -> bool:
        """Return whether the listings need items that a sweep under an earlier policy lacks."""
        if not self.is_listed_only:
            return before.is_listed_only
        more = self.items - before.items if before.only_items is not None else frozenset()
        return bool(more or (self.wanted or frozenset()) - (before.wanted or frozenset()))

    @property
    def is_restricted(self) -> bool:
        """Whether only a part of the catalogue is mirrored."""
        return bool(self.items) or self.has_categories or self.is_listed_only


def folded(values: Collection[str]) -> frozenset[str]:
    """Return values in the form in which they are compared."""
    return frozenset(map(_folded, values))


def _folded(value: str) -> str:
    return value.strip().casefold()
