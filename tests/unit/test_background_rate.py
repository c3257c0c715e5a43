"""Background calls beside the shop's orders, which use the same limit of Dreamship."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from simulation.days import Day, lived

from syncd.core import rate_limit
from syncd.core.catch_up import CatchUp
from syncd.core.jobs import SweepProgress
from syncd.demo.fake_dreamship import Throttle
from syncd.store import catch_up

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BACKGROUND = 15.0


class Account:
    """Dreamship's limit for one key, and others who call at random times."""

    def __init__(self, others_per_minute: float, seed: int = 1) -> None:
        self.now = BEGIN
        self.throttled: list[datetime] = []
        self.calls = 0
        self._chance = random.Random(seed)
        self._others_per_minute = others_per_minute
        self._next_other = self._after(BEGIN)
        self._limit = Throttle(calls=60, window_s=60)
        self._state = rate_limit.start(45)

    def run(self, hours: float, others_per_minute: float | None = None) -> float:
        """Make background calls for some hours; return how many a minute were answered."""
        if others_per_minute is not None:
            self._others_per_minute = others_per_minute
            self._next_other = self._after(self.now)
        end, calls_before = self.now + timedelta(hours=hours), self.calls
        while self.now < end:
            rate = rate_limit.background_rate(self._state, self.now, BACKGROUND)
            self.now += MINUTE / rate
            if self._state.paused_until is not None:
                self.now = max(self.now, self._state.paused_until)
            while self._next_other < self.now:
                self._wait_s(self._next_other)
                self._next_other = self._after(self._next_other)
            if self._wait_s(self.now) is None:
                self.calls += 1
            else:
                self.throttled.append(self.now)
                self._state = rate_limit.throttled(
                    self._state, self.now, 20.0, background=BACKGROUND
                )
        return (self.calls - calls_before) / (hours * 60)

    def _wait_s(self, at: datetime) -> float | None:
        return self._limit.wait_s((at - BEGIN).total_seconds())

    def _after(self, at: datetime) -> datetime:
        if not self._others_per_minute:
            return at + timedelta(days=3650)
        return at + MINUTE * self._chance.expovariate(self._others_per_minute)


@pytest.mark.parametrize("others", [30, 45, 50])
def test_background_calls_cause_one_429_an_hour_at_most(others: int) -> None:
    """On average, in a steady state; a trickle is left."""
    account = Account(others)
    account.run(4)  # to find the rate
    before = len(account.throttled)
    rate = account.run(96)
    assert len(account.throttled) - before <= 96
    assert rate >= 0.2


def test_the_rate_comes_back_when_the_others_are_gone() -> None:
    """Within hours."""
    account = Account(50)
    busy = account.run(24)
    account.run(4, others_per_minute=0)
    assert account.run(1) > 0.95 * BACKGROUND > 2 * busy


def test_alone_there_is_no_429() -> None:
    """The background keeps far from the limit."""
    account = Account(0)
    assert account.run(10) > 0.95 * BACKGROUND
    assert account.throttled == []


def test_a_catalogue_that_is_read_faster_anyway_needs_less_credit() -> None:
    """Sixty items in two minutes need 30 calls a minute, so 45 add only 15."""

    async def script(day: Day) -> None:
        config = day.services.config
        every = timedelta(minutes=2)
        await day.services.reconfigure(
            replace(config, reconcile=replace(config.reconcile, every=every))
        )
        await asyncio.sleep(1)
        state = CatchUp(credit=25.0, credit_at=day.clock.now())
        await day.services.database.write(lambda db: catch_up.save(db, state))
        assert await day.services.background.look(None, is_quiet=True)
        assert day.services.background.catch_up.credit == pytest.approx(5.0, abs=0.5)

    lived(script, items=60, background=int(BACKGROUND))


@pytest.mark.parametrize("sign", ["is_quiet", "is_silent"])
def test_a_large_catalogue_is_read_at_full_rate_in_silence(sign: str) -> None:
    """Its sweep needs more than background calls anyway; a small one keeps to them.

    The sweep keeps the full rate until its end: the first delivery does not bring the lost ones.
    """

    async def script(day: Day) -> None:
        services = day.services
        every = services.config.reconcile.every
        for items, is_full in ((1_000, False), (10_000, True)):
            await services.database.write(
                lambda db: db.execute("UPDATE sweeps SET ended_at = NULL, is_paced = 1")
            )
            await services.database.write(lambda db: catch_up.save(db, CatchUp()))
            sweep = SweepProgress(1, day.clock.now(), 0, items, items, is_paced=True)
            await services.look_for_evidence(sweep)
            needed = max(BACKGROUND, items / (every / timedelta(minutes=1)))
            assert services.background.rate == pytest.approx(needed, rel=0.01)
            assert not services.background.wants_full_sweep
            await services.look_for_evidence(sweep, **{sign: True})
            await services.look_for_evidence(sweep)
            (is_paced,) = await services.database.read(
                lambda db: db.execute("SELECT min(is_paced) FROM sweeps").fetchone()
            )
            assert bool(is_paced) is not is_full

    lived(script, items=5, background=int(BACKGROUND))


def test_a_restart_does_not_end_the_slowdown() -> None:
    """Else a daemon that is restarted every hour causes a 429 each time."""

    async def script(day: Day) -> None:
        for _ in range(2):
            await day.services.rate_limiter.throttled(10.0, for_sweep=False)
            await asyncio.sleep(120)
        slowed = day.services.rate_limiter.background_rate
        assert slowed < BACKGROUND / 20
        await day.restart()
        assert day.services.rate_limiter.background_rate == pytest.approx(slowed, rel=0.01)
        await asyncio.sleep(4 * 3600)
        assert day.services.rate_limiter.background_rate == BACKGROUND
        await day.restart()
        assert day.services.rate_limiter.background_rate == BACKGROUND

    lived(script, items=5, background=int(BACKGROUND))


def test_a_429_lowers_background_calls_more_than_urgent_ones() -> None:
    """And for longer."""
    state = rate_limit.throttled(rate_limit.start(45), BEGIN, 60, background=BACKGROUND)
    assert state.per_minute == 45 / 2
    assert rate_limit.background_rate(state, BEGIN, BACKGROUND) == BACKGROUND / 5
    after = BEGIN + timedelta(minutes=30)
    assert rate_limit.background_rate(state, after, BACKGROUND) == BACKGROUND * 2 / 5
    burst = rate_limit.throttled(state, BEGIN + timedelta(seconds=5), 60, background=BACKGROUND)
    assert burst.slowdown == state.slowdown  # the calls in flight count once
    at = BEGIN
    for minutes in range(2, 100, 2):
        at = BEGIN + timedelta(minutes=minutes)
        state = rate_limit.throttled(state, at, 60, background=BACKGROUND)
        assert rate_limit.background_rate(state, at, BACKGROUND) >= rate_limit.BACKGROUND_TRICKLE
    assert rate_limit.background_rate(state, at, BACKGROUND) == rate_limit.BACKGROUND_TRICKLE
