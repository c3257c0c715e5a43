"""Whether rows of the list are good for something, and how often the list is read."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.list_hints import HALVED_AT, SHORTEST_INTERVAL, HintCounts, add, interval


def test_a_few_changes_show_nothing() -> None:
    """The list is read until then."""
    assert HintCounts(checked=9, predicted=0).is_useful is None


def test_rows_that_change_with_the_availability_are_useful() -> None:
    """Rows also change for what deliveries report."""
    assert HintCounts(checked=20, predicted=18, listed=9000, flagged=200).is_useful is True


def test_rows_that_never_change_are_useless() -> None:
    """However many changes were checked."""
    assert HintCounts(checked=20, predicted=1, listed=300, flagged=3).is_useful is False


def test_rows_that_change_all_the_time_are_useless() -> None:
    """They show each change, and everything else."""
    assert HintCounts(checked=20, predicted=20, listed=9000, flagged=9000).is_useful is False


def test_old_observations_fade() -> None:
    """Rows may begin to be useful after a change at Dreamship."""
    counts = HintCounts(checked=HALVED_AT - 1, predicted=0, flagged=0)
    while not counts.is_useful:
        counts = add(counts, checked=1, predicted=1, listed=100, flagged=1)
        assert counts.checked < HALVED_AT


@given(pages=st.integers(1, 1000), background=st.floats(1, 100))
def test_the_list_takes_a_sixth_of_the_background_calls_at_most(
    pages: int, background: float
) -> None:
    """And it is not read more often than every few minutes."""
    span = interval(pages, background)
    assert span >= SHORTEST_INTERVAL
    assert pages / (span / timedelta(minutes=1)) <= background / 6 * 1.001
