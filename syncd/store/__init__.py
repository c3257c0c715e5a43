"""The mirror: one SQLite file, one writer, and the ports of the use cases on top of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial

from syncd.core.jobs import Job, JobKind, SweepCause, SweepProgress, SweepSummary
from syncd.core.model import Delivery, ItemRead, Page
from syncd.core.pagination import PageStats, Position
from syncd.core.policy import Policy
from syncd.core.records import (
    BatchSnapshot,
    ChangeSet,
    DeliveryResult,
    ItemSnapshot,
    ReplayResult,
    VariantState,
)
from syncd.core.removals import remove_missing, restore_unconfirmed
from syncd.store import (
    deliveries,
    job_queue,
    missing_variants,
    process_state,
    reads,
    replay,
    rows,
    sweep_pages,
    sweeps,
)
from syncd.store.backups import backup
from syncd.store.process_state import Beat, SavedState, rehearsed
from syncd.store.queries import Queries
from syncd.store.reapply_policy import Kept

__all__ = ["Beat", "Database", "Queries", "SavedState", "backup"]


class Database(Kept):
    """Fulfils the ledgers of `ports` on the file at `path`, each call one transaction."""

    async def deliver(
        self, batch: Sequence[Delivery], judge: Callable[[BatchSnapshot], ChangeSet], now: datetime
    ) -> list[DeliveryResult]:
        """See ports.DeliveryLedger."""
        return await self._writer.transact_aside(
            lambda db: deliveries.record(db, batch, judge, now=now, missed_grace=self.missed_grace)
        )

    async def next_job(
        self, now: datetime, busy: Collection[int], order: Sequence[JobKind], *, listing: bool
    ) -> Job | None:
        """See ports.ReadLedger."""
        return await self._writer.look(
            lambda db: job_queue.next_job(db, now, busy, order, listing=listing)
        )

    async def next_due_at(self, now: datetime) -> datetime | None:
        """See ports.ReadLedger."""
        return await self._writer.look(lambda db: job_queue.next_due_at(db, now))

    async def read(
        self,
        seen: ItemRead,
        judge: Callable[[ItemSnapshot], ChangeSet],
        policy: Policy,
        now: datetime,
        *,
        rehearses: bool = False,
    ) -> ChangeSet:
        """See ports.ReadLedger."""

        def work(db: sqlite3.Connection) -> ChangeSet:
            writes = reads.record(db, seen, judge, policy, now)
            if any(state.missing_since is not None for state in writes.variants.values()):
                missing_variants.brake(db, policy.blocks_removals, _lift(policy, now), now)
            return writes

        return await self._writer.transact(rehearsed(work, now) if rehearses else work)

    async def leave_mark(self, now: datetime) -> None:
        """See ports.ReadLedger."""
        for size in (process_state.MARK_BYTES, 0):
            await self._writer.transact(partial(process_state.mark, now=now, size=size))

    async def read_failed(
        self, item_id: int, not_before: datetime, error: str, *, give_up_after: int
    ) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(
            lambda db: reads.failed(db, item_id, not_before, error, give_up_after)
        )

    async def put_off(self, item_id: int, not_before: datetime) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: reads.put_off(db, item_id, not_before))

    async def listed(
        self,
        sweep_id: int,
        page: Page,
        position: Position,
        follow: Callable[[PageStats], Position],
        *,
        rehearses: bool = False,
    ) -> None:
        """See ports.ReadLedger."""

        def work(db: sqlite3.Connection) -> None:
            sweep_pages.listed(db, sweep_id, page, position, follow)

        now = page.began_at
        await self._writer.transact(rehearsed(work, now) if rehearses else work)

    async def close_unplaced(
        self,
        began_at: datetime,
        judge: Callable[[dict[int, VariantState]], ChangeSet],
        now: datetime,
    ) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: sweeps.close_unplaced(db, began_at, judge, now))

    async def finish_sweeps(
        self, now: datetime, policy: Policy, again: Callable[[Position], Position | None]
    ) -> list[SweepSummary]:
        """See ports.ReadLedger."""

        def work(db: sqlite3.Connection) -> list[SweepSummary]:
            def resolve(sweep_id: int) -> None:
                missing_variants.resolve(
                    db,
                    sweep_id,
                    policy.blocks_removals,
                    remove=lambda absent: remove_missing(absent, policy, now=now),
                    lift=_lift(policy, now),
                    now=now,
                )

            sweep_pages.relist(db, again)
            return sweeps.finish(db, now, resolve)

        if not await self._writer.look(sweeps.any_ready):
            return []
        return await self._writer.transact(work)

    async def fail_sweeps(self, now: datetime, policy: Policy, error: str) -> list[SweepSummary]:
        """See ports.ReadLedger."""
        lift = _lift(policy, now)
        return await self._writer.transact(lambda db: sweeps.fail(db, now, error, lift))

    async def open_sweep(
        self,
        cause: SweepCause,
        now: datetime,
        *,
        items: Collection[int],
        is_catalogue: bool,
        position: Position | None,
        accepts_removals: bool,
    ) -> int:
        """See ports.SweepLedger."""
        return await self._writer.transact(
            lambda db: sweeps.begin(
                db,
                cause,
                now,
                items=items,
                is_catalogue=is_catalogue,
                position=position,
                accepts_removals=accepts_removals,
            )
        )

    async def named_items(self) -> tuple[int, int]:
        """See ports.SweepLedger."""
        return await self._writer.look(sweeps.named_items)

    async def end_excess(
        self, now: datetime, policy: Policy, *, requests: int, items: int
    ) -> list[SweepSummary]:
        """End sweeps of named items beyond so many requests and items; the largest first."""
        lift = _lift(policy, now)
        error = f"it named too much; {items} items of {requests} requests may wait"

        def work(db: sqlite3.Connection) -> list[SweepSummary]:
            return sweeps.fail(db, now, error, lift, sweeps.excess(db, requests, items))

        return await self._writer.transact(work)

    async def accept_removals(self, sweep_id: int) -> None:
        """See ports.SweepLedger."""
        await self._writer.transact(lambda db: sweeps.accept_removals(db, sweep_id))

    async def open_catalogue_sweep(self) -> tuple[int, SweepCause] | None:
        """See ports.SweepLedger."""
        return await self._writer.look(sweeps.open_catalogue_sweep)

    async def drop_sweep(self, sweep_id: int, policy: Policy, now: datetime) -> None:
        """See ports.SweepLedger."""
        lift = _lift(policy, now)
        await self._writer.transact(lambda db: sweeps.drop(db, sweep_id, lift, now))

    async def sweep_progress(self, sweep_id: int) -> SweepProgress | None:
        """See ports.SweepLedger."""
        return await self._writer.look(lambda db: sweeps.progress(db, sweep_id))

    async def sweep_summary(self, sweep_id: int) -> SweepSummary | None:
        """See ports.SweepLedger."""
        return await self._writer.look(lambda db: sweeps.summary(db, sweep_id))

    async def log_call(self, now: datetime, *, for_sweep: bool) -> None:
        """See ports.CallLog."""
        await self._writer.transact(lambda db: process_state.log_call(db, now, for_sweep=for_sweep))

    async def log_throttled(
        self, now: datetime, paused_until: datetime, *, for_sweep: bool
    ) -> None:
        """See ports.CallLog."""
        await self._writer.transact(
            lambda db: process_state.log_throttled(db, now, paused_until, for_sweep=for_sweep)
        )

    async def known_items(self) -> list[int]:
        """See survey.Shelves."""
        return await self._writer.look(reads.known_items)

    async def known_variants(self, seen: ItemRead) -> dict[int, VariantState]:
        """See survey.Shelves."""
        return await self._writer.look(lambda db: reads.known_variants(db, seen))

    async def was_read(self, item_id: int) -> bool:
        """See survey.Shelves."""
        found = await self._writer.look(lambda db: rows.items_by_id(db, [item_id]))
        return item_id in found and found[item_id].was_read

    async def kept(self, ids: Collection[int]) -> set[int]:
        """See replay.Archive."""
        return await self._writer.look(lambda db: replay.kept(db, ids))

    async def quarantined(self) -> list[int]:
        """See replay.Archive."""
        return await self._writer.look(replay.quarantined)

    async def replay(
        self,
        ids: Sequence[int],
        judge: Callable[[BatchSnapshot, Sequence[Delivery]], ChangeSet],
        now: datetime,
    ) -> list[ReplayResult]:
        """See replay.Archive."""
        return await self._writer.transact(
            lambda db: replay.replay(db, ids, judge, now=now, missed_grace=self.missed_grace)
        )

    async def has_unplaced_variants(self) -> bool:
        """Tell whether deliveries named variants that only a sweep of the catalogue can place."""
        return await self._writer.look(sweeps.has_unplaced_variants)


def _lift(policy: Policy, now: datetime) -> missing_variants.Resolve:
    return lambda absent: restore_unconfirmed(absent, policy, now=now)
