"""Words of the page: the age of a moment, why a SKU or a variant is not sold, and links."""

from __future__ import annotations

from urllib.parse import quote

from markupsafe import Markup

from syncd.core.timestamps import from_text

# The reasons of the views, for one SKU or variant and for several.
_REASONS = {
    "unknown": ("leads to no variant", "lead to no variant"),
    "removed": ("removed from the catalogue", "removed from the catalogue"),
    "verifying": ("verifying", "verifying"),
    "item": ("blocked by the item's status", "blocked by the item's status"),
    "value": ("has a value that is not sellable", "have a value that is not sellable"),
}
_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S


def reason_text(reason: str, count: int = 1) -> str:
    """Return why one SKU or variant is not sold, or why `count` of them are not."""
    return _REASONS[reason][count != 1]


def ago(moment: str, now: str) -> Markup:
    """Return a `time` element: the age of a moment, with the exact moment as its title."""
    age_s = (from_text(now) - from_text(moment)).total_seconds()
    exact = f"{moment[:19].replace('T', ' ')} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment, exact, _age(age_s))


def search_link(text: str) -> Markup:
    """Return the address of a search, which is never shortened."""
    # Quoted text has no character that HTML treats in a special way.
    return Markup("?q=" + quote(text, safe="", errors="replace"))  # noqa: S704 - quoted


def _age(age_s: float) -> str:
    """Return an age in its largest unit; a moment in the future has no age."""
    for unit, unit_s, least_s in (
        ("day", _DAY_S, 2 * _DAY_S),
        ("hour", _HOUR_S, 2 * _HOUR_S),
        ("minute", 60, 60),
    ):
        if age_s >= least_s:
            count = int(age_s // unit_s)
            return f"{count} {unit}{'s'[: count != 1]} ago"
    return "less than a minute ago"
