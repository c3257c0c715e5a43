"""A month in virtual time: the mirror stops growing, and keeps what is configured."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from simulation.month import Months

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Live through a month in which deliveries are kept for 4 days and changes for 8."""
    mirror = tmp_path_factory.mktemp("month") / "availability.db"
    months = Months(mirror, per_day=500, deliveries=4 * DAY, changes=8 * DAY)
    return [*months.days(31)]


def test_the_file_stops_growing_after_the_longest_retention(month: list[Any]) -> None:
    """Freed pages are used again, and no more are needed."""
    sizes = [one.file_bytes for one in month]
    assert sizes[3] > 1.5 * sizes[0]
    assert max(sizes[12:]) <= 1.03 * sizes[11]
    assert month[-1].free_bytes < 0.2 * sizes[-1]


def test_deliveries_and_changes_are_kept_as_long_as_configured(month: list[Any]) -> None:
    """Four days of deliveries and eight of changes, on each day."""
    for one in month[10:]:
        assert 4 * 500 <= one.deliveries - one.quarantined <= 4 * 500 + 100
        assert 8 * 490 <= one.changes <= 8 * 500 + 100


def test_quarantined_deliveries_are_never_pruned(month: list[Any]) -> None:
    """One a day was not understood; all of them wait for an operator."""
    assert [one.quarantined for one in month] == [*range(1, 32)]
