"""The clock of a process, which handles jumps of the wall clock of its host.

The mirror and Dreamship use wall time; a wait, a pause or a period uses elapsed time. `SteadyClock`
starts at wall time and continues by elapsed time, so that the times of one process stay in order. A
check every second compares both clocks. A difference is a `Jump`, and all stored times follow it at
once.
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
# A smaller difference is corrected without a step: the clock runs up to a tenth faster or slower.
SLEWED = timedelta(seconds=1)
SLEW_SHARE = 0.1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UPTIME = Path("/proc/uptime")
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The time of this host; tests have their own implementations."""

    def now(self) -> datetime:
        """Return the time of this host, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class RawClock(Protocol):
    """The clocks of a host; tests have their own implementations."""

    @property
    def boot_id(self) -> str:
        """Return the id of the boot at which `elapsed_s` began; empty if it is unknown."""
        ...

    def wall(self) -> datetime:
        """Return wall time in UTC; it may be set at any time."""
        ...

    def elapsed_s(self) -> float:
        """Return seconds since a fixed time; they only rise."""
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
    """One moment on both clocks, by which the next process finds out whether one has jumped."""

    at: datetime
    boot_id: str = ""
    elapsed_s: float = 0.0


class SteadyClock:
    """Implements Clock with the clocks of a host; its time jumps only in `check`."""

    def __init__(self, raw: RawClock | None = None) -> None:
        self._raw = raw or HostClock()
        self._followers: list[Callable[[Jump], None]] = []
        self.jumps = 0
        wall, elapsed_s = self._read()
        self._anchor(wall, elapsed_s)
        self._checked_at = wall

    def now(self) -> datetime:
        """See Clock."""
        return self._at(self._raw.elapsed_s())

    def elapsed_s(self) -> float:
        """Return elapsed seconds, for waits that must not follow the wall clock."""
        return self._raw.elapsed_s()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)

    def mark(self) -> Mark:
        """Return this moment on both clocks."""
        elapsed_s = self._raw.elapsed_s()
        return Mark(self._at(elapsed_s), self._raw.boot_id, elapsed_s)

    def follow(self, follower: Callable[[Jump], None]) -> None:
        """Call `follower` at each jump, so that it moves the times that it has in memory."""
        self._followers.append(follower)

    def resume(self, last: Mark | None, newest_at: datetime) -> Jump | None:
        """Continue after a process with this mark, if any, and `newest_at`, its newest time."""
        wall, elapsed_s = self._read()
        jump: Jump | None
        if last and last.boot_id == self._raw.boot_id != "" and elapsed_s >= last.elapsed_s:
            self._anchor(last.at, last.elapsed_s)
            self._checked_at = last.at
            jump, now = self.check(), self.now()
            # Another program wrote it, by another clock: no time in the mirror may be ahead of now.
            return Jump(newest_at, now, now) if jump is None and newest_at > now else jump
        self._anchor(wall, elapsed_s)
        self._checked_at = wall
        last_ran_at = max(newest_at, wall) if last is None else last.at
        jump = Jump(max(newest_at, wall), wall, last_ran_at, is_same_boot=False)
        return jump if jump.shift or jump.is_absence else None

    def check(self) -> Jump | None:
        """Compare both clocks; return the jump that the times in the mirror have to follow."""
        wall, elapsed_s = self._read()
        before, last_ran_at = self._at(elapsed_s), self._checked_at
        ahead = wall - before
        is_step = abs(ahead) > SLEWED
        after = wall if is_step else before
        self._anchor(after, elapsed_s)
        if not is_step:
            self._slew_s = ahead.total_seconds()
        self._checked_at = after
        jump = Jump(before, after, last_ran_at)
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
        """Read both clocks at the same moment, although the process may be suspended in between."""
        while True:
            elapsed_s = self._raw.elapsed_s()
            wall = self._raw.wall()
            if self._raw.elapsed_s() - elapsed_s < SLEWED.total_seconds() / 10:
                return wall, elapsed_s


def _boot_id(elapsed_s: float) -> str:
    """Return the boot at which `elapsed_s` began; empty if it is not the kernel's uptime.

    That is so in a time namespace, and if a library gives the process another clock.
    """
    try:
        boot_id, uptime = _BOOT_ID.read_text().strip(), _UPTIME.read_text()
        is_uptime = abs(float(uptime.split()[0]) - elapsed_s) < SLEWED.total_seconds()
    except (OSError, ValueError, IndexError):
        return ""
    return boot_id if is_uptime else ""


async def sleep_unless_set(clock: Clock, seconds: float | None, event: asyncio.Event) -> None:
    """Sleep, but only until the event is set; `seconds` None: wait for the event."""
    if seconds is None:
        await event.wait()
        return
    timer = asyncio.create_task(clock.sleep(seconds))
    woken = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({timer, woken}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        woken.cancel()
        await asyncio.gather(timer, woken, return_exceptions=True)
