"""What operators order through the control socket, carried out by the engine that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, nullcontext

from syncd import control
from syncd.core.jobs import SweepProgress
from syncd.core.records import ReplayResult
from syncd.daemon.services import Services
from syncd.http_server.refusals import Places
from syncd.sync.sweeps import require_few

# Each looks four times a second how far its sweep is, in the thread that writes deliveries.
MOST_WAITING = 20
# Each asks for the whole catalogue, and holds what it found.
MOST_DRY_RUNS = 1
# Each has deliveries that arrive meanwhile wait for a slice of its own.
MOST_REPLAYS = 1
# Whoever waits believes in a dead daemon after a minute of silence.
SILENCE_S = 10.0


class ControlHandlers:
    """Reconciles, looks and replays, telling how it goes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting = Places(MOST_WAITING)
        self._looking = Places(MOST_DRY_RUNS)
        self._replaying = Places(MOST_REPLAYS)

    async def reconcile(self, asked: control.ReconcileRequest) -> AsyncIterator[control.Told]:
        """Sweep, or only look; yields progress, then what came of it.

        Raises UsageError when too many items are named, and Overloaded when too much is asked at
        once.
        """
        require_few(asked.items)
        with self._waiting.one(), self._looking.one() if asked.dry_run else nullcontext():
            async with aclosing(self._reconcile(asked)) as told:
                async for one in told:
                    yield one

    async def _reconcile(
        self, asked: control.ReconcileRequest
    ) -> AsyncGenerator[control.Told, None]:
        sweep_manager = self._services.sweep_manager
        told: asyncio.Queue[SweepProgress] = asyncio.Queue()
        waiting: asyncio.Task[control.Told]
        joined = False
        last: SweepProgress | None = None
        if asked.dry_run:
            waiting = asyncio.create_task(self._survey(asked.items, told.put_nowait))
        else:
            sweep_id, joined = await sweep_manager.request(
                "operator", items=asked.items or None, accept_removals=asked.accept_removals
            )
            waiting = asyncio.create_task(sweep_manager.wait(sweep_id, tell=told.put_nowait))
        try:
            while not waiting.done() or not told.empty():
                getting = asyncio.create_task(told.get())
                try:
                    await asyncio.wait(
                        {getting, waiting},
                        timeout=SILENCE_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    is_told = getting.done()
                    getting.cancel()  # who asked may have left; what is done stays done
                if not is_told and waiting.done():
                    continue
                progress = getting.result() if is_told else last
                if progress is None:
                    yield control.Progress(0, None, None, joined)
                    continue
                last = progress
                eta = sweep_manager.eta(progress)
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
        survey = self._services.survey()
        summary = await survey.look(items, tell=tell)
        return control.Differences(summary, survey.differences)

    async def replay(self, asked: control.ReplayRequest) -> list[ReplayResult]:
        """Judge kept deliveries again; raises Overloaded while others are judged again."""
        with self._replaying.one():
            return await self._services.replay(asked.ids, is_quarantined=asked.quarantined)
