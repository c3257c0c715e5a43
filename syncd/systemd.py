"""The service manager's side: sockets it hands over, and what it is told.

The protocol is a datagram and two environment variables (sd_notify(3), sd_listen_fds(3)); nothing
here does anything when the process was started by hand.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

_FIRST_FD = 3


def notify(environ: MutableMapping[str, str], *lines: str) -> None:
    """Tell the service manager, e.g. `READY=1`; silent when there is none or it went away."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return


def notify_reloading(environ: MutableMapping[str, str]) -> None:
    """Tell that a reload begins; which one, by the clock that Type=notify-reload compares."""
    notify(environ, "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    """Return how often to send `WATCHDOG=1`: half of what the unit allows, None without one."""
    allowed = environ.get("WATCHDOG_USEC", "")
    if not allowed.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed) / 2_000_000


def take_sockets(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """Return the sockets handed over, by `FileDescriptorName=`; one without a name is `webhook`.

    Taken once: the variables are removed, so that no child takes them for its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    taken: dict[str, socket.socket] = {}
    for index in range(int(count)):
        os.set_inheritable(_FIRST_FD + index, False)  # noqa: FBT003 - positional in the library
        handed = socket.socket(fileno=_FIRST_FD + index)
        name = names[index] if index < len(names) else ""
        taken[name if name in {"webhook", "admin", "control"} else "webhook"] = handed
    return taken
