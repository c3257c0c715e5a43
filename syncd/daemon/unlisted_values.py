"""Values that `availability.sellable` does not list: not sold, and told once, with what to add."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from syncd.core.status import UnknownValues
from syncd.daemon.services import Services
from syncd.errors import MirrorError
from syncd.store import Queries, reported_values

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 300.0
# In one line of the log; the status names more of them.
TOLD_AT_ONCE = 20
# Remembered as told, the most frequent first.
MOST = 1000


class UnlistedValueReporter:
    """Looks through one mirror for new values after each sweep, and now and then."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look soon."""
        self._woken.set()

    async def run(self) -> None:
        """Look whenever woken, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_EVERY_S)
            self._woken.clear()
            # What is wrong with the mirror is told by whoever keeps watch over it.
            with contextlib.suppress(MirrorError):
                await self._look()

    async def _look(self) -> None:
        unlisted = await asyncio.to_thread(self._count)
        values, database = list(unlisted.named), self._services.database
        if not await database.read(lambda db: reported_values.unreported(db, values)):
            return
        if new := await database.write(lambda db: reported_values.mark_reported(db, values)):
            log.warning(
                "not sold: availability.sellable does not list these values",
                variants={value: unlisted.named[value] for value in new[:TOLD_AT_ONCE]},
                values=len(new),
                less_frequent=unlisted.more,
                hint="add those that may be sold to availability.sellable, then reload",
            )

    def _count(self) -> UnknownValues:
        with contextlib.closing(Queries(self._services.config.mirror.path)) as reports:
            return reports.unknown_values(self._services.active.current.policy, MOST)
