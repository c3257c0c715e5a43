"""Reads the mirror for the publisher, in its thread and with its own connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from syncd.errors import MirrorError
from syncd.store import Queries

T = TypeVar("T")


class MirrorReader:
    """Runs queries on the mirror at `path`; connects again after an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queries: Queries | None = None

    def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of a query in one read transaction; raises MirrorErrors."""
        if self._queries is None:
            self._queries = Queries(self._path)
        try:
            return self._queries.run(lambda db: _in_transaction(db, query))
        except MirrorError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        queries, self._queries = self._queries, None
        if queries is not None:
            queries.close()


def _in_transaction(db: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN")
    try:
        return query(db)
    finally:
        db.execute("COMMIT")
