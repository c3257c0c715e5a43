"""Connections with bounds: on how long a request takes to arrive, on its head, on their number.

uvicorn has none of these: strangers could take all that the host has. Here they cannot, and who
sends a whole request at once is never in their way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# For the head of a request to arrive, and again for its body (contract.md, "HTTP").
ARRIVAL_S = 10.0
# Of a head whose beginning was not the end of it too; what Dreamship sends has some 600 bytes.
MAX_HEAD_BYTES = 64 * 1024
# What waits is closed in favour of who comes; below what a process may have open by default.
MAX_CONNECTIONS = 500
# Requests that are sent before the first of them was answered, on one connection.
MAX_PIPELINED = 64


# uvicorn writes a line for each thing that is no HTTP, and strangers send as many as they like.
_log = logging.getLogger("uvicorn.error.connections")
_log.setLevel(logging.ERROR)


class Lobby:
    """Connections that wait for the other side, who came first in front."""

    def __init__(
        self, arrival_s: float, max_connections: int, on_late_body: Callable[[], None]
    ) -> None:
        self.on_late_body = on_late_body
        self._arrival_s = arrival_s
        self._max_connections = max_connections
        self._since: dict[Protocol, float] = {}

    def __contains__(self, connection: Protocol) -> bool:
        return connection in self._since

    def admit(self, newcomer: Protocol) -> None:
        """Have a new one wait; whoever has waited longest goes when there are too many."""
        self.enter(newcomer)
        if len(newcomer.connections) > self._max_connections:
            next(iter(self._since)).close()

    def enter(self, connection: Protocol) -> None:
        """Have it wait from now on."""
        self._since.pop(connection, None)
        self._since[connection] = connection.loop.time()

    def leave(self, connection: Protocol) -> None:
        """Wait no longer: what it waited for is there."""
        self._since.pop(connection, None)

    def close_late(self) -> None:
        """Close who has waited for longer than anything honest takes."""
        for connection, since in list(self._since.items()):
            if connection.loop.time() - since < self._arrival_s:
                return
            connection.give_up()


class Config(uvicorn.Config):
    """uvicorn's, and where the connections of one server wait."""

    lobby: Lobby


class Protocol(HttpToolsProtocol):
    """uvicorn's, with bounds. It waits in the lobby unless only we have something to do."""

    config: Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lobby = self.config.lobby
        self.logger = _log
        self._is_in_head = False
        self._head_bytes = 0
        self._unanswered: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._lobby.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lobby.leave(self)
        # uvicorn tells only the last one, and the others would write to what is no more.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Have the parser refuse what is sent long before it can be answered."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ConnectionError("too many requests at once")
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Give the body a time of its own."""
        self._is_in_head = False
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        self._lobby.enter(self)

    def on_message_complete(self) -> None:
        """Wait no more, unless it was answered already: then for the next request."""
        super().on_message_complete()
        self._leave_if_it_is_our_turn()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for what was answered to be read or to go on arriving."""
        super().on_response_complete()
        self._unanswered = [one for one in self._unanswered if not one.response_complete]
        if self.cycle.response_complete:
            self._lobby.enter(self)

    def pause_writing(self) -> None:
        """Wait for who does not read what it is told; no longer, if it is waited for already."""
        super().pause_writing()
        if self not in self._lobby:
            self._lobby.enter(self)

    def resume_writing(self) -> None:
        """Go on: it does read."""
        super().resume_writing()
        self._leave_if_it_is_our_turn()

    def give_up(self) -> None:
        """Refuse what did not arrive in time, and close."""
        cycle = self.cycle
        is_late_body = (
            self._unanswered == [cycle] and cycle.more_body and not cycle.response_started
        )
        if self.transport.is_closing() or not (self._is_in_head or is_late_body):
            self.close()
            return
        if is_late_body:
            self._lobby.on_late_body()
        self._refuse(b"408 Request Timeout")

    def close(self) -> None:
        """Close it; at once, if it does not even read what it was told."""
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()

    def _leave_if_it_is_our_turn(self) -> None:
        cycle = self.cycle
        if not (cycle.more_body or cycle.response_complete or self.flow.write_paused):
            self._lobby.leave(self)

    def _refuse(self, status: bytes) -> None:
        """Say why, and close; without a word if an earlier request would take it as its answer."""
        if not (self._is_in_head and self._unanswered):
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        self._is_in_head = False
        self.transport.close()
