"""The simulated catalogue: items, variants, their availability, and the event of each change.

Each change is one assignment to a dict, so that a test can change the catalogue in one thread while
the application answers in another.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

UPDATED = "item-variant-availability-updated"
ADDED = "item-variant-added"

_PRODUCTS = (
    "Unisex Heavy Cotton Tee",
    "Women's Favourite Tee",
    "Heavy Blend Hoodie",
    "Crewneck Sweatshirt",
    "Kids Softstyle Tee",
    "Ceramic Mug",
    "Enamel Mug",
    "Matte Poster",
    "Canvas Tote Bag",
    "Fleece Blanket",
)
_COLORS = ("Black", "White", "Navy", "Red", "Sport Grey", "Forest Green", "Royal", "Maroon")
_SIZES = ("S", "M", "L", "XL", "2XL", "3XL")
_VALUES = ("in_stock", "out_of_stock", "low_stock", "discontinued")
_WEIGHTS = (80, 14, 4, 2)


@dataclass
class Variant:
    """One colour and size of an item; `history` has each value with the time of its change."""

    variant_id: int
    item_id: int
    color: str
    size: str
    history: list[tuple[datetime, str]]

    @property
    def availability(self) -> str:
        """The current value."""
        return self.history[-1][1]

    def value_at(self, moment: datetime) -> str:
        """Return the value at an earlier moment, as an old copy has it."""
        for changed_at, value in reversed(self.history):
            if changed_at <= moment:
                return value
        return self.history[0][1]


@dataclass(frozen=True)
class Event:
    """An event that Dreamship sends as a delivery."""

    action: str
    object_type: str
    object_id: int
    at: datetime
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    data: dict[str, Any] | None = None


@dataclass
class Catalog:
    """All items and variants. A change returns the event that Dreamship sends, or None."""

    now: Callable[[], datetime]
    names: dict[int, str] = field(default_factory=dict)
    variants: dict[int, Variant] = field(default_factory=dict)
    categories: dict[int, set[int]] = field(default_factory=dict)
    # Other fields of an item, which replace the usual ones; Dreamship sends no event.
    details: dict[int, dict[str, Any]] = field(default_factory=dict)
    costs: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def generate(
        cls, items: int, variants_per_item: int, *, seed: int, now: Callable[[], datetime]
    ) -> Catalog:
        """Return a random catalogue that looks real; a seed always gives the same catalogue."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        catalogue = cls(now)
        item_id, variant_id = 70, 48_000
        for _ in range(items):
            item_id += rng.randint(1, 9)
            catalogue.names[item_id] = f"{rng.choice(_PRODUCTS)} {item_id}"
            pairs = [(color, size) for color in _COLORS for size in _SIZES]
            for color, size in rng.sample(pairs, min(variants_per_item, len(pairs))):
                variant_id += rng.randint(1, 5)
                value = rng.choices(_VALUES, _WEIGHTS)[0]
                catalogue.variants[variant_id] = Variant(
                    variant_id, item_id, color, size, [(now(), value)]
                )
        return catalogue

    def current_values(self) -> dict[int, str]:
        """Return the current value of each variant."""
        return {variant.variant_id: variant.availability for variant in snapshot(self.variants)}

    def set_availability(self, variant_id: int, value: str) -> Event:
        """Change the value of one variant; returns the event."""
        variant, at = self.variants[variant_id], self.now()
        variant.history.append((at, value))
        return Event(UPDATED, "item_variant", variant_id, at)

    def add_variant(
        self, item_id: int, *, value: str = "in_stock", color: str = "Teal", size: str = "M"
    ) -> Event:
        """Add a variant to an item; returns the event."""
        variant_id, at = max(self.variants, default=48_000) + 1, self.now()
        self.variants[variant_id] = Variant(variant_id, item_id, color, size, [(at, value)])
        return Event(ADDED, "item_variant", variant_id, at)

    def add_item(self, name: str = "Something New", variants: int = 2) -> int:
        """Add an item with variants, without an event; returns the id of the item."""
        item_id = max(self.names, default=70) + 1
        self.names[item_id] = name
        for index in range(variants):
            self.add_variant(item_id, size=_SIZES[index % len(_SIZES)])
        return item_id

    def remove_variant(self, variant_id: int) -> None:
        """Remove a variant from the catalogue; Dreamship sends no event."""
        del self.variants[variant_id]

    def remove_item(self, item_id: int) -> None:
        """Remove an item and its variants from the catalogue; Dreamship sends no event."""
        for variant in self.of_item(item_id):
            del self.variants[variant.variant_id]
        for members in self.categories.values():
            members.discard(item_id)
        del self.names[item_id]

    def of_item(self, item_id: int) -> list[Variant]:
        """Return the variants of one item."""
        return [variant for variant in snapshot(self.variants) if variant.item_id == item_id]

    def item_object(
        self, item_id: int, *, with_variants: bool, lag: timedelta = timedelta()
    ) -> dict[str, Any]:
        """Return an item as the API shows it, from a copy that is `lag` old."""
        moment = self.now() - lag
        item: dict[str, Any] = {
            "id": item_id,
            "name": self.names[item_id],
            "description": None,
            "release_status": "released",
            "operational_status": "normal",
            "production_days_min": 2,
            "starting_basic_cost": "8.75",
            "ship_zones": [
                {"group": "domestic", "countries": ["US"], "ship_zone_methods": []},
                {"group": "world", "countries": ["CA", "DE", "US"], "ship_zone_methods": []},
            ],
            **self.details.get(item_id, {}),
        }
        if with_variants:
            item["item_variants"] = [
                self.variant_object(variant, value=variant.value_at(moment))
                for variant in self.of_item(item_id)
            ]
        return item

    def variant_object(self, variant: Variant, *, value: str | None = None) -> dict[str, Any]:
        """Return a variant as the API shows it."""
        return {
            "id": variant.variant_id,
            "name": f"{variant.color} / {variant.size}",
            "color": {"id": 1, "name": variant.color, "primary_hex": "#111", "pattern": None},
            "size": {"id": 1, "name": variant.size},
            "availability": variant.availability if value is None else value,
            "cost": self.costs.get(variant.variant_id, "9.50"),
            "basic_cost": 8.75,
        }


def snapshot(variants: dict[int, Variant]) -> list[Variant]:
    """Return the variants of one moment, because another thread may add some meanwhile."""
    return list(variants.values())
