"""The SKUs of the shop, and where they lead. Only the loader of the file writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from syncd.core import explain
from syncd.core.listings import Listing
from syncd.core.model import Row
from syncd.core.snapshots import DeadListings, ListingCounts
from syncd.core.timestamps import to_text
from syncd.store.history import dicts
from syncd.store.rows import as_json, get_state, put_state

# The key of a number that rises with each change of the SKUs.
VERSION_KEY = "listings_version"
# SKUs of one transaction. Deliveries wait while it is written.
SLICE = 500

# In the order in which they are explained; `sellable` is no reason.
REASONS: tuple[str, ...] = tuple(explain.REASONS)
# The SKU leads to no variant.
DEAD_REASONS: tuple[str, ...] = ("unknown", "removed")


def stored(db: sqlite3.Connection) -> dict[str, tuple[int, str | None]]:
    """Return the variant and the title of each SKU."""
    return {row[0]: row[1:] for row in db.execute("SELECT sku, variant_id, title FROM skus")}


def save(db: sqlite3.Connection, listings: Sequence[Listing], now: datetime) -> None:
    """Store new and changed listings."""
    db.executemany(
        """INSERT INTO skus (sku, variant_id, title, listed_at) VALUES (?1, ?2, ?3, ?4)
           ON CONFLICT (sku) DO UPDATE SET
               listed_at = CASE WHEN variant_id = ?2 THEN listed_at ELSE ?4 END,
               not_found_at = CASE WHEN variant_id = ?2 THEN not_found_at END,
               variant_id = ?2, title = ?3""",
        [(one.sku, one.variant_id, one.title, to_text(now)) for one in listings],
    )
    _count_change(db)


def delete(db: sqlite3.Connection, skus: Sequence[str]) -> None:
    """Delete SKUs that are no longer listed."""
    db.executemany("DELETE FROM skus WHERE sku = ?", [(sku,) for sku in skus])
    _count_change(db)


def _count_change(db: sqlite3.Connection) -> None:
    put_state(db, VERSION_KEY, str(int(get_state(db, VERSION_KEY) or 0) + 1))


def has_any(db: sqlite3.Connection) -> bool:
    """Return whether there are SKUs."""
    return db.execute("SELECT 1 FROM skus LIMIT 1").fetchone() is not None


def items(db: sqlite3.Connection) -> frozenset[int]:
    """Return each item that has a listed variant."""
    found = db.execute(
        """SELECT DISTINCT v.item_id FROM skus s JOIN variants v ON v.variant_id = s.variant_id
           WHERE v.item_id IS NOT NULL"""
    )
    return frozenset(row[0] for row in found)


def wanted(db: sqlite3.Connection, searched_before: datetime) -> frozenset[int]:
    """Return each listed variant without an item, if no whole sweep missed it since a time.

    A removed variant may have moved to another item.
    """
    found = db.execute(
        """SELECT s.variant_id FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
           WHERE (v.item_id IS NULL OR v.value IS NULL)
             AND (s.not_found_at IS NULL OR s.not_found_at < ?)""",
        (to_text(searched_before),),
    )
    return frozenset(row[0] for row in found)


def without_item(db: sqlite3.Connection, listed_before: datetime) -> list[str]:
    """Return the SKUs listed before a time whose variant has no item, or is removed."""
    found = db.execute(
        """SELECT s.sku FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
           WHERE (v.item_id IS NULL OR v.value IS NULL) AND s.listed_at <= ?""",
        (to_text(listed_before),),
    )
    return [row[0] for row in found]


def mark_not_found(db: sqlite3.Connection, skus: Sequence[str], now: datetime) -> None:
    """Store that a complete sweep has not found the variants of these SKUs."""
    db.executemany(
        "UPDATE skus SET not_found_at = ? WHERE sku = ?", [(to_text(now), sku) for sku in skus]
    )


def dead(db: sqlite3.Connection, most: int) -> DeadListings:
    """Return the SKUs whose variant no sweep found, or is removed; up to `most` of them by name."""
    rows = db.execute(
        """SELECT s.sku FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
           WHERE v.value IS NULL AND (s.not_found_at IS NOT NULL OR v.variant_id IS NOT NULL)
           ORDER BY s.sku"""
    ).fetchall()
    return DeadListings(len(rows), tuple(row[0] for row in rows[:most]))


def counts(db: sqlite3.Connection) -> ListingCounts | None:
    """Return the number of SKUs for each reason; None if there are no SKUs."""
    found = dict(db.execute("SELECT reason, count(*) FROM listings GROUP BY reason").fetchall())
    if not found:
        return None
    unsellable = {reason: found.get(reason, 0) for reason in REASONS}
    return ListingCounts(sum(found.values()), found.get(None, 0), unsellable)


def listed(db: sqlite3.Connection, skus: Sequence[str]) -> set[str]:
    """Return which of these SKUs are in the listings."""
    found = db.execute(
        "SELECT sku FROM skus WHERE sku IN (SELECT value FROM json_each(?))", (as_json(skus),)
    )
    return {row[0] for row in found}


def find(
    db: sqlite3.Connection,
    skus: Sequence[str],
    reasons: Sequence[str],
    limit: int | None = None,
) -> list[Row]:
    """Return rows of the view; only these SKUs and these reasons, if any are named."""
    return dicts(
        db.execute(
            """SELECT * FROM listings
               WHERE (:no_skus OR sku IN (SELECT value FROM json_each(:skus)))
                 AND (:no_reasons OR reason IN (SELECT value FROM json_each(:reasons)))
               ORDER BY sku LIMIT :limit""",
            {
                "no_skus": not skus,
                "skus": as_json(skus),
                "no_reasons": not reasons,
                "reasons": as_json(reasons),
                "limit": -1 if limit is None else limit,
            },
        )
    )
