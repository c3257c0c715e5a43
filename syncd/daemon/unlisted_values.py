"""Reports each value that `availability.sellable` does not list, once: it is not sellable."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from syncd.core.snapshots import UnknownValues
from syncd.daemon.services import Services
from syncd.errors import MirrorError
from syncd.store import Queries, reported_values

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 300.0
# The most values in one line of the log; the status names more.
MOST_IN_A_LINE = 20
# The most values that are stored as reported, the most frequent first.
MOST_STORED = 1000


class UnlistedValueReporter:
    """Searches the mirror for new values after each sweep, and every few minutes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Search soon."""
        self._woken.set()

    async def run(self) -> None:
        """Search after each `wake`, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), CHECK_EVERY_S)
            self._woken.clear()
            # The heartbeat reports errors of the mirror.
            with contextlib.suppress(MirrorError):
                await self._report_new()

    async def _report_new(self) -> None:
        unlisted = await asyncio.to_thread(self._count)
        values, database = list(unlisted.named), self._services.database
        if not await database.read(lambda db: reported_values.unreported(db, values)):
            return
        if new := await database.write(lambda db: reported_values.mark_reported(db, values)):
            log.warning(
                "not sold: availability.sellable does not list these values",
                variants={value: unlisted.named[value] for value in new[:MOST_IN_A_LINE]},
                values=len(new),
                less_frequent=unlisted.more,
                hint="add those that may be sold to availability.sellable, then reload",
            )

    def _count(self) -> UnknownValues:
        with contextlib.closing(Queries(self._services.config.mirror.path)) as queries:
            return queries.unknown_values(self._services.active.current.policy, MOST_STORED)
