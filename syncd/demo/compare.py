"""The differences between the mirror and the source; the mirror is read as a shop reads it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msgspec import Struct

# As many as a large terminal shows.
_LAST_CHANGES = 60


class ChangeRow(Struct, frozen=True):
    """One row of the change feed."""

    variant_id: int
    old_availability: str | None
    availability: str | None
    old_sellable: bool
    sellable: bool
    cause: str
    missed: bool
    item_name: str | None = None
    variant_name: str | None = None


class Comparison(Struct, frozen=True):
    """The mirror at one moment: the number of variants, of differences and of each state.

    `missed`: changes that a read has found, and that no delivery has reported. `example`: the id of
    a variant that Dreamship has.
    """

    variants: int
    differences: int
    verifying: int
    sellable: int
    missed: int
    last_changes: list[ChangeRow]
    example: int | None = None


def compare(mirror: Path, source: dict[int, str]) -> Comparison:
    """Compare the mirror with the values of the source; a variant it lacks must be `removed`."""
    connection = sqlite3.connect(f"{mirror.as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        connection.execute("BEGIN")
        rows = connection.execute(
            "SELECT variant_id, availability, sellable, verifying FROM availability"
        ).fetchall()
        changes = connection.execute(
            f"""SELECT c.variant_id, c.old_availability, c.availability, c.old_sellable,
                       c.sellable, c.cause, c.missed, v.item_name, v.variant_name
                FROM changes AS c LEFT JOIN availability AS v USING (variant_id)
                ORDER BY c.seq DESC LIMIT {_LAST_CHANGES}"""  # noqa: S608 - a constant
        ).fetchall()
        (missed,) = connection.execute("SELECT count(*) FROM changes WHERE missed").fetchone()
    finally:
        connection.close()
    mirrored = {row[0]: row[1] for row in rows}
    differences = sum(mirrored.get(variant) != value for variant, value in source.items())
    differences += sum(
        value is not None for variant, value in mirrored.items() if variant not in source
    )
    return Comparison(
        variants=len(source.keys() | mirrored.keys()),
        differences=differences,
        verifying=sum(row[3] for row in rows),
        sellable=sum(row[2] for row in rows),
        missed=missed,
        last_changes=[ChangeRow(*row) for row in changes],
        example=min(source, default=None),
    )
