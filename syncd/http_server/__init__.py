"""uvicorn as a guest: several servers in one loop, no signals taken, nobody reset at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from syncd.errors import ConfigurationError

# What was accepted a moment before the listener closed may not have sent its request yet, and
# uvicorn would close it at once: a failed delivery (measured, design.md).
GRACE_S = 0.3
LONGEST_DRAIN_S = 20.0
_TICK_S = 0.02


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon, which has more to end than one server."""
        yield


class HttpServer:
    """One application on one bound socket."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._bound = bound
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=5,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL or a path; a free port that was asked for has its number."""
        name = self._bound.getsockname()
        if isinstance(name, tuple):
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            return f"http://{host}:{name[1]}"
        return f"unix:{name}"

    async def start(self) -> None:
        """Return once requests are being accepted."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the HTTP server ended while starting")
            await asyncio.sleep(_TICK_S)

    async def drain(self) -> None:
        """Stop accepting, and return when what was accepted has been answered."""
        for listener in self._server.servers:
            listener.close()
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
        cycles = (
            getattr(connection, "cycle", None)
            for connection in self._server.server_state.connections
        )
        return any(cycle is not None and not cycle.response_complete for cycle in cycles)


def bind_tcp(host: str, port: int, *, key: str) -> socket.socket:
    """Return a bound socket; raises ConfigurationError naming `key` when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(found[0][4])
    except OSError as fault:
        raise ConfigurationError(
            [f"{key}: cannot listen on {host}:{port}: {fault.strerror or fault}"],
            hint="choose another port, or end the program that has it",
        ) from fault
    return bound


def bind_unix(path: Path, *, key: str, mode: int = 0o660) -> socket.socket:
    """Return a bound unix socket for owner and group; a dead one in its place is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode):
                if _is_answered(path):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                path.unlink()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Nobody may connect between bind and chmod.
        before = os.umask(0o777 & ~mode)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
    except OSError as fault:
        raise ConfigurationError(
            [f"{key}: cannot make the socket {path}: {fault.strerror or fault}"],
            hint="name a folder this user may write; unix paths are at most 107 bytes",
        ) from fault
    return bound


def _is_answered(path: Path) -> bool:
    """Tell whether somebody listens on a socket that is in the way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True
