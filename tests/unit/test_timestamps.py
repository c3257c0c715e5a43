"""One format whose text order is time order."""

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
    """Always 27 characters, so comparing text compares times."""
    assert len(to_text(one)) == LENGTH
    assert (to_text(one) < to_text(other)) == (one < other)
    assert from_text(to_text(one)) == one


@given(moments)
def test_a_missing_fraction_means_zero(moment: datetime) -> None:
    """Dreamship drops a fraction that is zero; both forms are the same time."""
    whole = moment.astimezone(UTC).replace(microsecond=0)
    text = whole.isoformat().replace("+00:00", "")
    assert parse_foreign(f"{text}Z") == parse_foreign(f"{text}.000Z") == whole


@given(st.text() | st.none() | st.integers() | st.floats() | st.lists(st.text()))
def test_parsing_any_value_raises_nothing(value: object) -> None:
    """The result is a time in UTC or None."""
    moment = parse_foreign(value)
    assert moment is None or moment.utcoffset() == timedelta()


@pytest.mark.parametrize(
    "value",
    ["2026-03-01", "2026-03-01T12:00:30", "2026-13-01T12:00:30Z", "0001-01-01T00:00:00+14:00"],
)
def test_incomplete_or_impossible_times_are_none(value: str) -> None:
    """A date, a time without a zone, an invalid month, a time before year 1."""
    assert parse_foreign(value) is None


def test_a_naive_datetime_is_refused() -> None:
    """Writing one is a programming error, found at once."""
    with pytest.raises(ValueError, match="time zone"):
        to_text(datetime(2026, 3, 1))  # noqa: DTZ001


@given(st.text() | st.none())
def test_http_dates_are_parsed_or_none(value: str | None) -> None:
    """An invalid header is None."""
    moment = parse_http_date(value)
    assert moment is None or moment.tzinfo is not None
    assert parse_http_date("Sun, 01 Mar 2026 12:00:30 GMT") == datetime(
        2026, 3, 1, 12, 0, 30, tzinfo=UTC
    )
