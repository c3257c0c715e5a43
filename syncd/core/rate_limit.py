"""When may the next call to Dreamship leave? Pure arithmetic over the calls that already left.

Dreamship allows 60 calls a minute for one key and the shop's orders use the same key, so syncd
keeps to `calls_per_minute` in any minute, spreads what is not urgent, obeys what a 429 asks, slows
down after it and recovers slowly. The calls are kept in the mirror: restarting refills nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

# A minute, and a little more: Dreamship counts when a call arrives, we when it leaves.
WINDOW = timedelta(seconds=61)
DEFAULT_WAIT_S = 60.0
MAX_WAIT_S = 3600.0
SLOWEST_PER_MINUTE = 2.0
# Good answers it takes to come back from nothing to the full rate. Beside others whose calls come
# at random up to Dreamship's limit, 100 use 69 % of ours with 19 429s an hour, 400 use 67 % with 8,
# and each of them that does not come spares the shop's orders one.
ANSWERS_TO_RECOVER = 400

_WAIT_IN_WORDS = re.compile(r"\bin\s+(\d{1,6})\s+second", re.IGNORECASE)


class RateState(Struct, frozen=True):
    """The calls of the last window (oldest first), the present rate, and a pause if one is due."""

    calls_per_minute: int
    per_minute: float
    calls: tuple[datetime, ...] = ()
    paused_until: datetime | None = None


def start(
    calls_per_minute: int,
    calls: Iterable[datetime] = (),
    *,
    paused_until: datetime | None = None,
) -> RateState:
    """Return the pace of a process that begins, knowing the calls and 429s of its predecessor."""
    return RateState(calls_per_minute, float(calls_per_minute), tuple(sorted(calls)), paused_until)


def next_call_at(state: RateState, now: datetime, *, urgent: bool) -> datetime:
    """Return the earliest moment, not before `now`, at which one more call may leave."""
    earliest = [now]
    if state.paused_until is not None:
        # A clock set back must not turn a pause of a minute into one of a day.
        earliest.append(min(state.paused_until, now + timedelta(seconds=MAX_WAIT_S)))
    calls = _recent(state, now)
    allowed = max(1, int(state.per_minute))
    if len(calls) >= allowed:
        earliest.append(calls[-allowed] + WINDOW)
    if calls and not urgent:
        earliest.append(calls[-1] + timedelta(minutes=1) / max(1.0, state.per_minute))
    return max(earliest)


def called(state: RateState, now: datetime) -> RateState:
    """Return the pace after a call left at `now`."""
    return replace(state, calls=(*_recent(state, now), now))


def not_called(state: RateState, at: datetime) -> RateState:
    """Return the pace without a call that should have left at that moment, and did not."""
    calls = list(state.calls)
    if at in calls:
        calls.remove(at)
    return replace(state, calls=tuple(calls))


def answered(state: RateState) -> RateState:
    """Return the pace after a good answer: a little faster, never above the limit."""
    full = float(state.calls_per_minute)
    return replace(state, per_minute=min(full, state.per_minute + full / ANSWERS_TO_RECOVER))


def throttled(state: RateState, now: datetime, wait_s: float | None) -> RateState:
    """Return the pace after a 429 that asks for `wait_s` seconds (None: it does not say)."""
    wait = timedelta(seconds=min(MAX_WAIT_S, DEFAULT_WAIT_S if wait_s is None else wait_s))
    until = now + wait
    if state.paused_until is not None:
        until = max(until, min(state.paused_until, now + timedelta(seconds=MAX_WAIT_S)))
    slower = max(SLOWEST_PER_MINUTE, state.per_minute / 2)
    return replace(state, paused_until=until, per_minute=min(slower, float(state.calls_per_minute)))


def used_last_minute(state: RateState, now: datetime) -> int:
    """Return how many calls left in the last 60 seconds."""
    return sum(1 for call in state.calls if call > now - timedelta(minutes=1))


def wait_in_words(message: str) -> float | None:
    """Return the seconds a throttle message names ("Expected available in 59 seconds.")."""
    found = _WAIT_IN_WORDS.search(message)
    return None if found is None else float(found.group(1))


def _recent(state: RateState, now: datetime) -> tuple[datetime, ...]:
    # A call "in the future" was made before somebody set the clock back: it counts as made now.
    return tuple(min(call, now) for call in state.calls if call > now - WINDOW)
