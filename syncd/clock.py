"""The one "now" of a process, and what happens when the wall clock of its host jumps.

Wall time is what the mirror and Dreamship know; elapsed time is what a wait, a pause or a period
means. `SteadyClock` starts at wall time and goes on by elapsed time, so that no two moments of one
process are in the wrong order. A check every second compares both; a difference is a `Jump`, and
everything that holds a moment follows it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from syncd.core.clock_jump import Jump

CHECK_EVERY_S = 1.0
# A smaller difference is corrected by running up to a tenth faster or slower, without a step.
SLEWED = timedelta(seconds=1)
SLEW_SHARE = 0.1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UPTIME = Path("/proc/uptime")
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Time as it passes outside; a test brings its own."""

    def now(self) -> datetime:
        """Return this host's moment, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class RawClock(Protocol):
    """The readings of a host; a test brings its own."""

    @property
    def boot_id(self) -> str:
        """Return what `elapsed_s` counts from; empty when that cannot be told."""
        ...

    def wall(self) -> datetime:
        """Return wall time in UTC; it may be set at any moment."""
        ...

    def elapsed_s(self) -> float:
        """Return seconds since some moment; they only rise."""
        ...


class HostClock:
    """The clocks of this host. Elapsed time includes the time in which the machine is suspended."""

    def __init__(self) -> None:
        self.boot_id = _boot_id(self.elapsed_s())

    def wall(self) -> datetime:
        """See RawClock."""
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        """See RawClock."""
        return time.clock_gettime(_ELAPSED)


class Mark(Struct, frozen=True):
    """The same moment on both clocks, so that the next process can tell what one of them did."""

    at: datetime
    boot_id: str = ""
    elapsed_s: float = 0.0


class SteadyClock:
    """Fulfils ports.Clock on the readings of a host; only `check` lets its time jump."""

    def __init__(self, raw: RawClock | None = None) -> None:
        self._raw = raw or HostClock()
        self._followers: list[Callable[[Jump], None]] = []
        self.jumps = 0
        wall, elapsed_s = self._read()
        self._anchor(wall, elapsed_s)
        self._checked_at = wall

    def now(self) -> datetime:
        """See ports.Clock."""
        return self._at(self._raw.elapsed_s())

    def elapsed_s(self) -> float:
        """Return elapsed seconds, for what must not follow the wall clock at all."""
        return self._raw.elapsed_s()

    async def sleep(self, seconds: float) -> None:
        """See ports.Clock."""
        await asyncio.sleep(seconds)

    def mark(self) -> Mark:
        """Return this moment on both clocks."""
        elapsed_s = self._raw.elapsed_s()
        return Mark(self._at(elapsed_s), self._raw.boot_id, elapsed_s)

    def follow(self, follower: Callable[[Jump], None]) -> None:
        """Have `follower` move what it holds in memory in the instant of each jump."""
        self._followers.append(follower)

    def resume(self, last: Mark | None, noted_at: datetime) -> Jump | None:
        """Go on after a process that left this mark, if any, and noted nothing after `noted_at`."""
        wall, elapsed_s = self._read()
        jump: Jump | None
        if last and last.boot_id == self._raw.boot_id != "" and elapsed_s >= last.elapsed_s:
            self._anchor(last.at, last.elapsed_s)
            self._checked_at = last.at
            jump, now = self.check(), self.now()
            # Something else wrote it, by another clock: nothing in the mirror may be ahead of now.
            return Jump(noted_at, now, now) if jump is None and noted_at > now else jump
        self._anchor(wall, elapsed_s)
        self._checked_at = wall
        seen_at = max(noted_at, wall) if last is None else last.at
        jump = Jump(max(noted_at, wall), wall, seen_at, is_same_boot=False)
        return jump if jump.shift or jump.is_absence else None

    def check(self) -> Jump | None:
        """Compare both clocks; returns what everything in the mirror has to follow."""
        wall, elapsed_s = self._read()
        before, seen_at = self._at(elapsed_s), self._checked_at
        ahead = wall - before
        is_step = abs(ahead) > SLEWED
        after = wall if is_step else before
        self._anchor(after, elapsed_s)
        if not is_step:
            self._slew_s = ahead.total_seconds()
        self._checked_at = after
        jump = Jump(before, after, seen_at)
        if not is_step and not jump.is_absence:
            return None
        self.jumps += 1
        for follower in self._followers:
            follower(jump)
        return jump

    def _anchor(self, at: datetime, elapsed_s: float) -> None:
        self._anchor_at, self._anchor_s, self._slew_s = at, elapsed_s, 0.0

    def _at(self, elapsed_s: float) -> datetime:
        passed_s = max(0.0, elapsed_s - self._anchor_s)
        most_s = SLEW_SHARE * passed_s
        slewed_s = max(-most_s, min(most_s, self._slew_s))
        return self._anchor_at + timedelta(seconds=passed_s + slewed_s)

    def _read(self) -> tuple[datetime, float]:
        """Read both clocks in the same instant: a process may be stopped between two readings."""
        while True:
            elapsed_s = self._raw.elapsed_s()
            wall = self._raw.wall()
            if self._raw.elapsed_s() - elapsed_s < SLEWED.total_seconds() / 10:
                return wall, elapsed_s


def _boot_id(elapsed_s: float) -> str:
    """Return the boot that `elapsed_s` counts from; empty where it is not the kernel's uptime.

    So in a time namespace, and where a library gives the process a clock of its own.
    """
    try:
        boot_id, uptime = _BOOT_ID.read_text().strip(), _UPTIME.read_text()
        is_uptime = abs(float(uptime.split()[0]) - elapsed_s) < SLEWED.total_seconds()
    except (OSError, ValueError, IndexError):
        return ""
    return boot_id if is_uptime else ""
