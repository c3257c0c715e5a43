"""The truth: items, their variants, what of them can be made, and the event each change sends.

Changes are single assignments to dicts, so that a test may change the truth from one thread while
the application answers from another.
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
    """One colour x size; `history` is every value it had, with when it became visible."""

    variant_id: int
    item_id: int
    color: str
    size: str
    history: list[tuple[datetime, str]]

    @property
    def availability(self) -> str:
        """What is true now."""
        return self.history[-1][1]

    def seen_at(self, moment: datetime) -> str:
        """Return what a copy of that moment still says."""
        for changed_at, value in reversed(self.history):
            if changed_at <= moment:
                return value
        return self.history[0][1]


@dataclass(frozen=True)
class Event:
    """One thing Dreamship sends a webhook about."""

    action: str
    object_type: str
    object_id: int
    at: datetime
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    data: dict[str, Any] | None = None


@dataclass
class Catalog:
    """All items and variants. Changes return the event Dreamship would send, None if it is mute."""

    now: Callable[[], datetime]
    names: dict[int, str] = field(default_factory=dict)
    variants: dict[int, Variant] = field(default_factory=dict)
    categories: dict[int, set[int]] = field(default_factory=dict)

    @classmethod
    def made(
        cls, items: int, variants_per_item: int, *, seed: int, now: Callable[[], datetime]
    ) -> Catalog:
        """Return a believable catalogue; the same for the same seed."""
        rng = random.Random(seed)  # noqa: S311 - a toy's chance, no secret
        made = cls(now)
        item_id, variant_id = 70, 48_000
        for _ in range(items):
            item_id += rng.randint(1, 9)
            made.names[item_id] = f"{rng.choice(_PRODUCTS)} {item_id}"
            pairs = [(color, size) for color in _COLORS for size in _SIZES]
            for color, size in rng.sample(pairs, min(variants_per_item, len(pairs))):
                variant_id += rng.randint(1, 5)
                value = rng.choices(_VALUES, _WEIGHTS)[0]
                made.variants[variant_id] = Variant(
                    variant_id, item_id, color, size, [(now(), value)]
                )
        return made

    def truth(self) -> dict[int, str]:
        """Return what is true now, by variant."""
        return {variant.variant_id: variant.availability for variant in list_of(self.variants)}

    def set_availability(self, variant_id: int, value: str) -> Event:
        """Change what is true of one variant."""
        variant, at = self.variants[variant_id], self.now()
        variant.history.append((at, value))
        return Event(UPDATED, "item_variant", variant_id, at)

    def add_variant(
        self, item_id: int, *, value: str = "in_stock", color: str = "Teal", size: str = "M"
    ) -> Event:
        """Add a variant to an item; the event names it."""
        variant_id, at = max(self.variants, default=48_000) + 1, self.now()
        self.variants[variant_id] = Variant(variant_id, item_id, color, size, [(at, value)])
        return Event(ADDED, "item_variant", variant_id, at)

    def add_item(self, name: str = "Something New", variants: int = 2) -> int:
        """Add an item with variants, silently; return its id."""
        item_id = max(self.names, default=70) + 1
        self.names[item_id] = name
        for index in range(variants):
            self.add_variant(item_id, size=_SIZES[index % len(_SIZES)])
        return item_id

    def remove_variant(self, variant_id: int) -> None:
        """Take a variant out of the catalogue; Dreamship says nothing."""
        del self.variants[variant_id]

    def remove_item(self, item_id: int) -> None:
        """Take an item and its variants out of the catalogue; Dreamship says nothing."""
        for variant in self.of_item(item_id):
            del self.variants[variant.variant_id]
        for members in self.categories.values():
            members.discard(item_id)
        del self.names[item_id]

    def of_item(self, item_id: int) -> list[Variant]:
        """Return the variants of one item."""
        return [variant for variant in list_of(self.variants) if variant.item_id == item_id]

    def item_object(
        self, item_id: int, *, with_variants: bool, lag: timedelta = timedelta()
    ) -> dict[str, Any]:
        """Return an item in the form of the GET, from a copy `lag` old."""
        moment = self.now() - lag
        item: dict[str, Any] = {
            "id": item_id,
            "name": self.names[item_id],
            "description": None,
            "release_status": "released",
            "production_days_min": 2,
            "starting_basic_cost": "8.75",
        }
        if with_variants:
            item["item_variants"] = [
                self.variant_object(variant, value=variant.seen_at(moment))
                for variant in self.of_item(item_id)
            ]
        return item

    def variant_object(self, variant: Variant, *, value: str | None = None) -> dict[str, Any]:
        """Return a variant in the form of the GET."""
        return {
            "id": variant.variant_id,
            "name": f"{variant.color} / {variant.size}",
            "color": {"id": 1, "name": variant.color, "primary_hex": "#111", "pattern": None},
            "size": {"id": 1, "name": variant.size},
            "availability": variant.availability if value is None else value,
            "cost": "9.50",
            "basic_cost": 8.75,
        }


def list_of(variants: dict[int, Variant]) -> list[Variant]:
    """Return the variants at one moment, whoever adds some meanwhile."""
    return list(variants.values())
