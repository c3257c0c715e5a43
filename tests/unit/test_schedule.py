"""The times of all tasks, without a clock: `core/schedule.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.core.clock_jump import Jump
from syncd.core.jobs import SweepSummary
from syncd.core.schedule import (
    LONGEST_JITTER,
    PRUNE_AGAIN,
    PRUNE_EVERY,
    PRUNE_FIRST,
    SHORTEST_ROUND,
    TRUSTED_AFTER_S,
    ClockTrust,
    Schedule,
    SweepPeriods,
    is_ahead,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PERIODS = SweepPeriods(every=6 * HOUR, every_when_silent=30 * MINUTE)


def started(*, failures: int = 0) -> Schedule:
    schedule = Schedule(PERIODS, lambda: 0.0)
    schedule.start(NOW, complete_at=NOW, failures=failures)
    return schedule


def ended(result: str = "partial", **fields: Any) -> SweepSummary:
    counts = ("items", "variants", "changed", "added", "removed", "missed", "calls", "throttled")
    default: dict[str, Any] = dict.fromkeys(counts, 0)
    default |= {"sweep_id": 1, "is_catalogue": True, "began_at": NOW, "result": result}
    default |= {"seconds": 0.0, "failed_items": [], "error": ""}
    return SweepSummary(**default | fields)


@pytest.mark.parametrize(
    ("complete_at", "is_due", "next_at"),
    [
        (None, True, NOW + 6 * HOUR),
        (NOW - 5 * HOUR, False, NOW + HOUR),
        (NOW - 6 * HOUR, True, NOW + 6 * HOUR),
        (NOW + HOUR, True, NOW + 6 * HOUR),
    ],
    ids=["never", "recently", "long ago", "in the future"],
)
def test_a_start_sweeps_at_once_if_a_period_has_passed(
    complete_at: datetime | None, *, is_due: bool, next_at: datetime
) -> None:
    """The period counts from the last complete sweep, also across restarts."""
    schedule = Schedule(PERIODS, lambda: 0.0)
    assert schedule.start(NOW, complete_at=complete_at, failures=0) == is_due
    assert schedule.next_at("sweep") == next_at


def test_the_next_sweep_is_one_period_and_a_jitter_later() -> None:
    """The jitter is a tenth of the period, and at most five minutes."""
    schedule = Schedule(PERIODS, lambda: 1.0)
    schedule.start(NOW, complete_at=NOW, failures=0)
    assert schedule.begin("sweep", NOW) == NOW + 6 * HOUR + LONGEST_JITTER
    schedule.set_silent(NOW, is_silent=True)
    assert schedule.next_at("sweep") == NOW + 33 * MINUTE


def test_failed_sweeps_are_repeated_ever_more_rarely() -> None:
    """After 1, 2, 4 … minutes, and at last after `every_when_silent`."""
    schedule, waits = started(), []
    for _ in range(7):
        schedule.begin("sweep", NOW)
        schedule.end_sweep(ended(), NOW)
        waits.append(schedule.next_at("sweep"))
    assert waits == [NOW + minutes * MINUTE for minutes in (1, 2, 4, 8, 16, 30, 30)]
    schedule.begin("sweep", NOW)
    schedule.end_sweep(ended("complete"), NOW)
    assert schedule.next_at("sweep") == NOW + 6 * HOUR
    schedule.end_sweep(ended(), NOW)
    assert schedule.next_at("sweep") == NOW + MINUTE


@pytest.mark.parametrize("fields", [{"removals_held": 3}, {"is_catalogue": False}], ids=str)
def test_a_sweep_is_not_repeated_soon_if_that_cannot_help(fields: dict[str, Any]) -> None:
    """Blocked removals wait for a person, and an operator's items are none of the schedule's."""
    schedule = started()
    schedule.end_sweep(ended(**fields), NOW)
    assert schedule.next_at("sweep") == NOW + 6 * HOUR


def test_a_reload_repeats_a_failed_sweep_at_once() -> None:
    """The new configuration may have removed the cause of the failure."""
    schedule = started(failures=1)
    schedule.reload(PERIODS, NOW)
    assert schedule.next_at("sweep") == NOW
    schedule = started()
    schedule.reload(PERIODS, NOW + MINUTE)
    schedule.end_sweep(ended(began_at=NOW), NOW + HOUR)
    assert schedule.next_at("sweep") == NOW + HOUR


def test_a_reload_never_moves_the_next_sweep_to_later() -> None:
    """With a reload every hour there is still a sweep every six hours."""
    schedule = started()
    for hours in range(1, 6):
        schedule.reload(PERIODS, NOW + hours * HOUR)
    assert schedule.next_at("sweep") == NOW + 6 * HOUR


def test_quiet_sweeps_become_rarer_until_a_delivery_arrives() -> None:
    """The pause doubles each time; a delivery resets it."""
    schedule = started()
    requested = [
        minutes
        for minutes in range(0, 500, 10)
        if schedule.wants_quiet_sweep(NOW + minutes * MINUTE, is_quiet=True)
    ]
    assert requested == [0, 30, 90, 210, 450]
    assert not schedule.wants_quiet_sweep(NOW, is_quiet=False)
    assert schedule.wants_quiet_sweep(NOW, is_quiet=True)


def test_sweeps_that_place_variants_have_a_minimum_distance() -> None:
    """A variant that no sweep finds must not cost a sweep every ten seconds."""
    schedule = started()
    assert schedule.wants_locating(NOW)
    assert not schedule.wants_locating(NOW + 29 * MINUTE)
    assert schedule.wants_locating(NOW + 30 * MINUTE)


def test_rows_are_deleted_soon_after_the_start_and_then_every_hour() -> None:
    """While the clock is not trusted, the schedule checks it again every minute."""
    schedule = started()
    assert schedule.next_at("prune") == NOW + PRUNE_FIRST
    assert schedule.begin("prune", NOW) == NOW + PRUNE_EVERY
    schedule.retry_prune(NOW)
    assert schedule.next_at("prune") == NOW + PRUNE_AGAIN


@pytest.mark.parametrize("by", [-400 * HOUR, -MINUTE, MINUTE, 400 * HOUR], ids=str)
def test_waits_stay_the_same_after_a_jump_of_the_clock(by: timedelta) -> None:
    """No task runs earlier or later in elapsed time."""
    schedule = started()
    schedule.follow(Jump(NOW, NOW + by, NOW))
    assert schedule.next_at("sweep") == NOW + by + 6 * HOUR


def test_a_distrusted_clock_is_trusted_once_dreamship_agrees_or_after_a_day() -> None:
    """Otherwise a clock that runs ahead by a year would delete all old rows."""
    trust = ClockTrust()
    trust.distrust(0.0, 5)
    assert not trust.is_confirmed(60.0, 5, timedelta())
    assert not trust.is_confirmed(60.0, 6, -365 * 24 * HOUR)
    assert trust.is_confirmed(60.0, 6, timedelta())
    assert trust.is_confirmed(TRUSTED_AFTER_S, 5, timedelta())
    trust.confirm()
    assert trust.is_confirmed(60.0, 5, timedelta())
    assert not trust.is_distrusted
    assert is_ahead(1, -2 * HOUR)
    assert not is_ahead(0, -2 * HOUR)


CONTINUOUS = SweepPeriods(every=6 * HOUR, every_when_silent=30 * MINUTE, is_continuous=True)


def test_with_background_calls_a_sweep_follows_the_last_one() -> None:
    """A small catalogue is read within seconds, so there is a shortest distance."""
    schedule = Schedule(CONTINUOUS, lambda: 0.0)
    assert not schedule.start(NOW, complete_at=NOW - HOUR, failures=0)
    assert schedule.next_at("sweep") == NOW
    schedule.begin("sweep", NOW)
    schedule.end_sweep(ended("complete", began_at=NOW), NOW + 20 * MINUTE)
    assert schedule.next_at("sweep") == NOW + 20 * MINUTE
    schedule.begin("sweep", NOW + 20 * MINUTE)
    schedule.end_sweep(ended("complete", began_at=NOW + 20 * MINUTE), NOW + 21 * MINUTE)
    assert schedule.next_at("sweep") == NOW + 20 * MINUTE + SHORTEST_ROUND


def test_with_background_calls_blocked_removals_still_wait_for_a_person() -> None:
    """And failed sweeps are repeated ever more rarely."""
    schedule = Schedule(CONTINUOUS, lambda: 0.0)
    schedule.start(NOW, complete_at=NOW, failures=0)
    schedule.begin("sweep", NOW)
    schedule.end_sweep(ended(removals_held=3), NOW)
    assert schedule.next_at("sweep") == NOW + 6 * HOUR
    schedule.end_sweep(ended(), NOW)
    assert schedule.next_at("sweep") == NOW + MINUTE


def test_a_reload_with_background_calls_begins_to_read_at_once() -> None:
    """And another reload changes nothing."""
    schedule = started()
    schedule.reload(CONTINUOUS, NOW)
    assert schedule.next_at("sweep") == NOW
    schedule.begin("sweep", NOW)
    schedule.reload(CONTINUOUS, NOW)
    assert schedule.next_at("sweep") == NOW + 6 * HOUR
