"""The one call budget for all calls to Dreamship. It survives restarts.

The next commit of anything stores a call, so a call needs no commit of its own. Only a reserved
number of calls may leave before they are stored. After a crash, so many calls count as just made.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from msgspec.structs import replace

from syncd.clock import Clock
from syncd.core import rate_limit
from syncd.core.clock_jump import Jump
from syncd.errors import MirrorError
from syncd.store import Database, process_state


class RateLimiter:
    """Says when a call may leave, and counts the calls."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        state: rate_limit.RateState,
        *,
        background: int = 0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._pace = state
        self._background = float(background)
        self.calls = 0  # since the start
        self._reserved = 0
        # The calls that the mirror may not have, by their number.
        self._unstored: dict[int, datetime] = {}

    def wait_s(self, *, urgent: bool) -> float:
        """Return the seconds until the next call may leave; 0 if it may leave now."""
        now = self._clock.now()
        return (rate_limit.next_call_at(self._pace, now, urgent=urgent) - now).total_seconds()

    async def spend(self, *, for_sweep: bool) -> None:
        """Take one call from the budget; the call may leave when this returns.

        Raises leaves of MirrorError; then nothing is taken, and the call must not leave.
        """
        now = self._clock.now()
        self._pace = rate_limit.called(self._pace, now)
        try:
            await self._reserve_one(now)
        except MirrorError:
            self._pace = rate_limit.not_called(self._pace, now)
            raise
        self.calls += 1
        number = self.calls
        self._unstored[number] = now
        self._database.write_later(
            partial(process_state.log_call, at=now, for_sweep=for_sweep),
            lambda: self._unstored.pop(number, None),
        )

    async def store(self) -> None:
        """Store all calls, because no other will leave; raises leaves of MirrorError."""
        if self._reserved:
            calls = self._pace.calls
            await self._database.write(lambda db: process_state.store_calls(db, calls))
            self._reserved = 0

    async def _reserve_one(self, now: datetime) -> None:
        """Store the calls in a commit of its own if more are not stored than are reserved."""
        reserved = rate_limit.reserve(self._pace.calls_per_minute)
        for number, at in list(self._unstored.items()):
            if at <= now - rate_limit.WINDOW:
                self._unstored.pop(number, None)
        if reserved == self._reserved and len(self._unstored) < reserved:
            return
        before = [call for call in self._pace.calls if call != now]
        await self._database.write(lambda db: process_state.reserve_calls(db, before, reserved))
        self._unstored.clear()
        self._reserved = reserved

    async def turn(self) -> None:
        """Wait until a call that is not urgent may leave, and take it from the budget."""
        while (wait_s := self.wait_s(urgent=False)) > 0:
            await self._clock.sleep(wait_s)
        await self.spend(for_sweep=False)

    def answered(self) -> None:
        """Adjust the rate after a good answer."""
        self._pace = rate_limit.answered(self._pace)

    async def throttled(self, wait_s: float | None, *, for_sweep: bool, slows: bool = True) -> None:
        """Adjust the rate after a 429; `slows` False: one item or page alone is throttled."""
        now = self._clock.now()
        if slows:
            self._pace = rate_limit.throttled(self._pace, now, wait_s, background=self._background)
        paused_until, slowdown = self._pace.paused_until or now, self._pace.slowdown
        await self._database.write(
            lambda db: process_state.log_throttled(
                db, now, paused_until, slowdown, for_sweep=for_sweep
            )
        )

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock, so that each pause keeps its length."""
        paused_until = self._pace.paused_until
        slowdown = self._pace.slowdown
        self._pace = replace(
            self._pace,
            calls=tuple(jump.timer(call) for call in self._pace.calls),
            paused_until=None if paused_until is None else jump.timer(paused_until),
            slowdown=None if slowdown is None else replace(slowdown, at=jump.timer(slowdown.at)),
        )
        for number, at in list(self._unstored.items()):
            self._unstored[number] = jump.timer(at)

    def limit(self, calls_per_minute: int, background: int) -> None:
        """Use a new limit and a new rate of background calls."""
        self._pace = rate_limit.limited(self._pace, calls_per_minute)
        self._background = float(background)

    @property
    def per_minute(self) -> float:
        """The current rate; it is lower for a while after a 429."""
        return self._pace.per_minute

    @property
    def background_rate(self) -> float:
        """The current rate of background calls; a 429 lowers it more, and for longer."""
        return rate_limit.background_rate(self._pace, self._clock.now(), self._background)

    @property
    def used_last_minute(self) -> int:
        """Calls that left in the last 60 seconds."""
        return rate_limit.used_last_minute(self._pace, self._clock.now())

    @property
    def paused_until(self) -> datetime | None:
        """The end of the pause that a 429 asked for."""
        return self._pace.paused_until
