"""Reads the list every few minutes, because its rows may show which items have changed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import datetime

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core import list_hints, pagination
from syncd.core.clock_jump import Jump
from syncd.core.jobs import JobKind
from syncd.core.list_hints import HintCounts
from syncd.core.model import ItemRead, Page
from syncd.core.pagination import MAX_PAGES, Position
from syncd.core.read_age import COPY_AGE
from syncd.errors import MirrorError
from syncd.store import Database, list_rows
from syncd.sync.read_order import DELIVERIES


class ListWatch:
    """Says which page of the list is due for its rows.

    `counts`: how well rows have shown changes so far.
    """

    def __init__(self, database: Database, active: ActiveConfig, clock: Clock) -> None:
        self._database = database
        self._active = active
        self._clock = clock
        self.counts = HintCounts()
        self._position: Position | None = None
        self._pages = self._pages_before = 1
        self._next_at: datetime | None = None

    def due(self, now: datetime, background_per_minute: float) -> Position | None:
        """Return the page that is due; None: none is, or rows have shown nothing so far.

        Sweeps read the list in any case, so their pages show whether rows begin to be useful.
        """
        current = self._active.current
        if not current.lists_items or self.counts.is_useful is False or not background_per_minute:
            self._position = None
            return None
        if self._position is None:
            interval = list_hints.interval(self._pages_before, background_per_minute)
            if self._next_at is None or self._next_at > now + interval:
                self._next_at = now + interval
            if self._next_at > now:
                return None
            self._position, self._pages = pagination.first(current.categories), 0
            self._next_at = now + interval
        return self._position

    async def save_rows(self, page: Page, position: Position | None = None) -> None:
        """Store the rows of a page of Dreamship itself, if that is possible.

        `position`: of a page that `due` has named; the page after it is due next.
        """
        if page.age < COPY_AGE:
            await self._write(lambda db: list_rows.save(db, page.items, page.began_at))
        if position is not None and position == self._position:
            self._pages += 1
            self._go_on(position, has_next=page.has_next)

    async def item_was_read(self, read: ItemRead, kind: JobKind, *, has_missed: bool) -> None:
        """Compare the changes of an item with its row, if that is possible.

        `has_missed`: the read found a change that no delivery had reported. Changes of deliveries
        count until it is known whether rows are useful: a shop that loses none would never know.
        """
        is_unknown = self.counts.is_useful is None and self._active.current.lists_items
        if has_missed or kind == "hinted" or (is_unknown and kind in DELIVERIES):
            await self._write(lambda db: list_rows.item_was_read(db, read.item_id, read.began_at))

    def skip(self, position: Position) -> None:
        """Go to the next list, because a page cannot be read, or does not exist."""
        if position == self._position:
            self._go_on(position, has_next=False)

    def listed(self) -> None:
        """Note that a sweep reads the list now, so that it is not read twice."""
        self._position, self._next_at = None, None

    async def look(self) -> None:
        """Load how well rows have shown changes so far; raises leaves of MirrorError."""
        self.counts = await self._database.read(list_rows.counts)

    def follow(self, jump: Jump) -> None:
        """Move the next reading with this host's clock."""
        if self._next_at is not None:
            self._next_at = jump.timer(self._next_at)

    async def _write(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Write in a transaction of its own: a damaged page of hints prevents nothing else.

        All other writes find out about errors of the mirror.
        """
        with contextlib.suppress(MirrorError):
            await self._database.write(function)

    def _go_on(self, position: Position, *, has_next: bool) -> None:
        if has_next and position.page < MAX_PAGES:
            self._position = Position(position.category, position.page + 1)
            return
        category = pagination.next_category(position, self._active.current.categories)
        self._position = None if category is None else Position(category)
        if self._position is None:
            self._pages_before = max(1, self._pages)
