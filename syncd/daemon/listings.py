"""The listings of the shop: reads their file, and finds the items that they need."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from syncd import memory
from syncd.clock import Clock
from syncd.config import Config
from syncd.config.listings_file import read
from syncd.config.runtime import ListedItems
from syncd.core import listings as core
from syncd.core.snapshots import DeadListings, ListingsSnapshot
from syncd.daemon.cached_queries import query_once
from syncd.errors import ListingsInvalid
from syncd.store import Database
from syncd.store import listings as stored
from syncd.store.listings import SLICE

log = structlog.get_logger(__name__)

T = TypeVar("T")

# How long after a whole sweep that did not find a listed variant the catalogue is searched again.
SEARCH_AGAIN = timedelta(days=1)
# The dead SKUs that the status names.
MOST_NAMED = 5
# A file that has not changed for this time is complete.
REST_S = 5.0
_CHANGING = "it changed while it was read"
_CHANGING_HINT = "write a new file beside it, then rename that file over it"


class FileState(NamedTuple):
    """What distinguishes one version of a file from the next."""

    inode: int
    size: int
    written_ns: int
    changed_ns: int


class Listings:
    """Keeps the SKUs in the mirror equal to the file `catalog.listings`.

    `error`: why the file as it is now is not in force.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.error: ListingsInvalid | None = None
        self._dead = DeadListings()
        self._database = database
        self._clock = clock
        self._loaded: tuple[Path, FileState] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def load(self, path: Path | None, *, is_awaited: bool = True) -> bool:
        """Store the listings in a file; None: there are none. Return whether something changed.

        A file that has not changed is not read again. An invalid file is reported, and the stored
        listings stay in force. Unless somebody waits for it, a file that has changed within some
        seconds is left for the next time: a program may still write it. Raises leaves of
        MirrorError.
        """
        async with self._one_at_a_time:
            if path is None:
                self.error, self._loaded, self._dead = None, None, DeadListings()
                return await self._database.read(stored.has_any) and await self._store([])
            state = await asyncio.to_thread(_state_of, path)
            if state is not None and (
                self._loaded == (path, state) or not (is_awaited or _is_at_rest(state))
            ):
                return False
            try:
                listings = await asyncio.to_thread(read, path)
                if await asyncio.to_thread(_state_of, path) != state:
                    raise ListingsInvalid([_CHANGING], hint=_CHANGING_HINT)
            except ListingsInvalid as error:
                self._loaded = None if state is None else (path, state)
                self._report(path, error)
                return False
            changed, count = await self._store(listings), len(listings)
            # A hundred thousand listings take 80 MB, and the next load may be days away.
            del listings
            await asyncio.to_thread(memory.release)
            self.error, self._loaded = None, None if state is None else (path, state)
            if changed:
                log.info("listings loaded", file=str(path), skus=count)
            return changed

    async def items_for(self, config: Config) -> ListedItems | None:
        """Return the items of the listings, if a configuration mirrors only those.

        None also while no listings were ever loaded.
        """
        if not config.catalog.listed_only or not await self._database.read(stored.has_any):
            return None
        before = self._clock.now() - SEARCH_AGAIN
        return await self._query(
            lambda db: ListedItems(stored.items(db), stored.wanted(db, before) or None)
        )

    async def look_for_dead(self) -> None:
        """Find the SKUs that lead to no variant; raises leaves of MirrorError."""
        self._dead = await self._query(lambda db: stored.dead(db, MOST_NAMED))

    @property
    def snapshot(self) -> ListingsSnapshot:
        """The state of the listings for the health."""
        return ListingsSnapshot(None if self.error is None else self.error.message, self._dead)

    async def mark_not_found(self, began_at: datetime) -> None:
        """Note which SKUs a complete sweep, begun at a time, did not find; raises MirrorErrors."""
        skus = await self._query(lambda db: stored.without_item(db, began_at))
        await self._write_slices(partial(stored.mark_not_found, now=self._clock.now()), skus)

    def _report(self, path: Path, error: ListingsInvalid) -> None:
        if self.error is None or self.error.errors != error.errors:
            log.error(
                "the listings are invalid; the old ones stay in force",
                file=str(path),
                errors=error.errors,
                hint=error.hint,
            )
        self.error = error

    async def _store(self, listings: list[core.Listing]) -> bool:
        """Write the differences in slices, so that no delivery waits for all of them."""
        before = await self._query(stored.stored)
        changed, gone = await asyncio.to_thread(core.differences, before, listings)
        now = self._clock.now()
        await self._write_slices(partial(stored.save, now=now), changed)
        await self._write_slices(stored.delete, gone)
        return bool(changed or gone)

    async def _write_slices(
        self, write: Callable[[sqlite3.Connection, Sequence[T]], None], entries: Sequence[T]
    ) -> None:
        for start in range(0, len(entries), SLICE):
            part = entries[start : start + SLICE]
            await self._database.write(lambda db, part=part: write(db, part))  # type: ignore[misc]

    async def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await query_once(self._database.path, lambda queries: queries.run(query))


def _state_of(path: Path) -> FileState | None:
    """Return a value that changes with the file; None if the file cannot be examined."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return FileState(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_at_rest(state: FileState) -> bool:
    """Return whether a file has not changed for some time; a time in the future says nothing."""
    return not 0 <= time.time() - state.changed_ns / 1e9 < REST_S
