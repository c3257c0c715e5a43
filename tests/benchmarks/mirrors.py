"""Mirrors of any size, made without reading a catalogue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from syncd.config import Config
from syncd.config.runtime import runtime_config
from syncd.core.timestamps import to_text
from syncd.store import reapply_policy
from syncd.store.connection import close_for_readers, open_for_writing

FIRST_VARIANT = 48_000
VARIANTS_PER_ITEM = 50
VALUES = ("in_stock", "out_of_stock", "low_stock")


def item_of(variant_id: int) -> int:
    """Return the item that a variant belongs to."""
    return 70 + (variant_id - FIRST_VARIANT) // VARIANTS_PER_ITEM


def fill(path: Path, variants: int, config: Config | None = None) -> None:
    """Make a mirror of so many variants: all have the first value, and a sweep has just ended."""
    connection = open_for_writing(path)
    read_at = to_text(datetime.now(UTC) - timedelta(hours=1))
    connection.execute("BEGIN")
    connection.executemany(
        # Rows of a list count as reads only for an item that was read by itself before.
        "INSERT INTO items (item_id, name, confirmed_at, read_at, is_read) VALUES (?, ?, ?, ?, 1)",
        ((item, f"Heavy Cotton Tee {item}", read_at, read_at) for item in _items(variants)),
    )
    connection.executemany(
        """INSERT INTO variants (variant_id, item_id, name, color, size, value, sellable,
               confirmed_at, changed_at, source, rule, decided_at)
           VALUES (?1, ?2, 'Sport Grey / XL', 'Sport Grey', 'XL', ?3, 1, ?4, ?4, 'read', 'settled',
               ?4)""",
        (
            (variant, item_of(variant), VALUES[0], read_at)
            for variant in range(FIRST_VARIANT, FIRST_VARIANT + variants)
        ),
    )
    connection.execute(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result)
           VALUES ('start', 1, ?1, ?1, 'complete')""",
        (read_at,),
    )
    if config is not None:
        # Otherwise the daemon would apply its policy to every variant when it starts.
        reapply_policy.mark_applied(connection, runtime_config(config).policy)
    connection.execute("COMMIT")
    close_for_readers(connection)


def _items(variants: int) -> range:
    return range(item_of(FIRST_VARIANT), item_of(FIRST_VARIANT + variants - 1) + 1)
