"""Bounds on connections: how many there are, and how long one may keep us waiting.

One limiter serves every listener of a process, because all of them share its open files.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from typing import Protocol

# For the head of a request to arrive, and again for its body.
ARRIVAL_S = 10.0
# Of all listeners together.
MAX_CONNECTIONS = 500
# What else a daemon opens: the mirror, the log, calls to the source, the listeners.
RESERVED_FILES = 100
_FEWEST_CONNECTIONS = 16


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems refuse "unlimited" here; then the soft limit stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_for(open_files: int) -> int:
    """Return how many connections fit a limit of open files."""
    if open_files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    # As many again may be accepted before the first of them is closed.
    return max(_FEWEST_CONNECTIONS, min(MAX_CONNECTIONS, (open_files - RESERVED_FILES) // 2))


def open_files_for(connections: int) -> int:
    """Return the smallest limit of open files that so many connections fit."""
    return 2 * connections + RESERVED_FILES


class Connection(Protocol):
    """A connection as the limiter sees it."""

    def give_up(self) -> None:
        """End it, because it kept us waiting for too long."""

    def close(self) -> None:
        """End it, because another one needs its place."""


class ConnectionLimiter:
    """The connections of all listeners, how many there may be, and for how long each is awaited."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        arrival_s: float = ARRIVAL_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._now = now
        self._arrival_s = arrival_s
        self._max_connections = max_connections
        # Since when each is awaited, in order.
        self._since: dict[Connection, float] = {}
        self._listeners: list[ListenerConnections] = []

    def listener(self) -> ListenerConnections:
        """Return the part of one more listener."""
        one = ListenerConnections(self._since, self._now, self._make_room)
        self._listeners.append(one)
        return one

    def close_late(self) -> None:
        """Give up connections that have kept us waiting for too long."""
        now = self._now()
        for connection, since in list(self._since.items()):
            if now - since < self._arrival_s:
                return
            connection.give_up()

    def _make_room(self) -> None:
        """Close one connection when there are too many: of the listener that has most.

        So a crowd at one listener closes nobody at another.
        """
        if sum(len(one.open) for one in self._listeners) <= self._max_connections:
            return
        for one in sorted(self._listeners, key=lambda one: len(one.open), reverse=True):
            if one.close_one():
                return


class ListenerConnections:
    """The connections of one listener that wait for their other side.

    `idle` ones have sent nothing of a request; `arriving` ones have sent a part.
    """

    def __init__(
        self,
        since: dict[Connection, float],
        now: Callable[[], float],
        make_room: Callable[[], None],
    ) -> None:
        self._since = since
        self._now = now
        self._make_room = make_room
        self.open: set[Connection] = set()
        # Each in the order of its last change, the oldest first.
        self._idle: dict[Connection, None] = {}
        self._arriving: dict[Connection, None] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._since

    def admit(self, newcomer: Connection) -> None:
        """Take a new connection; close the one that is least worth keeping when there are many."""
        self.open.add(newcomer)
        self.enter(newcomer)
        self._make_room()

    def close_one(self) -> bool:
        """Close the idle one that has been silent for longest, an arriving one if none is idle.

        Return whether there was one.
        """
        waiting = self._idle or self._arriving
        if not waiting:
            return False
        victim = next(iter(waiting))
        del waiting[victim]
        # It stays in `_since`: what cannot be closed in order is aborted later.
        victim.close()
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.open.discard(connection)
        self.leave(connection)

    def enter(self, connection: Connection) -> None:
        """Start to wait for a request, or for an answer to be read."""
        self.leave(connection)
        self._since[connection] = self._now()
        self._idle[connection] = None

    def expect_rest(self, connection: Connection) -> None:
        """Start to wait anew for the rest of a request whose head has arrived."""
        self.leave(connection)
        self._since[connection] = self._now()
        self._arriving[connection] = None

    def receive_part(self, connection: Connection) -> None:
        """Note that a part of a request arrived; the time for all of it runs on."""
        self._since.setdefault(connection, self._now())
        self._idle.pop(connection, None)
        self._arriving.pop(connection, None)
        self._arriving[connection] = None

    def leave(self, connection: Connection) -> None:
        """Stop waiting: the next step is ours."""
        self._since.pop(connection, None)
        self._idle.pop(connection, None)
        self._arriving.pop(connection, None)
