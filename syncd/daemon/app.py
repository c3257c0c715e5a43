"""The root: wires everything, starts it in order, and ends it so that nothing received is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

import structlog
from starlette.types import ASGIApp

from syncd import __version__, logs, running
from syncd.admin import app as admin
from syncd.config import Config
from syncd.config.reloading import with_fixed
from syncd.control import server as control_server
from syncd.core.jobs import SweepSummary
from syncd.core.timestamps import to_text
from syncd.daemon import systemd
from syncd.daemon.control_handlers import ControlHandlers
from syncd.daemon.heartbeat import Heartbeat
from syncd.daemon.listeners import Listeners
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.daemon.status_service import StatusService
from syncd.daemon.ticker import Ticker
from syncd.daemon.unlisted_values import UnlistedValueReporter
from syncd.errors import MirrorError, SyncdError
from syncd.http_server.limits import ConnectionLimiter, connections_for, raise_open_files
from syncd.http_server.refusals import Refusals
from syncd.http_server.server import HttpServer
from syncd.store.places import oddities
from syncd.webhook import endpoint

log = structlog.get_logger(__name__)

HEARTBEAT_S = 20.0
# All parts together; the unit's TimeoutStopSec is longer (a test adds them up).
LONGEST_STOP_S = 42.0


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
        self._keys = tuple(key.reveal() for key in config.keys)
        # Those of before, too: a key that was rotated out may still be valid elsewhere.
        self._secrets = config.secrets
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Event()
        self._owns_control_socket = False
        self._servers: list[HttpServer] = []
        self._refusals = {name: Refusals(name) for name in ("webhook", "admin", "control")}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._services = Services(config, on_finished=self._on_sweep_finished)
        self._schedule = Scheduler(self._services)
        self._unlisted_values = UnlistedValueReporter(self._services)
        self._webhook: endpoint.WebhookEndpoint
        self._heartbeat: Heartbeat
        self._status_service: StatusService

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises leaves of SyncdError when it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        # Early, or a reload that comes too soon would end the process.
        loop.add_signal_handler(signal.SIGHUP, self._reloading.set)
        # The mirror first: who holds it alone may take the sockets of the one before.
        if not await self._open():
            return
        try:
            listeners = Listeners(self._config, self._environ)
        except BaseException:
            await self._services.close()
            raise
        if (down := self._services.down) is not None:
            log.warning("I was down", since=to_text(down[0]), until=to_text(down[1]))
        for oddity in oddities(self._services.database.path):
            log.warning("the place of the mirror is odd", fault=oddity.told, hint=oddity.hint)
        self._webhook = endpoint.WebhookEndpoint(
            self._services.batch_writer,
            # Read for each delivery: after a reload the new keys hold at once.
            lambda: self._keys,
            self._services.clock.now,
            max_body_bytes=self._config.webhook.max_body_bytes,
            refusals=self._refusals["webhook"],
        )
        max_connections = connections_for(raise_open_files())
        self._heartbeat = Heartbeat(
            self._services, self._schedule, self._webhook, max_connections=max_connections
        )
        self._status_service = StatusService(
            self._services, self._heartbeat, self._webhook, refusals=self._refusals.values()
        )
        try:
            self._owns_control_socket = listeners.owns_control_socket
            limiter = ConnectionLimiter(time.monotonic, max_connections=max_connections)
            await self._serve(listeners, limiter)
            self._spawn(self._reload_when_asked())
            self._spawn(self._unlisted_values.run())
            await self._stopping.wait()
        finally:
            await self._stop()

    async def _open(self) -> bool:
        """Take the mirror; return False when stopped meanwhile: a migration may take minutes."""
        opening = asyncio.create_task(self._services.open())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if opening.done():
            await opening
            return True
        log.info("stopping")
        opening.cancel()
        await asyncio.wait({opening}, timeout=LONGEST_STOP_S)
        log.info("stopped")
        return False

    async def _serve(self, listeners: Listeners, limiter: ConnectionLimiter) -> None:
        config, status = self._config, self._status_service
        handlers = ControlHandlers(self._services)
        applications: dict[str, ASGIApp] = {
            "webhook": endpoint.application(self._webhook, config.webhook.path, self._is_healthy),
            "admin": admin.application(
                status.status,
                status.exposition,
                status.page,
                is_remote=listeners.is_admin_remote,
                refusals=self._refusals["admin"],
            ),
            "control": control_server.application(
                status.status,
                handlers.reconcile,
                handlers.replay,
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
        self._services.start_reading()
        await self._schedule.start()
        ticker = Ticker(
            self._services,
            self._schedule,
            self._beat,
            every_s=min(HEARTBEAT_S, systemd.watchdog_s(self._environ) or HEARTBEAT_S),
        )
        self._spawn(ticker.run())
        self._spawn(ticker.watch_clock())
        # What is loaded by now stays loaded; to look through all of it takes some 10 ms.
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
        """Show the shop and the service manager that the daemon lives."""
        await self._heartbeat.beat()
        # A mirror that refuses (a full disk) has answered; a writer that hangs never does.
        await self._services.database.ping()
        await self._schedule.pulse()
        await self._notify("WATCHDOG=1")

    async def _notify(self, note: str) -> None:
        """Tell the service manager; a mirror that cannot even be read does not silence us."""
        try:
            status = [await self._status_service.line()]
        except MirrorError:
            status = []
        systemd.notify(self._environ, note, *status)

    def _on_sweep_finished(self, summary: SweepSummary) -> None:
        names = ("sweep_id", "result", "items", "changed", "added", "removed", "missed", "calls")
        told = {name: getattr(summary, name) for name in (*names, "throttled", "seconds")}
        if summary.result == "complete":
            log.info("sweep ended", **told)
        else:
            log.warning(
                "sweep ended",
                **told,
                fault=summary.error or "some items could not be read",
                failed_items=summary.failed_items,
                held=summary.held,
            )
        self._schedule.sweep_ended(summary)
        self._unlisted_values.wake()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reloading.wait()
            self._reloading.clear()
            try:
                await self._on_reload()
            except Exception:
                log.exception("the reload failed for no known reason")

    async def _on_reload(self) -> None:
        systemd.notify_reloading(self._environ)
        try:
            config = await asyncio.to_thread(self._reload)
            config.require_keys()
            config, waiting = with_fixed(self._config, config)
            if waiting:
                log.warning("a restart is needed for these to take effect", keys=waiting)
            self._config = config
            self._keys = tuple(key.reveal() for key in config.keys)
            self._webhook.max_body_bytes = config.webhook.max_body_bytes
            self._secrets |= config.secrets
            logs.configure(config.log.level, config.log.format, secrets=self._secrets)
            await self._services.reconfigure(config)
            self._schedule.reload()
            self._unlisted_values.wake()
            log.info("reloaded", api_keys=f"{len(config.keys)} from {config.keys_from}")
        except MirrorError as fault:
            log.error(
                "the mirror could not be judged by the new configuration; reload again",
                fault=fault.message,
                hint=fault.hint,
            )
        except SyncdError as fault:
            log.error(
                "the new configuration is faulty; the old one stays in force",
                fault=fault.message,
                hint=fault.hint,
            )
        finally:
            await self._notify("READY=1")

    async def _stop(self) -> None:
        log.info("stopping")
        systemd.notify(self._environ, "STOPPING=1")
        self._schedule.stop()
        try:
            async with asyncio.timeout(LONGEST_STOP_S):
                await self._stop_parts()
        except TimeoutError:
            # What was answered is on disk; the rest ends as by a power cut.
            log.error("not everything ended in time", limit_s=LONGEST_STOP_S)
        log.info("stopped")

    async def _stop_parts(self) -> None:
        if self._servers:
            # The mirror is still open: what was accepted is answered with what became of it.
            await self._servers[0].drain()
        self._services.sweep_manager.close()
        await asyncio.gather(*(server.stop() for server in self._servers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._status_service.close()
        await self._heartbeat.close()
        if self._owns_control_socket:
            # While the mirror is still ours: the next daemon makes its own once it has it.
            self._config.control.socket.unlink(missing_ok=True)
        await self._services.close()

    def _is_healthy(self) -> bool:
        return self._webhook.write_error is None and not self._stopping.is_set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(config: Config, *, reload: Callable[[], Config]) -> None:
    """Serve in this process until told to end."""
    running.run(Daemon(config, reload=reload, environ=os.environ).run())
