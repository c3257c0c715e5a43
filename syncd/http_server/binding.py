"""Sockets that are bound by us, not handed over."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from syncd.errors import ConfigurationError


def bind_tcp(host: str, port: int, *, key: str) -> socket.socket:
    """Return a bound socket; raises ConfigurationError naming `key` when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(found[0][4])
    except OSError as fault:
        raise ConfigurationError(
            [f"{key}: cannot listen on {host}:{port}: {fault.strerror or fault}"],
            hint="choose another port, or end the program that has it",
        ) from fault
    return bound


def bind_unix(path: Path, *, key: str, mode: int = 0o660) -> socket.socket:
    """Return a bound unix socket for owner and group; a dead one in its place is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                if _is_answered(path):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                path.unlink()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Nobody may connect between bind and chmod.
        before = os.umask(0o777 & ~mode)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
    except OSError as fault:
        raise ConfigurationError(
            [f"{key}: cannot make the socket {path}: {fault.strerror or fault}"],
            hint="name a folder this user may write; unix paths are at most 107 bytes",
        ) from fault
    return bound


def _is_answered(path: Path) -> bool:
    """Tell whether somebody listens on a socket that is in the way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True
