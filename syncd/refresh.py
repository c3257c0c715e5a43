"""The one reader: whatever is worth asking Dreamship next is asked here, inside the budget.

Doubts first, then the pages and items nobody has read yet, then confirming reads, then the
stalest; every few calls another kind goes first, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from syncd import listing, observations
from syncd.budget import Budget
from syncd.errors import (
    MirrorUnavailable,
    SourceAnswerInvalid,
    SourceError,
    SourceGone,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
)
from syncd.listing import Position
from syncd.model import ItemRead, Page
from syncd.pace import backoff
from syncd.ports import Clock, Job, JobKind, ReadLedger, Source, SweepSummary
from syncd.source_clock import SourceClock
from syncd.state import Policy

log = structlog.get_logger(__name__)

ORDER: tuple[JobKind, ...] = ("doubt", "page", "unread", "settle", "stale")
# One call in this many goes to another kind first.
TURN = 4
MAX_IN_FLIGHT = 4
# A broken item is tried this often in one sweep before the sweep goes on without it.
TRIES_PER_SWEEP = 4
# So many failures in a row are no broken item but a source that is down.
DOWN_AFTER = 6
DOWN_CAP_S = 60.0
MIRROR_WAIT_S = 2.0
REFUSED_WAIT = timedelta(minutes=5)


class Reader:
    """Takes the next job, waits for its turn in the budget, asks, and writes what it learned."""

    def __init__(
        self,
        ledger: ReadLedger,
        source: Source,
        budget: Budget,
        *,
        clock: Clock,
        source_clock: SourceClock,
        policy: Policy,
        categories: tuple[int, ...] = (),
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self.categories = categories
        self.source = source
        self.refused: str | None = None
        self.unreachable: str | None = None
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._source_clock = source_clock
        self._chance = (rng or random.Random()).random  # noqa: S311 - jitter, no secret
        self._on_finished = on_finished
        self._busy: set[int] = set()
        self._listing = False
        self._flights: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._turn = 0
        self._failures = 0
        self._page_failures = 0
        self._paused_until: datetime | None = None

    def wake(self) -> None:
        """Say that there may be something new to ask."""
        self._wake.set()

    def resume(self) -> None:
        """Ask again at once what was refused or unreachable: the configuration has changed."""
        self._paused_until = None
        self._failures = 0
        self.refused = None
        self.wake()

    async def run(self) -> None:
        """Read until cancelled; what is in flight then is asked again after the next start."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._step()
                except MirrorUnavailable as fault:
                    log.error("the mirror cannot be used", fault=fault.message, hint=fault.hint)
                    await self._clock.sleep(MIRROR_WAIT_S)
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)

    async def _step(self) -> None:
        if len(self._flights) >= MAX_IN_FLIGHT:
            await self._wait(None)
            return
        now = self._clock.now()
        if self._paused_until is not None and self._paused_until > now:
            await self._wait((self._paused_until - now).total_seconds())
            return
        for summary in await self._ledger.finish_sweeps(now):
            await self._finished(summary)
        job = await self._next_job(now)
        if job is None:
            # What is due already but being read comes back when its flight lands.
            due_at = await self._ledger.next_due_at(now)
            await self._wait(None if due_at is None else (due_at - now).total_seconds())
            return
        wait_s = self._budget.wait_s(urgent=job.is_urgent)
        if wait_s > 0:
            # Something more urgent may come while we wait: it is picked then, not now.
            await self._wait(wait_s)
            return
        await self._budget.spend(for_sweep=job.is_for_sweep)
        self._turn += 1
        self._take_off(job)

    async def _next_job(self, now: datetime) -> Job | None:
        order = ORDER
        if self._turn % TURN == TURN - 1:
            first = (self._turn // TURN) % len(ORDER)
            order = ORDER[first:] + ORDER[:first]
        return await self._ledger.next_job(now, self._busy, order, listing=not self._listing)

    async def _wait(self, seconds: float | None) -> None:
        """Wait until woken, or for `seconds` if given."""
        if seconds is None:
            await self._wake.wait()
            return
        timer = asyncio.create_task(self._clock.sleep(seconds))
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({timer, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            woken.cancel()
            await asyncio.gather(timer, woken, return_exceptions=True)

    def _take_off(self, job: Job) -> None:
        if job.item_id is None:
            self._listing = True
        else:
            self._busy.add(job.item_id)
        flight = asyncio.create_task(self._fly(job), name=f"read {job.kind}")
        self._flights.add(flight)
        flight.add_done_callback(lambda done: self._land(done, job))

    def _land(self, flight: asyncio.Task[None], job: Job) -> None:
        self._flights.discard(flight)
        if job.item_id is None:
            self._listing = False
        else:
            self._busy.discard(job.item_id)
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            # The mirror could not be written: what was read is asked again after a pause.
            log.error("a read could not be kept", fault=str(fault))
            self._paused_until = self._clock.now() + timedelta(seconds=1)
        self.wake()

    async def _fly(self, job: Job) -> None:
        began_at = self._clock.now()
        try:
            if job.item_id is not None:
                await self._read(job.item_id)
            elif job.sweep_id is not None:
                await self._list(job.sweep_id, job.position)
        except SourceThrottled as fault:
            log.warning("throttled by Dreamship", wait_s=fault.wait_s)
            await self._budget.throttled(fault.wait_s, for_sweep=job.is_for_sweep)
        except SourceRefused as fault:
            await self._was_refused(fault)
        except (SourceUnreachable, SourceAnswerInvalid) as fault:
            await self._failed(job, fault)
        else:
            self._failures = 0
            self._page_failures = 0 if job.item_id is None else self._page_failures
            self.refused = self.unreachable = None
            self._budget.answered()
            log.debug(
                "read",
                kind=job.kind,
                item=job.item_id,
                seconds=(self._clock.now() - began_at).total_seconds(),
            )

    async def _read(self, item_id: int) -> None:
        began_at = self._clock.now()
        try:
            seen = await self.source.item(item_id)
        except SourceGone:
            seen = ItemRead(item_id, None, None, began_at, None)
        self._source_clock.observe(seen.source_at)
        await self._keep(seen)

    async def _keep(self, seen: ItemRead) -> None:
        now, policy = self._clock.now(), self.policy
        await self._ledger.read(
            seen,
            lambda known, before: observations.read(known, before, seen, policy, now=now),
        )

    async def _list(self, sweep_id: int, position: Position) -> None:
        try:
            page = await self.source.page(position.category, position.page)
        except SourceGone as fault:
            if position.page == 1:
                raise SourceAnswerInvalid(fault.message, hint=fault.hint) from fault
            after = listing.cut_short(position, self.categories)
            nothing = Page(
                items=(), count=None, has_next=False, began_at=self._clock.now(), source_at=None
            )
            await self._ledger.listed(sweep_id, nothing, after)
            return
        self._source_clock.observe(page.source_at)
        after = listing.following(
            position, count=page.count, has_next=page.has_next, categories=self.categories
        )
        await self._ledger.listed(sweep_id, page, after)
        for item in page.items:
            if item.variants is not None:
                await self._keep(
                    ItemRead(item.item_id, item.name, item.variants, page.began_at, page.source_at)
                )

    async def _was_refused(self, fault: SourceRefused) -> None:
        log.error("Dreamship refuses the api key", fault=fault.message, hint=fault.hint)
        self.refused = fault.message
        self._paused_until = self._clock.now() + REFUSED_WAIT
        await self._end_sweeps(f"refused: {fault.message}")

    async def _failed(self, job: Job, fault: SourceError) -> None:
        self._failures += 1
        self.unreachable = fault.message
        log.warning("a read failed", item=job.item_id, fault=fault.message, in_a_row=self._failures)
        pause_until = self._clock.now() + backoff(self._failures, self._chance(), cap_s=DOWN_CAP_S)
        if job.item_id is None:
            self._page_failures += 1
            self._paused_until = pause_until
        else:
            await self._ledger.read_failed(job.item_id, pause_until, give_up_after=TRIES_PER_SWEEP)
        if self._page_failures >= DOWN_AFTER:
            self._page_failures = 0
            await self._end_sweeps(f"unreachable: {fault.message}")
        elif self._failures >= DOWN_AFTER and job.item_id is not None and not self._listing:
            await self._probe(pause_until)

    async def _probe(self, pause_until: datetime) -> None:
        """Tell a source that is down from items that are broken: ask for the catalogue."""
        self._listing = True
        try:
            while (wait_s := self._budget.wait_s(urgent=True)) > 0:
                await self._clock.sleep(wait_s)
            await self._budget.spend(for_sweep=True)
            await self.source.page(None, 1)
        except SourceThrottled as fault:
            await self._budget.throttled(fault.wait_s, for_sweep=True)
        except SourceRefused as fault:
            await self._was_refused(fault)
        except SourceError as fault:
            self._paused_until = pause_until
            await self._end_sweeps(f"unreachable: {fault.message}")
        else:
            self._failures = 0
            self.unreachable = None
        finally:
            self._listing = False

    async def _end_sweeps(self, error: str) -> None:
        for summary in await self._ledger.fail_sweeps(self._clock.now(), error):
            self._on_finished(summary)

    async def _finished(self, summary: SweepSummary) -> None:
        if summary.is_catalogue and summary.result == "complete":
            now, policy = self._clock.now(), self.policy
            await self._ledger.close_unlocated(
                summary.began_at,
                lambda known: observations.not_found(known, summary.began_at, policy, now=now),
                now,
            )
        self._on_finished(summary)
