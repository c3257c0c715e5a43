"""Brings the state that an earlier process left in the mirror up to date."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

import structlog

from syncd.clock import SteadyClock
from syncd.core.clock_jump import Jump
from syncd.core.policy import Policy
from syncd.errors import MirrorUnavailable
from syncd.store import Database, sweep_results, wall_time
from syncd.sync.sweeps import MAX_REQUESTS, MAX_WAITING_ITEMS

log = structlog.get_logger(__name__)


async def follow_absence(
    database: Database, clock: SteadyClock, missed_grace: timedelta
) -> Jump | None:
    """Continue the clock of the last process; return the jump since then, if there was one."""
    last = await database.read(wall_time.newest_time)
    jump = None if last is None else clock.resume(*last)
    if jump is not None:
        # On a full disk the daemon starts too, and says what is wrong: the mirror follows with the
        # first transaction.
        with contextlib.suppress(MirrorUnavailable):
            await follow_clock(database, jump, missed_grace)
    return jump


async def follow_clock(database: Database, jump: Jump, missed_grace: timedelta) -> None:
    """Move every time in the mirror with this host's clock."""
    if jump.shift:
        log.warning(
            "this host's clock was set; waits keep their length",
            ahead_s=round(jump.shift.total_seconds(), 3),
        )
    await database.write_first(lambda db: wall_time.follow(db, jump, missed_grace))


async def end_excess(database: Database, now: datetime, policy: Policy) -> None:
    """End the sweeps that an earlier version allowed and this version refuses."""
    most = {"requests": MAX_REQUESTS, "items": MAX_WAITING_ITEMS}
    for summary in await database.write(
        lambda db: sweep_results.fail_excess(db, now, policy, **most)
    ):
        log.warning("sweep ended: it named too many items", sweep_id=summary.sweep_id, **most)
