"""Do deliveries still arrive? Judged by what reads found that no delivery had told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

WebhooksState = Literal["unknown", "healthy", "failing", "silent"]

# One lost delivery happens; three in a row and not one arriving is an endpoint turned off.
SILENT_AFTER = 3


def judge(missed_at: Sequence[datetime], last_delivery_at: datetime | None) -> WebhooksState:
    """Return the state of the webhook (design.md, "Noticing that deliveries stopped").

    `missed_at`: when reads found the changes of the last day that no delivery told within the
    grace. `last_delivery_at`: the last authentic delivery.
    """
    since = [at for at in missed_at if last_delivery_at is None or at > last_delivery_at]
    if len(since) >= SILENT_AFTER:
        return "silent"
    if missed_at:
        return "failing"
    return "unknown" if last_delivery_at is None else "healthy"
