"""When what happens by itself: sweeps, their repetition after a failure, locating, cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncd.config import Config
from syncd.engine import Engine
from syncd.errors import MirrorError
from syncd.ports import SweepSummary
from syncd.reconcile import due_since, next_after_failure

LOCATE_CHECK_S = 10.0
PRUNE_EVERY_S = 3600.0
# The first time soon: a daemon that is restarted every hour would never clean up.
PRUNE_FIRST_S = 5.0
# So that many daemons do not sweep in the same second after Dreamship was down.
JITTER_SHARE = 0.1
LONGEST_JITTER_S = 300


class _NoCancelled(logging.Filter):
    """Drops what APScheduler tells, with a traceback, of a job that our end has cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        return not isinstance(fault, asyncio.CancelledError)


logging.getLogger("apscheduler.executors.default").addFilter(_NoCancelled())


class Schedule:
    """Runs the jobs of one daemon; a run that was missed is made up once, never two at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_silent = False
        self._failures = 0
        self._located_at: datetime | None = None
        self._quiet_until: datetime | None = None
        self._quiet_looks = 0
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )

    async def start(self, beat: Callable[[], Awaitable[None]], *, beat_every_s: float) -> None:
        """Begin: a sweep at once if one is due, and a `beat` every so many seconds."""
        engine, every = self._engine, self._config.reconcile.every
        remembered, now = engine.remembered, engine.clock.now()
        self._failures = remembered.failures
        is_due = due_since(remembered.complete_at, every, now)
        if self._was_down_long():
            # What a sweep read before that may have changed since: it begins anew, stalest first.
            await engine.reconciler.restart()
        elif is_due or engine.is_new_policy:
            await engine.reconciler.request("start")
        self._scheduler.add_job(
            _run,
            self._sweep_trigger(),
            args=[self._sweep],
            id="sweep",
            next_run_time=now + every
            if is_due or remembered.complete_at is None
            else remembered.complete_at + every,
        )
        for job, seconds in ((beat, beat_every_s), (self._locate, LOCATE_CHECK_S)):
            self._scheduler.add_job(_run, _every(seconds), args=[job])
        # Soon for the first time: a daemon that is often started again must prune, too.
        self._scheduler.add_job(
            _run,
            _every(PRUNE_EVERY_S),
            args=[self._prune],
            next_run_time=datetime.now(UTC) + timedelta(seconds=PRUNE_FIRST_S),
        )
        self._scheduler.start()

    def stop(self) -> None:
        """End; what runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def adapt(self, *, is_silent: bool | None = None) -> None:
        """Take over a new configuration, or that deliveries stopped or came back."""
        if is_silent is not None:
            if is_silent == self._is_silent:
                return
            self._is_silent = is_silent
        if self._scheduler.running:
            self._scheduler.reschedule_job("sweep", trigger=self._sweep_trigger())

    async def quiet(self, since: datetime | None) -> None:
        """Ask the source early while deliveries stay away (None: they do not), ever more rarely."""
        if since is None:
            self._quiet_until, self._quiet_looks = None, 0
        elif self._quiet_until is None or since >= self._quiet_until:
            wait = self._config.reconcile.every_when_silent * 2**self._quiet_looks
            self._quiet_until = since + wait
            self._quiet_looks = min(self._quiet_looks + 1, 10)
            await self._engine.reconciler.request("quiet")

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
        job = self._scheduler.get_job("sweep")
        job.modify(next_run_time=min(job.next_run_time, datetime.now(UTC) + wait * _jittered()))

    def _was_down_long(self) -> bool:
        """Tell whether deliveries may have been given up meanwhile, or are late by retries."""
        down, grace = self._engine.down, self._config.reconcile.missed_grace
        return down is not None and down[1] - down[0] > grace

    @property
    def next_sweep_at(self) -> datetime | None:
        """When the next sweep begins by itself."""
        job = self._scheduler.get_job("sweep")
        return None if job is None else job.next_run_time

    @property
    def _config(self) -> Config:
        return self._engine.config

    def _sweep_trigger(self) -> IntervalTrigger:
        reconcile = self._config.reconcile
        every = reconcile.every_when_silent if self._is_silent else reconcile.every
        seconds = every.total_seconds()
        jitter = min(LONGEST_JITTER_S, int(seconds * JITTER_SHARE))
        return _every(seconds, jitter=jitter or None)

    async def _sweep(self) -> None:
        await self._engine.reconciler.request("schedule")

    async def _locate(self) -> None:
        """Sweep for variants whose item only the catalogue knows, but not all the time."""
        engine = self._engine
        if not await engine.store.wants_locating():
            return
        now = engine.clock.now()
        if due_since(self._located_at, self._config.reconcile.every_when_silent, now):
            self._located_at = now
            await engine.reconciler.request("locate")

    async def _prune(self) -> None:
        retention, now = self._config.retention, self._engine.clock.now()
        while self._scheduler.running and await self._engine.store.prune(  # noqa: ASYNC110
            deliveries_before=now - retention.deliveries,
            changes_before=now - retention.changes,
            now=now,
        ):
            await asyncio.sleep(0.05)  # not a poll but a pause: deliveries go first


def _every(seconds: float, *, jitter: int | None = None) -> IntervalTrigger:
    """Return a trigger; without a time zone it would ask for the host's, which may not exist."""
    return IntervalTrigger(seconds=seconds, jitter=jitter, timezone=UTC)


async def _run(job: Callable[[], Awaitable[None]]) -> None:
    """Run a job; the end of the daemon, which cancels it, is no fault that the log must show.

    Nor is a mirror that cannot be used: the beat reports it, once, and every job is run again.
    """
    with contextlib.suppress(asyncio.CancelledError, MirrorError):
        await job()


def _jittered() -> float:
    return 1 + random.random() * JITTER_SHARE  # noqa: S311 - no secret
