"""Health and its reasons, from counts and from the state of the daemon. Pure.

`status_document` builds the document from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
# Where a person subscribes, and turns webhooks on again.
APP_URL = "https://app.dreamship.com/app/settings/api/"
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
_STOPPED = (
    "Deliveries have stopped: reads found changes that no delivery reported",
    (
        "most likely Dreamship disabled the endpoint: turn it on in the Dreamship app "
        f"({APP_URL}); `syncd doctor` tests the URL"
    ),
)
# Deliveries that never arrived have not stopped, and nobody disabled the endpoint.
_NEVER_BEGAN = (
    "Reads found changes, and no delivery has ever arrived",
    f"subscribe in the Dreamship app ({APP_URL}), or correct the webhook URL there",
)
_ACCEPT_REMOVALS = "`syncd reconcile-now --accept-removals` removes them"


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


class Problem(Struct, frozen=True):
    """One reason why the health is not ok.

    `code` names its kind for programs. `message` is a sentence without its end; `hint` says how to
    fix it and is empty if syncd fixes it by itself.
    """

    code: str
    message: str
    hint: str = ""

    @property
    def reason(self) -> str:
        """The problem and its remedy in one sentence."""
        return f"{self.message}; {self.hint}." if self.hint else f"{self.message}."


class Assessment(Struct, frozen=True):
    """Health and its problems, those of `failing` first."""

    health: Health
    problems: list[Problem]

    @property
    def reasons(self) -> list[str]:
        """The problems as whole sentences with advice."""
        return [problem.reason for problem in self.problems]


def assess(now: DaemonSnapshot, day: DaySummary) -> Assessment:
    """Return the health; it does not depend on the counts of the mirror."""
    failing, degraded = [*_failing(now)], [*_degraded(now, day)]
    return Assessment(
        "failing" if failing else "degraded" if degraded else "ok", failing + degraded
    )


def _failing(now: DaemonSnapshot) -> Iterator[Problem]:
    if now.write_error is not None:
        yield Problem(
            "not_durable",
            f"Deliveries cannot be made durable: {_brief(now.write_error.message)}",
            _brief(now.write_error.hint),
        )
    if now.refused is not None and not _is_waiting(now):
        yield Problem(
            "key_refused",
            f"Dreamship refuses the api key ({_brief(now.refused)})",
            "configure a valid one and reload; `syncd setup` does both",
        )


def _is_waiting(now: DaemonSnapshot) -> bool:
    """Return whether another host is active: this one takes no deliveries and reads nothing."""
    return now.publish is not None and now.publish.is_waiting


def _degraded(now: DaemonSnapshot, day: DaySummary) -> Iterator[Problem]:
    if _is_waiting(now):
        yield from _about_publish(now.publish)
        return
    yield from _about_deliveries(now, day)
    yield from _about_reading(now)
    yield from _about_sweeps(now, day)
    yield from _about_listings(now.listings)
    yield from _about_pushes(now.pushes)
    yield from _about_publish(now.publish)


def _about_deliveries(now: DaemonSnapshot, day: DaySummary) -> Iterator[Problem]:
    if day.last_delivery_at is None:
        yield Problem(
            "no_delivery",
            "No delivery has arrived yet",
            f"subscribe to item-variant-availability-updated in the Dreamship app ({APP_URL}), "
            "with the URL of this webhook; `syncd doctor` tests that URL",
        )
    if now.webhooks_state == "silent":
        yield Problem("silent", *(_STOPPED if day.last_delivery_at else _NEVER_BEGAN))
    elif now.webhooks_state == "failing":
        yield Problem(
            "lost",
            "Changes of the last day that reads found and no delivery reported: "
            f"{len(day.evidence.missed_at)}",
            "check that the webhook URL reaches this host: `syncd doctor` tests it",
        )
    forged = now.forged_since_delivery
    if forged >= ROTATED_AFTER:
        yield Problem(
            "key_rotated",
            f"The last {forged} signed requests were signed with none of our keys; the api key was "
            "probably rotated",
            "add the new one to the configuration and reload; `syncd setup` does both",
        )
    if day.quarantined:
        yield Problem(
            "quarantined",
            f"Deliveries of the last day that were not understood: {day.quarantined}",
            "they are stored, see `syncd deliveries --outcome quarantined --body`",
        )


def _about_reading(now: DaemonSnapshot) -> Iterator[Problem]:
    if now.paused_until is not None and now.paused_until - now.at > LONG_PAUSE:
        yield Problem(
            "throttled",
            f"Dreamship accepts no calls before {to_text(now.paused_until)}",
            "lower dreamship.calls_per_minute if others use the same key",
        )
    if now.unreachable is not None:
        yield Problem(
            "unreachable",
            f"The last read failed: {_brief(now.unreachable)}",
            "syncd tries again by itself; `syncd doctor` tests the connection to Dreamship",
        )
    if now.cached is not None:
        yield Problem("cached", now.cached.removesuffix("."))
    if now.write_error is None and now.stuck_by is not None:
        yield Problem(
            "not_stored",
            "No item is read, because the mirror cannot store the answers: "
            f"{_brief(now.stuck_by.message)}",
            _brief(now.stuck_by.hint),
        )
    elif now.write_error is None and now.unwritten is not None:
        yield Problem("partly_stored", now.unwritten.removesuffix("."))


def _about_sweeps(now: DaemonSnapshot, day: DaySummary) -> Iterator[Problem]:
    if now.down is not None:
        yield Problem(
            "down",
            f"The daemon was down from {to_text(now.down[0])} to {to_text(now.down[1])}; the next "
            "sweep finds the changes of that time",
        )
    if day.last_sweep_result is None:
        yield Problem("first_fill", "The mirror is being filled for the first time")
    elif day.last_sweep_result != "complete":
        error = f" ({_brief(day.last_sweep_error)})" if day.last_sweep_error else ""
        message = f"The last sweep ended {day.last_sweep_result}{error}"
        if held := day.last_sweep_removals_held:
            missing = f"{held} variants were not found, and syncd does not remove that many alone"
            yield Problem("removals_held", f"{message}: {missing}", _ACCEPT_REMOVALS)
        else:
            yield Problem("sweep", message, "`syncd reconcile-now` tries again now")
    if day.removals_held and not day.last_sweep_removals_held:
        yield Problem(
            "removals_held",
            f"{day.removals_held} variants were not found by reads of their items; that many are "
            "not removed automatically",
            _ACCEPT_REMOVALS,
        )


def _about_listings(listings: ListingsSnapshot) -> Iterator[Problem]:
    if listings.error is not None:
        yield Problem(
            "listings_file",
            f"The file catalog.listings is invalid: {_brief(listings.error)}",
            "correct it; the listings before it stay in force",
        )
    if dead := listings.dead.count:
        named = ", ".join(shortened(sku, _MAX_SKU_CHARS) for sku in listings.dead.first)
        more = dead - len(listings.dead.first)
        others = f" and {more} more" if more else ""
        subject = "1 of your SKUs leads" if dead == 1 else f"{dead} of your SKUs lead"
        yield Problem(
            "listings_dead",
            f"{subject} to no variant: {named}{others}; Dreamship rejects such orders",
            "correct the variant_id in the file; `syncd listings --unknown` lists all of them",
        )


def _about_pushes(pushes: Iterable[PushSnapshot]) -> Iterator[Problem]:
    for push in pushes:
        if push.is_stopped:
            yield Problem(
                "push_stopped",
                f"The push {push.name} is stopped: its receiver {push.error}; {push.lag_changes} "
                "changes wait",
                "reload to start it again, or remove it",
            )
        elif push.failing_s >= PUSH_MAY_FAIL.total_seconds():
            yield Problem(
                "push_failing",
                f"The push {push.name} has failed for {push.failing_s // 60:.0f} minutes: its "
                f"receiver {push.error}; {push.lag_changes} changes wait, and none is lost",
            )


def _about_publish(publish: PublishSnapshot | None) -> Iterator[Problem]:
    if publish is None or publish.failing_s < PUBLISH_MAY_FAIL.total_seconds():
        return
    if publish.is_waiting and publish.state != "failing":
        return
    error = _brief(publish.error or "")
    if publish.state == "fenced":
        yield Problem(
            "publish_fenced",
            f"This syncd publishes nothing: {error}",
            "give it another publish.source, remove publish.url, or take the lease with "
            "`syncd publish take-over`",
        )
    else:
        yield Problem(
            "publish_failing",
            f"The target of [publish] has failed for {publish.failing_s // 60:.0f} minutes: "
            f"{error}; no change is lost, and syncd goes on once the target works",
        )


def _brief(message: str) -> str:
    """Shorten a message with foreign text, so that the advice after it stays visible."""
    return shortened(message, _MAX_ERROR_CHARS)
