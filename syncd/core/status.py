"""Health and its reasons, from counts and from the state of the daemon. Pure.

`status_document` makes the document of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from syncd.core.jobs import SweepProgress
from syncd.core.plain_text import shortened
from syncd.core.policy import Policy
from syncd.core.timestamps import to_text
from syncd.core.webhook_health import Evidence, WebhooksState
from syncd.errors import SyncdError

Health = Literal["ok", "degraded", "failing"]

# After so many signed requests in a row, all with an unknown key, a rotated key is more likely than
# strangers.
ROTATED_AFTER = 3
# Shorter waits are normal.
LONG_PAUSE = timedelta(minutes=2)


# Dreamship decides how many values there are and how long they are. The status names the most
# frequent of the values that are not sold, each cut to so many characters.
MAX_VALUES = 50
MAX_VALUE_CHARS = 200
# Of one error message in a reason.
_MAX_ERROR_CHARS = 500


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
    """The counts of the mirror at one moment."""

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
    """The events of the last 24 hours, and the last delivery and sweep.

    `missed`: changes that no delivery reported, also those while the daemon did not run.
    `last_sweep_held`: missing variants of the last sweep, too many to be removed without an
    operator; `held`: missing variants of reads outside of a sweep.
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
    """The state of the daemon at one moment.

    `write_error`: why deliveries cannot be made durable. `stuck_by`: why nothing is read, because
    the mirror cannot store it; `unkept`: a sentence about a part of the mirror that stores nothing.
    `forged_since_delivery`: requests signed with an unknown key since the last authentic delivery.
    `down`: when the daemon did not run, if no complete sweep has begun since. `paused_until`: a 429
    asks to wait that long. `cached`: a sentence about a cache that answers instead of Dreamship.
    `max_connections`: how many connections all listeners take together, by the limit of open files.
    """

    at: datetime
    mirror_path: str
    started_at: datetime
    write_error: SyncdError | None
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
    """Return the health; the counts of the mirror do not matter for it."""
    failing, degraded = _failing(now), _degraded(now, day)
    return Assessment(
        "failing" if failing else "degraded" if degraded else "ok", failing + degraded
    )


def _failing(now: DaemonSnapshot) -> list[str]:
    reasons = []
    if now.write_error is not None:
        reasons.append(
            f"Deliveries cannot be made durable: {_brief(now.write_error.message)}; "
            f"{_brief(now.write_error.hint)}."
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
            "Deliveries have stopped: reads found changes that no delivery reported. Most likely "
            "Dreamship disabled the endpoint; turn it on in the Dreamship app."
        )
    elif now.webhooks_state == "failing":
        reasons.append(
            "Changes of the last day that reads found and no delivery reported: "
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
    if now.write_error is None and now.stuck_by is not None:
        reasons.append(
            "Dreamship is asked nothing, since the mirror could not keep it: "
            f"{_brief(now.stuck_by.message)}; {_brief(now.stuck_by.hint)}."
        )
    elif now.write_error is None and now.unkept is not None:
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


def _brief(message: str) -> str:
    """Shorten a message that others worded in part, so that the advice after it is read."""
    return shortened(message, _MAX_ERROR_CHARS)
