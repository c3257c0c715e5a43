"""A consistent copy of the mirror while everything runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from syncd.errors import MirrorError, MirrorIncompatible, MirrorUnavailable, UsageError
from syncd.store.connection import FILE_MODE, open_for_reading, translated


def backup(mirror: Path, target: Path) -> None:
    """Copy the mirror as it is at one moment to `target`, which appears only when it is whole.

    It is one file without a log, so that putting it in place restores it. Raises UsageError when
    something is there already, and leaves of MirrorError.
    """
    for taken in (target, *(target.with_name(target.name + end) for end in ("-wal", "-shm"))):
        # A log that lies beside the copy would be taken for its own.
        if os.path.lexists(taken):
            raise UsageError(
                f"{taken} exists already, and a backup replaces nothing",
                hint="name a file that does not exist yet, or move that one away",
            )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    source = open_for_reading(mirror)
    try:
        with _translated(target):
            fd = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
            os.fchmod(fd, FILE_MODE)
            os.close(fd)
        try:
            with translated(mirror), contextlib.closing(sqlite3.connect(part)) as copy:
                _fill(copy, source, target)
            with _translated(target):
                _put(part, target)
        finally:
            part.unlink(missing_ok=True)
    finally:
        source.close()


def _fill(copy: sqlite3.Connection, source: sqlite3.Connection, target: Path) -> None:
    try:
        # One step is one read transaction: the writer goes on beside it, and in more steps each
        # of its commits would make the copy begin anew.
        source.backup(copy, pages=-1)
        # Without it whoever opens the copy would need to make a log beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as fault:
        raise _unwritable(target, str(fault)) from fault
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
    os.link(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
