"""When what happens by itself: sweeps, their repetition after a failure, locating, cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from syncd.clock import Jump
from syncd.config import Config
from syncd.core.jobs import SweepSummary
from syncd.daemon.services import Services
from syncd.errors import MirrorError
from syncd.store import process_state, retention, sweeps
from syncd.sync.sweeps import due_since, next_after_failure

log = structlog.get_logger(__name__)

LOCATE_CHECK_S = 10.0
PRUNE_EVERY_S = 3600.0
# The first time soon: a daemon that is restarted every hour would never clean up.
PRUNE_FIRST_S = 5.0
# How soon to look again whether the clock is believed by now.
PRUNE_AGAIN_S = 60.0
# A host whose clock differs by less from Dreamship's is right about days.
CLOCKS_AGREE = timedelta(hours=1)
# So long without another jump a clock is believed that nothing has confirmed.
BELIEVED_AFTER_S = 24 * 3600.0
# So that many daemons do not sweep in the same second after Dreamship was down.
JITTER_SHARE = 0.1
LONGEST_JITTER_S = 300


class _NoCancelled(logging.Filter):
    """Drops what APScheduler tells, with a traceback, of a job that our end has cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        return not isinstance(fault, asyncio.CancelledError)


logging.getLogger("apscheduler.executors.default").addFilter(_NoCancelled())


