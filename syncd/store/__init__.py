"""The mirror: one SQLite file, one writer, and the ports of the use cases on top of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from pathlib import Path

from syncd import observations
from syncd.listing import Position, Seen
from syncd.model import Delivery, ItemRead, Page
from syncd.ports import Job, JobKind, SweepCause, SweepProgress, SweepSummary
from syncd.replay import Replayed
from syncd.state import (
    Judged,
    Known,
    Policy,
    Snapshot,
    VariantState,
    Writes,
)
from syncd.store import (
    absences,
    deliveries,
    housekeeping,
    listings,
    reads,
    replays,
    retention,
    rows,
    sweeps,
    values,
)
from syncd.store.backups import backup
from syncd.store.housekeeping import Beat, Remembered
from syncd.store.reports import Reports
from syncd.store.writer import Writer

__all__ = ["Beat", "Remembered", "Reports", "Store", "backup"]

# Variants judged at once when the configuration has changed.
JUDGED_AT_ONCE = 5000


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
        judge: Callable[[Known], Writes],
        policy: Policy,
        now: datetime,
    ) -> Writes:
        """See ports.ReadLedger."""

        def work(db: sqlite3.Connection) -> Writes:
            writes = reads.record(db, seen, judge, now)
            if any(state.absent_at is not None for state in writes.variants.values()):
                absences.brake(db, policy.brakes, _lift(policy, now), now)
            return writes

        return await self._writer.transact(work)

    async def read_failed(self, item_id: int, not_before: datetime, *, give_up_after: int) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: reads.failed(db, item_id, not_before, give_up_after))

    async def listed(
        self, sweep_id: int, page: Page, position: Position, follow: Callable[[Seen], Position]
    ) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(
            lambda db: listings.listed(db, sweep_id, page, position, follow)
        )

    async def close_unlocated(
        self,
        began_at: datetime,
        judge: Callable[[dict[int, VariantState]], Writes],
        now: datetime,
    ) -> None:
        """See ports.ReadLedger."""
        await self._writer.transact(lambda db: sweeps.close_unlocated(db, began_at, judge, now))

    async def finish_sweeps(
        self, now: datetime, policy: Policy, again: Callable[[Position], Position | None]
    ) -> list[SweepSummary]:
        """See ports.ReadLedger."""

        def work(db: sqlite3.Connection) -> list[SweepSummary]:
            def resolve(sweep_id: int) -> None:
                absences.resolve(
                    db,
                    sweep_id,
                    policy.brakes,
                    remove=lambda absent: observations.remove(absent, policy, now=now),
                    lift=_lift(policy, now),
                    now=now,
                )

            listings.relist(db, again)
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

    async def hear_from_now(self, now: datetime) -> None:
        """Keep that deliveries can be taken from now on."""
        await self._writer.transact(lambda db: housekeeping.hear_from_now(db, now))

    async def notice_clock(self, now: datetime, settle: timedelta) -> bool:
        """Heal the mirror if this host's clock was set back; tell whether it was."""
        if not await self._writer.look(lambda db: housekeeping.is_set_back(db, now)):
            return False
        await self._writer.transact(lambda db: housekeeping.forget_the_future(db, now, settle))
        return True

    async def is_sound(self) -> bool:
        """Tell whether every page of the file is as it must be; reads all of them."""
        return await self._writer.look(housekeeping.is_sound)

    async def heartbeat(self, beat: Beat) -> None:
        """Keep that the daemon lives, and what it has counted since the last beat."""
        await self._writer.transact(lambda db: housekeeping.beat(db, beat))

    async def pulse(self) -> None:
        """Return once the writer's thread has come round; whether the mirror can be used or not."""
        await self._writer.pulse()

    async def prune(
        self, *, deliveries_before: datetime, changes_before: datetime, now: datetime
    ) -> int:
        """Delete one slice of what is older than its retention; 0 when nothing is left."""
        return await self._writer.transact(
            lambda db: retention.prune(
                db,
                deliveries_before=deliveries_before,
                changes_before=changes_before,
                now=now,
                missed_grace=self.missed_grace,
            )
        )

    async def apply_policy(self, policy: Policy, now: datetime) -> bool:
        """Judge every variant by the configuration, if it changed; tell whether it did."""

        def work(db: sqlite3.Connection) -> bool:
            if not housekeeping.is_new_policy(db, policy):
                return False
            # In slices: all at once would take half a gigabyte of a large catalogue.
            after = -1
            while states := rows.next_variants(db, after, JUDGED_AT_ONCE):
                rows.write_observed(db, observations.rejudge(states, policy, now=now), now)
                after = states[-1].variant_id
            return True

        return await self._writer.transact(work)

    async def note_values(self, found: Sequence[str]) -> list[str]:
        """Keep that these values are told of; return those that never were."""
        if not await self._writer.look(lambda db: values.untold(db, found)):
            return []
        return await self._writer.transact(lambda db: values.note(db, found))

    async def known_items(self) -> list[int]:
        """See survey.Shelves."""
        return await self._writer.look(reads.known_items)

    async def known_variants(self, seen: ItemRead) -> dict[int, VariantState]:
        """See survey.Shelves."""
        return await self._writer.look(lambda db: reads.known_variants(db, seen))

    async def kept(self, ids: Collection[int]) -> set[int]:
        """See replay.Archive."""
        return await self._writer.look(lambda db: replays.kept(db, ids))

    async def quarantined(self) -> list[int]:
        """See replay.Archive."""
        return await self._writer.look(replays.quarantined)

    async def replay(
        self,
        ids: Sequence[int],
        judge: Callable[[Snapshot, Sequence[Delivery]], Writes],
        now: datetime,
    ) -> list[Replayed]:
        """See replay.Archive."""
        return await self._writer.transact(
            lambda db: replays.replay(db, ids, judge, now=now, missed_grace=self.missed_grace)
        )

    async def wants_locating(self) -> bool:
        """Tell whether deliveries named variants that only a sweep of the catalogue can place."""
        return await self._writer.look(sweeps.wants_locating)


def _lift(policy: Policy, now: datetime) -> absences.Resolve:
    return lambda absent: observations.lift(absent, policy, now=now)
