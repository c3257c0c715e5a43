"""Reports once each value that `availability.sellable` does not list, and each new status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from syncd.clock import sleep_unless_set
from syncd.daemon.cached_queries import query_once
from syncd.daemon.services import Services
from syncd.errors import MirrorError
from syncd.store import Queries, reported_values
from syncd.store.reported_values import Kind

T = TypeVar("T")

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
            await sleep_unless_set(self._services.clock, CHECK_EVERY_S, self._woken)
            self._woken.clear()
            # The heartbeat reports errors of the mirror.
            with contextlib.suppress(MirrorError):
                await self._report_new()
                for kind in reported_values.ITEM_STATUSES:
                    await self._report_statuses(kind)

    async def _report_statuses(self, kind: Kind) -> None:
        """Report new statuses of items; the first ones of a kind are no news."""
        database = self._services.database
        counted = await self._query(
            lambda queries: queries.run(partial(reported_values.item_statuses, kind=kind)),
        )
        values = list(counted)
        if not await database.read(lambda db: reported_values.unreported(db, values, kind)):
            return
        is_first = not await database.read(lambda db: reported_values.has_reported(db, kind))
        new = await database.write(lambda db: reported_values.mark_reported(db, values, kind))
        if new and not is_first:
            log.warning(
                "items have a new status",
                kind=kind,
                items={value: counted[value] for value in new[:MOST_IN_A_LINE]},
                hint="if such items must not be sold, add the status to "
                "availability.blocked_item_statuses, then reload",
            )

    async def _report_new(self) -> None:
        policy = self._services.active.current.policy
        unlisted, sold = await self._query(
            lambda queries: (
                queries.unknown_values(policy, MOST_STORED),
                queries.sold_values(policy, MOST_IN_A_LINE),
            ),
        )
        values, database = list(unlisted.named), self._services.database
        if not await database.read(lambda db: reported_values.unreported(db, values)):
            return
        if new := await database.write(lambda db: reported_values.mark_reported(db, values)):
            log.warning(
                "not sold: availability.sellable does not list these values",
                variants={value: unlisted.named[value] for value in new[:MOST_IN_A_LINE]},
                values=len(new),
                sold=sold,
                less_frequent=unlisted.more,
                hint="add those that may be sold to availability.sellable, then reload",
            )

    async def _query(self, query: Callable[[Queries], T]) -> T:
        return await query_once(self._services.config.mirror.path, query)
