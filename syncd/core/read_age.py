"""How old is the content of an answer? Pure: the headers come in, an age comes out.

A cache between Dreamship and this host may answer with a copy. A read of a copy counts as a read
that began when the copy was made, as far as the headers say when that was (RFC 9111, 4.2.3; RFC
9211). A copy that has no trace of its age in its headers cannot be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.core.timestamps import parse_http_date

# Younger content counts as new: clocks of hosts behind one name differ by some seconds, a proxy may
# compute `Age` from such a clock, and `reconcile.settle` leaves room for a source that lags.
COPY_AGE = timedelta(seconds=10)
# Content this old, or of an unknown age, is no evidence at all.
NO_EVIDENCE_AGE = timedelta(days=1)
UNKNOWN_AGE = timedelta(days=30)
# `Age` may be any number; a larger one than this has no use, and no calendar has the moment.
LONGEST_AGE = timedelta(days=3650)

_ONE_SECOND = timedelta(seconds=1)
_NUMBER = re.compile(r"(\d+)(?:\.\d+)?", re.ASCII)
_DIGITS = 12
# Headers in which caches say whether they answered themselves.
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


class ToldAge(Struct, frozen=True):
    """What the headers say: the age, and for how long a cache may go on answering the same."""

    age: timedelta = timedelta()
    fresh_for: timedelta | None = None


def told_age(values: Values) -> ToldAge:
    """Return how old the headers say that the content is; zero when nothing says that it is a copy.

    `Age` counts first, then the moment that a page cache such as Django's leaves in `Expires`. An
    answer that is marked as a copy without either has an unknown age.
    """
    lifetime = _lifetime(values)
    age = _age(values("Age"))
    if age is None:
        age = _since_expiry_was_set(values, lifetime)
    if age is None:
        age = UNKNOWN_AGE if _is_marked(values) else timedelta()
    if not age:
        return ToldAge()
    fresh_for = None
    if lifetime is not None and age < NO_EVIDENCE_AGE:
        fresh_for = max(timedelta(), lifetime - age)
    return ToldAge(age, fresh_for)


def _age(values: Sequence[str]) -> timedelta | None:
    """Return the largest age of a header that may be repeated, a list, or no number at all."""
    seconds = [number for number in map(_number, _members(values)) if number is not None]
    if not seconds:
        return None
    # Whole seconds, cut off: the content may be almost a second older. Zero is a new answer.
    age = min(timedelta(seconds=max(seconds)), LONGEST_AGE)
    return age + _ONE_SECOND if age else age


def _since_expiry_was_set(values: Values, lifetime: timedelta | None) -> timedelta | None:
    """Return how long ago `Expires` was set to a lifetime ahead; both headers are of one clock.

    Django's page cache writes both when it makes a page and repeats them, without an `Age` in older
    versions, while the server writes a new `Date`.
    """
    date, expires = _moment(values("Date")), _moment(values("Expires"))
    if date is None or expires is None or lifetime is None:
        return None
    since = date - (expires - lifetime)
    if not timedelta() <= since <= lifetime:
        return None
    return since + _ONE_SECOND if since > _ONE_SECOND else timedelta()


def _lifetime(values: Values) -> timedelta | None:
    """Return `max-age`, if the answer may be kept and names one lifetime only."""
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
    """Tell whether a cache says that it answered by itself."""
    if any(_STALE_WARNING.search(value) for value in values("Warning")):
        return True
    if any(_HIT.search(value) for value in values("Cache-Status")):
        return True
    return any(_says_hit(member) for name in _MARKS for member in _members(values(name)))


def _says_hit(mark: str) -> bool:
    """Tell a copy (`HIT`, `TCP_MEM_HIT`, `STALE`) from an answer that the origin has confirmed."""
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
