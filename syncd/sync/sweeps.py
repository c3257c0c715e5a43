"""Sweeps: who may begin one, who joins whom, and how far it is. The reading itself is `refresh`.

A sweep asks the source for every item of the mirrored catalogue once, stalest first, and what it
still has to read lives in the mirror: a restart goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import structlog

from syncd.clock import Clock
from syncd.core import pagination
from syncd.core.jobs import SweepCause, SweepProgress, SweepSummary
from syncd.core.pagination import Position
from syncd.core.policy import Policy
from syncd.core.ports import SweepLedger
from syncd.dreamship.rate_limiter import RateLimiter
from syncd.errors import DaemonAbsent, Overloaded, SyncdError, UsageError

log = structlog.get_logger(__name__)

POLL_S = 0.25
# Items that one request may name: 22 minutes of calls, and more than anybody picks by hand.
MAX_ITEMS = 1_000
# Items that all requests together may have waiting, and requests that may be open: who may use the
# control socket need not be a friend, and each item is a call of the shop's budget.
MAX_WAITING_ITEMS = 2_000
MAX_REQUESTS = 100


def require_few(items: Collection[int]) -> None:
    """Raise UsageError when one request names more items than it may."""
    if len(set(items)) > MAX_ITEMS:
        raise UsageError(
            f"{len(set(items))} items are named; one request may name {MAX_ITEMS}",
            hint="name fewer, or none: `syncd reconcile-now` reads the whole mirrored catalogue",
        )


class SweepManager:
    """Begins sweeps, never two of the whole catalogue at once, and tells how they go."""

    def __init__(
        self,
        ledger: SweepLedger,
        rate_limiter: RateLimiter,
        clock: Clock,
        *,
        policy: Policy,
        items: tuple[int, ...] = (),
        categories: tuple[int, ...] = (),
        on_begun: Callable[[SweepCause], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self.items = items
        self.categories = categories
        self._ledger = ledger
        self._rate_limiter = rate_limiter
        self._clock = clock
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
        """Return the sweep that fulfils a request, and whether it joined one already running.

        Of `items` alone, a sweep begins beside whatever runs. Of the catalogue there is one: a
        schedule's request joins it; an operator's joins an operator's, and takes the place of a
        scheduled one, since "now" means items read from now on. `accept_removals`: whatever it
        does not find is removed, however much that is.

        Raises UsageError when too many items are named, and Overloaded when too many wait already;
        nothing was begun then.
        """
        require_few(items or ())
        async with self._one_at_a_time:
            if items is not None:
                await self._require_room(len(set(items)))
            if items is None and (running := await self._ledger.open_catalogue_sweep()) is not None:
                sweep_id, begun_by = running
                if cause != "operator" or begun_by == "operator":
                    if accept_removals:
                        await self._ledger.accept_removals(sweep_id)
                    return sweep_id, True
                await self._drop(sweep_id)
            sweep_id = await self._ledger.open_sweep(
                cause,
                self._clock.now(),
                items=self.items if items is None else items,
                is_catalogue=items is None,
                position=None if items is not None else self._first_position(),
                accepts_removals=accept_removals,
            )
        log.info(
            "sweep begins",
            sweep_id=sweep_id,
            cause=cause,
            item_ids="all" if items is None else sorted(items),
            accept_removals=accept_removals,
        )
        self._on_begun(cause)
        return sweep_id, False

    async def _require_room(self, more: int) -> None:
        requests, waiting = await self._ledger.named_items()
        if requests >= MAX_REQUESTS or waiting + more > MAX_WAITING_ITEMS:
            raise Overloaded(
                f"{waiting} items that {requests} other requests named are still to be read; "
                f"{MAX_WAITING_ITEMS} of {MAX_REQUESTS} requests may wait",
                hint="ask again later, or name no item to read the whole mirrored catalogue",
            )

    async def restart(self) -> None:
        """Begin the running catalogue sweep anew: the catalogue to mirror is another one now."""
        async with self._one_at_a_time:
            running = await self._ledger.open_catalogue_sweep()
            if running is not None:
                await self._drop(running[0])
        await self.request("start")

    async def progress(self, sweep_id: int | None = None) -> SweepProgress | None:
        """Return how far a sweep is (None: the catalogue's); None when there is none."""
        if sweep_id is None:
            running = await self._ledger.open_catalogue_sweep()
            if running is None:
                return None
            sweep_id = running[0]
        return await self._ledger.sweep_progress(sweep_id)

    def eta(self, progress: SweepProgress) -> timedelta | None:
        """Return how long a sweep still takes; None while nobody can know."""
        if progress.total is None:
            return None
        paced = timedelta(
            minutes=progress.remaining_calls / max(1.0, self._rate_limiter.per_minute)
        )
        if progress.checked == 0:
            return paced
        so_far: timedelta = self._clock.now() - progress.began_at
        return max(paced, so_far / progress.checked * (progress.total - progress.checked))

    def close(self) -> None:
        """Let whoever waits for a sweep know that it ends in another life of the daemon."""
        self._closed = True

    async def wait(
        self, sweep_id: int, *, tell: Callable[[SweepProgress], None] = lambda _: None
    ) -> SweepSummary:
        """Return what a sweep did once it has ended, telling how far it is meanwhile."""
        while (progress := await self._ledger.sweep_progress(sweep_id)) is not None:
            if self._closed:
                raise DaemonAbsent(
                    "the daemon is stopping", hint="the sweep goes on when it is started again"
                )
            tell(progress)
            await self._clock.sleep(POLL_S)
        summary = await self._ledger.sweep_summary(sweep_id)
        if summary is None:
            raise SyncdError(
                "the sweep was replaced by another one before it ended",
                hint="run `syncd reconcile-now` again",
            )
        return summary

    async def _drop(self, sweep_id: int) -> None:
        await self._ledger.drop_sweep(sweep_id, self.policy, self._clock.now())
        log.info("sweep given up for a new one", sweep_id=sweep_id)

    @property
    def _lists_nothing(self) -> bool:
        return bool(self.items) and not self.categories

    def _first_position(self) -> Position | None:
        return None if self._lists_nothing else pagination.first(self.categories)


def next_after_failure(failures: int, every: timedelta) -> timedelta:
    """Return when to sweep again after `failures` failed ones in a row: soon, then less so."""
    return min(every, timedelta(minutes=2.0 ** min(failures - 1, 10)))


def due_since(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Tell whether a sweep is due, `last` being when one last ended whole."""
    return last is None or now - last >= every or last > now
