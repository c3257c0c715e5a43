"""The status page: is all well, and if not, why and what to do. Values in, HTML out.

Rendered here whole, everything escaped; the little script only fetches it again and puts the new
one in place. Nothing is asked of any other host, and the policy of the page forbids it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from msgspec import Struct

from syncd.model import Row

_FOLDER = Path(__file__).parent

# No inline script or style, nobody frames it, and a form leads nowhere else.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FILES = {"page.css": "text/css", "page.js": "text/javascript"}

# The kinds of a chart, in the order they are stacked, each a colour of the style sheet.
DELIVERIES = ("applied", "unchanged", "verifying", "duplicate", "ignored", "quarantined")
CHANGES = ("webhook", "read", "config", "missed")

_environment = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _moment(text: str | None, otherwise: str = "-") -> str:
    """Shorten a moment to what a person reads: `2026-03-01 12:00:30`."""
    return otherwise if text is None else text[:19].replace("T", " ")


_environment.filters["moment"] = _moment


class Bar(Struct, frozen=True):
    """One piece of one column of a chart, in the chart's own units of a hundredth of its height."""

    x: int
    y: float
    height: float
    kind: str


class Chart(Struct, frozen=True):
    """A day as 24 columns. `total` and `most` in an hour are for those who cannot see it."""

    title: str
    kinds: list[str]
    bars: list[Bar]
    rows: Sequence[Row]
    total: int
    most: int


def chart(title: str, rows: Sequence[Row], kinds: Sequence[str]) -> Chart:
    """Stack counts by kind, one column a row, each as high as its share of the highest one."""
    sums = [sum(row.get(kind, 0) for kind in kinds) for row in rows]
    most = max(sums, default=0)
    bars: list[Bar] = []
    for x, row in enumerate(rows):
        y = 100.0
        for kind in kinds:
            height = 100.0 * row.get(kind, 0) / most if most else 0.0
            if height:
                y -= height
                bars.append(Bar(x, round(y, 2), round(height, 2), kind))
    used = [kind for kind in kinds if any(row.get(kind) for row in rows)]
    return Chart(title, used, bars, rows, sum(sums), most)


def render(**values: Any) -> str:
    """Return the page; see `page.html` for what it takes."""
    return _environment.get_template("page.html").render(**values)


def file(name: str) -> bytes:
    """Return a file of the page; `name` is one of FILES."""
    return (_FOLDER / name).read_bytes()
