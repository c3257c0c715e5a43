"""The parts that make and keep a mirror, wired: what the daemon runs, and a command without one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from datetime import datetime

import structlog

from syncd.clock import Jump, SteadyClock
from syncd.config import Config
from syncd.core import rate_limit
from syncd.core.jobs import SweepSummary
from syncd.core.policy import Policy
from syncd.core.records import ReplayResult
from syncd.core.timestamps import to_text
from syncd.dreamship.client import DreamshipClient
from syncd.dreamship.remote_clock import RemoteClock
from syncd.dreamship.source import Source
from syncd.store import Database, process_state, sweeps, wall_time
from syncd.store.process_state import SavedState
from syncd.store.reapply_policy import reapply
from syncd.sync.dry_run import DryRun
from syncd.sync.fetcher import Fetcher
from syncd.sync.rate_limiter import RateLimiter
from syncd.sync.sweeps import MAX_REQUESTS, MAX_WAITING_ITEMS, SweepManager
from syncd.sync.worker import SyncWorker
from syncd.webhook.batch_writer import BatchWriter
from syncd.webhook.replay import replay

log = structlog.get_logger(__name__)


def policy_of(config: Config) -> Policy:
    """Return what the configuration says about judging."""
    return Policy(
        sellable=frozenset(value.strip().casefold() for value in config.availability.sellable),
        settle=config.reconcile.settle,
        removal_limit_percent=config.reconcile.removal_limit_percent,
        items=frozenset(config.catalog.items),
        has_categories=bool(config.catalog.categories),
    )


class Services:
    """Mirror, batch writer, worker and sweeps of one configuration, on an injected clock.

    `source` and `executor` are for simulations; else they are Dreamship's API and a thread.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: SteadyClock | None = None,
        source: Source | None = None,
        executor: Executor | None = None,
        on_finished: Callable[[SweepSummary], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.clock = clock or SteadyClock()
        self.database = Database(config.mirror.path, executor=executor)
        self.saved_state: SavedState
        self._source = source
        self._own_source: DreamshipClient | None = None
        self._on_finished = on_finished
        self._reading: asyncio.Task[None] | None = None
        self.down: tuple[datetime, datetime] | None = None
        self.is_resuming = False

    async def open(self) -> None:
        """Take the mirror and go on where the last process ended; raises MirrorError leaves.

        Nothing is held when it raises or is cancelled.
        """
        if self._source is None:
            self.config.require_keys()
        try:
            await self.database.open_in_thread()
            await self._go_on()
        except BaseException:
            await asyncio.to_thread(self.database.close)
            raise

    async def _go_on(self) -> None:
        config, clock = self.config, self.clock
        if (last := await self.database.read(wall_time.last_noted)) is not None:
            jump = clock.resume(*last)
            if jump is not None:
                await self._move(jump)
                if jump.is_absence:
                    self.down = jump.since, jump.after
                    # Deliveries may have been given up meanwhile, or are late by retries.
                    self.is_resuming = jump.away > config.reconcile.missed_grace
        now = clock.now()
        self.saved_state = await self.database.read(lambda db: process_state.restore(db, now))
        policy = policy_of(config)
        if self.saved_state.accepting_since is None:
            await self.database.write(lambda db: process_state.mark_accepting(db, now))
        await self._end_excess(now, policy)
        self.is_new_policy = await reapply(self.database, policy, clock.now)
        self.remote_clock = RemoteClock(clock, self.saved_state.clock_offset)
        self.rate_limiter = RateLimiter(
            self.database,
            clock,
            rate_limit.start(
                config.dreamship.calls_per_minute,
                self.saved_state.calls,
                paused_until=self.saved_state.paused_until,
            ),
        )
        self.fetcher = Fetcher(
            self.database,
            self._source or self._new_source(config),
            self.rate_limiter,
            clock=clock,
            remote_clock=self.remote_clock,
            policy=policy,
            accepting_since=self.saved_state.accepting_since,
            categories=config.catalog.categories,
            on_finished=self._has_finished,
        )
        self.worker = SyncWorker(self.database, self.fetcher, self.rate_limiter, clock)
        self.batch_writer = BatchWriter(
            self.database,
            clock,
            self.remote_clock,
            policy,
            missed_grace=config.reconcile.missed_grace,
            on_requests=self.worker.wake_soon,
        )
        self.sweep_manager = SweepManager(
            self.database,
            self.rate_limiter,
            clock,
            policy=policy,
            items=config.catalog.items,
            categories=config.catalog.categories,
            on_begun=lambda cause: (
                self.worker.resume() if cause == "operator" else self.worker.wake()
            ),
        )
        clock.follow(self._follow)

    async def _end_excess(self, now: datetime, policy: Policy) -> None:
        """End what an earlier version let somebody ask for, and this one would refuse."""
        most = {"requests": MAX_REQUESTS, "items": MAX_WAITING_ITEMS}
        ended = await self.database.write(lambda db: sweeps.fail_excess(db, now, policy, **most))
        for summary in ended:
            log.warning("sweep ended: it named too many items", sweep_id=summary.sweep_id, **most)

    def dry_run(self) -> DryRun:
        """Return a dry run: it reads the catalogue and writes nothing."""
        return DryRun(
            database=self.database,
            reader=self.fetcher.reader,
            rate_limiter=self.rate_limiter,
            # Without a worker there is nobody to wait for.
            turn=self.rate_limiter.turn if self._reading is None else self.worker.visit,
            clock=self.clock,
            policy=self.fetcher.policy,
            items=self.config.catalog.items,
            categories=self.config.catalog.categories,
        )

    async def replay(self, ids: Collection[int], *, is_quarantined: bool) -> list[ReplayResult]:
        """Judge kept deliveries again; raises UsageError when one of them is not kept."""
        done = await replay(
            self.database,
            ids,
            is_quarantined=is_quarantined,
            policy=self.batch_writer.policy,
            missed_grace=self.batch_writer.missed_grace,
            clock=self.clock,
            remote_clock=self.remote_clock,
        )
        self.worker.wake()
        outcomes = Counter(one.outcome or "not kept" for one in done)
        log.info(
            "deliveries judged again",
            delivery_ids=[one.delivery_id for one in done],
            outcomes=dict(outcomes),
        )
        return done

    async def notice_clock(self) -> None:
        """Go on rightly after this host's clock jumped, or after a time in which nothing ran.

        What is in memory has followed when this returns or raises; raises MirrorError leaves when
        the mirror could not yet.
        """
        jump = self.clock.check()
        if jump is None:
            return
        if jump.is_absence:
            log.warning("I was down", since=to_text(jump.since), until=to_text(jump.after))
        await self._move(jump)

    async def _move(self, jump: Jump) -> None:
        if jump.shift:
            log.warning(
                "this host's clock was set; what waits goes on waiting as long as before",
                ahead_s=round(jump.shift.total_seconds(), 3),
            )
        missed_grace = self.config.reconcile.missed_grace
        await self.database.write_first(lambda db: wall_time.follow(db, jump, missed_grace))

    def _follow(self, jump: Jump) -> None:
        for part in (
            self.rate_limiter,
            self.remote_clock,
            self.fetcher,
            self.batch_writer,
            self.worker,
        ):
            part.follow(jump)
        if self.down is not None:
            self.down = jump.noted(self.down[0]), jump.noted(self.down[1])
        if jump.is_absence:
            self.down, self.is_resuming = (jump.since, jump.after), True

    def start_reading(self) -> None:
        """Begin to ask the source for whatever is worth asking."""
        self._reading = asyncio.create_task(self.worker.run(), name="reader")

    async def reconfigure(self, config: Config) -> None:
        """Go on with another configuration; what is fixed for a process's life stays as it was."""
        before, self.config = self.config, config
        policy = policy_of(config)
        self.fetcher.policy = self.batch_writer.policy = self.sweep_manager.policy = policy
        self.fetcher.categories = self.sweep_manager.categories = config.catalog.categories
        self.sweep_manager.items = config.catalog.items
        self.batch_writer.missed_grace = config.reconcile.missed_grace
        self.rate_limiter.limit(config.dreamship.calls_per_minute)
        if self._source is None and (config.dreamship, config.keys) != (
            before.dreamship,
            before.keys,
        ):
            old = self._own_source
            self.fetcher.source = self._new_source(config)
            if old is not None:
                await old.aclose()
        self.worker.resume()
        await reapply(self.database, policy, self.clock.now)
        if config.catalog != before.catalog:
            await self.sweep_manager.restart()

    async def close(self) -> None:
        """Finish what was received, stop reading, let go of the mirror."""
        self.sweep_manager.close()
        await self.batch_writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._own_source is not None:
            await self._own_source.aclose()
        await asyncio.to_thread(self.database.close)

    def _has_finished(self, summary: SweepSummary) -> None:
        is_whole = summary.is_catalogue and summary.result == "complete"
        if self.down is not None and is_whole and summary.began_at >= self.down[1]:
            self.down = None
        self._on_finished(summary)

    def _new_source(self, config: Config) -> Source:
        self._own_source = DreamshipClient(
            config.dreamship.base_url,
            config.keys[0].reveal(),
            timeout_s=config.dreamship.timeout_seconds,
            now=self.clock.now,
        )
        return self._own_source
