"""Sets the wall clock of a daemon under test ahead, by the seconds in a file.

Elapsed time stays the host's, as when somebody sets the clock. APScheduler reads the same wall
clock. `SET_CLOCK_AWAY_S` shortens what counts as an absence, so that a test need not wait a minute.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

if path := os.environ.get("SET_CLOCK"):
    from apscheduler.schedulers import base

    from syncd import clock
    from syncd.core import clock_jump

    _AHEAD = Path(path)

    class _Set(datetime):
        """Wall time as the file has it."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            """Return the moment."""
            return datetime.now(tz) + timedelta(seconds=float(_AHEAD.read_text() or 0))

    def _wall(self: clock.HostClock) -> datetime:
        del self
        return _Set.now(UTC)

    base.datetime = _Set
    clock.HostClock.wall = _wall  # type: ignore[method-assign]
    if away_s := os.environ.get("SET_CLOCK_AWAY_S"):
        clock_jump.AWAY_AFTER = timedelta(seconds=float(away_s))
