"""The mirror: one SQLite file, one writer, and the ports of the use cases on top of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from pathlib import Path

from syncd import observations
from syncd.listing import Position
from syncd.model import Delivery, ItemRead, Page
from syncd.ports import Job, JobKind, SweepCause, SweepProgress, SweepSummary
from syncd.state import ItemState, Judged, Policy, Snapshot, VariantState, Writes
from syncd.store import deliveries, housekeeping, reads, rows, sweeps
from syncd.store.housekeeping import Beat, Remembered
from syncd.store.reports import Reports
from syncd.store.writer import Writer

__all__ = ["Beat", "Remembered", "Reports", "Store"]


class Store:
    """Fulfils the ledgers of `ports` on the file at `path`, each call one transaction."""

    def __init__(
        self, path: Path, *, missed_grace: timedelta, executor: Executor | None = None
    ) -> None:
        self.missed_grace = missed_grace
        self._writer = Writer(path, executor=executor)

    def open(self) -> None:
        """Take the mirror and bring its schema up to date; raises the leaves of MirrorError."""
        self._writer.open()

    def close(self) -> None:
        """Let go of the mirror; other users can go on reading it."""
        self._writer.close()

    async def deliver(
        self, batch: Sequence[Delivery], judge: Callable[[Snapshot], Writes], now: datetime
    ) -> list[Judged]:
        """See ports.DeliveryLedger."""
        return await self._writer.transact(
            lambda db: deliveries.record(db, batch, judge, now=now, missed_grace=self.missed_grace)
        )

    async def next_job(
        self, now: datetime, busy: Collection[int], order: Sequence[JobKind], *, listing: bool
    ) -> Job | None:
        """See ports.ReadLedger."""
        return await self._writer.look(
            lambda db: reads.next_job(db, now, busy, order, listing=listing)
        )

    async def next_due_at(self, now: datetime) -> datetime | None:
        """See ports.ReadLedger."""
        return await self._writer.look(lambda db: reads.next_due_at(db, now))

    async def read(
        self,
        seen: ItemRead,
        judge: Callable[[dict[int, VariantState], ItemState | None], Writes],
    ) -> Writes:
        """See ports.ReadLedger."""
        return await self._writer.transact(lambda db: reads.record(db, seen, judge))

    async def read_failed(self, item_id: int, not_before: datetime, *, give_up_after: int) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: reads.failed(db, item_id, not_before, give_up_after))

    async def listed(self, sweep_id: int, page: Page, following: Position | None) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: sweeps.listed(db, sweep_id, page, following))

    async def close_unlocated(
        self,
        began_at: datetime,
        judge: Callable[[dict[int, VariantState]], Writes],
        now: datetime,
    ) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: sweeps.close_unlocated(db, began_at, judge, now))

    async def finish_sweeps(self, now: datetime) -> list[SweepSummary]:
        """See ports.ReadLedger."""
        if not await self._writer.look(sweeps.any_ready):
            return []
        return await self._writer.transact(lambda db: sweeps.finish(db, now))

    async def fail_sweeps(self, now: datetime, error: str) -> list[SweepSummary]:
        """See ports.ReadLedger."""
        return await self._writer.transact(lambda db: sweeps.fail(db, now, error))

    async def open_sweep(
        self,
        cause: SweepCause,
        now: datetime,
        *,
        items: Collection[int],
        is_catalogue: bool,
        position: Position | None,
    ) -> int:
        """See ports.SweepLedger."""
        return await self._writer.transact(
            lambda db: sweeps.begin(
                db, cause, now, items=items, is_catalogue=is_catalogue, position=position
            )
        )

    async def open_catalogue_sweep(self) -> tuple[int, SweepCause] | None:
        """See ports.SweepLedger."""
        return await self._writer.look(sweeps.open_catalogue_sweep)

    async def drop_sweep(self, sweep_id: int) -> None:
        """See ports.SweepLedger."""
        await self._writer.transact(lambda db: sweeps.drop(db, sweep_id))

    async def sweep_progress(self, sweep_id: int) -> SweepProgress | None:
        """See ports.SweepLedger."""
        return await self._writer.look(lambda db: sweeps.progress(db, sweep_id))

    async def sweep_summary(self, sweep_id: int) -> SweepSummary | None:
        """See ports.SweepLedger."""
        return await self._writer.look(lambda db: sweeps.summary(db, sweep_id))

    async def log_call(self, now: datetime, *, for_sweep: bool) -> None:
        """See ports.CallLog."""
        await self._writer.transact(lambda db: housekeeping.log_call(db, now, for_sweep=for_sweep))

    async def log_throttled(
        self, now: datetime, paused_until: datetime, *, for_sweep: bool
    ) -> None:
        """See ports.CallLog."""
        await self._writer.transact(
            lambda db: housekeeping.log_throttled(db, now, paused_until, for_sweep=for_sweep)
        )

    async def restore(self, now: datetime) -> Remembered:
        """Return what a daemon that starts must know of the one before it."""
        return await self._writer.look(lambda db: housekeeping.restore(db, now))

    async def heartbeat(self, beat: Beat) -> None:
        """Keep that the daemon lives, and what it has counted since the last beat."""
        await self._writer.transact(lambda db: housekeeping.beat(db, beat))

    async def prune(
        self, *, deliveries_before: datetime, changes_before: datetime, now: datetime
    ) -> int:
        """Delete one slice of what is older than its retention; 0 when nothing is left."""
        return await self._writer.transact(
            lambda db: housekeeping.prune(db, deliveries_before, changes_before, now)
        )

    async def apply_policy(self, policy: Policy, now: datetime) -> bool:
        """Judge every variant by the configuration, if it changed; tell whether it did."""

        def work(db: sqlite3.Connection) -> bool:
            if not housekeeping.is_new_policy(db, policy):
                return False
            states = list(rows.all_variants(db).values())
            rows.write_observed(db, observations.rejudge(states, policy, now=now))
            return True

        return await self._writer.transact(work)

    async def wants_locating(self) -> bool:
        """Tell whether deliveries named variants that only a sweep of the catalogue can place."""
        return await self._writer.look(sweeps.wants_locating)
