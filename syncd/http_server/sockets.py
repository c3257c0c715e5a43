"""Sockets that this process binds itself."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from syncd.errors import ConfigurationError


def bind_tcp(host: str, port: int, *, key: str) -> socket.socket:
    """Return a bound socket; raises ConfigurationError that names `key` and the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        bound = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(f"{host}:{port}", error, key, port) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(found[0][4])
    except OSError as error:
        bound.close()
        raise _cannot_listen(f"{host}:{port}", error, key, port) from error
    return bound


def _cannot_listen(
    where: str, error: OSError | UnicodeError, key: str, port: int
) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or "it is no name of a host"
    if isinstance(error, socket.gaierror | UnicodeError):
        hint = "write an address of this host, 127.0.0.1 for instance, or a name that leads to one"
    else:
        hint = _TCP_HINTS.get(error.errno or 0, "choose another address")
    return ConfigurationError(
        [f"{key}: cannot listen on {where}: {reason}"], hint=hint.format(port=port)
    )


_TCP_HINTS = {
    errno.EADDRINUSE: "choose another port, or stop the program that uses it "
    "(`ss -ltnp sport = :{port}` names it)",
    errno.EACCES: "choose a port from 1024 up and let your web server forward to it; a lower "
    "one needs syncd.socket, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
    errno.EADDRNOTAVAIL: "write an address that this host has (`ip address` lists them), "
    "127.0.0.1 for instance",
    errno.EAFNOSUPPORT: "this host has no IPv6: write an IPv4 address",
    errno.EMFILE: "raise the limit of open files: ulimit -n, or LimitNOFILE= of the unit",
}
_TCP_HINTS[errno.EPERM] = _TCP_HINTS[errno.EACCES]


def bind_unix(path: Path, *, key: str, mode: int = 0o660) -> socket.socket:
    """Return a bound unix socket for owner and group; a dead socket at the path is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise OSError(errno.EEXIST, "there is another file with this name")
            if _is_answered(path):
                raise OSError(errno.EADDRINUSE, "another program listens on it")
            path.unlink()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # With a later chmod, any user could connect in between.
        before = os.umask(0o777 & ~mode)
        try:
            bound.bind(str(path))
        except BaseException:
            bound.close()
            raise
        finally:
            os.umask(before)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "its name cannot be opened"
        hint = _UNIX_HINTS.get(getattr(error, "errno", None) or 0, _UNIX_HINT)
        raise ConfigurationError(
            [f"{key}: cannot make the socket {path}: {reason}"], hint=hint
        ) from error
    return bound


_UNIX_HINT = "choose a folder that this user may write; unix paths have at most 107 bytes"
_UNIX_HINTS = {
    errno.EADDRINUSE: "stop the program that uses it, or choose another path",
    errno.EEXIST: "move that file away, or choose another path",
    errno.EROFS: "choose a folder on a writable file system, below /run for instance",
    errno.EMFILE: _TCP_HINTS[errno.EMFILE],
}


def _is_answered(path: Path) -> bool:
    """Return whether a process listens on the socket at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True
