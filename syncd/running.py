"""Runs a coroutine without waiting for its threads at the end: a name lookup may take minutes.

The C library queries each name server several times and cannot be interrupted. asyncio and libuv
wait for such a thread at the end of a loop, and Python waits for each thread that is no daemon.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

# Name lookups at the same time; a thread that hangs occupies its place until it returns.
_LOOKUPS = 4


class _Threads(ThreadPoolExecutor):
    """Threads without a wait at the end; work that has not begun by then is cancelled."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the library
        del wait, cancel_futures
        super().shutdown(wait=False, cancel_futures=True)


class _Loop(uvloop.Loop):
    """Looks up names in separate threads: lookups that hang do not delay other work."""

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(_Threads(thread_name_prefix="work"))
        self._lookups = _Threads(_LOOKUPS, thread_name_prefix="lookup")

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        """Return the addresses of a name, as `socket.getaddrinfo` does."""
        return await self.run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, **options)
        )


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return the result of `main`, without waiting for threads that still work.

    Python itself waits for them at its end, unless the process ends with `os._exit`.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
