"""The daemon: wires all parts, starts them in order, and stops them without losing a delivery."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp

from syncd import __version__, running
from syncd.admin import app as admin
from syncd.config import Config
from syncd.control import server as control_server
from syncd.core.jobs import SweepSummary
from syncd.core.timestamps import to_text
from syncd.daemon import fill_progress, systemd
from syncd.daemon.control_handlers import ControlHandlers
from syncd.daemon.heartbeat import HEARTBEAT_S, Heartbeat
from syncd.daemon.listeners import Listeners
from syncd.daemon.listings_watch import ListingsWatch
from syncd.daemon.outputs import Outputs
from syncd.daemon.reloader import Reloader
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.daemon.standby import Standby
from syncd.daemon.status_service import StatusService
from syncd.daemon.ticker import Ticker
from syncd.daemon.unlisted_values import UnlistedValueReporter
from syncd.errors import MirrorError
from syncd.http_server.limits import ConnectionLimiter, connections_for, raise_open_files
from syncd.http_server.refusals import Refusals
from syncd.http_server.server import HttpServer
from syncd.store.places import place_warnings
from syncd.webhook import endpoint

log = structlog.get_logger(__name__)

# For all parts together; the unit's TimeoutStopSec is longer (a test adds them up).
LONGEST_STOP_S = 42.0


class Signals:
    """The signals that a daemon gets, as events."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.reloading = asyncio.Event()

    def catch(self) -> None:
        """Set the events from now on; without this, SIGHUP ends a process that starts."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.reloading.set)


class Daemon:
    """One process that serves deliveries and keeps the mirror equal to Dreamship.

    `reload` returns the configuration in the file; it may raise ConfigurationError.
    """

    def __init__(
        self,
        services: Services,
        listeners: Listeners,
        signals: Signals,
        *,
        reload: Callable[[], Config],
        environ: MutableMapping[str, str],
    ) -> None:
        self._services = services
        self._listeners = listeners
        self._signals = signals
        self._environ = environ
        self._servers: list[HttpServer] = []
        self._refusals = {name: Refusals(name) for name in ("webhook", "admin", "control")}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._max_connections = connections_for(raise_open_files())
        self._schedule = Scheduler(services)
        self._unlisted_values = UnlistedValueReporter(services)
        self._listings_watch = ListingsWatch(services)
        self._outputs = Outputs(services.database, services.clock, services.active)
        self._standby = Standby(services, self._schedule, self._outputs)
        self._webhook = endpoint.WebhookEndpoint(
            services.batch_writer,
            # Read for each delivery, so that new keys work at once after a reload.
            lambda: services.active.current.keys,
            services.clock.now,
            max_body_bytes=lambda: services.config.webhook.max_body_bytes,
            refusals=self._refusals["webhook"],
            is_active=lambda: self._standby.is_active,
        )
        self._beat_s = min(HEARTBEAT_S, systemd.watchdog_s(environ) or HEARTBEAT_S)
        self._heartbeat = Heartbeat(
            services,
            self._schedule,
            self._webhook,
            outputs=self._outputs,
            every_s=self._beat_s,
            max_connections=self._max_connections,
        )
        self._status_service = StatusService(
            services, self._heartbeat, self._webhook, refusals=self._refusals.values()
        )
        self._reloader = Reloader(
            services,
            self._schedule,
            self._unlisted_values,
            self._outputs,
            self._status_service.live,
            load=reload,
            notify_ready=lambda: self._notify("READY=1"),
            environ=environ,
        )
        services.follow_sweeps(self._on_sweep_finished)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and close the services."""
        try:
            limiter = ConnectionLimiter(time.monotonic, max_connections=self._max_connections)
            await self._serve(self._listeners, limiter)
            self._spawn(self._reloader.run(self._signals.reloading))
            self._spawn(self._unlisted_values.run())
            self._spawn(self._listings_watch.run())
            self._spawn(fill_progress.run(self._services))
            await self._signals.stopping.wait()
        finally:
            await self._stop()

    async def _serve(self, listeners: Listeners, limiter: ConnectionLimiter) -> None:
        config, status = self._services.config, self._status_service
        handlers = ControlHandlers(self._services, self._outputs.pushes, self._standby.require)
        await self._outputs.publication.start()
        applications: dict[str, ASGIApp] = {
            "webhook": endpoint.application(self._webhook, config.webhook.path, self._is_healthy),
            "admin": admin.application(
                status.status,
                status.exposition,
                status.page,
                status.error_page,
                live=status.live,
                is_remote=listeners.is_admin_remote,
                refusals=self._refusals["admin"],
            ),
            "control": control_server.application(
                *(status.status, handlers.reconcile, handlers.replay, handlers.push),
                refusals=self._refusals["control"],
            ),
        }
        modules = {"webhook": endpoint, "admin": admin, "control": control_server}
        for name, bound in listeners.sockets.items():
            server = HttpServer(
                applications[name],
                bound,
                limiter=limiter,
                refusals=self._refusals[name],
                headers_read=modules[name].HEADERS_READ,
            )
            await server.start()
            self._servers.append(server)
            log.info("listening", listener=name, address=server.address)
        await self._heartbeat.beat()
        await self._standby.start()
        self._spawn(self._standby.run())
        ticker = Ticker(self._services, self._schedule, self._beat, every_s=self._beat_s)
        self._spawn(ticker.run())
        self._spawn(ticker.watch_clock())
        # All objects up to now stay in memory; the garbage collector takes about 10 ms for them.
        gc.freeze()
        log.info(
            "ready",
            version=__version__,
            webhook=config.webhook.path,
            mirror=str(config.mirror.path),
            api_keys=f"{len(config.keys)} from {config.keys_from}",
        )
        await self._notify("READY=1")
        await status.prepare()

    async def _beat(self) -> None:
        """Show the shop and the service manager that the daemon works."""
        await self._heartbeat.beat()
        # A mirror with an error (a full disk) still answers; a write thread that hangs does not.
        await self._services.database.ping()
        await self._schedule.ping()
        await self._notify("WATCHDOG=1")

    async def _notify(self, message: str) -> None:
        """Notify the service manager, also if the mirror cannot be read."""
        try:
            status = [await self._status_service.line()]
        except MirrorError:
            status = []
        systemd.notify(self._environ, message, *status)

    def _on_sweep_finished(self, summary: SweepSummary) -> None:
        names = ("sweep_id", "result", "items", "changed", "added", "removed", "missed", "calls")
        details = {name: getattr(summary, name) for name in (*names, "throttled", "seconds")}
        if summary.result == "complete":
            log.log(logging.INFO if summary.is_event else logging.DEBUG, "sweep ended", **details)
        else:
            log.warning(
                "sweep ended",
                **details,
                error=summary.error or "some items could not be read",
                failed_items=summary.failed_items,
                removals_held=summary.removals_held,
            )
        self._schedule.sweep_ended(summary)
        self._unlisted_values.wake()
        self._listings_watch.sweep_ended(summary)

    async def _stop(self) -> None:
        log.info("stopping")
        systemd.notify(self._environ, "STOPPING=1")
        self._status_service.live.close()
        self._schedule.stop()
        try:
            async with asyncio.timeout(LONGEST_STOP_S):
                await self._stop_parts()
        except TimeoutError:
            # Answered deliveries are on disk; the rest ends like in a power failure.
            log.error("not everything ended in time", limit_s=LONGEST_STOP_S)
        log.info("stopped")

    async def _stop_parts(self) -> None:
        if self._servers:
            # The mirror is still open, so accepted requests are answered with their results.
            await self._servers[0].drain()
        self._services.sweep_manager.close()
        await asyncio.gather(*(server.stop() for server in self._servers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._status_service.close()
        await asyncio.gather(self._heartbeat.close(), self._outputs.close())
        if self._listeners.owns_control_socket:
            # While it has the lock: the next daemon creates its socket after it has the lock.
            self._services.config.control.socket.unlink(missing_ok=True)
        await self._services.close()

    def _is_healthy(self) -> bool:
        is_stored = self._webhook.write_error is None and not self._signals.stopping.is_set()
        return is_stored and self._standby.is_active

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._tasks.discard)


async def serve(
    config: Config, *, reload: Callable[[], Config], environ: MutableMapping[str, str]
) -> None:
    """Serve until SIGTERM or SIGINT; raises SyncdErrors if the daemon cannot start."""
    signals = Signals()
    signals.catch()
    # The mirror first: the process with its lock may take the sockets of the process before it.
    services = await _open(config, signals.stopping)
    if services is None:
        return
    try:
        listeners = Listeners(config, environ)
    except BaseException:
        await services.close()
        raise
    if (down := services.down) is not None:
        log.warning("the daemon was down", since=to_text(down[0]), until=to_text(down[1]))
    for warning in place_warnings(services.database.path):
        log.warning(
            "the place of the mirror may not suit shops", error=warning.message, hint=warning.hint
        )
    await Daemon(services, listeners, signals, reload=reload, environ=environ).run()


async def _open(config: Config, stopping: asyncio.Event) -> Services | None:
    """Open the services; return None if a signal ends the start: a migration may take minutes."""
    opening = asyncio.create_task(Services.open(config))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if opening.done():
        return await opening
    log.info("stopping")
    opening.cancel()
    await asyncio.wait({opening}, timeout=LONGEST_STOP_S)
    log.info("stopped")
    return None


def run(config: Config, *, reload: Callable[[], Config]) -> None:
    """Serve in this process until a signal ends it."""
    running.run(serve(config, reload=reload, environ=os.environ))
