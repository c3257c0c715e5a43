"""Whether deliveries still arrive: reads find the changes that no delivery has reported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

WebhooksState = Literal["unknown", "healthy", "failing", "silent"]

# One lost delivery is normal. Three of them, and no delivery since, mean a disabled endpoint.
SILENT_AFTER = 3
# `failing` ends after this time without a missed delivery, and this many deliveries since then.
CALM = timedelta(hours=1)
CALM_DELIVERIES = 3
# If no delivery arrives for ten times the usual distance, a sweep is due, but not after minutes.
QUIET_FACTOR = 10
QUIET_AT_LEAST = timedelta(minutes=15)
# Fewer deliveries a day do not show a usual distance.
FEWEST_FOR_RATE = 24


class Evidence(Struct, frozen=True):
    """The deliveries and the missed deliveries of the last day.

    `missed_at`: when reads found changes that no delivery reported within the grace, while
    deliveries could be accepted. `reported_at`: the last deliveries about variants; a few are
    enough. `last_delivery_at`: the last authentic delivery, on any subject.
    """

    missed_at: Sequence[datetime]
    reported_at: Sequence[datetime]
    last_delivery_at: datetime | None


class DeliveryRate(Struct, frozen=True):
    """The deliveries of the 24 hours before the last one: the number, the first and the last."""

    count: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


class WebhookHealth(Struct, frozen=True):
    """The state of the webhook, its begin, and until when missed deliveries no longer count."""

    state: WebhooksState = "unknown"
    since: datetime | None = None
    forgiven_until: datetime | None = None


def assess_webhooks(before: WebhookHealth, evidence: Evidence, now: datetime) -> WebhookHealth:
    """Return the state of the webhook (syncd/docs/reconciling.md, "How reconciling works").

    With hysteresis: only an authentic delivery ends `silent`. `failing` ends once deliveries have
    reported all changes for a while.
    """
    last = evidence.last_delivery_at
    forgiven = before.forgiven_until
    if before.state == "silent":
        if last is None or (before.since is not None and last <= before.since):
            return before
        forgiven = last
    missed = [at for at in evidence.missed_at if forgiven is None or at > forgiven]
    state: WebhooksState
    if sum(1 for at in missed if last is None or at > last) >= SILENT_AFTER:
        state = "silent"
    elif missed and not _is_calm(missed[-1], evidence.reported_at, now):
        state = "failing"
    else:
        state = "unknown" if last is None else "healthy"
    since = before.since if state == before.state else now
    return WebhookHealth(state, since, forgiven)


def is_quiet(rate: DeliveryRate, now: datetime) -> bool:
    """Return whether no delivery has arrived for so long that a sweep is due."""
    if rate.first_at is None or rate.last_at is None or rate.count < FEWEST_FOR_RATE:
        return False
    usual = (rate.last_at - rate.first_at) / rate.count
    return now - rate.last_at > max(QUIET_AT_LEAST, QUIET_FACTOR * usual)


def _is_calm(last_missed_at: datetime, reported_at: Sequence[datetime], now: datetime) -> bool:
    # Deliveries about orders do not prove that those about variants arrive.
    deliveries_since = sum(1 for at in reported_at if at > last_missed_at)
    return now - last_missed_at >= CALM and deliveries_since >= CALM_DELIVERIES
