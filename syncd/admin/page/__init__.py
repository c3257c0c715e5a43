"""The status page: what the shop can sell, the health with its reasons, and the last 24 hours.

The server renders the whole page and escapes every value. A small script only fetches the page
again and updates the differences. The page loads nothing from another host, and its security policy
forbids it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from syncd.admin.page.charts import chart, strip
from syncd.admin.page.words import ago, reason_text, search_link
from syncd.core.plain_text import shortened, visible
from syncd.core.timestamps import to_text

__all__ = [
    "CHANGES",
    "CONFIRMED",
    "DELIVERIES",
    "DRIFT",
    "FILES",
    "HEADERS",
    "MAX_MATCHES",
    "chart",
    "error",
    "file",
    "render",
    "strip",
]

_FOLDER = Path(__file__).parent

# The headers of every answer of the admin listener: no inline script or style, no frames, and no
# form that leads to another host.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # A foreign page cannot load it as an image or a script.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    **dict.fromkeys(("ok.svg", "degraded.svg", "failing.svg"), "image/svg+xml"),
}

MAX_MATCHES = 25
# The kinds of each chart in stacking order; the style sheet has a colour for each kind.
DELIVERIES = ("applied", "unchanged", "verifying", "duplicate", "ignored", "quarantined")
CHANGES = ("webhook", "read", "config", "missed")
CONFIRMED = ("confirmed",)
DRIFT = ("changed", "added", "removed")


def _shown(value: Any) -> Any:
    """Return a value for display: text is cut, and its control characters are escaped."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return visible(shortened(value)) if is_text else value


_environment = Environment(
    finalize=_shown,
    loader=FileSystemLoader(_FOLDER),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _moment(at: str | datetime | None, otherwise: str = "-") -> str:
    """Return a moment in seconds, for people: `2026-03-01 12:00:30`."""
    if at is None:
        return otherwise
    text = at if isinstance(at, str) else to_text(at)
    return text[:19].replace("T", " ")


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units: `2 h 5 min`."""
    left = round(seconds)
    for unit, unit_s, smaller, smaller_s in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        count, rest = divmod(left, unit_s)
        if count:
            more = rest // smaller_s
            return f"{count} {unit} {more} {smaller}" if more else f"{count} {unit}"
    return f"{left} s"


def _with_code(text: str) -> Markup:
    """Escape text, and mark the parts in backticks as code."""
    parts = [escape(visible(part)) for part in text.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if index % 2 else part
        for index, part in enumerate(parts)
    )


_environment.globals["max_matches"] = MAX_MATCHES
_environment.filters |= {
    "ago": ago,
    "duration": _duration,
    "moment": _moment,
    "reason_text": reason_text,
    "search_link": search_link,
    "shortened": shortened,
    "with_code": _with_code,
}


def render(**values: Any) -> str:
    """Return the page; `page.html` uses the values."""
    return _environment.get_template("page.html").render(**values)


def error(message: str, hint: str) -> str:
    """Return the page for a mirror that cannot be read, with the reason and a hint."""
    return _environment.get_template("error.html").render(message=message, hint=hint)


def file(name: str) -> bytes:
    """Return a file of the page; `name` is one of FILES."""
    return (_FOLDER / name).read_bytes()
