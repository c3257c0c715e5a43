"""The public listener: a signed delivery in, an answer only after it is on disk.

The one hot path is a bare ASGI callable: a request object a delivery would cost a fifth of what
the host can take (measured, design.md). The raw body is authenticated before anything reads it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog
from msgspec import json
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from syncd.deliveries import parse
from syncd.errors import SyncdError
from syncd.ingest import Ingest
from syncd.model import OUTCOMES
from syncd.signature import HEADER, is_authentic, looks_signed

log = structlog.get_logger(__name__)

BODY_TIMEOUT_S = 10.0
# Dreamship tries again after minutes anyway; this is for whoever reads the header.
RETRY_AFTER_S = 30
# A stranger who posts nonsense all day writes one line a minute.
COMPLAIN_EVERY_S = 60.0

_HEADER = HEADER.lower().encode()
_ANSWERS = {outcome: json.encode({"outcome": outcome}) for outcome in OUTCOMES}


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
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.answered: Counter[str] = Counter()
        self.is_durable = True
        self.forged_since_delivery = 0
        self._ingest = ingest
        self._keys = keys
        self._now = now
        self._body_timeout_s = body_timeout_s
        self._complained_at: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            await _answer(send, 405, _error("deliveries are posted"), (b"allow", b"POST"))
            return
        headers = {name: value for name, value in scope["headers"] if name in _HEADERS_READ}
        signature = headers.get(_HEADER)
        if signature is None:
            await self._refuse(send, scope)
            return
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.max_body_bytes:
            await self._too_large(send)
            return
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await _body(receive, self.max_body_bytes)
        except TimeoutError:
            self.answered["408"] += 1
            await _answer(send, 408, _error("the body did not arrive in time"), _CLOSE)
            return
        except _TooLargeError:
            await self._too_large(send)
            return
        except _DisconnectedError:
            return
        if not is_authentic(body, signature, self._keys()):
            self.forged_since_delivery += looks_signed(signature)
            await self._refuse(send, scope)
            return
        self.forged_since_delivery = 0
        await self._take(send, body)

    async def _take(self, send: Send, body: bytes) -> None:
        try:
            outcome = await self._ingest.submit(parse(body, self._now()))
        except SyncdError as fault:
            self.is_durable = False
            self.answered["503"] += 1
            log.error("a delivery could not be kept", fault=fault.message, hint=fault.hint)
            retry = (b"retry-after", str(RETRY_AFTER_S).encode())
            await _answer(send, 503, _error("not durable; try again"), retry)
            return
        self.is_durable = True
        self.answered[outcome] += 1
        await _answer(send, 200, _ANSWERS[outcome])

    async def _refuse(self, send: Send, scope: Scope) -> None:
        self.answered["401"] += 1
        at = asyncio.get_running_loop().time()
        if self._complained_at is None or at - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = at
            log.warning(
                "a request without a valid signature was refused",
                client=(scope.get("client") or ("?",))[0],
                refused_so_far=self.answered["401"],
            )
        await _answer(send, 401, _error(f"no valid segment in {HEADER}"), _CLOSE)

    async def _too_large(self, send: Send) -> None:
        self.answered["413"] += 1
        log.warning("a body over webhook.max_body_bytes was refused", limit=self.max_body_bytes)
        await _answer(send, 413, _error(f"more than {self.max_body_bytes} bytes"), _CLOSE)


def application(webhook: Webhook, path: str, is_healthy: Callable[[], bool]) -> Starlette:
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
    return Starlette(routes=[Route(path, webhook), Route("/healthz", _Bare(healthz))])


class _Bare:
    """Lets Starlette take a function as an ASGI application."""

    def __init__(self, app: Callable[[Scope, Receive, Send], object]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)  # type: ignore[misc]  # it is a coroutine function


class _TooLargeError(Exception):
    pass


class _DisconnectedError(Exception):
    pass


_CLOSE = (b"connection", b"close")
_HEADERS_READ = frozenset({_HEADER, b"content-length"})


async def _body(receive: Receive, limit: int) -> bytes:
    """Return the body; what its sender claims about its length is not believed."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _TooLargeError
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _error(text: str) -> bytes:
    return json.encode({"error": text})
