"""One question to Dreamship: ask it, keep what it teaches, and know what its failure means."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from syncd import listing, observations
from syncd.budget import Budget
from syncd.errors import (
    MirrorError,
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
from syncd.ports import Clock, Job, ReadLedger, Source, SweepSummary
from syncd.source_clock import SourceClock
from syncd.state import Policy
from syncd.timestamps import maybe_text

log = structlog.get_logger(__name__)

# A broken item is tried this often in one sweep before the sweep goes on without it.
TRIES_PER_SWEEP = 4
# So many failures in a row are no broken item but a source that is down.
DOWN_AFTER = 6
# Fewer failures in a row are everyday.
TOLD_AFTER = 3
DOWN_CAP_S = 60.0
REFUSED_WAIT = timedelta(minutes=5)


class Asker:
    """Asks one job at a time of however many are in flight.

    `refused` and `unreachable` say why nothing is learned at the moment; nothing shall be asked
    before `paused_until`.
    """

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
        self.refused: str | None = None
        self.unreachable: str | None = None
        self.paused_until: datetime | None = None
        self.is_listing = False
        self.heard_since = heard_since
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._source_clock = source_clock
        self._chance = (rng or random.Random()).random  # noqa: S311 - jitter, no secret
        self._on_finished = on_finished
        self._failures = 0
        self._page_failures = 0

    def resume(self) -> None:
        """Ask again at once what was refused or unreachable: the configuration has changed."""
        self.paused_until = None
        self.refused = None
        self._failures = 0

    async def ask(self, job: Job) -> None:
        """Do one job whose call is paid; raises MirrorError when what it taught cannot be kept."""
        began_at = self._clock.now()
        try:
            if job.item_id is not None:
                await self._read(job.item_id)
            elif job.sweep_id is not None:
                await self._list(job.sweep_id, job.position)
        except SourceThrottled as fault:
            await self._budget.throttled(fault.wait_s, for_sweep=job.is_for_sweep)
            log.warning(
                "throttled by Dreamship",
                **_named(job),
                asked_s=fault.wait_s,
                paused_until=maybe_text(self._budget.paused_until),
            )
        except SourceRefused as fault:
            await self._was_refused(fault)
        except (SourceUnreachable, SourceAnswerInvalid) as fault:
            await self._failed(job, fault)
        except MirrorError:
            raise
        except Exception:
            # A fault of ours: one item must not stop the others, as a broken one does not.
            log.exception("a read failed for no known reason", **_named(job))
            await self._failed(job, SourceAnswerInvalid("for no known reason; the log has more"))
        else:
            self._failures = 0
            self._page_failures = 0 if job.item_id is None else self._page_failures
            self.refused = self.unreachable = None
            self._budget.answered()
            log.debug(
                "read",
                **_named(job),
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
        except SourceGone:
            seen = ItemRead(item_id, None, None, began_at, None)
        self._source_clock.observe(seen.source_at, seen.began_at)
        await self._keep(seen)

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
            if position.page == 1:
                raise SourceAnswerInvalid(fault.message, hint=fault.hint) from fault
            nothing = Page(
                items=(), count=None, has_next=False, began_at=self._clock.now(), source_at=None
            )
            await self._ledger.listed(
                sweep_id,
                nothing,
                position,
                lambda _: listing.cut_short(position, self.categories),
            )
            return
        self._source_clock.observe(page.source_at, page.began_at)
        await self._ledger.listed(
            sweep_id,
            page,
            position,
            lambda seen: listing.following(position, seen, self.categories),
        )
        for item in page.items:
            if item.variants is not None and item.is_whole:
                await self._keep(
                    ItemRead(item.item_id, item.name, item.variants, page.began_at, page.source_at)
                )

    async def _was_refused(self, fault: SourceRefused) -> None:
        log.error("Dreamship refuses the api key", fault=fault.message, hint=fault.hint)
        self.refused = fault.message
        self.paused_until = self._clock.now() + REFUSED_WAIT
        await self._end_sweeps(f"refused: {fault.message}")

    async def _failed(self, job: Job, fault: SourceError) -> None:
        self._failures += 1
        if self._failures >= TOLD_AFTER:
            self.unreachable = fault.message
        log.warning("a read failed", **_named(job), fault=fault.message, in_a_row=self._failures)
        pause_until = self._clock.now() + backoff(self._failures, self._chance(), cap_s=DOWN_CAP_S)
        if job.item_id is None:
            self._page_failures += 1
            self.paused_until = pause_until
        else:
            await self._ledger.read_failed(job.item_id, pause_until, give_up_after=TRIES_PER_SWEEP)
        if self._page_failures >= DOWN_AFTER:
            self._page_failures = 0
            await self._end_sweeps(f"unreachable: {fault.message}")
        elif self._failures >= DOWN_AFTER and job.item_id is not None and not self.is_listing:
            await self._probe(pause_until)

    async def _probe(self, pause_until: datetime) -> None:
        """Tell a source that is down from items that are broken: ask for the catalogue."""
        self.is_listing = True
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
            self.paused_until = pause_until
            await self._end_sweeps(f"unreachable: {fault.message}")
        else:
            self._failures = 0
            self.unreachable = None
        finally:
            self.is_listing = False

    async def _end_sweeps(self, error: str) -> None:
        for summary in await self._ledger.fail_sweeps(self._clock.now(), self.policy, error):
            self._on_finished(summary)


def _named(job: Job) -> dict[str, object]:
    return {"kind": job.kind, "item_id": job.item_id, "sweep_id": job.sweep_id}
