"""The service manager: the sockets that it passes, and the notifications that it receives.

The protocol is a datagram and two environment variables (sd_notify(3), sd_listen_fds(3)). In a
process that was started by hand this module has no effect.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from collections.abc import MutableMapping

from syncd.errors import ConfigurationError

_FIRST_FD = 3
# A service manager that does not read must not stop the loop.
NOTIFY_LIMIT_S = 0.1
_SHORTEST_BEAT_S = 0.1
# A number in the form of the service manager; a longer one is invalid.
_NUMBER = re.compile(r"[0-9]{1,15}")


def notify(environ: MutableMapping[str, str], *lines: str) -> None:
    """Notify the service manager, e.g. `READY=1`; without one this does nothing."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(NOTIFY_LIMIT_S)
            sender.sendto("\n".join(lines).encode(), address)
    except (OSError, ValueError):
        return  # the service manager has gone, or this is not the address of a socket


def notify_reloading(environ: MutableMapping[str, str]) -> None:
    """Notify that a reload begins, with the time that Type=notify-reload compares."""
    notify(environ, "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    """Return the period of `WATCHDOG=1`: half of the time that the unit allows, or None."""
    allowed, me = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if not _NUMBER.fullmatch(allowed) or environ.get("WATCHDOG_PID", me) != me:
        return None
    return max(_SHORTEST_BEAT_S, int(allowed) / 2_000_000) if int(allowed) else None


def take_sockets(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """Return the passed sockets, by `FileDescriptorName=`; a socket without a name is `webhook`.

    The variables are removed, so that no child process uses the sockets.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count:
        return {}
    if not _NUMBER.fullmatch(count):
        raise _no_socket("is no number of sockets")
    taken: dict[str, socket.socket] = {}
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        name = names[fd - _FIRST_FD] if fd - _FIRST_FD < len(names) else ""
        taken[name if name in {"webhook", "admin", "control"} else "webhook"] = _passed_socket(fd)
    return taken


def _passed_socket(fd: int) -> socket.socket:
    """Return the listening socket with this number; raises ConfigurationError if it is none."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise _no_socket(f"descriptor {fd} is no socket")
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional in the library
    passed = socket.socket(fileno=fd)
    if passed.type != socket.SOCK_STREAM or not passed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise _no_socket(f"descriptor {fd} does not listen")
    return passed


def _no_socket(reason: str) -> ConfigurationError:
    return ConfigurationError(
        [f"$LISTEN_FDS: {reason}"],
        hint="start it through syncd.socket, with ListenStream=, or unset LISTEN_FDS",
    )
