"""Reads the mirror for one push, in its own thread and with its own connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from syncd.errors import MirrorError
from syncd.store import Queries

T = TypeVar("T")


class Reader:
    """Runs queries on the mirror at `path`, and connects again after an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queries: Queries | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="push-reader")

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of a query; raises MirrorErrors."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, query)

    def close(self) -> None:
        """Close the connection, once a query that runs has ended."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._queries is None:
            self._queries = Queries(self._path)
        try:
            return self._queries.run(query)
        except MirrorError:
            self._close()
            raise

    def _close(self) -> None:
        if self._queries is not None:
            self._queries.close()
            self._queries = None
