"""The tables and views in the target, and the statements that create them.

Every table has `source` first, so that several shops share one schema. A migration only adds: shops
read while it runs, and an older daemon may still write.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

# The version of the tables that this version of syncd writes.
VERSION = 1

_MYSQL_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
# A value may be as long as a delivery. PostgreSQL compares keys by their bytes, as the mirror does.
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _key(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length, collation="C").with_variant(sa.String(length), "mysql", "mariadb")


class Moment(sa.types.TypeDecorator[datetime]):
    """A time with microseconds; MySQL stores no zone, so the column has UTC."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Return the type of the server."""
        if is_mysql(dialect):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time as the server takes it."""
        return value.replace(tzinfo=None) if value is not None and is_mysql(dialect) else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time."""
        return value.replace(tzinfo=UTC) if value is not None and is_mysql(dialect) else value


def is_mysql(dialect: Dialect) -> bool:
    """Return whether a server speaks MySQL's SQL."""
    return dialect.name in {"mysql", "mariadb"}


class Tables:
    """The tables of one schema. PostgreSQL has schemas; in MySQL their name is a prefix."""

    def __init__(self, dialect: Dialect, schema: str) -> None:
        self.dialect = dialect
        self.schema = schema
        in_schema = not is_mysql(dialect)
        self.prefix = "" if in_schema else f"{schema}_"
        metadata = sa.MetaData(schema=schema if in_schema else None)
        stamp = (("epoch", sa.BigInteger), ("mirror_seq", sa.BigInteger))

        def table(name: str, *columns: tuple[str, Any] | sa.Index, keys: int = 2) -> sa.Table:
            parts = [one for one in columns if not isinstance(one, sa.Index)]
            named = [
                sa.Column(column, kind, primary_key=at < keys, autoincrement=False)
                for at, (column, kind) in enumerate([("source", _key(64)), *parts])
            ]
            indexes = [one for one in columns if isinstance(one, sa.Index)]
            return sa.Table(self.prefix + name, metadata, *named, *indexes, **_MYSQL_OPTIONS)

        self.versions = sa.Table(
            f"{self.prefix}schema_version",
            metadata,
            sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
            **_MYSQL_OPTIONS,
        )
        self.sources = table(
            "sources",
            ("mirror", sa.String(64)),
            ("mirror_seq", sa.BigInteger),
            ("recorded_at", Moment),
            ("seq", sa.BigInteger),
            ("is_filled", sa.Boolean),
            ("copy_table", sa.String(16)),
            ("copy_after", sa.BigInteger),
            ("is_swept", sa.Boolean),
            ("confirmed_until", Moment),
            ("listings_version", sa.BigInteger),
            ("holder", sa.String(64)),
            ("host", sa.String(255)),
            ("epoch", sa.BigInteger),
            ("is_granted", sa.Boolean),
            ("lease_seen_at", Moment),
            ("last_delivery_at", Moment),
            ("last_sweep_finished_at", Moment),
            ("oldest_confirmed_at", Moment),
            ("webhooks_state", sa.String(32)),
            ("daemon_seen_at", Moment),
            keys=1,
        )
        self.items = table(
            "items",
            ("item_id", sa.BigInteger),
            *((name, _TEXT) for name in ("name", "release_status", "operational_status")),
            ("countries", _TEXT),
            ("confirmed_at", Moment),
            ("is_blocked", sa.Boolean),
            ("read_at", Moment),
            *stamp,
        )
        self.variants = table(
            "variants",
            ("variant_id", sa.BigInteger),
            ("item_id", sa.BigInteger),
            *((name, _TEXT) for name in ("name", "color", "size", "availability")),
            ("sellable", sa.Boolean),
            ("verifying", sa.Boolean),
            ("follows_item", sa.Boolean),
            ("changed_at", Moment),
            ("confirmed_at", Moment),
            ("value_source", sa.String(16)),
            *((name, _TEXT) for name in ("cost", "basic_cost")),
            ("event_at", Moment),
            *stamp,
            sa.Index(f"{self.prefix}variants_by_item", "source", "item_id"),
        )
        self.skus = table(
            "skus",
            ("sku", _key(200)),
            ("title", _TEXT),
            ("variant_id", sa.BigInteger),
            *stamp,
            sa.Index(f"{self.prefix}skus_by_variant", "source", "variant_id"),
        )
        self.changes = table(
            "change_log",
            ("seq", sa.BigInteger),
            ("variant_id", sa.BigInteger),
            ("item_id", sa.BigInteger),
            *((name, _TEXT) for name in ("old_availability", "availability")),
            *((name, sa.Boolean) for name in ("old_sellable", "sellable")),
            ("cause", sa.String(16)),
            ("missed", sa.Boolean),
            ("occurred_at", Moment),
            ("recorded_at", Moment),
            ("mirror_seq", sa.BigInteger),
            ("published_at", Moment),
        )
        self._metadata = metadata

    @property
    def all(self) -> list[sa.Table]:
        """Every table, in the order of their names."""
        return self._metadata.sorted_tables

    @property
    def now(self) -> sa.ColumnElement[datetime]:
        """The clock of the target at the statement, not at the beginning of the transaction."""
        if is_mysql(self.dialect):
            return sa.func.utc_timestamp(sa.literal_column("6"), type_=Moment)
        return sa.func.clock_timestamp(type_=Moment)

    def statements(self, *, has_schema: bool = False) -> list[str]:
        """Return the statements that create the tables and views; each may run again."""
        tables = self._metadata.sorted_tables
        needs_schema = not has_schema and not is_mysql(self.dialect)
        found = [f"CREATE SCHEMA IF NOT EXISTS {self.schema}"] if needs_schema else []
        for table in tables:
            found.append(self._compiled(CreateTable(table, if_not_exists=True)))
            if not is_mysql(self.dialect):
                indexes = sorted(table.indexes, key=lambda index: str(index.name))
                found += [self._compiled(CreateIndex(one, if_not_exists=True)) for one in indexes]
        if is_mysql(self.dialect):
            # MySQL has no CREATE INDEX IF NOT EXISTS.
            found = [
                self._with_indexes(sql, table) for sql, table in zip(found, tables, strict=True)
            ]
        found += [
            f"CREATE OR REPLACE VIEW {self._named(name)} AS{sql}" for name, sql in self._views()
        ]
        return [*found, _SET_VERSION.format(table=self._named("schema_version"))]

    def _with_indexes(self, sql: str, table: sa.Table) -> str:
        keys = "".join(
            f",\n    KEY {index.name} ({', '.join(column.name for column in index.columns)})"
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        )
        head, close, options = sql.rpartition("\n)")
        return f"{head}{keys}{close}{options}"

    def _compiled(self, statement: sa.schema.ExecutableDDLElement) -> str:
        text = str(statement.compile(dialect=self.dialect)).strip().replace("\t", "    ")
        return "\n".join(line.rstrip() for line in text.split("\n"))

    def _named(self, name: str) -> str:
        return f"{self.prefix}{name}" if self.prefix else f"{self.schema}.{name}"

    def _views(self) -> list[tuple[str, str]]:
        names = {name: self._named(name) for name in ("items", "variants", "skus", "sources")}
        names["log"] = self._named("change_log")
        return [(name, sql.format(**names)) for name, sql in _VIEWS.items()]


