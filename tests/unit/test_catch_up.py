"""Catching up after a lost delivery: what is evidence, and how many calls it may cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.catch_up import (
    CREDIT_LASTS,
    CREDIT_SHARE,
    FIRST_CREDIT,
    MOST_CREDIT,
    CatchUp,
    add_evidence,
    credit,
    evidence_since,
    evidence_wait,
    extra_rate,
    hurry,
    proceed,
    repeat,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BACKGROUND, CALLS = 15.0, 45.0
EARNED = BACKGROUND * CREDIT_SHARE


def begun(outdated: int = 10, credit: float | None = None, now: datetime = NOW) -> CatchUp:
    """Return a catch-up that begins now."""
    state = CatchUp() if credit is None else CatchUp(credit=credit, credit_at=now)
    return hurry(add_evidence(state, now, now, BACKGROUND), outdated, BACKGROUND, CALLS)


def extra(state: CatchUp, now: datetime) -> float:
    """Return what the catch-up adds to the background calls."""
    return extra_rate(state, now, BACKGROUND, CALLS)


def test_the_first_lost_delivery_begins_a_catch_up_at_full_rate() -> None:
    """A new mirror has a credit; background calls would have read a third of the items."""
    state = begun(300)
    assert state.evidence_at == NOW
    assert BACKGROUND + extra(state, NOW) == CALLS
    assert state.credit == pytest.approx(FIRST_CREDIT / MINUTE * EARNED - 200)


def test_without_evidence_nothing_is_caught_up() -> None:
    """The credit grows from the first moment on."""
    state = proceed(CatchUp(), 100, NOW, BACKGROUND)
    assert extra(state, NOW) == 0
    later = NOW + 10 * HOUR
    assert proceed(state, 100, later, BACKGROUND) == state
    assert credit(state, later, BACKGROUND) > 4 * credit(CatchUp(), NOW, BACKGROUND)


def test_changes_that_the_catch_up_finds_are_no_new_evidence() -> None:
    """They belong to the same loss."""
    running = begun()
    assert add_evidence(running, NOW + MINUTE, NOW + MINUTE, BACKGROUND) == running
    end = NOW + 5 * MINUTE
    assert proceed(running, 1, end, BACKGROUND) == running
    ended = proceed(running, 0, end, BACKGROUND)
    assert ended.evidence_at is None
    assert extra(ended, end) == 0
    assert add_evidence(ended, NOW + 4 * MINUTE, end, BACKGROUND) == ended
    assert evidence_since(ended) == end


def test_a_change_after_the_catch_up_is_new_evidence() -> None:
    """It was lost since then."""
    ended = proceed(begun(), 0, NOW + 5 * MINUTE, BACKGROUND)
    found_at = NOW + 6 * MINUTE
    assert add_evidence(ended, found_at, found_at, BACKGROUND).evidence_at == found_at


def test_a_catch_up_is_repeated_while_deliveries_have_stopped() -> None:
    """The changes that it found may be newer than its own beginning; the rate is raised evenly."""
    running, later = begun(), NOW + 5 * MINUTE
    ended = proceed(running, 0, later, BACKGROUND)
    again = repeat(running, ended, NOW + 3 * MINUTE, NOW - HOUR)
    assert again.evidence_at == NOW + 3 * MINUTE
    assert EARNED < extra(again, later) < CALLS - BACKGROUND
    assert repeat(running, ended, NOW + 3 * MINUTE, NOW + MINUTE) == ended  # they arrive
    assert repeat(running, ended, None, NOW - HOUR) == ended  # it has found nothing
    assert repeat(running, running, NOW + 3 * MINUTE, None) == running
    assert repeat(CatchUp(), CatchUp(), NOW, None) == CatchUp()


def test_a_catch_up_without_enough_credit_has_a_raised_rate() -> None:
    """It spends what it earns, at least."""
    assert extra(begun(900, credit=0.0), NOW) == EARNED
    assert extra(begun(900, credit=480.0), NOW) == EARNED + 1
    assert extra(begun(900, credit=601.0), NOW) == CALLS - BACKGROUND


def test_the_rate_of_a_long_outage_falls_slowly() -> None:
    """It never falls below what the background earns, and the credit is spent."""
    state = begun(9000, credit=4800.0)
    rates = [extra(state, NOW + hours * HOUR) for hours in range(13)]
    assert rates[0] == EARNED + 4800.0 / (CREDIT_LASTS / MINUTE)
    assert rates == sorted(rates, reverse=True)
    assert rates[8] > EARNED + rates[0] / 5
    assert extra(state, NOW + 30 * DAY) == pytest.approx(EARNED)
    ended = proceed(state, 0, NOW + 12 * HOUR, BACKGROUND)
    assert 4800 / 5 < ended.credit < 4800 / 4


def test_a_catch_up_of_a_large_catalogue_costs_only_what_it_adds() -> None:
    """10,000 items are read at 28 calls a minute in any case."""
    found = add_evidence(CatchUp(credit=4000.0, credit_at=NOW), NOW, NOW, BACKGROUND)
    assert not hurry(found, 10_000, BACKGROUND, CALLS).is_at_full_rate
    running = hurry(found, 10_000, 10_000 / 360, CALLS)
    assert running.is_at_full_rate
    assert 100 < running.credit < 300


def test_evidence_waits_for_late_deliveries_only_if_some_were_late() -> None:
    """Within a day."""
    settle, grace = MINUTE, 10 * MINUTE
    assert evidence_wait(None, NOW, settle, grace) == settle
    assert evidence_wait(NOW - HOUR, NOW, settle, grace) == grace
    assert evidence_wait(NOW - DAY, NOW, settle, grace) == settle
    assert evidence_wait(NOW + HOUR, NOW, settle, grace) == settle  # the clock was set back


@given(
    catch_ups=st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 2000), st.booleans()), max_size=20
    )
)
def test_catch_ups_cost_a_bounded_number_of_calls(
    catch_ups: list[tuple[int, int, bool]],
) -> None:
    """A share of the background calls on average, and the credit of the first hours.

    `catch_ups`: the minutes before each, its outdated items, and whether deliveries have stopped.
    """
    now, state, called = NOW, CatchUp(), 0.0
    for minutes, items, has_stopped in catch_ups:
        now += minutes * MINUTE
        before, outdated = state, float(items)
        state = add_evidence(state, now, now, BACKGROUND)
        if before.evidence_at is None:
            state = hurry(state, items, BACKGROUND, CALLS)
        while outdated > 0:
            rate = min(CALLS - BACKGROUND, extra(state, now))
            step = min(5.0, outdated / (BACKGROUND + rate))
            called += rate * step
            outdated -= (BACKGROUND + rate) * step + 1e-9
            now += step * MINUTE
        before, state = state, proceed(state, 0, now, BACKGROUND)
        state = repeat(before, state, now, NOW if has_stopped else now)
    earned = ((now - NOW) / MINUTE + FIRST_CREDIT / MINUTE) * EARNED
    # The rate of a step is that of its beginning.
    assert called <= earned * 1.02 + 1


@given(minutes=st.integers(-10_000, 10_000), is_running=st.booleans())
def test_the_credit_is_bounded_and_never_negative(minutes: int, *, is_running: bool) -> None:
    """With any jumps of the clock."""
    state = CatchUp(credit=3.0, credit_at=NOW, evidence_at=NOW if is_running else None)
    left = credit(state, NOW + minutes * MINUTE, BACKGROUND)
    assert 0.0 <= left <= MOST_CREDIT / MINUTE * EARNED
    assert left <= 3.0 if is_running else left >= 3.0
