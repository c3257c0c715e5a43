"""The one reader: whatever is worth asking Dreamship next is asked here, inside the budget.

`read_order` says which kind of call goes first. That order is kept nowhere: it holds for whatever
the mirror has when a daemon starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import structlog

from syncd.clock import Clock, Jump
from syncd.core.jobs import Job, JobKind
from syncd.core.plain_text import shortened
from syncd.core.ports import ReadLedger
from syncd.dreamship.rate_limiter import RateLimiter
from syncd.errors import DaemonAbsent, MirrorError, MirrorIncompatible, SyncdError
from syncd.sync.complaints import Complaints
from syncd.sync.fetcher import Fetcher
from syncd.sync.read_order import DELIVERIES, Turns

log = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 4
MIRROR_WAIT_S = 2.0
# The end of a sweep that damage prevents is tried again after this.
END_AGAIN = timedelta(minutes=1)
# What deliveries ask is looked for together: three looks into the mirror for each batch of them
# took about a tenth of a busy daemon (one profile), and calls are a second apart anyway.
SOON_S = 0.1


class SyncWorker:
    """Takes the next job, waits for its turn in the budget, and has it asked."""

    def __init__(
        self, ledger: ReadLedger, fetcher: Fetcher, rate_limiter: RateLimiter, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._fetcher = fetcher
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._busy: set[int] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._visitors: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._turns = Turns()
        self._is_waking = False
        self._stuck_by: MirrorError | None = None
        self._end_from: datetime | None = None
        self._sweeps_damaged: MirrorError | None = None
        self._complaints = Complaints(clock)

    @property
    def stuck_by(self) -> MirrorError | None:
        """Why nothing is read from Dreamship: the mirror could not keep it. None: it is read."""
        return self._stuck_by or self._fetcher.unkept.stops_reading

    @property
    def reason(self) -> str | None:
        """A sentence for the status about a part of the mirror that takes nothing; or None."""
        if self._sweeps_damaged is not None:
            fault = self._sweeps_damaged
            return f"Sweeps wait: {shortened(fault.message, 200)}; {fault.hint}."
        return self._fetcher.unkept.reason

    def wake(self) -> None:
        """Say that there may be something new to ask."""
        self._is_waking = False
        self._wake.set()

    def wake_soon(self) -> None:
        """Say that deliveries brought something to ask, as more of them may do at this moment."""
        if not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_later(SOON_S, self.wake)

    def resume(self) -> None:
        """Ask again at once what was refused or unreachable."""
        self._fetcher.failures.resume()
        self.hurry()

    def hurry(self) -> None:
        """Try at once whether the mirror can keep again what it could not."""
        self._fetcher.unkept.hurry()
        self.wake()

    def follow(self, jump: Jump) -> None:
        """Ask again, when this host's clock jumps, what was asked by the clock as it was."""
        if jump.shift:
            for flight in self._flights:
                flight.cancel()
        if self._end_from is not None:
            self._end_from = jump.timer(self._end_from)
        self.wake()

    async def visit(self) -> None:
        """Wait for the turn of a call that somebody else makes; it is paid when this returns.

        Raises MirrorError leaves while the mirror cannot be used, and DaemonAbsent at the end.
        """
        visitor: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._visitors.append(visitor)
        self.wake()
        try:
            await visitor
        finally:
            with contextlib.suppress(ValueError):
                self._visitors.remove(visitor)

    async def run(self) -> None:
        """Read until cancelled; what is in flight then is asked again after the next start."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._step()
                except Exception as fault:  # noqa: BLE001
                    # A reader that died in silence would leave the mirror to rot.
                    self._complain(fault)
                    await self._clock.sleep(MIRROR_WAIT_S)
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)
            self._turn_away(DaemonAbsent("the daemon is stopping", hint="try again"))

    def _complain(self, fault: Exception) -> None:
        """Tell what reading is stuck by; seldom, for the log may be on the disk that is full."""
        if isinstance(fault, MirrorError):
            self._stuck_by = fault
            self._turn_away(fault)
            self._complaints.begin("the mirror cannot be used", fault)
        else:
            self._complaints.begin("reading failed for no known reason; it goes on", fault)

    def _turn_away(self, fault: SyncdError) -> None:
        for visitor in self._visitors:
            if not visitor.done():
                visitor.set_exception(fault)

    async def _step(self) -> None:
        unkept = self._fetcher.unkept
        if len(self._flights) >= (1 if unkept.is_suspicious else MAX_IN_FLIGHT):
            await self._wait(None)
            return
        if await unkept.write_again():
            return
        now = self._clock.now()
        if (ask_from := unkept.asks_from(now)) is not None:
            if unkept.stops_reading is not None:
                self._turn_away(unkept.stops_reading)
            await self._wait_until(ask_from, now)
            return
        job = await self._next_job(now)
        if job is None:
            due_at = await self._next_due_at(now)
            self._goes_on()
            await self._wait_until(due_at, now)
            return
        wait_s = self._rate_limiter.wait_s(urgent=job.is_urgent)
        if wait_s > 0:
            # Something more urgent may come while we wait: it is picked then, not now.
            await self._wait(wait_s)
            return
        await self._rate_limiter.spend(for_sweep=job.is_for_sweep)
        self._goes_on()
        self._turns = self._turns.after(job.kind)
        self._take_off(job)

    def _goes_on(self) -> None:
        self._stuck_by = None
        if self._sweeps_damaged is None:
            self._complaints.end("reading goes on")

    async def _next_job(self, now: datetime) -> Job | None:
        paused_until = self._fetcher.failures.paused_until
        if paused_until is not None and paused_until > now:
            # Who looks is told why nothing else is asked.
            return Job("look") if self._has_visitor else None
        await self._finish_sweeps(now)
        try:
            job = await self._first_of(self._turns.order, now)
        except MirrorIncompatible as fault:
            # Where only what sweeps have left is damaged, deliveries are still confirmed.
            self._sweeps_damaged = fault
            job = await self._first_of(DELIVERIES, now)
            if job is None:
                raise
        if self._sweeps_damaged is not None:
            self._complaints.begin(
                "sweeps wait: what they have left is damaged", self._sweeps_damaged
            )
        return job

    async def _first_of(self, kinds: tuple[JobKind, ...], now: datetime) -> Job | None:
        fetcher = self._fetcher
        list_from = fetcher.failures.list_paused_until
        listing = (
            not fetcher.is_listing
            and not fetcher.unkept.has_page
            and (list_from is None or list_from <= now)
        )
        busy = self._busy | fetcher.unkept.items
        if not self._has_visitor:
            return await self._ledger.next_job(now, busy, kinds, listing=listing)
        before = kinds[: kinds.index("look")] if "look" in kinds else kinds
        job = await self._ledger.next_job(now, busy, before, listing=listing)
        return job or Job("look")

    async def _finish_sweeps(self, now: datetime) -> None:
        """End sweeps; one whose end is damaged must not stop what others read."""
        if self._end_from is not None and self._end_from > now:
            return
        try:
            await self._fetcher.finish_sweeps()
        except MirrorIncompatible as fault:
            self._end_from, self._sweeps_damaged = now + END_AGAIN, fault
        else:
            self._end_from = self._sweeps_damaged = None

    async def _next_due_at(self, now: datetime) -> datetime | None:
        """Return when something becomes due by itself; what is being read comes when it lands."""
        failures = self._fetcher.failures
        if failures.paused_until is not None and failures.paused_until > now:
            return failures.paused_until
        moments = (
            await self._ledger.next_due_at(now),
            failures.list_paused_until,
            self._fetcher.unkept.next_at,
            self._end_from,
        )
        return min((at for at in moments if at is not None and at > now), default=None)

    @property
    def _has_visitor(self) -> bool:
        return any(not visitor.done() for visitor in self._visitors)

    async def _wait_until(self, at: datetime | None, now: datetime) -> None:
        await self._wait(None if at is None else max(0.0, (at - now).total_seconds()))

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
        if job.kind == "look":
            visitor = next((one for one in self._visitors if not one.done()), None)
            if visitor is not None:  # who left meanwhile leaves a paid call unused
                visitor.set_result(None)
            return
        if job.item_id is None:
            self._fetcher.is_listing = True
        else:
            self._busy.add(job.item_id)
        flight = asyncio.create_task(self._fetcher.ask(job), name=f"read {job.kind}")
        self._flights.add(flight)
        flight.add_done_callback(lambda done: self._land(done, job))

    def _land(self, flight: asyncio.Task[None], job: Job) -> None:
        self._flights.discard(flight)
        if job.item_id is None:
            self._fetcher.is_listing = False
        else:
            self._busy.discard(job.item_id)
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            self._complaints.begin("reading failed for no known reason; it goes on", fault)
            self._fetcher.failures.paused_until = self._clock.now() + timedelta(seconds=1)
        self.wake()
