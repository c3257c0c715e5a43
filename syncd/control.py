"""The control socket: what acts, for owner and group only. Served here, called by `cli`.

`GET /status` answers the status document. `POST /reconcile` with `{"items": [id, …]}` (empty: the
catalogue) answers JSON lines: `{"progress": …}` until one last `{"summary": …}` or `{"error": …}`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec import DecodeError, Struct, ValidationError, convert, json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from syncd.errors import ControlDenied, DaemonAbsent, SyncdError, UsageError
from syncd.model import MAX_ID, JsonObject
from syncd.ports import SweepProgress, SweepSummary

StatusOf = Callable[[], Awaitable[JsonObject]]


class Progress(Struct, frozen=True):
    """How far a sweep is, as it is told to who waits for it."""

    checked: int
    total: int | None
    eta_seconds: float | None
    joined: bool = False


__all__ = ["Progress", "SweepProgress", "application", "ask_reconcile", "ask_status"]

ReconcileOf = Callable[[list[int]], AsyncIterator[Progress | SweepSummary]]


class ReconcileRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /reconcile` takes."""

    items: list[int] = []


def application(status: StatusOf, reconcile: ReconcileOf) -> Starlette:
    """Return the control application."""

    async def status_route(request: Request) -> Response:
        del request
        try:
            return Response(json.encode(await status()), media_type="application/json")
        except SyncdError as fault:
            return Response(json.encode(_fault(fault)), 503, media_type="application/json")

    async def reconcile_route(request: Request) -> Response:
        try:
            asked = json.decode(await request.body() or b"{}", type=ReconcileRequest)
        except (DecodeError, ValidationError) as fault:
            return Response(json.encode({"error": str(fault)}), 400, media_type="application/json")
        if any(not 0 < item <= MAX_ID for item in asked.items):
            return Response(
                json.encode({"error": "no such id"}), 400, media_type="application/json"
            )
        return StreamingResponse(_lines(reconcile(asked.items)), media_type="application/x-ndjson")

    return Starlette(
        routes=[
            Route("/status", status_route),
            Route("/reconcile", reconcile_route, methods=["POST"]),
        ]
    )


async def _lines(told: AsyncIterator[Progress | SweepSummary]) -> AsyncIterator[bytes]:
    try:
        async for one in told:
            kind = "summary" if isinstance(one, SweepSummary) else "progress"
            yield json.encode({kind: one}) + b"\n"
    except SyncdError as fault:
        yield json.encode(_fault(fault)) + b"\n"
    except asyncio.CancelledError:
        yield json.encode({"error": "the daemon is stopping", "hint": "try again"}) + b"\n"
        raise


def _fault(fault: SyncdError) -> JsonObject:
    return {"error": fault.message, "hint": fault.hint}


def ask_status(socket: Path) -> JsonObject:
    """Return the running daemon's status document; raises DaemonAbsent when there is none."""
    with _reaching(socket) as client:
        answer = client.get("/status")
        document: JsonObject = json.decode(answer.content)
        if answer.status_code != httpx.codes.OK:
            raise SyncdError(document.get("error", "?"), hint=document.get("hint", ""))
        return document


def ask_reconcile(socket: Path, items: list[int]) -> Iterator[Progress | SweepSummary]:
    """Have the running daemon reconcile; yields progress, then the summary.

    Raises DaemonAbsent when there is none, or when it ends before the sweep does.
    """
    with (
        _reaching(socket) as client,
        client.stream("POST", "/reconcile", content=json.encode({"items": items})) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            answer.read()
            raise UsageError(f"the daemon did not understand: {answer.text}")
        for line in answer.iter_lines():
            told: dict[str, Any] = json.decode(line)
            if "progress" in told:
                yield convert(told["progress"], Progress)
            elif "summary" in told:
                yield convert(told["summary"], SweepSummary)
                return
            else:
                raise SyncdError(told.get("error", "?"), hint=told.get("hint", ""))
    raise DaemonAbsent(
        "the daemon ended before the sweep did",
        hint="the sweep goes on when it is started again",
        was_reached=True,
    )


@contextmanager
def _reaching(socket: Path) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://syncd",
            # A sweep tells something several times a second; a minute of silence is a dead one.
            timeout=httpx.Timeout(60, connect=5),
        ) as client:
            yield client
    except httpx.ConnectError as fault:
        if socket.exists() and not os.access(socket, os.W_OK):
            raise ControlDenied(
                f"this user may not use {socket}",
                hint="run it as root or as a member of the daemon's group",
            ) from fault
        raise DaemonAbsent(
            f"no daemon answers at {socket}",
            hint="start it with `syncd serve`, or check control.socket",
        ) from fault
    except httpx.HTTPError as fault:
        raise DaemonAbsent(
            f"the daemon at {socket} broke off: {str(fault) or type(fault).__name__}",
            hint="see its log",
            was_reached=True,
        ) from fault
