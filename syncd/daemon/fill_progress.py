"""The progress of the first fill, for a person who runs the daemon on a terminal."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from syncd import logs
from syncd.core.jobs import SweepProgress
from syncd.daemon.services import Services
from syncd.errors import MirrorError
from syncd.store import sweep_results

_EVERY_S = 0.5


async def run(services: Services) -> None:
    """Show the progress below the log until the mirror is filled for the first time."""
    if not logs.has_progress():
        return
    try:
        while not await services.database.read(sweep_results.is_filled):
            progress = await services.sweep_manager.progress()
            if progress is not None:
                logs.show_progress(line(progress, services.sweep_manager.eta(progress)))
            await asyncio.sleep(_EVERY_S)
    except MirrorError:
        pass  # the log and the status report it
    finally:
        logs.show_progress("")


def line(progress: SweepProgress, left: timedelta | None) -> str:
    """Return the progress in one line of less than 80 columns."""
    if progress.total is None:
        return "Filling the mirror: listing the catalogue"
    counted = f"Filling the mirror: {progress.checked} of {progress.total} items"
    return counted if left is None else f"{counted}, {_duration(left.total_seconds())} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
