"""The store with somebody looking on: what was judged in the transaction that just ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.apply_read import is_no_evidence
from syncd.core.model import Delivery, ItemRead
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, DeliveryResult, ItemSnapshot
from syncd.store import Database


@dataclass
class Step:
    """What one transaction was about."""

    judged: tuple[DeliveryResult, ...] = ()
    seen: ItemRead | None = None
    was_overtaken: bool = False


class WatchedStore(Database):
    """A Store that notes in `step` what it is committing."""

    step: Step | None = None

    async def deliver(
        self, batch: Sequence[Delivery], judge: Callable[[BatchSnapshot], ChangeSet], now: datetime
    ) -> list[DeliveryResult]:
        def noted(snapshot: BatchSnapshot) -> ChangeSet:
            writes = judge(snapshot)
            self.step = Step(judged=tuple(writes.results))
            return writes

        return await super().deliver(batch, noted, now)

    async def read(
        self,
        seen: ItemRead,
        judge: Callable[[ItemSnapshot], ChangeSet],
        policy: Policy,
        now: datetime,
        *,
        rehearses: bool = False,
    ) -> ChangeSet:
        def noted(known: ItemSnapshot) -> ChangeSet:
            writes = judge(known)
            last = None if known.item is None else known.item.confirmed_at
            overtaken = last is not None and seen.began_at < last
            self.step = (
                None
                if rehearses
                else Step(seen=seen, was_overtaken=overtaken or is_no_evidence(known, seen))
            )
            return writes

        return await super().read(seen, noted, policy, now, rehearses=rehearses)
