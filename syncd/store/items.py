"""Items: which ones the mirror has, and when each was read."""

from __future__ import annotations

import sqlite3

from syncd.core.model import ItemRead
from syncd.core.records import VariantState
from syncd.core.timestamps import maybe_text, to_text
from syncd.store import rows


def ids_with_variants(db: sqlite3.Connection) -> list[int]:
    """Return each item that Dreamship has shown and that is not gone, or that still has variants.

    An id that was only named in a request is not among them.
    """
    found = db.execute(
        """SELECT item_id FROM items i
           WHERE (is_gone = 0 AND (confirmed_at IS NOT NULL OR name IS NOT NULL)) OR EXISTS
               (SELECT 1 FROM variants v WHERE v.item_id = i.item_id AND v.value IS NOT NULL)"""
    )
    return [row[0] for row in found]


def stored_variants(db: sqlite3.Connection, read: ItemRead) -> dict[int, VariantState]:
    """Return the stored variants of the item, and those that its read names."""
    stored = rows.variants_of_item(db, read.item_id)
    # Most reads name only variants of their item.
    others = {variant.variant_id for variant in read.variants or ()} - stored.keys()
    return stored | rows.variants_by_id(db, others) if others else stored


def was_read(db: sqlite3.Connection, item_id: int) -> bool:
    """Return whether the item itself was read, and not only its row of a list."""
    found = rows.items_by_id(db, [item_id])
    return item_id in found and found[item_id].was_read


def save(db: sqlite3.Connection, read: ItemRead) -> None:
    """Store a read of a whole item: it confirms each variant of the item."""
    db.execute(
        """INSERT INTO items (item_id, name, confirmed_at, read_at, is_gone, is_read)
           VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), confirmed_at = excluded.confirmed_at,
               read_at = coalesce(excluded.read_at, read_at),
               is_gone = excluded.is_gone, is_read = max(is_read, excluded.is_read),
               attempts = 0, not_before = NULL""",
        (
            read.item_id,
            read.name,
            to_text(read.began_at),
            maybe_text(read.source_at),
            read.variants is None,
            not read.is_row,
        ),
    )


def save_part(db: sqlite3.Connection, read: ItemRead) -> None:
    """Store a read that may lack variants: it does not confirm the variants that it lacks.

    Like a broken item, the item is read after all others, and only by sweeps.
    """
    db.execute(
        """INSERT INTO items (item_id, name) VALUES (?1, ?2)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), is_gone = 0,
               attempts = CASE WHEN ?3 THEN attempts ELSE attempts + 1 END,
               not_before = CASE WHEN ?3 THEN not_before END""",
        # A row of a list is no answer of the item itself, whose reads may still fail.
        (read.item_id, read.name, read.is_row),
    )
