"""Reads that change nothing: they only confirm an item, and several of them share a commit.

A read waits in memory for the next transaction, which saves it before anything else. So the mirror
is always as right as if the read had been written at once. After a crash, the items of the last
seconds are read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from syncd.clock import Clock
from syncd.core.model import ItemRead
from syncd.store import Database

# The longest time that a read waits: half of that between two commits of the heartbeat, which write
# the reads that wait.
LONGEST_WAIT_S = 25.0
# So many reads are written at once. One transaction takes some milliseconds, so that deliveries do
# not wait for it.
MOST_WAITING = 32

Save = Callable[[sqlite3.Connection], object]


class Confirmations:
    """Defers the reads that change nothing, and says when to write them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting_since: datetime | None = None

    async def defer(
        self, read: ItemRead, decide: Callable[[sqlite3.Connection], Save | None]
    ) -> bool:
        """Defer a read if `decide` returns how to save it; False: the caller writes it at once.

        Raises leaves of MirrorError if the mirror cannot be read.
        """
        is_first = not self.items
        if not await self._database.defer_read(read.item_id, decide):
            return False
        if is_first:
            self._waiting_since = self._clock.now()
        if len(self.items) >= MOST_WAITING:
            await self.write()
        return True

    @property
    def items(self) -> set[int]:
        """The items whose reads wait to be written."""
        return self._database.deferred_items

    @property
    def due_in_s(self) -> float | None:
        """The seconds until the reads have to be written; None if no read waits."""
        if not self.items:
            return None
        if self._waiting_since is None:
            return 0.0
        waited_s = (self._clock.now() - self._waiting_since).total_seconds()
        # A clock that was set back must not delay the write.
        return max(0.0, LONGEST_WAIT_S - waited_s) if waited_s >= 0 else 0.0

    async def write_due(self) -> None:
        """Write the reads that wait, if it is time; raises leaves of MirrorError."""
        if self.due_in_s == 0:
            await self.write()

    async def write(self) -> None:
        """Write the reads that wait; raises leaves of MirrorError."""
        await self._database.write(lambda _: None)
