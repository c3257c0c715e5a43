"""Logs errors of the mirror: once when they begin, once an hour, and once when they end."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from syncd.clock import Clock
from syncd.errors import MirrorError

log = structlog.get_logger(__name__)

# The same error is logged once an hour, also if it ends and begins again.
REMIND_AFTER = timedelta(hours=1)
_MAX_MESSAGES = 100


class Complaints:
    """Logs an error of the mirror when it begins, once an hour while it lasts, and its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_at: dict[str, datetime] = {}
        self._is_logged = False

    def begin(self, event: str, error: BaseException, **about: object) -> None:
        """Log an error, unless the same error was logged within the hour."""
        now, message = self._clock.now(), str(error)
        last = self._logged_at.get(message)
        if last is not None and timedelta() <= now - last < REMIND_AFTER:
            return
        if len(self._logged_at) >= _MAX_MESSAGES:
            self._logged_at.clear()
        self._logged_at[message] = now
        self._is_logged = True
        if isinstance(error, MirrorError):
            log.error(event, **about, error=error.message, hint=error.hint)
        else:
            log.error(event, **about, exc_info=error)

    def end(self, event: str) -> None:
        """Log the end of the error, if its begin was logged."""
        if self._is_logged:
            self._is_logged = False
            log.info(event)
