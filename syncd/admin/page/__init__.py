"""The status page: what the shop sells, what is wrong and what to do, and the last 24 hours.

The server renders the whole page and escapes every value. A small script only requests the page
again and updates the differences, and shows moments in the reader's zone. The page loads nothing
from another host, and its security policy forbids it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from syncd.admin.page import words
from syncd.admin.page.charts import chart, strip
from syncd.core.plain_text import shortened, visible
from syncd.core.relative_time import duration

__all__ = [
    "CHANGES",
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
    **{f"{color}.svg": "image/svg+xml" for color in ("green", "blue", "amber", "red", "grey")},
}

MAX_MATCHES = 25
# The kinds of each chart in stacking order; the style sheet has a colour for each kind.
DELIVERIES = ("applied", "unchanged", "verifying", "duplicate", "ignored", "quarantined")
CHANGES = ("webhook", "read", "config", "missed")
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
_environment.globals["max_matches"] = MAX_MATCHES
_environment.filters |= {
    "ago": words.ago,
    "at": words.at,
    "duration": duration,
    "foreign": words.foreign,
    "hour": words.hour,
    "reason_text": words.reason_text,
    "search_link": words.search_link,
    "sentence": words.sentence,
    "shortened": shortened,
}


def render(**values: Any) -> str:
    """Return the page; `page.html` uses the values."""
    return _environment.get_template("page.html").render(**values)


def error(message: str, hint: str, *, at: str, name: str, is_busy: bool = False) -> str:
    """Return the page for a mirror that cannot be read, with the reason and a hint.

    `is_busy`: only this request was refused, because others of its kind are running.
    """
    return _environment.get_template("error.html").render(
        message=message, hint=hint, at=at, name=name, is_busy=is_busy
    )


def file(name: str) -> bytes:
    """Return a file of the page; `name` is one of FILES."""
    return (_FOLDER / name).read_bytes()
