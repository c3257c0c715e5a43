"""The clock of a process never steps back between two checks, and reports what happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd import clock
from syncd.clock import HostClock, Mark, SteadyClock
from syncd.core.clock_jump import AWAY_AFTER, RECENT, Jump

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


class Host:
    """A host whose clocks a test moves."""

    def __init__(self, boot_id: str = "first") -> None:
        self.boot_id = boot_id
        self.at = BEGIN
        self.passed_s = 1000.0
        self.stops: list[float] = []

    def wall(self) -> datetime:
        """See RawClock; the process may be stopped just before it reads."""
        if self.stops:
            self.run(self.stops.pop())
        return self.at

    def elapsed_s(self) -> float:
        """See RawClock."""
        return self.passed_s

    def run(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.passed_s += seconds
        self.at += timedelta(seconds=seconds)


def test_the_clock_follows_the_host() -> None:
    """It reports nothing while wall clock and elapsed time agree."""
    host = Host()
    steady = SteadyClock(host)
    for _ in range(100):
        host.run(1)
        assert steady.check() is None
        assert steady.now() == host.at


@pytest.mark.parametrize("by", [-HOUR, -3 * SECOND, 3 * SECOND, HOUR], ids=str)
def test_a_jump_takes_effect_at_the_next_check(by: timedelta) -> None:
    """It is reported once; from then on the time is the host's."""
    host, followed = Host(), list[Jump]()
    steady = SteadyClock(host)
    steady.follow(followed.append)
    host.at += by
    host.run(0.5)
    assert steady.now() == BEGIN + SECOND / 2
    jump = steady.check()
    assert jump is not None
    assert [jump] == followed
    assert (jump.before, jump.after) == (BEGIN + SECOND / 2, host.at)
    assert (jump.shift, jump.is_set_back) == (by, by < timedelta(0))
    assert jump.is_absence == jump.needs_confirmation == (by == HOUR)
    assert steady.now() == host.at
    assert steady.check() is None


@pytest.mark.parametrize("off_s", [-0.9, -0.2, 0.2, 0.9])
def test_a_small_offset_is_corrected_gradually(off_s: float) -> None:
    """As with NTP: no step, at most a tenth faster or slower, and never past the target."""
    host = Host()
    steady = SteadyClock(host)
    host.at += timedelta(seconds=off_s)
    before = steady.now()
    for step_s in [0.1] * 20 + [5.0, 30.0, 1.0]:
        host.run(step_s)
        assert steady.check() is None
        passed_s = (steady.now() - before).total_seconds()
        assert 0.899 * step_s <= passed_s <= 1.101 * step_s
        before = steady.now()
    host.run(20)
    assert abs(steady.now() - host.at) < timedelta(milliseconds=1)


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 100), st.floats(-1e7, 1e7) | st.floats(-2, 2), st.booleans()),
        max_size=20,
    )
)
def test_time_never_goes_backwards_without_a_reported_jump(
    steps: list[tuple[float, float, bool]],
) -> None:
    """With any changes of the wall clock, and at any time of the check."""
    host, followed = Host(), list[Jump]()
    steady = SteadyClock(host)
    steady.follow(followed.append)
    before = steady.now()
    for passed_s, by_s, is_checked in steps:
        host.run(passed_s)
        host.at += timedelta(seconds=by_s)
        jump = steady.check() if is_checked else None
        now = steady.now()
        assert now >= (before if jump is None else jump.event(before))
        before = now


@pytest.mark.parametrize("gap_s", [59, 61, 7200])
def test_a_suspended_process_reports_an_absence(gap_s: int) -> None:
    """A suspended machine, a stopped process, a starved host: elapsed time went on."""
    host = Host()
    steady = SteadyClock(host)
    host.run(gap_s)
    jump = steady.check()
    if gap_s == 59:
        assert jump is None
        return
    assert jump is not None
    assert (jump.is_absence, jump.shift, jump.needs_confirmation) == (True, timedelta(0), False)
    assert (jump.since, jump.after, jump.away.total_seconds()) == (BEGIN, host.at, gap_s)


def test_a_paused_virtual_machine_reports_an_absence() -> None:
    """Its elapsed time stood still; its wall clock shows the length of the pause."""
    host = Host()
    steady = SteadyClock(host)
    host.run(1)
    host.at += 2 * HOUR
    jump = steady.check()
    assert jump is not None
    assert (jump.is_absence, jump.since) == (True, BEGIN)
    assert jump.away == 2 * HOUR + SECOND


