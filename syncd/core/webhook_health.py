"""Do deliveries still arrive? Judged by what reads found that no delivery had told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

WebhooksState = Literal["unknown", "healthy", "failing", "silent"]

# One lost delivery happens; three and not one arriving is an endpoint turned off.
SILENT_AFTER = 3
# What it takes to leave `failing`: so long without a miss, and so much told since the last.
CALM = timedelta(hours=1)
CALM_DELIVERIES = 3
# Deliveries that stay away ten times as long as usual are worth a look, but not every few minutes.
QUIET_FACTOR = 10
QUIET_AT_LEAST = timedelta(minutes=15)
# Fewer deliveries a day than this are no habit that can be broken.
HABIT = 24


class Evidence(Struct, frozen=True):
    """What the last day showed.

    `missed_at`: when reads found changes that no delivery told within the grace, while deliveries
    could be taken. `told_at`: the last deliveries about variants, a few are enough.
    `last_delivery_at`: the last authentic one, whatever it was about.
    """

    missed_at: Sequence[datetime]
    told_at: Sequence[datetime]
    last_delivery_at: datetime | None


class DeliveryRate(Struct, frozen=True):
    """How often deliveries come: the first, the last and the number of the last one's 24 hours."""

    count: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


class WebhookHealth(Struct, frozen=True):
    """The state of the webhook, since when, and until when misses are over and forgiven."""

    state: WebhooksState = "unknown"
    since: datetime | None = None
    forgiven_until: datetime | None = None


def judge(before: WebhookHealth, evidence: Evidence, now: datetime) -> WebhookHealth:
    """Return the state of the webhook (syncd/docs/reconciling.md, "How reconciling works").

    With hysteresis: `silent` lasts until the next authentic delivery, however long that takes, and
    that one ends it; `failing` until deliveries have explained what changed for a while.
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
    elif missed and not _is_calm(missed[-1], evidence.told_at, now):
        state = "failing"
    else:
        state = "unknown" if last is None else "healthy"
    since = before.since if state == before.state else now
    return WebhookHealth(state, since, forgiven)


def is_quiet(habit: DeliveryRate, now: datetime) -> bool:
    """Tell whether deliveries stay away for so long that it is worth asking the source."""
    if habit.first_at is None or habit.last_at is None or habit.count < HABIT:
        return False
    usual = (habit.last_at - habit.first_at) / habit.count
    return now - habit.last_at > max(QUIET_AT_LEAST, QUIET_FACTOR * usual)


def _is_calm(last_missed_at: datetime, told_at: Sequence[datetime], now: datetime) -> bool:
    # Orders that go on arriving show nothing about what is said of variants.
    told_since = sum(1 for at in told_at if at > last_missed_at)
    return now - last_missed_at >= CALM and told_since >= CALM_DELIVERIES
