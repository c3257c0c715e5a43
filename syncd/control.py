"""The control socket: what acts, for owner and group only. Served here, called by `cli`.

`GET /status` answers the status document. `POST /reconcile` with a `ReconcileRequest` (no items:
the catalogue) answers JSON lines: `{"progress": …}` until one last `{"summary": …}`,
`{"dry_run": …}` or `{"error": …}`. `POST /replay` with a `ReplayRequest` answers what became of
each delivery.
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

from syncd.errors import ControlDenied, DaemonAbsent, SourceError, SyncdError, UsageError
from syncd.model import MAX_ID, JsonObject
from syncd.ports import SweepSummary
from syncd.replay import Replayed
from syncd.state import Change

StatusOf = Callable[[], Awaitable[JsonObject]]


class Progress(Struct, frozen=True):
    """How far a sweep is, as it is told to who waits for it."""

    checked: int
    total: int | None
    eta_seconds: float | None
    joined: bool = False


class Differences(Struct, frozen=True):
    """What a dry run found: what a sweep would have done, and the changes it would have written."""

    summary: SweepSummary
    differences: list[Change]


Told = Progress | SweepSummary | Differences


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /replay` takes: deliveries by id, or every quarantined one."""

    ids: list[int] = []
    quarantined: bool = False


class ReconcileRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /reconcile` takes."""

    items: list[int] = []
    accept_removals: bool = False
    dry_run: bool = False


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
            asked = json.decode(await request.body() or b"{}", type=ReconcileRequest)
        except (DecodeError, ValidationError) as fault:
            return Response(json.encode({"error": str(fault)}), 400, media_type="application/json")
        if any(not 0 < item <= MAX_ID for item in asked.items):
            return Response(
                json.encode({"error": "no such id"}), 400, media_type="application/json"
            )
        return StreamingResponse(_lines(reconcile(asked)), media_type="application/x-ndjson")

    async def replay_route(request: Request) -> Response:
        try:
            asked = json.decode(await request.body(), type=ReplayRequest)
            return Response(json.encode(await replay(asked)), media_type="application/json")
        except (DecodeError, ValidationError) as fault:
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


async def _lines(told: AsyncIterator[Told]) -> AsyncIterator[bytes]:
    try:
        async for one in told:
            kind = next(name for name, type_ in _KINDS.items() if isinstance(one, type_))
            yield json.encode({kind: one}) + b"\n"
    except SyncdError as fault:
        yield json.encode(_fault(fault)) + b"\n"
    except asyncio.CancelledError:
        yield json.encode({"error": "the daemon is stopping", "hint": "try again"}) + b"\n"
        raise


_FAULTS: dict[str, type[SyncdError]] = {
    "usage": UsageError,
    "source": SourceError,
    "absent": DaemonAbsent,
}
_KINDS: dict[str, type[Told]] = {
    "progress": Progress,
    "summary": SweepSummary,
    "dry_run": Differences,
}


def _fault(fault: SyncdError) -> JsonObject:
    kind = next((name for name, type_ in _FAULTS.items() if isinstance(fault, type_)), "")
    return {"error": fault.message, "hint": fault.hint, "kind": kind}


def _raised(told: JsonObject) -> SyncdError:
    """Return what the daemon raised; the kinds that have an exit code of their own keep it."""
    kind = _FAULTS.get(told.get("kind", ""), SyncdError)
    return kind(told.get("error", "?"), hint=told.get("hint", ""))


def ask_status(socket: Path) -> JsonObject:
    """Return the running daemon's status document; raises DaemonAbsent when there is none."""
    with _reaching(socket) as client:
        answer = client.get("/status")
        document: JsonObject = json.decode(answer.content)
        if answer.status_code != httpx.codes.OK:
            raise _raised(document)
        return document


def ask_replay(socket: Path, request: ReplayRequest) -> list[Replayed]:
    """Have the running daemon judge kept deliveries again; raises DaemonAbsent without one."""
    with _reaching(socket) as client:
        answer = client.post("/replay", content=json.encode(request))
        if answer.status_code != httpx.codes.OK:
            document: JsonObject = json.decode(answer.content)
            raise _raised(document)
        return json.decode(answer.content, type=list[Replayed])


def ask_reconcile(socket: Path, request: ReconcileRequest) -> Iterator[Told]:
    """Have the running daemon reconcile; yields progress, then the summary or the differences.

    Raises DaemonAbsent when there is none, or when it ends before the sweep does.
    """
    with (
        _reaching(socket) as client,
        client.stream("POST", "/reconcile", content=json.encode(request)) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            answer.read()
            raise UsageError(f"the daemon did not understand: {answer.text}")
        for line in answer.iter_lines():
            told: dict[str, Any] = json.decode(line)
            kind = next((name for name in _KINDS if name in told), None)
            if kind is None:
                raise _raised(told)
            yield convert(told[kind], _KINDS[kind])
            if kind != "progress":
                return
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
