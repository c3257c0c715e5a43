"""Kept deliveries through today's rules again: after an upgrade that understands more.

A replayed delivery is judged as what it is, an old one: where the mirror has moved on, its word is
verified with the source and never believed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from syncd.clock import Clock
from syncd.core.apply_deliveries import apply_deliveries
from syncd.core.model import Delivery
from syncd.core.policy import Policy
from syncd.core.records import BatchSnapshot, ChangeSet, ReplayResult
from syncd.dreamship.remote_clock import RemoteClock
from syncd.errors import UsageError

# So many are judged in one transaction; deliveries that arrive meanwhile wait for no more.
SLICE = 200
# Deliveries that one request may name.
MAX_IDS = 1_000
_NAMED = 20


class Archive(Protocol):
    """Where deliveries are kept."""

    async def kept(self, ids: Collection[int]) -> set[int]:
        """Return which of these deliveries are kept."""
        ...

    async def quarantined(self) -> list[int]:
        """Return the ids of the deliveries that were not understood, oldest first."""
        ...

    async def replay(
        self,
        ids: Sequence[int],
        judge: Callable[[BatchSnapshot, Sequence[Delivery]], ChangeSet],
        now: datetime,
    ) -> list[ReplayResult]:
        """Parse, judge and write some kept deliveries again, in one transaction."""
        ...


async def replay(
    archive: Archive,
    ids: Collection[int],
    *,
    is_quarantined: bool,
    policy: Policy,
    clock: Clock,
    remote_clock: RemoteClock,
) -> list[ReplayResult]:
    """Judge the named deliveries again, and with `is_quarantined` all that were not understood.

    Raises UsageError when one of them is not kept or too many are named; nothing is judged then.
    """
    if len(set(ids)) > MAX_IDS:
        raise UsageError(
            f"{len(set(ids))} deliveries are named; one request may name {MAX_IDS}",
            hint="name fewer, or judge all that were not understood: `syncd replay --quarantined`",
        )
    unknown = set(ids) - await archive.kept(ids)
    if unknown:
        raise UsageError(
            f"no such delivery is kept: {', '.join(map(str, sorted(unknown)[:_NAMED]))}"
            + (f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""),
            hint="`syncd deliveries` lists what is kept (for retention.deliveries)",
        )
    wanted = sorted({*ids, *(await archive.quarantined() if is_quarantined else ())})
    done: list[ReplayResult] = []
    for start in range(0, len(wanted), SLICE):
        now, source_now = clock.now(), remote_clock.now()

        def judge(
            snapshot: BatchSnapshot,
            batch: Sequence[Delivery],
            now: datetime = now,
            source_now: datetime = source_now,
        ) -> ChangeSet:
            return apply_deliveries(snapshot, batch, policy, now=now, source_now=source_now)

        done += await archive.replay(wanted[start : start + SLICE], judge, now)
    return done
