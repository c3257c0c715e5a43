"""Queries of operators and shops, through a connection that cannot write."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from syncd.core.explain import VariantHistory
from syncd.core.health import sold_values, unknown_values
from syncd.core.model import Row
from syncd.core.policy import Policy
from syncd.core.snapshots import DaySummary, MirrorCounts, UnknownValues
from syncd.core.timestamps import from_text, maybe_from_text, to_text
from syncd.core.webhook_health import CALM_DELIVERIES, DeliveryRate, Evidence
from syncd.store import dashboard, history, listings, search
from syncd.store.connection import open_for_reading
from syncd.store.dashboard import Day
from syncd.store.history import dicts
from syncd.store.rows import as_json
from syncd.store.search import Found
from syncd.store.time_ranges import first_id_since
from syncd.store.translation import translated
from syncd.store.views import LAST_DELIVERY_AT

T = TypeVar("T")

# Steps of SQLite's virtual machine, some milliseconds. Each check takes Python's interpreter lock.
_STEPS_BETWEEN_CHECKS = 100_000


class Queries:
    """Runs queries on the mirror at `path`, with the access rights of a shop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_for_reading(path, check_same_thread=False)
        self._is_interrupted = False

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def limited(self, limit_s: float | None) -> Iterator[None]:
        """Interrupt queries in this context after `limit_s`; they then raise Overloaded."""
        until_s = None if limit_s is None else time.monotonic() + limit_s

        def is_over() -> bool:
            return self._is_interrupted or (until_s is not None and time.monotonic() > until_s)

        self._connection.set_progress_handler(is_over, _STEPS_BETWEEN_CHECKS)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def interrupt(self) -> None:
        """Interrupt queries that run in another thread within `limited`, also later ones."""
        self._is_interrupted = True

    def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of a query of another module of the store."""
        with self._rows() as connection:
            return query(connection)

    def availability(self, variant_ids: Collection[int]) -> list[Row]:
        """Return the rows of these variants, in this order, without unknown ones."""
        with self._rows() as connection:
            cursor = connection.execute(
                """SELECT a.* FROM json_each(?) j CROSS JOIN availability a
                   ON a.variant_id = j.value ORDER BY j.key""",
                (as_json(variant_ids),),
            )
            return dicts(cursor)

    def changes(self, since: int, limit: int) -> list[Row]:
        """Return up to `limit` rows of the feed after `since`, oldest first."""
        with self._rows() as connection:
            cursor = connection.execute(
                "SELECT * FROM changes WHERE seq > ? ORDER BY seq LIMIT ?", (since, limit)
            )
            return dicts(cursor)

    def variant_history(self, variant_id: int) -> VariantHistory:
        """Return the stored history of one variant."""
        with self._rows() as connection:
            return history.variant_history(connection, variant_id)

    def deliveries(self, outcome: str | None, limit: int, *, with_body: bool) -> list[Row]:
        """Return stored deliveries, newest first."""
        with self._rows() as connection:
            return history.deliveries(connection, outcome, limit, with_body=with_body)

    def day(self, now: datetime) -> Day:
        """Return the last 24 hours for the status page."""
        with self._rows() as connection, _snapshot(connection):
            return dashboard.day(connection, now)

    def find(self, text: str, limit: int) -> Found:
        """Return up to `limit` SKUs and up to `limit` variants that match the text of a search."""
        with self._rows() as connection, _snapshot(connection):
            return search.find(connection, text, limit)

    def newest_seq(self) -> int:
        """Return the last `seq`, 0 if there is none."""
        with self._rows() as connection:
            row = connection.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()
            return int(row[0])

    def first_seq(self, since: int) -> int | None:
        """Return the first stored `seq` from `since` on."""
        with self._rows() as connection:
            row = connection.execute("SELECT min(seq) FROM changes WHERE seq >= ?", (since,))
            found: int | None = row.fetchone()[0]
            return found

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        with self._rows() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def freshness(self) -> Row:
        """Return the row of the view."""
        with self._rows() as connection:
            return dicts(connection.execute("SELECT * FROM freshness"))[0]

    def counts(self, policy: Policy) -> MirrorCounts:
        """Return the counts of the mirror at one moment; `policy` has the sellable values."""
        with self._rows() as connection, _snapshot(connection):
            one = _one(connection)
            variants = sellable = removed = verifying = 0

            def by_value() -> Iterator[tuple[str, int]]:
                nonlocal variants, sellable, removed, verifying
                for value, count, sold, unconfirmed in connection.execute(
                    """SELECT value, count(*), sum(sellable), sum(conflicting_values IS NOT NULL)
                       FROM variants GROUP BY value ORDER BY count(*) DESC"""
                ):
                    variants += count
                    sellable += sold
                    verifying += unconfirmed
                    if value is None:
                        removed += count
                    else:
                        yield value, count

            # One value at a time, because each may be as long as a delivery.
            unknown = unknown_values(by_value(), policy)
            return MirrorCounts(
                items=one("SELECT count(*) FROM items WHERE is_gone = 0"),
                variants=variants,
                sellable=sellable,
                removed=removed,
                verifying=verifying,
                oldest_confirmed_at=one("SELECT oldest_confirmed_at FROM freshness"),
                daemon_seen_at=one("SELECT daemon_seen_at FROM freshness"),
                unknown_values=unknown,
                refresh_queue=one("SELECT count(*) FROM refresh_queue"),
                quarantined=one("SELECT count(*) FROM deliveries WHERE outcome = 'quarantined'"),
                listings=listings.counts(connection),
            )

    def unknown_values(self, policy: Policy, most: int) -> UnknownValues:
        """Return up to `most` values that are not sellable; none before a sweep has ended."""
        with self._rows() as connection:
            return unknown_values(_values_of_sweeps(connection), policy, most)

    def sold_values(self, policy: Policy, most: int) -> dict[str, int]:
        """Return up to `most` values that are sellable; none before a sweep has ended."""
        with self._rows() as connection:
            return sold_values(_values_of_sweeps(connection), policy, most)

    def last_day(self, now: datetime, missed_grace: timedelta) -> DaySummary:
        """Return the events of the last 24 hours; a missed delivery counts after its grace."""
        since = to_text(now - timedelta(days=1))
        with self._rows() as connection, _snapshot(connection):
            one = _one(connection)
            missed = connection.execute(
                """SELECT recorded_at, during_downtime FROM change_log WHERE missed = 1
                   AND recorded_at BETWEEN ? AND ? ORDER BY recorded_at""",
                (since, to_text(now - missed_grace)),
            ).fetchall()
            reported = connection.execute(
                """SELECT received_at FROM deliveries WHERE rule IS NOT NULL
                   ORDER BY delivery_id DESC LIMIT ?""",
                (CALM_DELIVERIES,),
            ).fetchall()
            counted = dict(
                connection.execute(
                    "SELECT name, sum(n) FROM counts WHERE hour >= ? GROUP BY name", (since,)
                ).fetchall()
            )
            sweep = connection.execute(
                """SELECT ended_at, result, error, removals_held FROM sweeps
                   WHERE is_catalogue AND ended_at IS NOT NULL ORDER BY sweep_id DESC LIMIT 1"""
            ).fetchone() or (None, None, "", 0)
            last = one(LAST_DELIVERY_AT)

            def confirmed_within(minutes: int) -> int:
                since = to_text(now - timedelta(minutes=minutes))
                found = one("SELECT count(*) FROM items WHERE confirmed_at >= ?", since)
                return int(found)

            return DaySummary(
                last_delivery_at=maybe_from_text(last),
                missed=len(missed),
                evidence=Evidence(
                    missed_at=[from_text(row[0]) for row in missed if not row[1]],
                    reported_at=[from_text(row[0]) for row in reported],
                    last_delivery_at=maybe_from_text(last),
                ),
                invalid_signatures=counted.get("invalid_signature", 0),
                throttled=counted.get("throttled", 0),
                quarantined=one(
                    """SELECT count(*) FROM deliveries WHERE outcome = 'quarantined'
                       AND delivery_id >= ? AND received_at >= ?""",
                    first_id_since(connection, "deliveries", now - timedelta(days=1)),
                    since,
                ),
                last_sweep_ended_at=sweep[0],
                last_sweep_result=sweep[1],
                last_sweep_error=sweep[2],
                last_sweep_removals_held=sweep[3],
                removals_held=one(
                    """SELECT count(*) FROM variants WHERE missing_since IS NOT NULL
                       AND NOT EXISTS (SELECT 1 FROM sweeps WHERE ended_at IS NULL)"""
                ),
                confirmed_10m=confirmed_within(10),
                confirmed_30m=confirmed_within(30),
                confirmed_60m=confirmed_within(60),
            )

    def delivery_rate(self, last_at: datetime) -> DeliveryRate:
        """Return the rate of deliveries in the 24 hours before the last one."""
        with self._rows() as connection:
            began_at = last_at - timedelta(days=1)
            first = first_id_since(connection, "deliveries", began_at)
            end = first_id_since(connection, "deliveries", last_at + timedelta(microseconds=1))
            row = connection.execute(
                "SELECT received_at FROM deliveries WHERE delivery_id = ?", (first,)
            ).fetchone()
            # Ids have no gaps within a day, because rows of the last day are never deleted.
            count = max(0, end - first)
            return DeliveryRate(count, from_text(row[0]) if row and count else None, last_at)

    @contextlib.contextmanager
    def _rows(self) -> Iterator[sqlite3.Connection]:
        with translated(self._path):
            yield self._connection


def _values_of_sweeps(connection: sqlite3.Connection) -> sqlite3.Cursor:
    return connection.execute(
        """SELECT value, count(*) FROM variants WHERE value IS NOT NULL AND EXISTS
               (SELECT 1 FROM sweeps WHERE is_catalogue = 1 AND ended_at IS NOT NULL)
           GROUP BY value ORDER BY count(*) DESC"""
    )


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several queries read the same state of the mirror."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _one(connection: sqlite3.Connection) -> Any:
    return lambda sql, *values: connection.execute(sql, values).fetchone()[0]
