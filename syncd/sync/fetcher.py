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
from syncd.store import Database, probe, reads, sweep_pages, sweeps
from syncd.sync.cached_answers import CachedAnswers
from syncd.sync.catalogue_reader import CatalogueReader, rows_with_variants
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.read_failures import ATTEMPTS_PER_SWEEP, ReadFailures, named
from syncd.sync.unkept import Keep, Unkept, max_attempts

log = structlog.get_logger(__name__)


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
        self.unkept = Unkept(database, clock, self._postpone_unkept)
        self._database = database
        self._active = active
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._on_finished = on_finished
        self.cached = CachedAnswers(rate_limiter, lambda: self.failures.chance())  # noqa: PLW0108 - tests replace it

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock; after an absence deliveries arrive from now on."""
        self.failures.follow(jump)
        self.cached.follow(jump)
        self.unkept.follow(jump)
        if jump.is_absence:
            self.accepting_since = jump.after
        elif self.accepting_since is not None:
            self.accepting_since = jump.event(self.accepting_since)

    async def ask(self, job: Job) -> None:
        """Do one job whose call is paid; `unkept` holds an answer that cannot be written."""
        keep: Keep | None = None
        try:
            try:
                keep = await self._answer(job)
                await self._keep_first(job, keep)
            except SourceError as error:
                await self.failures.failed(job, error)
            except MirrorError:
                raise
            except Exception:
                # A bug that one item triggers must not stop the reads of the others.
                log.exception("a read failed for no known reason", **named(job))
                await self.failures.failed(
                    job, SourceAnswerInvalid("for no known reason; the log has more")
                )
        except MirrorError as error:
            await self.unkept.failed(job, error, keep)

    async def _answer(self, job: Job) -> Keep | None:
        """Make the call; return the function that writes its answer, if there is one to write."""
        began_at = self._clock.now()
        keep: Keep | None = None
        if job.item_id is not None:
            read = await self.reader.item(job.item_id)
            keep = partial(self._keep_item, job.item_id, read)
        elif job.sweep_id is not None:
            keep = await self._list(job.sweep_id, job.position)
        seconds = (self._clock.now() - began_at).total_seconds()
        log.debug("read", **named(job), seconds=seconds)
        return keep

    async def _keep_first(self, job: Job, keep: Keep | None) -> None:
        """Write an answer for the first time. Dreamship has answered, even if the write fails."""
        try:
            if keep is not None:
                await keep(rehearses=False)
                self.unkept.kept()
        except MirrorError:
            self._was_answered(job)
            raise
        self._was_answered(job)

    def _was_answered(self, job: Job) -> None:
        self.failures.answered(job)
        self._rate_limiter.answered()

    async def _postpone_unkept(
        self, job: Job, not_before: datetime, error: MirrorError, tries: int
    ) -> None:
        """Postpone a part whose answer cannot be written; sweeps give it up after some attempts."""
        reason = f"the mirror could not take it: {error.message}"
        if job.item_id is not None:
            await self.failures.postpone_failed(
                job.item_id, not_before, reason, max_attempts=max_attempts(tries)
            )
        elif job.sweep_id is not None and tries >= ATTEMPTS_PER_SWEEP:
            categories = self._active.current.categories
            await self.failures.continue_listing(
                job.sweep_id, pagination.skipped(job.position, categories, reason)
            )

    async def finish_sweeps(self) -> None:
        """End each sweep that has nothing left to read."""
        if not await self._database.read(sweeps.any_ready):
            return
        now, current = self._clock.now(), self._active.current
        ended = await self._database.write(
            lambda db: sweeps.finish(db, now, current.policy, current.categories)
        )
        for summary in ended:
            if summary.is_catalogue and summary.result == "complete":
                await self._close_unplaced(summary.began_at)
            self._on_finished(summary)

    async def _close_unplaced(self, began_at: datetime) -> None:
        now, policy = self._clock.now(), self._active.current.policy
        await self._database.write(lambda db: sweeps.close_unplaced(db, began_at, policy, now))

    async def _keep_item(self, item_id: int, read: ItemRead, *, rehearses: bool) -> None:
        await self._save_read(read, rehearses=rehearses)
        if rehearses:
            return
        if not read.age:
            self.cached.is_new(item_id)
            return
        # The requests that this copy leaves open wait; a sweep gives the item up after some copies.
        at = self.cached.repeat_at(item_id, read, self._clock.now())
        error = f"a cache answered, with a copy {read.age.total_seconds():.0f} s old"
        await self.failures.postpone_failed(item_id, at, error)

    async def _save_read(self, read: ItemRead, *, rehearses: bool = False) -> None:
        now, policy = self._clock.now(), self._active.current.policy
        accepting_since = self.accepting_since

        def apply(db: sqlite3.Connection) -> ChangeSet:
            return reads.apply(db, read, policy, now=now, accepting_since=accepting_since)

        await self._write(apply, now, rehearses=rehearses)

    async def _write(
        self, function: Callable[[sqlite3.Connection], object], now: datetime, *, rehearses: bool
    ) -> None:
        if rehearses:
            await self._database.write(lambda db: probe.rehearse(db, function, now))
        else:
            await self._database.write(function)

    async def _list(self, sweep_id: int, position: Position) -> Keep | None:
        try:
            page = await self.reader.page(position)
        except SourceGone as error:
            await self._page_is_gone(sweep_id, position, error)
            return None
        if page.age:
            self.cached.repeat_at(None, page, self._clock.now())
        else:
            self.cached.is_new(None)
        return partial(self._keep_page, sweep_id, position, page)

    async def _keep_page(
        self, sweep_id: int, position: Position, page: Page, *, rehearses: bool
    ) -> None:
        categories = self._active.current.categories

        def apply(db: sqlite3.Connection) -> None:
            sweep_pages.apply(db, sweep_id, page, position, categories)

        await self._write(apply, page.began_at, rehearses=rehearses)
        if not rehearses:
            await self._keep_rows(page)

    async def _keep_rows(self, page: Page) -> None:
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
