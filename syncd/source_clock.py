"""Dreamship's clock as well as it can be known here: ours, plus what its `Date` headers differ."""

from __future__ import annotations

from datetime import datetime, timedelta

from syncd.ports import Clock

# `Date` has whole seconds, cut off: on average the moment was half a second later.
_CUT_OFF = timedelta(milliseconds=500)


class SourceClock:
    """Estimates Dreamship's present moment; `offset` survives restarts in the mirror."""

    def __init__(self, clock: Clock, offset: timedelta = timedelta()) -> None:
        self._clock = clock
        self.offset = offset

    def observe(self, source_at: datetime | None) -> None:
        """Learn from the `Date` of an answer that just arrived."""
        if source_at is not None:
            self.offset = source_at + _CUT_OFF - self._clock.now()

    def now(self) -> datetime:
        """Return Dreamship's moment as estimated; this host's when nothing is known."""
        return self._clock.now() + self.offset
