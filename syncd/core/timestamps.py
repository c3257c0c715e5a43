"""The one time format: UTC text of always 27 characters, so that text order is time order.

Python code has aware `datetime` values in UTC; text exists only in the database, in JSON and on the
wire. Dreamship omits a fraction of zero, so its timestamps are never compared as text (`…:30Z`
beside `…:30.103721Z`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from msgspec import json

LENGTH = 27

_encode = json.Encoder().encode


def to_text(moment: datetime) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.ffffffZ`; raises ValueError for a naive moment."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone cannot be stored in the mirror")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # Seven times as fast as isoformat, and a delivery writes nine of them.
    text = _encode(moment).decode()
    # The encoder omits a fraction of zero, and adds quotes.
    return text[1:28] if len(text) == LENGTH + 2 else f"{text[1:20]}.000000Z"


def from_text(text: str) -> datetime:
    """Return the time in a text of `to_text`; raises ValueError if the text is no time."""
    return datetime.fromisoformat(text)


def maybe_text(moment: datetime | None) -> str | None:
    """`to_text`, and None for None."""
    return None if moment is None else to_text(moment)


def maybe_from_text(text: str | None) -> datetime | None:
    """`from_text`, and None for None."""
    return None if text is None else from_text(text)


def parse_foreign(value: object) -> datetime | None:
    """Return a foreign timestamp in UTC, or None if it is no exact time.

    Accepts ISO 8601 with a time, with or without a fraction, with `Z` or an offset. A time without
    a zone, a date alone, a number or an impossible date is None: the merge rule then reads the item
    instead of guessing.
    """
    # fromisoformat accepts week dates and bare dates too.
    if not isinstance(value, str) or not 19 <= len(value) <= 40 or "W" in value:  # noqa: PLR2004
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP `Date` or `Retry-After` header, or None."""
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        return None
