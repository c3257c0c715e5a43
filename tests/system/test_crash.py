"""Kills at random moments under load: each answered delivery is stored once, undamaged.

`SYNCD_KILLS=60` kills more often; by hand: `python tests/load/crash.py --kills 60`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from load.checks import Follower, problems
from load.crash import crash
from load.report import Report
from load.station import Station, sending

KILLS = int(os.environ.get("SYNCD_KILLS", "5"))


def test_answered_deliveries_survive_every_kill(tmp_path: Path) -> None:
    """Each is stored once, its value or a later one is mirrored, the feed has no gap."""
    done = crash(tmp_path, kills=KILLS, seed=KILLS)
    assert done.problems == []
    assert done.report.statuses.keys() <= {"200", "503"}
    # The sender was at work, and the kills interrupted it.
    assert len(done.report.accepted) > 20 * KILLS
    assert done.report.refused + done.report.reset + done.report.raced > KILLS


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM deliveries WHERE delivery_id = 7", "is stored 0 times"),
        (
            "UPDATE variants SET value = 'x' WHERE variant_id = 1000001",
            "the mirror has 'x'",
        ),
        ("DELETE FROM change_log WHERE seq = 5", "a row has changed or is gone"),
        (
            """INSERT INTO change_log SELECT 9999, previous_seq, variant_id, item_id, 'x',
                   availability, old_sellable, sellable, cause, rule, 0, 0, occurred_at, recorded_at
               FROM change_log WHERE seq = 5""",
            "was applied to",
        ),
    ],
)
def test_the_checks_detect_damage(
    sound: tuple[Path, Report], tmp_path: Path, damage: str, problem: str
) -> None:
    """A lost delivery, a wrong value, a gap and a doubled change."""
    mirror, report = tmp_path / "availability.db", sound[1]
    with (
        closing(sqlite3.connect(sound[0])) as source,
        closing(sqlite3.connect(mirror, isolation_level=None)) as copy,
    ):
        source.backup(copy)
        follower = Follower(mirror)
        assert follower.follow() + problems(mirror, report) == []
        copy.execute(damage)
    assert any(problem in error for error in follower.follow() + problems(mirror, report))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """Give a mirror that took some load, and the report about it."""
    station = Station(tmp_path_factory.mktemp("sound"))
    station.start()
    try:
        station.wait_ready()
        with sending(station, "--variants=8", "--per-second=200") as sender:
            time.sleep(0.5)
            report = sender.finish()
        station.stop()
    finally:
        station.kill()
    return station.mirror, report
