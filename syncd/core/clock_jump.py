"""A jump of this host's wall clock, and its effect on the times that are in memory."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

# A longer gap is an absence: deliveries may have been refused during it.
AWAY_AFTER = timedelta(seconds=60)
# The distance to now stays the same for times this recent before a jump; older times stay older.
RECENT = timedelta(hours=1)
# The assumed absence of a host whose clock is behind the last moment in the mirror.
UNKNOWN_ABSENCE = timedelta(days=1)


class Jump(Struct, frozen=True):
    """The wall clock was set, or this host did not run for a while.

    `before` and `after` are the same moment, by the old clock and by the new clock. `last_ran_at`
    is when this process (or the one before it) last ran, by the old clock. `is_same_boot`: the
    elapsed time is known; otherwise only the wall clock shows it.
    """

    before: datetime
    after: datetime
    last_ran_at: datetime
    is_same_boot: bool = True

    @property
    def shift(self) -> timedelta:
        """How far the wall clock was set ahead; negative if it was set back."""
        return self.after - self.before

    @property
    def is_set_back(self) -> bool:
        """Whether stored moments may lie in the future now."""
        return self.after < self.before

    @property
    def away(self) -> timedelta:
        """The longest time for which the process may not have run."""
        if not self.is_same_boot and self.after < self.last_ran_at:
            return UNKNOWN_ABSENCE
        return max(self.before, self.after) - self.last_ran_at

    @property
    def since(self) -> datetime:
        """When the process stopped running, by the new clock."""
        return min(self.last_ran_at, self.after)

    @property
    def is_absence(self) -> bool:
        """Whether deliveries may have been refused in the meantime."""
        return self.away > AWAY_AFTER

    @property
    def needs_confirmation(self) -> bool:
        """Whether the new clock may be far ahead of the real time."""
        is_long_off = not self.is_same_boot and self.away >= UNKNOWN_ABSENCE
        return self.shift > AWAY_AFTER or (is_long_off and not self.is_set_back)

    def timer(self, moment: datetime) -> datetime:
        """Return a deadline, or the begin of a wait, by the new clock."""
        if moment > self.before - RECENT:
            try:
                return moment + self.shift
            except OverflowError:
                return self.after
        return min(moment, self.after - RECENT)

    def event(self, moment: datetime) -> datetime:
        """Return the time of a past event by the new clock: never in the future.

        The order of events stays the same. A jump ahead does not change the times of events: the
        time between may really have passed.
        """
        return min(self.timer(moment), self.after) if self.is_set_back else moment
