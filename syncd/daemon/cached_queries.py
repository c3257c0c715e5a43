"""The daemon's queries of its mirror: with a read connection, in a thread, and not too often."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from syncd.store import Queries

T = TypeVar("T")

# Counting a million variants takes a quarter of a second, and so does a day with many deliveries.
# Each of these queries may take this share of the time.
COUNT_SHARE = 0.05
QUICK_S = 0.05


class QueryRunner:
    """Runs queries on the mirror at `path`, one at a time, in a thread with its own connection.

    Each query may take `limit_s`. A caller that must not wait for others has its own runner.
    """

    def __init__(self, path: Path, *, limit_s: float | None = None) -> None:
        self._queries = Queries(path)
        self._limit_s = limit_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mirror-reader")

    async def run(self, query: Callable[[Queries], T]) -> T:
        """Return the answer; raises MirrorErrors, and Overloaded if it takes too long."""

        def work() -> T:
            with self._queries.limited(self._limit_s):
                return query(self._queries)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Close the connection; a query that runs is interrupted."""
        self._queries.interrupt()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._queries.close)
        self._thread.shutdown(wait=False)
        await closing


async def query_once(path: Path, query: Callable[[Queries], T]) -> T:
    """Return the answer of a rare query, in a thread with its own connection.

    Deliveries do not wait for it, as they would in the write thread. Raises MirrorErrors.
    """

    def run() -> T:
        with contextlib.closing(Queries(path)) as queries:
            return query(queries)

    return await asyncio.to_thread(run)


class CachedQuery(Generic[T]):
    """A query whose answer is reused for a while if the query takes long."""

    def __init__(self, query: Callable[..., T]) -> None:
        self._query = query
        self._answer: T | None = None
        self._next_query_s = 0.0

    def answer(self, queries: Queries, *arguments: Any) -> T:
        """Return the answer; after a slow query it may be an older answer."""
        began_s = time.monotonic()
        if self._answer is None or began_s >= self._next_query_s:
            self._answer = self._query(queries, *arguments)
            took_s = time.monotonic() - began_s
            self._next_query_s = began_s + (took_s / COUNT_SHARE if took_s > QUICK_S else 0)
        return self._answer
