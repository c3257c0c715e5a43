"""Moments and durations as people say them: `12 minutes ago`, `in 5 hours`, `2 h 5 min`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from syncd.core.timestamps import from_text

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_UNITS = (("day", _DAY_S, 2 * _DAY_S), ("hour", _HOUR_S, 2 * _HOUR_S), ("minute", 60, 60))
# A moment as `to_text` writes it.
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def ago(moment: str, now: str) -> str:
    """Return the age of a moment in its largest unit; a moment in the future has no age.

    A text that is no moment is returned as it is: a document may come from another version.
    """
    age_s = _seconds(moment, now)
    return moment if age_s is None else f"{_distance(age_s)} ago"


def until(moment: str, now: str) -> str:
    """Return the time to a moment in its largest unit: `in 5 hours`, or `now`."""
    left_s = _seconds(now, moment)
    if left_s is None:
        return moment
    return f"in {_distance(left_s)}" if left_s > 0 else "now"


def either(moment: str, now: str) -> str:
    """Return the age of a moment of the past, or the time to a moment of the future."""
    return until(moment, now) if moment > now else ago(moment, now)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `2 h 5 min`."""
    left = round(seconds)
    for unit, unit_s, smaller, smaller_s in (
        ("d", _DAY_S, "h", _HOUR_S),
        ("h", _HOUR_S, "min", 60),
        ("min", 60, "s", 1),
    ):
        count, rest = divmod(left, unit_s)
        if count:
            more = rest // smaller_s
            return f"{count} {unit} {more} {smaller}" if more else f"{count} {unit}"
    return f"{left} s"


def exact(moment: str) -> str:
    """Return a moment in seconds, with its zone: `2026-03-01 12:00:30 UTC`; other text stays."""
    if not _MOMENT.fullmatch(moment):
        return moment
    return f"{moment[:19].replace('T', ' ')} UTC"


def with_moments(text: str, shown: Callable[[str], str]) -> str:
    """Return a text with each moment in it replaced by `shown` of the moment."""
    return _MOMENT.sub(lambda found: shown(found[0]), text)


def split_moments(text: str) -> list[str]:
    """Return the parts of a text: every second part is a moment."""
    parts: list[str] = []
    end = 0
    for found in _MOMENT.finditer(text):
        parts += [text[end : found.start()], found[0]]
        end = found.end()
    return [*parts, text[end:]]


def _seconds(begin: str, end: str) -> float | None:
    try:
        return (from_text(end) - from_text(begin)).total_seconds()
    except (ValueError, TypeError):
        return None


def _distance(seconds: float) -> str:
    for unit, unit_s, least_s in _UNITS:
        if seconds >= least_s:
            count = int(seconds // unit_s)
            return f"{count} {unit}{'s'[: count != 1]}"
    return "less than a minute"
