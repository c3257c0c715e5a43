"""SQLite's and the system's errors as ours, each with what to try."""

from __future__ import annotations

import contextlib
import errno
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from syncd.errors import MirrorError, MirrorIncompatible, MirrorUnavailable, Overloaded
from syncd.store.files import sidecars

_SPACE = "check free disk space and the permissions of the file and its folder"
_PERMISSIONS = "the file and its folder must belong to the user that runs this; see `syncd doctor`"
_SHARING = (
    "SQLite's log needs memory that processes share, which network file systems do not have: put "
    "the mirror on a local disk"
)
_NO_SIDECARS = (
    "start the daemon, or run any syncd command as its user: that makes them again; and look into "
    "the mirror with `sqlite3 -readonly` only"
)
_HINTS = {
    "SQLITE_FULL": "free some disk space",
    "SQLITE_BUSY": "another program writes to the mirror: end it; shops and people only read",
    "SQLITE_READONLY": _PERMISSIONS,
    "SQLITE_CANTOPEN": "check that the file and its folder belong to the user that runs this, and "
    "that the path is shorter than 500 bytes",
    "SQLITE_PROTOCOL": _SHARING,
    "SQLITE_IOERR_SHMOPEN": _SHARING,
    "SQLITE_IOERR_SHMSIZE": _SPACE,
    "SQLITE_IOERR_SHMMAP": _SHARING,
    "SQLITE_IOERR_SHMLOCK": _SHARING,
    "SQLITE_IOERR_LOCK": _SHARING,
}
# Every statement is ours and fits our tables: these only happen when the tables are not ours.
_FOREIGN = re.compile(r"no such (table|column|view|index)|has no column named")
_WITHOUT_SIDECARS = {"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY", "SQLITE_READONLY_CANTINIT"}


def overwritten(path: Path) -> MirrorIncompatible:
    """Return the error of a mirror in whose file another database was put."""
    return MirrorIncompatible(
        f"another database was copied over the mirror at {path} while it was in use",
        hint=f"stop the daemon, put a mirror or nothing at {path.name}, remove {path.name}-wal and "
        f"{path.name}-shm, and start it again: a sweep puts right what is old or missing",
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's faults into ours, with what to try."""
    try:
        yield
    except MirrorError:
        raise
    except sqlite3.OperationalError as fault:
        if getattr(fault, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise Overloaded(
                "the mirror takes too long to answer this", hint="ask for less, such as an id"
            ) from fault
        raise _operational(path, fault) from fault
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
            hint="choose a shorter mirror.path"
            if fault.errno == errno.ENAMETOOLONG
            else "check that mirror.path names a folder this user may write",
        ) from fault


def _operational(path: Path, fault: sqlite3.OperationalError) -> MirrorError:
    name = getattr(fault, "sqlite_errorname", "")
    if _FOREIGN.search(str(fault)):
        return MirrorIncompatible(
            f"{path} is no mirror of this syncd, or another database was put in its place: {fault}",
            hint=overwritten(path).hint,
        )
    if name in _WITHOUT_SIDECARS and path.is_file() and path.stat().st_size:
        missing = [file.name for file in sidecars(path) if not file.exists()]
        if missing:
            return MirrorUnavailable(
                f"{path} cannot be read without {' and '.join(missing)}, and this user may not "
                "make them: a program that closed the mirror last has deleted them",
                hint=_NO_SIDECARS,
            )
    hint = _HINTS.get(name) or _HINTS.get("_".join(name.split("_")[:2]), _SPACE)
    return MirrorUnavailable(f"the mirror at {path} cannot be used now: {fault}", hint=hint)
