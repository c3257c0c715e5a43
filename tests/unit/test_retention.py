"""Retention deletes in slices, the oldest rows first, and never a row that is still needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulation.clock import BEGIN, Inline

from syncd.clock import Mark
from syncd.core.timestamps import to_text
from syncd.core.webhook_health import WebhookHealth, WebhooksState
from syncd.store import Database, process_state, retention
from syncd.store.process_state import Beat

DAY = timedelta(days=1)


# One rule at a time, on rows as they may lie there.


class Shelf:
    """A store whose history is written by hand; its clock stands still."""

    def __init__(self, path: Path) -> None:
        self.now = BEGIN
        self.database = Database(path, executor=Inline())
        self.database.open()
        connection = self.database._connection
        assert connection is not None
        self.db = connection

    def change(self, seq: int, age: timedelta, *, missed: bool = False) -> None:
        at = to_text(self.now - age)
        self.db.execute(
            """INSERT INTO change_log (seq, variant_id, old_sellable, sellable, cause, rule, missed,
                   during_downtime, occurred_at, recorded_at)
               VALUES (?, 1, 0, 1, 'read', '', ?, 0, ?, ?)""",
            (seq, missed, at, at),
        )

    def delivery(self, variant_id: int, age: timedelta, outcome: str = "applied") -> None:
        self.db.execute(
            """INSERT INTO deliveries (event_id, content_key, received_at, variant_id, outcome)
               VALUES (?, '', ?, ?, ?)""",
            (str(variant_id), to_text(self.now - age), variant_id, outcome),
        )

    def prune(self, deliveries: timedelta = 30 * DAY, changes: timedelta = 30 * DAY) -> list[int]:
        """Prune until nothing is left to do; return how many went in each slice."""
        prune = partial(
            retention.prune,
            deliveries_before=self.now - deliveries,
            changes_before=self.now - changes,
            now=self.now,
            missed_grace=timedelta(days=2),
        )

        async def all_of_it() -> list[int]:
            gone = [await self.database.write(prune)]
            while gone[-1]:
                gone.append(await self.database.write(prune))
            return gone

        return asyncio.run(all_of_it())

    def stored(self, sql: str) -> list[Any]:
        return [row[0] for row in self.db.execute(sql)]

    @property
    def seqs(self) -> list[Any]:
        return self.stored("SELECT seq FROM changes ORDER BY seq")


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Give an empty mirror."""
    one = Shelf(tmp_path / "availability.db")
    yield one
    one.database.close()


def test_the_newest_expired_change_stays(shelf: Shelf) -> None:
    """A reader that has read all changes finds its row, also after a long time without changes."""
    for seq, days in ((3, 50), (4, 40), (7, 31), (8, 29), (9, 1)):
        shelf.change(seq, days * DAY)
    shelf.prune()
    assert shelf.seqs == [7, 8, 9]
    shelf.now += 300 * DAY
    shelf.prune()
    assert shelf.seqs == [9]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=3000)])
def test_pruning_never_leaves_a_gap(shelf: Shelf, ahead: timedelta) -> None:
    """Also after a clock that was set back or ran ahead for a while."""
    for seq, age in ((1, 50 * DAY), (2, 20 * DAY - ahead), (3, 60 * DAY), (4, 10 * DAY)):
        shelf.change(seq, age)
    shelf.prune()
    assert shelf.seqs == ([3, 4] if ahead else [1, 2, 3, 4])


def test_a_change_within_missed_grace_stays(shelf: Shelf) -> None:
    """A late delivery may still explain it, and it counts for the webhook state of a day."""
    for seq, hours in ((1, 80), (2, 73), (3, 71), (4, 1)):
        shelf.change(seq, timedelta(hours=hours), missed=True)
    shelf.prune(changes=timedelta(hours=1))
    assert shelf.seqs == [2, 3, 4]


def test_a_delivery_that_is_still_needed_stays(shelf: Shelf) -> None:
    """Quarantined, or of a variant that is verifying or unplaced."""
    shelf.db.execute(
        """INSERT INTO variants (variant_id, conflicting_values, sellable, confirmed_at, changed_at,
               source, rule, decided_at) VALUES (1, '["in_stock"]', 0, '', '', '', '', ''),
               (2, NULL, 0, '', '', '', '', '')"""
    )
    shelf.db.execute("INSERT INTO unplaced_variants VALUES (3, '', NULL), (4, '', '')")
    for variant_id in (1, 2, 3, 4, 5):
        shelf.delivery(variant_id, 3000 * DAY)
    shelf.delivery(6, 3000 * DAY, "quarantined")
    shelf.delivery(7, timedelta(hours=23))
    shelf.prune(deliveries=timedelta(hours=1))
    assert shelf.stored("SELECT variant_id FROM deliveries ORDER BY 1") == [1, 3, 6, 7]
    shelf.db.execute("UPDATE variants SET conflicting_values = NULL")
    shelf.db.execute("UPDATE unplaced_variants SET not_found_at = ''")
    shelf.prune()
    assert shelf.stored("SELECT variant_id FROM deliveries ORDER BY 1") == [6, 7]


def test_webhook_states_stay_as_long_as_changes(shelf: Shelf) -> None:
    """The newest expired state stays: it says what came next."""

    def beat(state: WebhooksState) -> None:
        sign = Beat(Mark(shelf.now), WebhookHealth(state), None, timedelta(0), {})
        asyncio.run(shelf.database.write(lambda db: process_state.beat(db, sign)))

    def stored() -> list[Any]:
        return shelf.stored("SELECT state FROM webhook_states ORDER BY change_id")

    states: list[WebhooksState] = ["unknown", "healthy", "silent", "healthy", "failing"]
    for state in states:
        beat(state)
        shelf.now += 10 * DAY
        beat(state)
    assert stored() == states
    shelf.prune(changes=25 * DAY)
    assert stored() == ["silent", "healthy", "failing"]
    shelf.now += 3000 * DAY
    shelf.prune()
    assert stored() == ["failing"]
    beat("failing")
    assert stored() == ["failing"]


def test_pruning_works_in_slices(shelf: Shelf) -> None:
    """No transaction deletes more than a slice of each table; the last one finds nothing."""
    shelf.db.execute("BEGIN")
    for seq in range(1, 2 * retention.SLICE + 12):
        shelf.change(seq, 50 * DAY)
        shelf.delivery(seq, 50 * DAY)
    shelf.db.execute("COMMIT")
    assert shelf.prune() == [2 * retention.SLICE, 2 * retention.SLICE, 20, 0]
    assert shelf.seqs == [2 * retention.SLICE + 11]
