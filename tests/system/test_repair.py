"""How long a lost change stays wrong, and how many calls that costs, in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from simulation.days import HOUR_S, Day, lived
from simulation.repair import Loss, repairs

from syncd.core.catch_up import FIRST_CREDIT
from syncd.core.list_hints import FEWEST_CHECKED
from syncd.store import list_rows

pytestmark = pytest.mark.long

HOURS = 4 / 24
# 15 background calls, catch-ups and confirming reads; and the credit of a new mirror.
MOST_CALLS = 20 + FIRST_CREDIT * 4.5 / (HOURS * timedelta(days=1))


@pytest.mark.parametrize("loss", ["single", "outages", "off"])
def test_a_lost_change_is_repaired_within_a_round(loss: Loss) -> None:
    """Forty items are read in three minutes; with sweeps alone a change stays wrong for hours."""
    found = repairs(loss, items=40, days=HOURS)
    assert max(found.minutes) <= 40 / 15 + 2
    assert found.calls[0] <= MOST_CALLS


def test_rows_that_show_changes_make_the_repair_faster() -> None:
    """A large catalogue is listed every few minutes; the stalest item would be an hour old."""
    found = repairs("off", items=600, days=HOURS, rows_predict=True)
    assert sum(found.minutes) / len(found.minutes) <= 5
    assert found.calls[0] <= MOST_CALLS


@pytest.mark.parametrize("rows_predict", [False, True])
def test_a_shop_that_loses_nothing_learns_whether_rows_are_useful(rows_predict: bool) -> None:
    """From the changes that deliveries report; until then the list takes a part of the calls."""

    async def script(day: Day) -> None:
        changing = asyncio.create_task(day.change_every(60))
        await day.beat_for(HOUR_S)
        counts = await day.services.database.read(list_rows.counts)
        assert counts.is_useful is rows_predict
        if rows_predict:
            assert counts.predicted == counts.checked
        else:
            # Once it is known, only lost changes count, and there are none.
            assert counts.checked <= 2 * FEWEST_CHECKED
        changing.cancel()

    lived(script, items=40, background=15, rows_predict=rows_predict)


def test_late_deliveries_cause_few_catch_ups() -> None:
    """A sender that is five minutes late looks like one that loses something, but only once."""
    late = repairs("none", items=200, days=HOURS, late_s=300)
    assert late.minutes == []
    assert late.calls[0] <= 15 + 200 / (4 * 60) + 1


def test_a_day_of_the_nastiest_sender() -> None:
    """Late, lossy, throttled by others, and the daemon is restarted; the calls stay bounded."""

    async def script(day: Day) -> None:
        day.source.others_per_minute = 40
        day.loses, day.late_s = 0.2, 300.0
        changing = asyncio.create_task(day.change_every(180))
        calls = day.source.calls
        for _ in range(4):
            await day.beat_for(2 * HOUR_S)
            await day.restart()
        assert (day.source.calls - calls) / (8 * 60) <= MOST_CALLS
        assert day.source.throttled <= 2 * 8
        changing.cancel()
        day.source.others_per_minute = 0
        await day.beat_for(2 * HOUR_S)
        assert await day.differences() == {}

    lived(script, items=40, background=15)
