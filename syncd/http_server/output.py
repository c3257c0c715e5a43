"""Writes the head and the body of a response together: one system call and one packet."""

from __future__ import annotations

import asyncio


class ResponseOutput:
    """The transport of a connection, as uvicorn's response cycle uses it.

    uvicorn writes the head of a response and then its body, and uvloop sends each write at once.
    Here the head waits for the body. Without a body it leaves in the next turn of the loop, or with
    `flush`.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send `data` with the head that waits; if none waits, `data` waits as the head."""
        if self._waiting is None:
            self._waiting = data
            self._loop.call_soon(self.flush)
        else:
            waiting, self._waiting = self._waiting, None
            self._transport.writelines((waiting, data))

    def close(self) -> None:
        """Send the waiting head and close the connection."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._transport.is_closing()

    def flush(self) -> None:
        """Send the waiting head."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not self._transport.is_closing():
            self._transport.write(waiting)
