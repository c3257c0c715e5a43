"""The search of the status page: SKUs of the shop, and variants."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from syncd.core.model import Row, id_in
from syncd.store import listings
from syncd.store.history import dicts

# `reason:unknown` finds the SKUs that cannot be sold for this reason.
REASON_PREFIX = "reason:"


class Found(Struct, frozen=True):
    """The SKUs and the variants that match a text, the best matches first."""

    text: str = ""
    skus: list[Row] = []
    variants: list[Row] = []

    @property
    def explained(self) -> list[int]:
        """The variants to explain: of this id and of this exact SKU, else a single match."""
        variant_id = id_in(self.text)
        exact = dict.fromkeys(self._exact(variant_id))
        if exact:
            return list(exact)
        found = {row["variant_id"] for row in (*self.skus, *self.variants)}
        if not found and variant_id is not None:
            return [variant_id]  # deliveries may have named it
        return list(found) if len(found) == 1 else []

    def _exact(self, variant_id: int | None) -> Iterator[int]:
        if self.variants and self.variants[0]["variant_id"] == variant_id:
            yield self.variants[0]["variant_id"]
        if self.skus and self.skus[0]["sku"] == self.text:
            yield self.skus[0]["variant_id"]


def find(db: sqlite3.Connection, text: str, limit: int) -> Found:
    """Return up to `limit` SKUs and up to `limit` variants that match the text of a search."""
    reason = text.removeprefix(REASON_PREFIX)
    if reason != text and reason in listings.REASONS:
        return Found(text, listings.find(db, (), (reason,), limit))
    values: dict[str, object] = {
        "text": text,
        "number": id_in(text),
        "like": f"%{text.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%",
        "limit": limit,
    }
    return Found(text, _skus(db, values), _variants(db, values))


def _skus(db: sqlite3.Connection, values: dict[str, object]) -> list[Row]:
    """Return the SKUs with this text, and those of the variant with this id."""
    # The few SKUs are chosen before their variants are looked up: a short text is in most SKUs.
    return dicts(
        db.execute(
            """SELECT sku, title, variant_id, item_id, item_name, variant_name, availability,
                      sellable, reason FROM listings
               WHERE sku IN (
                   SELECT sku FROM skus WHERE sku LIKE :like ESCAPE '!' OR variant_id = :number
                   ORDER BY sku = :text DESC, sku LIMIT :limit)
               ORDER BY sku = :text DESC, sku""",
            values,
        )
    )


def _variants(db: sqlite3.Connection, values: dict[str, object]) -> list[Row]:
    """Return the variants with this id or item id, or with this text in a name."""
    return dicts(
        db.execute(
            """SELECT variant_id, item_id, item_name, variant_name, availability, sellable, removed,
                      verifying FROM availability
               WHERE variant_id = :number OR item_id = :number OR item_name LIKE :like ESCAPE '!'
                  OR variant_name LIKE :like ESCAPE '!'
               ORDER BY variant_id = :number DESC, item_name, variant_id LIMIT :limit""",
            values,
        )
    )
