"""The public listener: a signed delivery in, an answer only after it is on disk.

The one hot path is a bare ASGI callable: a request object a delivery would cost a fifth of what
the host can take (measured, design.md). The raw body is authenticated before anything reads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from msgspec import json
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncd.deliveries import parse
from syncd.errors import SyncdError
from syncd.ingest import Ingest
from syncd.metrics import delivery_times
from syncd.model import OUTCOMES
from syncd.signature import HEADER, INVALID, MISSING, is_authentic, looks_signed

log = structlog.get_logger(__name__)

# Dreamship tries again after minutes anyway; this is for whoever reads the header.
RETRY_AFTER_S = 30
# A stranger who posts nonsense all day writes one line a minute; so does a full disk.
COMPLAIN_EVERY_S = 60.0
# What strangers can make us hold of bodies that go on arriving: it is not known whose they are
# until they are whole. A delivery that arrives in one piece never counts.
MAX_HELD_BYTES = 64 * 1024 * 1024

_HEADER = HEADER.lower().encode()


class Webhook:
    """Answers deliveries as contract.md says, and counts what it answered.

    `keys` is asked for each delivery, so that rotated keys hold from the next one on.
    """

    def __init__(
        self,
        ingest: Ingest,
        keys: Callable[[], Sequence[str]],
        now: Callable[[], datetime],
        *,
        max_body_bytes: int,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.answered: Counter[str] = Counter()
        self.times = delivery_times()
        # Why the last one could not be kept; None when it was.
        self.trouble: SyncdError | None = None
        self.forged_since_delivery = 0
        self._ingest = ingest
        self._keys = keys
        self._now = now
        self._held_bytes = 0
        self._complained_at: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            await _answer(send, 405, _error("deliveries are posted"), (b"allow", b"POST"))
            return
        headers = {name: value for name, value in scope["headers"] if name in _HEADERS_READ}
        signature = headers.get(_HEADER)
        if not signature:
            await self._refuse(send, scope, MISSING)
            return
        length = headers.get(b"content-length", b"")
        # The parser takes any number of zeros; int() does not.
        if length.isdigit() and int(length.lstrip(b"0") or b"0") > self.max_body_bytes:
            await self._too_large(send)
            return
        try:
            body = await self._body(receive)
        except _TooLargeError:
            await self._too_large(send)
            return
        except _TooMuchHeldError:
            self._complain("too many bodies arrive slowly; one was refused", "503")
            await self._unavailable(send, "too much is being received; try again")
            return
        except _DisconnectedError:
            return
        if not is_authentic(body, signature, self._keys()):
            self.forged_since_delivery += looks_signed(signature)
            await self._refuse(send, scope, INVALID)
            return
        self.forged_since_delivery = 0
        await self._take(send, body)

    def note_late(self) -> None:
        """Count a body that did not arrive in time; the HTTP server has refused it."""
        self.answered["408"] += 1

    async def _take(self, send: Send, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            outcome = await self._ingest.submit(parse(body, self._now()))
        except SyncdError as fault:
            self.trouble = fault
            self._complain(
                "a delivery could not be kept", "503", fault=fault.message, hint=fault.hint
            )
            await self._unavailable(send, "not durable; try again")
            return
        self.trouble = None
        self.times.observe(loop.time() - began_s)
        self.answered[outcome] += 1
        for message in _ANSWERS[outcome]:
            await send(message)

    async def _body(self, receive: Receive) -> bytes:
        """Return the body; what its sender claims about its length is not believed."""
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message: Message = await receive()
                if message["type"] == "http.disconnect":
                    raise _DisconnectedError
                chunk = message.get("body", b"")
                chunks.append(chunk)
                if size + len(chunk) > self.max_body_bytes:
                    raise _TooLargeError
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                size += len(chunk)
                self._held_bytes += len(chunk)
                if self._held_bytes > MAX_HELD_BYTES:
                    raise _TooMuchHeldError
        finally:
            self._held_bytes -= size

    async def _unavailable(self, send: Send, why: str) -> None:
        retry = (b"retry-after", str(RETRY_AFTER_S).encode())
        await _answer(send, 503, _error(why), retry)

    # 401 and 413 leave the connection open: whoever sends all of a body before reading reads the
    # answer then. One closed while bytes still arrive is reset, and the answer lost with it.

    async def _refuse(self, send: Send, scope: Scope, why: str) -> None:
        self._complain(
            "a request without a valid signature was refused",
            "401",
            client=(scope.get("client") or ("?",))[0],
        )
        await _answer(send, 401, _error(why))

    async def _too_large(self, send: Send) -> None:
        self._complain(
            "a body over webhook.max_body_bytes was refused", "413", limit=self.max_body_bytes
        )
        await _answer(send, 413, _error(f"more than {self.max_body_bytes} bytes"))

    def _complain(self, event: str, status: str, **told: object) -> None:
        """Count what was refused, and tell of it now and then."""
        self.answered[status] += 1
        at, last = asyncio.get_running_loop().time(), self._complained_at.get(event)
        if last is None or at - last >= COMPLAIN_EVERY_S:
            self._complained_at[event] = at
            level = logging.ERROR if status == "503" else logging.WARNING
            log.log(level, event, **told, refused_so_far=self.answered[status])


def application(webhook: Webhook, path: str, is_healthy: Callable[[], bool]) -> ASGIApp:
    """Return the public application: the webhook at `path`, and `/healthz`."""

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, _error("only read"), (b"allow", b"GET, HEAD"))
        elif is_healthy():
            await _answer(send, 200, b'{"durable":true}')
        else:
            await _answer(send, 503, b'{"durable":false}')

    # Instances and partials are taken as ASGI applications as they are, without a Request object.
    others = Starlette(routes=[Route(path, webhook), Route("/healthz", _Bare(healthz))])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # The hot path skips a router and two middlewares; a profile showed them, no gain was timed.
        await (webhook if scope["path"] == path else others)(scope, receive, send)

    return application


class _Bare:
    """Lets Starlette take a function as an ASGI application."""

    def __init__(self, app: Callable[[Scope, Receive, Send], object]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)  # type: ignore[misc]  # it is a coroutine function


class _TooLargeError(Exception):
    pass


class _TooMuchHeldError(Exception):
    pass


class _DisconnectedError(Exception):
    pass


_HEADERS_READ = frozenset({_HEADER, b"content-length"})


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    for message in _messages(status, body, *headers):
        await send(message)


def _messages(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> tuple[Message, Message]:
    told = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    return (
        {"type": "http.response.start", "status": status, "headers": told},
        {"type": "http.response.body", "body": body},
    )


_ANSWERS = {outcome: _messages(200, json.encode({"outcome": outcome})) for outcome in OUTCOMES}


def _error(text: str) -> bytes:
    return json.encode({"error": text})
