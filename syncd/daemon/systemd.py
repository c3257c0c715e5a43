"""The service manager's side: sockets it hands over, and what it is told.

The protocol is a datagram and two environment variables (sd_notify(3), sd_listen_fds(3)); nothing
here does anything when the process was started by hand.
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
# As the service manager writes one; what is longer is no time and no count.
_NUMBER = re.compile(r"[0-9]{1,15}")


def notify(environ: MutableMapping[str, str], *lines: str) -> None:
    """Tell the service manager, e.g. `READY=1`; silent when there is none or it went away."""
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
        return  # it went away, or it is no address of a socket


def notify_reloading(environ: MutableMapping[str, str]) -> None:
    """Tell that a reload begins; which one, by the clock that Type=notify-reload compares."""
    notify(environ, "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    """Return how often to send `WATCHDOG=1`: half of what the unit allows, None without one."""
    allowed, me = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if not _NUMBER.fullmatch(allowed) or environ.get("WATCHDOG_PID", me) != me:
        return None
    return max(_SHORTEST_BEAT_S, int(allowed) / 2_000_000) if int(allowed) else None


def take_sockets(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """Return the sockets handed over, by `FileDescriptorName=`; one without a name is `webhook`.

    Taken once: the variables are removed, so that no child takes them for its own.
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
        taken[name if name in {"webhook", "admin", "control"} else "webhook"] = _handed(fd)
    return taken


def _handed(fd: int) -> socket.socket:
    """Return the listening socket that has this number; raises ConfigurationError for any other."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise _no_socket(f"says that {fd} is a socket, and it is none")
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional in the library
    handed = socket.socket(fileno=fd)
    if handed.type != socket.SOCK_STREAM or not handed.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise _no_socket(f"says that {fd} listens, and it does not")
    return handed


def _no_socket(fault: str) -> ConfigurationError:
    return ConfigurationError(
        [f"$LISTEN_FDS: {fault}"],
        hint="start it through syncd.socket, with ListenStream=, or unset LISTEN_FDS",
    )
