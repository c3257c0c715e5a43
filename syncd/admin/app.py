"""The admin listener only reads. It is meant for loopback.

A web page in a browser on this host must not read it: with DNS rebinding, a foreign name resolves
to loopback. Such a request has the foreign name in `Host`, and is refused.
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
from syncd.admin.live import LiveUpdates
from syncd.config import is_loopback
from syncd.core.listings import MAX_SKU_CHARS
from syncd.core.plain_text import json_text
from syncd.core.status_document import StatusDocument
from syncd.errors import SyncdError
from syncd.http_server.refusals import Places, Refusals

StatusOf = Callable[[], Awaitable[StatusDocument]]
MetricsOf = Callable[[], Awaitable[bytes]]
PageOf = Callable[[str], Awaitable[str]]
ErrorPageOf = Callable[[SyncdError], str]

MAX_QUERY_CHARS = MAX_SKU_CHARS
# The requests of one kind that are answered at the same time. Many requests of one kind delay only
# their own kind and use little memory.
MAX_CONCURRENT = 8
# A search takes seconds at most.
RETRY_AFTER_S = 5
# The HTTP server may drop all other headers.
HEADERS_READ = frozenset({b"host"})
# `[v6]`, a name or a v4 address, with or without a port. Nothing here is ambiguous.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")


def application(
    status: StatusOf,
    exposition: MetricsOf,
    status_page: PageOf,
    error_page: ErrorPageOf,
    *,
    live: LiveUpdates | None = None,
    is_remote: bool = False,
    refusals: Refusals | None = None,
) -> ASGIApp:
    """Return the application: the status page at `/`, `/status.json` and `/metrics`.

    `live`: at `/events`, a browser learns that the page has changed. `is_remote`: the listener is
    not on loopback, so `Host` may have any name.
    """
    statuses, scrapes, pages, searches = (Places(MAX_CONCURRENT) for _ in range(4))

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
            return PlainTextResponse(f"{error.message}\n", 503, _RETRY_LATER)

    async def page_route(request: Request) -> Response:
        search = request.query_params.get("q", "").strip()[:MAX_QUERY_CHARS]
        try:
            with (searches if search else pages).one():
                return HTMLResponse(await status_page(search))
        except SyncdError as error:
            return HTMLResponse(error_page(error), 503, _RETRY_LATER)

    async def file_route(request: Request) -> Response:
        name = request.url.path[1:]
        return Response(page.file(name), media_type=page.FILES[name])

    routes = [
        Route("/", page_route),
        Route("/status.json", status_route),
        Route("/metrics", metrics_route),
        *([] if live is None else [Route("/events", live.answer)]),
        *(Route(f"/{name}", file_route) for name in page.FILES),
    ]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False
    return _Guarded(inner, refusals or Refusals("admin"), is_remote=is_remote)


class _Guarded:
    """Refuses requests with a foreign name in `Host`; adds the security headers to each answer."""

    def __init__(self, app: ASGIApp, refusals: Refusals, *, is_remote: bool) -> None:
        self._app = app
        self._refusals = refusals
        self._is_remote = is_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
                self._refusals.count_answer(message["status"], scope)
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            app: ASGIApp = _TWO_HOSTS
        elif self._is_remote or _is_for_loopback(scope, hosts):
            app = self._app
        else:
            app = _FOREIGN_HOST
        await app(scope, receive, send_guarded)


_FOREIGN_HOST = PlainTextResponse("use the host name 127.0.0.1, [::1] or localhost\n", 421)
# RFC 9112, 3.2; also if the request target and `Host` name different hosts.
_TWO_HOSTS = PlainTextResponse("the request names two hosts\n", 400)
# The headers of every 503.
_RETRY_LATER = {"Retry-After": str(RETRY_AFTER_S)}
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in page.HEADERS.items()]


def _is_for_loopback(scope: Scope, hosts: list[bytes]) -> bool:
    if not isinstance((scope.get("server") or ("", None))[1], int):
        return True  # the permissions of a unix socket limit its users
    match = _HOST.fullmatch(hosts[0].decode("latin-1")) if hosts else None
    return match is not None and is_loopback((match[1] or match[2]).lower())


def _json(code: int, document: object) -> Response:
    return Response(
        json.format(json_text(document)),
        code,
        _RETRY_LATER if code == HTTPStatus.SERVICE_UNAVAILABLE else None,
        media_type="application/json",
    )
