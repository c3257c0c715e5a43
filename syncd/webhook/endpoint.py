"""The public listener: answers a signed delivery only after the delivery is on disk.

The hot path is a plain ASGI callable: a request object for each delivery would cost a fifth of the
throughput (measured; syncd/README.md, "The write path"). The raw body is authenticated before it is
parsed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import quote

import structlog
from msgspec import json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncd.core.lease import WAITING
from syncd.core.model import OUTCOMES
from syncd.core.payload import parse
from syncd.core.signature import HEADER, INVALID, MISSING, has_signature_form, is_authentic
from syncd.errors import SyncdError
from syncd.http_server.refusals import Refusals, client_of
from syncd.webhook.batch_writer import BatchWriter
from syncd.webhook.bodies import Bodies, BodyTooLargeError, DisconnectedError, TooManyBytesError
from syncd.webhook.metrics import delivery_seconds

log = structlog.get_logger(__name__)

# Dreamship repeats a delivery after minutes anyway; this is for clients that read the header.
RETRY_AFTER_S = 30
_HEADER = HEADER.lower().encode()
_HEALTH_PATH = b"/healthz"
# The server may drop all other headers.
HEADERS_READ = frozenset({_HEADER, b"content-length", b"transfer-encoding", b"x-forwarded-for"})


class WebhookEndpoint:
    """Answers deliveries, and counts its answers (syncd/docs/reference.md lists them).

    `keys` and `max_body_bytes` are called for each delivery, so that a reload takes effect at once.
    `is_active` too: False while the daemon of another host takes the deliveries.
    """

    def __init__(
        self,
        batch_writer: BatchWriter,
        keys: Callable[[], Sequence[str]],
        now: Callable[[], datetime],
        *,
        max_body_bytes: Callable[[], int],
        refusals: Refusals | None = None,
        is_active: Callable[[], bool] = lambda: True,
    ) -> None:
        self.refusals = refusals or Refusals("webhook")
        # Answers by outcome, and refusals by code.
        self.answered = self.refusals.counted
        self.times = delivery_seconds()
        # Why the last delivery could not be stored; None if it is stored.
        self.write_error: SyncdError | None = None
        self.forged_since_delivery = 0
        self._batch_writer = batch_writer
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._now = now
        self._is_active = is_active
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            self.refusals.count(405, "not a POST", _client(scope))
            await _answer(send, 405, _error("deliveries are posted"), (b"allow", b"POST"))
            return
        if not self._is_active():
            await self._wait(send)
            return
        signature, length = _signature_and_length(scope)
        max_body_bytes = self._max_body_bytes()
        if not signature:
            await self._refuse(send, scope, MISSING)
            return
        # The parser takes any number of zeros; int() does not.
        if length.isdigit() and int(length.lstrip(b"0") or b"0") > max_body_bytes:
            await self._too_large(send, scope, max_body_bytes)
            return
        try:
            body = await self._bodies.read(receive, max_body_bytes)
        except BodyTooLargeError:
            await self._too_large(send, scope, max_body_bytes)
            return
        except TooManyBytesError:
            self._log_refusal("too many bodies arrive slowly; one was refused", "503")
            await self._unavailable(send, "too much is being received; try again")
            return
        except DisconnectedError:
            return
        if not is_authentic(body, signature, self._keys()):
            await self._refuse_forged(send, scope, signature)
            return
        self.forged_since_delivery = 0
        await self._take(send, body)

    async def _refuse_forged(self, send: Send, scope: Scope, signature: bytes) -> None:
        if coding := _foreign_coding(scope):
            # The signature is of the decoded body, so it may be valid (RFC 9112, 6.1).
            self.refusals.count(501, "an unknown transfer coding", _client(scope))
            await _answer(send, 501, _error(f"no transfer coding but chunked: {coding}"))
            return
        self.forged_since_delivery += has_signature_form(signature)
        await self._refuse(send, scope, INVALID)

    async def _take(self, send: Send, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            outcome = await self._batch_writer.submit(parse(body, self._now()))
        except SyncdError as error:
            self.write_error = error
            self._log_refusal(
                "a delivery could not be stored", "503", error=error.message, hint=error.hint
            )
            await self._unavailable(send, "not durable; try again")
            return
        except Exception as error:  # noqa: BLE001 - the contract has no answer for a defect here
            self._log_refusal(
                "a delivery could not be stored", "503", error=repr(error), exc_info=True
            )
            await self._unavailable(send, "not durable; try again")
            return
        self.write_error = None
        if not self._is_active():
            # The other host needs this delivery, and Dreamship repeats it.
            await self._wait(send)
            return
        self.times.observe(loop.time() - began_s)
        self.answered[outcome] += 1
        for message in _ANSWERS[outcome]:
            await send(message)

    async def _wait(self, send: Send) -> None:
        """Refuse a delivery that the active host has to take; it is no fault."""
        self.answered["503"] += 1
        await self._unavailable(send, WAITING)

    async def _unavailable(self, send: Send, reason: str) -> None:
        retry = (b"retry-after", str(RETRY_AFTER_S).encode())
        await _answer(send, 503, _error(reason), retry)

    # 401 and 413 leave the connection open, for clients that send the whole body before they read
    # the answer. If the connection closes while bytes still arrive, the kernel resets it, and the
    # answer is lost.

    async def _refuse(self, send: Send, scope: Scope, reason: str) -> None:
        self._log_refusal(
            "a request without a valid signature was refused",
            "401",
            client=_client(scope),
        )
        await _answer(send, 401, _error(reason))

    async def _too_large(self, send: Send, scope: Scope, max_body_bytes: int) -> None:
        self._log_refusal(
            "a body over webhook.max_body_bytes was refused",
            "413",
            limit=max_body_bytes,
            client=_client(scope),
        )
        await _answer(send, 413, _error(f"more than {max_body_bytes} bytes"))

    def _log_refusal(self, event: str, status: str, **fields: object) -> None:
        """Count a refused request, and log the event at a limited rate."""
        self.answered[status] += 1
        if self.refusals.is_due(event):
            level = logging.ERROR if status == "503" else logging.WARNING
            log.log(level, event, **fields, refused_so_far=self.answered[status])


def application(webhook: WebhookEndpoint, path: str, is_healthy: Callable[[], bool]) -> ASGIApp:
    """Return the public application: the webhook at `path`, and `/healthz`.

    There is no router: a router may redirect or guess, and the contract has no such answers.
    """
    hook = _normalized(quote(path, safe="/%!$&'()*+,;=:@").encode())

    async def healthz(scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            webhook.refusals.count(405, "not a GET of /healthz", _client(scope))
            await _answer(send, 405, _error("only read"), (b"allow", b"GET, HEAD"))
        elif is_healthy():
            await _answer(send, 200, b'{"durable":true}')
        else:
            await _answer(send, 503, b'{"durable":false}')

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        found = scope["raw_path"]
        if found == hook or (found := _normalized(found)) == hook:
            await webhook(scope, receive, send)
        elif found == _HEALTH_PATH:
            await healthz(scope, send)
        else:
            hint = f"deliveries are posted to {path}"
            webhook.refusals.count(404, "another path", _client(scope), hint)
            await _answer(send, 404, _error("no such path"))

    return application


_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")


def _normalized(path: bytes) -> bytes:
    """Return a path without needless escapes (RFC 3986, 6.2.2); `%2F` is no slash."""
    return _ESCAPE.sub(_unescaped, path) if b"%" in path else path


def _unescaped(escape: re.Match[bytes]) -> bytes:
    byte = bytes.fromhex(escape[0][1:].decode())
    return byte if _UNRESERVED.fullmatch(byte) else escape[0].upper()


def _signature_and_length(scope: Scope) -> tuple[bytes | None, bytes]:
    signature, length = None, b""
    for name, value in scope["headers"]:
        if name == _HEADER:
            # Several headers with one name are one list (RFC 9110, 5.3).
            signature = value if signature is None else b"%b,%b" % (signature, value)
        elif name == b"content-length":
            length = value
    return signature, length


def _client(scope: Scope) -> str:
    return client_of(scope.get("client"), scope["headers"])


def _foreign_coding(scope: Scope) -> str:
    """Return the transfer codings of a request that are not `chunked`, as text."""
    named = [value for name, value in scope["headers"] if name == b"transfer-encoding"]
    codings = [coding.strip().lower() for coding in b",".join(named).split(b",")]
    return ", ".join(one.decode("latin-1")[:20] for one in codings if one not in {b"", b"chunked"})


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    for message in _messages(status, body, *headers):
        await send(message)


def _messages(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> tuple[Message, Message]:
    header_list = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    return (
        {"type": "http.response.start", "status": status, "headers": header_list},
        {"type": "http.response.body", "body": body},
    )


_ANSWERS = {outcome: _messages(200, json.encode({"outcome": outcome})) for outcome in OUTCOMES}


def _error(text: str) -> bytes:
    return json.encode({"error": text})
