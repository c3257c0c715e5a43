"""One life of the daemon: the real services on a real file, which may end at any step."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from simulation.clock import Clock, Inline
from simulation.source import Source
from simulation.witness import Step, StepRecorder
from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.core import payload
from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepCause, SweepSummary
from syncd.core.schedule import LOCATE_EVERY, Schedule
from syncd.core.webhook_health import WebhookHealth
from syncd.daemon.scheduler import sweep_periods
from syncd.daemon.services import Services
from syncd.errors import MirrorUnavailable, SyncdError
from syncd.store import Database, process_state, sweeps
from syncd.store.process_state import Beat

T = TypeVar("T")
Death = Literal["before", "after"]

LIFE: contextvars.ContextVar[Process | None] = contextvars.ContextVar("LIFE", default=None)
BEAT_S = 20.0


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Future[Any]:
    """Add each task to its life, in the order of their begins."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **how)
    life = LIFE.get()
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(lambda done: life.tasks.pop(done, None))
    return task


class _Clock(SteadyClock):
    """The clock of a process that may stand still; waits end when it continues."""

    def __init__(self, host: Clock) -> None:
        super().__init__(host)
        self.awake = asyncio.Event()
        self.awake.set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.awake.wait()


class _Disk(Inline):
    """The write thread, without a thread; it may fail, and the process may die at any step."""

    def __init__(self, process: Process, chance: Random, faults: float) -> None:
        self.faults = faults
        self._process = process
        self._chance = chance

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        process = self._process
        if process.is_dead or process.dies("before"):
            return _cancelled()
        is_disk = getattr(fn, "__name__", "") != "append"  # to a list of what is owed
        if self.faults and is_disk and process.is_up and self._chance.random() < self.faults:
            full: Future[T] = Future()
            full.set_exception(MirrorUnavailable("disk full"))
            return full
        process.witness.reset()
        done = super().submit(fn, *args, **kwargs)
        is_read = getattr(fn, "__name__", "") == "_read"  # writes nothing
        if process.is_up and not is_read and done.exception() is None:
            process.on_commit(process.witness.step, process.services.remote_clock.now())
        return _cancelled() if process.dies("after") else done


