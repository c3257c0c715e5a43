"""Limits the number of connections, and the time for which each may keep the daemon waiting.

One limiter serves all listeners of a process, because they share its limit of open files.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from typing import Protocol

# The time limit for the head of a request, and again for its body.
ARRIVAL_S = 10.0
# The most connections of all listeners together.
MAX_CONNECTIONS = 500
# Other files of a daemon: the mirror, the log, calls to Dreamship, the listeners.
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
    """Return how many connections are possible with a limit of open files."""
    if open_files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    # The same number may be accepted again before the first of them is closed.
    return max(_FEWEST_CONNECTIONS, min(MAX_CONNECTIONS, (open_files - RESERVED_FILES) // 2))


def open_files_for(connections: int) -> int:
    """Return the smallest limit of open files for this number of connections."""
    return 2 * connections + RESERVED_FILES


class Connection(Protocol):
    """The methods of a connection that the limiter needs."""

    def end_late(self) -> None:
        """Close the connection, because it kept the daemon waiting for too long."""

    def close(self) -> None:
        """Close the connection, because another one needs its place."""


class ConnectionLimiter:
    """The connections of all listeners, with a limit of their number and of each wait."""

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
        # Since when the daemon waits for each, in order.
        self._since: dict[Connection, float] = {}
        self._listeners: list[ListenerConnections] = []

    def listener(self) -> ListenerConnections:
        """Return the connections of one more listener."""
        one = ListenerConnections(self._since, self._now, self._make_room)
        self._listeners.append(one)
        return one

    def close_late(self) -> None:
        """Close the connections that have kept the daemon waiting for too long."""
        now = self._now()
        for connection, since in list(self._since.items()):
            if now - since < self._arrival_s:
                return
            connection.end_late()

    def _make_room(self) -> None:
        """Close one connection if there are too many: of the listener with the most connections.

        So many connections at one listener do not close the connections of another.
        """
        if sum(len(one.open) for one in self._listeners) <= self._max_connections:
            return
        for one in sorted(self._listeners, key=lambda one: len(one.open), reverse=True):
            if one.close_one():
                return


class ListenerConnections:
    """The connections of one listener for which the daemon waits.

    An idle connection has sent no part of a request; an arriving one has sent a part.
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
        # Both in the order of the last change, the oldest first.
        self._idle: dict[Connection, None] = {}
        self._arriving: dict[Connection, None] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._since

    def admit(self, newcomer: Connection) -> None:
        """Accept a new connection, and close another one if there are too many."""
        self.open.add(newcomer)
        self.enter(newcomer)
        self._make_room()

    def close_one(self) -> bool:
        """Close the connection that has been idle for longest; if none is idle, an arriving one.

        Return whether there was one.
        """
        waiting = self._idle or self._arriving
        if not waiting:
            return False
        victim = next(iter(waiting))
        del waiting[victim]
        # It stays in `_since`: if it cannot be closed in order, it is aborted later.
        victim.close()
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self.open.discard(connection)
        self.leave(connection)

    def enter(self, connection: Connection) -> None:
        """Start to wait for a request, or for the client to read an answer."""
        self.leave(connection)
        self._since[connection] = self._now()
        self._idle[connection] = None

    def expect_rest(self, connection: Connection) -> None:
        """Start a new wait for the rest of a request whose head has arrived."""
        self.leave(connection)
        self._since[connection] = self._now()
        self._arriving[connection] = None

    def receive_part(self, connection: Connection) -> None:
        """Handle the arrival of a part of a request; the time limit of the whole continues."""
        self._since.setdefault(connection, self._now())
        self._idle.pop(connection, None)
        self._arriving.pop(connection, None)
        self._arriving[connection] = None

    def leave(self, connection: Connection) -> None:
        """Stop waiting: the daemon has the next step."""
        self._since.pop(connection, None)
        self._idle.pop(connection, None)
        self._arriving.pop(connection, None)
