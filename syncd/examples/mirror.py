"""Read syncd's mirror: what may be sold? Copy this file; it needs only Python.

from mirror import Mirror

mirror = Mirror()
mirror.may_sell(48211, 48212)  # the ids of variants that may be sold now
mirror.may_sell_skus("TEE-M", "TEE-L")  # the SKUs that may be sold now

A mirror object belongs to one thread. If you no longer need it, call `close`.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SELLABLE_NOW = """ AND sellable = 1
    AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
    AND (SELECT daemon_seen_at FROM freshness)
        BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
            AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')"""
MAY_SELL = f"""SELECT variant_id FROM availability
    WHERE variant_id IN (SELECT value FROM json_each(?)){_SELLABLE_NOW}"""
MAY_SELL_SKUS = f"""SELECT sku FROM listings
    WHERE sku IN (SELECT value FROM json_each(?)){_SELLABLE_NOW}"""

_log = logging.getLogger(__name__)


class Mirror:
    """The mirror, open for reading; after an error, a query runs once more on a new connection."""

    def __init__(self, path: str | Path = "/var/lib/syncd/availability.db") -> None:
        self._uri = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._db: sqlite3.Connection | None = None

    def may_sell(self, *variant_ids: int) -> set[int]:
        """Return which of these variants may be sold now; after an error, none."""
        return self._sellable(MAY_SELL, variant_ids)

    def may_sell_skus(self, *skus: str) -> set[str]:
        """Return which of these SKUs may be sold now; after an error, none."""
        return self._sellable(MAY_SELL_SKUS, skus)

    def variant(self, variant_id: int) -> sqlite3.Row | None:
        """Return the row of one variant, or None."""
        rows = self._query("SELECT * FROM availability WHERE variant_id = ?", variant_id)
        return rows[0] if rows else None

    def listing(self, sku: str) -> sqlite3.Row | None:
        """Return the row of one SKU, or None."""
        rows = self._query("SELECT * FROM listings WHERE sku = ?", sku)
        return rows[0] if rows else None

    def changes(self, seq: int, recorded_at: str) -> list[sqlite3.Row] | None:
        """Return the changes after your stored row. If the feed lacks it, None: start over."""
        rows = self._query(
            """SELECT seq, recorded_at, variant_id, availability, sellable
               FROM changes WHERE seq >= ? ORDER BY seq LIMIT 1000""",
            seq,
        )
        is_stored = rows and (rows[0]["seq"], rows[0]["recorded_at"]) == (seq, recorded_at)
        return rows[1:] if is_stored else None

    def start_over(self) -> tuple[tuple[int, str], list[sqlite3.Row]]:
        """Return a position in the feed, and all of `availability` at that position or later."""
        last = self._query("SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1")
        rows = self._query("SELECT variant_id, availability, sellable FROM availability")
        return (last[0]["seq"], last[0]["recorded_at"]) if last else (0, ""), rows

    def close(self) -> None:
        """Close the connection; the next query opens a new one."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _sellable(self, sql: str, wanted: Sequence[object]) -> set[Any]:
        try:
            return {row[0] for row in self._query(sql, json.dumps(wanted))}
        except Exception:
            _log.exception("the mirror %s cannot be read", self._uri)
            return set()

    def _query(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._query_once(sql, *values)
        except sqlite3.Error:
            self.close()
            return self._query_once(sql, *values)

    def _query_once(self, sql: str, *values: object) -> list[sqlite3.Row]:
        if self._db is None:
            self._db = sqlite3.connect(self._uri, uri=True, timeout=1.0)
            self._db.row_factory = sqlite3.Row
        return self._db.execute(sql, values).fetchall()
