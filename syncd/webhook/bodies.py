"""Bodies of requests while they arrive, within bounds on each and on all of them."""

from __future__ import annotations

import asyncio
from time import monotonic

from starlette.types import Message, Receive

# What strangers can make us hold of bodies that go on arriving: it is not known whose they are
# until they are whole. A delivery that arrives in one piece never counts.
MAX_HELD_BYTES = 64 * 1024 * 1024
_SMALL_BYTES = 4096


class BodyTooLargeError(Exception):
    """More than one body may have."""


class TooManyBytesError(Exception):
    """A body was given up, because all of them together were too large."""


class DisconnectedError(Exception):
    """The client hung up."""


class Bodies:
    """Reads bodies; what its senders claim about their lengths is not believed."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._holders: dict[asyncio.Task[object], _Holder] = {}

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
        # Pieces of one byte each would take fifty times their size.
        tail = bytearray()
        holder = _Holder(monotonic())
        self._holders[task] = holder
        try:
            is_whole = False
            while True:
                if holder.size + len(chunk) > max_bytes:
                    raise BodyTooLargeError
                if is_whole:
                    return b"".join([*parts, tail, chunk])
                if len(chunk) < _SMALL_BYTES:
                    tail += chunk
                else:
                    parts += [bytes(tail), chunk]
                    tail.clear()
                holder.size += len(chunk)
                self._held_bytes += len(chunk)
                self._make_room()
                if holder.is_evicted:
                    raise TooManyBytesError
                chunk, is_whole = await _next_chunk(receive)
        except asyncio.CancelledError:
            if not holder.is_evicted:
                raise
            task.uncancel()
            raise TooManyBytesError from None
        finally:
            if not holder.is_evicted:
                del self._holders[task]
                self._held_bytes -= holder.size

    def _make_room(self) -> None:
        """Give up the body that has held the most for the longest, while too much is held.

        An honest delivery is small or soon whole, so that it is never the one.
        """
        now = monotonic()
        while self._held_bytes > MAX_HELD_BYTES:
            task = max(self._holders, key=lambda task: self._holders[task].cost(now))
            holder = self._holders.pop(task)
            self._held_bytes -= holder.size
            holder.is_evicted = True
            if task is not asyncio.current_task():
                task.cancel()


class _Holder:
    """A body of which a part is here."""

    __slots__ = ("began_s", "is_evicted", "size")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.size = 0
        self.is_evicted = False

    def cost(self, now: float) -> tuple[float, int]:
        """Return what it has cost us: bytes times seconds."""
        return self.size * (now - self.began_s), self.size


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return a piece of a body, and whether it is the last one."""
    message: Message = await receive()
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message.get("body", b""), not message.get("more_body", False)
