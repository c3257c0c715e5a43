"""The requests of the control socket, carried out by the services of the running daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, nullcontext

from syncd.control.messages import (
    Differences,
    Progress,
    PushRequest,
    ReconcileMessage,
    ReconcileRequest,
    ReplayRequest,
)
from syncd.core.jobs import SweepProgress
from syncd.core.records import ReplayResult
from syncd.daemon.services import Services
from syncd.http_server.refusals import Places
from syncd.push.manager import Pushes
from syncd.sync.sweeps import require_few

# Each reads the progress of its sweep four times a second, in the thread that writes deliveries.
MOST_WAITING = 20
# Each reads the whole catalogue, and has all differences in memory.
MOST_DRY_RUNS = 1
# Deliveries that arrive during a replay wait for one slice of it.
MOST_REPLAYS = 1
# After a minute without a message, a client assumes that the daemon is dead.
MESSAGE_EVERY_S = 10.0


class ControlHandlers:
    """Sweeps, dry runs, replays and positions of pushes that an operator requests.

    `require_active` raises NotActive while this daemon waits.
    """

    def __init__(
        self, services: Services, pushes: Pushes, require_active: Callable[[], None] = lambda: None
    ) -> None:
        self._services = services
        self._require_active = require_active
        self._pushes = pushes
        self._waiting = Places(MOST_WAITING)
        self._dry_runs = Places(MOST_DRY_RUNS)
        self._replays = Places(MOST_REPLAYS)

    async def reconcile(self, request: ReconcileRequest) -> AsyncIterator[ReconcileMessage]:
        """Sweep, or make a dry run; yields progress, then the result.

        Raises UsageError if the request names too many items, Overloaded if too many requests are
        open, and NotActive while this daemon waits.
        """
        self._require_active()
        require_few(request.items)
        with self._waiting.one(), self._dry_runs.one() if request.dry_run else nullcontext():
            async with aclosing(self._reconcile(request)) as messages:
                async for message in messages:
                    yield message

    async def _reconcile(self, request: ReconcileRequest) -> AsyncGenerator[ReconcileMessage, None]:
        sweep_manager = self._services.sweep_manager
        reports: asyncio.Queue[SweepProgress] = asyncio.Queue()
        waiting: asyncio.Task[ReconcileMessage]
        joined = False
        last: SweepProgress | None = None
        if request.dry_run:
            waiting = asyncio.create_task(self._dry_run(request.items, reports.put_nowait))
        else:
            sweep_id, joined = await sweep_manager.request(
                "operator", items=request.items or None, accept_removals=request.accept_removals
            )
            waiting = asyncio.create_task(
                sweep_manager.wait(sweep_id, on_progress=reports.put_nowait)
            )
        try:
            while not waiting.done() or not reports.empty():
                self._require_active()
                getting = asyncio.create_task(reports.get())
                try:
                    await asyncio.wait(
                        {getting, waiting},
                        timeout=MESSAGE_EVERY_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    has_report = getting.done()
                    getting.cancel()  # the client may have left; a finished task stays finished
                if not has_report and waiting.done():
                    continue
                progress = getting.result() if has_report else last
                if progress is None:
                    yield Progress(0, None, None, joined)
                    continue
                last = progress
                eta = sweep_manager.eta(progress)
                yield Progress(
                    progress.checked,
                    progress.total,
                    None if eta is None else eta.total_seconds(),
                    joined,
                )
            yield waiting.result()
        finally:
            waiting.cancel()

    async def _dry_run(
        self, items: list[int], on_progress: Callable[[SweepProgress], None]
    ) -> ReconcileMessage:
        dry_run = self._services.dry_run()
        summary = await dry_run.run(items, on_progress=on_progress)
        return Differences(summary, dry_run.differences)

    async def replay(self, request: ReplayRequest) -> list[ReplayResult]:
        """Apply stored deliveries again; raises Overloaded while another replay runs."""
        self._require_active()
        with self._replays.one():
            return await self._services.batch_writer.replay(
                request.ids, is_quarantined=request.quarantined
            )

    async def push(self, request: PushRequest) -> None:
        """Let a push continue after a change; raises UsageError, NotActive and MirrorErrors."""
        self._require_active()
        await self._pushes.go_on_from(request.name, request.seq)
