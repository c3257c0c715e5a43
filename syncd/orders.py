"""What operators order through the control socket, carried out by the engine that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from syncd import control
from syncd.engine import Engine
from syncd.ports import SweepProgress
from syncd.state import Replayed


class Orders:
    """Reconciles, looks and replays, telling how it goes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def reconcile(self, asked: control.ReconcileRequest) -> AsyncIterator[control.Told]:
        """Sweep, or only look; yields progress, then what came of it."""
        reconciler = self._engine.reconciler
        told: asyncio.Queue[SweepProgress] = asyncio.Queue()
        waiting: asyncio.Task[control.Told]
        joined = False
        if asked.dry_run:
            waiting = asyncio.create_task(self._survey(asked.items, told.put_nowait))
        else:
            sweep_id, joined = await reconciler.request(
                "operator", items=asked.items or None, accept_removals=asked.accept_removals
            )
            waiting = asyncio.create_task(reconciler.wait(sweep_id, tell=told.put_nowait))
        try:
            while not waiting.done() or not told.empty():
                getting = asyncio.create_task(told.get())
                try:
                    await asyncio.wait({getting, waiting}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    getting.cancel()  # who asked may have left; what is done stays done
                if not getting.done():
                    continue
                progress = getting.result()
                eta = reconciler.eta(progress)
                yield control.Progress(
                    progress.checked,
                    progress.total,
                    None if eta is None else eta.total_seconds(),
                    joined,
                )
            yield waiting.result()
        finally:
            waiting.cancel()

    async def _survey(
        self, items: list[int], tell: Callable[[SweepProgress], None]
    ) -> control.Told:
        survey = self._engine.survey()
        summary = await survey.look(items, tell=tell)
        return control.Differences(summary, survey.differences)

    async def replay(self, asked: control.ReplayRequest) -> list[Replayed]:
        """Judge kept deliveries again."""
        return await self._engine.replay(asked.ids, is_quarantined=asked.quarantined)
