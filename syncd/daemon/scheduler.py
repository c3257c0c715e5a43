"""Runs the tasks that are due by `core/schedule.py`, with APScheduler.

APScheduler uses the wall clock: when the clock jumps, every job moves with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from syncd.config import Config
from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepSummary
from syncd.core.schedule import ClockTrust, Schedule, SweepPeriods, Task, is_ahead
from syncd.daemon.services import Services
from syncd.errors import MirrorError, MirrorUnavailable
from syncd.store import process_state, retention, sweeps

log = structlog.get_logger(__name__)

# Between two slices of a deletion, so that deliveries go first.
PAUSE_S = 0.05


class _NoCancelled(logging.Filter):
    """Drops the tracebacks that APScheduler logs for jobs that the end of the daemon cancels."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, asyncio.CancelledError)


logging.getLogger("apscheduler.executors.default").addFilter(_NoCancelled())


class _Planned(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Gets the next run from the schedule, and does not repeat missed runs one by one.

    APScheduler's own interval does, so a clock set ahead by years would cost memory and minutes.
    """

    def __init__(self, schedule: Schedule, task: Task) -> None:
        self._schedule = schedule
        self._task = task

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        del previous
        return self._schedule.begin(self._task, now)


class Scheduler:
    """Runs the tasks of one daemon, each once at a time; several missed runs become one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._schedule = Schedule(sweep_periods(services.config), random.random)
        self._clock_trust = ClockTrust()
        self._has_warned = False
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )

    async def start(self) -> None:
        """Start the tasks, with a sweep at once if one is due."""
        services, saved_state = self._services, self._services.saved_state
        services.clock.follow(self.follow)
        if saved_state.is_clock_suspect:
            self._clock_trust.distrust(services.clock.elapsed_s(), 0)
        is_due = self._schedule.start(
            services.clock.now(),
            complete_at=saved_state.complete_at,
            failures=saved_state.failures,
        )
        try:
            if services.is_waiting:
                pass  # the active daemon sweeps
            elif services.is_resuming:
                await self.resume()
            elif is_due or services.is_new_policy:
                await services.sweep_manager.request("start")
        except MirrorUnavailable:
            # A full disk must not prevent the start: the check of the clock resumes every second.
            services.is_resuming = True
        runs: dict[Task, Callable[[], Awaitable[None]]] = {
            "sweep": self._sweep,
            "locate": self._locate,
            "prune": self._prune,
        }
        for task, run in runs.items():
            self._scheduler.add_job(
                _run,
                _Planned(self._schedule, task),
                args=[run],
                id=task,
                next_run_time=self._schedule.next_at(task),
            )
        self._scheduler.start()

    def stop(self) -> None:
        """Stop, without waiting for a running task."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def resume(self) -> None:
        """Sweep after an absence: earlier reads may be outdated."""
        await self._services.sweep_manager.restart()
        self._services.is_resuming = False

    def follow(self, jump: Jump) -> None:
        """Move each task with this host's clock."""
        if jump.needs_confirmation:
            services = self._services
            self._clock_trust.distrust(services.clock.elapsed_s(), services.remote_clock.answers)
        self._schedule.follow(jump)
        self._reschedule("sweep", "locate", "prune")

    async def ping(self) -> None:
        """Return once the scheduler has run a job."""
        ran = asyncio.Event()

        async def set_ran() -> None:
            ran.set()

        self._scheduler.add_job(set_ran, id="ping", replace_existing=True)
        await ran.wait()

    def reload(self) -> None:
        """Use a new configuration."""
        self._schedule.reload(sweep_periods(self._services.config), self._services.clock.now())
        self._reschedule("sweep")

    def adapt(self, *, is_silent: bool) -> None:
        """Sweep more often while deliveries have stopped."""
        self._schedule.set_silent(self._services.clock.now(), is_silent=is_silent)
        self._reschedule("sweep")

    async def quiet(self, now: datetime, *, is_quiet: bool) -> bool:
        """Read early while no deliveries arrive for unusually long; return whether it is time.

        Without background calls, this begins a sweep.
        """
        if self._services.is_waiting:
            return False
        if not self._schedule.wants_quiet_sweep(now, is_quiet=is_quiet):
            return False
        if not self._services.background.full_rate:
            await self._services.sweep_manager.request("quiet")
        return True

    def sweep_ended(self, summary: SweepSummary) -> None:
        """Plan the sweep after one that ended."""
        self._schedule.end_sweep(summary, self._services.clock.now())
        self._reschedule("sweep")

    @property
    def next_sweep_at(self) -> datetime | None:
        """When the next scheduled sweep begins."""
        return self._schedule.next_at("sweep")

    def _reschedule(self, *tasks: Task) -> None:
        if self._scheduler.running:
            for task in tasks:
                self._scheduler.modify_job(task, next_run_time=self._schedule.next_at(task))

    async def _sweep(self) -> None:
        if not self._services.is_waiting:
            await self._services.sweep_manager.request("schedule")

    async def _locate(self) -> None:
        """Sweep for variants whose item only the catalogue shows."""
        services = self._services
        if services.is_waiting or not await services.database.read(sweeps.has_unplaced_variants):
            return
        if self._schedule.wants_locating(services.clock.now()):
            await services.sweep_manager.request("locate")

    async def _prune(self) -> None:
        config, now = self._services.config, self._services.clock.now()
        if not await self._trusts_clock():
            self._schedule.retry_prune(now)
            self._reschedule("prune")
            return
        prune = partial(
            retention.prune,
            deliveries_before=now - config.retention.deliveries,
            changes_before=now - config.retention.changes,
            now=now,
            missed_grace=config.reconcile.missed_grace,
        )
        while self._scheduler.running and await self._services.database.write(prune):  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)

    async def _trusts_clock(self) -> bool:
        """Return whether rows that are old by this host's clock may be deleted."""
        clock, remote_clock = self._services.clock, self._services.remote_clock
        answers, offset = remote_clock.answers, remote_clock.offset
        if self._clock_trust.is_distrusted:
            if not self._clock_trust.is_confirmed(clock.elapsed_s(), answers, offset):
                if not self._has_warned:
                    log.warning(
                        "old rows are not deleted until Dreamship's clock confirms this host's"
                    )
                self._has_warned = True
                return False
            await self._services.database.write(process_state.trust_clock)
            self._clock_trust.confirm()
            self._has_warned = False
        return not is_ahead(answers, offset)


def sweep_periods(config: Config) -> SweepPeriods:
    """Return the settings of the schedule."""
    reconcile = config.reconcile
    return SweepPeriods(
        reconcile.every,
        reconcile.every_when_silent,
        is_continuous=reconcile.background_calls_per_minute > 0,
    )


async def _run(task: Callable[[], Awaitable[None]]) -> None:
    """Run a task; ignore its cancellation and errors of the mirror.

    The heartbeat reports errors of the mirror, and each task runs again.
    """
    with contextlib.suppress(asyncio.CancelledError, MirrorError):
        await task()
