"""Faults of the mirror in the log: once when they begin, once an hour, and once when they end."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from syncd.clock import Clock
from syncd.errors import MirrorError

log = structlog.get_logger(__name__)

# The same complaint, while it lasts or comes and goes, is one line an hour.
REMIND_AFTER = timedelta(hours=1)
_MAX_MESSAGES = 100


class Complaints:
    """Logs that the mirror fails: when it begins, once an hour while it lasts, and its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_at: dict[str, datetime] = {}
        self._is_logged = False

    def begin(self, event: str, fault: BaseException, **about: object) -> None:
        """Log a fault, unless the same was logged within the hour."""
        now, message = self._clock.now(), str(fault)
        last = self._logged_at.get(message)
        if last is not None and timedelta() <= now - last < REMIND_AFTER:
            return
        if len(self._logged_at) >= _MAX_MESSAGES:
            self._logged_at.clear()
        self._logged_at[message] = now
        self._is_logged = True
        if isinstance(fault, MirrorError):
            log.error(event, **about, error=fault.message, hint=fault.hint)
        else:
            log.error(event, **about, exc_info=fault)

    def end(self, event: str) -> None:
        """Log that it is over, if its beginning was logged."""
        if self._is_logged:
            self._is_logged = False
            log.info(event)
