"""Watches the file of the listings, and the results of sweeps about its SKUs."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from syncd.clock import sleep_unless_set
from syncd.core.jobs import SweepSummary
from syncd.daemon.services import Services
from syncd.errors import MirrorError

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 60.0
# How often to look whether variants were removed, or are to be searched again.
LOOK_AGAIN = timedelta(minutes=10)


class ListingsWatch:
    """Loads the listings when their file has changed, and mirrors the items that they need."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._woken = asyncio.Event()
        self._looked_at: datetime | None = None
        self._complete_began_at: datetime | None = None

    def sweep_ended(self, summary: SweepSummary) -> None:
        """Look soon at the SKUs that a complete sweep of the catalogue did not find."""
        policy = self._services.active.current.policy
        is_of_known_items = policy.is_listed_only and policy.wanted is None
        if summary.is_catalogue and summary.result == "complete" and not is_of_known_items:
            self._complete_began_at = summary.began_at
            self._woken.set()

    async def run(self) -> None:
        """Check every minute, and after each sweep, until cancelled."""
        while True:
            try:
                await self._check()
            except MirrorError:
                pass  # the heartbeat reports it, and the next check tries again
            except Exception:
                log.exception("the check of the listings failed with an unexpected error")
            await sleep_unless_set(self._services.clock, CHECK_EVERY_S, self._woken)
            self._woken.clear()

    async def _check(self) -> None:
        services, listings = self._services, self._services.listings
        path = services.config.catalog.listings
        has_changed = await listings.load(path, is_awaited=False)
        if path is None:
            return
        if (began_at := self._complete_began_at) is not None:
            await listings.mark_not_found(began_at)
            self._complete_began_at = None
            has_changed = True
        now = services.clock.now()
        is_due = self._looked_at is None or not (timedelta() <= now - self._looked_at < LOOK_AGAIN)
        if has_changed or is_due:
            await services.use_listings()
            await listings.look_for_dead()
            self._looked_at = now
