"""Computes when the next call to Dreamship may leave, from the calls that have left. Pure.

Dreamship allows 60 calls a minute for one key, and the shop's orders use the same key. So syncd
makes at most `calls_per_minute` calls in any minute, spreads calls that are not urgent, waits as
long as a 429 demands, slows down after it and recovers slowly. The mirror stores the calls, and
a crash loses a known number of them at most, which then count as just made. So a restart does not
reset the limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

# A little more than a minute: Dreamship counts a call when it arrives, syncd when it leaves.
WINDOW = timedelta(seconds=61)
DEFAULT_WAIT_S = 60.0
MAX_WAIT_S = 3600.0
SLOWEST_PER_MINUTE = 2.0
# The number of good answers from the lowest to the full rate. Simulated beside other programs that
# call at random up to Dreamship's limit: with 100 answers syncd uses 69 % of its calls and causes
# 19 429s an hour; with 400 it uses 67 % and causes 8. The shop's orders then meet fewer 429s, too.
ANSWERS_TO_RECOVER = 400

# A 429 divides the rate of background calls by five, and the rate doubles every half hour. So
# background calls settle at a rate that causes less than one 429 an hour, beside up to 50 calls a
# minute of others.
SLOWER_AFTER_429 = 5.0
DOUBLES_IN = timedelta(minutes=30)
BACKGROUND_TRICKLE = 0.1

_WAIT_IN_MESSAGE = re.compile(r"\bin\s+(\d{1,6})\s+second", re.IGNORECASE)


class Slowdown(Struct, frozen=True):
    """The rate of background calls right after a 429."""

    at: datetime
    per_minute: float


class RateState(Struct, frozen=True):
    """The calls of the last window (oldest first), the present rate, and a pause if one is due.

    `slowdown`: the part of the background rate that the last 429 left.
    """

    calls_per_minute: int
    per_minute: float
    calls: tuple[datetime, ...] = ()
    paused_until: datetime | None = None
    slowdown: Slowdown | None = None


def start(
    calls_per_minute: int,
    calls: Iterable[datetime] = (),
    *,
    paused_until: datetime | None = None,
    slowdown: Slowdown | None = None,
) -> RateState:
    """Return the first state of a process, from the calls and 429s of the process before it."""
    per_minute, made = float(calls_per_minute), tuple(sorted(calls))
    return RateState(calls_per_minute, per_minute, made, paused_until, slowdown)


def reserve(calls_per_minute: int) -> int:
    """Return how many calls may leave before they are stored: those of twenty seconds, and two."""
    return min(calls_per_minute, calls_per_minute // 3 + 2)


def resume(
    calls_per_minute: int,
    calls: Iterable[datetime],
    lost: int,
    now: datetime,
    *,
    paused_until: datetime | None = None,
    slowdown: Slowdown | None = None,
) -> RateState:
    """Return the pace of a process that begins, knowing the calls and 429s of its predecessor.

    `lost`: how many more calls the predecessor may have made just before a crash.
    """
    made = (*calls, *(now,) * lost)
    return start(calls_per_minute, made, paused_until=paused_until, slowdown=slowdown)


def next_call_at(state: RateState, now: datetime, *, urgent: bool) -> datetime:
    """Return the earliest time from `now` on at which another call may leave."""
    earliest = [now]
    if state.paused_until is not None:
        # If the clock is set back, a pause of a minute must not become a pause of a day.
        earliest.append(min(state.paused_until, now + timedelta(seconds=MAX_WAIT_S)))
    calls = _recent(state, now)
    allowed = max(1, int(state.per_minute))
    if len(calls) >= allowed:
        earliest.append(calls[-allowed] + WINDOW)
    if calls and not urgent:
        earliest.append(calls[-1] + timedelta(minutes=1) / max(1.0, state.per_minute))
    return max(earliest)


def called(state: RateState, now: datetime) -> RateState:
    """Return the state after a call left at `now`."""
    return replace(state, calls=(*_recent(state, now), now))


def not_called(state: RateState, at: datetime) -> RateState:
    """Return the state without a planned call that did not leave."""
    calls = list(state.calls)
    if at in calls:
        calls.remove(at)
    return replace(state, calls=tuple(calls))


def answered(state: RateState) -> RateState:
    """Return the state after a good answer: a little faster, never above the limit."""
    full = float(state.calls_per_minute)
    return replace(state, per_minute=min(full, state.per_minute + full / ANSWERS_TO_RECOVER))


def background_rate(state: RateState, now: datetime, full: float) -> float:
    """Return how many background calls a minute may leave now; `full` without any 429."""
    if state.slowdown is None:
        return full
    doublings: float = max(0.0, (now - state.slowdown.at) / DOUBLES_IN)
    regained = math.exp2(min(doublings, 20.0))
    return min(full, state.slowdown.per_minute * regained)


def rate_for(calls: int, left: timedelta) -> float:
    """Return how many calls a minute it takes to make so many calls in the time that is left."""
    return calls / max(1.0, left / timedelta(minutes=1))


def limited(state: RateState, calls_per_minute: int) -> RateState:
    """Return the state with another limit."""
    return replace(state, calls_per_minute=calls_per_minute, per_minute=float(calls_per_minute))


def throttled(
    state: RateState, now: datetime, wait_s: float | None, *, background: float = 0.0
) -> RateState:
    """Return the state after a 429 with a wait of `wait_s` seconds (None: the 429 names none).

    `background`: the rate of background calls without any 429.
    """
    wait = timedelta(seconds=min(MAX_WAIT_S, DEFAULT_WAIT_S if wait_s is None else wait_s))
    until = now + wait
    if state.paused_until is not None:
        until = max(until, min(state.paused_until, now + timedelta(seconds=MAX_WAIT_S)))
    slower = max(SLOWEST_PER_MINUTE, state.per_minute / 2)
    return replace(
        state,
        paused_until=until,
        per_minute=min(slower, float(state.calls_per_minute)),
        slowdown=_slowed(state, now, background),
    )


def _slowed(state: RateState, now: datetime, background: float) -> Slowdown | None:
    """Return the slowdown after a 429; the calls of one minute slow the background down once."""
    before = state.slowdown
    if not background or (before is not None and timedelta() <= now - before.at < WINDOW):
        return before
    slower = background_rate(state, now, background) / SLOWER_AFTER_429
    return Slowdown(now, max(BACKGROUND_TRICKLE, slower))


def used_last_minute(state: RateState, now: datetime) -> int:
    """Return how many calls left in the last 60 seconds."""
    return sum(1 for call in state.calls if call > now - timedelta(minutes=1))


def wait_in_message(message: str) -> float | None:
    """Return the seconds in the message of a 429 ("Expected available in 59 seconds.")."""
    found = _WAIT_IN_MESSAGE.search(message)
    return None if found is None else float(found.group(1))


def _recent(state: RateState, now: datetime) -> tuple[datetime, ...]:
    # A call "in the future" left before the clock was set back: it counts as a call of now.
    return tuple(min(call, now) for call in state.calls if call > now - WINDOW)
