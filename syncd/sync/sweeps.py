"""Sweeps: which request begins one, which request joins one, and the progress of each.

A sweep reads every item of the mirrored catalogue once, the oldest first. The mirror stores the
items that are left, so a restart continues the sweep. `worker` makes the reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

import structlog

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig, RuntimeConfig
from syncd.core import pagination
from syncd.core.jobs import SweepCause, SweepProgress, SweepSummary
from syncd.core.pagination import Position
from syncd.errors import DaemonAbsent, Overloaded, SyncdError, UsageError
from syncd.store import Database, sweep_results, sweeps
from syncd.store.sweeps import OpenSweep
from syncd.sync.background import BackgroundReading
from syncd.sync.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

POLL_S = 0.25
# Items that one request may name: 22 minutes of calls, and more than an operator names by hand.
MAX_ITEMS = 1_000
# Items of all open requests together, and open requests. A user of the control socket may not be
# trusted, and each item needs one call of the shop's budget.
MAX_WAITING_ITEMS = 2_000
MAX_REQUESTS = 100


def require_few(items: Collection[int]) -> None:
    """Raise UsageError if one request names too many items."""
    if len(set(items)) > MAX_ITEMS:
        raise UsageError(
            f"{len(set(items))} items are named; one request may name {MAX_ITEMS}",
            hint="name fewer, or none: `syncd reconcile-now` reads the whole mirrored catalogue",
        )


class SweepManager:
    """Begins sweeps, only one of the whole catalogue at a time, and reports their progress."""

    def __init__(
        self,
        database: Database,
        rate_limiter: RateLimiter,
        clock: Clock,
        active: ActiveConfig,
        *,
        background: BackgroundReading,
        on_begun: Callable[[SweepCause], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._active = active
        self._background = background
        self._on_begun = on_begun
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    async def request(
        self,
        cause: SweepCause,
        *,
        items: Collection[int] | None = None,
        accept_removals: bool = False,
    ) -> tuple[int, bool]:
        """Return the sweep that fulfils a request, and whether the request joined an open sweep.

        A request for `items` begins a sweep of its own. There is only one sweep of the catalogue:
        a scheduled request joins it, and a more urgent one makes it faster. The request of an
        operator joins a sweep of an operator, but replaces a scheduled one, because "now" means
        that each item is read from now on. `accept_removals`: every variant that the sweep does not
        find is removed.

        Raises UsageError if too many items are named, and Overloaded if too many wait already; then
        no sweep begins.
        """
        require_few(items or ())
        async with self._one_at_a_time:
            if items is not None:
                await self._require_room(len(set(items)))
            elif (running := await self._database.read(sweeps.open_catalogue_sweep)) is not None:
                if cause != "operator" or running.cause == "operator":
                    await self._join(running, cause, accept_removals=accept_removals)
                    return running.sweep_id, True
                await self._drop(running.sweep_id)
            current = self._active.current
            is_paced = cause == "schedule" and self._background.full_rate > 0
            begin = partial(
                sweeps.begin,
                cause=cause,
                now=self._clock.now(),
                items=current.items if items is None else items,
                is_catalogue=items is None,
                position=None if items is not None else _first_position(current),
                accepts_removals=accept_removals,
                is_paced=is_paced,
            )
            sweep_id = await self._database.write(begin)
        # A sweep in the background is no event: there may be hundreds a day.
        log.log(
            logging.DEBUG if is_paced else logging.INFO,
            "sweep begins",
            sweep_id=sweep_id,
            cause=cause,
            item_ids="all" if items is None else sorted(items),
            accept_removals=accept_removals,
        )
        self._on_begun(cause)
        return sweep_id, False

    async def _join(self, running: OpenSweep, cause: SweepCause, *, accept_removals: bool) -> None:
        sweep_id = running.sweep_id
        if accept_removals:
            await self._database.write(lambda db: sweeps.accept_removals(db, sweep_id))
        is_urgent = cause != "schedule" or not self._background.full_rate
        if running.is_paced and is_urgent:
            await self.hurry()
            self._on_begun(cause)

    async def hurry(self) -> None:
        """Let the sweep that runs use all calls."""
        await self._database.write(sweeps.hurry)

    async def _require_room(self, more: int) -> None:
        requests, waiting = await self._database.read(sweeps.named_items)
        if requests >= MAX_REQUESTS or waiting + more > MAX_WAITING_ITEMS:
            raise Overloaded(
                f"{waiting} items of {requests} other requests are still to be read; "
                f"{MAX_WAITING_ITEMS} of {MAX_REQUESTS} requests may wait",
                hint="try again later, or name no item to read the whole mirrored catalogue",
            )

    async def restart(self) -> None:
        """Begin the catalogue sweep again, because the mirrored catalogue has changed."""
        async with self._one_at_a_time:
            running = await self._database.read(sweeps.open_catalogue_sweep)
            if running is not None:
                await self._drop(running.sweep_id)
        await self.request("start")

    async def progress(self, sweep_id: int | None = None) -> SweepProgress | None:
        """Return the progress of a sweep (None: of the catalogue); None if it is not open."""
        if sweep_id is None:
            running = await self._database.read(sweeps.open_catalogue_sweep)
            if running is None:
                return None
            sweep_id = running.sweep_id
        return await self._progress_of(sweep_id)

    def eta(self, progress: SweepProgress) -> timedelta | None:
        """Return how long a sweep still takes; None while the number of items is unknown."""
        if progress.total is None:
            return None
        rate = self._background.rate if progress.is_paced else self._rate_limiter.per_minute
        paced = timedelta(minutes=progress.remaining_calls / max(1.0, rate))
        if progress.checked == 0:
            return paced
        so_far: timedelta = self._clock.now() - progress.began_at
        return max(paced, so_far / progress.checked * (progress.total - progress.checked))

    def close(self) -> None:
        """End each `wait`: the sweep continues after the next start of the daemon."""
        self._closed = True

    async def wait(
        self, sweep_id: int, *, on_progress: Callable[[SweepProgress], None] = lambda _: None
    ) -> SweepSummary:
        """Return the results of a sweep once it has ended; report its progress until then."""
        while (progress := await self._progress_of(sweep_id)) is not None:
            if self._closed:
                raise DaemonAbsent(
                    "the daemon is stopping", hint="the sweep continues after the next start"
                )
            on_progress(progress)
            await self._clock.sleep(POLL_S)
        summary = await self._database.read(lambda db: sweep_results.summary(db, sweep_id))
        if summary is None:
            raise SyncdError(
                "the sweep was replaced by another one before it ended",
                hint="run `syncd reconcile-now` again",
            )
        return summary

    async def _progress_of(self, sweep_id: int) -> SweepProgress | None:
        return await self._database.read(lambda db: sweeps.progress(db, sweep_id))

    async def _drop(self, sweep_id: int) -> None:
        policy, now = self._active.current.policy, self._clock.now()
        await self._database.write(lambda db: sweeps.drop(db, sweep_id, policy, now))
        log.info("sweep replaced by a new one", sweep_id=sweep_id)


def _first_position(config: RuntimeConfig) -> Position | None:
    """Return where a sweep begins to list; None if it reads only the configured items."""
    return pagination.first(config.categories) if config.lists_items else None
