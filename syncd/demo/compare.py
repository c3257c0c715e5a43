"""How far the mirror is from the source, read as a shop reads it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msgspec import Struct


class Changed(Struct, frozen=True):
    """One row of the feed."""

    variant_id: int
    old_availability: str | None
    availability: str | None
    old_sellable: bool
    sellable: bool
    cause: str
    missed: bool


class Comparison(Struct, frozen=True):
    """One look: how many variants differ, how many are off sale while being verified."""

    variants: int
    differences: int
    verifying: int
    sellable: int
    last_changes: list[Changed]


def compare(mirror: Path, truth: dict[int, str]) -> Comparison:
    """Return how the mirror differs from the truth; a variant that is gone must be `removed`."""
    connection = sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        connection.execute("BEGIN")
        rows = connection.execute(
            "SELECT variant_id, availability, sellable, verifying FROM availability"
        ).fetchall()
        changes = connection.execute(
            """SELECT variant_id, old_availability, availability, old_sellable, sellable, cause,
                      missed
               FROM changes ORDER BY seq DESC LIMIT 8"""
        ).fetchall()
    finally:
        connection.close()
    told = {row[0]: row[1] for row in rows}
    differences = sum(told.get(variant) != value for variant, value in truth.items())
    differences += sum(value is not None for variant, value in told.items() if variant not in truth)
    return Comparison(
        variants=len(truth.keys() | told.keys()),
        differences=differences,
        verifying=sum(row[3] for row in rows),
        sellable=sum(row[2] for row in rows),
        last_changes=[Changed(*row) for row in changes],
    )
