"""Periodic work by elapsed time: the heartbeat, and the check of the clock.

APScheduler uses the wall clock: if the clock is set back by an hour, APScheduler starts no job for
an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from syncd.clock import CHECK_EVERY_S, sleep_unless_set
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.errors import MirrorError

log = structlog.get_logger(__name__)


class Ticker:
    """Calls `beat` every `every_s` seconds, and immediately after a jump of the clock."""

    def __init__(
        self,
        services: Services,
        schedule: Scheduler,
        beat: Callable[[], Awaitable[None]],
        *,
        every_s: float,
    ) -> None:
        self._services = services
        self._schedule = schedule
        self._beat = beat
        self._every_s = every_s
        self._soon = asyncio.Event()

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._every_s
        while True:
            wait_s = max(0.0, due_s - loop.time())
            await sleep_unless_set(self._services.clock, wait_s, self._soon)
            self._soon.clear()
            due_s = loop.time() + self._every_s
            try:
                await self._beat()
            except Exception:
                log.exception("a heartbeat failed with an unexpected error")

    async def watch_clock(self) -> None:
        """Check every second, until cancelled, whether the wall clock has jumped."""
        services, jumps = self._services, self._services.clock.jumps
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                await services.check_clock()
                if services.is_resuming and not services.is_waiting:
                    await self._schedule.resume()
            except MirrorError:
                pass  # the next heartbeat reports the error, and the next check tries again
            except Exception:
                log.exception("the check of the clock failed with an unexpected error")
            if services.clock.jumps != jumps:
                # Shops read the view `freshness`, so it must be right at once.
                jumps = services.clock.jumps
                self._soon.set()
