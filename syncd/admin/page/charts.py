"""Charts of the page: columns and strips, each with a summary of the same content as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from syncd.core.headline import DELIVERIES
from syncd.core.model import Row
from syncd.core.timestamps import from_text

COLUMNS = 24
# The width of a column in the units of the chart, which is 100 units high.
WIDTH = 10.0
# A state of one minute must be visible, although it is narrower than a pixel.
_MIN_WIDTH = 1.5
# The states differ in height too, for people who cannot see the colours.
_HEIGHTS = {"healthy": 35, "unknown": 50, "failing": 75, "silent": 100}


class Bar(Struct, frozen=True):
    """One part of a column; `y` counts from the top."""

    x: int
    y: float
    height: float
    kind: str


class Chart(Struct, frozen=True):
    """Columns, the oldest first. `summary` has the content as text."""

    title: str
    kinds: list[str]
    bars: list[Bar]
    rows: Sequence[Row]
    summary: str


class Span(Struct, frozen=True):
    """The time of one state. `ended_at` is None for the current state."""

    state: str
    began_at: datetime
    ended_at: datetime | None
    lasted: timedelta
    x: float
    width: float
    height: int

    @property
    def word(self) -> str:
        """The state in the words of the headline."""
        return DELIVERIES[self.state]


class Strip(Struct, frozen=True):
    """The states of one day, each with its word. `spans` has the newest first."""

    title: str
    states: list[tuple[str, str]]
    spans: list[Span]
    summary: str

    @property
    def drawn(self) -> Iterator[Span]:
        """The states of the day; short states come last, so that they are on top."""
        visible = (span for span in self.spans if span.width)
        return iter(sorted(visible, key=lambda span: span.width, reverse=True))


def chart(
    title: str, rows: Sequence[Row], kinds: Sequence[str], *, each: str = "hour", also: str = ""
) -> Chart:
    """Return a chart with one column for each row; the highest column has the full height.

    A column stacks the counts of a row by kind. The newest row is the last and at the right edge.
    """
    sums = [sum(row.get(kind, 0) for kind in kinds) for row in rows]
    highest = max(sums, default=0)
    bars: list[Bar] = []
    for x, row in enumerate(rows, COLUMNS - len(rows)):
        y = 100.0
        for kind in kinds:
            height = 100.0 * row.get(kind, 0) / highest if highest else 0.0
            if height:
                y -= height
                bars.append(Bar(x, round(y, 2), round(height, 2), kind))
    used = [kind for kind in kinds if any(row.get(kind) for row in rows)]
    summary = f"{sum(sums)}, at most {highest} in one {each}" if highest else "none"
    return Chart(title, used, bars, rows, summary + also)


def strip(title: str, states: Sequence[Row], begins: datetime, now: datetime) -> Strip:
    """Return a strip of the states of a day; `states` has the newest first."""
    spans: list[Span] = []
    ended_at: datetime | None = None
    for row in states:
        # If the clock was set back, a duration must not become negative.
        began_at = min(from_text(row["began_at"]), ended_at or now)
        end = ended_at or now
        right = _x(end, begins)
        width = max(right - _x(began_at, begins), _MIN_WIDTH) if right else 0.0
        x = round(max(0.0, right - width), 2)
        state = row["state"]
        height = _HEIGHTS[state]
        spans.append(Span(state, began_at, ended_at, end - began_at, x, round(width, 2), height))
        ended_at = began_at
    of_the_day = [span for span in spans if span.width]
    known = list(dict.fromkeys((span.state, span.word) for span in of_the_day))
    # The state before the oldest one is unknown.
    changes = sum(span.began_at >= begins for span in spans[:-1])
    summary = "not known yet"
    if spans:
        summary = f"now {spans[0].word}, {changes or 'no'} change{'s'[: changes != 1]} in 24 hours"
    return Strip(title, known, spans, summary)


def _x(at: datetime, begins: datetime) -> float:
    hours = (at - begins) / timedelta(hours=1)
    return round(max(0.0, hours) * WIDTH, 2)
