"""Opening the one file: who may write, how durable, and how it is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from syncd.errors import MirrorIncompatible, MirrorMissing
from syncd.store.files import create, require_file, resolve
from syncd.store.migrations import APPLICATION_ID, CONTRACT, migrate
from syncd.store.translation import translated

BUSY_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_MS = 500
REFUSED_TIMEOUT_S = 1.0
REFUSED_PAUSE_S = 0.002
# After a long reader let the log grow, the file shrinks back to this.
WAL_LIMIT_BYTES = 64 * 1024 * 1024


class ReadConnection(sqlite3.Connection):
    """A connection that can only read, and asks again where SQLite refuses a reader by mistake.

    A reader that may not write `-shm` and looks while a writer is changing its header takes it for
    one that needs recovery, and does not look twice (SQLite's `walIndexReadHdr`): the statement
    ends with SQLITE_READONLY. While a killed writer's successor recovers it is the truth, and
    passes as well.
    """

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Run one statement, again for up to a second while it is refused so."""
        until = time.monotonic() + REFUSED_TIMEOUT_S
        while True:
            try:
                return super().execute(*args)
            except sqlite3.OperationalError as fault:
                refused = fault.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
                if not refused or time.monotonic() > until:
                    raise
            time.sleep(REFUSED_PAUSE_S)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Return the writer's connection to the mirror at `path`, created and migrated as needed.

    It is the only one that may write, and so the only one that copies the log into the database.
    A second one beside it would spare deliveries the wait for that, and could lose what was
    answered 200: SQLite before 3.51.3 (3.50.7, 3.44.6) may skip committed pages when one
    connection begins the log anew while another copies it (sqlite.org/wal.html, "The WAL-Reset
    Bug").

    Raises MirrorIncompatible for a file that is no mirror of this contract and MirrorUnavailable
    when the file cannot be used now.
    """
    with translated(path):
        path = resolve(path)
        create(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _contract(connection, path)
            # The first statement to the end of the list runs once a process; FULL is what makes
            # "answered 200" mean "on disk" in WAL mode.
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"journal_size_limit = {WAL_LIMIT_BYTES}",
                "cache_size = -32768",
            ):
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection)
            # Only now: a new index of a large mirror is sorted on disk.
            connection.execute("PRAGMA temp_store = MEMORY")
            # Reading makes the log, if it is not there yet.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            close_without_checkpoint(connection)
            raise
    return connection


def open_for_reading(path: Path, *, check_same_thread: bool = True) -> ReadConnection:
    """Return a connection that can only read, as a shop's would be."""
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


def close_for_readers(connection: sqlite3.Connection) -> None:
    """End the writer so that a reader without write permission can go on reading.

    The last clean close of a WAL database deletes `-wal` and `-shm`, and a reader that may not
    write the folder cannot make them anew: "attempt to write a readonly database"
    (measured; syncd/README.md, "Traps"). So the log is emptied into the database and both files
    stay.
    """
    with contextlib.suppress(sqlite3.Error):
        # A reader that stays in its transaction must not hold the end up; the log then stays, too.
        connection.execute(f"PRAGMA busy_timeout = {LEAVE_TIMEOUT_MS}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    close_without_checkpoint(connection)


def close_without_checkpoint(connection: sqlite3.Connection) -> None:
    """Close the writer without a checkpoint; the files may be damaged, or not its own any more."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        connection.close()
    else:
        # 3.11 cannot say so, and closes what it collects: one reference that nobody gives back
        # keeps it from collecting this, and the kernel closes the files when the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _contract(connection: sqlite3.Connection, path: Path) -> int:
    """Return the contract number of the file, 0 for an empty one; refuse what is not ours."""
    contract = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if tables and application_id != APPLICATION_ID and not _is_half_made(connection):
        raise MirrorIncompatible(
            f"{path} is a database, but no mirror of syncd",
            hint="check mirror.path; if it was put in the mirror's place, move it away with its "
            "-wal and -shm: from a backup, or from nothing, a sweep makes the mirror whole",
        )
    if contract > CONTRACT:
        raise MirrorIncompatible(
            f"{path} was made by a newer syncd (contract {contract}, this one knows {CONTRACT})",
            hint="install the newer version again, or restore a backup of before",
        )
    return contract


def _is_half_made(connection: sqlite3.Connection) -> bool:
    """Tell whether only the list of migrations exists: killed during the very first start."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    return all("_sqlite_migrations" in name for name in names)