class _Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires one period after the last run; runs that were missed are not counted out one by one.

    APScheduler's own interval would, and a clock set ahead by years would take memory and minutes.
    """

    def __init__(self, period: timedelta, jitter: timedelta = timedelta()) -> None:
        self.period = period
        self._jitter = jitter

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        del previous
        jitter = self._jitter * random.random()  # noqa: S311 - no secret
        return now + self.period + jitter

    @property
    def longest(self) -> timedelta:
        """The longest wait that this may ask for."""
        return self.period + self._jitter


class Scheduler:
    """Runs the jobs of one daemon; a run that was missed is made up once, never two at a time.

    APScheduler goes by the wall clock: when that jumps, every job moves with it.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._is_silent = False
        self._failures = 0
        self._reloaded_at: datetime | None = None
        self._located_at: datetime | None = None
        self._quiet_until: datetime | None = None
        self._quiet_looks = 0
        self._doubted_s: float | None = None
        self._doubted_answers = 0
        self._told_doubt = False
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )

    async def start(self) -> None:
        """Begin: a sweep at once if one is due."""
        services, every = self._services, self._config.reconcile.every
        saved_state, now = services.saved_state, services.clock.now()
        self._failures = saved_state.failures
        services.clock.follow(self.follow)
        if saved_state.is_clock_suspect:
            self._doubted_s = services.clock.elapsed_s()
        is_due = due_since(saved_state.complete_at, every, now)
        if services.is_resuming:
            await self.resume()
        elif is_due or services.is_new_policy:
            await services.sweep_manager.request("start")
        self._scheduler.add_job(
            _run,
            self._sweep_trigger(),
            args=[self._sweep],
            id="sweep",
            next_run_time=now + every
            if is_due or saved_state.complete_at is None
            else saved_state.complete_at + every,
        )
        self._scheduler.add_job(
            _run, _Every(timedelta(seconds=LOCATE_CHECK_S)), args=[self._locate]
        )
        # Soon for the first time: a daemon that is often started again must prune, too.
        self._scheduler.add_job(
            _run,
            _Every(timedelta(seconds=PRUNE_EVERY_S)),
            args=[self._prune],
            id="prune",
            next_run_time=now + timedelta(seconds=PRUNE_FIRST_S),
        )
        self._scheduler.start()

    def stop(self) -> None:
        """End; what runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def resume(self) -> None:
        """Sweep after an absence: what was read before it may have changed since."""
        await self._services.sweep_manager.restart()
        self._services.is_resuming = False

    def follow(self, jump: Jump) -> None:
        """Move each job with this host's clock; none waits for longer than its period."""
        if jump.is_doubtful:
            self._doubted_s = self._services.clock.elapsed_s()
            self._doubted_answers = self._services.remote_clock.answers
        if self._located_at is not None:
            self._located_at = jump.timer(self._located_at)
        if self._quiet_until is not None:
            self._quiet_until = jump.timer(self._quiet_until)
        if self._reloaded_at is not None:
            self._reloaded_at = jump.noted(self._reloaded_at)
        if not self._scheduler.running:
            return
        for job in self._scheduler.get_jobs():
            trigger = job.trigger
            latest = jump.after + (trigger.longest if isinstance(trigger, _Every) else timedelta())
            job.modify(next_run_time=min(jump.timer(job.next_run_time), latest))

    async def pulse(self) -> None:
        """Return once the scheduler has come round."""
        came_round = asyncio.Event()

        async def come_round() -> None:
            came_round.set()

        self._scheduler.add_job(come_round, id="pulse", replace_existing=True)
        await came_round.wait()

    def reload(self) -> None:
        """Take over a new configuration: it may have mended what made the last sweep fail."""
        self._reloaded_at = self._services.clock.now()
        self._set_period(is_due=self._failures > 0)

    def adapt(self, *, is_silent: bool) -> None:
        """Take over that deliveries stopped or came back."""
        if is_silent != self._is_silent:
            self._is_silent = is_silent
            self._set_period()

    async def quiet(self, since: datetime | None) -> None:
        """Ask the source early while deliveries stay away (None: they do not), ever more rarely."""
        if since is None:
            self._quiet_until, self._quiet_looks = None, 0
        elif self._quiet_until is None or since >= self._quiet_until:
            wait = self._config.reconcile.every_when_silent * 2**self._quiet_looks
            self._quiet_until = since + wait
            self._quiet_looks = min(self._quiet_looks + 1, 10)
            await self._services.sweep_manager.request("quiet")

    def sweep_ended(self, summary: SweepSummary) -> None:
        """Try again soon after a sweep of the catalogue that was not complete."""
        if not summary.is_catalogue or not self._scheduler.running:
            return
        if summary.result == "complete" or summary.held:
            # What was held back waits for a person; reading it all again soon would not help.
            self._failures = 0
            return
        self._failures += 1
        wait = next_after_failure(self._failures, self._config.reconcile.every_when_silent)
        is_outdated = self._reloaded_at is not None and summary.began_at < self._reloaded_at
        again_at = self._services.clock.now() + (timedelta() if is_outdated else wait * _jittered())
        job = self._scheduler.get_job("sweep")
        job.modify(next_run_time=min(job.next_run_time, again_at))

    @property
    def next_sweep_at(self) -> datetime | None:
        """When the next sweep begins by itself."""
        job = self._scheduler.get_job("sweep")
        return None if job is None else job.next_run_time

    @property
    def _config(self) -> Config:
        return self._services.config

    def _sweep_trigger(self) -> _Every:
        reconcile = self._config.reconcile
        every = reconcile.every_when_silent if self._is_silent else reconcile.every
        return _Every(every, min(timedelta(seconds=LONGEST_JITTER_S), every * JITTER_SHARE))

    def _set_period(self, *, is_due: bool = False) -> None:
        """Have the sweep repeated by the period in force; the next one never moves to later.

        A host may reload more often than it sweeps.
        """
        if not self._scheduler.running:
            return
        now, trigger, job = (
            self._services.clock.now(),
            self._sweep_trigger(),
            self._scheduler.get_job("sweep"),
        )
        next_at = now if is_due else trigger.get_next_fire_time(None, now)
        job.modify(trigger=trigger, next_run_time=min(job.next_run_time, next_at))

    async def _sweep(self) -> None:
        await self._services.sweep_manager.request("schedule")

    async def _locate(self) -> None:
        """Sweep for variants whose item only the catalogue knows, but not all the time."""
        services = self._services
        if not await services.database.read(sweeps.has_unplaced_variants):
            return
        now = services.clock.now()
        if due_since(self._located_at, self._config.reconcile.every_when_silent, now):
            self._located_at = now
            await services.sweep_manager.request("locate")

    async def _prune(self) -> None:
        config, now = self._config, self._services.clock.now()
        if not await self._trusts_clock():
            again_at = now + timedelta(seconds=PRUNE_AGAIN_S)
            self._scheduler.modify_job("prune", next_run_time=again_at)
            return
        prune = partial(
            retention.prune,
            deliveries_before=now - config.retention.deliveries,
            changes_before=now - config.retention.changes,
            now=now,
            missed_grace=config.reconcile.missed_grace,
        )
        while self._scheduler.running and await self._services.database.write(prune):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # not a poll but a pause: deliveries go first

    async def _trusts_clock(self) -> bool:
        """Tell whether what is old by this host's clock may be deleted.

        After the clock ran ahead only once Dreamship's `Date` agrees with it, or after a day.
        """
        clock, remote_clock = self._services.clock, self._services.remote_clock
        is_ahead = remote_clock.answers > 0 and remote_clock.offset < -CLOCKS_AGREE
        if self._doubted_s is None:
            return not is_ahead
        is_confirmed = remote_clock.answers > self._doubted_answers and not is_ahead
        if not is_confirmed and clock.elapsed_s() < self._doubted_s + BELIEVED_AFTER_S:
            if not self._told_doubt:
                log.warning(
                    "nothing old is deleted until Dreamship's clock agrees with this host's"
                )
            self._told_doubt = True
            return False
        await self._services.database.write(process_state.trust_clock)
        self._doubted_s, self._told_doubt = None, False
        return not is_ahead


async def _run(job: Callable[[], Awaitable[None]]) -> None:
    """Run a job; the end of the daemon, which cancels it, is no fault that the log must show.

    Nor is a mirror that cannot be used: the beat reports it, once, and every job is run again.
    """
    with contextlib.suppress(asyncio.CancelledError, MirrorError):
        await job()


def _jittered() -> float:
    return 1 + random.random() * JITTER_SHARE  # noqa: S311 - no secret