class Process:
    """A daemon from start to end: services, schedule, and the tasks that die with it."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        source: Source,
        chance: Random,
        witness: StepRecorder,
        disk_faults: float,
        on_commit: Callable[[Step | None, datetime], None],
        on_swept: Callable[[SweepSummary], None],
        is_rough: Callable[[], bool],
        trace: Callable[[str], None],
    ) -> None:
        self.config = config
        self.clock = _Clock(clock)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.on_commit = on_commit
        self.on_swept = on_swept
        self.is_rough = is_rough
        self.image = config.mirror.path
        self.is_up = False
        self.is_dead = False
        self.died = asyncio.Event()
        self.death: tuple[Death, int] | None = None
        self.last_sweep: SweepSummary | None = None
        self._chance = chance
        self._trace = trace
        # A random number of its own: the schedule must not change what else happens.
        self._schedule = Schedule(sweep_periods(config), Random(0).random)
        self._replanned = asyncio.Event()
        self._poked = asyncio.Event()
        self._disk = _Disk(self, chance, disk_faults)
        self._source = source
        self.database = Database(config.mirror.path, executor=self._disk)
        self.witness = witness

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` returned as a part of this life, None if it died with it."""
        before = LIFE.set(self)
        task = asyncio.create_task(work)
        LIFE.reset(before)
        try:
            return await task
        except asyncio.CancelledError:
            if self.is_dead:
                return None
            raise

    async def start(self, when_open: Callable[[], None]) -> None:
        """Begin as the daemon does: the services, a sweep if one is due, the schedule."""
        services = self.services = await Services.open(
            self.config, clock=self.clock, source=self._source, database=self.database
        )
        services.follow_sweeps(self._sweep_ended)
        when_open()
        services.fetcher.failures.chance = self._chance.random
        self.is_up = True
        saved_state = services.saved_state
        services.clock.follow(self._follow)
        is_due = self._schedule.start(
            self.clock.now(), complete_at=saved_state.complete_at, failures=saved_state.failures
        )
        self._begin(self._sweeping())
        self._begin(self._locating())
        await self.check_clock()
        self._begin(self._beating())
        if services.is_resuming:
            await self._resume()
        elif services.is_new_policy or is_due:
            await self._request("start")
        services.start_reading()

    async def submit(self, body: bytes) -> str | None:
        """Return the outcome of a delivery, None if it was not answered with 200."""
        if not self.is_up or self.is_dead or not self.clock.awake.is_set():
            return None
        try:
            outcome: str | None = await self.run(self._take(body))
        except SyncdError:
            return None
        self._poked.set()
        return outcome

    async def stop(self) -> None:
        """End gracefully, as on SIGTERM."""
        connection = self.database._connection
        await self.services.close()
        self._kill()
        if connection is not None:
            connection.close()  # 3.11 leaves it open until the process ends; this one lives on

    def dies(self, when: Death) -> bool:
        """Count a step of the disk; return whether the process is killed here."""
        if self.death is None or self.death[0] != when:
            return False
        if self.death[1] > 0:
            self.death = (when, self.death[1] - 1)
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """End as SIGKILL does: the file stays as it is on disk, in a folder of its own."""
        if self.is_dead:
            return
        path = self.config.mirror.path
        self._trace(f"daemon: killed, {len(self.tasks)} tasks die")
        self.image = path.parent.with_name(f"{path.parent.name}+") / path.name
        self.image.parent.mkdir()
        for end in ("", "-wal"):
            if (old := path.with_name(path.name + end)).exists():
                shutil.copy(old, self.image.with_name(path.name + end))
        self._kill()
        if self.database._connection is not None:
            self.database._connection.close()
            self.database._connection = None
        self.database._lock.release()
        shutil.rmtree(path.parent)

    def heal(self) -> None:
        """End the faults of the disk."""
        self._disk.faults = 0.0

    def next_config(self) -> Config:
        """Return the configuration of the life after this one."""
        return replace(self.config, mirror=replace(self.config.mirror, path=self.image))

    def _kill(self) -> None:
        self.is_up, self.is_dead = False, True
        for task in list(self.tasks):
            task.cancel()
        self.died.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.create_task(work)  # noqa: RUF006 - `tasks` holds it

    async def _take(self, body: bytes) -> str:
        return await self.services.batch_writer.submit(payload.parse(body, self.clock.now()))

    async def _sweeping(self) -> None:
        """Begin sweeps when the schedule says so: see syncd.daemon.scheduler."""
        while True:
            self._replanned.clear()
            now, next_at = self.clock.now(), self._schedule.next_at("sweep")
            assert next_at is not None
            if next_at <= now:
                self._schedule.begin("sweep", now)
                await self._request("schedule")
                continue
            with contextlib.suppress(TimeoutError):
                wait_s = (next_at - now).total_seconds()
                await asyncio.wait_for(self._replanned.wait(), wait_s)
            await self.clock.awake.wait()

    def _follow(self, jump: Jump) -> None:
        self._schedule.follow(jump)
        self._replanned.set()

    async def _beating(self) -> None:
        """See syncd.daemon.heartbeat, which checks every second; here while anything may happen."""
        while self.is_rough():
            await self.clock.sleep(BEAT_S)
            await self.check_clock()
            with contextlib.suppress(MirrorUnavailable):
                progress = await self.services.sweep_manager.progress()
                await self.services.look_for_evidence(progress)

    async def check_clock(self) -> None:
        """Follow the clock as soon as the mirror can, and give a sign of life."""
        while True:
            try:
                await self.services.check_clock()
                if self.services.is_resuming:
                    await self._resume()
                beat = Beat(
                    self.clock.mark(), WebhookHealth(), None, self.services.remote_clock.offset, {}
                )
                await self.database.write(partial(process_state.beat, sign=beat))
            except MirrorUnavailable:
                await self.clock.sleep(1)
            else:
                return

    async def _resume(self) -> None:
        await self.services.sweep_manager.restart()
        self.services.is_resuming = False

    async def _request(self, cause: SweepCause) -> None:
        while True:
            try:
                await self.services.sweep_manager.request(cause)
            except MirrorUnavailable:
                await self.clock.sleep(2)
            else:
                return

    async def _locating(self) -> None:
        """See syncd.daemon.scheduler, which asks every ten seconds; here only after deliveries."""
        while True:
            self._poked.clear()
            if not await self._wants_locating():
                await self._poked.wait()
                await self.clock.sleep(LOCATE_EVERY.total_seconds())
                continue
            wait = LOCATE_EVERY
            if self._schedule.wants_locating(self.clock.now()):
                await self._request("locate")
                wait = self.config.reconcile.every_when_silent
            await self.clock.sleep(wait.total_seconds())

    async def _wants_locating(self) -> bool:
        try:
            return await self.database.read(sweeps.has_unplaced_variants)
        except MirrorUnavailable:
            return True

    def _sweep_ended(self, summary: SweepSummary) -> None:
        self._trace(
            f"daemon: sweep {summary.sweep_id} {summary.result} {summary.failed_items}"
            f" {summary.error}"
        )
        if not summary.is_catalogue:
            return
        self.last_sweep = summary
        if summary.result == "complete":
            self.on_swept(summary)
        self._schedule.end_sweep(summary, self.clock.now())
        self._replanned.set()


def _cancelled() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def reader(path: Path) -> sqlite3.Connection:
    """Return a connection to the mirror with the rights of a shop."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
