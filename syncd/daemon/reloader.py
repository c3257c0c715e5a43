"""Reloads the configuration after a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping

import structlog

from syncd import logs
from syncd.admin.live import LiveUpdates
from syncd.config import Config
from syncd.config.reloading import with_fixed
from syncd.daemon import systemd
from syncd.daemon.outputs import Outputs
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.daemon.unlisted_values import UnlistedValueReporter
from syncd.errors import MirrorError, SyncdError

log = structlog.get_logger(__name__)


class Reloader:
    """Applies a new configuration; an invalid one is reported, and changes nothing.

    `load` returns the configuration in the file; it may raise ConfigurationError. `notify_ready`
    reports the end of the reload to the service manager.
    """

    def __init__(
        self,
        services: Services,
        schedule: Scheduler,
        unlisted_values: UnlistedValueReporter,
        outputs: Outputs,
        live: LiveUpdates,
        *,
        load: Callable[[], Config],
        notify_ready: Callable[[], Awaitable[None]],
        environ: MutableMapping[str, str],
    ) -> None:
        self._services = services
        self._schedule = schedule
        self._unlisted_values = unlisted_values
        self._outputs = outputs
        self._live = live
        self._load = load
        self._notify_ready = notify_ready
        self._environ = environ
        # Earlier keys too: a key that was replaced here may still be valid elsewhere.
        self._secrets = services.config.secrets

    async def run(self, requested: asyncio.Event) -> None:
        """Reload at each request, until cancelled."""
        while True:
            await requested.wait()
            requested.clear()
            try:
                await self._reload()
            except Exception:
                log.exception("the reload failed with an unexpected error")

    async def _reload(self) -> None:
        systemd.notify_reloading(self._environ)
        self._live.end()
        try:
            config = await asyncio.to_thread(self._load)
            config.require_keys()
            config, waiting = with_fixed(self._services.config, config)
            if waiting:
                log.warning("a restart is needed for these to take effect", keys=waiting)
            self._secrets |= config.secrets
            logs.configure(config.log.level, config.log.format, secrets=self._secrets)
            try:
                await self._services.reconfigure(config)
            finally:
                # The new configuration is in force, also if the mirror could not follow yet.
                await self._outputs.reconfigure()
            self._schedule.reload()
            self._unlisted_values.wake()
            log.info("reloaded", api_keys=f"{len(config.keys)} from {config.keys_from}")
        except MirrorError as error:
            log.error(
                "the new configuration could not be applied to the mirror; reload again",
                error=error.message,
                hint=error.hint,
            )
        except SyncdError as error:
            log.error(
                "the new configuration is invalid; the old one stays in force",
                error=error.message,
                hint=error.hint,
            )
        finally:
            await self._notify_ready()
