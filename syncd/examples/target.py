"""Read the database server into which syncd publishes: what may be sold? Copy this file.

It needs psycopg (PostgreSQL) or PyMySQL (MySQL, MariaDB).

import psycopg
from target import Target

target = Target(lambda: psycopg.connect("postgresql://shop:…@db.example.com/shop"))
target.may_sell(48211, 48212)  # the ids of variants that may be sold now
target.may_sell_skus("TEE-M", "TEE-L")  # the SKUs that may be sold now

With MySQL: Target(lambda: pymysql.connect(…), is_mysql=True).

A target object belongs to one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

# The clock of the database decides, so that all hosts agree.
_POSTGRESQL = """SELECT a.{key} FROM syncd.{view} a
    JOIN syncd.freshness f ON f.source = a.source
    WHERE a.source = %s AND a.{key} IN ({places}) AND a.sellable
    AND a.confirmed_at > now() - interval '1 day'
    AND f.daemon_seen_at BETWEEN now() - interval '5 minutes' AND now() + interval '1 minute'"""
_MYSQL = """SELECT a.{key} FROM syncd_{view} a
    JOIN syncd_freshness f ON f.source = a.source
    WHERE a.source = %s AND a.{key} IN ({places}) AND a.sellable
    AND a.confirmed_at > utc_timestamp() - interval 1 day
    AND f.daemon_seen_at BETWEEN utc_timestamp() - interval 5 minute
        AND utc_timestamp() + interval 1 minute"""

_log = logging.getLogger(__name__)


class Target:
    """The target; after an error, a query runs once more on a new connection."""

    def __init__(
        self, connect: Callable[[], Any], *, is_mysql: bool = False, source: str = "default"
    ) -> None:
        self._connect = connect
        self._sql = _MYSQL if is_mysql else _POSTGRESQL
        self._source = source
        self._db: Any = None

    def may_sell(self, *variant_ids: int) -> set[int]:
        """Return which of these variants may be sold now; after an error, none."""
        return self._sellable("availability", "variant_id", variant_ids)

    def may_sell_skus(self, *skus: str) -> set[str]:
        """Return which of these SKUs may be sold now; after an error, none."""
        return self._sellable("listings", "sku", skus)

    def close(self) -> None:
        """Close the connection; the next query opens a new one."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _sellable(self, view: str, key: str, wanted: Sequence[object]) -> set[Any]:
        if not wanted:
            return set()
        places = ", ".join(["%s"] * len(wanted))
        sql = self._sql.format(view=view, key=key, places=places)
        for is_last in (False, True):
            try:
                return self._query(sql, wanted)
            except Exception:
                self._db = None
                if is_last:
                    _log.exception("the target cannot be read")
        return set()

    def _query(self, sql: str, wanted: Sequence[object]) -> set[Any]:
        if self._db is None:
            self._db = self._connect()
        # Without it, the same transaction would show the same state for ever.
        self._db.rollback()
        with self._db.cursor() as cursor:
            cursor.execute(sql, [self._source, *wanted])
            rows = {row[0] for row in cursor.fetchall()}
        self._db.rollback()
        return rows
