"""The one budget for everything this daemon asks Dreamship, kept across restarts."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from syncd.clock import Clock, Jump
from syncd.core import rate_limit
from syncd.core.ports import CallLog
from syncd.errors import MirrorError


class RateLimiter:
    """Says when a call may leave and remembers, durably and beforehand, that it did."""

    def __init__(self, clock: Clock, log: CallLog, state: rate_limit.RateState) -> None:
        self._clock = clock
        self._log = log
        self._pace = state

    def wait_s(self, *, urgent: bool) -> float:
        """Return the seconds until the next call may leave; 0 when it may leave now."""
        now = self._clock.now()
        return (rate_limit.next_call_at(self._pace, now, urgent=urgent) - now).total_seconds()

    async def spend(self, *, for_sweep: bool) -> None:
        """Take one call from the budget; on disk before the call leaves.

        Raises MirrorError leaves, and then nothing was taken: the call must not leave.
        """
        now = self._clock.now()
        self._pace = rate_limit.called(self._pace, now)
        try:
            await self._log.log_call(now, for_sweep=for_sweep)
        except MirrorError:
            self._pace = rate_limit.not_called(self._pace, now)
            raise

    async def turn(self) -> None:
        """Wait until a call that is not urgent may leave, and take it from the budget."""
        while (wait_s := self.wait_s(urgent=False)) > 0:
            await self._clock.sleep(wait_s)
        await self.spend(for_sweep=False)

    def answered(self) -> None:
        """Learn from a good answer."""
        self._pace = rate_limit.answered(self._pace)

    async def throttled(self, wait_s: float | None, *, for_sweep: bool, slows: bool = True) -> None:
        """Learn from a 429; one that is about a single item or page only counts (`slows` False)."""
        now = self._clock.now()
        if slows:
            self._pace = rate_limit.throttled(self._pace, now, wait_s)
        await self._log.log_throttled(now, self._pace.paused_until or now, for_sweep=for_sweep)

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock: a pause stays as long as it was, and calls as long ago."""
        paused_until = self._pace.paused_until
        self._pace = replace(
            self._pace,
            calls=tuple(jump.timer(call) for call in self._pace.calls),
            paused_until=None if paused_until is None else jump.timer(paused_until),
        )

    def limit(self, calls_per_minute: int) -> None:
        """Take a new limit from the configuration."""
        self._pace = rate_limit.start(
            calls_per_minute, self._pace.calls, paused_until=self._pace.paused_until
        )

    @property
    def per_minute(self) -> float:
        """The rate in force, lowered while recovering from a 429."""
        return self._pace.per_minute

    @property
    def used_last_minute(self) -> int:
        """Calls that left in the last 60 seconds."""
        return rate_limit.used_last_minute(self._pace, self._clock.now())

    @property
    def paused_until(self) -> datetime | None:
        """Until when a 429 asked to wait."""
        return self._pace.paused_until
