"""Charts of the status page, and the duration of their states as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.admin.page import CHANGES, chart, strip
from syncd.admin.page.charts import COLUMNS, WIDTH
from syncd.core.relative_time import duration
from syncd.core.timestamps import to_text


@given(
    st.lists(
        st.dictionaries(st.sampled_from(CHANGES), st.integers(0, 10_000)), min_size=1, max_size=24
    )
)
def test_a_chart_stays_in_its_frame(rows: list[dict[str, int]]) -> None:
    """Columns are stacked from the bottom, the newest at the right, none above the frame."""
    drawn = chart("Changes", rows, CHANGES)
    total = sum(sum(row.values()) for row in rows)
    assert drawn.summary.startswith(f"{total}, at most " if total else "none")
    assert all(COLUMNS - len(rows) <= bar.x < COLUMNS for bar in drawn.bars)
    for x in range(COLUMNS):
        column = [bar for bar in drawn.bars if bar.x == x]
        assert sum(bar.height for bar in column) <= 100.1
        assert all(-0.1 <= bar.y <= 100 for bar in column)


BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STATES = st.lists(
    st.tuples(
        st.sampled_from(["unknown", "healthy", "failing", "silent"]),
        st.integers(-100 * 3600, 100 * 3600),
    )
)


@given(STATES, st.integers(23 * 3600, 24 * 3600))
def test_a_strip_stays_in_its_frame(states: list[tuple[str, int]], seconds: int) -> None:
    """With any jumps of the clock: no state has a negative length or lies outside."""
    now = BEGIN + timedelta(seconds=seconds)
    rows = [
        {"state": state, "began_at": to_text(BEGIN + timedelta(seconds=at))} for state, at in states
    ]
    drawn = strip("Webhooks", rows, BEGIN, now)
    assert [span.state for span in drawn.spans] == [state for state, _ in states]
    for span in drawn.spans:
        assert span.lasted >= timedelta(0)
        assert 0 <= span.x <= span.x + span.width <= COLUMNS * WIDTH + 0.01
    assert all(span.width > 0 for span in drawn.spans[:1])


def test_a_strip_describes_its_states() -> None:
    """A day with one outage, after a long healthy time."""
    hours = [("healthy", 20), ("silent", 18.5), ("healthy", -50), ("unknown", -51)]
    rows = [
        {"state": state, "began_at": to_text(BEGIN + timedelta(hours=at))} for state, at in hours
    ]
    drawn = strip("Webhooks", rows, BEGIN, BEGIN + timedelta(hours=23.5))
    assert drawn.summary == "now arriving, 2 changes in 24 hours"
    assert [(span.state, span.x, span.width) for span in drawn.drawn] == [
        ("healthy", 0, 185),
        ("healthy", 200, 35),
        ("silent", 185, 15),
    ]
    assert strip("Webhooks", [], BEGIN, BEGIN).summary == "not known yet"
    expected = "now not known yet, no changes in 24 hours"
    assert strip("Webhooks", rows[3:], BEGIN, BEGIN).summary == expected


@pytest.mark.parametrize(
    ("seconds", "message"),
    [(0, "0 s"), (59.6, "1 min"), (7220, "2 h"), (7500, "2 h 5 min"), (90_061, "1 d 1 h")],
)
def test_a_duration_has_at_most_two_units(seconds: float, message: str) -> None:
    """No seconds beside hours, and no zero."""
    assert duration(seconds) == message
