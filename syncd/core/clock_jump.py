"""A jump of this host's wall clock, and what it does to the moments that are in memory."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

# A longer gap is an absence: deliveries may have been refused meanwhile.
AWAY_AFTER = timedelta(seconds=60)
# Moments within this time before a jump keep their distance to now; older ones only stay older.
RECENT = timedelta(hours=1)
# The assumed absence of a host whose clock is behind the last moment in the mirror.
UNKNOWN_ABSENCE = timedelta(days=1)


class Jump(Struct, frozen=True):
    """The wall clock was set, or nothing ran for a while.

    `before` and `after` are the same moment, by the clock as it was and as it is. `seen_at` is
    when this process (or the one before it) last ran, by the clock as it was. `is_same_boot`: the
    elapsed time is known; else only the wall clock shows it.
    """

    before: datetime
    after: datetime
    seen_at: datetime
    is_same_boot: bool = True

    @property
    def shift(self) -> timedelta:
        """How far the wall clock was set ahead; negative: set back."""
        return self.after - self.before

    @property
    def is_set_back(self) -> bool:
        """Whether stored moments may lie in the future now."""
        return self.after < self.before

    @property
    def away(self) -> timedelta:
        """How long nothing ran, at the longest."""
        if not self.is_same_boot and self.after < self.seen_at:
            return UNKNOWN_ABSENCE
        return max(self.before, self.after) - self.seen_at

    @property
    def since(self) -> datetime:
        """The moment after which nothing ran, by the clock as it is."""
        return min(self.seen_at, self.after)

    @property
    def is_absence(self) -> bool:
        """Whether deliveries may have been refused meanwhile."""
        return self.away > AWAY_AFTER

    @property
    def is_doubtful(self) -> bool:
        """Whether the clock may be far ahead of the truth now."""
        is_long_off = not self.is_same_boot and self.away >= UNKNOWN_ABSENCE
        return self.shift > AWAY_AFTER or (is_long_off and not self.is_set_back)

    def timer(self, moment: datetime) -> datetime:
        """Return a deadline, or the begin of a wait, by the clock as it is."""
        if moment > self.before - RECENT:
            try:
                return moment + self.shift
            except OverflowError:
                return self.after
        return min(moment, self.after - RECENT)

    def noted(self, moment: datetime) -> datetime:
        """Return the moment of an event by the clock as it is: never in the future.

        The order of events stays as it was. After a jump ahead events keep their moments: the time
        between may have passed.
        """
        return min(self.timer(moment), self.after) if self.is_set_back else moment
