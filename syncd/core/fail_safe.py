"""The behaviour of the shop during a problem: how long its fail-safe goes on selling. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from syncd.core.health import Problem
from syncd.core.relative_time import duration
from syncd.core.status_document import StatusDocument
from syncd.core.timestamps import from_text, to_text

# The limits of the documented fail-safe (syncd/docs/shops.md, "May this variant be sold?").
SIGN_OF_LIFE_LASTS = timedelta(minutes=5)
CONFIRMATION_LASTS = timedelta(days=1)
# Nothing is confirmed while one of these lasts; the shop sells until the confirmations are too old.
STOP_READS = ("key_refused", "unreachable", "not_stored", "throttled")
_ONLY_READS = ("silent", "lost", "key_rotated", "no_delivery", "down")
_MEANWHILE = {
    "listings_dead": "The shop does not sell these SKUs. It goes on selling all others.",
    "listings_file": "The shop goes on selling by the listings before it.",
    "nothing_sellable": "The shop sells nothing.",
    "push_failing": "Shops that read the mirror are up to date. The receiver has older values.",
    "push_stopped": "Shops that read the mirror are up to date. The receiver has older values.",
    "publish_fenced": "The shop reads the values of the host that publishes.",
    "publish_failing": "Shops that read the mirror are up to date. Shops that read the target sell "
    "until its `daemon_seen_at` is five minutes old.",
    "cached": "The shop goes on selling. A change may arrive later than usual.",
    "quarantined": "The shop goes on selling. It does not sell a variant that such a delivery "
    "names, until a read confirms it.",
}
_GOES_ON = "The shop goes on selling."


def meanwhile(problem: Problem, status: StatusDocument, now: datetime) -> str:
    """Return the behaviour of the shop until a problem is solved; the document has the moments."""
    mirror, code = status.mirror, problem.code
    if code == "not_durable":
        return _until_sign_of_life(after(mirror.daemon_seen_at, SIGN_OF_LIFE_LASTS), now)
    if code in STOP_READS:
        return _until_confirmation(after(mirror.oldest_confirmed_at, CONFIRMATION_LASTS), now)
    if code in _ONLY_READS:
        at = after(mirror.oldest_confirmed_at, timedelta())
        age = "" if at is None else f"; every variant was read {_within(at, now)}"
        return f"{_GOES_ON} Only reads find changes now{age}."
    return _MEANWHILE.get(code, _GOES_ON)


def _within(moment: datetime, now: datetime) -> str:
    seconds = max(60.0, (now - moment).total_seconds())
    return f"within the last {duration(60 * round(seconds / 60))}"


def _until_sign_of_life(limit: datetime | None, now: datetime) -> str:
    if limit is None:
        return "The shop sells nothing five minutes after the last sign of life of the daemon."
    if limit > now:
        return (
            f"The shop goes on selling until {to_text(limit)}. Then it sells nothing, because the "
            "mirror has no sign of life of the daemon."
        )
    return (
        f"The shop has sold nothing since {to_text(limit)}, because the mirror has no sign of life "
        "of the daemon."
    )


def _until_confirmation(limit: datetime | None, now: datetime) -> str:
    if limit is None:
        return "Nothing is confirmed yet, so the shop sells nothing."
    if limit > now:
        return (
            f"The shop goes on selling until {to_text(limit)}. Then it stops selling the variants "
            "that nothing has confirmed for a day."
        )
    return (
        f"Since {to_text(limit)} the shop no longer sells the variants that nothing has confirmed "
        "for a day."
    )


def after(moment: str | None, lasts: timedelta) -> datetime | None:
    """Return the moment a while after another one; None if there is none."""
    try:
        return None if moment is None else from_text(moment) + lasts
    except (ValueError, OverflowError):
        return None  # a document may come from another version
