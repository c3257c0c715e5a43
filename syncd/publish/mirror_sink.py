"""Writes into the mirror for a publisher, through the write thread of the mirror."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from syncd.config import Publish
from syncd.config.runtime import ActiveConfig
from syncd.core.publishing import PlainRow, Source, Table
from syncd.errors import MirrorUnavailable
from syncd.store import Database, take_over
from syncd.store.take_over import Origin

# A transaction takes far less. At the end of the daemon its loop runs no more.
WRITE_LIMIT_S = 30.0


class MirrorSink:
    """Implements RowSink for a daemon; created in its event loop."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        active: ActiveConfig,
        publish: Publish,
    ) -> None:
        self._database = database
        self._now = now
        self._active = active
        self._name = f"{publish.schema}.{publish.source}"
        self._loop = asyncio.get_running_loop()

    def has_held(self, db: sqlite3.Connection) -> bool:
        """Return whether this mirror has had the lease of the source."""
        return take_over.has_held(db, self._name)

    def note_held(self) -> None:
        """See RowSink."""
        self._write(partial(take_over.note_held, source=self._name))

    def put(self, table: Table, rows: Sequence[PlainRow], newest_event_at: datetime | None) -> None:
        """See RowSink."""
        origin = Origin(self._active.current.policy, self._now(), newest_event_at)
        for first in range(0, len(rows), take_over.SLICE):
            found = rows[first : first + take_over.SLICE]
            self._write(partial(take_over.put, table=table, found=found, origin=origin))

    def finish(self, held: Source) -> None:
        """See RowSink."""
        self._write(partial(take_over.finish, held=held, now=self._now()))

    def _write(self, function: Callable[[sqlite3.Connection], Any]) -> None:
        try:
            writing = asyncio.run_coroutine_threadsafe(self._database.write(function), self._loop)
            writing.result(WRITE_LIMIT_S)
        except (TimeoutError, RuntimeError, asyncio.CancelledError):
            raise MirrorUnavailable("the mirror was not written in time") from None
