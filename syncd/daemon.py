"""The root: wires everything, starts it in order, and ends it so that nothing received is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncd import __version__, admin, control, logs, status, systemd, web, webhook_health
from syncd.config import Address, Config
from syncd.engine import Engine
from syncd.errors import MirrorError, SyncdError
from syncd.http_server import HttpServer, bind_tcp, bind_unix
from syncd.model import JsonObject
from syncd.ports import SweepProgress, SweepSummary
from syncd.reconcile import due_since, next_after_failure
from syncd.store import Beat, Reports
from syncd.webhook_health import WebhooksState

log = structlog.get_logger(__name__)

HEARTBEAT_S = 20.0
LOCATE_CHECK_S = 10.0
PRUNE_EVERY = timedelta(hours=1)
# So that many daemons do not sweep in the same second after Dreamship was down.
JITTER_SHARE = 0.1


class Daemon:
    """One process that serves deliveries and keeps the mirror equal to Dreamship.

    `reload` returns the configuration as it is in the file now; it may raise ConfigurationError.
    """

    def __init__(
        self, config: Config, *, reload: Callable[[], Config], environ: MutableMapping[str, str]
    ) -> None:
        self._config = config
        self._reload = reload
        self._environ = environ
        self._stopping = asyncio.Event()
        self._started_at = datetime.now(UTC)
        self._servers: list[HttpServer] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._webhooks_state: WebhooksState = "unknown"
        self._counted_401 = 0
        self._failures = 0
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self._engine = Engine(config, on_finished=self._on_sweep_finished)
        self._reading_lock = threading.Lock()
        self._reports: Reports

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises leaves of SyncdError when it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        sockets = self._bind()
        try:
            await self._engine.open()
        except BaseException:
            for bound in sockets.values():
                bound.close()
            raise
        self._reports = Reports(self._config.mirror.path)
        try:
            await self._serve(sockets)
            loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._on_reload()))
            await self._stopping.wait()
        finally:
            await self._stop()

    def _bind(self) -> dict[str, socket.socket]:
        handed = systemd.take_sockets(self._environ)
        config = self._config
        wanted: dict[str, Callable[[], socket.socket]] = {
            "webhook": lambda: _bound(config.webhook.listen, "webhook.listen"),
            "control": lambda: bind_unix(config.control.socket, key="control.socket"),
        }
        if (listen := config.admin.listen) is not None:
            wanted["admin"] = lambda: _bound(listen, "admin.listen")
        bound: dict[str, socket.socket] = {}
        try:
            for name, bind in wanted.items():
                bound[name] = handed.get(name) or bind()
        except BaseException:
            for one in bound.values():
                one.close()
            raise
        return bound

    async def _serve(self, sockets: dict[str, socket.socket]) -> None:
        engine, config = self._engine, self._config
        self._webhook = web.Webhook(
            engine.ingest,
            # Read for each delivery: after a reload the new keys hold at once.
            lambda: self._keys,
            engine.clock.now,
            max_body_bytes=config.webhook.max_body_bytes,
        )
        self._keys = tuple(key.reveal() for key in config.keys)
        applications = {
            "webhook": web.application(self._webhook, config.webhook.path, self._is_healthy),
            "admin": admin.application(self.status),
            "control": control.application(self.status, self._reconcile),
        }
        for name, bound in sockets.items():
            server = HttpServer(applications[name], bound)
            await server.start()
            self._servers.append(server)
            log.info("listening", listener=name, address=server.address)
        await self._beat()
        engine.start_reading()
        await self._schedule()
        log.info(
            "ready",
            version=__version__,
            webhook=config.webhook.path,
            mirror=str(config.mirror.path),
            keys=f"{len(config.keys)} from {config.keys_from}",
        )
        systemd.notify(self._environ, "READY=1", await self._status_line())

    async def _schedule(self) -> None:
        engine, config = self._engine, self._config
        remembered, now = engine.remembered, engine.clock.now()
        self._failures = remembered.failures
        resumed = await engine.store.open_catalogue_sweep() is not None
        due = due_since(remembered.complete_at, config.reconcile.every, now)
        if due or engine.is_new_policy:
            await engine.reconciler.request("start")
        if resumed:
            engine.reader.wake()
        self._scheduler.add_job(
            self._sweep,
            self._sweep_trigger(),
            id="sweep",
            next_run_time=now + config.reconcile.every
            if due or remembered.complete_at is None
            else remembered.complete_at + config.reconcile.every,
        )
        beat_s = min(HEARTBEAT_S, systemd.watchdog_s(self._environ) or HEARTBEAT_S)
        self._scheduler.add_job(self._beat, IntervalTrigger(seconds=beat_s))
        self._scheduler.add_job(self._locate, IntervalTrigger(seconds=LOCATE_CHECK_S))
        self._scheduler.add_job(self._prune, IntervalTrigger(seconds=PRUNE_EVERY.total_seconds()))
        self._scheduler.start()

    def _sweep_trigger(self) -> IntervalTrigger:
        reconcile = self._config.reconcile
        every = reconcile.every_when_silent if self._webhooks_state == "silent" else reconcile.every
        seconds = every.total_seconds()
        return IntervalTrigger(
            seconds=seconds, jitter=min(300, int(seconds * JITTER_SHARE)) or None
        )

    async def _sweep(self) -> None:
        await self._engine.reconciler.request("schedule")

    def _on_sweep_finished(self, summary: SweepSummary) -> None:
        told = {
            name: getattr(summary, name)
            for name in ("result", "items", "changed", "added", "removed", "missed", "calls")
        }
        log.info("sweep ended", sweep=summary.sweep_id, seconds=summary.seconds, **told)
        if not summary.is_catalogue or self._stopping.is_set():
            return
        job = self._scheduler.get_job("sweep")
        if summary.result == "complete":
            self._failures = 0
        elif job is not None:
            self._failures += 1
            wait = next_after_failure(self._failures, self._config.reconcile.every_when_silent)
            job.modify(next_run_time=min(job.next_run_time, datetime.now(UTC) + wait * _jittered()))

    async def _locate(self) -> None:
        """Sweep for variants whose item only the catalogue knows, but not all the time."""
        engine = self._engine
        if not await engine.store.wants_locating():
            return
        now = engine.clock.now()
        if self._located_at is None or due_since(
            self._located_at, self._config.reconcile.every_when_silent, now
        ):
            self._located_at = now
            await engine.reconciler.request("locate")

    _located_at: datetime | None = None

    async def _beat(self) -> None:
        """Show the shop and the service manager that the daemon lives."""
        engine, now = self._engine, self._engine.clock.now()
        day = await self._read(lambda r: r.last_day(now, self._config.reconcile.missed_grace))
        state = webhook_health.judge(day.missed_at, day.last_delivery_at)
        counted, self._counted_401 = self._uncounted_401, self._webhook.answered["401"]
        try:
            await engine.store.heartbeat(
                Beat(now, state, engine.source_clock.offset, {"invalid_signature": counted})
            )
            self._webhook.is_durable = True
        except MirrorError as fault:
            self._webhook.is_durable = False
            log.error("the mirror cannot be written", fault=fault.message, hint=fault.hint)
        if state != self._webhooks_state:
            log.info("webhooks", state=state, before=self._webhooks_state)
            self._webhooks_state = state
            if self._scheduler.running:
                self._scheduler.reschedule_job("sweep", trigger=self._sweep_trigger())
        systemd.notify(self._environ, "WATCHDOG=1", await self._status_line())

    async def _prune(self) -> None:
        retention, now = self._config.retention, self._engine.clock.now()
        while not self._stopping.is_set() and await self._engine.store.prune(  # noqa: ASYNC110
            deliveries_before=now - retention.deliveries,
            changes_before=now - retention.changes,
            now=now,
        ):
            await asyncio.sleep(0.05)  # not a poll but a pause: deliveries go first

    async def status(self) -> JsonObject:
        """Return the status document; raises MirrorError leaves when it cannot be read."""
        engine, now = self._engine, self._engine.clock.now()
        progress = await engine.reconciler.progress()
        job = self._scheduler.get_job("sweep")
        running = status.Running(
            mirror_path=str(self._config.mirror.path),
            started_at=self._started_at,
            is_durable=self._is_healthy(),
            webhooks_state=self._webhooks_state,
            refused=engine.reader.refused,
            unreachable=engine.reader.unreachable,
            progress=progress,
            eta=None if progress is None else engine.reconciler.eta(progress),
            next_sweep_at=None if job is None else job.next_run_time,
            calls_per_minute=self._config.dreamship.calls_per_minute,
            used_last_minute=engine.budget.used_last_minute,
            invalid_signatures=self._uncounted_401,
        )
        counts = await self._read(Reports.counts)
        grace = self._config.reconcile.missed_grace
        day = await self._read(lambda reports: reports.last_day(now, grace))
        return status.document(running, counts, day, engine.reader.policy)

    async def _status_line(self) -> str:
        progress = await self._engine.reconciler.progress()
        sweep = "" if progress is None else f"; sweep {progress.checked}/{progress.total or '?'}"
        return f"STATUS=webhooks {self._webhooks_state}{sweep}"

    async def _reconcile(self, items: list[int]) -> AsyncIterator[control.Progress | SweepSummary]:
        reconciler = self._engine.reconciler
        sweep_id, joined = await reconciler.request("operator", items=items or None)
        told: asyncio.Queue[SweepProgress] = asyncio.Queue()
        waiting = asyncio.create_task(reconciler.wait(sweep_id, tell=told.put_nowait))
        try:
            while not waiting.done() or not told.empty():
                getting = asyncio.create_task(told.get())
                await asyncio.wait({getting, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    continue
                progress = getting.result()
                eta = reconciler.eta(progress)
                yield control.Progress(
                    progress.checked,
                    progress.total,
                    None if eta is None else eta.total_seconds(),
                    joined,
                )
            yield waiting.result()
        finally:
            waiting.cancel()

    async def _on_reload(self) -> None:
        systemd.notify(self._environ, "RELOADING=1")
        try:
            config = await asyncio.to_thread(self._reload)
            config.require_keys()
            fixed = _fixed_until_restart(self._config, config)
            if fixed:
                log.warning("a restart is needed for these to take effect", keys=fixed)
            self._config = config
            self._keys = tuple(key.reveal() for key in config.keys)
            self._webhook.max_body_bytes = config.webhook.max_body_bytes
            logs.configure(config.log.level, config.log.format, secrets=self._keys)
            await self._engine.reconfigure(config)
            self._scheduler.reschedule_job("sweep", trigger=self._sweep_trigger())
            log.info("reloaded", keys=f"{len(config.keys)} from {config.keys_from}")
        except SyncdError as fault:
            log.error(
                "the new configuration is faulty; the old one stays in force",
                fault=fault.message,
                hint=fault.hint,
            )
        finally:
            systemd.notify(self._environ, "READY=1", await self._status_line())

    async def _stop(self) -> None:
        log.info("stopping")
        systemd.notify(self._environ, "STOPPING=1")
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._servers:
            # The mirror is still open: what was accepted is answered with what became of it.
            await self._servers[0].drain()
        self._engine.reconciler.close()
        for server in self._servers:
            await server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reports.close()
        await self._engine.close()
        log.info("stopped")

    def _is_healthy(self) -> bool:
        return self._webhook.is_durable and not self._stopping.is_set()

    @property
    def _uncounted_401(self) -> int:
        return self._webhook.answered["401"] - self._counted_401

    async def _read(self, question: Callable[[Reports], Any]) -> Any:
        """Ask the mirror in a thread of its own, one question at a time."""

        def ask() -> Any:
            with self._reading_lock:
                return question(self._reports)

        return await asyncio.to_thread(ask)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bound(address: Address, key: str) -> socket.socket:
    if address.kind == "unix":
        return bind_unix(Path(address.path), key=key, mode=0o666)
    return bind_tcp(address.host, address.port, key=key)


def _fixed_until_restart(before: Config, after: Config) -> list[str]:
    pairs = {
        "webhook.listen": (before.webhook.listen, after.webhook.listen),
        "webhook.path": (before.webhook.path, after.webhook.path),
        "mirror.path": (before.mirror.path, after.mirror.path),
        "admin.listen": (before.admin.listen, after.admin.listen),
        "control.socket": (before.control.socket, after.control.socket),
    }
    return [key for key, (old, new) in pairs.items() if old != new]


def _jittered() -> float:
    return 1 + random.random() * JITTER_SHARE  # noqa: S311 - no secret


def run(config: Config, *, reload: Callable[[], Config]) -> None:
    """Serve in this process until told to end."""
    import uvloop  # noqa: PLC0415 - only the daemon needs it, and it takes a while to load

    async def main() -> None:
        await Daemon(config, reload=reload, environ=os.environ).run()

    uvloop.run(main())
