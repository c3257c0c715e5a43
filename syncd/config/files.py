"""Reading the small files of a configuration safely, even if a name leads to a pipe or device."""

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
    """Return the text of a file; raises OSError or UnicodeError."""
    return read_regular(path, MAX_BYTES).decode()


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file of up to `most` bytes; raises OSError.

    A pipe, a device or a longer file is an OSError too, so that no caller waits for ever.
    """
    # Without O_NONBLOCK, open() waits for a writer of a pipe.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(0, f"is {_KINDS.get(kind, 'a special file')}, not a file")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(fd)
    if len(content) > most:
        raise OSError(0, f"is longer than {most // 1024} KiB")
    return content


def reason(error: OSError | UnicodeError) -> str:
    """Return why a file could not be read, without its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start})"
    if isinstance(error, UnicodeError):
        return "has a name that this locale cannot write"
    return error.strerror or "cannot be read"


def absolute(path: Path) -> Path:
    """Return an absolute path to show, if the current folder exists and is accessible."""
    try:
        return path.absolute()
    except OSError:
        return path