_SET_VERSION = f"""INSERT INTO {{table}} (version) SELECT {VERSION} FROM (SELECT 1 AS one) AS new
WHERE NOT EXISTS (SELECT 1 FROM {{table}} WHERE version >= {VERSION})"""  # noqa: S608 - constants
# The columns of the mirror's views, with `source` first. `value_source` is the column `source` of
# the mirror.
_REASON = """CASE WHEN v.sellable THEN NULL
            WHEN v.availability IS NULL THEN 'removed'
            WHEN v.verifying THEN 'verifying'
            WHEN i.is_blocked THEN 'item'
            ELSE 'value' END"""
_CONFIRMED_AT = """CASE WHEN v.follows_item AND i.confirmed_at > v.confirmed_at
            THEN i.confirmed_at ELSE v.confirmed_at END"""
_VIEWS = {
    "availability": f"""
SELECT v.source, v.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name, v.color,
       v.size, v.availability, v.sellable, v.availability IS NULL AS removed, v.verifying,
       v.changed_at, {_CONFIRMED_AT} AS confirmed_at, v.value_source,
       {_REASON} AS reason,
       v.cost, v.basic_cost, i.release_status AS item_release_status,
       i.operational_status AS item_operational_status, i.countries
FROM {{variants}} v LEFT JOIN {{items}} i ON i.source = v.source AND i.item_id = v.item_id""",  # noqa: S608
    "listings": f"""
SELECT s.source, s.sku, s.title, s.variant_id, v.item_id, i.name AS item_name,
       v.name AS variant_name, v.color, v.size, v.availability,
       coalesce(v.sellable, false) AS sellable,
       CASE WHEN v.variant_id IS NULL THEN 'unknown' ELSE {_REASON} END AS reason,
       v.variant_id IS NOT NULL AND v.availability IS NULL AS removed,
       coalesce(v.verifying, false) AS verifying, v.variant_id IS NOT NULL AS known,
       v.changed_at, {_CONFIRMED_AT} AS confirmed_at
FROM {{skus}} s
LEFT JOIN {{variants}} v ON v.source = s.source AND v.variant_id = s.variant_id
LEFT JOIN {{items}} i ON i.source = v.source AND i.item_id = v.item_id""",  # noqa: S608
    "changes": """
SELECT source, seq, variant_id, item_id, old_availability, availability, old_sellable, sellable,
       cause, missed, occurred_at, recorded_at, mirror_seq
FROM {log}""",
    "freshness": """
SELECT source, last_delivery_at, last_sweep_finished_at, oldest_confirmed_at,
       coalesce(webhooks_state, 'unknown') AS webhooks_state, daemon_seen_at
FROM {sources}""",
}
