"""What the use cases need from the world, as Protocols the edges fulfil without being imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from syncd.core.jobs import Job, JobKind, SweepCause, SweepProgress, SweepSummary
from syncd.core.model import Delivery, ItemRead, Page
from syncd.core.pagination import PageStats, Position
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, ItemSnapshot, VariantState


class DeliveryLedger(Protocol):
    """Where deliveries become durable."""

    async def deliver(
        self, batch: Sequence[Delivery], judge: Callable[[BatchSnapshot], ChangeSet], now: datetime
    ) -> list[DeliveryResult]:
        """Load what is known, judge, write, commit; raises MirrorUnavailable with nothing done."""
        ...


class CallLog(Protocol):
    """Where the calls of the budget survive a restart."""

    async def log_call(self, now: datetime, *, for_sweep: bool) -> None:
        """Keep one call; a sweep's is counted with the open sweeps too."""
        ...

    async def log_throttled(
        self, now: datetime, paused_until: datetime, *, for_sweep: bool
    ) -> None:
        """Keep one 429 and how long it asked to wait."""
        ...


class ReadLedger(Protocol):
    """Where reads, the questions that ask for them, and sweeps are kept."""

    async def next_job(
        self, now: datetime, busy: Collection[int], order: Sequence[JobKind], *, listing: bool
    ) -> Job | None:
        """Return a job of the first kind in `order` that has one; pages only when `listing`."""
        ...

    async def next_due_at(self, now: datetime) -> datetime | None:
        """Return the next moment after `now` at which a job becomes due, None: no such moment."""
        ...

    async def read(
        self,
        seen: ItemRead,
        judge: Callable[[ItemSnapshot], ChangeSet],
        policy: Policy,
        now: datetime,
        *,
        rehearses: bool = False,
    ) -> ChangeSet:
        """Judge and write one finished read, and tick it off wherever it was asked for.

        `rehearses`: find out whether it could be written, and leave nothing but a mark.
        """
        ...

    async def leave_mark(self, now: datetime) -> None:
        """Write some pages that nobody reads, to find out whether anything can be written."""
        ...

    async def read_failed(
        self, item_id: int, not_before: datetime, error: str, *, give_up_after: int
    ) -> None:
        """Note a failed read: not again before that moment; a sweep gives up after some."""
        ...

    async def put_off(self, item_id: int, not_before: datetime) -> None:
        """Ask for an item after others, and not before that moment; it has not failed."""
        ...

    async def listed(
        self,
        sweep_id: int,
        page: Page,
        position: Position,
        follow: Callable[[PageStats], Position],
        *,
        rehearses: bool = False,
    ) -> None:
        """Note the items of the page at `position` and where the listing goes on after it.

        `rehearses`: as for `read`.
        """
        ...

    async def close_unplaced(
        self,
        began_at: datetime,
        judge: Callable[[dict[int, VariantState]], ChangeSet],
        now: datetime,
    ) -> None:
        """Judge the variants that a whole sweep, begun at `began_at`, found in no item."""
        ...

    async def finish_sweeps(
        self, now: datetime, policy: Policy, again: Callable[[Position], Position | None]
    ) -> list[SweepSummary]:
        """End every open sweep that has nothing left to read, or list `again` what moved."""
        ...

    async def fail_sweeps(self, now: datetime, policy: Policy, error: str) -> list[SweepSummary]:
        """End every open sweep as failed."""
        ...


class SweepLedger(Protocol):
    """Where sweeps begin and are looked at."""

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
        """Begin a sweep of `items` and of what is listed from `position` on, each if given."""
        ...

    async def named_items(self) -> tuple[int, int]:
        """Return how many sweeps of named items are open, and how many items they still have."""
        ...

    async def open_catalogue_sweep(self) -> tuple[int, SweepCause] | None:
        """Return the catalogue sweep that has not ended, if there is one."""
        ...

    async def accept_removals(self, sweep_id: int) -> None:
        """Let an open sweep remove whatever it does not find."""
        ...

    async def drop_sweep(self, sweep_id: int, policy: Policy, now: datetime) -> None:
        """Forget an open sweep that another one takes the place of."""
        ...

    async def sweep_progress(self, sweep_id: int) -> SweepProgress | None:
        """Return how far an open sweep is; None once it has ended."""
        ...

    async def sweep_summary(self, sweep_id: int) -> SweepSummary | None:
        """Return what an ended sweep did."""
        ...
