"""One call to Dreamship: make it, and keep what it teaches."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

import structlog

from syncd import listing, observations
from syncd.budget import Budget
from syncd.cached_answers import CachedAnswers
from syncd.clock import Jump
from syncd.errors import MirrorError, SourceAnswerInvalid, SourceError, SourceGone
from syncd.listing import Position
from syncd.model import ItemRead
from syncd.ports import Clock, Job, ReadLedger, Source, SweepSummary
from syncd.read_failures import TRIES_PER_SWEEP, ReadFailures, named
from syncd.source_clock import SourceClock
from syncd.state import Policy

log = structlog.get_logger(__name__)


class Asker:
    """Makes the call of one job at a time, of however many are in flight."""

    def __init__(
        self,
        ledger: ReadLedger,
        source: Source,
        budget: Budget,
        *,
        clock: Clock,
        source_clock: SourceClock,
        policy: Policy,
        heard_since: datetime | None = None,
        categories: tuple[int, ...] = (),
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self.categories = categories
        self.source = source
        self.is_listing = False
        self.heard_since = heard_since
        self.failures = ReadFailures(
            ledger,
            lambda: self.source,
            budget,
            clock,
            policy=lambda: self.policy,
            categories=lambda: self.categories,
            rng=rng,
            on_finished=on_finished,
        )
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._source_clock = source_clock
        self._on_finished = on_finished
        self.cached = CachedAnswers(budget, lambda: self.failures.chance())  # noqa: PLW0108 - tests replace it

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock; after an absence deliveries can be taken from now on."""
        self.failures.follow(jump)
        self.cached.follow(jump)
        if jump.is_absence:
            self.heard_since = jump.after
        elif self.heard_since is not None:
            self.heard_since = jump.noted(self.heard_since)

    async def ask(self, job: Job) -> None:
        """Do one job whose call is paid; raises MirrorError when what it taught cannot be kept."""
        began_at = self._clock.now()
        try:
            if job.item_id is not None:
                await self._read(job.item_id)
            elif job.sweep_id is not None:
                await self._list(job.sweep_id, job.position)
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
        else:
            self.failures.answered(job)
            self._budget.answered()
            log.debug(
                "read",
                **named(job),
                seconds=(self._clock.now() - began_at).total_seconds(),
            )

    async def finish_sweeps(self) -> None:
        """End every sweep that has nothing left to ask."""
        ended = await self._ledger.finish_sweeps(
            self._clock.now(),
            self.policy,
            lambda position: listing.again(position, self.categories),
        )
        for summary in ended:
            if summary.is_catalogue and summary.result == "complete":
                await self._close_unlocated(summary.began_at)
            self._on_finished(summary)

    async def _close_unlocated(self, began_at: datetime) -> None:
        now, policy = self._clock.now(), self.policy
        # A younger delivery may tell of what a copy some seconds old does not list yet.
        await self._ledger.close_unlocated(
            began_at - policy.settle,
            lambda known: observations.not_found(known, began_at, policy, now=now),
            now,
        )

    async def _read(self, item_id: int) -> None:
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
        seen = self._source_clock.placed(seen, item_id)
        await self._keep(seen)
        if not seen.age:
            self.cached.is_new(item_id)
            return
        # Whatever this copy has left open waits; a sweep goes on without the item after some tries.
        at = self.cached.ask_again_at(item_id, seen, self._clock.now())
        error = f"a cache answered, with a copy {seen.age.total_seconds():.0f} s old"
        await self._ledger.read_failed(item_id, at, error, give_up_after=TRIES_PER_SWEEP)

    async def _keep(self, seen: ItemRead) -> None:
        now, policy = self._clock.now(), self.policy
        await self._ledger.read(
            seen,
            lambda known: observations.read(
                known, seen, policy, now=now, heard_since=self.heard_since
            ),
            policy,
            now,
        )

    async def _list(self, sweep_id: int, position: Position) -> None:
        try:
            page = await self.source.page(position.category, position.page)
        except SourceGone as fault:
            await self._page_is_gone(sweep_id, position, fault)
            return
        page = self._source_clock.placed(page, (position.category, position.page))
        if page.age:
            self.cached.ask_again_at(None, page, self._clock.now())
        else:
            self.cached.is_new(None)
        if position.category is None and not page.age:
            self.failures.account.list_answered()
        await self._ledger.listed(
            sweep_id,
            page,
            position,
            lambda seen: listing.following(position, seen, self.categories),
        )
        longest = max((len(item.variants or ()) for item in page.items), default=0)
        for item in page.items:
            # An empty list of variants in a row says nothing of them: some lists always have one.
            if item.variants:
                await self._keep(
                    ItemRead(
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
                )

    async def _page_is_gone(self, sweep_id: int, position: Position, fault: SourceGone) -> None:
        """Go on after a page that does not exist: the list has ended, or the category is gone."""
        if position.page > 1:
            await self.failures.list_on(
                sweep_id,
                position,
                lambda seen: listing.cut_short(position, self.categories, listed=seen.listed),
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
            lambda _: listing.abandoned(position, self.categories, "Dreamship has none"),
        )
