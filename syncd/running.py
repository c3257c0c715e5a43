"""Running a coroutine so that its end waits for no thread: one may look up a name for minutes.

The C library asks each name server several times and cannot be interrupted. asyncio and libuv wait
for such a thread when a loop ends, Python for every thread that is none of its daemons.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

# Names that are looked up at once; a thread that hangs holds its place until it returns.
_LOOKUPS = 4


class _Threads(ThreadPoolExecutor):
    """Threads that nobody waits for; what has not begun at the end never begins."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the library
        del wait, cancel_futures
        super().shutdown(wait=False, cancel_futures=True)


class _Loop(uvloop.Loop):
    """Looks up names in threads of its own: lookups that hang hold up nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(_Threads(thread_name_prefix="work"))
        self._lookups = _Threads(_LOOKUPS, thread_name_prefix="lookup")

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        """Return what the C library knows of a name, as `socket.getaddrinfo` does."""
        return await self.run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, **options)
        )


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return what `main` returned; threads that still work are left to themselves.

    Python itself waits for them at its end, unless the process ends by `os._exit`.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
