"""The one worker that reads from Dreamship: it takes one job after another, within the budget."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from syncd.clock import Clock, sleep_unless_set
from syncd.core.clock_jump import Jump
from syncd.core.jobs import Job, JobKind
from syncd.core.plain_text import shortened
from syncd.errors import DaemonAbsent, MirrorError, MirrorIncompatible
from syncd.store import Database, job_queue
from syncd.sync.background import BackgroundReading
from syncd.sync.complaints import Complaints
from syncd.sync.dry_run_turns import DryRunTurns
from syncd.sync.fetcher import Fetcher
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.read_order import CATALOGUE, DELIVERIES, Turns

log = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 4
MIRROR_WAIT_S = 2.0
# When damage prevents the end of a sweep, the end is tried again after this time.
END_AGAIN = timedelta(minutes=1)
# Lookups for each batch of deliveries took a tenth of a busy daemon; calls are a second apart.
SOON_S = 0.1


class SyncWorker:
    """Takes the next job, waits until its call may leave, and starts it."""

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        rate_limiter: RateLimiter,
        background: BackgroundReading,
        clock: Clock,
    ) -> None:
        self._database = database
        self._fetcher = fetcher
        self._rate_limiter = rate_limiter
        self._background = background
        self._clock = clock
        self._busy: set[int] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._dry_runs = DryRunTurns()
        self._wake = asyncio.Event()
        self._turns = Turns()
        self._is_waking = False
        self._stuck_by: MirrorError | None = None
        self._end_from: datetime | None = None
        self._sweeps_damaged: MirrorError | None = None
        self._complaints = Complaints(clock)

    @property
    def stuck_by(self) -> MirrorError | None:
        """The error of the mirror that stops all reads; None while reads go on."""
        return self._stuck_by or self._fetcher.unwritten.stops_reading

    @property
    def reason(self) -> str | None:
        """A sentence for the status about a part of the mirror that cannot be written; or None."""
        if self._sweeps_damaged is not None:
            error = self._sweeps_damaged
            return f"Sweeps wait: {shortened(error.message, 200)}; {error.hint}."
        return self._fetcher.unwritten.reason

    def wake(self) -> None:
        """Look for a job now: there may be a new one."""
        self._is_waking = False
        self._wake.set()

    def wake_soon(self) -> None:
        """Look for a job soon: more deliveries may arrive meanwhile, and request more reads."""
        if not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_later(SOON_S, self.wake)

    def resume(self) -> None:
        """Try again at once after Dreamship refused the key or was unreachable."""
        self._fetcher.failures.resume()
        self.retry_now()

    def retry_now(self) -> None:
        """Try at once to write the answers that could not be written."""
        self._fetcher.unwritten.retry_now()
        self.wake()

    def follow(self, jump: Jump) -> None:
        """Repeat the calls in flight when this host's clock jumps: their times are wrong now."""
        if jump.shift:
            for flight in self._flights:
                flight.cancel()
        if self._end_from is not None:
            self._end_from = jump.timer(self._end_from)
        self.wake()

    async def wait_for_turn(self) -> None:
        """Wait until a call of the caller may leave; it is taken from the budget when this returns.

        Raises leaves of MirrorError while the mirror cannot be used, and DaemonAbsent at the end.
        """
        self.wake()
        await self._dry_runs.wait()

    async def run(self) -> None:
        """Read until cancelled. The calls in flight are repeated after the next start."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._step()
                except Exception as error:  # noqa: BLE001
                    # A worker that ends unnoticed would leave the mirror out of date.
                    self._report(error)
                    await self._clock.sleep(MIRROR_WAIT_S)
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)
            self._dry_runs.refuse(DaemonAbsent("the daemon is stopping", hint="try again"))

    def _report(self, error: Exception) -> None:
        """Log why reading stopped; rarely, because the log may be on the full disk."""
        if isinstance(error, MirrorError):
            self._stuck_by = error
            self._dry_runs.refuse(error)
            self._complaints.begin("the mirror cannot be used", error)
        else:
            self._complaints.begin("reading failed for no known reason; it goes on", error)

    async def _step(self) -> None:
        unwritten = self._fetcher.unwritten
        await self._fetcher.confirmations.write_due()
        if len(self._flights) >= (1 if unwritten.has_failed_write else MAX_IN_FLIGHT):
            await self._wait(None)
            return
        if await unwritten.retry_due():
            return
        now = self._clock.now()
        if (calls_from := unwritten.calls_from(now)) is not None:
            if unwritten.stops_reading is not None:
                self._dry_runs.refuse(unwritten.stops_reading)
            await self._wait_until(calls_from, now)
            return
        job = await self._next_job(now)
        if job is None:
            due_at = await self._next_due_at(now)
            self._note_progress()
            await self._wait_until(due_at, now)
            return
        wait_s = self._rate_limiter.wait_s(urgent=job.is_urgent)
        if wait_s > 0:
            # A more urgent job may come meanwhile, so the job is chosen after the wait.
            await self._wait(wait_s)
            return
        await self._rate_limiter.spend(for_sweep=job.is_for_sweep)
        self._note_progress()
        self._turns = self._turns.after(job.kind, is_background=job.is_background)
        if job.is_background:
            self._background.called()
        self._begin(job)

    def _note_progress(self) -> None:
        self._stuck_by = None
        if self._sweeps_damaged is None:
            self._complaints.end("reading goes on")

    async def _next_job(self, now: datetime) -> Job | None:
        paused_until = self._fetcher.failures.paused_until
        if paused_until is not None and paused_until > now:
            # The call of a dry run shows why no other call is made.
            return Job("dry_run") if self._dry_runs.has_waiting else None
        await self._finish_sweeps(now)
        try:
            job = await self._first_undamaged(now)
        except MirrorIncompatible as error:
            # If only the jobs of sweeps are damaged, the reads that confirm deliveries go on.
            self._sweeps_damaged = error
            job = await self._first_of(DELIVERIES, now)
            if job is None:
                raise
        if self._sweeps_damaged is not None:
            self._complaints.begin(
                "sweeps wait: their remaining items are damaged", self._sweeps_damaged
            )
        return job

    async def _first_undamaged(self, now: datetime) -> Job | None:
        """Return the next job; if the rows of some items are damaged, sweeps find the others."""
        rest = self._turns.rest(is_background_due=self._background.is_due(now))
        try:
            return await self._first_of(self._turns.order, now, rest)
        except MirrorIncompatible:
            rest = tuple(kind for kind in rest if kind in CATALOGUE)
            return await self._first_of(self._turns.order, now, rest)

    async def _first_of(
        self, kinds: tuple[JobKind, ...], now: datetime, rest: tuple[JobKind, ...] = ()
    ) -> Job | None:
        fetcher = self._fetcher
        list_from = fetcher.failures.list_paused_until
        listing = (
            not fetcher.is_listing
            and not fetcher.unwritten.has_page
            and (list_from is None or list_from <= now)
        )
        if not self._dry_runs.has_waiting:
            return await self._next_of(kinds, now, rest, listing=listing)
        before = kinds[: kinds.index("dry_run")] if "dry_run" in kinds else kinds
        job = await self._next_of(before, now, listing=listing)
        return job or Job("dry_run")

    async def _next_of(
        self,
        kinds: tuple[JobKind, ...],
        now: datetime,
        rest: tuple[JobKind, ...] = (),
        *,
        listing: bool,
    ) -> Job | None:
        database, busy = self._database, self._busy | self._fetcher.unwritten.items
        background = self._background
        list_at = self._fetcher.list_watch.due(now, background.rate) if rest else None
        return await database.read(
            lambda db: job_queue.next_job(
                db,
                now,
                busy | database.deferred_items,
                kinds,
                listing=listing,
                paced=self._turns.is_for_sweeps and background.is_due(now),
                rest=rest,
                choice=background.choice(now),
                list_at=list_at,
            )
        )

    async def _finish_sweeps(self, now: datetime) -> None:
        """End sweeps. If damage prevents the end of one, other reads go on."""
        if self._end_from is not None and self._end_from > now:
            return
        try:
            await self._fetcher.sweep_ends.finish()
        except MirrorIncompatible as error:
            self._end_from, self._sweeps_damaged = now + END_AGAIN, error
        else:
            self._end_from = self._sweeps_damaged = None

    async def _next_due_at(self, now: datetime) -> datetime | None:
        """Return when the next job becomes due; a call in flight wakes the worker when it ends."""
        failures = self._fetcher.failures
        if failures.paused_until is not None and failures.paused_until > now:
            return failures.paused_until
        moments = (
            await self._database.read(lambda db: job_queue.next_due_at(db, now)),
            failures.list_paused_until,
            self._fetcher.unwritten.next_at,
            self._end_from,
            self._background.next_at(now),
        )
        return min((at for at in moments if at is not None and at > now), default=None)

    async def _wait_until(self, at: datetime | None, now: datetime) -> None:
        await self._wait(None if at is None else max(0.0, (at - now).total_seconds()))

    async def _wait(self, seconds: float | None) -> None:
        """Wait for `seconds` if given, but only until `wake` is called, or a write is due."""
        limits = (seconds, self._fetcher.confirmations.due_in_s)
        seconds = min((limit for limit in limits if limit is not None), default=None)
        await sleep_unless_set(self._clock, seconds, self._wake)

    def _begin(self, job: Job) -> None:
        if job.kind == "dry_run":
            self._dry_runs.give()
            return
        if job.item_id is None:
            self._fetcher.is_listing = True
        else:
            self._busy.add(job.item_id)
        flight = asyncio.create_task(self._fetcher.ask(job), name=f"read {job.kind}")
        self._flights.add(flight)
        flight.add_done_callback(lambda done: self._end_flight(done, job))

    def _end_flight(self, flight: asyncio.Task[None], job: Job) -> None:
        self._flights.discard(flight)
        if job.item_id is None:
            self._fetcher.is_listing = False
        else:
            self._busy.discard(job.item_id)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._complaints.begin("reading failed for no known reason; it goes on", error)
            self._fetcher.failures.paused_until = self._clock.now() + timedelta(seconds=1)
        self.wake()
