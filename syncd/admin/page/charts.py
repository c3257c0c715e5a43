"""Charts of the page: columns and strips from counts, each with the same content in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.core.model import Row
from syncd.core.timestamps import from_text

COLUMNS = 24
# In the charts' own units a column is as wide as that, and a chart a hundred high.
WIDTH = 10.0
# A state of one minute must be visible, although it is smaller than a pixel.
_THINNEST = 1.5
# Some people cannot see the colours.
_HEIGHTS = {"healthy": 35, "unknown": 50, "failing": 75, "silent": 100}


class Bar(Struct, frozen=True):
    """One piece of one column, `y` from the top."""

    x: int
    y: float
    height: float
    kind: str


class Chart(Struct, frozen=True):
    """Columns, the oldest first. `summary` has the content in words."""

    title: str
    kinds: list[str]
    bars: list[Bar]
    rows: Sequence[Row]
    summary: str


class Span(Struct, frozen=True):
    """The time of one state. `ended_at` is None for the state of now."""

    state: str
    began_at: datetime
    ended_at: datetime | None
    lasted: timedelta
    x: float
    width: float
    height: int


class Strip(Struct, frozen=True):
    """The states of one day. `spans` has the newest first."""

    title: str
    states: list[str]
    spans: list[Span]
    summary: str

    @property
    def drawn(self) -> Iterator[Span]:
        """The states of the day, short ones on top."""
        seen = (span for span in self.spans if span.width)
        return iter(sorted(seen, key=lambda span: span.width, reverse=True))


def chart(
    title: str, rows: Sequence[Row], kinds: Sequence[str], *, each: str = "hour", also: str = ""
) -> Chart:
    """Stack counts by kind, one column a row, each as high as its share of the highest one.

    The newest is the last and at the right, however few there are.
    """
    sums = [sum(row.get(kind, 0) for kind in kinds) for row in rows]
    most = max(sums, default=0)
    bars: list[Bar] = []
    for x, row in enumerate(rows, COLUMNS - len(rows)):
        y = 100.0
        for kind in kinds:
            height = 100.0 * row.get(kind, 0) / most if most else 0.0
            if height:
                y -= height
                bars.append(Bar(x, round(y, 2), round(height, 2), kind))
    used = [kind for kind in kinds if any(row.get(kind) for row in rows)]
    summary = f"{sum(sums)}, at most {most} in one {each}" if most else "none"
    return Chart(title, used, bars, rows, summary + also)


def strip(title: str, states: Sequence[Row], begins: datetime, now: datetime) -> Strip:
    """Lay states, the newest first, beside each other; a day `begins` with its first hour."""
    spans: list[Span] = []
    ended_at: datetime | None = None
    for row in states:
        # A clock that was set back must not make a state last for less than nothing.
        began_at = min(from_text(row["began_at"]), ended_at or now)
        end = ended_at or now
        right = _x(end, begins)
        width = max(right - _x(began_at, begins), _THINNEST) if right else 0.0
        x = round(max(0.0, right - width), 2)
        state = row["state"]
        height = _HEIGHTS[state]
        spans.append(Span(state, began_at, ended_at, end - began_at, x, round(width, 2), height))
        ended_at = began_at
    of_the_day = [span for span in spans if span.width]
    known = list(dict.fromkeys(span.state for span in of_the_day))
    # Nothing is known of what was before the oldest one.
    changes = sum(span.began_at >= begins for span in spans[:-1])
    summary = "not known yet"
    if spans:
        summary = f"{spans[0].state} now, {changes or 'no'} change{'s'[: changes != 1]} in 24 hours"
    return Strip(title, known, spans, summary)


def _x(at: datetime, begins: datetime) -> float:
    hours = (at - begins) / timedelta(hours=1)
    return round(max(0.0, hours) * WIDTH, 2)
