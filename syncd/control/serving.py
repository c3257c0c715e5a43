"""The daemon's side of the control socket: owner and group only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import DecodeError, ValidationError, json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from syncd.control import FAULTS, KINDS, ReconcileRequest, ReplayRequest, Told
from syncd.errors import SyncdError
from syncd.model import MAX_ID, JsonObject
from syncd.replay import Replayed

# Some fifty thousand ids.
MAX_BODY_BYTES = 1024 * 1024

StatusOf = Callable[[], Awaitable[JsonObject]]
ReconcileOf = Callable[[ReconcileRequest], AsyncIterator[Told]]
ReplayOf = Callable[[ReplayRequest], Awaitable[list[Replayed]]]


def application(status: StatusOf, reconcile: ReconcileOf, replay: ReplayOf) -> Starlette:
    """Return the control application."""

    async def status_route(request: Request) -> Response:
        del request
        try:
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
        return StreamingResponse(_lines(reconcile(asked)), media_type="application/x-ndjson")

    async def replay_route(request: Request) -> Response:
        try:
            asked = json.decode(await _body(request), type=ReplayRequest)
            return Response(json.encode(await replay(asked)), media_type="application/json")
        except (DecodeError, ValidationError, _TooLargeError) as fault:
            return Response(json.encode({"error": str(fault)}), 400, media_type="application/json")
        except SyncdError as fault:
            return Response(json.encode(_fault(fault)), 503, media_type="application/json")

    return Starlette(
        routes=[
            Route("/status", status_route),
            Route("/reconcile", reconcile_route, methods=["POST"]),
            Route("/replay", replay_route, methods=["POST"]),
        ]
    )


class _TooLargeError(Exception):
    pass


async def _body(request: Request) -> bytes:
    """Return the body: members of the group are no strangers, but need not be friends either."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLargeError("more ids than can be asked for at once")
    return body


async def _lines(told: AsyncIterator[Told]) -> AsyncIterator[bytes]:
    try:
        async for one in told:
            kind = next(name for name, type_ in KINDS.items() if isinstance(one, type_))
            yield json.encode({kind: one}) + b"\n"
    except SyncdError as fault:
        yield json.encode(_fault(fault)) + b"\n"
    except asyncio.CancelledError:
        yield json.encode({"error": "the daemon is stopping", "hint": "try again"}) + b"\n"
        raise


def _fault(fault: SyncdError) -> JsonObject:
    kind = next((name for name, type_ in FAULTS.items() if isinstance(fault, type_)), "")
    return {"error": fault.message, "hint": fault.hint, "kind": kind}
