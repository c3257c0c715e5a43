"""Ends the sweeps that have nothing left to read, and reports their results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from syncd.clock import Clock
from syncd.config.runtime import ActiveConfig
from syncd.core.jobs import SweepSummary
from syncd.store import Database, sweep_results, sweeps


class SweepEnds:
    """Looks for sweeps to end; `on_finished` gets the results of each."""

    def __init__(
        self,
        database: Database,
        active: ActiveConfig,
        clock: Clock,
        on_finished: Callable[[SweepSummary], None],
    ) -> None:
        self._database = database
        self._active = active
        self._clock = clock
        self._on_finished = on_finished
        # The commits and deferred reads when no sweep was ready to end.
        self._without_ready_sweep: tuple[int, int] | None = None

    async def finish(self) -> None:
        """End each sweep that has nothing left to read; raises leaves of MirrorError."""
        database = self._database
        state = database.commits, len(database.deferred_items)
        if state == self._without_ready_sweep:
            return
        # `write` saves the deferred reads first.
        if not await database.read(lambda db: sweep_results.any_ready(db, database.deferred_items)):
            self._without_ready_sweep = state
            return
        now, current = self._clock.now(), self._active.current
        ended = await database.write(
            lambda db: sweep_results.finish(db, now, current.policy, current.categories)
        )
        for summary in ended:
            if summary.is_catalogue and summary.result == "complete":
                await self._close_unplaced(summary.began_at)
            self._on_finished(summary)

    async def _close_unplaced(self, began_at: datetime) -> None:
        now, policy = self._clock.now(), self._active.current.policy
        await self._database.write(lambda db: sweeps.close_unplaced(db, began_at, policy, now))
