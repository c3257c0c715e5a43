"""The admin listener: it only reads, and is meant for loopback.

A page in somebody's browser must not read it either: a name that resolves to loopback (DNS
rebinding) comes with that name as its Host, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncd.admin import metrics, page
from syncd.config import is_loopback
from syncd.core.plain_text import json_text
from syncd.core.status_document import StatusDocument
from syncd.errors import SyncdError
from syncd.http_server.refusals import Places, Refusals

StatusOf = Callable[[], Awaitable[StatusDocument]]
MetricsOf = Callable[[], Awaitable[bytes]]
PageOf = Callable[[str], Awaitable[str]]

MAX_QUERY_CHARS = 100
# Requests of one kind that are answered at the same time. A crowd of one kind delays only its own
# kind, and fills no memory.
MOST_AT_ONCE = 8
# A search takes seconds at most.
RETRY_AFTER_S = 5
# All other headers may be dropped before they come here.
HEADERS_READ = frozenset({b"host"})
# `[v6]` or a name or v4, and perhaps a port; nothing that another program might read otherwise.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")


def application(
    status: StatusOf,
    exposition: MetricsOf,
    status_page: PageOf,
    *,
    is_remote: bool = False,
    refusals: Refusals | None = None,
) -> ASGIApp:
    """Return the application: the status page at `/`, `/status.json` and `/metrics`.

    `is_remote`: the listener is not on loopback, so the names of its host are not known.
    """
    statuses, scrapes, pages, searches = (Places(MOST_AT_ONCE) for _ in range(4))

    async def status_route(request: Request) -> Response:
        del request
        try:
            with statuses.one():
                return _json(200, await status())
        except SyncdError as error:
            return _json(503, {"error": error.message, "hint": error.hint})

    async def metrics_route(request: Request) -> Response:
        del request
        try:
            with scrapes.one():
                return Response(await exposition(), media_type=metrics.CONTENT_TYPE)
        except SyncdError as error:
            return PlainTextResponse(f"{error.message}\n", 503, _LATER)

    async def page_route(request: Request) -> Response:
        search = request.query_params.get("q", "").strip()[:MAX_QUERY_CHARS]
        try:
            with (searches if search else pages).one():
                return HTMLResponse(await status_page(search))
        except SyncdError as error:
            return HTMLResponse(page.error(error.message, error.hint), 503, _LATER)

    async def file_route(request: Request) -> Response:
        name = request.url.path[1:]
        return Response(page.file(name), media_type=page.FILES[name])

    routes = [
        Route("/", page_route),
        Route("/status.json", status_route),
        Route("/metrics", metrics_route),
        *(Route(f"/{name}", file_route) for name in page.FILES),
    ]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False
    return _Guarded(inner, refusals or Refusals("admin"), is_remote=is_remote)


class _Guarded:
    """Refuses a request whose Host is a name nobody here has; every answer has one policy."""

    def __init__(self, app: ASGIApp, refusals: Refusals, *, is_remote: bool) -> None:
        self._app = app
        self._refusals = refusals
        self._is_remote = is_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_POLICY]
                self._refusals.count_answer(message["status"], scope)
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            app: ASGIApp = _AMBIGUOUS
        elif self._is_remote or _is_for_loopback(scope, hosts):
            app = self._app
        else:
            app = _NOT_OURS
        await app(scope, receive, send_guarded)


_NOT_OURS = PlainTextResponse("ask for it as 127.0.0.1, [::1] or localhost\n", 421)
# RFC 9112, 3.2; also when the request target and `Host` name two different hosts.
_AMBIGUOUS = PlainTextResponse("it names two hosts\n", 400)
# Of every 503.
_LATER = {"Retry-After": str(RETRY_AFTER_S)}
_POLICY = [(name.lower().encode(), value.encode()) for name, value in page.HEADERS.items()]


def _is_for_loopback(scope: Scope, hosts: list[bytes]) -> bool:
    if not isinstance((scope.get("server") or ("", None))[1], int):
        return True  # a unix socket: who may open it may read it
    found = _HOST.fullmatch(hosts[0].decode("latin-1")) if hosts else None
    return found is not None and is_loopback((found[1] or found[2]).lower())


def _json(code: int, document: object) -> Response:
    return Response(
        json.format(json_text(document)),
        code,
        _LATER if code == HTTPStatus.SERVICE_UNAVAILABLE else None,
        media_type="application/json",
    )
