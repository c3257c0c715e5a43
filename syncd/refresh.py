"""The one reader: whatever is worth asking Dreamship next is asked here, inside the budget.

Doubts first, then the pages and items nobody has read yet, then confirming reads, then the
stalest; every few calls another kind goes first, so that none waits for ever. A page is never
asked for twice in a row while anything else waits: a list may be long, or have no end.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from syncd.asking import Asker
from syncd.budget import Budget
from syncd.clock import Jump
from syncd.errors import MirrorError
from syncd.ports import Clock, Job, JobKind, ReadLedger

log = structlog.get_logger(__name__)

ORDER: tuple[JobKind, ...] = ("doubt", "page", "unread", "settle", "stale")
# One call in this many goes to another kind first, so that none waits for ever; confirming reads
# most often, since a delivery waits for each.
TURN = 4
TURNS: tuple[JobKind, ...] = ("settle", "unread", "settle", "page", "settle", "stale")
# What goes first after a page, in turn.
AFTER_PAGE: tuple[JobKind, ...] = ("settle", "unread", "stale")
MAX_IN_FLIGHT = 4
MIRROR_WAIT_S = 2.0
# What deliveries ask is looked for together: three looks into the mirror for each batch of them
# took about a tenth of a busy daemon (one profile), and calls are a second apart anyway.
SOON_S = 0.1


class Reader:
    """Takes the next job, waits for its turn in the budget, and has it asked."""

    def __init__(self, ledger: ReadLedger, asker: Asker, budget: Budget, clock: Clock) -> None:
        self._ledger = ledger
        self._asker = asker
        self._budget = budget
        self._clock = clock
        self._busy: set[int] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._turn = 0
        self._pages = 0
        self._is_after_page = False
        self._is_waking = False
        self._stuck_by = ""

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
        self._asker.failures.resume()
        self.wake()

    def follow(self, jump: Jump) -> None:
        """Ask again, when this host's clock jumps, what was asked by the clock as it was."""
        if jump.shift:
            for flight in self._flights:
                flight.cancel()
        self.wake()

    async def run(self) -> None:
        """Read until cancelled; what is in flight then is asked again after the next start."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._step()
                    self._stuck_by = ""
                except Exception as fault:  # noqa: BLE001
                    # A reader that died in silence would leave the mirror to rot.
                    self._complain(fault)
                    await self._clock.sleep(MIRROR_WAIT_S)
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)

    def _complain(self, fault: Exception) -> None:
        """Tell what reading is stuck by; once, for the log may be on the disk that is full."""
        if repr(fault) == self._stuck_by:
            return
        self._stuck_by = repr(fault)
        if isinstance(fault, MirrorError):
            log.error("the mirror cannot be used", fault=fault.message, hint=fault.hint)
        else:
            log.error("reading failed for no known reason; it goes on", exc_info=fault)

    async def _step(self) -> None:
        if len(self._flights) >= MAX_IN_FLIGHT:
            await self._wait(None)
            return
        now, paused_until = self._clock.now(), self._asker.failures.paused_until
        if paused_until is not None and paused_until > now:
            await self._wait((paused_until - now).total_seconds())
            return
        await self._asker.finish_sweeps()
        job = await self._next_job(now)
        if job is None:
            # What is due already but being read comes back when its flight lands.
            due_at = await self._ledger.next_due_at(now)
            moments = [at for at in (due_at, self._asker.failures.list_paused_until) if at]
            due_at = min((at for at in moments if at > now), default=None)
            await self._wait(None if due_at is None else (due_at - now).total_seconds())
            return
        wait_s = self._budget.wait_s(urgent=job.is_urgent)
        if wait_s > 0:
            # Something more urgent may come while we wait: it is picked then, not now.
            await self._wait(wait_s)
            return
        await self._budget.spend(for_sweep=job.is_for_sweep)
        self._turn += 1
        self._is_after_page = job.item_id is None
        self._pages += self._is_after_page
        self._take_off(job)

    async def _next_job(self, now: datetime) -> Job | None:
        order = ORDER
        if self._is_after_page:
            first = AFTER_PAGE[self._pages % len(AFTER_PAGE)]
            others = (kind for kind in AFTER_PAGE if kind != first)
            order = ("doubt", first, *others, "page")
        elif self._turn % TURN == TURN - 1:
            first = TURNS[(self._turn // TURN) % len(TURNS)]
            order = (first, *(kind for kind in ORDER if kind != first))
        list_from = self._asker.failures.list_paused_until
        may_list = not self._asker.is_listing and (list_from is None or list_from <= now)
        return await self._ledger.next_job(now, self._busy, order, listing=may_list)

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
            self._asker.is_listing = True
        else:
            self._busy.add(job.item_id)
        flight = asyncio.create_task(self._asker.ask(job), name=f"read {job.kind}")
        self._flights.add(flight)
        flight.add_done_callback(lambda done: self._land(done, job))

    def _land(self, flight: asyncio.Task[None], job: Job) -> None:
        self._flights.discard(flight)
        if job.item_id is None:
            self._asker.is_listing = False
        else:
            self._busy.discard(job.item_id)
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            # The mirror could not be written: what was read is asked again after a pause.
            log.error(
                "a read could not be kept",
                item_id=job.item_id,
                sweep_id=job.sweep_id,
                fault=str(fault),
            )
            self._asker.failures.paused_until = self._clock.now() + timedelta(seconds=1)
        self.wake()
