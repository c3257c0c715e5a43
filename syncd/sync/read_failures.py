"""What a failed call is about: one item, one page, one category, or the whole account.

A failure costs what it is about and nothing more. A part that fails is tried some times, named and
put last; everything else goes on. Only the list speaks for the account (see `account`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Literal

import structlog

from syncd.clock import Clock, Jump
from syncd.core import pagination
from syncd.core.backoff import backoff
from syncd.core.jobs import Job, SweepSummary
from syncd.core.model import Page
from syncd.core.pagination import PageStats, Position
from syncd.core.policy import Policy
from syncd.core.ports import ReadLedger
from syncd.core.rate_limit import MAX_WAIT_S
from syncd.core.timestamps import maybe_text
from syncd.dreamship.rate_limiter import RateLimiter
from syncd.dreamship.source import Source
from syncd.errors import SourceError, SourceRefused, SourceThrottled
from syncd.sync.account import Account, AccountCheck

log = structlog.get_logger(__name__)

# A broken item or page is tried this often in one sweep before the sweep goes on without it.
TRIES_PER_SWEEP = 4
# So many failures in a row may be a source that is down: the list is asked.
DOWN_AFTER = 6
# Fewer failures in a row are everyday.
TOLD_AFTER = 3
DOWN_CAP_S = 60.0
# A part that is throttled so often, while others are answered, is throttled by itself.
THROTTLED_ALONE = 2
REFUSED_WAIT = timedelta(minutes=5)


class ReadFailures:
    """Counts failures by what they are about, and says what may be asked meanwhile.

    `refused` and `unreachable` say why nothing is learned at the moment. Nothing shall be asked
    before `paused_until`, and no page before `list_paused_until`.
    """

    def __init__(
        self,
        ledger: ReadLedger,
        source: Callable[[], Source],
        rate_limiter: RateLimiter,
        clock: Clock,
        *,
        policy: Callable[[], Policy],
        categories: Callable[[], tuple[int, ...]],
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.refused: str | None = None
        self.unreachable: str | None = None
        self.paused_until: datetime | None = None
        self.list_paused_until: datetime | None = None
        self.account = Account(source, rate_limiter, clock)
        self.chance = (rng or random.Random()).random  # noqa: S311 - jitter, no secret
        self._ledger = ledger
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._policy = policy
        self._categories = categories
        self._on_finished = on_finished
        self._in_a_row = 0
        self._answered = 0
        self._tries: dict[Hashable, int] = {}
        # How often a part was throttled, and how many others had been answered before that.
        self._throttled: dict[Hashable, tuple[int, int]] = {}

    def resume(self) -> None:
        """Ask again at once what was refused or unreachable: the configuration has changed."""
        self.paused_until = self.list_paused_until = None
        self.refused = None
        self._in_a_row = 0
        self._tries.clear()
        self._throttled.clear()
        self.account.forget()

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock: each pause stays as long as it was."""
        if self.paused_until is not None:
            self.paused_until = jump.timer(self.paused_until)
        if self.list_paused_until is not None:
            self.list_paused_until = jump.timer(self.list_paused_until)
        self.account.forget()

    def answered(self, job: Job) -> None:
        """Note that a job was answered as it should be."""
        part = part_of(job)
        self._in_a_row = 0
        self._answered += 1
        self._tries.pop(part, None)
        self._throttled.pop(part, None)
        self.refused = self.unreachable = None

    async def failed(self, job: Job, fault: SourceError) -> None:
        """Note that a job failed, and put off what its failure is about."""
        if isinstance(fault, SourceThrottled):
            await self._was_throttled(job, fault)
        elif isinstance(fault, SourceRefused):
            await self._was_refused(job, fault)
        else:
            await self._failed(job, fault)

    async def list_on(
        self, sweep_id: int, position: Position, follow: Callable[[PageStats], Position]
    ) -> None:
        """Go on with a listing without the page at `position`."""
        nothing = Page(
            items=(), count=None, has_next=False, began_at=self._clock.now(), source_at=None
        )
        await self._ledger.listed(sweep_id, nothing, position, follow)

    async def _was_throttled(self, job: Job, fault: SourceThrottled) -> None:
        part = part_of(job)
        times, answered_before = self._throttled.get(part, (0, self._answered))
        self._throttled[part] = times + 1, answered_before
        # Others are answered in between: it is not the limit, it is this part.
        is_its_own = times >= THROTTLED_ALONE and self._answered > answered_before
        await self._rate_limiter.throttled(
            None if is_its_own else fault.wait_s, for_sweep=job.is_for_sweep, slows=not is_its_own
        )
        log.warning(
            "throttled by Dreamship",
            **named(job),
            asked_s=fault.wait_s,
            paused_until=maybe_text(self._rate_limiter.paused_until),
        )
        if is_its_own:
            await self._part_failed(job, fault)
        elif job.item_id is not None:
            # Another goes first after the pause: this one may be throttled by itself.
            paused_until = self._rate_limiter.paused_until or self._clock.now()
            await self._ledger.put_off(job.item_id, paused_until)

    async def _was_refused(self, job: Job, fault: SourceRefused) -> None:
        """Blame the key if the list is refused, too; else the part that was refused."""
        check = AccountCheck("refused", fault)
        if not _is_the_list(job):
            check = await self.account.check()
        if check.fault is None:
            await self._failed(job, fault)
        else:
            await self._check_failed(job, check, check.fault)

    async def _failed(self, job: Job, fault: SourceError) -> None:
        """Put off a part that failed; after some failures in a row, ask whether all is down."""
        self._in_a_row += 1
        if self._in_a_row >= TOLD_AFTER:
            self.unreachable = fault.message
        log.warning("a read failed", **named(job), fault=fault.message, in_a_row=self._in_a_row)
        if self._in_a_row < DOWN_AFTER:
            await self._part_failed(job, fault)
            return
        check = await self.account.check(is_new=True)
        if check.fault is None:
            self._in_a_row = 0
            self.unreachable = None
            await self._part_failed(job, fault)
        elif check.state == "unreachable":
            await self._account_failed(check.state, check.fault)
        else:
            await self._check_failed(job, check, check.fault)

    async def _check_failed(self, job: Job, check: AccountCheck, fault: SourceError) -> None:
        """Note what the list answered instead of items, while it was asked about a job."""
        if check.state == "refused":
            await self._account_failed(check.state, fault)
        else:
            await self.failed(job, fault)  # the list itself: unreachable this time, or throttled

    async def _part_failed(self, job: Job, fault: SourceError) -> None:
        """Put off one item or page, ever longer; a sweep goes on without it after some tries."""
        part = part_of(job)
        tries = self._tries[part] = self._tries.get(part, 0) + 1
        not_before = self._clock.now() + self._wait(fault, tries)
        if job.item_id is not None:
            await self._ledger.read_failed(
                job.item_id, not_before, fault.message, give_up_after=TRIES_PER_SWEEP
            )
            return
        self.list_paused_until = not_before
        # While the list is all there is to ask, only more failures tell that it is down.
        is_alone = _is_the_list(job) and self._in_a_row >= tries
        if job.sweep_id is not None and tries >= TRIES_PER_SWEEP and not is_alone:
            await self._skip_page(job.sweep_id, job, fault)

    async def _skip_page(self, sweep_id: int, job: Job, fault: SourceError) -> None:
        position = job.position
        if not _is_the_list(job):
            check = await self.account.check()
            if check.fault is not None:
                await self._check_failed(job, check, check.fault)
                return
        log.warning("a page cannot be read; the sweep goes on without it", **named(job))
        self.list_paused_until = None
        self._tries.pop(part_of(job), None)
        follow = pagination.abandoned if isinstance(fault, SourceRefused) else pagination.skipped
        await self.list_on(
            sweep_id, position, lambda _: follow(position, self._categories(), fault.message)
        )

    async def _account_failed(
        self, state: Literal["refused", "unreachable"], fault: SourceError
    ) -> None:
        """End every sweep: the list itself cannot be read."""
        now = self._clock.now()
        if state == "refused":
            log.error("Dreamship refuses the api key", fault=fault.message, hint=fault.hint)
            self.refused = fault.message
            self.paused_until = now + REFUSED_WAIT
        else:
            self.unreachable = fault.message
            self.paused_until = now + self._wait(fault, self._in_a_row, cap_s=DOWN_CAP_S)
        error = f"{state}: {fault.message}"
        for summary in await self._ledger.fail_sweeps(now, self._policy(), error):
            self._on_finished(summary)

    def _wait(self, fault: SourceError, tries: int, *, cap_s: float = 300.0) -> timedelta:
        """Return how long to wait after so many tries, and no less than the answer asks."""
        asked = timedelta(seconds=min(MAX_WAIT_S, fault.wait_s or 0.0))
        return max(asked, backoff(tries, self.chance(), cap_s=cap_s))


def named(job: Job) -> dict[str, object]:
    """Return what a line of the log says of a job."""
    return {"kind": job.kind, "item_id": job.item_id, "sweep_id": job.sweep_id}


def part_of(job: Job) -> Hashable:
    """Return what a job is about, so that its failures are counted together."""
    position = job.position
    return job.item_id or (job.sweep_id, position.run, position.category, position.page)


def _is_the_list(job: Job) -> bool:
    """Tell whether a job asks for what speaks for the account: the beginning of the list."""
    return job.item_id is None and job.position.category is None and job.position.page == 1
