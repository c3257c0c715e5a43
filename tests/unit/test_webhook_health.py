"""When deliveries count as stopped, when they count as back, and which gaps are ignored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.webhook_health import (
    CALM,
    CALM_DELIVERIES,
    SILENT_AFTER,
    DeliveryRate,
    Evidence,
    WebhookHealth,
    assess_webhooks,
    is_quiet,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def assessed(
    before: WebhookHealth, *, missed: list[float], delivered: list[float], now: float
) -> WebhookHealth:
    reported = [at(m) for m in delivered]
    evidence = Evidence([at(m) for m in missed], reported, reported[-1] if reported else None)
    return assess_webhooks(before, evidence, at(now))


NEW = WebhookHealth()


def test_a_new_installation_is_unknown() -> None:
    """It is neither healthy nor failing."""
    assert assessed(NEW, missed=[], delivered=[], now=0).state == "unknown"
    assert assessed(NEW, missed=[], delivered=[-1], now=0).state == "healthy"


def test_one_lost_delivery_is_failing_and_not_silent() -> None:
    """Silent takes three misses and no delivery."""
    assert assessed(NEW, missed=[5], delivered=[1], now=6).state == "failing"
    assert assessed(NEW, missed=[2, 3, 4, 5], delivered=[1, 4.5], now=6).state == "failing"
    silent = assessed(NEW, missed=[2, 3, 4], delivered=[1], now=6)
    assert (silent.state, silent.since) == ("silent", at(6))


def test_it_is_silent_if_no_delivery_ever_arrived() -> None:
    """The webhook was never set up, or never reached this host."""
    assert assessed(NEW, missed=[2, 3, 4], delivered=[], now=6).state == "silent"


def test_silent_lasts_until_the_next_delivery() -> None:
    """Misses older than a day do not end it."""
    silent = assessed(NEW, missed=[2, 3, 4], delivered=[1], now=6)
    assert assessed(silent, missed=[], delivered=[1], now=3000) == silent
    back = assessed(silent, missed=[2, 3, 4], delivered=[1, 3001], now=3002)
    assert back.state == "healthy"
    assert assessed(back, missed=[2, 3, 4], delivered=[3001], now=3003).state == "healthy"
    assert assessed(back, missed=[3002.5], delivered=[3001], now=3003).state == "failing"


def test_failing_ends_after_a_time_of_explained_changes() -> None:
    """Neither a quiet hour nor a few deliveries at once end it."""
    failing = assessed(NEW, missed=[0], delivered=[-1], now=1)
    calm = CALM.total_seconds() / 60
    assert assessed(failing, missed=[0], delivered=[-1], now=calm).state == "failing"
    assert assessed(failing, missed=[0], delivered=[2, 3, 4], now=5).state == "failing"
    reported = [float(m) for m in range(1, CALM_DELIVERIES + 1)]
    assert assessed(failing, missed=[0], delivered=reported, now=calm).state == "healthy"


def test_order_events_do_not_end_failing() -> None:
    """They prove that the endpoint works, and nothing about availability events."""
    failing = assessed(NEW, missed=[0, 1, 2, 3], delivered=[4], now=5)
    assert failing.state == "failing"
    evidence = Evidence([at(0)], [at(-1)], at(500))
    assert assess_webhooks(failing, evidence, at(501)).state == "failing"


@given(
    missed=st.lists(st.integers(0, 60), max_size=6).map(sorted),
    delivered=st.lists(st.integers(0, 60), max_size=4).map(sorted),
    before=st.sampled_from([NEW, WebhookHealth("failing", NOON), WebhookHealth("healthy", NOON)]),
)
def test_never_silent_while_deliveries_arrive(
    missed: list[int], delivered: list[int], before: WebhookHealth
) -> None:
    """Silent takes three misses after the last delivery, and these always make it so."""
    state = assessed(
        before, missed=[*map(float, missed)], delivered=[*map(float, delivered)], now=61
    ).state
    since = [m for m in missed if not delivered or m > delivered[-1]]
    assert (state == "silent") == (len(since) >= SILENT_AFTER)


@pytest.mark.parametrize(
    ("count", "minutes", "quiet"),
    [
        pytest.param(1440, 14, False, id="one a minute, away for 14"),
        pytest.param(1440, 16, True, id="one a minute, away for 16"),
        pytest.param(48, 290, False, id="two an hour, away for five"),
        pytest.param(48, 310, True, id="two an hour, away for more"),
        pytest.param(10, 100_000, False, id="too few for a rate"),
    ],
)
def test_silence_is_quiet_after_ten_times_the_usual_gap(
    count: int, minutes: float, quiet: bool
) -> None:
    """And never before a quarter of an hour."""
    rate = DeliveryRate(count, NOON - timedelta(days=1), NOON)
    assert is_quiet(rate, at(minutes)) is quiet
    assert not is_quiet(DeliveryRate(), at(minutes))
