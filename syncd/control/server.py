"""The server of the control socket; only owner and group can use the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from msgspec import DecodeError, ValidationError, json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncd.control.messages import (
    MESSAGE_TYPES,
    PushRequest,
    ReconcileMessage,
    ReconcileRequest,
    ReplayRequest,
    encode_error,
)
from syncd.core.model import MAX_ID
from syncd.core.records import ReplayResult
from syncd.core.status_document import StatusDocument
from syncd.errors import Overloaded, SyncdError, UsageError
from syncd.http_server.refusals import Places, Refusals

# The HTTP server may drop all headers.
HEADERS_READ = frozenset[bytes]()
# Far more than the ids that one request may name (`sweeps.MAX_ITEMS`, `replay.MAX_IDS`).
MAX_BODY_BYTES = 64 * 1024
# Requests for the status that are answered at the same time; others are refused.
MAX_CONCURRENT = 8

R = TypeVar("R", ReplayRequest, PushRequest)
StatusOf = Callable[[], Awaitable[StatusDocument]]
ReconcileOf = Callable[[ReconcileRequest], AsyncIterator[ReconcileMessage]]
PushOf = Callable[[PushRequest], Awaitable[None]]
ReplayOf = Callable[[ReplayRequest], Awaitable[list[ReplayResult]]]


def application(
    status: StatusOf,
    reconcile: ReconcileOf,
    replay: ReplayOf,
    push: PushOf,
    *,
    refusals: Refusals | None = None,
) -> ASGIApp:
    """Return the control application."""
    refusals, statuses = refusals or Refusals("control"), Places(MAX_CONCURRENT)

    async def status_route(request: Request) -> Response:
        del request
        try:
            with statuses.one():
                return Response(json.encode(await status()), media_type="application/json")
        except SyncdError as error:
            return Response(json.encode(encode_error(error)), 503, media_type="application/json")

    async def reconcile_route(request: Request) -> Response:
        try:
            message = json.decode(await _body(request) or b"{}", type=ReconcileRequest)
        except (DecodeError, ValidationError, _TooLargeError) as error:
            return Response(json.encode({"error": str(error)}), 400, media_type="application/json")
        if any(not 0 < item <= MAX_ID for item in message.items):
            return Response(
                json.encode({"error": "no such id"}), 400, media_type="application/json"
            )
        lines = _lines(reconcile(message), refusals, request.scope)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def replay_route(request: Request) -> Response:
        return await _answered(request, ReplayRequest, replay)

    async def push_route(request: Request) -> Response:
        return await _answered(request, PushRequest, push)

    inner = Starlette(
        routes=[
            Route("/status", status_route),
            Route("/reconcile", reconcile_route, methods=["POST"]),
            Route("/replay", replay_route, methods=["POST"]),
            Route("/push", push_route, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused, ClientDisconnect: _ignored},
    )
    inner.router.redirect_slashes = False
    return _counted(inner, refusals)


async def _answered(
    request: Request, kind: type[R], carry_out: Callable[[R], Awaitable[object]]
) -> Response:
    """Return the result of a request, or its error."""
    try:
        result = await carry_out(json.decode(await _body(request), type=kind))
        return Response(json.encode(result), media_type="application/json")
    except (DecodeError, ValidationError, _TooLargeError) as error:
        return Response(json.encode({"error": str(error)}), 400, media_type="application/json")
    except SyncdError as error:
        body = json.encode(encode_error(error))
        return Response(body, _code(error), media_type="application/json")


def _counted(inner: ASGIApp, refusals: Refusals) -> ASGIApp:
    """Count the refusals of an application."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                refusals.count_answer(message["status"], scope)
            await send(message)

        await inner(scope, receive, send_counted)

    return application


async def _ignored(request: Request, error: Exception) -> Response:
    """Return an empty answer, because the client has closed the connection."""
    del request, error
    return Response(status_code=204)


async def _refused(request: Request, error: Exception) -> Response:
    """Return an error as JSON, because clients decode JSON."""
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 - for mypy
    body = json.encode({"error": error.detail})
    return Response(body, error.status_code, headers=error.headers, media_type="application/json")


class _TooLargeError(Exception):
    pass


async def _body(request: Request) -> bytes:
    """Return the body; raises _TooLargeError, because members of the group may be hostile too."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLargeError(
                f"too many ids in one request: more than {MAX_BODY_BYTES // 1024} KB"
            )
    return bytes(body)


async def _lines(
    messages: AsyncIterator[ReconcileMessage], refusals: Refusals, scope: Scope
) -> AsyncIterator[bytes]:
    try:
        async for message in messages:
            kind = next(name for name, type_ in MESSAGE_TYPES.items() if isinstance(message, type_))
            yield json.encode({kind: message}) + b"\n"
    except SyncdError as error:
        if isinstance(error, UsageError | Overloaded):
            # The answer has begun with 200, so only its last line shows the refusal.
            refusals.count_answer(_code(error), scope)
        yield json.encode(encode_error(error)) + b"\n"
    except asyncio.CancelledError:
        yield json.encode({"error": "the daemon is stopping", "hint": "try again"}) + b"\n"
        raise


def _code(error: SyncdError) -> int:
    return 400 if isinstance(error, UsageError) else 503
