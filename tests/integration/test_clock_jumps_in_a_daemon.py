"""A daemon whose wall clock jumps, or that is stopped and continued, as a shop sees it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, SHOPS, code_of

from syncd.core.timestamps import from_text, to_text

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from conftest import Daemon, Site

MAY_SELL = next(sql for sql in code_of(SHOPS, "sql") if "FROM freshness)" in sql)


class WallClock:
    """The wall clock of a daemon, which a test sets."""

    def __init__(self, site: Site) -> None:
        self._file = site.folder / "ahead"
        self.environ = {
            "SET_CLOCK": str(self._file),
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT / "tests" / "set_clock"), os.environ.get("PYTHONPATH", "")]
            ),
        }
        self.set(timedelta(0))

    def set(self, ahead: timedelta) -> None:
        """Let it be so far ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead.total_seconds()))
        new.rename(self._file)


@pytest.fixture
def wall(site: Site) -> WallClock:
    """Give the clock of the host on which this test's daemons run."""
    return WallClock(site)


def seen_at(site: Site) -> datetime | None:
    """Return the sign of life that a shop reads."""
    (row,) = site.rows("SELECT daemon_seen_at AS at FROM freshness")
    return None if row["at"] is None else from_text(row["at"])


def is_alive(site: Site) -> bool:
    """Return whether the last sign of life is at most a few seconds old."""
    at = seen_at(site)
    return at is not None and abs(datetime.now(UTC) - at) < timedelta(seconds=5)


def may_sell(site: Site) -> list[int]:
    """Ask the documented fail-safe about every variant."""
    ids = str(list(site.catalogue.variants))
    with closing(sqlite3.connect(f"{site.mirror.as_uri()}?mode=ro", uri=True, timeout=1)) as shop:
        return [row[0] for row in shop.execute(MAY_SELL, {"variant_ids": ids})]


def beats(site: Site, daemon: Daemon) -> None:
    """Wait until the sign of life is of now; see that the daemon is well."""
    site.until(lambda: is_alive(site), within_s=5)
    assert daemon.process.poll() is None


HASTY = {"WATCHDOG_USEC": "2000000"}


def test_a_jump_back_of_an_hour_stops_nothing(site: Site, wall: WallClock) -> None:
    """Heartbeat, freshness and verifying go on, without a loop of reads; then forward again."""
    wall.set(timedelta(hours=1))
    daemon = site.serve(environ=wall.environ | HASTY)
    assert seen_at(site) is None  # for a shop with a correct clock, the time is in the future
    assert may_sell(site) == []
    variant, *_ = site.catalogue.variants
    wall.set(timedelta(0))
    site.until(lambda: is_alive(site), within_s=5)
    first = seen_at(site)
    assert first is not None
    site.until(lambda: (seen_at(site) or first) > first, within_s=5)
    assert may_sell(site)
    assert daemon.logged("this host's clock was set; waits keep their length")
    calls = len(site.rows("SELECT 1 FROM calls"))
    event = site.change(variant, "in_stock")
    assert daemon.deliver(event) in {"applied", "unchanged"}
    site.until(lambda: site.rows("SELECT * FROM refresh_queue") == [])
    assert not site.variant(variant)["verifying"]
    assert len(site.rows("SELECT 1 FROM calls")) - calls <= 3
    daemon.kill()
    assert site.differences == 0


def test_a_daemon_killed_on_a_clock_ahead_does_not_look_alive(site: Site, wall: WallClock) -> None:
    """The shop sells nothing until the next start, which is right at once."""
    wall.set(timedelta(hours=1))
    daemon = site.serve(environ=wall.environ)
    daemon.kill()
    assert seen_at(site) is None
    assert may_sell(site) == []
    wall.set(timedelta(0))
    daemon = site.serve(filled=False, environ=wall.environ)
    assert is_alive(site)
    assert may_sell(site)
    late = to_text(datetime.now(UTC) + timedelta(seconds=5))
    assert site.rows("SELECT 1 FROM items WHERE confirmed_at > ?", late) == []
    wall.set(-timedelta(hours=3))
    site.until(lambda: not is_alive(site), within_s=5)
    wall.set(timedelta(0))
    beats(site, daemon)
    daemon.stop()


def test_a_stopped_process_reports_its_absence(site: Site, wall: WallClock) -> None:
    """SIGSTOP and SIGCONT: it reads everything again and reports no missed webhook."""
    daemon = site.serve(environ=wall.environ | HASTY | {"SET_CLOCK_AWAY_S": "2"})
    first, *others = site.catalogue.variants
    assert daemon.deliver(site.change(first, "low_stock")) == "applied"
    site.until(lambda: daemon.status()["webhooks"]["state"] == "healthy")
    daemon.process.send_signal(signal.SIGSTOP)
    for variant in others[:5]:
        site.catalogue.set_availability(variant, "made to order")
    time.sleep(3)
    daemon.process.send_signal(signal.SIGCONT)
    site.until(lambda: site.differences == 0)
    assert [line["event"] for line in daemon.logged("the daemon was down")] == [
        "the daemon was down"
    ]
    site.until(lambda: not any("The daemon was down" in one for one in daemon.status()["reasons"]))
    beats(site, daemon)
    time.sleep(1.5)  # the grace of a missed delivery, in this site
    assert daemon.status()["webhooks"]["state"] == "healthy"
    assert daemon.status()["webhooks"]["missed_24h"] == 5
    daemon.stop()


def test_a_sweep_starts_at_once_after_a_sleep_of_two_hours(site: Site, wall: WallClock) -> None:
    """Only the wall clock shows the sleep."""
    daemon = site.serve(environ=wall.environ | HASTY)
    before = len(site.rows("SELECT 1 FROM sweeps"))
    for variant in list(site.catalogue.variants)[:5]:
        site.catalogue.set_availability(variant, "out_of_stock")
    wall.set(timedelta(hours=2))
    site.until(lambda: site.differences == 0)
    assert len(site.rows("SELECT 1 FROM sweeps")) > before
    (down,) = daemon.logged("the daemon was down")
    slept = from_text(down["until"]) - from_text(down["since"])
    assert timedelta(hours=2) <= slept < timedelta(hours=2, minutes=1)
    daemon.stop()


@pytest.mark.parametrize("is_running", [True, False], ids=["while running", "at the start"])
def test_a_clock_a_year_ahead_deletes_no_history(
    site: Site, wall: WallClock, *, is_running: bool
) -> None:
    """Also with two starts in that time; retention resumes when the clock is right."""
    daemon = site.serve(environ=wall.environ | HASTY)
    for value in ("low_stock", "out_of_stock", "in_stock"):
        daemon.deliver(site.change(min(site.catalogue.variants), value))
    history = (len(site.rows("SELECT 1 FROM changes")), len(site.rows("SELECT 1 FROM deliveries")))
    if not is_running:
        daemon.stop()
    wall.set(timedelta(days=365))
    if not is_running:
        site.serve(filled=False, environ=wall.environ).stop()
        daemon = site.serve(filled=False, environ=wall.environ)
    warned = "old rows are not deleted until Dreamship's clock confirms this host's"
    if not is_running:
        site.until(lambda: daemon.logged(warned))
    else:
        site.until(lambda: daemon.logged("the daemon was down"))
        time.sleep(1)
    stored = (len(site.rows("SELECT 1 FROM changes")), len(site.rows("SELECT 1 FROM deliveries")))
    assert stored >= history
    wall.set(timedelta(0))
    site.until(lambda: is_alive(site), within_s=5)
    assert site.delivery_count >= history[1]
    daemon.stop()
