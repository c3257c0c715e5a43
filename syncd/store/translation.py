"""Translates errors of SQLite and of the system into `MirrorError`s, each with a hint."""

from __future__ import annotations

import contextlib
import errno
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from syncd.errors import MirrorError, MirrorIncompatible, MirrorUnavailable, Overloaded
from syncd.store.files import sidecars
from syncd.store.migrations import has_older_schema

_SPACE = "check free disk space and the permissions of the file and its folder"
_PERMISSIONS = "the file and its folder must belong to the user that runs this; see `syncd doctor`"
_SHARING = (
    "SQLite's log needs shared memory, which network file systems do not have: put "
    "the mirror on a local disk"
)
_NO_SIDECARS = (
    "start the daemon, or run any syncd command as its user, to create them again; open the mirror "
    "only with `sqlite3 -readonly`"
)
_HINTS = {
    "SQLITE_FULL": "free some disk space",
    "SQLITE_BUSY": "another program writes to the mirror: stop it; shops may only read",
    "SQLITE_READONLY": _PERMISSIONS,
    "SQLITE_CANTOPEN": "run it as the owner of the file or as a member of its group, and check "
    "that the path is shorter than 500 bytes",
    "SQLITE_PROTOCOL": _SHARING,
    "SQLITE_IOERR_SHMOPEN": _SHARING,
    "SQLITE_IOERR_SHMSIZE": _SPACE,
    "SQLITE_IOERR_SHMMAP": _SHARING,
    "SQLITE_IOERR_SHMLOCK": _SHARING,
    "SQLITE_IOERR_LOCK": _SHARING,
}
# Each statement fits the tables of this version, so these errors show tables of another program.
_FOREIGN = re.compile(r"no such (table|column|view|index)|has no column named")
_WITHOUT_SIDECARS = {"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY", "SQLITE_READONLY_CANTINIT"}


def overwritten(path: Path) -> MirrorIncompatible:
    """Return the error of a mirror that another database has overwritten."""
    return MirrorIncompatible(
        f"another database was copied over the mirror at {path} while it was in use",
        hint=f"stop the daemon, restore a mirror at {path.name} or remove it, remove "
        f"{path.name}-wal and {path.name}-shm, and start again: a sweep corrects the mirror",
    )


def replaced(path: Path) -> MirrorUnavailable:
    """Return the error of a mirror whose file was replaced."""
    return MirrorUnavailable(
        f"the mirror at {path} was deleted or replaced while it was in use",
        hint="restore the same files, or restart: the daemon then uses the files that are there, "
        "and without a file a sweep fills a new mirror",
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and of the system into MirrorErrors with hints."""
    try:
        yield
    except MirrorError:
        raise
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise Overloaded(
                "the query takes too long", hint="ask for less, for instance for an id"
            ) from error
        raise _operational(path, error) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise  # a value that no column accepts: an error of the caller, not of the file
        raise MirrorIncompatible(
            f"the mirror at {path} is damaged or no database: {error}",
            hint="move it away with its -wal and -shm; then restore a backup or start without one, "
            "and a sweep completes the mirror",
        ) from error
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        reason = "its folder is a file" if is_file else error.strerror or error
        raise MirrorUnavailable(
            f"the mirror at {path} cannot be used: {reason}",
            hint="choose a shorter mirror.path"
            if error.errno == errno.ENAMETOOLONG
            else "check that mirror.path names a folder this user may write",
        ) from error


def _is_of_older_version(path: Path) -> bool:
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(connection):
            return has_older_schema(connection)
    return False


def _operational(path: Path, error: sqlite3.OperationalError) -> MirrorError:
    name = getattr(error, "sqlite_errorname", "")
    if _FOREIGN.search(str(error)):
        if _is_of_older_version(path):
            return MirrorIncompatible(
                f"an older version of syncd made {path}, and the daemon has not upgraded it yet",
                hint="start or restart the daemon of this version; it upgrades the mirror",
            )
        return MirrorIncompatible(
            f"{path} is no mirror of this syncd, or another database replaced it: {error}",
            hint=overwritten(path).hint,
        )
    if name in _WITHOUT_SIDECARS and path.is_file() and path.stat().st_size:
        missing = [file.name for file in sidecars(path) if not file.exists()]
        if missing:
            return MirrorUnavailable(
                f"{path} cannot be read without {' and '.join(missing)}, and this user may not "
                "create them: the program that closed the mirror last has deleted them",
                hint=_NO_SIDECARS,
            )
    hint = _HINTS.get(name) or _HINTS.get("_".join(name.split("_")[:2]), _SPACE)
    return MirrorUnavailable(f"the mirror at {path} cannot be used now: {error}", hint=hint)
