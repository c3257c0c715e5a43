"""The calls that nobody waits for: their rate, and how a lost delivery raises it."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

import structlog
from msgspec.structs import replace

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core import catch_up, rate_limit
from syncd.core.catch_up import CatchUp
from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepProgress
from syncd.core.timestamps import to_text
from syncd.errors import MirrorIncompatible
from syncd.store import Database
from syncd.store import catch_up as stored
from syncd.store.job_queue import Choice
from syncd.sync.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)


class BackgroundReading:
    """Says when a background call may leave."""

    def __init__(
        self, database: Database, rate_limiter: RateLimiter, active: ActiveConfig, clock: Clock
    ) -> None:
        self._database = database
        self._rate_limiter = rate_limiter
        self._active = active
        self._clock = clock
        self._last_at: datetime | None = None
        # The rate at which a sweep in the background ends within `reconcile.every`.
        self._needed = 0.0
        self.catch_up = CatchUp()
        # What a catch-up adds to the rate, without any 429.
        self._extra = 0.0
        # Whether the sweep that runs is to keep the full rate until its end: deliveries have
        # stopped, and the credit of a large catalogue is too small for a catch-up.
        self.wants_full_sweep = False

    @property
    def full_rate(self) -> int:
        """The configured rate; 0: there are no background calls."""
        return self._active.current.config.reconcile.background_calls_per_minute

    @property
    def rate(self) -> float:
        """How many background calls a minute may leave now."""
        if not self.full_rate:
            return 0.0
        background_rate = self._rate_limiter.background_rate
        rate = max(background_rate, self._needed) + self._extra * background_rate / self.full_rate
        return min(rate, self._rate_limiter.per_minute)

    @property
    def is_throttled(self) -> bool:
        """Whether a 429 has lowered the rate."""
        return self._rate_limiter.background_rate < self.full_rate

    def choice(self, now: datetime) -> Choice:
        """Return which items may be read although nobody waits for them.

        In a small catalogue, even the item that was not read for longest was read a moment ago.
        """
        policy = self._active.current.policy
        return Choice(now - policy.settle, policy.only_items)

    def due_at(self, now: datetime) -> datetime | None:
        """Return when a background call may leave; None without background calls."""
        if not self.full_rate:
            return None
        if self._last_at is None or self._last_at > now:
            return now
        return max(now, self._last_at + self._pause)

    def is_due(self, now: datetime) -> bool:
        """Return whether a background call may leave now."""
        due_at = self.due_at(now)
        return due_at is not None and due_at <= now

    def next_at(self, now: datetime) -> datetime | None:
        """Return when to look for a background call if there is none now; None without them."""
        due_at = self.due_at(now)
        if due_at is None or due_at > now:
            return due_at
        return now + self._pause

    def called(self) -> None:
        """Note that a background call leaves."""
        self._last_at = self._clock.now()

    def follow(self, jump: Jump) -> None:
        """Move the times in memory with this host's clock; those in the mirror move too."""
        if self._last_at is not None:
            self._last_at = jump.timer(self._last_at)
        if self.catch_up.evidence_at is not None:
            evidence_at = jump.event(self.catch_up.evidence_at)
            self.catch_up = replace(self.catch_up, evidence_at=evidence_at)

    @property
    def _pause(self) -> timedelta:
        return timedelta(minutes=1) / max(0.01, self.rate)

    async def look(
        self, progress: SweepProgress | None, *, is_quiet: bool = False, is_silent: bool = False
    ) -> bool:
        """Look for evidence of lost deliveries; return whether a catch-up begins.

        `progress`: of the sweep of the catalogue. `is_quiet`: no delivery has arrived for unusually
        long, which counts as evidence. `is_silent`: deliveries have stopped. Raises leaves of
        MirrorError.
        """
        current, now = self._active.current, self._clock.now()
        self._needed, self.wants_full_sweep = 0.0, False
        if not self.full_rate:
            self.catch_up, self._extra = CatchUp(), 0.0
            return False
        if progress is not None and progress.is_paced:
            left = progress.began_at + current.config.reconcile.every - now
            self._needed = rate_limit.rate_for(progress.remaining_calls, left)
            is_large = self._needed > self.full_rate
            self.wants_full_sweep = is_large and (is_quiet or is_silent)
        full = float(current.config.dreamship.calls_per_minute)
        policy, grace = current.policy, current.missed_grace
        every, configured = current.config.reconcile.every, float(self.full_rate)

        def decide(db: sqlite3.Connection) -> tuple[CatchUp, CatchUp, float]:
            before = stored.load(db)
            wait = catch_up.evidence_wait(stored.late_at(db), now, policy.settle, grace)
            found_at = stored.newest_missed(db, catch_up.evidence_since(before), now - wait)
            after = before
            for at in (found_at, now if is_quiet else None):
                after = after if at is None else catch_up.add_evidence(after, at, now, configured)
            outdated, rate = 0, configured
            if after.evidence_at is not None:
                outdated = stored.count_outdated(db, after.evidence_at, policy.only_items)
                # A large catalogue is read faster in any case, to end within `every`.
                items = stored.count_outdated(db, now, policy.only_items)
                rate = min(full, max(configured, rate_limit.rate_for(items, every)))
                if before.evidence_at is None:
                    after = catch_up.hurry(after, outdated, rate, full)
            after = catch_up.proceed(after, outdated, now, rate)
            missed_at = stored.newest_missed(db, before.evidence_at, now)
            after = catch_up.repeat(before, after, missed_at, stored.last_delivery_at(db))
            return before, after, catch_up.extra_rate(after, now, rate, full)

        def decide_and_save(db: sqlite3.Connection) -> tuple[CatchUp, CatchUp, float]:
            decided = decide(db)
            stored.save(db, decided[1])
            return decided

        try:
            before, after, extra = await self._database.read(decide)
            if after != before:
                before, after, extra = await self._database.write(decide_and_save)
        except MirrorIncompatible:
            # Damage: sweeps read what can be read.
            before, after, extra = CatchUp(), CatchUp(), 0.0
        self.catch_up, self._extra = after, extra
        self._report(before, after)
        return after.evidence_at is not None and before.evidence_at is None

    def _report(self, before: CatchUp, after: CatchUp) -> None:
        if before.evidence_at is not None and after.evidence_at != before.evidence_at:
            log.info("everything was read again after a lost delivery")
        elif after.evidence_at is not None and before.evidence_at is None:
            log.info(
                "a delivery was lost: everything that was read before is read again",
                found_at=to_text(after.evidence_at),
            )
