"""Makes a consistent copy of the mirror while the daemon runs."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from syncd.errors import MirrorError, MirrorIncompatible, MirrorUnavailable, UsageError
from syncd.store.connection import open_for_reading
from syncd.store.files import FILE_MODE, resolve, set_mode
from syncd.store.pushes import MIRROR_ID
from syncd.store.translation import translated

# A copy can be interrupted between two steps.
PAGES_A_STEP = 4096
# A running backup writes to its file all the time. If it has not for this long, it was killed.
ABANDONED_AFTER_S = 3600
# SQLite takes a file with such an ending for a part of the database with the name before it.
_RESERVED = ("-wal", "-shm", "-journal", ".lock")
_PART = re.compile(r"\.syncd-backup-[0-9]+-[0-9a-f]{8}\.part")


def backup(mirror: Path, target: Path) -> None:
    """Copy the mirror at one moment to `target`, which appears only once the copy is complete.

    The copy is one file without a log, so putting it in place restores it. Raises UsageError if
    `target` exists, and MirrorErrors.
    """
    _require_free(target)
    source = open_for_reading(mirror)
    try:
        _require_own_name(resolve(mirror), target)
        with _translated_for_target(target):
            _remove_abandoned(target.parent)
        # An unrelated name: the name of the target may have the maximum length already.
        name = f".syncd-backup-{os.getpid()}-{secrets.token_hex(4)}.part"
        part = target.parent.absolute() / name
        try:
            # Inside of `try`: an interrupt may come as soon as the file exists.
            with _translated_for_target(target):
                _create(part)
            _fill(part, source, mirror, target)
            with _translated_for_target(target):
                _publish(part, target)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    finally:
        source.close()


def _require_free(target: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        taken = target.with_name(target.name + end)
        # SQLite would take a log beside the copy for the log of the copy.
        if os.path.lexists(taken):
            raise _taken(taken)


def _require_own_name(mirror: Path, target: Path) -> None:
    """Raise UsageError if SQLite or the daemon would take the copy for a part of a mirror."""
    real = resolve(target)
    for end in _RESERVED:
        base = real.with_name(real.name.removesuffix(end))
        if real.name.endswith(end) and (base == mirror or base.exists()):
            raise UsageError(
                f"{target} would be taken for a part of {base}",
                hint="choose another name for the backup",
            )


def _create(part: Path) -> None:
    fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    set_mode(fd)
    os.close(fd)


def _remove_abandoned(folder: Path) -> None:
    """Remove the files of backups that were killed."""
    for file in folder.iterdir():
        if _PART.fullmatch(file.name):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > ABANDONED_AFTER_S:
                    file.unlink()


def _fill(part: Path, source: sqlite3.Connection, mirror: Path, target: Path) -> None:
    """Copy the mirror into `part` and check the copy; no other file is created beside it.

    Without locks, journal and log: no other process uses the file, and some file systems lack them.
    """
    with translated(mirror):
        # One read transaction: the writer continues, and a commit does not restart the copy.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        with contextlib.closing(sqlite3.connect(f"{part.as_uri()}?nolock=1", uri=True)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            # Because of the progress function, Python handles an interrupt between two steps.
            source.backup(copy, pages=PAGES_A_STEP, progress=lambda *_: None)
        with _translated_for_target(target), part.open("r+b") as file:
            # No WAL mode: a reader of the copy would have to create a log beside it.
            file.seek(18)
            file.write(b"\1\1")
        with contextlib.closing(
            sqlite3.connect(f"{part.as_uri()}?nolock=1", uri=True, isolation_level=None)
        ) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            # Once it is restored, its changes are others than those with the same `seq` before.
            copy.execute("DELETE FROM state WHERE key = ?", (MIRROR_ID,))
        check = sqlite3.connect(f"{part.as_uri()}?immutable=1", uri=True)
        with contextlib.closing(check):
            found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise _unwritable(target, str(error)) from error
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise MirrorIncompatible(
            f"the mirror is damaged, and so would be its backup: {found}",
            hint="keep the older backups; move the mirror away and start the daemon again",
        )


def _publish(part: Path, target: Path) -> None:
    """Give a complete file its name, unless another file has taken the name."""
    fd = os.open(part, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(part, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:
        _take_name(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(folder)
    finally:
        os.close(folder)


def _take_name(part: Path, target: Path) -> None:
    """Do so on a file system without hard links: create an empty file, and replace it."""
    try:
        fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    except FileExistsError:
        raise _taken(target) from None
    os.close(fd)
    try:
        part.replace(target)
    except BaseException:
        target.unlink()
        raise


def _taken(path: Path) -> UsageError:
    return UsageError(
        f"{path} exists already, and a backup replaces no file",
        hint="name a file that does not exist yet, or move that one away",
    )


@contextlib.contextmanager
def _translated_for_target(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error


def _unwritable(target: Path, reason: str) -> MirrorError:
    return MirrorUnavailable(
        f"the backup {target} cannot be written: {reason}",
        hint="name a file in a folder that this user may write and that has space",
    )
