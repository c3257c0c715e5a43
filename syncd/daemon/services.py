"""The parts that fill and update a mirror: for the daemon, and for a command without a daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

import structlog

from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.config.runtime import ActiveConfig
from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepProgress, SweepSummary
from syncd.core.timestamps import to_text
from syncd.daemon import recovery
from syncd.daemon.listings import Listings
from syncd.daemon.policy_updates import PolicyUpdates
from syncd.dreamship.remote_clock import RemoteClock
from syncd.dreamship.replaceable_source import ReplaceableSource, client_for
from syncd.dreamship.source import Source
from syncd.errors import MirrorError, MirrorUnavailable
from syncd.store import Database, process_state, sweeps
from syncd.store.process_state import SavedState
from syncd.store.reapply_policy import reapply
from syncd.sync.background import BackgroundReading
from syncd.sync.dry_run import DryRun
from syncd.sync.fetcher import Fetcher
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.sweeps import SweepManager
from syncd.sync.worker import SyncWorker
from syncd.webhook.batch_writer import BatchWriter

log = structlog.get_logger(__name__)

SweepListener = Callable[[SweepSummary], None]


@dataclass(kw_only=True, eq=False)
class Services:
    """The parts of one process, all ready for use. `open` creates them, `async with` closes them.

    `down`: when the process did not run, until a complete sweep has begun since. `is_resuming`: a
    sweep has to begin because of that. `is_waiting`: the daemon of another host is active.
    """

    active: ActiveConfig
    listings: Listings
    clock: SteadyClock
    database: Database
    saved_state: SavedState
    is_new_policy: bool
    remote_clock: RemoteClock
    rate_limiter: RateLimiter
    background: BackgroundReading
    source: Source
    fetcher: Fetcher
    worker: SyncWorker
    batch_writer: BatchWriter
    sweep_manager: SweepManager
    policy_updates: PolicyUpdates
    down: tuple[datetime, datetime] | None
    is_resuming: bool
    _sweep_listeners: list[SweepListener]
    is_waiting: bool = field(default=False, init=False)
    _reading: asyncio.Task[None] | None = field(default=None, init=False)

    @classmethod
    async def open(
        cls,
        config: Config,
        *,
        clock: SteadyClock | None = None,
        source: Source | None = None,
        database: Database | None = None,
    ) -> Services:
        """Open the mirror and continue where the last process ended; raises MirrorErrors.

        Nothing stays open after an error or a cancellation. Simulations have their own clock,
        source and database.
        """
        if source is None:
            config.require_keys()
        database = database or Database(config.mirror.path)
        try:
            await database.open_in_thread()
            return await cls._build(config, database, clock or SteadyClock(), source)
        except BaseException:
            await asyncio.to_thread(database.close)
            raise

    @classmethod
    async def _build(
        cls, config: Config, database: Database, clock: SteadyClock, source: Source | None
    ) -> Services:
        jump = await recovery.follow_absence(database, clock, config.reconcile.missed_grace)
        listings = Listings(database, clock)
        with contextlib.suppress(MirrorUnavailable):  # the watch of the file tries again
            await listings.load(config.catalog.listings)
        active = ActiveConfig(config, await listings.items_for(config))
        now, policy = clock.now(), active.current.policy
        saved_state = await database.read(lambda db: process_state.restore(db, now))
        if saved_state.accepting_since is None:
            await database.write(lambda db: process_state.mark_accepting(db, now))
        await recovery.end_excess(database, now, policy)
        is_new_policy = await reapply(database, policy, clock.now)
        remote_clock = RemoteClock(clock, saved_state.clock_offset)
        pace = saved_state.pace(config.dreamship.calls_per_minute, now)
        background_rate = config.reconcile.background_calls_per_minute
        rate_limiter = RateLimiter(database, clock, pace, background=background_rate)
        background = BackgroundReading(database, rate_limiter, active, clock)
        if not background_rate:
            await database.write(sweeps.hurry)
        source = source or ReplaceableSource(client_for(config, clock.now))
        listeners: list[SweepListener] = []
        fetcher = Fetcher(
            database,
            source,
            rate_limiter,
            active,
            clock=clock,
            remote_clock=remote_clock,
            accepting_since=saved_state.accepting_since,
            on_finished=lambda summary: _call(listeners, summary),
        )
        worker = SyncWorker(database, fetcher, rate_limiter, background, clock)
        batch_writer = BatchWriter(
            database, clock, remote_clock, active, on_requests=worker.wake_soon
        )
        sweep_manager = SweepManager(
            database,
            rate_limiter,
            clock,
            active,
            background=background,
            on_begun=lambda cause: worker.resume() if cause == "operator" else worker.wake(),
        )
        absence = jump if jump is not None and jump.is_absence else None
        services = cls(
            active=active,
            listings=listings,
            clock=clock,
            database=database,
            saved_state=saved_state,
            is_new_policy=is_new_policy,
            remote_clock=remote_clock,
            rate_limiter=rate_limiter,
            background=background,
            source=source,
            fetcher=fetcher,
            worker=worker,
            batch_writer=batch_writer,
            sweep_manager=sweep_manager,
            policy_updates=PolicyUpdates(database, active, sweep_manager, clock.now),
            down=None if absence is None else (absence.since, absence.after),
            # During the absence Dreamship may have given up deliveries, or repeats them late.
            is_resuming=absence is not None and absence.away > config.reconcile.missed_grace,
            _sweep_listeners=listeners,
        )
        services.follow_sweeps(services._end_downtime)
        parts = (rate_limiter, background, remote_clock, fetcher, batch_writer, worker, services)
        for part in parts:
            clock.follow(part.follow)
        return services

    async def __aenter__(self) -> Self:
        """Return the services."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the services."""
        await self.close()

    async def close(self) -> None:
        """Stop reading, write what waits to be written, and close the mirror."""
        self.sweep_manager.close()
        await self.batch_writer.close()
        await self.stop_reading()
        if isinstance(self.source, ReplaceableSource):
            await self.source.aclose()
        with contextlib.suppress(MirrorError):  # then the next start is one after a crash
            await self.rate_limiter.store()
        await asyncio.to_thread(self.database.close)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.active.current.config

    def follow_sweeps(self, listener: SweepListener) -> None:
        """Call `listener` at the end of each sweep."""
        self._sweep_listeners.append(listener)

    def start_reading(self) -> None:
        """Begin to read from Dreamship."""
        self._reading = asyncio.create_task(self.worker.run(), name="reader")

    async def stop_reading(self) -> None:
        """End the calls to Dreamship; the next start repeats those in flight."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    def dry_run(self) -> DryRun:
        """Return a dry run: it reads the catalogue and writes nothing."""
        current = self.active.current
        return DryRun(
            database=self.database,
            reader=self.fetcher.reader,
            rate_limiter=self.rate_limiter,
            # Without a worker no other call waits for its turn.
            turn=self.rate_limiter.turn if self._reading is None else self.worker.wait_for_turn,
            clock=self.clock,
            policy=current.policy,
            items=current.items,
            lists_items=current.lists_items,
            categories=current.categories,
        )

    async def check_clock(self) -> None:
        """Follow this host's clock if it jumped, or if the process did not run for a while.

        The state in memory has followed when this returns or raises. Raises MirrorErrors if the
        mirror could not follow yet.
        """
        jump = self.clock.check()
        if jump is None:
            return
        if jump.is_absence:
            log.warning("the daemon was down", since=to_text(jump.since), until=to_text(jump.after))
        await recovery.follow_clock(self.database, jump, self.config.reconcile.missed_grace)

    def follow(self, jump: Jump) -> None:
        """Move the downtime with this host's clock; an absence is a new one."""
        if self.down is not None:
            self.down = jump.event(self.down[0]), jump.event(self.down[1])
        if jump.is_absence:
            self.down, self.is_resuming = (jump.since, jump.after), True

    async def reconfigure(self, config: Config) -> None:
        """Use another configuration; `with_fixed` has restored the settings that need a restart."""
        async with self.policy_updates.lock:
            # Before the policy: an item of the listings must never be excluded meanwhile. New keys
            # must come into force also if nothing can be written.
            listed = self.active.listed
            with contextlib.suppress(MirrorError):
                await self.listings.load(config.catalog.listings)
                listed = await self.listings.items_for(config)
            before, mirrored = self.config, self.active.current.policy
            self.active.replace(config, listed)
            is_new_client = (config.dreamship, config.keys) != (before.dreamship, before.keys)
            if is_new_client and isinstance(self.source, ReplaceableSource):
                await self.source.replace(client_for(config, self.clock.now))
            background_rate = config.reconcile.background_calls_per_minute
            self.rate_limiter.limit(config.dreamship.calls_per_minute, background_rate)
            if not background_rate:
                await self.sweep_manager.hurry()
            self.worker.resume()
            restarts = config.catalog != before.catalog
            await self.policy_updates.apply(mirrored, restarts=restarts)

    async def use_listings(self) -> None:
        """Mirror the items that the listings need now; raises leaves of MirrorError."""
        async with self.policy_updates.lock:
            listed, before = await self.listings.items_for(self.config), self.active.current.policy
            self.active.replace(self.config, listed)
            await self.policy_updates.apply(before)

    async def look_for_evidence(
        self, progress: SweepProgress | None, *, is_quiet: bool = False, is_silent: bool = False
    ) -> None:
        """Adjust the background reading to the sweep that runs, and to lost deliveries.

        Raises leaves of MirrorError.
        """
        await self.fetcher.list_watch.look()
        if await self.background.look(progress, is_quiet=is_quiet, is_silent=is_silent):
            self.worker.wake()
        if self.background.wants_full_sweep:
            await self.sweep_manager.hurry()
            self.worker.wake()

    def _end_downtime(self, summary: SweepSummary) -> None:
        is_complete = summary.is_catalogue and summary.result == "complete"
        if self.down is not None and is_complete and summary.began_at >= self.down[1]:
            self.down = None


def _call(listeners: Collection[SweepListener], summary: SweepSummary) -> None:
    for listener in listeners:
        listener(summary)
