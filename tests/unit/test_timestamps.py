"""One format, whose text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.timestamps import LENGTH, from_text, parse_foreign, parse_http_date, to_text

moments = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
).flatmap(
    lambda naive: st.integers(-14 * 60, 14 * 60).map(
        lambda minutes: naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    )
)


@given(moments, moments)
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    """Always 27 characters, so comparing text compares moments."""
    assert len(to_text(one)) == LENGTH
    assert (to_text(one) < to_text(other)) == (one < other)
    assert from_text(to_text(one)) == one


@given(moments)
def test_with_and_without_a_fraction(moment: datetime) -> None:
    """Dreamship drops a fraction that is zero; both forms are the same moment."""
    whole = moment.astimezone(UTC).replace(microsecond=0)
    text = whole.isoformat().replace("+00:00", "")
    assert parse_foreign(f"{text}Z") == parse_foreign(f"{text}.000Z") == whole


@given(st.text() | st.none() | st.integers() | st.floats() | st.lists(st.text()))
def test_nothing_a_stranger_writes_makes_it_raise(value: object) -> None:
    """A moment in UTC or None, never a fault."""
    moment = parse_foreign(value)
    assert moment is None or moment.utcoffset() == timedelta()


@pytest.mark.parametrize(
    "value",
    ["2026-03-01", "2026-03-01T12:00:30", "2026-13-01T12:00:30Z", "0001-01-01T00:00:00+14:00"],
)
def test_what_has_no_place_in_time(value: str) -> None:
    """A day, a time without a zone, a month that is none, a moment before the calendar."""
    assert parse_foreign(value) is None


def test_a_naive_moment_never_gets_into_the_mirror() -> None:
    """Writing one is a mistake of ours, found at once."""
    with pytest.raises(ValueError, match="time zone"):
        to_text(datetime(2026, 3, 1))  # noqa: DTZ001


@given(st.text() | st.none())
def test_http_dates(value: str | None) -> None:
    """A header is a moment or nothing."""
    moment = parse_http_date(value)
    assert moment is None or moment.tzinfo is not None
    assert parse_http_date("Sun, 01 Mar 2026 12:00:30 GMT") == datetime(
        2026, 3, 1, 12, 0, 30, tzinfo=UTC
    )
