"""Lets a daemon wait while the daemon of another host is active, and makes it active afterwards.

The lease of the published source (`publish/lease.py`) decides the turn. A daemon that waits
takes no deliveries, asks Dreamship nothing and sends no pushes. Its mirror can be read.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from syncd.clock import CHECK_EVERY_S
from syncd.core.lease import pause_s
from syncd.daemon.outputs import Outputs
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.errors import MirrorError, NotActive
from syncd.store import process_state

log = structlog.get_logger(__name__)

AGAIN_S = 2.0


class Standby:
    """Begins and ends the work of the active daemon as its turn changes."""

    def __init__(self, services: Services, schedule: Scheduler, outputs: Outputs) -> None:
        self._services = services
        self._schedule = schedule
        self._outputs = outputs
        self._turn = outputs.publication.turn
        self._pause_s = pause_s(outputs.publication.lease_s)
        self._ran_at_s = services.clock.elapsed_s()
        self._changed = asyncio.Event()
        self._is_serving = False

    @property
    def is_active(self) -> bool:
        """Whether a delivery may be answered 200 now.

        After a pause of the process, another daemon may have the lease. So the lease is checked
        before the next delivery is taken.
        """
        self._notice_pause()
        return self._turn.is_active

    def require(self) -> None:
        """Raise NotActive while this daemon waits."""
        if not self._turn.is_active:
            host = self._outputs.publication.active_host
            raise NotActive(
                f"this syncd waits: {host or 'another host'} has the lease of the published source",
                hint="run the command there, or run `syncd publish take-over` here",
            )

    async def start(self) -> None:
        """Begin with the work if it is this daemon's turn; `run` follows the changes."""
        loop = asyncio.get_running_loop()
        self._ran_at_s = self._services.clock.elapsed_s()
        self._turn.on_change = partial(loop.call_soon_threadsafe, self._changed.set)
        if self._turn.is_active:
            self._is_serving = True
            self._services.start_reading()
        else:
            self._services.is_waiting = True
            log.info("this daemon waits", active_host=self._outputs.publication.active_host)
        await self._schedule.start()
        if self._is_serving:
            await self._outputs.pushes.start()

    async def run(self) -> None:
        """Follow the turn until cancelled."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._follow_changes()
        finally:
            watching.cancel()

    async def _follow_changes(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._follow()
            except MirrorError as error:
                log.error("the mirror cannot be used", error=error.message, hint=error.hint)
                await asyncio.sleep(AGAIN_S)
                self._changed.set()
            except Exception:
                log.exception("a change of the active host failed with an unexpected error")
                await asyncio.sleep(AGAIN_S)
                self._changed.set()

    async def _watch(self) -> None:
        """Notice pauses of the process, until cancelled."""
        while True:
            self._notice_pause()
            self._ran_at_s = self._services.clock.elapsed_s()
            await asyncio.sleep(CHECK_EVERY_S)

    def _notice_pause(self) -> None:
        if self._services.clock.elapsed_s() - self._ran_at_s > self._pause_s:
            self._outputs.publication.check()

    async def _follow(self) -> None:
        state = self._turn.state
        if state == "active" and not self._is_serving:
            await self._begin()
        elif state in {"waiting", "copying"} and self._is_serving:
            await self._end()

    async def _begin(self) -> None:
        services = self._services
        now = services.clock.now()
        # Until now deliveries could not arrive here, so no earlier change is a missed one.
        await services.database.write(lambda db: process_state.mark_accepting(db, now))
        services.fetcher.accepting_since = now
        services.is_waiting = False
        self._is_serving = True
        log.info("this daemon is active now")
        services.start_reading()
        # This mirror lacks the deliveries that another daemon took and did not publish.
        services.is_resuming = True
        await self._schedule.resume()
        await self._outputs.pushes.start()

    async def _end(self) -> None:
        services = self._services
        services.is_waiting = True
        self._is_serving = False
        log.warning(
            "this daemon waits: another one is active",
            active_host=self._outputs.publication.active_host,
        )
        await self._outputs.pushes.close()
        await services.stop_reading()
