"""The problems of the status about deliveries: each names the remedy of its own case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.health import _about_deliveries
from syncd.core.snapshots import DaemonSnapshot, DaySummary
from syncd.core.webhook_health import Evidence, WebhooksState

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def problems(state: WebhooksState, last_delivery_at: datetime | None) -> dict[str, str]:
    """Return the message and the hint of each problem, by its code."""
    daemon = DaemonSnapshot(
        at=NOW,
        mirror_path="/m",
        started_at=NOW,
        write_error=None,
        webhooks_state=state,
        down=None,
        paused_until=None,
        refused=None,
        unreachable=None,
        progress=None,
        eta=None,
        next_sweep_at=None,
        calls_per_minute=45,
        used_last_minute=0,
        invalid_signatures=0,
        forged_since_delivery=0,
    )
    day = DaySummary(
        last_delivery_at=last_delivery_at,
        missed=3,
        evidence=Evidence((NOW,) * 3, (), last_delivery_at),
        invalid_signatures=0,
        throttled=0,
        quarantined=0,
        last_sweep_ended_at=None,
        last_sweep_result=None,
        last_sweep_error="",
        last_sweep_removals_held=0,
    )
    return {one.code: f"{one.message}; {one.hint}" for one in _about_deliveries(daemon, day)}


@pytest.mark.parametrize(
    ("last_delivery_at", "codes", "remedy"),
    [
        (NOW - timedelta(hours=5), {"silent"}, "turn it on in the Dreamship app"),
        (None, {"no_delivery", "silent"}, "correct the webhook URL there"),
    ],
)
def test_a_webhook_that_never_worked_is_not_called_stopped(
    last_delivery_at: datetime | None, codes: set[str], remedy: str
) -> None:
    """Nobody has disabled an endpoint that no delivery has ever reached."""
    found = problems("silent", last_delivery_at)
    assert set(found) == codes
    assert remedy in found["silent"]
    assert ("have stopped" in found["silent"]) == (last_delivery_at is not None)


def test_without_a_delivery_only_the_subscription_is_missing() -> None:
    """Before reads find changes."""
    assert set(problems("unknown", None)) == {"no_delivery"}
