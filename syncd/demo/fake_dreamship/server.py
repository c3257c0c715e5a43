"""A server for the simulated API on a real socket, in this loop or in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import uvicorn

from syncd.demo.fake_dreamship.api import Api


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the caller."""
        yield


def _server(api: Api) -> _Server:
    config = uvicorn.Config(
        api.application(),
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        date_header=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return _Server(config)


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


@contextlib.asynccontextmanager
async def serving(api: Api, port: int = 0) -> AsyncIterator[str]:
    """Serve in this loop; gives the base URL."""
    listener, server = _bind(port), _server(api)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await task
        listener.close()


@contextlib.contextmanager
def serving_in_thread(api: Api, port: int = 0) -> Iterator[str]:
    """Serve in a thread, for tests with daemons in other processes; gives the base URL.

    The caller's thread can change the catalogue: each change is one assignment to a dict.
    """
    listener, server = _bind(port), _server(api)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    pause = threading.Event()
    while not server.started:
        pause.wait(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
