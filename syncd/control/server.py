"""The daemon's side of the control socket: owner and group only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import DecodeError, ValidationError, json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncd.control import FAULTS, KINDS, ReconcileRequest, ReplayRequest, Told
from syncd.core.model import MAX_ID, JsonObject
from syncd.core.records import ReplayResult
from syncd.errors import Overloaded, SyncdError, UsageError
from syncd.http_server.refusals import Places, Refusals

# All other headers may be dropped before they come here.
HEADERS_READ = frozenset[bytes]()
# Far more than the ids that one request may name (`reconcile.MAX_ITEMS`, `replay.MAX_IDS`).
MAX_BODY_BYTES = 64 * 1024
# Statuses that are put together at once; others are refused.
MOST_AT_ONCE = 8

StatusOf = Callable[[], Awaitable[JsonObject]]
ReconcileOf = Callable[[ReconcileRequest], AsyncIterator[Told]]
ReplayOf = Callable[[ReplayRequest], Awaitable[list[ReplayResult]]]


def application(
    status: StatusOf,
    reconcile: ReconcileOf,
    replay: ReplayOf,
    *,
    refusals: Refusals | None = None,
) -> ASGIApp:
    """Return the control application."""
    refusals, statuses = refusals or Refusals("control"), Places(MOST_AT_ONCE)

    async def status_route(request: Request) -> Response:
        del request
        try:
            with statuses.one():
                return Response(json.encode(await status()), media_type="application/json")
        except SyncdError as fault:
            return Response(json.encode(_fault(fault)), 503, media_type="application/json")

    async def reconcile_route(request: Request) -> Response:
        try:
            asked = json.decode(await _body(request) or b"{}", type=ReconcileRequest)
        except (DecodeError, ValidationError, _TooLargeError) as fault:
            return Response(json.encode({"error": str(fault)}), 400, media_type="application/json")
        if any(not 0 < item <= MAX_ID for item in asked.items):
            return Response(
                json.encode({"error": "no such id"}), 400, media_type="application/json"
            )
        told = _lines(reconcile(asked), refusals, request.scope)
        return StreamingResponse(told, media_type="application/x-ndjson")

    async def replay_route(request: Request) -> Response:
        try:
            asked = json.decode(await _body(request), type=ReplayRequest)
            return Response(json.encode(await replay(asked)), media_type="application/json")
        except (DecodeError, ValidationError, _TooLargeError) as fault:
            return Response(json.encode({"error": str(fault)}), 400, media_type="application/json")
        except SyncdError as fault:
            told = json.encode(_fault(fault))
            return Response(told, _code(fault), media_type="application/json")

    inner = Starlette(
        routes=[
            Route("/status", status_route),
            Route("/reconcile", reconcile_route, methods=["POST"]),
            Route("/replay", replay_route, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused, ClientDisconnect: _ignored},
    )
    inner.router.redirect_slashes = False
    return _counted(inner, refusals)


def _counted(inner: ASGIApp, refusals: Refusals) -> ASGIApp:
    """Count what an application refuses."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                refusals.note_answer(message["status"], scope)
            await send(message)

        await inner(scope, receive, send_counted)

    return application


async def _ignored(request: Request, fault: Exception) -> Response:
    """Answer a client that hung up in the middle; nobody reads it."""
    del request, fault
    return Response(status_code=204)


async def _refused(request: Request, fault: Exception) -> Response:
    """Answer as JSON, which is what every caller decodes."""
    del request
    assert isinstance(fault, HTTPException)  # noqa: S101 - for mypy
    told = json.encode({"error": fault.detail})
    return Response(told, fault.status_code, headers=fault.headers, media_type="application/json")


class _TooLargeError(Exception):
    pass


async def _body(request: Request) -> bytes:
    """Return the body: members of the group are no strangers, but need not be friends either."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLargeError(
                f"more ids than can be asked for at once: over {MAX_BODY_BYTES // 1024} KB"
            )
    return bytes(body)


async def _lines(
    told: AsyncIterator[Told], refusals: Refusals, scope: Scope
) -> AsyncIterator[bytes]:
    try:
        async for one in told:
            kind = next(name for name, type_ in KINDS.items() if isinstance(one, type_))
            yield json.encode({kind: one}) + b"\n"
    except SyncdError as fault:
        if isinstance(fault, UsageError | Overloaded):
            # The answer has begun, with 200: that it is a refusal is in its last line.
            refusals.note_answer(_code(fault), scope)
        yield json.encode(_fault(fault)) + b"\n"
    except asyncio.CancelledError:
        yield json.encode({"error": "the daemon is stopping", "hint": "try again"}) + b"\n"
        raise


def _code(fault: SyncdError) -> int:
    return 400 if isinstance(fault, UsageError) else 503


def _fault(fault: SyncdError) -> JsonObject:
    kind = next((name for name, type_ in FAULTS.items() if isinstance(fault, type_)), "")
    return {"error": fault.message, "hint": fault.hint, "kind": kind}
