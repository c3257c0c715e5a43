"""Reads the bodies of requests, with a limit for each and for all of them together."""

from __future__ import annotations

import asyncio
from time import monotonic

from starlette.types import Message, Receive

# The most bytes of incomplete bodies in memory. The sender of a body is unknown until the body is
# complete. A delivery that arrives in one piece does not count.
MAX_INCOMPLETE_BYTES = 64 * 1024 * 1024
_SMALL_BYTES = 4096


class BodyTooLargeError(Exception):
    """The body is larger than the limit for one body."""


class TooManyBytesError(Exception):
    """A body was dropped, because all bodies together were too large."""


class DisconnectedError(Exception):
    """The client closed the connection."""


class Bodies:
    """Reads bodies; the limits count the bytes that arrive, not the announced length."""

    def __init__(self) -> None:
        self._incomplete_bytes = 0
        self._incomplete: dict[asyncio.Task[object], _Incomplete] = {}

    async def read(self, receive: Receive, max_bytes: int) -> bytes:
        """Return a whole body; raises one of the three errors above."""
        chunk, is_whole = await _next_chunk(receive)
        if len(chunk) > max_bytes:
            raise BodyTooLargeError
        return chunk if is_whole else await self._rest(chunk, receive, max_bytes)

    async def _rest(self, chunk: bytes, receive: Receive, max_bytes: int) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy: an application runs in a task
        parts: list[bytes] = []
        # A list of pieces of one byte each would take fifty times their size.
        tail = bytearray()
        body = _Incomplete(monotonic())
        self._incomplete[task] = body
        try:
            is_whole = False
            while True:
                if body.size + len(chunk) > max_bytes:
                    raise BodyTooLargeError
                if is_whole:
                    return b"".join([*parts, tail, chunk])
                if len(chunk) < _SMALL_BYTES:
                    tail += chunk
                else:
                    parts += [bytes(tail), chunk]
                    tail.clear()
                body.size += len(chunk)
                self._incomplete_bytes += len(chunk)
                self._make_room()
                if body.is_evicted:
                    raise TooManyBytesError
                chunk, is_whole = await _next_chunk(receive)
        except asyncio.CancelledError:
            if not body.is_evicted:
                raise
            task.uncancel()
            raise TooManyBytesError from None
        finally:
            if not body.is_evicted:
                del self._incomplete[task]
                self._incomplete_bytes -= body.size

    def _make_room(self) -> None:
        """Drop the bodies that occupied the most bytes for the longest, down to the limit.

        A real delivery is small or soon complete, so it is never dropped.
        """
        now = monotonic()
        while self._incomplete_bytes > MAX_INCOMPLETE_BYTES:
            task = max(self._incomplete, key=lambda task: self._incomplete[task].cost(now))
            body = self._incomplete.pop(task)
            self._incomplete_bytes -= body.size
            body.is_evicted = True
            if task is not asyncio.current_task():
                task.cancel()


class _Incomplete:
    """One incomplete body."""

    __slots__ = ("began_s", "is_evicted", "size")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.size = 0
        self.is_evicted = False

    def cost(self, now: float) -> tuple[float, int]:
        """Return the cost of the body: bytes times seconds."""
        return self.size * (now - self.began_s), self.size


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return a piece of a body, and whether it is the last one."""
    message: Message = await receive()
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message.get("body", b""), not message.get("more_body", False)
