"""One call to Dreamship: make it, and keep what it teaches."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog

from syncd.clock import Clock, Jump
from syncd.core import pagination
from syncd.core.apply_read import apply_read
from syncd.core.jobs import Job, SweepSummary
from syncd.core.model import ItemRead, Page
from syncd.core.pagination import Position
from syncd.core.policy import Policy
from syncd.core.ports import ReadLedger
from syncd.core.removals import remove_unplaced
from syncd.dreamship.rate_limiter import RateLimiter
from syncd.dreamship.remote_clock import RemoteClock
from syncd.dreamship.source import Source
from syncd.errors import MirrorError, SourceAnswerInvalid, SourceError, SourceGone
from syncd.sync.cached_answers import CachedAnswers
from syncd.sync.read_failures import TRIES_PER_SWEEP, ReadFailures, named
from syncd.sync.unkept import Keep, Unkept, give_up_after

log = structlog.get_logger(__name__)


class Fetcher:
    """Makes the call of one job at a time, of however many are in flight."""

    def __init__(
        self,
        ledger: ReadLedger,
        source: Source,
        rate_limiter: RateLimiter,
        *,
        clock: Clock,
        remote_clock: RemoteClock,
        policy: Policy,
        accepting_since: datetime | None = None,
        categories: tuple[int, ...] = (),
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self.categories = categories
        self.source = source
        self.is_listing = False
        self.accepting_since = accepting_since
        self.failures = ReadFailures(
            ledger,
            lambda: self.source,
            rate_limiter,
            clock,
            policy=lambda: self.policy,
            categories=lambda: self.categories,
            rng=rng,
            on_finished=on_finished,
        )
        self.unkept = Unkept(ledger, clock, self._put_off_unkept)
        self._ledger = ledger
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._remote_clock = remote_clock
        self._on_finished = on_finished
        self.cached = CachedAnswers(rate_limiter, lambda: self.failures.chance())  # noqa: PLW0108 - tests replace it

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock; after an absence deliveries can be taken from now on."""
        self.failures.follow(jump)
        self.cached.follow(jump)
        self.unkept.follow(jump)
        if jump.is_absence:
            self.accepting_since = jump.after
        elif self.accepting_since is not None:
            self.accepting_since = jump.noted(self.accepting_since)

    async def ask(self, job: Job) -> None:
        """Do one job whose call is paid; what the mirror cannot take is held in `unkept`."""
        keep: Keep | None = None
        try:
            try:
                keep = await self._answer(job)
                await self._keep_first(job, keep)
            except SourceError as fault:
                await self.failures.failed(job, fault)
            except MirrorError:
                raise
            except Exception:
                # A fault of ours: one item must not stop the others, as a broken one does not.
                log.exception("a read failed for no known reason", **named(job))
                await self.failures.failed(
                    job, SourceAnswerInvalid("for no known reason; the log has more")
                )
        except MirrorError as fault:
            await self.unkept.failed(job, fault, keep)

    async def _answer(self, job: Job) -> Keep | None:
        """Make the call; return what writes its answer, None when there is nothing to write."""
        began_at = self._clock.now()
        keep: Keep | None = None
        if job.item_id is not None:
            keep = await self._read(job.item_id)
        elif job.sweep_id is not None:
            keep = await self._list(job.sweep_id, job.position)
        seconds = (self._clock.now() - began_at).total_seconds()
        log.debug("read", **named(job), seconds=seconds)
        return keep

    async def _keep_first(self, job: Job, keep: Keep | None) -> None:
        """Write an answer for the first time; whether it can be written, Dreamship has answered."""
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

    async def _put_off_unkept(
        self, job: Job, not_before: datetime, fault: MirrorError, tries: int
    ) -> None:
        """Have sweeps go on without what the mirror cannot take, after some tries."""
        error = f"the mirror could not take it: {fault.message}"
        if job.item_id is not None:
            after = give_up_after(tries)
            await self._ledger.read_failed(job.item_id, not_before, error, give_up_after=after)
        elif job.sweep_id is not None and tries >= TRIES_PER_SWEEP:
            await self.failures.list_on(
                job.sweep_id,
                job.position,
                lambda _: pagination.skipped(job.position, self.categories, error),
            )

    async def finish_sweeps(self) -> None:
        """End every sweep that has nothing left to ask."""
        ended = await self._ledger.finish_sweeps(
            self._clock.now(),
            self.policy,
            lambda position: pagination.again(position, self.categories),
        )
        for summary in ended:
            if summary.is_catalogue and summary.result == "complete":
                await self._close_unplaced(summary.began_at)
            self._on_finished(summary)

    async def _close_unplaced(self, began_at: datetime) -> None:
        now, policy = self._clock.now(), self.policy
        # A younger delivery may tell of what a copy some seconds old does not list yet.
        await self._ledger.close_unplaced(
            began_at - policy.settle,
            lambda known: remove_unplaced(known, began_at, policy, now=now),
            now,
        )

    async def _read(self, item_id: int) -> Keep:
        began_at = self._clock.now()
        try:
            seen = await self.source.item(item_id)
        except SourceGone as gone:
            seen = ItemRead(
                item_id,
                None,
                None,
                began_at,
                gone.source_at,
                age=gone.age,
                fresh_for=gone.fresh_for,
            )
            if not gone.age:
                # A wrong address answers so for everything: absence counts while the list answers.
                check = await self.failures.account.check()
                if check.state != "answers":
                    raise check.fault or gone from gone
        return partial(self._keep_item, item_id, self._remote_clock.placed(seen, item_id))

    async def _keep_item(self, item_id: int, seen: ItemRead, *, rehearses: bool) -> None:
        await self._keep(seen, rehearses=rehearses)
        if rehearses:
            return
        if not seen.age:
            self.cached.is_new(item_id)
            return
        # Whatever this copy has left open waits; a sweep goes on without the item after some tries.
        at = self.cached.ask_again_at(item_id, seen, self._clock.now())
        error = f"a cache answered, with a copy {seen.age.total_seconds():.0f} s old"
        await self._ledger.read_failed(item_id, at, error, give_up_after=TRIES_PER_SWEEP)

    async def _keep(self, seen: ItemRead, *, rehearses: bool = False) -> None:
        now, policy = self._clock.now(), self.policy
        await self._ledger.read(
            seen,
            lambda known: apply_read(
                known, seen, policy, now=now, accepting_since=self.accepting_since
            ),
            policy,
            now,
            rehearses=rehearses,
        )

    async def _list(self, sweep_id: int, position: Position) -> Keep | None:
        try:
            page = await self.source.page(position.category, position.page)
        except SourceGone as fault:
            await self._page_is_gone(sweep_id, position, fault)
            return None
        page = self._remote_clock.placed(page, (position.category, position.page))
        if page.age:
            self.cached.ask_again_at(None, page, self._clock.now())
        else:
            self.cached.is_new(None)
        if position.category is None and not page.age:
            self.failures.account.list_answered()
        return partial(self._keep_page, sweep_id, position, page)

    async def _keep_page(
        self, sweep_id: int, position: Position, page: Page, *, rehearses: bool
    ) -> None:
        await self._ledger.listed(
            sweep_id,
            page,
            position,
            lambda seen: pagination.following(position, seen, self.categories),
            rehearses=rehearses,
        )
        if not rehearses:
            await self._keep_rows(page)

    async def _keep_rows(self, page: Page) -> None:
        longest = max((len(item.variants or ()) for item in page.items), default=0)
        failed_in_a_row = 0
        for item in page.items:
            # An empty list of variants in a row says nothing of them: some lists always have one.
            if not item.variants:
                continue
            row = ItemRead(
                item.item_id,
                item.name,
                item.variants,
                page.began_at,
                page.source_at,
                age=page.age,
                # One as long as the longest may be cut short: lists have limits.
                is_whole=item.is_whole and len(item.variants) < longest,
                is_row=True,
            )
            try:
                await self._keep(row)
            except MirrorError:
                # The page is noted: an item whose row was not written is asked for by itself.
                failed_in_a_row += 1
                if failed_in_a_row > 1:
                    return
            else:
                failed_in_a_row = 0

    async def _page_is_gone(self, sweep_id: int, position: Position, fault: SourceGone) -> None:
        """Go on after a page that does not exist: the list has ended, or the category is gone."""
        if position.page > 1:
            await self.failures.list_on(
                sweep_id,
                position,
                lambda seen: pagination.cut_short(position, self.categories, listed=seen.listed),
            )
            return
        if position.category is None:
            raise SourceAnswerInvalid(fault.message, hint=fault.hint) from fault
        check = await self.failures.account.check()
        if check.state != "answers":
            raise check.fault or fault
        log.warning("Dreamship has no such category", category_id=position.category)
        await self.failures.list_on(
            sweep_id,
            position,
            lambda _: pagination.abandoned(position, self.categories, "Dreamship has none"),
        )
