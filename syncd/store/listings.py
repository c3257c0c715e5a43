"""The SKUs of the shop, and where they lead. Only the loader of the file writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from syncd.core.listings import Listing
from syncd.core.model import Row
from syncd.core.snapshots import DeadListings, ListingCounts
from syncd.core.timestamps import to_text
from syncd.store.history import dicts

# SKUs of one transaction. Deliveries wait while it is written.
SLICE = 1_000

# In the order in which they are explained; `sellable` is no reason.
REASONS = ("unknown", "removed", "verifying", "item", "value")


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


def delete(db: sqlite3.Connection, skus: Sequence[str]) -> None:
    """Delete SKUs that are no longer listed."""
    db.executemany("DELETE FROM skus WHERE sku = ?", [(sku,) for sku in skus])


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
    """Return each listed variant without an item, if no whole sweep missed it since a time."""
    found = db.execute(
        """SELECT s.variant_id FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
           WHERE v.item_id IS NULL AND (s.not_found_at IS NULL OR s.not_found_at < ?)""",
        (to_text(searched_before),),
    )
    return frozenset(row[0] for row in found)


def mark_not_found(db: sqlite3.Connection, began_at: datetime, now: datetime) -> None:
    """Store which SKUs lead to no variant, after a complete sweep that began at `began_at`."""
    db.execute(
        """UPDATE skus SET not_found_at = ?1 WHERE listed_at <= ?2
           AND (SELECT item_id FROM variants v WHERE v.variant_id = skus.variant_id) IS NULL""",
        (to_text(now), to_text(began_at)),
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


def find(
    db: sqlite3.Connection, skus: Sequence[str], reasons: Sequence[str], limit: int | None
) -> list[Row]:
    """Return rows of the view; only these SKUs and these reasons, if any are named."""
    where, values = [], list[object]()
    if skus:
        where.append(f"sku IN ({', '.join('?' * len(skus))})")
        values += skus
    if reasons:
        where.append(f"reason IN ({', '.join('?' * len(reasons))})")
        values += reasons
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    query = f"SELECT * FROM listings {condition} ORDER BY sku LIMIT ?"  # noqa: S608 - constants
    return dicts(db.execute(query, [*values, -1 if limit is None else limit]))
