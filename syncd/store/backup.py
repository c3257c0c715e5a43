"""A consistent copy of the mirror while everything runs."""

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
from syncd.store.translation import translated

# Between two steps of a copy an interrupt is seen.
PAGES_A_STEP = 4096
# A copy that is being made is written to all the time; one that is not for so long was killed.
ABANDONED_AFTER_S = 3600
# What SQLite takes for a part of the database whose name comes before it.
_RESERVED = ("-wal", "-shm", "-journal", ".lock")
_PART = re.compile(r"\.syncd-backup-[0-9]+-[0-9a-f]{8}\.part")


def backup(mirror: Path, target: Path) -> None:
    """Copy the mirror as it is at one moment to `target`, which appears only when it is whole.

    It is one file without a log, so that putting it in place restores it. Raises UsageError when
    something is there already, and leaves of MirrorError.
    """
    _require_free(target)
    source = open_for_reading(mirror)
    try:
        _require_own_name(resolve(mirror), target)
        with _translated(target):
            _remove_abandoned(target.parent)
        # Of its own name: that of the target may be as long as names can be.
        name = f".syncd-backup-{os.getpid()}-{secrets.token_hex(4)}.part"
        part = target.parent.absolute() / name
        try:
            # Here, because an interrupt may come as soon as the file is there.
            with _translated(target):
                _make(part)
            _fill(part, source, mirror, target)
            with _translated(target):
                _put(part, target)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    finally:
        source.close()


def _require_free(target: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        taken = target.with_name(target.name + end)
        # A log that lies beside the copy would be taken for its own.
        if os.path.lexists(taken):
            raise _taken(taken)


def _require_own_name(mirror: Path, target: Path) -> None:
    """Raise UsageError when SQLite, or the daemon, would take the copy for a part of a mirror."""
    real = resolve(target)
    for end in _RESERVED:
        base = real.with_name(real.name.removesuffix(end))
        if real.name.endswith(end) and (base == mirror or base.exists()):
            raise UsageError(
                f"{target} would be taken for a part of {base}", hint="name the backup otherwise"
            )


def _make(part: Path) -> None:
    fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    set_mode(fd)
    os.close(fd)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a backup that was killed has left; its process cannot."""
    for file in folder.iterdir():
        if _PART.fullmatch(file.name):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > ABANDONED_AFTER_S:
                    file.unlink()


def _fill(part: Path, source: sqlite3.Connection, mirror: Path, target: Path) -> None:
    """Copy the mirror into `part` and check it; nothing else is ever made beside it.

    Without locks, journal and log, which nobody else needs and not every file system has.
    """
    with translated(mirror):
        # One read transaction: the writer goes on beside it, and no commit makes it begin anew.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        with contextlib.closing(sqlite3.connect(f"{part.as_uri()}?nolock=1", uri=True)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            # With a function to call, Python looks for an interrupt between two steps.
            source.backup(copy, pages=PAGES_A_STEP, progress=lambda *_: None)
        with _translated(target), part.open("r+b") as file:
            # No log: whoever opens the copy would need to make one beside it.
            file.seek(18)
            file.write(b"\1\1")
        check = sqlite3.connect(f"{part.as_uri()}?immutable=1", uri=True)
        with contextlib.closing(check):
            found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as fault:
        raise _unwritable(target, str(fault)) from fault
    except sqlite3.DatabaseError as fault:
        found = str(fault)
    if found != "ok":
        raise MirrorIncompatible(
            f"the mirror is damaged, and so would be its backup: {found}",
            hint="keep the backups of before; move the mirror away and start the daemon again",
        )


def _put(part: Path, target: Path) -> None:
    """Give a whole file its name, unless another took it meanwhile."""
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
        with contextlib.suppress(OSError):  # not every file system knows how
            os.fsync(folder)
    finally:
        os.close(folder)


def _take_name(part: Path, target: Path) -> None:
    """Do the same where files have one name only: take it with an empty file, and replace that."""
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
        f"{path} exists already, and a backup replaces nothing",
        hint="name a file that does not exist yet, or move that one away",
    )


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise _unwritable(target, fault.strerror or str(fault)) from fault


def _unwritable(target: Path, why: str) -> MirrorError:
    return MirrorUnavailable(
        f"the backup {target} cannot be written: {why}",
        hint="name a file in a folder that this user may write and that has space",
    )
