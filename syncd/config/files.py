"""Reading the small files of a configuration, whatever their names turn out to lead to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1024 * 1024
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_small(path: Path) -> str:
    """Return the text of a file.

    Raises OSError or UnicodeError; what is no ordinary file, or endless, is an OSError, too,
    instead of a wait for what never comes.
    """
    # Without O_NONBLOCK, a pipe that nobody writes to would never be opened.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(0, f"is {_KINDS.get(kind, 'something else')}, not a file")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > MAX_BYTES:
        raise OSError(0, f"is longer than {MAX_BYTES // 1024} KiB")
    return content.decode()


def reason(fault: OSError | UnicodeError) -> str:
    """Return why a file could not be read, in a few words without its name."""
    if isinstance(fault, UnicodeDecodeError):
        return f"is not UTF-8 (byte {fault.start})"
    if isinstance(fault, UnicodeError):
        return "has a name that this locale cannot write"
    return fault.strerror or "cannot be read"


def absolute(path: Path) -> Path:
    """Return a path to show; the current folder may be gone, or closed to this user."""
    try:
        return path.absolute()
    except OSError:
        return path
