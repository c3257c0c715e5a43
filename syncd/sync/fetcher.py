"""One call to Dreamship: make it, and apply its answer to the mirror."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core import pagination
from syncd.core.clock_jump import Jump
from syncd.core.jobs import Job, SweepSummary
from syncd.core.model import ItemRead, Page
from syncd.core.pagination import Position
from syncd.core.records import ChangeSet
from syncd.dreamship.remote_clock import RemoteClock
from syncd.dreamship.source import Source
from syncd.errors import MirrorError, SourceAnswerInvalid, SourceError, SourceGone
from syncd.store import Database, probe, reads, sweep_pages
from syncd.sync.cached_answers import CachedAnswers
from syncd.sync.catalogue_reader import CatalogueReader, rows_with_variants
from syncd.sync.confirmations import Confirmations, Save
from syncd.sync.list_watch import ListWatch
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.read_failures import ATTEMPTS_PER_SWEEP, ReadFailures, named
from syncd.sync.sweep_ends import SweepEnds
from syncd.sync.unwritten_answers import UnwrittenAnswers, WriteAnswer, max_attempts

log = structlog.get_logger(__name__)

# Copies of one item in one sweep, before the sweep goes on without it. The waits between so many
# are half an hour together, and few caches keep an answer that long.
COPIES_PER_SWEEP = 7


class Fetcher:
    """Makes the call of a job. Several calls may be in flight at once."""

    def __init__(
        self,
        database: Database,
        source: Source,
        rate_limiter: RateLimiter,
        active: ActiveConfig,
        *,
        clock: Clock,
        remote_clock: RemoteClock,
        accepting_since: datetime | None = None,
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.is_listing = False
        self.list_watch = ListWatch(database, active, clock)
        self.accepting_since = accepting_since
        self.failures = ReadFailures(
            database,
            source,
            rate_limiter,
            clock,
            active,
            rng=rng,
            on_finished=on_finished,
        )
        self.reader = CatalogueReader(source, self.failures.account, clock, remote_clock)
        self.confirmations = Confirmations(database, clock)
        self.sweep_ends = SweepEnds(database, active, clock, on_finished)
        self.unwritten = UnwrittenAnswers(database, clock, self._postpone_unwritten)
        self._database = database
        self._active = active
        self._rate_limiter = rate_limiter
        self._clock = clock
        self.cached = CachedAnswers(rate_limiter, lambda: self.failures.chance())  # noqa: PLW0108 - tests replace it

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock; after an absence deliveries arrive from now on."""
        self.failures.follow(jump)
        self.cached.follow(jump)
        self.unwritten.follow(jump)
        self.list_watch.follow(jump)
        if jump.is_absence:
            self.accepting_since = jump.after
        elif self.accepting_since is not None:
            self.accepting_since = jump.event(self.accepting_since)

    async def ask(self, job: Job) -> None:
        """Do one job whose call is paid; `unwritten` holds an answer that cannot be written."""
        write: WriteAnswer | None = None
        try:
            try:
                write = await self._answer(job)
                await self._write_first(job, write)
            except SourceError as error:
                await self._failed(job, error)
            except MirrorError:
                raise
            except Exception:
                # A bug that one item triggers must not stop the reads of the others.
                log.exception("a read failed for no known reason", **named(job))
                await self._failed(
                    job, SourceAnswerInvalid("for no known reason; the log has more")
                )
        except MirrorError as error:
            await self.unwritten.failed(job, error, write)

    async def _failed(self, job: Job, error: SourceError) -> None:
        if job.kind == "list":
            self.list_watch.skip(job.position)  # sweeps read the list again
        await self.failures.failed(job, error)

    async def _answer(self, job: Job) -> WriteAnswer | None:
        """Make the call; return the function that writes its answer, if there is one to write."""
        began_at = self._clock.now()
        write: WriteAnswer | None = None
        if job.item_id is not None:
            read = await self.reader.item(job.item_id)
            write = partial(self._write_item, job, read)
        elif job.sweep_id is not None:
            write = await self._list(job.sweep_id, job.position)
        elif job.kind == "list":
            await self._read_rows(job.position)
        seconds = (self._clock.now() - began_at).total_seconds()
        log.debug("read", **named(job), seconds=seconds)
        return write

    async def _write_first(self, job: Job, write: WriteAnswer | None) -> None:
        """Write an answer for the first time. Dreamship has answered, even if the write fails."""
        try:
            if write is not None:
                await write(rehearses=False)
                self.unwritten.written()
        except MirrorError:
            self._was_answered(job)
            raise
        self._was_answered(job)

    def _was_answered(self, job: Job) -> None:
        self.failures.answered(job)
        self._rate_limiter.answered()

    async def _postpone_unwritten(
        self, job: Job, not_before: datetime, error: MirrorError, attempts: int
    ) -> None:
        """Postpone a part whose answer cannot be written; sweeps give it up after some attempts."""
        reason = f"the mirror could not store it: {error.message}"
        if job.item_id is not None:
            await self.failures.postpone_failed(
                job.item_id, not_before, reason, max_attempts=max_attempts(attempts)
            )
        elif job.sweep_id is not None and attempts >= ATTEMPTS_PER_SWEEP:
            categories = self._active.current.categories
            await self.failures.continue_listing(
                job.sweep_id, pagination.skipped(job.position, categories, reason)
            )

    async def _write_item(self, job: Job, read: ItemRead, *, rehearses: bool) -> None:
        item_id = read.item_id
        change_set = await self._save_read(read, rehearses=rehearses)
        if rehearses:
            return
        has_missed = any(change.missed for change in change_set.changes)
        await self.list_watch.item_was_read(read, job.kind, has_missed=has_missed)
        if not read.age:
            self.cached.is_new(item_id)
            return
        # The requests that this copy leaves open wait; a sweep gives the item up after some copies.
        at = self.cached.repeat_at(item_id, read, self._clock.now())
        error = f"a cache answered, with a copy {read.age.total_seconds():.0f} s old"
        await self.failures.postpone_failed(item_id, at, error, max_attempts=COPIES_PER_SWEEP)

    async def _save_read(self, read: ItemRead, *, rehearses: bool = False) -> ChangeSet:
        now, policy = self._clock.now(), self._active.current.policy
        accepting_since = self.accepting_since

        def save_of_unchanged(db: sqlite3.Connection) -> Save | None:
            return reads.save_of_unchanged(
                db, read, policy, now=now, accepting_since=accepting_since
            )

        def apply(db: sqlite3.Connection) -> ChangeSet:
            return reads.apply(db, read, policy, now=now, accepting_since=accepting_since)

        # While an answer cannot be written, each other one shows whether the mirror works again.
        is_deferred = not self.unwritten.has_any and await self.confirmations.defer(
            read, save_of_unchanged
        )
        if is_deferred:
            return ChangeSet()
        if rehearses:
            await self._rehearse(apply, now)
            return ChangeSet()
        return await self._database.write(apply)

    async def _write(
        self, function: Callable[[sqlite3.Connection], object], now: datetime, *, rehearses: bool
    ) -> None:
        if rehearses:
            await self._rehearse(function, now)
        else:
            await self._database.write(function)

    async def _rehearse(
        self, function: Callable[[sqlite3.Connection], object], now: datetime
    ) -> None:
        await self._database.write(lambda db: probe.rehearse(db, function, now))

    async def _list(self, sweep_id: int, position: Position) -> WriteAnswer | None:
        try:
            page = await self.reader.page(position)
        except SourceGone as error:
            await self._page_is_gone(sweep_id, position, error)
            return None
        if page.age:
            self.cached.repeat_at(None, page, self._clock.now())
        else:
            self.cached.is_new(None)
        return partial(self._write_page, sweep_id, position, page)

    async def _write_page(
        self, sweep_id: int, position: Position, page: Page, *, rehearses: bool
    ) -> None:
        categories = self._active.current.categories
        self.list_watch.listed()

        def apply(db: sqlite3.Connection) -> None:
            sweep_pages.apply(db, sweep_id, page, position, categories)

        await self._write(apply, page.began_at, rehearses=rehearses)
        if rehearses:
            return
        await self.list_watch.save_rows(page)
        await self._write_rows(page)

    async def _read_rows(self, position: Position) -> None:
        """Read a page of the list only for its rows."""
        try:
            page = await self.reader.page(position)
        except SourceGone as error:
            if pagination.is_start_of_list(position):
                raise SourceAnswerInvalid(error.message, hint=error.hint) from error
            self.list_watch.skip(position)  # the list has become shorter
            return
        await self.list_watch.save_rows(page, position)
        await self._write_rows(page)

    async def _write_rows(self, page: Page) -> None:
        failed_in_a_row = 0
        for row in rows_with_variants(page):
            try:
                await self._save_read(row)
            except MirrorError:
                # The page is stored, so an item whose row could not be written is read by itself.
                failed_in_a_row += 1
                if failed_in_a_row > 1:
                    return
            else:
                failed_in_a_row = 0

    async def _page_is_gone(self, sweep_id: int, position: Position, error: SourceGone) -> None:
        """Continue after a page that does not exist: the list ended, or the category is gone."""
        categories = self._active.current.categories
        if pagination.is_start_of_list(position):
            raise SourceAnswerInvalid(error.message, hint=error.hint) from error
        if position.page == 1:
            check = await self.failures.account.check()
            if check.state != "answers":
                raise check.error or error
            log.warning("Dreamship has no such category", category_id=position.category)
        await self.failures.continue_listing(
            sweep_id, pagination.after_missing(position, categories)
        )
