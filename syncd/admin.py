"""The admin listener: it only reads, and is meant for loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncd.errors import SyncdError
from syncd.model import JsonObject

StatusOf = Callable[[], Awaitable[JsonObject]]


def application(status: StatusOf) -> Starlette:
    """Return the application: `/status.json`."""

    async def status_json(request: Request) -> Response:
        del request
        try:
            return _json(200, await status())
        except SyncdError as fault:
            return _json(503, {"error": fault.message, "hint": fault.hint})

    return Starlette(routes=[Route("/status.json", status_json)])


def _json(code: int, document: JsonObject) -> Response:
    return Response(
        json.format(json.encode(document)), code, {"Cache-Control": "no-store"}, "application/json"
    )
