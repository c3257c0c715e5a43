"""Applies stored deliveries again: after an upgrade, syncd may understand more of them.

A replayed delivery is an old one. If the mirror has changed since, the delivery only causes a read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

from syncd.clock import Clock
from syncd.core.policy import Policy
from syncd.core.records import ReplayResult
from syncd.dreamship.remote_clock import RemoteClock
from syncd.errors import UsageError
from syncd.store import Database
from syncd.store import replay as stored

# Deliveries of one transaction; new deliveries wait for it.
SLICE = 200
# Deliveries that one request may name.
MAX_IDS = 1_000
_NAMED = 20


async def replay(
    database: Database,
    ids: Collection[int],
    *,
    is_quarantined: bool,
    policy: Callable[[], Policy],
    missed_grace: timedelta,
    clock: Clock,
    remote_clock: RemoteClock,
) -> list[ReplayResult]:
    """Apply the named deliveries again, and with `is_quarantined` all quarantined ones.

    Raises UsageError if one of them is not stored, or if too many are named; then none is applied.
    """
    if len(set(ids)) > MAX_IDS:
        raise UsageError(
            f"{len(set(ids))} deliveries are named; one request may name {MAX_IDS}",
            hint="name fewer, or apply all quarantined deliveries: `syncd replay --quarantined`",
        )
    unknown = set(ids) - await database.read(lambda db: stored.stored_ids(db, ids))
    if unknown:
        raise UsageError(
            f"no such delivery is stored: {', '.join(map(str, sorted(unknown)[:_NAMED]))}"
            + (f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""),
            hint="`syncd deliveries` lists the stored deliveries (for retention.deliveries)",
        )
    quarantined = await database.read(stored.quarantined) if is_quarantined else ()
    selected = sorted({*ids, *quarantined})
    results: list[ReplayResult] = []
    for start in range(0, len(selected), SLICE):
        apply = partial(
            stored.apply,
            ids=selected[start : start + SLICE],
            policy=policy(),  # a reload may have changed it
            now=clock.now(),
            source_now=remote_clock.now(),
            missed_grace=missed_grace,
        )
        results += await database.write(apply)
    return results
