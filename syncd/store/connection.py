"""Connections to the mirror: how they are opened, and how the writer closes the file."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from syncd import memory
from syncd.errors import MirrorIncompatible, MirrorMissing
from syncd.store.files import create, require_file, resolve
from syncd.store.migrations import APPLICATION_ID, CONTRACT, migrate
from syncd.store.translation import translated

BUSY_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_MS = 500
REFUSED_TIMEOUT_S = 1.0
REFUSED_PAUSE_S = 0.002
# A long read transaction lets the log grow. Afterwards SQLite truncates it to this size.
WAL_LIMIT_BYTES = 64 * 1024 * 1024
# More than a batch of 500 deliveries touches: about four pages for each.
CACHE_KIB = 16 * 1024


class ReadConnection(sqlite3.Connection):
    """A connection that can only read. It repeats a statement that SQLite refuses by mistake.

    A reader that may not write `-shm` may read its header while a writer changes it. Then SQLite
    believes that the header needs recovery, and ends the statement with SQLITE_READONLY (function
    `walIndexReadHdr`). During a real recovery, after a writer was killed, the error passes too.
    """

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Run one statement; repeat it for up to a second while SQLite refuses it in this way."""
        until = time.monotonic() + REFUSED_TIMEOUT_S
        while True:
            try:
                return super().execute(*args)
            except sqlite3.OperationalError as error:
                refused = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
                if not refused or time.monotonic() > until:
                    raise
            time.sleep(REFUSED_PAUSE_S)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Return the writer's connection to the mirror at `path`; create or migrate the file if needed.

    Only this connection writes, and so only it copies the log into the database (the checkpoint).
    With a second connection for checkpoints, deliveries would not wait for them, but answered
    deliveries could be lost: SQLite before 3.51.3 (3.50.7, 3.44.6) may skip committed pages when
    one connection restarts the log during the checkpoint of another (sqlite.org/wal.html, "The
    WAL-Reset Bug").

    Raises MirrorIncompatible if the file is not a mirror of this contract, and MirrorUnavailable if
    the file cannot be used now.
    """
    with translated(path):
        path = resolve(path)
        create(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _contract(connection, path)
            # In WAL mode, a commit is on disk only with FULL. An answer 200 promises that.
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"journal_size_limit = {WAL_LIMIT_BYTES}",
                f"cache_size = -{CACHE_KIB}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection)
            # After the migrations: a new index of a large mirror must be sorted on disk.
            connection.execute("PRAGMA temp_store = MEMORY")
            # A read creates the log if it does not exist yet.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            close_without_checkpoint(connection)
            raise
    return connection


def open_for_reading(path: Path, *, check_same_thread: bool = True) -> ReadConnection:
    """Return a connection that can only read, like the connection of a shop."""
    with translated(path):
        path = resolve(path)
        if not path.exists():
            raise MirrorMissing(
                f"there is no mirror at {path}", hint="start the daemon, or check mirror.path"
            )
        require_file(path)
    with translated(path):
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=check_same_thread,
            factory=ReadConnection,
        )
        try:
            if _contract(connection, path) != CONTRACT:
                raise MirrorMissing(
                    f"{path} is not filled yet", hint="wait for the daemon's first start"
                )
        except BaseException:
            connection.close()
            raise
    return connection


def release_memory(connection: sqlite3.Connection) -> None:
    """Drop the cached pages of a connection, and return freed memory to the system."""
    connection.execute("PRAGMA shrink_memory")
    memory.release()


def close_for_readers(connection: sqlite3.Connection) -> None:
    """Close the writer's connection so that readers without write permission can still read.

    The last clean close of a WAL database deletes `-wal` and `-shm`. A reader that may not write
    the folder cannot create them: "attempt to write a readonly database" (measured;
    syncd/README.md, "Traps"). So this copies the log into the database and leaves both files.
    """
    with contextlib.suppress(sqlite3.Error):
        # A reader that stays in its transaction must not delay the end; the log then stays.
        connection.execute(f"PRAGMA busy_timeout = {LEAVE_TIMEOUT_MS}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    close_without_checkpoint(connection)


def close_without_checkpoint(connection: sqlite3.Connection) -> None:
    """Close the connection without a checkpoint; the files may be damaged or replaced."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        connection.close()
    else:
        # Python 3.11 has no such setting, and closes each connection that it collects. One extra
        # reference prevents that, and the kernel closes the files when the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _contract(connection: sqlite3.Connection, path: Path) -> int:
    """Return the contract number of the file, 0 if it is empty; refuse any other database."""
    contract = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if tables and application_id != APPLICATION_ID and not _is_half_created(connection):
        raise MirrorIncompatible(
            f"{path} is a database, but no mirror of syncd",
            hint="check mirror.path; if the file replaced the mirror, move it away with its -wal "
            "and -shm; then restore a backup or start without one: a sweep completes the mirror",
        )
    if contract > CONTRACT:
        raise MirrorIncompatible(
            f"{path} was made by a newer syncd (contract {contract}; this version has {CONTRACT})",
            hint="install the newer version again, or restore an older backup",
        )
    return contract


def _is_half_created(connection: sqlite3.Connection) -> bool:
    """Return whether only the list of migrations exists: the first start was interrupted."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    return all("_sqlite_migrations" in name for name in names)


@contextlib.contextmanager
def without_cached_pages_after_error(db: sqlite3.Connection) -> Iterator[None]:
    """Drop cached pages after an error: a damaged page may have been repaired on disk since."""
    try:
        yield
    except sqlite3.DatabaseError:
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA shrink_memory")
        raise
