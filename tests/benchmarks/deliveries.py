"""Signed deliveries, made before the measurement: each is distinct and changes the mirror."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import json

from benchmarks.mirrors import FIRST_VARIANT, VALUES, VARIANTS_PER_ITEM, item_of
from syncd.core.signature import sign

KEY = "ds_bench_0123456789abcdef"
# Events a moment apart, all older than their arrival and newer than every event of the mirror.
APART = timedelta(microseconds=50)
AGE = timedelta(minutes=2)


def bodies(count: int, variants: int, *, seed: int = 1) -> Iterator[tuple[int, str, bytes]]:
    """Yield `count` deliveries as (variant, value, body), going round all variants again and again.

    Each changes its variant's value, which is the most that a delivery costs. Two of one variant
    are far apart, so that none overtakes the other on its way.
    """
    order = list(range(FIRST_VARIANT, FIRST_VARIANT + variants))
    random.Random(seed).shuffle(order)
    began_at = datetime.now(UTC) - AGE
    for index in range(count):
        variant_id = order[index % variants]
        # Every variant of a new mirror has the first value.
        value = VALUES[(index // variants + 1) % len(VALUES)]
        yield variant_id, value, _body(variant_id, value, began_at + index * APART)


def write(path: Path, count: int, variants: int) -> None:
    """Write a file of lines for wrk.lua."""
    with path.open("wb") as file:
        for _, _, body in bodies(count, variants):
            file.write(sign(body, (KEY,)).encode() + b"\t" + body + b"\n")


def write_unchanged(path: Path, items: int) -> None:
    """Write a file with one delivery for each of so many items of a new mirror; it changes nothing.

    Each makes the daemon read its item once, after `reconcile.settle`.
    """
    began_at = datetime.now(UTC) - AGE
    with path.open("wb") as file:
        for index in range(items):
            body = _body(
                FIRST_VARIANT + index * VARIANTS_PER_ITEM, VALUES[0], began_at + index * APART
            )
            file.write(sign(body, (KEY,)).encode() + b"\t" + body + b"\n")


def write_mixed(path: Path, count: int, variants: int, *, one_of: int) -> None:
    """Write a file in which one of `one_of` deliveries changes its variant."""
    began_at = datetime.now(UTC) - AGE
    changing = bodies(count, variants // 2)
    with path.open("wb") as file:
        for index, (_, _, body) in enumerate(changing):
            if index % one_of:
                # The second half of the variants keeps its first value.
                variant_id = FIRST_VARIANT + variants // 2 + index % (variants // 2)
                body = _body(variant_id, VALUES[0], began_at + index * APART)  # noqa: PLW2901
            file.write(sign(body, (KEY,)).encode() + b"\t" + body + b"\n")


def variant(variant_id: int, value: str) -> dict[str, object]:
    """Return a variant as an item and a delivery carry it."""
    return {
        "id": variant_id,
        "name": "Sport Grey / XL",
        "color": {"id": 1, "name": "Sport Grey", "primary_hex": "#111", "pattern": None},
        "size": {"id": 1, "name": "XL"},
        "availability": value,
        "cost": "9.50",
        "basic_cost": 8.75,
    }


def _body(variant_id: int, value: str, at: datetime) -> bytes:
    """Return a body in the documented form, as long as a real one."""
    return json.encode(
        {
            "id": variant_id,
            "object": "item_variant",
            "event": {
                "uuid": str(uuid.uuid4()),
                "object_id": variant_id,
                "object_type": "item_variant",
                "action": "item-variant-availability-updated",
                "message": "Item variant availability updated",
                "timestamp": at.replace(tzinfo=None).isoformat() + "Z",
                "user": "System",
            },
            "data": {**variant(variant_id, value), "item": item_of(variant_id)},
        }
    )
