"""Streams of server-sent events: a browser learns from them that the page has changed.

A stream has no content of the page. The browser requests the page again, within the limits of all
requests. While nothing changes, a stream costs a comparison each second and 40 bytes in 20 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from syncd.errors import Overloaded
from syncd.http_server.refusals import Places

# Each open page of a browser window needs at most one; further ones repeat requests instead.
MAX_STREAMS = 8
CHECK_S = 1.0
# After a change, the next one is reported after this time.
AT_MOST_EVERY_S = 5.0
# A proxy closes a silent connection after a minute, and a browser that was asleep must notice that
# its stream has ended.
ALIVE_EVERY_S = 20.0
# A window of a browser without a stream repeats its requests meanwhile.
RETRY_AFTER_S = 30

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    # nginx would collect the events until its buffer is full.
    (b"x-accel-buffering", b"no"),
]
# The browser connects again after so many milliseconds.
_RETRY = b"retry: 3000\n\n"


class LiveUpdates:
    """The streams of all browsers. `version` changes with the page; `now` is the daemon's time."""

    def __init__(
        self,
        version: Callable[[], Hashable],
        now: Callable[[], str],
        *,
        check_s: float = CHECK_S,
        at_most_every_s: float = AT_MOST_EVERY_S,
        alive_every_s: float = ALIVE_EVERY_S,
    ) -> None:
        self._version = version
        self._now = now
        self._check_s = check_s
        self._at_most_every_s = at_most_every_s
        self._alive_every_s = alive_every_s
        self._ending = asyncio.Event()
        self.places = Places(MAX_STREAMS)

    def end(self) -> None:
        """End all streams at once; new ones begin later."""
        self._ending.set()
        self._ending = asyncio.Event()

    def close(self) -> None:
        """End all streams at once, and refuse new ones."""
        self.places = Places(0)
        self.end()

    async def answer(self, request: Request) -> ASGIApp:
        """Return the answer to a request for a stream."""
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        try:
            return EventStream(self)
        except Overloaded as error:
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            return PlainTextResponse(f"{error.message}\n", 503, retry)

    async def events(self) -> AsyncIterator[bytes]:
        """Give the events of one stream, until `end`."""
        ending, loop = self._ending, asyncio.get_running_loop()
        known = self._version()
        sent_s = loop.time()
        changed_s = sent_s - self._at_most_every_s
        yield _RETRY + self._event("begin")
        while not await _is_set(ending, self._check_s):
            now_s = loop.time()
            version = self._version()
            if version != known and now_s - changed_s >= self._at_most_every_s:
                known, changed_s, sent_s = version, now_s, now_s
                yield self._event("change")
            elif now_s - sent_s >= self._alive_every_s:
                sent_s = now_s
                yield self._event("alive")

    def _event(self, name: str) -> bytes:
        return f"event: {name}\ndata: {self._now()}\n\n".encode()


class EventStream:
    """The answer to a request for a stream; raises Overloaded before it if there are too many."""

    def __init__(self, live: LiveUpdates) -> None:
        self._live = live
        # Before the head of the answer, so that the answer can still be 503.
        self._place = contextlib.ExitStack()
        self._place.enter_context(live.places.one())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, or until all streams end."""
        del scope
        with self._place:
            start = {"type": "http.response.start", "status": HTTPStatus.OK, "headers": _HEADERS}
            await send(start)
            sending = asyncio.create_task(self._send_all(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                leaving.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        async for event in self._live.events():
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
