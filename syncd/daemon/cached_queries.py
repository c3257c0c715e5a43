"""How the daemon asks its own mirror: as a reader, beside the loop, and not too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from syncd.store import Queries

# Counting a million variants takes a quarter of a second, and so does a day of many deliveries:
# this part of the time may go into either.
COUNT_SHARE = 0.05
QUICK_S = 0.05


class QueryRunner:
    """Asks the mirror at `path` on a way of its own: a thread and a connection.

    One question at a time; each may take `limit_s`. Whoever must not wait behind others has its
    own.
    """

    def __init__(self, path: Path, *, limit_s: float | None = None) -> None:
        self._reports = Queries(path)
        self._limit_s = limit_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mirror-reader")

    async def ask(self, question: Callable[[Queries], Any]) -> Any:
        """Return the answer; raises MirrorError leaves, and Overloaded when it takes too long."""

        def ask() -> Any:
            with self._reports.limited(self._limit_s):
                return question(self._reports)

        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)

    async def close(self) -> None:
        """Let go of the mirror; a question that is being asked is broken off."""
        self._reports.interrupt()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._reports.close)
        self._thread.shutdown(wait=False)
        await closing


class CachedQuery:
    """A question that a large mirror is not asked each time somebody wants to know."""

    def __init__(self, question: Callable[..., Any]) -> None:
        self._question = question
        self._answer: Any = None
        self._ask_again_s = 0.0

    def answer(self, reports: Queries, *about: Any) -> Any:
        """Return the answer, which may be a while old if it took long, and then about that time."""
        began_s = time.monotonic()
        if self._answer is None or began_s >= self._ask_again_s:
            self._answer = self._question(reports, *about)
            took_s = time.monotonic() - began_s
            self._ask_again_s = began_s + (took_s / COUNT_SHARE if took_s > QUICK_S else 0)
        return self._answer
