"""The two servers that store nothing, on the HTTP server of the daemon.

python tests/benchmarks/servers.py empty|signed    prints its URL
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.deliveries import KEY
from syncd.core.signature import HEADER, is_authentic
from syncd.http_server.server import HttpServer
from syncd.http_server.sockets import bind_tcp

PATH = "/webhooks/dreamship"


def empty() -> ASGIApp:
    """Answer at once: this shows the cost of the HTTP server and the framework alone."""

    async def receive(request: Request) -> Response:
        del request
        return Response(b'{"outcome":"applied"}', media_type="application/json")

    return _starlette(receive)


def signed() -> ASGIApp:
    """Verify and parse, and keep nothing."""

    async def receive(request: Request) -> Response:
        body = await request.body()
        if not is_authentic(body, request.headers[HEADER].encode(), (KEY,)):
            return Response(b"", 401)
        json.loads(body)
        return Response(b'{"outcome":"applied"}', media_type="application/json")

    return _starlette(receive)


def _starlette(receive: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


async def serve(app: ASGIApp) -> None:
    """Serve an application on a free port until the process is killed."""
    server = HttpServer(app, bind_tcp("127.0.0.1", 0, key="benchmark"))
    await server.start()
    print(server.address, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    apps: dict[str, Callable[[], ASGIApp]] = {"empty": empty, "signed": signed}
    uvloop.run(serve(apps[sys.argv[1]]()))


if __name__ == "__main__":
    main()
