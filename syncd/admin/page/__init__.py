"""The status page: is all well, and if not, why and what to do. Values in, HTML out.

Rendered here whole, everything escaped; the little script only fetches it again and puts the new
one in place. Nothing is asked of any other host, and the policy of the page forbids it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from syncd.admin.page.charts import chart, strip
from syncd.core.plain_text import shortened, visible
from syncd.core.timestamps import to_text

__all__ = [
    "CHANGES",
    "CONFIRMED",
    "DELIVERIES",
    "DRIFT",
    "FILES",
    "HEADERS",
    "MOST_FOUND",
    "chart",
    "error",
    "file",
    "render",
    "strip",
]

_FOLDER = Path(__file__).parent

# Of every answer of the admin listener: no inline script or style, nobody frames it, and a form
# leads nowhere else.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # A page of somebody else may not even load it as an image or a script.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    **dict.fromkeys(("ok.svg", "degraded.svg", "failing.svg"), "image/svg+xml"),
}

MOST_FOUND = 25
# The kinds of a chart, in the order they are stacked, each a colour of the style sheet.
DELIVERIES = ("applied", "unchanged", "verifying", "duplicate", "ignored", "quarantined")
CHANGES = ("webhook", "read", "config", "missed")
CONFIRMED = ("confirmed",)
DRIFT = ("changed", "added", "removed")


def _shown(value: Any) -> Any:
    """Return what is shown of a value: text of others has bounds and nothing hidden in it."""
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
    """Shorten a moment to what a person reads: `2026-03-01 12:00:30`."""
    if at is None:
        return otherwise
    text = at if isinstance(at, str) else to_text(at)
    return text[:19].replace("T", " ")


def _lasting(seconds: float) -> str:
    """Say how long, to the unit below the largest: `2 h 5 min`."""
    left = round(seconds)
    for unit, length, smaller, its_length in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        count, rest = divmod(left, length)
        if count:
            more = rest // its_length
            return f"{count} {unit} {more} {smaller}" if more else f"{count} {unit}"
    return f"{left} s"


def _coded(text: str) -> Markup:
    """Let what stands in backticks look like what is typed, and escape all of it."""
    parts = [escape(visible(part)) for part in text.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts)
    )


_environment.globals["most_found"] = MOST_FOUND
_environment.filters |= {"moment": _moment, "lasting": _lasting, "coded": _coded}


def render(**values: Any) -> str:
    """Return the page; see `page.html` for what it takes."""
    return _environment.get_template("page.html").render(**values)


def error(message: str, hint: str) -> str:
    """Return the page for a mirror that cannot be read: the reason, and what to do."""
    return _environment.get_template("error.html").render(message=message, hint=hint)


def file(name: str) -> bytes:
    """Return a file of the page; `name` is one of FILES."""
    return (_FOLDER / name).read_bytes()
