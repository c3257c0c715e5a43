"""Which file the mirror is: its real path, the one process that holds it, and what lies beside it.

A path is only a name. Symbolic links, hard links and mounts give one file several names, and SQLite
finds `-wal` and `-shm` by name. So paths are resolved first, and the lock is on the file itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from syncd.errors import MirrorIncompatible, MirrorLocked, MirrorUnavailable
from syncd.store.migrations import APPLICATION_ID

# The shop's user reads through its group; a new -wal or -shm takes its mode from this file's.
FILE_MODE = 0o640
# Whoever may read the lock file could hold it, and no daemon would start.
LOCK_MODE = 0o600
# A link in its place would have the number of the process written into some other file.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
# One byte far behind every byte that SQLite reads, writes or locks (a database ends at 2**48).
_LOCKED_BYTE = 1 << 62

SIDECARS = ("-wal", "-shm")
WAL_HEADER_BYTES = 32
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def resolve(path: Path) -> Path:
    """Return the real path of the mirror: no link is left in it.

    A link to a file that does not exist yet is followed, but no folder is made through it: its
    target may be a disk that is not mounted.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise MirrorUnavailable(
            f"{path} is a link that leads back to itself", hint="remove it, or change mirror.path"
        )
    dangling = any(name.is_symlink() and not name.exists() for name in (path, *path.parents))
    if dangling and not real.parent.is_dir():
        raise MirrorUnavailable(
            f"{path} is a link to {real}, and there is no folder {real.parent}",
            hint="mount or make that folder, or change mirror.path",
        )
    return real


def sidecars(path: Path) -> list[Path]:
    """Return the paths of the log and of its index."""
    return [path.with_name(path.name + end) for end in SIDECARS]


def require_file(path: Path) -> None:
    """Raise MirrorIncompatible when something that is no regular file has this name."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "no file")
            raise MirrorIncompatible(
                f"{path} is {kind}, and the mirror is a file",
                hint="name a file in mirror.path, for instance availability.db in that folder",
            )


def create(path: Path) -> None:
    """Make an empty mirror with the right mode, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    require_file(path)
    # Made beforehand, so that no umask of the day decides who may read it.
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
        set_mode(fd)
        os.close(fd)


def set_mode(fd: int) -> None:
    """Let the group read a file; where files have no modes, the mount has them."""
    with contextlib.suppress(OSError):
        os.fchmod(fd, FILE_MODE)


def files_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Return which files database, log and index are; raises FileNotFoundError when one is not.

    SQLite goes on with files that were deleted or replaced under its feet, and nobody else would
    ever see what it writes there.
    """
    found = (os.stat(f"{path}{end}") for end in ("", *SIDECARS))  # noqa: PTH116 - each batch
    return tuple((file.st_dev, file.st_ino) for file in found)


def is_of_syncd(header: bytes) -> bool:
    """Tell whether a mirror's mark is in the file itself, and not only in its log yet."""
    return header[68:72] == APPLICATION_ID.to_bytes(4)


def missing_sidecars(path: Path) -> list[str]:
    """Return the names of files that a reader without write permission needs and does not find.

    A backup needs none. Not for a process that has the mirror open: see Lock.
    """
    missing = [file.name for file in sidecars(path) if not file.exists()]
    if not missing or not path.exists():
        return []
    with contextlib.suppress(OSError), path.open("rb") as file:
        return missing if file.read(20)[18:] == b"\2\2" else []
    return missing


def require_own_log(path: Path, header: bytes, size: int) -> None:
    """Raise MirrorIncompatible when the log beside the database is of another database.

    Nothing in a log says whose it is: SQLite replays what it finds. But a mirror with a log says in
    its first page that it has one, and a backup says that it has none.
    """
    log = sidecars(path)[0]
    try:
        has_log = log.stat().st_size > WAL_HEADER_BYTES
    except FileNotFoundError:
        return
    page_size = int.from_bytes(header[16:18])
    # Ended during the very first start: all that the mirror holds is still in the log.
    is_new = size <= page_size
    is_whole = header.startswith(b"SQLite format 3\0")  # else SQLite itself says what it is
    is_own = header[18:20] == b"\2\2" and (is_of_syncd(header) or is_new)
    if has_log and is_whole and not is_own:
        raise MirrorIncompatible(
            f"{log} is the log of another database than {path}: one was put in the place of the "
            "other",
            hint=f"if {path.name} is the file to keep, remove {path.name}-wal and {path.name}-shm, "
            "and start again; else put the file back that belongs to the log",
        )


class Lock:
    """Held by the one process that writes a mirror; the kernel lets go of it if that one dies.

    There are two: on `.lock` beside the mirror, which names the process, and on the database file
    itself, which has the same effect under every name of it. The second is of an open file
    description and on a byte that SQLite never locks: `flock` would meet SQLite's own locks on
    network file systems. Both descriptors stay open until the end: a process that closes any
    descriptor of a file loses SQLite's locks on it.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._reading = -1
        self._first: tuple[bytes, ...] = ()

    def acquire(self, path: Path) -> None:
        """Take the locks of the resolved `path`; raises MirrorLocked when another process holds it.

        The file is made if there is none. Raises MirrorIncompatible when it cannot be a mirror.
        """
        require_file(path)
        try:
            self._acquire_name(path)
            create(path)
            self._acquire_file(path)
            header = self.header()
            require_own_log(path, header, os.fstat(self._reading).st_size)
        except BaseException:
            self.release()
            raise

    def header(self) -> bytes:
        """Return the first bytes of the locked file, whatever has its name now."""
        return os.pread(self._reading, 100, 0)

    def is_overwritten(self) -> bool:
        """Tell whether another database was copied into the file itself.

        Its first bytes stay the same for as long as the writer is open.
        """
        header = self.header()
        if not self._first:
            if is_of_syncd(header):
                self._first = header[:20], header[68:72]
            return header[18:20] != b"\2\2"
        return (header[:20], header[68:72]) != self._first

    @property
    def file(self) -> tuple[int, int]:
        """Which file is locked."""
        found = os.fstat(self._reading)
        return found.st_dev, found.st_ino

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        for fd in reversed(self._fds):
            os.close(fd)
        self._fds.clear()

    def _acquire_name(self, path: Path) -> None:
        name = path.with_name(path.name + ".lock")
        try:
            fd = os.open(name, _LOCK_FLAGS, LOCK_MODE)
        except OSError as fault:
            if fault.errno == errno.ELOOP:
                raise MirrorUnavailable(
                    f"{name} is a link, and the lock of a mirror must be a file of its own",
                    hint=f"remove {name}",
                ) from fault
            raise
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise _locked(f" (pid {holder})" if holder else "", "the mirror") from fault
        with contextlib.suppress(OSError):  # a full disk; it is only for who asks who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)

    def _acquire_file(self, path: Path) -> None:
        writing = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._fds.append(writing)
        self._reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(self._reading)
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
        try:
            fcntl.fcntl(writing, fcntl.F_OFD_SETLK, wanted)
        except OSError as fault:
            if fault.errno in {errno.EAGAIN, errno.EACCES}:
                raise _locked("", f"{path} under another name of this file") from fault
            if fault.errno != errno.EINVAL:  # a kernel without them has the lock of the name
                raise


def _locked(holder: str, what: str) -> MirrorLocked:
    return MirrorLocked(
        f"another syncd process{holder} holds {what}",
        hint="stop it first, or let it do the work",
    )
