"""The variants that went off sale last, for the status page."""

from __future__ import annotations

import sqlite3

from syncd.core.model import Row
from syncd.store.history import dicts

NEWEST = 10
# No index has these rows. A large import of changes without one of them must not be read whole.
SEARCHED_SEQS = 20_000
# The SKUs of a variant that are named; the others are counted.
MAX_SKUS = 3


def newest(db: sqlite3.Connection) -> list[Row]:
    """Return the newest changes that took a variant off sale, the newest first.

    `sellable` and `reason` are those of now; both are None if the mirror lacks the variant. `skus`
    has up to MAX_SKUS of the variant, and `more_skus` counts the others.
    """
    changes = dicts(
        db.execute(
            """SELECT c.seq, c.variant_id, c.old_availability, c.availability, c.recorded_at,
                      a.item_name, a.variant_name, a.sellable, a.reason
               FROM (SELECT * FROM change_log
                     WHERE seq > (SELECT max(seq) FROM change_log) - :searched
                       AND old_sellable = 1 AND sellable = 0
                     ORDER BY seq DESC LIMIT :newest) c
               LEFT JOIN availability a ON a.variant_id = c.variant_id
               ORDER BY c.seq DESC""",
            {"searched": SEARCHED_SEQS, "newest": NEWEST},
        )
    )
    return [row | _skus(db, row["variant_id"]) for row in changes]


def _skus(db: sqlite3.Connection, variant_id: int) -> Row:
    # In the order of the index, because a variant may have any number of SKUs.
    (count,) = db.execute(
        "SELECT count(*) FROM skus WHERE variant_id = ?", (variant_id,)
    ).fetchone()
    named = db.execute(
        "SELECT sku FROM skus WHERE variant_id = ? ORDER BY rowid LIMIT ?", (variant_id, MAX_SKUS)
    ).fetchall()
    return {"skus": [row[0] for row in named], "more_skus": count - len(named)}
