"""Health and its reasons, put together from what was counted. Pure; the document is the contract's.

The keys are those of `status --json` and `/status.json` (syncd/docs/reference.md, "The status
document").
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd import __version__
from syncd.core.jobs import SweepProgress
from syncd.core.model import JsonObject
from syncd.core.plain_text import shortened
from syncd.core.policy import Policy
from syncd.core.timestamps import maybe_text, to_text
from syncd.core.webhook_health import Evidence, WebhooksState
from syncd.errors import SyncdError

Health = Literal["ok", "degraded", "failing"]

# So many signed requests in a row, all with an unknown key: more likely our key than strangers.
ROTATED_AFTER = 3
# Shorter waits are everyday.
LONG_PAUSE = timedelta(minutes=2)


# Of the values that are not sold, the most frequent are named, each cut to so many characters: how
# many there are, and how long they are, is not ours to say.
MAX_VALUES = 50
MAX_VALUE_CHARS = 200
# Of one fault in a reason.
_MAX_FAULT_CHARS = 500


class UnknownValues(Struct, frozen=True):
    """Values that the configuration does not call sellable, the most frequent first.

    `named`: how many variants have each, the value cut to MAX_VALUE_CHARS. `more`: how many other
    values there are.
    """

    named: dict[str, int]
    more: int


def unknown_values(
    counted: Iterable[tuple[str, int]], policy: Policy, most: int = MAX_VALUES
) -> UnknownValues:
    """Return those of the `counted` values, the most frequent first, that are not sold."""
    named: dict[str, int] = {}
    more = 0
    for value, count in counted:
        if policy.sells((value,)):
            continue
        short = shortened(value, MAX_VALUE_CHARS)
        if len(named) < most and short not in named:
            named[short] = count
        else:
            more += 1
    return UnknownValues(named, more)


class MirrorCounts(Struct, frozen=True):
    """How many there are, at one moment."""

    items: int
    variants: int
    sellable: int
    removed: int
    verifying: int
    oldest_confirmed_at: str | None
    unknown_values: UnknownValues
    refresh_queue: int
    quarantined: int


class Assessment(Struct, frozen=True):
    """Health and its reasons: whole sentences that say what to do."""

    health: Health
    reasons: list[str]


class DaySummary(Struct, frozen=True):
    """What happened in the last 24 hours, and the last of everything.

    `missed`: changes no delivery told, those of the daemon's own absence included.
    `last_sweep_held`: variants it did not find, too many to be removed without an operator;
    `held`: those that reads outside of a sweep did not find.
    """

    last_delivery_at: datetime | None
    missed: int
    evidence: Evidence
    invalid_signatures: int
    throttled: int
    quarantined: int
    last_sweep_ended_at: str | None
    last_sweep_result: str | None
    last_sweep_error: str
    last_sweep_held: int
    held: int = 0


class DaemonSnapshot(Struct, frozen=True):
    """What the daemon knows of itself at this moment.

    `trouble`: why deliveries cannot be made durable. `stuck_by`: why nothing is read, the mirror
    being unable to keep it; `unkept`: the sentence about a part that it cannot keep.
    `forged_since_delivery`: requests signed with an unknown key since the last authentic delivery.
    `down`: when it was not there, if no complete sweep has begun since. `paused_until`: a 429 asks
    to wait that long. `cached`: the sentence about a cache that answers instead of Dreamship.
    `max_connections`: how many all listeners take together, by the limit of open files.
    """

    at: datetime

    mirror_path: str
    started_at: datetime
    trouble: SyncdError | None
    webhooks_state: WebhooksState
    down: tuple[datetime, datetime] | None
    paused_until: datetime | None
    refused: str | None
    unreachable: str | None
    progress: SweepProgress | None
    eta: timedelta | None
    next_sweep_at: datetime | None
    calls_per_minute: int
    used_last_minute: int
    invalid_signatures: int
    forged_since_delivery: int
    cached: str | None = None
    stuck_by: SyncdError | None = None
    unkept: str | None = None
    max_connections: int = 0


def assess(now: DaemonSnapshot, day: DaySummary) -> Assessment:
    """Judge the health; what the mirror holds has no say in it, and need not be counted."""
    failing, degraded = _failing(now), _degraded(now, day)
    return Assessment(
        "failing" if failing else "degraded" if degraded else "ok", failing + degraded
    )


def document(now: DaemonSnapshot, counts: MirrorCounts, day: DaySummary) -> JsonObject:
    """Return the status as plain values."""
    invalid = day.invalid_signatures + now.invalid_signatures
    assessment = assess(now, day)
    progress = now.progress
    return {
        "health": assessment.health,
        "reasons": assessment.reasons,
        "webhooks": {
            "state": now.webhooks_state,
            "last_delivery_at": maybe_text(day.last_delivery_at),
            "missed_24h": day.missed,
            "invalid_signatures_24h": invalid,
        },
        "mirror": {
            "path": now.mirror_path,
            "items": counts.items,
            "variants": counts.variants,
            "sellable": counts.sellable,
            "removed": counts.removed,
            "oldest_confirmed_at": counts.oldest_confirmed_at,
            "unknown_values": counts.unknown_values.named,
            "more_unknown_values": counts.unknown_values.more,
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
        "waiting_for_first_delivery": day.last_delivery_at is None,
        "refresh_queue": counts.refresh_queue,
        "quarantined": counts.quarantined,
        "max_connections": now.max_connections,
        "version": __version__,
        "started_at": to_text(now.started_at),
    }


def _failing(now: DaemonSnapshot) -> list[str]:
    reasons = []
    if now.trouble is not None:
        reasons.append(
            f"Deliveries cannot be made durable: {_brief(now.trouble.message)}; "
            f"{_brief(now.trouble.hint)}."
        )
    if now.refused is not None:
        reasons.append(
            f"Dreamship refuses the api key ({_brief(now.refused)}); put a valid one in and reload."
        )
    return reasons


def _degraded(now: DaemonSnapshot, day: DaySummary) -> list[str]:
    return [*_about_deliveries(now, day), *_about_reading(now), *_about_sweeps(now, day)]


def _about_deliveries(now: DaemonSnapshot, day: DaySummary) -> list[str]:
    reasons = []
    if day.last_delivery_at is None:
        reasons.append(
            "No delivery has arrived yet: subscribe to item-variant-availability-updated in the "
            "Dreamship app, with the URL of this webhook; `syncd doctor` tests that URL. "
            "Until then only reads find changes."
        )
    if now.webhooks_state == "silent":
        reasons.append(
            "Deliveries have stopped: reads found changes that no delivery told. Most likely "
            "Dreamship disabled the endpoint; turn it on in the Dreamship app."
        )
    elif now.webhooks_state == "failing":
        reasons.append(
            "Changes of the last day that reads found and no delivery told: "
            f"{len(day.evidence.missed_at)}; check that the webhook URL reaches this host."
        )
    forged = now.forged_since_delivery
    if forged >= ROTATED_AFTER:
        reasons.append(
            f"The last {forged} signed requests were signed with none of our keys; the api key was "
            "probably rotated: add the new one to the configuration and reload."
        )
    if day.quarantined:
        reasons.append(
            f"Deliveries of the last day that were not understood: {day.quarantined}; they are "
            "kept, see `syncd deliveries --outcome quarantined --body`."
        )
    return reasons


def _about_reading(now: DaemonSnapshot) -> list[str]:
    reasons = []
    if now.paused_until is not None and now.paused_until - now.at > LONG_PAUSE:
        reasons.append(
            f"Dreamship asks not to be asked before {to_text(now.paused_until)}; lower "
            "dreamship.calls_per_minute if others use the same key."
        )
    if now.unreachable is not None:
        reasons.append(f"The last read failed: {_brief(now.unreachable)}.")
    if now.cached is not None:
        reasons.append(now.cached)
    if now.trouble is None and now.stuck_by is not None:
        reasons.append(
            "Dreamship is asked nothing, since the mirror could not keep it: "
            f"{_brief(now.stuck_by.message)}; {_brief(now.stuck_by.hint)}."
        )
    elif now.trouble is None and now.unkept is not None:
        reasons.append(now.unkept)
    return reasons


def _about_sweeps(now: DaemonSnapshot, day: DaySummary) -> list[str]:
    reasons = []
    if now.down is not None:
        reasons.append(
            f"I was down from {to_text(now.down[0])} to {to_text(now.down[1])}; what changed then "
            "is known when the next sweep has ended."
        )
    if day.last_sweep_result is None:
        reasons.append("The mirror is being filled for the first time.")
    elif day.last_sweep_result != "complete":
        why = f" ({_brief(day.last_sweep_error)})" if day.last_sweep_error else ""
        what = "`syncd reconcile-now` tries again now."
        if day.last_sweep_held:
            what = "`syncd reconcile-now --accept-removals` removes them."
        reasons.append(f"The last sweep ended {day.last_sweep_result}{why}; {what}")
    if day.held and not day.last_sweep_held:
        reasons.append(
            f"{day.held} variants were not found by reads of their items; so many are not removed "
            "without you: `syncd reconcile-now --accept-removals` removes them."
        )
    return reasons


def _brief(fault: str) -> str:
    """Return a fault, part of which others worded, in so few words that what to do is read."""
    return shortened(fault, _MAX_FAULT_CHARS)
