"""Never more calls than allowed in any minute, and the pause of each 429 is obeyed."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import rate_limit
from syncd.core.backoff import backoff
from syncd.demo.fake_dreamship import Throttle

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(
    limit=st.integers(1, 90),
    steps=st.lists(
        st.tuples(
            st.floats(0, 40), st.booleans(), st.sampled_from(["ok", "429", "restart", "crash"])
        ),
        max_size=150,
    ),
)
def test_no_minute_has_more_calls_than_allowed(
    limit: int, steps: list[tuple[float, bool, str]]
) -> None:
    """Urgent, throttled or restarted: the sliding minute never exceeds the limit."""
    state, now = rate_limit.start(limit), NOON
    calls: list[datetime] = []
    for idle_s, urgent, what in steps:
        now += timedelta(seconds=idle_s)
        now = rate_limit.next_call_at(state, now, urgent=urgent)
        state = rate_limit.called(state, now)
        calls.append(now)
        if what == "429":
            state = rate_limit.throttled(state, now, None)
            assert rate_limit.next_call_at(state, now, urgent=True) >= now + timedelta(seconds=60)
        elif what == "ok":
            state = rate_limit.answered(state)
        else:
            lost = rate_limit.reserve(limit) if what == "crash" else 0
            known = calls[: len(calls) - lost]
            state = rate_limit.resume(limit, known, lost, now, paused_until=state.paused_until)
        assert state.per_minute <= limit
    for first in calls:
        in_minute = [c for c in calls if first <= c < first + timedelta(minutes=1)]
        assert len(in_minute) <= limit


def test_background_calls_are_spread_and_urgent_calls_are_not() -> None:
    """An urgent read must not find the minute used up by a sweep."""
    state = rate_limit.called(rate_limit.start(30), NOON)
    assert rate_limit.next_call_at(state, NOON, urgent=False) == NOON + timedelta(seconds=2)
    assert rate_limit.next_call_at(state, NOON, urgent=True) == NOON


def test_after_a_429_the_rate_recovers_slowly() -> None:
    """It waits for Retry-After; then the rate is halved and grows with good answers."""
    state = rate_limit.throttled(rate_limit.called(rate_limit.start(40), NOON), NOON, 17)
    assert rate_limit.next_call_at(state, NOON, urgent=True) == NOON + timedelta(seconds=17)
    assert state.per_minute == 20
    for _ in range(199):
        state = rate_limit.answered(state)
    assert state.per_minute < 40
    for _ in range(2):
        state = rate_limit.answered(state)
    assert state.per_minute == 40


def test_a_shorter_429_does_not_shorten_a_longer_one() -> None:
    """Two calls may be throttled at the same time."""
    state = rate_limit.throttled(rate_limit.start(40), NOON, 50)
    state = rate_limit.throttled(state, NOON, 1)
    assert rate_limit.next_call_at(state, NOON, urgent=True) == NOON + timedelta(seconds=50)


def test_a_clock_set_back_does_not_stop_reading() -> None:
    """Calls and pauses that lie in the future count as of now."""
    state = rate_limit.throttled(rate_limit.called(rate_limit.start(1), NOON), NOON, 60)
    earlier = NOON - timedelta(days=1)
    assert rate_limit.next_call_at(state, earlier, urgent=True) <= earlier + timedelta(hours=1)


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("Request was throttled. Expected available in 59 seconds.", 59),
        ("Expected available in 1 second.", 1),
        ("Request was throttled.", None),
    ],
)
def test_the_text_of_a_429_names_the_wait(message: str, wait_s: float | None) -> None:
    """Without Retry-After the documented wording counts."""
    assert rate_limit.wait_in_message(message) == wait_s


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_and_stays_bounded(attempt: int, chance: float) -> None:
    """Full jitter: between zero and the exponential bound, never above the cap."""
    wait_s = backoff(attempt, chance, base_s=0.5, cap_s=60).total_seconds()
    assert 0 <= wait_s <= min(60, 0.5 * 2 ** min(attempt, 30))


@pytest.mark.parametrize("wait_s", [86_400, 999_999_999])
def test_an_absurd_wait_is_capped_at_an_hour(wait_s: float) -> None:
    """A day without reading is worse than one more 429; log and status report it."""
    state = rate_limit.throttled(rate_limit.start(45), NOON, wait_s)
    assert state.paused_until == NOON + timedelta(hours=1)
    assert rate_limit.next_call_at(state, NOON, urgent=True) == NOON + timedelta(hours=1)


@pytest.mark.parametrize("others", ["evenly", "in one burst", "at random"])
def test_the_budget_is_used_beside_other_programs_with_the_same_key(others: str) -> None:
    """Dreamship allows 60 calls a minute: syncd makes 45, and the shop's orders 15.

    At least 97 % of ours are used, with at most one 429 an hour. If the others call at random,
    they sometimes exceed their 15; then we get a few 429s, and obey them.
    """
    rng = random.Random(1)
    limit, ours = Throttle(calls=60, window_s=60), rate_limit.start(45)
    hours, end_s = 8, 8 * 3600.0
    theirs = {
        "evenly": [4.0 * n for n in range(int(end_s / 4))],
        "in one burst": [60.0 * (n // 15) + n % 15 / 50 for n in range(int(end_s / 4))],
        "at random": sorted(rng.uniform(0, end_s) for _ in range(int(end_s / 4))),
    }[others]
    now, calls, throttled, next_theirs = NOON, 0, 0, 0
    while True:
        now = rate_limit.next_call_at(ours, now, urgent=False)
        ours = rate_limit.called(ours, now)
        # It leaves now and arrives a little later, sometimes much later.
        arrives_s = (now - NOON).total_seconds() + rng.choice([0.05, 0.1, 0.2, 0.8])
        if arrives_s >= end_s:
            break
        while next_theirs < len(theirs) and theirs[next_theirs] <= arrives_s:
            limit.wait_s(theirs[next_theirs])
            next_theirs += 1
        wait_s = limit.wait_s(arrives_s)
        if wait_s is None:
            ours, calls = rate_limit.answered(ours), calls + 1
        else:
            ours = rate_limit.throttled(ours, now, float(math.ceil(wait_s)))
            throttled += 1
    assert calls >= (0.97 if others != "at random" else 0.6) * 45 * 60 * hours
    assert throttled <= (1 if others != "at random" else 12) * hours
