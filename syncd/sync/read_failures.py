"""Handles failed calls: each concerns one item, one page, one category, or the whole account.

A failure stops only the part that it concerns. The part is tried a few times, reported, and read
after all others. Only the list of items shows the state of the account (see `account`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Literal

import structlog

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core import pagination
from syncd.core.backoff import backoff
from syncd.core.clock_jump import Jump
from syncd.core.jobs import Job, SweepSummary
from syncd.core.pagination import Position
from syncd.core.rate_limit import MAX_WAIT_S
from syncd.core.timestamps import maybe_text
from syncd.dreamship.source import Source
from syncd.errors import SourceError, SourceRefused, SourceThrottled
from syncd.store import Database, job_queue, sweep_pages, sweep_results, sweeps
from syncd.sync.account import Account, AccountCheck
from syncd.sync.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

# Attempts at a broken item or page in one sweep, before the sweep goes on without it.
ATTEMPTS_PER_SWEEP = 4
# After this many failures in a row Dreamship may be down, and the list is read to find out.
DOWN_AFTER = 6
# Fewer failures in a row are normal, and not reported.
REPORT_AFTER = 3
DOWN_CAP_S = 60.0
# If a part is throttled this often while other calls are answered, it has its own limit.
THROTTLED_ALONE = 2
REFUSED_WAIT = timedelta(minutes=5)


class ReadFailures:
    """Counts the failures of each part, and decides which calls may still be made.

    `refused` and `unreachable` are the reasons why no call succeeds at the moment. No call is made
    before `paused_until`, and no page is read before `list_paused_until`.
    """

    def __init__(
        self,
        database: Database,
        source: Source,
        rate_limiter: RateLimiter,
        clock: Clock,
        active: ActiveConfig,
        *,
        rng: random.Random | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.refused: str | None = None
        self.unreachable: str | None = None
        self.paused_until: datetime | None = None
        self.list_paused_until: datetime | None = None
        self.account = Account(source, rate_limiter, clock)
        self.chance = (rng or random.Random()).random  # noqa: S311 - jitter, no secret
        self._database = database
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._active = active
        self._on_finished = on_finished
        self._in_a_row = 0
        self._answered = 0
        self._attempts: dict[Hashable, int] = {}
        # How often a part was throttled, and how many other answers arrived before that.
        self._throttled: dict[Hashable, tuple[int, int]] = {}

    def resume(self) -> None:
        """Forget all failures, because the configuration has changed."""
        self.paused_until = self.list_paused_until = None
        self.refused = None
        self._in_a_row = 0
        self._attempts.clear()
        self._throttled.clear()
        self.account.forget()

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock, so that each pause keeps its length."""
        if self.paused_until is not None:
            self.paused_until = jump.timer(self.paused_until)
        if self.list_paused_until is not None:
            self.list_paused_until = jump.timer(self.list_paused_until)
        self.account.forget()

    def answered(self, job: Job) -> None:
        """Count the success of a job."""
        part = part_of(job)
        self._in_a_row = 0
        self._answered += 1
        self._attempts.pop(part, None)
        self._throttled.pop(part, None)
        self.refused = self.unreachable = None

    async def failed(self, job: Job, error: SourceError) -> None:
        """Count the failure of a job, and postpone the part that the failure concerns."""
        if isinstance(error, SourceThrottled):
            await self._was_throttled(job, error)
        elif isinstance(error, SourceRefused):
            await self._was_refused(job, error)
        else:
            await self._failed(job, error)

    async def continue_listing(self, sweep_id: int, position: Position) -> None:
        """Continue the listing of a sweep at `position`, without the pages before it."""
        await self._database.write(lambda db: sweep_pages.go_to(db, sweep_id, position))

    async def _was_throttled(self, job: Job, error: SourceThrottled) -> None:
        part = part_of(job)
        times, answered_before = self._throttled.get(part, (0, self._answered))
        self._throttled[part] = times + 1, answered_before
        # Other calls are answered, so only this part is throttled.
        is_its_own = times >= THROTTLED_ALONE and self._answered > answered_before
        await self._rate_limiter.throttled(
            None if is_its_own else error.wait_s, for_sweep=job.is_for_sweep, slows=not is_its_own
        )
        log.warning(
            "throttled by Dreamship",
            **named(job),
            asked_s=error.wait_s,
            paused_until=maybe_text(self._rate_limiter.paused_until),
        )
        if is_its_own:
            await self._part_failed(job, error)
        elif job.item_id is not None:
            # After the pause another item goes first, because only this one may be throttled.
            await self._postpone(job.item_id, self._rate_limiter.paused_until or self._clock.now())

    async def _was_refused(self, job: Job, error: SourceRefused) -> None:
        """If the list is refused too, the key is refused; otherwise only this part."""
        check = AccountCheck("refused", error)
        if not _is_start_of_list(job):
            check = await self.account.check()
        if check.error is None:
            await self._failed(job, error)
        else:
            await self._check_failed(job, check, check.error)

    async def _failed(self, job: Job, error: SourceError) -> None:
        """Postpone a part that failed; after some failures in a row, check the account."""
        self._in_a_row += 1
        if self._in_a_row >= REPORT_AFTER:
            self.unreachable = error.message
        log.warning("a read failed", **named(job), error=error.message, in_a_row=self._in_a_row)
        if self._in_a_row < DOWN_AFTER:
            await self._part_failed(job, error)
            return
        check = await self.account.check(is_new=True)
        if check.error is None:
            self._in_a_row = 0
            self.unreachable = None
            await self._part_failed(job, error)
        elif check.state == "unreachable":
            await self._account_failed(check.state, check.error)
        else:
            await self._check_failed(job, check, check.error)

    async def _check_failed(self, job: Job, check: AccountCheck, error: SourceError) -> None:
        """Handle the failure of the list, which was read to check the account."""
        if check.state == "refused":
            await self._account_failed(check.state, error)
        else:
            await self.failed(job, error)  # the list was unreachable this time, or throttled

    async def _part_failed(self, job: Job, error: SourceError) -> None:
        """Postpone one item or page, longer each time; a sweep skips it after some attempts."""
        part = part_of(job)
        attempts = self._attempts[part] = self._attempts.get(part, 0) + 1
        not_before = self._clock.now() + wait_after(error, attempts, self.chance())
        if job.item_id is not None:
            await self.postpone_failed(job.item_id, not_before, error.message)
            return
        self.list_paused_until = not_before
        # While there is only the list to read, only more failures show that Dreamship is down.
        is_alone = _is_start_of_list(job) and self._in_a_row >= attempts
        if job.sweep_id is not None and attempts >= ATTEMPTS_PER_SWEEP and not is_alone:
            await self._skip_page(job.sweep_id, job, error)

    async def _skip_page(self, sweep_id: int, job: Job, error: SourceError) -> None:
        if not _is_start_of_list(job):
            check = await self.account.check()
            if check.error is not None:
                await self._check_failed(job, check, check.error)
                return
        log.warning("a page cannot be read; the sweep goes on without it", **named(job))
        self.list_paused_until = None
        self._attempts.pop(part_of(job), None)
        categories = self._active.current.categories
        await self.continue_listing(
            sweep_id, pagination.after_unreadable(job.position, categories, error)
        )

    async def postpone_failed(
        self,
        item_id: int,
        not_before: datetime,
        error: str,
        *,
        max_attempts: int = ATTEMPTS_PER_SWEEP,
    ) -> None:
        """Postpone an item whose read failed. A sweep skips it after `max_attempts`."""
        await self._database.write(
            lambda db: job_queue.postpone_failed(
                db, item_id, not_before, error, max_attempts=max_attempts
            )
        )

    async def _postpone(self, item_id: int, not_before: datetime) -> None:
        await self._database.write(lambda db: job_queue.postpone(db, item_id, not_before))

    async def _account_failed(
        self, state: Literal["refused", "unreachable"], error: SourceError
    ) -> None:
        """End every sweep, because the list itself cannot be read."""
        now, policy = self._clock.now(), self._active.current.policy
        if state == "refused":
            log.error("Dreamship refuses the api key", error=error.message, hint=error.hint)
            self.refused = error.message
            self.paused_until = now + REFUSED_WAIT
        else:
            self.unreachable = error.message
            self.paused_until = now + wait_after(
                error, self._in_a_row, self.chance(), cap_s=DOWN_CAP_S
            )
        # An outage of hours must not cost a commit for each attempt.
        if not await self._database.read(sweeps.has_open):
            return
        reason = f"{state}: {error.message}"
        for summary in await self._database.write(
            lambda db: sweep_results.fail(db, now, policy, reason)
        ):
            self._on_finished(summary)


def wait_after(
    error: SourceError, attempts: int, chance: float, *, cap_s: float = 300.0
) -> timedelta:
    """Return the wait after this many failed attempts; the last answer may name a longer one."""
    requested = timedelta(seconds=min(MAX_WAIT_S, error.wait_s or 0.0))
    return max(requested, backoff(attempts, chance, cap_s=cap_s))


def named(job: Job) -> dict[str, object]:
    """Return the fields of a log event about a job."""
    return {"kind": job.kind, "item_id": job.item_id, "sweep_id": job.sweep_id}


def part_of(job: Job) -> Hashable:
    """Return the part that a job reads, so that its failures are counted together."""
    position = job.position
    return job.item_id or (job.sweep_id, position.run, position.category, position.page)


def _is_start_of_list(job: Job) -> bool:
    return job.item_id is None and pagination.is_start_of_list(job.position)
