"""Opening the one file: who may write, how durable, and how it is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from syncd.errors import (
    MirrorError,
    MirrorIncompatible,
    MirrorLocked,
    MirrorMissing,
    MirrorUnavailable,
)
from syncd.store.migrations import APPLICATION_ID, CONTRACT, migrate

# The shop's user reads through its group; a new -wal or -shm takes its mode from this file's.
FILE_MODE = 0o640
BUSY_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_MS = 500
REFUSED_TIMEOUT_S = 1.0
REFUSED_PAUSE_S = 0.002
# After a long reader let the log grow, the file shrinks back to this.
WAL_LIMIT_BYTES = 64 * 1024 * 1024


# Who may read it could hold it, and no daemon would start.
LOCK_MODE = 0o600
# A link in its place would have the number of the process written into some other file.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Lock:
    """Held by the one process that writes a mirror; the kernel lets go of it if that one dies."""

    def __init__(self, mirror: Path) -> None:
        self._path = mirror.with_name(mirror.name + ".lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; raises MirrorLocked when another process holds it."""
        fd = os.open(self._path, _LOCK_FLAGS, LOCK_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            raise MirrorLocked(
                f"another syncd process{f' (pid {holder})' if holder else ''} holds the mirror",
                hint="stop it first, or let it do the work",
            ) from fault
        with contextlib.suppress(OSError):  # a full disk; it is only for who asks who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Reader(sqlite3.Connection):
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
        _create(path)
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
            _let_go(connection)
            raise
    return connection


def open_for_reading(path: Path, *, check_same_thread: bool = True) -> Reader:
    """Return a connection that can only read, as a shop's would be."""
    if not path.exists():
        raise MirrorMissing(
            f"there is no mirror at {path}", hint="start the daemon, or check mirror.path"
        )
    with translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=check_same_thread,
            factory=Reader,
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


def files_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Return which files database, log and index are; raises FileNotFoundError when one is not.

    SQLite goes on with files that were deleted or replaced under its feet, and nobody else would
    ever see what it writes there.
    """
    found = (os.stat(f"{path}{end}") for end in ("", "-wal", "-shm"))  # noqa: PTH116 - each batch
    return tuple((file.st_dev, file.st_ino) for file in found)


def leave(connection: sqlite3.Connection) -> None:
    """End the writer so that a reader without write permission can go on reading.

    The last clean close of a WAL database deletes `-wal` and `-shm`, and a reader that may not
    write the folder cannot make them anew: "attempt to write a readonly database" (measured,
    design.md). So the log is emptied into the database and both files stay.
    """
    with contextlib.suppress(sqlite3.Error):
        # A reader that stays in its transaction must not hold the end up; the log then stays, too.
        connection.execute(f"PRAGMA busy_timeout = {LEAVE_TIMEOUT_MS}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _let_go(connection)


def _let_go(connection: sqlite3.Connection) -> None:
    """End a writer without a word to the files, damaged as they may be."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        connection.close()
    else:
        # 3.11 cannot say so, and closes what it collects: one reference that nobody gives back
        # keeps it from collecting this, and the kernel closes the files when the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's faults into ours, with what to try."""
    try:
        yield
    except MirrorError:
        raise
    except sqlite3.OperationalError as fault:
        raise MirrorUnavailable(
            f"the mirror at {path} cannot be used now: {fault}",
            hint="check free disk space and the permissions of the file and its folder",
        ) from fault
    except sqlite3.DatabaseError as fault:
        if type(fault) is not sqlite3.DatabaseError:
            raise  # a value no column takes: the caller's matter, the file is sound
        raise MirrorIncompatible(
            f"the mirror at {path} is damaged or no database: {fault}",
            hint="move it away with its -wal and -shm, and start again: from a backup put in its "
            "place, or from nothing, which a sweep fills",
        ) from fault
    except OSError as fault:
        raise MirrorUnavailable(
            f"the mirror at {path} cannot be used: {fault.strerror or fault}",
            hint="check that mirror.path names a folder this user may write",
        ) from fault


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made beforehand, so that no umask of the day decides who may read it.
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
        os.fchmod(fd, FILE_MODE)
        os.close(fd)


def _contract(connection: sqlite3.Connection, path: Path) -> int:
    """Return the contract number of the file, 0 for an empty one; refuse what is not ours."""
    contract = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if tables and application_id != APPLICATION_ID and not _is_half_made(connection):
        raise MirrorIncompatible(
            f"{path} is a database, but no mirror of syncd", hint="check mirror.path"
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
