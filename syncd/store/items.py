"""Items: which ones the mirror has, and when each was read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

from syncd.core.model import ItemDetails, ItemRead
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


def block(db: sqlite3.Connection, blocks: Callable[[ItemDetails], bool]) -> None:
    """Decide again which items may not be sold, from their statuses."""
    db.execute("UPDATE items SET is_blocked = 0 WHERE is_blocked")
    for statuses in db.execute(
        "SELECT DISTINCT release_status, operational_status FROM items"
    ).fetchall():
        if blocks(ItemDetails(*statuses)):
            db.execute(
                """UPDATE items SET is_blocked = 1
                   WHERE release_status IS ? AND operational_status IS ?""",
                statuses,
            )


def delete_empty(db: sqlite3.Connection, only: Collection[int]) -> None:
    """Delete the items that are not mirrored and have no variants: nobody reads them again."""
    db.execute(
        """DELETE FROM items WHERE item_id NOT IN (SELECT value FROM json_each(?))
               AND NOT EXISTS (SELECT 1 FROM variants v WHERE v.item_id = items.item_id)
               AND NOT EXISTS (SELECT 1 FROM refresh_queue q WHERE q.item_id = items.item_id)
               AND item_id NOT IN (SELECT item_id FROM sweep_items)""",
        (rows.as_json(only),),
    )


def save(db: sqlite3.Connection, read: ItemRead, details: ItemDetails, *, is_blocked: bool) -> None:
    """Store a read of a whole item: it confirms each variant of the item.

    `is_blocked`: its variants may not be sold, because of the statuses in its `details`.
    """
    db.execute(
        """INSERT INTO items (item_id, name, confirmed_at, read_at, is_gone, is_read,
               release_status, operational_status, countries, is_blocked)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), confirmed_at = excluded.confirmed_at,
               read_at = coalesce(excluded.read_at, read_at),
               is_gone = excluded.is_gone, is_read = max(is_read, excluded.is_read),
               release_status = excluded.release_status,
               operational_status = excluded.operational_status, countries = excluded.countries,
               is_blocked = excluded.is_blocked, attempts = 0, not_before = NULL""",
        (
            read.item_id,
            read.name,
            to_text(read.began_at),
            maybe_text(read.source_at),
            read.variants is None,
            not read.is_row,
            *_details_row(details),
            is_blocked,
        ),
    )


def save_part(
    db: sqlite3.Connection, read: ItemRead, details: ItemDetails, *, is_blocked: bool
) -> None:
    """Store a read that may lack variants: it does not confirm the variants that it lacks.

    Like a broken item, the item is read after all others, and only by sweeps.
    """
    db.execute(
        """INSERT INTO items (item_id, name, release_status, operational_status, countries,
               is_blocked) VALUES (?1, ?2, ?4, ?5, ?6, ?7)
           ON CONFLICT (item_id) DO UPDATE SET
               name = coalesce(excluded.name, name), is_gone = 0,
               release_status = excluded.release_status,
               operational_status = excluded.operational_status, countries = excluded.countries,
               is_blocked = excluded.is_blocked,
               attempts = CASE WHEN ?3 THEN attempts ELSE attempts + 1 END,
               not_before = CASE WHEN ?3 THEN not_before END""",
        # A row of a list is no answer of the item itself, whose reads may still fail.
        (read.item_id, read.name, read.is_row, *_details_row(details), is_blocked),
    )


def _details_row(details: ItemDetails) -> tuple[str | None, ...]:
    countries = None if details.countries is None else rows.as_json(details.countries)
    return details.release_status, details.operational_status, countries
