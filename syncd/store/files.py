"""The files of the mirror: their real path, their lock, and the log of SQLite beside them.

Symbolic links, hard links and mounts give one file several names, and SQLite finds `-wal` and
`-shm` by name. So paths are resolved first, and the lock is on the file itself.
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

# The shop's user reads through its group; SQLite gives a new -wal or -shm the same mode.
FILE_MODE = 0o640
# A user that may read the lock file could lock it, and no daemon would start.
LOCK_MODE = 0o600
# Through a link, the process would write its number into another file.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
# One byte far behind all bytes that SQLite reads, writes or locks (a database ends at 2**48).
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
    """Return the real path of the mirror, without links.

    A link may lead to a file that does not exist yet, but the folder of that file must exist: it
    may be on a disk that is not mounted.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise MirrorUnavailable(
            f"{path} is a link that leads to itself", hint="remove it, or change mirror.path"
        )
    dangling = any(name.is_symlink() and not name.exists() for name in (path, *path.parents))
    if dangling and not real.parent.is_dir():
        raise MirrorUnavailable(
            f"{path} is a link to {real}, and there is no folder {real.parent}",
            hint="mount or create that folder, or change mirror.path",
        )
    return real


def sidecars(path: Path) -> list[Path]:
    """Return the paths of the log and of its index."""
    return [path.with_name(path.name + end) for end in SIDECARS]


def require_file(path: Path) -> None:
    """Raise MirrorIncompatible if the path exists and is no regular file."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "no file")
            raise MirrorIncompatible(
                f"{path} is {kind}, and the mirror is a file",
                hint="name a file in mirror.path, for instance availability.db in that folder",
            )


def create(path: Path) -> None:
    """Create an empty mirror with the right mode, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    require_file(path)
    # Created before SQLite does, so that the umask does not decide who may read it.
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
        set_mode(fd)
        os.close(fd)


def set_mode(fd: int) -> None:
    """Let the group read a file; on file systems without modes, the mount decides."""
    with contextlib.suppress(OSError):
        os.fchmod(fd, FILE_MODE)


def files_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Return the identities of database, log and index; raises FileNotFoundError if one is missing.

    SQLite continues to write to files that were deleted or replaced, and no other process sees its
    writes.
    """
    found = (os.stat(f"{path}{end}") for end in ("", *SIDECARS))  # noqa: PTH116 - each batch
    return tuple((file.st_dev, file.st_ino) for file in found)


def is_of_syncd(header: bytes) -> bool:
    """Return whether the file itself has the mark of a mirror, and not only its log."""
    return header[68:72] == APPLICATION_ID.to_bytes(4)


def missing_sidecars(path: Path) -> list[str]:
    """Return the names of missing files that a reader without write permission needs.

    A backup needs none. A process that has the mirror open must not call this: see Lock.
    """
    missing = [file.name for file in sidecars(path) if not file.exists()]
    if not missing or not path.exists():
        return []
    with contextlib.suppress(OSError), path.open("rb") as file:
        return missing if file.read(20)[18:] == b"\2\2" else []
    return missing


def require_own_log(path: Path, header: bytes, size: int) -> None:
    """Raise MirrorIncompatible if the log beside the database belongs to another database.

    A log does not name its database: SQLite replays any log. But the first page of a mirror shows
    that it has a log, and the first page of a backup that it has none.
    """
    log = sidecars(path)[0]
    try:
        has_log = log.stat().st_size > WAL_HEADER_BYTES
    except FileNotFoundError:
        return
    page_size = int.from_bytes(header[16:18])
    # The very first start was interrupted: the whole content is still in the log.
    is_new = size <= page_size
    is_whole = header.startswith(b"SQLite format 3\0")  # otherwise SQLite itself reports the error
    is_own = header[18:20] == b"\2\2" and (is_of_syncd(header) or is_new)
    if has_log and is_whole and not is_own:
        raise MirrorIncompatible(
            f"{log} is the log of another database than {path}: one of the two was replaced",
            hint=f"if {path.name} is the right file, remove {path.name}-wal and {path.name}-shm, "
            "and start again; otherwise restore the file that belongs to the log",
        )


class Lock:
    """The lock of the process that writes a mirror; the kernel releases it if the process dies.

    There are two locks: one on `.lock` beside the mirror, which contains the number of the process,
    and one on the database file itself, which works under every name of the file. The second lock
    belongs to an open file description and is on a byte that SQLite never locks: `flock` would
    conflict with SQLite's own locks on network file systems. Both descriptors stay open until the
    end: a process that closes any descriptor of a file loses SQLite's locks on it.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._reading = -1
        self._first: tuple[bytes, ...] = ()

    def acquire(self, path: Path) -> None:
        """Take the locks of the resolved `path`; raises MirrorLocked if another process has them.

        Creates the file if there is none. Raises MirrorIncompatible if the file cannot be a mirror.
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
        """Return the first bytes of the locked file, even if its name has another file now."""
        return os.pread(self._reading, 100, 0)

    def is_overwritten(self) -> bool:
        """Return whether another database was copied into the file itself.

        The first bytes of a mirror do not change while the writer is open.
        """
        header = self.header()
        if not self._first:
            if is_of_syncd(header):
                self._first = header[:20], header[68:72]
            return header[18:20] != b"\2\2"
        return (header[:20], header[68:72]) != self._first

    @property
    def file(self) -> tuple[int, int]:
        """The identity of the locked file."""
        found = os.fstat(self._reading)
        return found.st_dev, found.st_ino

    def release(self) -> None:
        """Release the locks. The `.lock` file stays: else two processes could lock two files."""
        for fd in reversed(self._fds):
            os.close(fd)
        self._fds.clear()

    def _acquire_name(self, path: Path) -> None:
        name = path.with_name(path.name + ".lock")
        try:
            fd = os.open(name, _LOCK_FLAGS, LOCK_MODE)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise MirrorUnavailable(
                    f"{name} is a link, and the lock of a mirror must be a regular file",
                    hint=f"remove {name}",
                ) from error
            raise
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise _locked(f" (pid {holder})" if holder else "", "the mirror") from error
        with contextlib.suppress(OSError):  # a full disk; the number only serves an error message
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)

    def _acquire_file(self, path: Path) -> None:
        writing = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._fds.append(writing)
        self._reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(self._reading)
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
        try:
            fcntl.fcntl(writing, fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise _locked("", f"{path} under another name of this file") from error
            if error.errno != errno.EINVAL:  # an old kernel has only the first lock
                raise


def _locked(holder: str, mirror: str) -> MirrorLocked:
    return MirrorLocked(
        f"another syncd process{holder} uses {mirror}",
        hint="stop it first, or let it do the work",
    )
