"""Computes the age of the content of an answer from its headers. Pure.

A cache between Dreamship and this host may answer with a copy. A read of a copy counts as a read
that began when the copy was made, if the headers show that time (RFC 9111, 4.2.3; RFC 9211). A copy
whose headers do not show its age cannot be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.core.timestamps import parse_http_date

# Younger content counts as new. The clocks of hosts behind one name differ by some seconds, a proxy
# may compute `Age` from such a clock, and `reconcile.settle` allows for a source that lags.
COPY_AGE = timedelta(seconds=10)
# Content this old, or of an unknown age, is no evidence at all.
NO_EVIDENCE_AGE = timedelta(days=1)
UNKNOWN_AGE = timedelta(days=30)
# `Age` may be any number; a larger one is of no use, and leads to impossible dates.
LONGEST_AGE = timedelta(days=3650)

_ONE_SECOND = timedelta(seconds=1)
_NUMBER = re.compile(r"(\d+)(?:\.\d+)?", re.ASCII)
_DIGITS = 12
# Headers in which caches report whether they answered themselves.
_MARKS = (
    "X-Cache",
    "X-Cache-Status",
    "CF-Cache-Status",
    "CDN-Cache",
    "X-Proxy-Cache",
    "X-Nginx-Cache",
    "X-Vercel-Cache",
    "X-LiteSpeed-Cache",
)
_HIT = re.compile(r";\s*hit\s*(?![\w=])", re.IGNORECASE)
_STALE_WARNING = re.compile(r"(?:^|,)\s*11[0-3]\b")

Values = Callable[[str], Sequence[str]]
"""Returns every value of the header of one name, in the order of the answer."""


class ContentAge(Struct, frozen=True):
    """The age of content, and how long a cache may repeat it, both by the headers."""

    age: timedelta = timedelta()
    fresh_for: timedelta | None = None


def content_age(values: Values) -> ContentAge:
    """Return the age of the content by the headers; zero if no header marks it as a copy.

    `Age` counts first, then the time that a page cache such as Django's leaves in `Expires`. An
    answer that is marked as a copy, without either of them, has an unknown age.
    """
    lifetime = _lifetime(values)
    age = _age(values("Age"))
    if age is None:
        age = _since_expiry_was_set(values, lifetime)
    if age is None:
        age = UNKNOWN_AGE if _is_marked(values) else timedelta()
    if not age:
        return ContentAge()
    fresh_for = None
    if lifetime is not None and age < NO_EVIDENCE_AGE:
        fresh_for = max(timedelta(), lifetime - age)
    return ContentAge(age, fresh_for)


def _age(values: Sequence[str]) -> timedelta | None:
    """Return the largest age in a header that may occur twice, be a list, or contain no number."""
    seconds = [number for number in map(_number, _members(values)) if number is not None]
    if not seconds:
        return None
    # Whole seconds, rounded down: the content may be almost a second older. Zero is a new answer.
    age = min(timedelta(seconds=max(seconds)), LONGEST_AGE)
    return age + _ONE_SECOND if age else age


def _since_expiry_was_set(values: Values, lifetime: timedelta | None) -> timedelta | None:
    """Return how long ago `Expires` was set; it was set to one lifetime ahead of that time.

    Django's page cache writes `Expires` and the lifetime when it stores a page, and repeats them.
    Older versions send no `Age`. The server writes a new `Date`, by the same clock.
    """
    date, expires = _moment(values("Date")), _moment(values("Expires"))
    if date is None or expires is None or lifetime is None:
        return None
    since = date - (expires - lifetime)
    if not timedelta() <= since <= lifetime:
        return None
    return since + _ONE_SECOND if since > _ONE_SECOND else timedelta()


def _lifetime(values: Values) -> timedelta | None:
    """Return `max-age`, if the answer may be stored and names only one lifetime."""
    directives = [member.lower() for member in _members(values("Cache-Control"))]
    if {"no-store", "no-cache"} & set(directives):
        return None
    named = {
        _number(value)
        for name, _, value in (directive.partition("=") for directive in directives)
        if name.strip() == "max-age"
    }
    seconds = named.pop() if len(named) == 1 else None
    return None if not seconds else min(timedelta(seconds=seconds), LONGEST_AGE)


def _is_marked(values: Values) -> bool:
    """Return whether a cache reports that it answered by itself."""
    if any(_STALE_WARNING.search(value) for value in values("Warning")):
        return True
    if any(_HIT.search(value) for value in values("Cache-Status")):
        return True
    return any(_marks_hit(member) for name in _MARKS for member in _members(values(name)))


def _marks_hit(mark: str) -> bool:
    """Distinguish a copy (`HIT`, `TCP_MEM_HIT`, `STALE`) from content that the origin confirmed."""
    words = set(re.split(r"[^a-z]+", mark.lower().partition(" from ")[0]))
    if "refresh" in words and "fail" not in words:
        return False
    return not words.isdisjoint({"hit", "stale", "updating"})


def _members(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (member.strip() for member in value.split(","))


def _number(text: str) -> int | None:
    found = _NUMBER.fullmatch(text.strip().strip('"'))
    return None if found is None else int(found.group(1)[:_DIGITS])


def _moment(values: Sequence[str]) -> datetime | None:
    return parse_http_date(values[0]) if len(values) == 1 else None
