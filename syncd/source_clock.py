"""Dreamship's clock as well as it can be known here: ours, plus what its `Date` headers differ."""

from __future__ import annotations

from datetime import datetime, timedelta

from syncd.clock import Jump
from syncd.ports import Clock

# `Date` has whole seconds, cut off: the moment may have been as much later.
_CUT_OFF = timedelta(seconds=1)


class SourceClock:
    """Estimates Dreamship's present moment; `offset` survives restarts in the mirror.

    The latest that is possible: an answer may have been stamped as soon as its request left. Too
    late an estimate lets an event pass that claims to be some seconds ahead, which a read confirms;
    too early a one would doubt honest events whenever answers are slow.
    """

    def __init__(self, clock: Clock, offset: timedelta = timedelta()) -> None:
        self._clock = clock
        self.offset = offset
        self.answers = 0

    def observe(self, source_at: datetime | None, began_at: datetime) -> None:
        """Learn from the `Date` of the answer to a request that left at `began_at`."""
        if source_at is not None:
            self.answers += 1
            self.offset = source_at + _CUT_OFF - began_at

    def follow(self, jump: Jump) -> None:
        """Stay where Dreamship's clock is when this host's jumps."""
        self.offset -= jump.shift

    def now(self) -> datetime:
        """Return Dreamship's moment at the latest; this host's when nothing is known."""
        return self._clock.now() + self.offset
