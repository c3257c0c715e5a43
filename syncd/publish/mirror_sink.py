"""Writes into the mirror for a publisher, through the write thread of the mirror."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

from syncd.config import Publish
from syncd.config.runtime import ActiveConfig
from syncd.core.publishing import Cursor, Slice, Source
from syncd.errors import MirrorUnavailable
from syncd.store import Database, take_over
from syncd.store.take_over import Origin, Stored

T = TypeVar("T")

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

    def probe(self) -> None:
        """See RowSink."""
        self._write(partial(take_over.probe, now=self._now()))

    def note_held(self) -> None:
        """See RowSink."""
        self._write(partial(take_over.note_held, source=self._name))

    def put(self, part: Slice, newest_event_at: datetime | None, before: Cursor | None) -> Stored:
        """See RowSink."""
        origin = Origin(self._active.current.policy, self._now(), newest_event_at)
        return self._write(partial(take_over.put, part=part, origin=origin, before=before))

    def finish(self, held: Source) -> None:
        """See RowSink."""
        self._write(partial(take_over.finish, held=held, now=self._now()))

    def _write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            writing = asyncio.run_coroutine_threadsafe(self._database.write(function), self._loop)
            return writing.result(WRITE_LIMIT_S)
        except (TimeoutError, RuntimeError, asyncio.CancelledError):
            raise MirrorUnavailable("the mirror was not written in time") from None
