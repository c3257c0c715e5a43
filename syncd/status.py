"""Health and its reasons, put together from what was counted. Pure; the document is the contract's.

The keys are those of `status --json` and `/status.json` (contract.md, "HTTP").
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd import __version__
from syncd.model import JsonObject
from syncd.ports import SweepProgress
from syncd.state import Policy
from syncd.timestamps import maybe_text, to_text
from syncd.webhook_health import WebhooksState

Health = Literal["ok", "degraded", "failing"]

# So many refused requests and not one authentic delivery: more likely our key than strangers.
ROTATED_AFTER = 3


class MirrorCounts(Struct, frozen=True):
    """How many there are; `unknown_values` by value, those the configuration calls not sellable."""

    items: int
    variants: int
    sellable: int
    removed: int
    verifying: int
    oldest_confirmed_at: str | None
    values: dict[str, int]
    refresh_queue: int
    quarantined: int


class LastDay(Struct, frozen=True):
    """What happened in the last 24 hours, and the last of everything.

    `has_delivery`: an authentic delivery arrived within them.
    """

    last_delivery_at: datetime | None
    has_delivery: bool
    missed_at: list[datetime]
    invalid_signatures: int
    throttled: int
    quarantined: int
    last_sweep_ended_at: str | None
    last_sweep_result: str | None


class Running(Struct, frozen=True):
    """What the daemon knows of itself at this moment."""

    mirror_path: str
    started_at: datetime
    is_durable: bool
    webhooks_state: WebhooksState
    refused: str | None
    unreachable: str | None
    progress: SweepProgress | None
    eta: timedelta | None
    next_sweep_at: datetime | None
    calls_per_minute: int
    used_last_minute: int
    invalid_signatures: int


def document(now: Running, counts: MirrorCounts, day: LastDay, policy: Policy) -> JsonObject:
    """Return the status as plain values; `reasons` are whole sentences that say what to do."""
    invalid = day.invalid_signatures + now.invalid_signatures
    failing = _failing(now)
    degraded = _degraded(now, day, invalid)
    progress = now.progress
    return {
        "health": "failing" if failing else "degraded" if degraded else "ok",
        "reasons": failing + degraded,
        "webhooks": {
            "state": now.webhooks_state,
            "last_delivery_at": maybe_text(day.last_delivery_at),
            "missed_24h": len(day.missed_at),
            "invalid_signatures_24h": invalid,
        },
        "mirror": {
            "path": now.mirror_path,
            "items": counts.items,
            "variants": counts.variants,
            "sellable": counts.sellable,
            "removed": counts.removed,
            "oldest_confirmed_at": counts.oldest_confirmed_at,
            "unknown_values": {
                value: count for value, count in counts.values.items() if not policy.sells((value,))
            },
        },
        "sweep": {
            "running": progress is not None,
            "checked": 0 if progress is None else progress.checked,
            "total": None if progress is None else progress.total,
            "eta_seconds": None if now.eta is None else round(now.eta.total_seconds()),
            "last_finished_at": day.last_sweep_ended_at,
            "last_result": day.last_sweep_result,
            "next_at": maybe_text(now.next_sweep_at),
        },
        "budget": {
            "calls_per_minute": now.calls_per_minute,
            "used_last_minute": now.used_last_minute,
            "throttled_24h": day.throttled,
        },
        "refresh_queue": counts.refresh_queue,
        "quarantined": counts.quarantined,
        "version": __version__,
        "started_at": to_text(now.started_at),
    }


def _failing(now: Running) -> list[str]:
    reasons = []
    if not now.is_durable:
        reasons.append(
            "Deliveries cannot be made durable; check free disk space and the mirror's permissions."
        )
    if now.refused is not None:
        reasons.append(
            f"Dreamship refuses the api key ({now.refused}); put a valid one in and reload."
        )
    return reasons


def _degraded(now: Running, day: LastDay, invalid: int) -> list[str]:
    reasons = []
    if now.webhooks_state == "silent":
        reasons.append(
            "Deliveries have stopped: reads found changes that no delivery told. Most likely "
            "Dreamship disabled the endpoint; turn it on in the Dreamship app."
        )
    elif now.webhooks_state == "failing":
        reasons.append(
            f"{len(day.missed_at)} changes of the last day were found by reads and told by no "
            "delivery; check that the webhook URL reaches this host."
        )
    if invalid >= ROTATED_AFTER and not day.has_delivery:
        reasons.append(
            f"{invalid} requests had no valid signature and no delivery had one; the api key was "
            "probably rotated: add the new one to the configuration."
        )
    if now.unreachable is not None:
        reasons.append(f"The last read failed: {now.unreachable}.")
    if day.last_sweep_result is None:
        reasons.append("The mirror is being filled for the first time.")
    elif day.last_sweep_result != "complete":
        reasons.append(
            f"The last sweep ended {day.last_sweep_result}; the next one tries again, and "
            "`syncd reconcile-now` tries now."
        )
    if day.quarantined:
        reasons.append(
            f"{day.quarantined} deliveries of the last day were not understood; they are kept."
        )
    return reasons
