"""Health and its reasons, from counts and from the state of the daemon. Pure.

`status_document` builds the document from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import islice
from typing import Literal

from msgspec import Struct

from syncd.core.plain_text import shortened
from syncd.core.policy import Policy
from syncd.core.snapshots import (
    DaemonSnapshot,
    DaySummary,
    ListingsSnapshot,
    PublishSnapshot,
    PushSnapshot,
    UnknownValues,
)
from syncd.core.timestamps import to_text

Health = Literal["ok", "degraded", "failing"]

# After this many signed requests in a row with an unknown key, the key has more likely been rotated
# than that another sender guesses signatures.
ROTATED_AFTER = 3
# Shorter waits are normal.
LONG_PAUSE = timedelta(minutes=2)
# Receivers restart and deploy.
PUSH_MAY_FAIL = timedelta(minutes=10)
# So do database servers.
PUBLISH_MAY_FAIL = timedelta(minutes=10)


# Dreamship decides the number and the length of the values. The status names the most frequent of
# the values that are not sellable, each shortened to this many characters.
MAX_VALUES = 50
MAX_VALUE_CHARS = 200
# The longest error message in a reason.
_MAX_ERROR_CHARS = 500
_MAX_SKU_CHARS = 60


def unknown_values(
    counted: Iterable[tuple[str, int]], policy: Policy, most: int = MAX_VALUES
) -> UnknownValues:
    """Return the `counted` values (the most frequent first) that are not sellable."""
    named: dict[str, int] = {}
    more = 0
    for value, count in counted:
        if policy.lists(value):
            continue
        short = shortened(value, MAX_VALUE_CHARS)
        if len(named) < most and short not in named:
            named[short] = count
        else:
            more += 1
    return UnknownValues(named, more)


def sold_values(counted: Iterable[tuple[str, int]], policy: Policy, most: int) -> dict[str, int]:
    """Return the `counted` values (the most frequent first) that are sellable, shortened."""
    sold = ((shortened(value, MAX_VALUE_CHARS), n) for value, n in counted if policy.lists(value))
    return dict(islice(sold, most))


class Assessment(Struct, frozen=True):
    """Health and its reasons: whole sentences with advice."""

    health: Health
    reasons: list[str]


def assess(now: DaemonSnapshot, day: DaySummary) -> Assessment:
    """Return the health; it does not depend on the counts of the mirror."""
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
    if now.refused is not None and not (now.publish is not None and now.publish.is_waiting):
        reasons.append(
            f"Dreamship refuses the api key ({_brief(now.refused)}); "
            "configure a valid one and reload."
        )
    return reasons


def _degraded(now: DaemonSnapshot, day: DaySummary) -> list[str]:
    if now.publish is not None and now.publish.is_waiting:
        # It takes no deliveries and reads nothing, as it should.
        return _about_publish(now.publish)
    return [
        *_about_deliveries(now, day),
        *_about_reading(now),
        *_about_sweeps(now, day),
        *_about_listings(now.listings),
        *_about_pushes(now.pushes),
        *_about_publish(now.publish),
    ]


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
            "stored, see `syncd deliveries --outcome quarantined --body`."
        )
    return reasons


def _about_reading(now: DaemonSnapshot) -> list[str]:
    reasons = []
    if now.paused_until is not None and now.paused_until - now.at > LONG_PAUSE:
        reasons.append(
            f"Dreamship accepts no calls before {to_text(now.paused_until)}; lower "
            "dreamship.calls_per_minute if others use the same key."
        )
    if now.unreachable is not None:
        reasons.append(f"The last read failed: {_brief(now.unreachable)}.")
    if now.cached is not None:
        reasons.append(now.cached)
    if now.write_error is None and now.stuck_by is not None:
        reasons.append(
            "No item is read, because the mirror cannot store the answers: "
            f"{_brief(now.stuck_by.message)}; {_brief(now.stuck_by.hint)}."
        )
    elif now.write_error is None and now.unwritten is not None:
        reasons.append(now.unwritten)
    return reasons


def _about_sweeps(now: DaemonSnapshot, day: DaySummary) -> list[str]:
    reasons = []
    if now.down is not None:
        reasons.append(
            f"The daemon was down from {to_text(now.down[0])} to {to_text(now.down[1])}; the next "
            "sweep finds the changes of that time."
        )
    if day.last_sweep_result is None:
        reasons.append("The mirror is being filled for the first time.")
    elif day.last_sweep_result != "complete":
        error = f" ({_brief(day.last_sweep_error)})" if day.last_sweep_error else ""
        advice = "`syncd reconcile-now` tries again now."
        if day.last_sweep_removals_held:
            advice = "`syncd reconcile-now --accept-removals` removes them."
        reasons.append(f"The last sweep ended {day.last_sweep_result}{error}; {advice}")
    if day.removals_held and not day.last_sweep_removals_held:
        reasons.append(
            f"{day.removals_held} variants were not found by reads of their items; that many are "
            "not removed automatically: `syncd reconcile-now --accept-removals` removes them."
        )
    return reasons


def _about_listings(listings: ListingsSnapshot) -> list[str]:
    reasons = []
    if listings.error is not None:
        reasons.append(
            f"The file catalog.listings is invalid: {_brief(listings.error)}; the listings before "
            "it stay in force."
        )
    if dead := listings.dead.count:
        named = ", ".join(shortened(sku, _MAX_SKU_CHARS) for sku in listings.dead.first)
        more = dead - len(listings.dead.first)
        others = f" and {more} more" if more else ""
        subject = "1 of your SKUs leads" if dead == 1 else f"{dead} of your SKUs lead"
        reasons.append(
            f"{subject} to no variant: {named}{others}; Dreamship rejects such orders. Correct "
            "the variant_id in the file; `syncd listings --unknown` lists all of them."
        )
    return reasons


def _about_pushes(pushes: Iterable[PushSnapshot]) -> list[str]:
    reasons = []
    for push in pushes:
        if push.is_stopped:
            reasons.append(
                f"The push {push.name} is stopped: its receiver {push.error}. Reload to start it "
                f"again, or remove it; {push.lag_changes} changes wait."
            )
        elif push.failing_s >= PUSH_MAY_FAIL.total_seconds():
            reasons.append(
                f"The push {push.name} has failed for {push.failing_s // 60:.0f} minutes: its "
                f"receiver {push.error}; {push.lag_changes} changes wait, and none is lost."
            )
    return reasons


def _about_publish(publish: PublishSnapshot | None) -> list[str]:
    if publish is None or publish.failing_s < PUBLISH_MAY_FAIL.total_seconds():
        return []
    if publish.is_waiting and publish.state != "failing":
        return []
    error = _brief(publish.error or "")
    if publish.state == "fenced":
        reason = (
            f"This syncd publishes nothing: {error}. Give it another publish.source, remove "
            "publish.url, or take the lease with `syncd publish take-over`."
        )
    else:
        reason = (
            f"The target of [publish] has failed for {publish.failing_s // 60:.0f} minutes: "
            f"{error}. No change is lost; syncd goes on once the target works."
        )
    return [reason]


def _brief(message: str) -> str:
    """Shorten a message with foreign text, so that the advice after it stays visible."""
    return shortened(message, _MAX_ERROR_CHARS)
