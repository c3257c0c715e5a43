"""The connection to the target: one, opened by the publisher's thread, without session state.

It works through a pooler that gives each transaction another connection (PgBouncer): no prepared
statement, no SET outside of a transaction, no advisory lock of a session.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from syncd.config import TargetUrl
from syncd.errors import TargetError, TargetIncompatible
from syncd.publish import errors
from syncd.publish.schema import VERSION, Tables, is_mysql

CONNECT_LIMIT_S = 10
# The server answers each statement of a batch in well under a second.
STATEMENT_LIMIT_S = 30
# If the network works but the server or the pooler hangs, a statement never ends. Then this side
# ends the connection.
TRANSACTION_LIMIT_S = 60.0
# If the process stops inside a transaction (a suspended machine), the server ends the connection
# after this time. Otherwise its locks would keep another host from taking the lease.
IDLE_LIMIT_S = 20.0
# A statement that waits for a lock for longer ends, and the round begins again.
LOCK_LIMIT_S = 10
_INIT = "run `syncd publish init` as a user who may create tables"


class Target:
    """A connection to the target, and the tables of one schema.

    Each method raises leaves of TargetError. After an error the connection is closed.
    """

    def __init__(self, url: TargetUrl, schema: str, *, idle_limit_s: float = IDLE_LIMIT_S) -> None:
        self.url = url
        self._idle_limit_s = idle_limit_s
        made = sa.make_url(url.reveal())
        is_mysql_url = made.drivername.startswith("mysql")
        options = _mysql_options(made, idle_limit_s) if is_mysql_url else _options(made)
        with errors.translated(url):
            self._engine = sa.create_engine(
                made, poolclass=NullPool, hide_parameters=True, **options
            )
        self.tables = Tables(self._engine.dialect, schema)
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # The server may be gone.
            with contextlib.suppress(Exception):
                connection.invalidate()
                connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection in a transaction; commit at the end, roll back after an error.

        After an error of the commit it is not known whether the transaction is in force.
        """
        try:
            with errors.translated(self.url):
                if self._connection is None:
                    self._connection = self._engine.connect()
                with _limited(self._connection), self._connection.begin():
                    if not is_mysql(self._connection.dialect):
                        self._connection.exec_driver_sql(_local_settings(self._idle_limit_s))
                    yield self._connection
        except TargetError as error:
            if not error.is_conflict:
                self.close()
            raise
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:
        """Check the version of the tables, and create or migrate them if that is allowed."""
        if self.refuse_newer() == VERSION:
            return
        try:
            self.create()
        except TargetError as error:
            raise TargetIncompatible(
                f"the tables do not exist, and cannot be created: {error.message}", hint=_INIT
            ) from None

    def refuse_newer(self) -> int:
        """Return the version of the tables, 0 without any; raises TargetIncompatible."""
        try:
            version = self.version()
        except TargetIncompatible:
            return 0
        if version > VERSION:
            raise TargetIncompatible(
                f"a newer syncd made the tables (version {version}; this one has {VERSION})",
                hint="install the newer version here too; until then nothing is published",
            )
        return version

    def version(self) -> int:
        """Return the version of the tables; raises TargetIncompatible if there are none."""
        query = sa.select(sa.func.max(self.tables.versions.c.version))
        try:
            with self.transaction() as db:
                try:
                    found = db.execute(query).scalar()
                except sa.exc.DBAPIError as error:
                    if errors.lacks_tables(error):
                        hint = f"start the daemon, or {_INIT}"
                        raise TargetIncompatible("the tables do not exist", hint=hint) from None
                    raise
        finally:
            self.close()
        return found or 0

    def analyze(self) -> None:
        """Let PostgreSQL count its rows right after a copy, before its own job does so.

        Until then its plans are slow: 350 ms for each batch with a million variants, not 60 ms. A
        role that is not the owner gets a warning, and nothing happens.
        """
        if not is_mysql(self.tables.dialect):
            names = ", ".join(table.fullname for table in self.tables.all)
            with self.transaction() as db:
                db.exec_driver_sql(f"ANALYZE {names}")

    def missing_rights(self, db: Connection) -> list[str]:
        """Return the rights on tables that this role lacks; MySQL shows them only by use."""
        if is_mysql(self.tables.dialect):
            return []
        query = sa.text("SELECT has_table_privilege(:name, :right)")
        return [
            f"{right} on {table.fullname}"
            for table in self.tables.all
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
            if not db.execute(query, {"name": table.fullname, "right": right}).scalar()
        ]

    def create(self) -> None:
        """Create or migrate the tables and views; it may run again, and beside another daemon."""
        with self.transaction() as db:
            has_schema = False
            if not is_mysql(self.tables.dialect):
                # Two daemons that create the same schema at once would fail.
                db.exec_driver_sql("SELECT pg_advisory_xact_lock(1937338979)")
                # PostgreSQL refuses CREATE SCHEMA IF NOT EXISTS to a role that may not create
                # schemas, even if the schema exists.
                query = sa.text("SELECT count(*) FROM pg_namespace WHERE nspname = :name")
                has_schema = bool(db.execute(query, {"name": self.tables.schema}).scalar())
            for statement in self.tables.statements(has_schema=has_schema):
                db.exec_driver_sql(statement)


def _local_settings(idle_limit_s: float) -> str:
    """Return the statement that sets the limits of one transaction in PostgreSQL.

    Each query finds rows by their keys. Before the first ANALYZE of a table that was just filled,
    PostgreSQL would read all of it instead: 600 ms for each batch with a million variants.
    """
    settings = {
        "statement_timeout": f"{STATEMENT_LIMIT_S * 1000:.0f}ms",
        "lock_timeout": f"{LOCK_LIMIT_S * 1000:.0f}ms",
        "idle_in_transaction_session_timeout": f"{idle_limit_s * 1000:.0f}ms",
        "enable_seqscan": "off",
    }
    calls = (f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


@contextlib.contextmanager
def _limited(connection: Connection) -> Iterator[None]:
    """Cut the connection if its transaction takes too long; the driver then raises an error."""
    driver: Any = connection.connection.driver_connection
    fd = driver._sock.fileno() if is_mysql(connection.dialect) else driver.fileno()  # noqa: SLF001
    with socket.socket(fileno=os.dup(fd)) as line:

        def cut() -> None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(TRANSACTION_LIMIT_S, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            # The descriptor may only be closed once no thread can use it.
            timer.join()


def _options(url: sa.URL) -> dict[str, Any]:
    """Return the options for psycopg; those in the URL win."""
    ours: dict[str, Any] = {
        "connect_timeout": CONNECT_LIMIT_S,
        "application_name": "syncd",
        # A host that is switched off sends nothing: without these, a statement waits for hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    named = {name: value for name, value in ours.items() if name not in url.query}
    return {"connect_args": named | {"prepare_threshold": None}, "use_native_hstore": False}


def _mysql_options(url: sa.URL, idle_limit_s: float) -> dict[str, Any]:
    """Return the options for PyMySQL; those in the URL win."""
    ours: dict[str, Any] = {
        "connect_timeout": CONNECT_LIMIT_S,
        "read_timeout": STATEMENT_LIMIT_S,
        "write_timeout": STATEMENT_LIMIT_S,
        "charset": "utf8mb4",
        "program_name": "syncd",
        # Only a connection inside of a transaction idles for longer.
        "init_command": f"SET SESSION wait_timeout = {math.ceil(idle_limit_s)}",
    }
    return {"connect_args": {name: value for name, value in ours.items() if name not in url.query}}
