"""Catching up after a lost delivery: what is evidence, and how many calls it may cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.core.catch_up import (
    CREDIT_SHARE,
    FIRST_CREDIT,
    MOST_CREDIT,
    CatchUp,
    add_evidence,
    credit,
    evidence_since,
    evidence_wait,
    proceed,
    repeat,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
RATES = {"background_per_minute": 15.0, "calls_per_minute": 45.0}
BACKGROUND = RATES["background_per_minute"]


def begun(outdated: int = 10) -> CatchUp:
    """Return a catch-up that runs since NOW."""
    return proceed(add_evidence(CatchUp(), NOW), outdated, NOW, **RATES)


def test_the_first_lost_delivery_begins_a_catch_up() -> None:
    """A new mirror has a credit."""
    state = begun()
    assert state.is_running
    assert state.evidence_at == NOW


def test_without_evidence_nothing_is_caught_up() -> None:
    """The credit grows from the first moment on."""
    state = proceed(CatchUp(), 100, NOW, **RATES)
    assert not state.is_running
    later = NOW + 10 * HOUR
    assert proceed(state, 100, later, **RATES) == state
    assert credit(state, later, BACKGROUND) > 4 * credit(CatchUp(), NOW, BACKGROUND)


def test_changes_that_the_catch_up_finds_are_no_new_evidence() -> None:
    """They belong to the same loss."""
    running = begun()
    assert add_evidence(running, NOW + MINUTE) == running
    ended = proceed(running, 0, NOW + 5 * MINUTE, **RATES)
    assert not ended.is_running
    assert ended.evidence_at is None
    assert add_evidence(ended, NOW + 4 * MINUTE) == ended
    assert evidence_since(ended) == NOW + 5 * MINUTE


def test_a_change_after_the_catch_up_is_new_evidence() -> None:
    """It was lost since then."""
    ended = proceed(begun(), 0, NOW + 5 * MINUTE, **RATES)
    assert add_evidence(ended, NOW + 6 * MINUTE).evidence_at == NOW + 6 * MINUTE


def test_a_catch_up_is_repeated_while_deliveries_have_stopped() -> None:
    """The changes that it found may be newer than its own beginning."""
    running, later = begun(), NOW + 5 * MINUTE
    ended = proceed(running, 0, later, **RATES)
    assert repeat(running, ended, NOW + 3 * MINUTE, NOW - HOUR).evidence_at == NOW + 3 * MINUTE
    assert repeat(running, ended, NOW + 3 * MINUTE, NOW + MINUTE) == ended  # they arrive
    assert repeat(running, ended, None, NOW - HOUR) == ended  # it has found nothing
    assert repeat(running, running, NOW + 3 * MINUTE, None) == running
    assert repeat(CatchUp(), CatchUp(), NOW, None) == CatchUp()


def test_a_catch_up_without_credit_waits_until_the_rest_is_small() -> None:
    """The background reads go on meanwhile, so fewer items are outdated."""
    poor = CatchUp(credit=0.0, credit_at=NOW)
    waiting = proceed(add_evidence(poor, NOW), 300, NOW, **RATES)
    assert not waiting.is_running
    assert not proceed(waiting, 150, NOW + 10 * MINUTE, **RATES).is_running
    assert proceed(waiting, 67, NOW + 10 * MINUTE, **RATES).is_running


def test_catch_ups_of_a_long_outage_are_spread() -> None:
    """At once after another one, a catch-up finds little, and then the credit is gone."""
    rich = replace(begun(900), credit=2000.0)
    ended = proceed(rich, 0, NOW + 20 * MINUTE, **RATES)
    again = add_evidence(ended, NOW + 21 * MINUTE)
    assert not proceed(again, 900, NOW + 22 * MINUTE, **RATES).is_running
    assert proceed(again, 900, NOW + 50 * MINUTE, **RATES).is_running
    # A small part, or a large credit, needs no pause.
    assert proceed(again, 300, NOW + 22 * MINUTE, **RATES).is_running
    richer = replace(again, credit=10_000.0)
    assert proceed(richer, 900, NOW + 22 * MINUTE, **RATES).is_running


def test_a_catch_up_of_a_large_catalogue_costs_only_what_it_adds() -> None:
    """10,000 items are read at 28 calls a minute in any case."""
    state = CatchUp(credit=4000.0, credit_at=NOW)
    found = add_evidence(state, NOW)
    assert not proceed(found, 10_000, NOW, **RATES).is_running
    rate = {"background_per_minute": 10_000 / 360, "calls_per_minute": 45.0}
    running = proceed(found, 10_000, NOW, **rate)
    assert running.is_running
    assert 100 < running.credit < 300


def test_evidence_waits_for_late_deliveries_only_if_some_were_late() -> None:
    """Within a day."""
    settle, grace = MINUTE, 10 * MINUTE
    assert evidence_wait(None, NOW, settle, grace) == settle
    assert evidence_wait(NOW - HOUR, NOW, settle, grace) == grace
    assert evidence_wait(NOW - DAY, NOW, settle, grace) == settle
    assert evidence_wait(NOW + HOUR, NOW, settle, grace) == settle  # the clock was set back


@given(
    events=st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 2000), st.booleans()), min_size=1, max_size=60
    )
)
def test_catch_ups_cost_a_bounded_number_of_calls(events: list[tuple[int, int, bool]]) -> None:
    """A share of the background calls on average, and the credit of an hour at the beginning."""
    now, state, called = NOW, CatchUp(), 0.0
    for minutes, outdated, is_found in events:
        now += minutes * MINUTE
        if is_found:
            state = add_evidence(state, now)
        before = state
        state = proceed(state, outdated, now, **RATES)
        if state.is_running and not before.is_running:
            called += outdated * 2 / 3  # background calls would have read the others
        if state.is_running:
            state = proceed(state, 0, now, **RATES)
    earned_per_minute = BACKGROUND * CREDIT_SHARE
    assert called <= ((now - NOW) / MINUTE + FIRST_CREDIT / MINUTE) * earned_per_minute + 1


@given(minutes=st.integers(-10_000, 10_000))
def test_the_credit_is_bounded_and_never_negative(minutes: int) -> None:
    """With any jumps of the clock."""
    state = CatchUp(credit=3.0, credit_at=NOW)
    assert 3.0 <= credit(state, NOW + minutes * MINUTE, BACKGROUND) <= MOST_CREDIT / MINUTE * 4.5
