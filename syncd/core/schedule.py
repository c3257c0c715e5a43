"""The times of sweeps, of the search for unplaced variants, and of deletions of old rows. Pure.

`syncd.daemon.scheduler` runs it with APScheduler, and the simulation in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepSummary

Task = Literal["sweep", "locate", "prune"]
TASKS: tuple[Task, ...] = ("sweep", "locate", "prune")

# Sweeps in the background begin at most this often: a small catalogue is read within seconds.
SHORTEST_ROUND = timedelta(minutes=4)
# How often to look in the mirror for variants that only a sweep can place.
LOCATE_EVERY = timedelta(seconds=10)
PRUNE_EVERY = timedelta(hours=1)
# The first time soon: a daemon that is restarted every hour must delete old rows too.
PRUNE_FIRST = timedelta(seconds=5)
# How soon to check again whether the clock is trusted.
PRUNE_AGAIN = timedelta(minutes=1)
# A random delay, so that many daemons do not sweep in the same second after Dreamship was down.
JITTER_SHARE = 0.1
LONGEST_JITTER = timedelta(minutes=5)
# If the clocks of this host and Dreamship differ by less, this host's clock is good enough to
# compute the age of rows in days.
CLOCKS_AGREE = timedelta(hours=1)
# A clock without confirmation is trusted after this time without another jump.
TRUSTED_AFTER_S = 24 * 3600.0
# While no deliveries arrive, the pause between early sweeps doubles up to this many times.
_MOST_DOUBLINGS = 10


class SweepPeriods(Struct, frozen=True):
    """The settings `reconcile.every` and `reconcile.every_when_silent`.

    `is_continuous`: there are background calls, so a sweep begins when the last one has ended.
    """

    every: timedelta
    every_when_silent: timedelta
    is_continuous: bool = False


class Schedule:
    """The next moment of each task, from the events of one daemon.

    `chance` returns a random number from 0 to 1. `start` plans the first runs.
    """

    def __init__(self, periods: SweepPeriods, chance: Callable[[], float]) -> None:
        self._periods = periods
        self._chance = chance
        self._next: dict[Task, datetime] = {}
        self._is_silent = False
        self._failures = 0
        self._reloaded_at: datetime | None = None
        self._located_at: datetime | None = None
        self._quiet_until: datetime | None = None
        self._quiet_sweeps = 0

    def start(self, now: datetime, *, complete_at: datetime | None, failures: int) -> bool:
        """Plan the first run of each task; return whether a sweep is due at once.

        `complete_at`: when the last complete sweep began. `failures`: the sweeps since that were
        not complete.
        """
        every = self._periods.every
        is_due = is_due_since(complete_at, every, now)
        last = now if is_due or complete_at is None else complete_at
        self._failures = failures
        is_next_soon = self._periods.is_continuous and not is_due
        self._next = {
            "sweep": max(now, last + SHORTEST_ROUND) if is_next_soon else last + every,
            "locate": now + LOCATE_EVERY,
            "prune": now + PRUNE_FIRST,
        }
        return is_due

    def next_at(self, task: Task) -> datetime | None:
        """Return when a task is due; None before the start."""
        return self._next.get(task)

    def begin(self, task: Task, now: datetime) -> datetime:
        """Plan the run after the one that begins now; missed runs are not repeated."""
        jitter = self._jitter * self._chance() if task == "sweep" else timedelta()
        self._next[task] = now + self._period(task) + jitter
        return self._next[task]

    def retry_prune(self, now: datetime) -> None:
        """Plan the deletion again soon, because the clock is not trusted yet."""
        self._next["prune"] = now + PRUNE_AGAIN

    def wants_locating(self, now: datetime) -> bool:
        """Return whether a sweep may place variants now; such sweeps have a minimum distance."""
        if not is_due_since(self._located_at, self._periods.every_when_silent, now):
            return False
        self._located_at = now
        return True

    def end_sweep(self, summary: SweepSummary, now: datetime) -> None:
        """Plan the next sweep soon after a sweep of the catalogue that was not complete."""
        if not summary.is_catalogue or not self._next:
            return
        if summary.result == "complete" or summary.removals_held:
            self._failures = 0
            # Blocked removals wait for a person; another sweep soon would not help.
            if self._periods.is_continuous and not summary.removals_held:
                self._bring_forward(max(now, summary.began_at + SHORTEST_ROUND))
            return
        self._failures += 1
        is_outdated = self._reloaded_at is not None and summary.began_at < self._reloaded_at
        wait = next_after_failure(self._failures, self._periods.every_when_silent)
        wait *= 1 + JITTER_SHARE * self._chance()
        self._bring_forward(now + (timedelta() if is_outdated else wait))

    def reload(self, periods: SweepPeriods, now: datetime) -> None:
        """Use new settings; they may have removed the cause of a failed sweep."""
        begins_to_continue = periods.is_continuous and not self._periods.is_continuous
        self._periods = periods
        self._reloaded_at = now
        self._set_period(now, is_due=self._failures > 0 or begins_to_continue)

    def set_silent(self, now: datetime, *, is_silent: bool) -> None:
        """Use the other period after deliveries have stopped, or arrive again."""
        if is_silent != self._is_silent:
            self._is_silent = is_silent
            self._set_period(now)

    def wants_quiet_sweep(self, now: datetime, *, is_quiet: bool) -> bool:
        """Return whether to sweep early because no deliveries arrive; each pause is longer."""
        if not is_quiet:
            self._quiet_until, self._quiet_sweeps = None, 0
            return False
        if self._quiet_until is not None and now < self._quiet_until:
            return False
        self._quiet_until = now + self._periods.every_when_silent * 2**self._quiet_sweeps
        self._quiet_sweeps = min(self._quiet_sweeps + 1, _MOST_DOUBLINGS)
        return True

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock; no task waits for longer than its period."""
        if self._located_at is not None:
            self._located_at = jump.timer(self._located_at)
        if self._quiet_until is not None:
            self._quiet_until = jump.timer(self._quiet_until)
        if self._reloaded_at is not None:
            self._reloaded_at = jump.event(self._reloaded_at)
        for task, at in self._next.items():
            longest = self._period(task) + (self._jitter if task == "sweep" else timedelta())
            self._next[task] = min(jump.timer(at), jump.after + longest)

    def _set_period(self, now: datetime, *, is_due: bool = False) -> None:
        """Plan the next sweep by the period in force; it never becomes later.

        An operator may reload more often than the daemon sweeps.
        """
        if self._next:
            jitter = self._jitter * self._chance()
            self._bring_forward(now if is_due else now + self._period("sweep") + jitter)

    def _bring_forward(self, at: datetime) -> None:
        self._next["sweep"] = min(self._next["sweep"], at)

    def _period(self, task: Task) -> timedelta:
        if task != "sweep":
            return LOCATE_EVERY if task == "locate" else PRUNE_EVERY
        return self._periods.every_when_silent if self._is_silent else self._periods.every

    @property
    def _jitter(self) -> timedelta:
        return min(LONGEST_JITTER, self._period("sweep") * JITTER_SHARE)


