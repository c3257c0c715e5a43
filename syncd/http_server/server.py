"""Runs several uvicorn servers in one loop, without signal handlers and without lost answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from syncd.http_server.limits import ARRIVAL_S, MAX_CONNECTIONS, ConnectionLimiter
from syncd.http_server.protocol import LimitedHttpProtocol, ServerConfig
from syncd.http_server.refusals import Refusals

# A connection that was accepted just before the listener closed may not have sent its request yet.
# uvicorn would close it at once: a failed delivery (measured; syncd/README.md, "Traps").
GRACE_S = 0.3
LONGEST_DRAIN_S = 20.0
_TICK_S = 0.02
# Shorter than TimeoutStopSec of the unit, which includes the other steps of a stop (a test adds
# them up).
GRACEFUL_S = 5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, limiter: ConnectionLimiter) -> None:
        super().__init__(config)
        self._limiter = limiter

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon, which stops more parts than one server."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Close connections that have waited for too long; ten times a second."""
        self._limiter.close_late()
        return await super().on_tick(counter)


class HttpServer:
    """One application on one bound socket.

    `limiter` may be shared with other servers. `refusals` counts requests that are refused below
    the application. `headers_read` names the headers that the application reads, in lower case; all
    others are dropped, because many small headers take thirty times their size in memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        *,
        arrival_s: float = ARRIVAL_S,
        max_connections: int = MAX_CONNECTIONS,
        limiter: ConnectionLimiter | None = None,
        refusals: Refusals | None = None,
        headers_read: frozenset[bytes] | None = None,
    ) -> None:
        self._bound = bound
        self._config = ServerConfig(
            app,
            http=LimitedHttpProtocol,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ws="none",
            # Otherwise uvicorn reads it from $WEB_CONCURRENCY, which belongs to other programs.
            workers=1,
            # The client behind a proxy is only logged: see `client_of`.
            proxy_headers=False,
            timeout_graceful_shutdown=GRACEFUL_S,
        )
        limiter = limiter or ConnectionLimiter(
            time.monotonic, arrival_s=arrival_s, max_connections=max_connections
        )
        self._config.limiter = limiter.listener()
        self._config.refusals = refusals or Refusals("http")
        self._config.headers_read = headers_read
        self._server = _Server(self._config, limiter)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The address of the listener, as a URL or a path, with the real number of the port."""
        name = self._bound.getsockname()
        if isinstance(name, tuple):
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            return f"http://{host}:{name[1]}"
        return f"unix:{name}"

    async def start(self) -> None:
        """Return once the server accepts requests."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the HTTP server ended while starting")
            await asyncio.sleep(_TICK_S)

    async def drain(self) -> None:
        """Stop accepting, and return once all accepted requests are answered.

        Connections that wait to be accepted go to the next process, if it has the same socket. Each
        answer from now on announces the end of its connection: an open connection would be closed
        later, perhaps while another request is on its way.
        """
        for listener in self._server.servers:
            listener.close()
        # uvicorn makes the second list from the first one every second.
        for headers in (self._config.encoded_headers, self._server.server_state.default_headers):
            headers.append((b"connection", b"close"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (waited := loop.time() - began) < LONGEST_DRAIN_S:
            if waited >= GRACE_S and not self._is_answering():
                return
            await asyncio.sleep(_TICK_S)

    async def stop(self) -> None:
        """End the server."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def _is_answering(self) -> bool:
        return any(
            isinstance(connection, LimitedHttpProtocol) and connection.is_answering
            for connection in self._server.server_state.connections
        )