def test_an_absence_and_a_jump_back_are_reported_together() -> None:
    """The absence is as long as the elapsed time, and does not end in the future."""
    host = Host()
    steady = SteadyClock(host)
    host.run(120)
    host.at -= HOUR
    jump = steady.check()
    assert jump is not None
    assert jump.is_set_back
    assert jump.away == timedelta(seconds=120)
    assert jump.since <= jump.after == steady.now()


def test_a_pause_between_reading_both_clocks_is_no_jump() -> None:
    """Both clocks are read again until both readings belong to the same instant."""
    host = Host()
    steady = SteadyClock(host)
    host.stops = [30.0]
    assert steady.check() is None
    assert steady.now() == host.at


@given(
    moments=st.lists(st.integers(-(10**9), 10**9), min_size=2),
    shift_s=st.integers(-(10**9), 10**9),
)
def test_moved_timestamps_stay_in_order(moments: list[int], shift_s: int) -> None:
    """No past timestamp lies in the future, and the age of a recent one stays the same."""
    jump = Jump(BEGIN, BEGIN + timedelta(seconds=shift_s), BEGIN)
    ordered = [BEGIN + timedelta(seconds=s) for s in sorted(moments)]
    for move in (jump.timer, jump.event):
        assert all(one <= other for one, other in pairwise(map(move, ordered)))
    for moment in ordered:
        if moment <= BEGIN:
            assert jump.event(moment) <= max(jump.after, BEGIN)
        if moment > BEGIN - RECENT:
            assert jump.after - jump.timer(moment) == BEGIN - moment


# --- from one process to the next ----------------------------------------------------------------


def lived(host: Host) -> Mark:
    """Return the last sign of life of a process that ended on this host."""
    return SteadyClock(host).mark()


@pytest.mark.parametrize("by", [-DAY, timedelta(0), 365 * DAY], ids=str)
@pytest.mark.parametrize("down_s", [5, 3600])
def test_a_jump_between_two_runs_of_one_boot_is_measured_exactly(
    by: timedelta, down_s: int
) -> None:
    """Within one boot, elapsed time says how long the process was down."""
    host = Host()
    mark = lived(host)
    host.run(down_s)
    host.at += by
    steady = SteadyClock(host)
    jump = steady.resume(mark, mark.at)
    assert steady.now() == host.at
    if down_s == 5 and not by:
        assert jump is None
        return
    assert jump is not None
    assert jump.shift == by
    assert jump.is_absence == (down_s > AWAY_AFTER.total_seconds() or by > AWAY_AFTER)
    assert jump.needs_confirmation == (by > AWAY_AFTER)


@pytest.mark.parametrize(
    ("wall", "is_reported", "needs_confirmation"),
    [
        (-HOUR, True, False),
        (5 * SECOND, False, False),
        (HOUR, True, False),
        (DAY, True, True),
        (365 * DAY, True, True),
    ],
    ids=str,
)
def test_after_a_reboot_only_the_wall_clock_counts(
    wall: timedelta, is_reported: bool, needs_confirmation: bool
) -> None:
    """Set back: the length is unknown. Far ahead: it may be wrong."""
    mark = lived(Host("first"))
    host = Host("second")
    host.passed_s, host.at = 5.0, BEGIN + wall
    jump = SteadyClock(host).resume(mark, mark.at)
    assert (jump is not None) == is_reported
    if jump is not None:
        assert jump.is_absence
        assert jump.needs_confirmation == needs_confirmation
        assert jump.after == host.at
        assert jump.since <= jump.after


def test_timestamps_without_a_heartbeat_do_not_stay_in_the_future() -> None:
    """`reconcile-now` leaves such timestamps without a daemon, on a clock that was ahead."""
    jump = SteadyClock(Host()).resume(None, BEGIN + HOUR)
    assert jump is not None
    assert jump.event(BEGIN + HOUR) == BEGIN
    assert SteadyClock(Host()).resume(None, BEGIN - HOUR) is None


def test_a_faked_elapsed_time_belongs_to_no_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a time namespace or under faketime, marks of two processes are not comparable."""
    assert HostClock().boot_id
    monkeypatch.setattr(clock, "_UPTIME", tmp_path / "uptime")
    assert HostClock().boot_id == ""
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    assert HostClock().boot_id == ""
    unknown = Host("")
    assert SteadyClock(unknown).resume(lived(unknown), BEGIN) is None
    unknown.at += HOUR
    jump = SteadyClock(unknown).resume(Mark(BEGIN), BEGIN)
    assert jump is not None
    assert not jump.is_same_boot