class ClockTrust:
    """Whether this host's clock is trusted; after a jump ahead it needs a confirmation.

    `elapsed_s` is elapsed time. `answers` is the number of Dreamship's answers with a `Date`.
    `offset` is Dreamship's clock minus this host's clock.
    """

    def __init__(self) -> None:
        self._distrusted_s: float | None = None
        self._distrusted_answers = 0

    @property
    def is_distrusted(self) -> bool:
        """Whether old rows have to wait for `is_confirmed` and `confirm`."""
        return self._distrusted_s is not None

    def distrust(self, elapsed_s: float, answers: int) -> None:
        """Stop trusting the clock, from this moment on."""
        self._distrusted_s, self._distrusted_answers = elapsed_s, answers

    def is_confirmed(self, elapsed_s: float, answers: int, offset: timedelta) -> bool:
        """Return whether a `Date` of Dreamship agrees, or a day has passed without an answer."""
        if self._distrusted_s is None or elapsed_s >= self._distrusted_s + TRUSTED_AFTER_S:
            return True
        return answers > self._distrusted_answers and not is_ahead(answers, offset)

    def confirm(self) -> None:
        """Trust the clock again."""
        self._distrusted_s = None


def is_ahead(answers: int, offset: timedelta) -> bool:
    """Return whether this host's clock is ahead of Dreamship's, so that young rows look old."""
    return answers > 0 and offset < -CLOCKS_AGREE


def next_after_failure(failures: int, every: timedelta) -> timedelta:
    """Return how long to wait after `failures` failed sweeps in a row: longer after each."""
    return min(every, timedelta(minutes=2.0 ** min(failures - 1, 10)))


def is_due_since(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Return whether a period has passed since `last`, or `last` is unknown or in the future."""
    return last is None or now - last >= every or last > now
