"""After a jump of the wall clock, mirror, budget and schedule wait as long as before."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from apscheduler.job import Job
from documents import SHOPS, code_of
from schemas.dump import FOLDER
from simulation.clock import BEGIN
from simulation.days import Day, lived

from syncd.core.clock_jump import Jump
from syncd.core.schedule import LONGEST_JITTER, TASKS, Schedule, SweepPeriods
from syncd.core.timestamps import from_text, to_text
from syncd.daemon.scheduler import _Planned
from syncd.errors import MirrorUnavailable
from syncd.store import Database, process_state, wall_time
from syncd.store.process_state import SavedState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
JUMPS = [-365 * DAY, -HOUR, -30 * SECOND, 30 * SECOND, HOUR, 365 * DAY]
# By Dreamship's clock, of the feed's own position, or not a moment.
NOT_OURS = {
    ("change_log", "occurred_at"),
    ("change_log", "recorded_at"),
    ("deliveries", "event_at"),
    ("items", "read_at"),
    ("variants", "event_at"),
}


def jumped(by: timedelta, *, at: datetime = BEGIN) -> Jump:
    """Return a jump that was noticed within a second."""
    return Jump(at, at + by, at - SECOND)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """Give the tables of a mirror of this test's own."""
    from syncd.store.migrations import migrate  # noqa: PLC0415

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


def test_every_timestamp_column_is_moved_or_named_as_fixed(db: sqlite3.Connection) -> None:
    """A new column must be declared as a deadline, a record, or a time of another clock."""
    columns = db.execute(
        """SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
           WHERE m.type = 'table' AND m.name NOT LIKE '!_%' ESCAPE '!'"""
    ).fetchall()
    moments = {one for one in columns if re.search(r"(^|_)(at|before|hour|since|until)$", one[1])}
    known = {
        (table, column)
        for table, names in (*wall_time._TIMERS, *wall_time._EVENTS)
        for column in names
    }
    assert moments == known | NOT_OURS | {("counts", "hour")}


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_deadlines_in_the_mirror_move_with_the_clock(db: sqlite3.Connection, by: timedelta) -> None:
    """A settling delivery, a back-off, a pause, and the calls of the last minute."""
    ago, ahead = to_text(BEGIN - 20 * SECOND), to_text(BEGIN + 40 * SECOND)
    db.execute("INSERT INTO refresh_queue VALUES (1, ?, ?, ?)", (ago, ahead, ahead))
    db.execute("INSERT INTO items (item_id, not_before) VALUES (1, ?)", (ahead,))
    db.execute(
        """INSERT INTO variants (variant_id, delivered_at, sellable, confirmed_at, changed_at,
               source, rule, decided_at) VALUES (1, ?1, 0, ?1, ?1, '', '', ?1)""",
        (ago,),
    )
    db.execute("INSERT INTO unplaced_variants VALUES (2, ?, NULL)", (ago,))
    db.execute("INSERT INTO calls (at) VALUES (?)", (ago,))
    db.execute("INSERT INTO state VALUES ('paused_until', ?)", (ahead,))
    wall_time.follow(db, jumped(by), timedelta(minutes=10))
    then, later = to_text(BEGIN + by - 20 * SECOND), to_text(BEGIN + by + 40 * SECOND)
    assert db.execute("SELECT urgent_at, settle_at, final_at FROM refresh_queue").fetchall() == [
        (then, later, later)
    ]
    assert db.execute("SELECT not_before FROM items").fetchall() == [(later,)]
    assert db.execute("SELECT delivered_at FROM variants").fetchall() == [(then,)]
    assert db.execute("SELECT delivered_at FROM unplaced_variants").fetchall() == [(then,)]
    assert db.execute("SELECT at FROM calls").fetchall() == [(then,)]
    assert db.execute("SELECT value FROM state WHERE key = 'paused_until'").fetchall() == [(later,)]
    found = then if by < timedelta(0) else ago
    assert db.execute("SELECT confirmed_at, changed_at FROM variants").fetchall() == [
        (found, found)
    ]


def test_a_clock_that_jumps_back_and_forth_delays_nothing(db: sqlite3.Connection) -> None:
    """Some virtual machines jump by 11 s every few seconds; each wait ends all the same."""
    db.execute(
        "INSERT INTO refresh_queue VALUES (1, NULL, ?1, ?1)", (to_text(BEGIN + 60 * SECOND),)
    )
    now = BEGIN
    for n in range(20):
        jump = jumped((11 if n % 2 else -11) * SECOND, at=now)
        wall_time.follow(db, jump, timedelta())
        now = jump.after + SECOND
    assert db.execute("SELECT settle_at FROM refresh_queue").fetchall() == [
        (to_text(now + 40 * SECOND),)
    ]


@pytest.mark.parametrize("by", [-365 * DAY, -HOUR], ids=str)
def test_no_record_stays_in_the_future_after_a_jump_back(
    db: sqlite3.Connection, by: timedelta
) -> None:
    """Sweeps, deliveries, webhook state, counts, and the `freshness` view."""
    found = to_text(BEGIN - SECOND)
    db.execute(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result)
           VALUES ('start', 1, ?1, ?1, 'complete')""",
        (found,),
    )
    db.execute(
        """INSERT INTO deliveries (event_id, content_key, received_at, variant_id, outcome)
           VALUES ('1', '', ?, 1, 'applied')""",
        (found,),
    )
    db.execute("INSERT INTO webhook_states (state, began_at) VALUES ('silent', ?)", (found,))
    db.execute(
        "INSERT INTO counts VALUES ('throttled', ?, 3), ('throttled', ?, 4)",
        (to_text(BEGIN), to_text(BEGIN + by)),
    )
    for key in ("daemon_seen_at", "accepting_since", "last_delivery_at"):
        db.execute("INSERT INTO state VALUES (?, ?)", (key, found))
    db.execute(
        "INSERT INTO state VALUES ('webhooks', ?)", (f'{{"state": "silent", "since": "{found}"}}',)
    )
    db.execute(
        """INSERT INTO change_log (variant_id, old_sellable, sellable, cause, rule, missed,
               during_downtime, occurred_at, recorded_at)
           VALUES (1, 0, 1, 'read', '', 1, 0, ?1, ?1)""",
        (found,),
    )
    wall_time.follow(db, jumped(by), timedelta())
    then, now = to_text(BEGIN + by - SECOND), to_text(BEGIN + by)
    assert db.execute("SELECT began_at, ended_at FROM sweeps").fetchall() == [(then, then)]
    assert db.execute("SELECT received_at FROM deliveries").fetchall() == [(then,)]
    assert db.execute("SELECT began_at FROM webhook_states").fetchall() == [(then,)]
    assert db.execute("SELECT hour, n FROM counts").fetchall() == [(now, 7)]
    state = dict(db.execute("SELECT key, value FROM state").fetchall())
    assert {state[key] for key in ("daemon_seen_at", "accepting_since", "last_delivery_at")} == {
        then
    }
    assert then[:19] in state["webhooks"]
    # The feed does not move; but this is no missed delivery when the clock reaches that day.
    assert db.execute("SELECT recorded_at, during_downtime FROM change_log").fetchall() == [
        (found, 1)
    ]


def test_an_absence_excuses_changes_found_shortly_before_it(db: sqlite3.Connection) -> None:
    """The delivery of such a change may have been on its way."""
    for minutes in (5, 15):
        at = to_text(BEGIN - timedelta(minutes=minutes))
        db.execute(
            """INSERT INTO change_log (variant_id, old_sellable, sellable, cause, rule, missed,
                   during_downtime, occurred_at, recorded_at)
               VALUES (?1, 0, 1, 'read', '', 1, 0, ?2, ?2)""",
            (minutes, at),
        )
    slept = Jump(BEGIN + HOUR, BEGIN + HOUR, BEGIN)
    wall_time.follow(db, slept, timedelta(minutes=10))
    assert dict(db.execute("SELECT variant_id, during_downtime FROM change_log").fetchall()) == {
        5: 1,
        15: 0,
    }
    received = db.execute("SELECT value FROM state WHERE key = 'accepting_since'").fetchone()
    assert received == (to_text(BEGIN + HOUR),)


# --- what a shop reads ---------------------------------------------------------------------------


def ahead(seconds: int) -> str:
    """Return a moment that much in the future of this host."""
    return to_text(datetime.now(UTC) + timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "is_shown"), [(-1, True), (50, True), (90, False)])
def test_freshness_shows_no_future_timestamp(
    db: sqlite3.Connection, seconds: int, is_shown: bool
) -> None:
    """A daemon that was killed on a clock ahead of time must not seem to work."""
    at = ahead(seconds)
    db.execute("INSERT INTO state VALUES ('daemon_seen_at', ?1), ('last_delivery_at', ?1)", (at,))
    db.execute(
        """INSERT INTO sweeps (cause, is_catalogue, began_at, ended_at, result)
           VALUES ('start', 1, ?1, ?1, 'complete')""",
        (at,),
    )
    db.execute(
        """INSERT INTO variants (variant_id, value, sellable, confirmed_at, changed_at, source,
               rule, decided_at) VALUES (1, '', 0, ?1, ?1, '', '', ?1)""",
        (at,),
    )
    shown = db.execute(
        """SELECT last_delivery_at, last_sweep_finished_at, oldest_confirmed_at, daemon_seen_at
           FROM freshness"""
    ).fetchone()
    assert shown == ((at,) * 4 if is_shown else (None,) * 4)


def test_the_documented_queries_ignore_future_timestamps(tmp_path: Path) -> None:
    """Also on a mirror of version 0.1.0, whose view shows every timestamp."""
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as old:
        old.executescript((FOLDER / "0.1.0.sql").read_text())
        old.execute("UPDATE items SET confirmed_at = ?", (ahead(-1),))
        old.execute("UPDATE variants SET sellable = 1, doubts = NULL, absent_at = NULL")
        old.execute("INSERT OR REPLACE INTO state VALUES ('daemon_seen_at', ?)", (ahead(-1),))
        is_fresh, may_sell = (
            next(sql for sql in code_of(SHOPS, "sql") if sign in sql)
            for sign in ("AS is_fresh", "FROM freshness)")
        )
        ids = {
            "variant_ids": old.execute(
                "SELECT '[' || min(variant_id) || ']' FROM variants"
            ).fetchone()[0]
        }
        assert old.execute(is_fresh).fetchall() == [(1,)]
        assert len(old.execute(may_sell, ids).fetchall()) == 1
        for seconds in (-301, 3600):
            old.execute(
                "UPDATE state SET value = ? WHERE key = 'daemon_seen_at'", (ahead(seconds),)
            )
            assert old.execute(is_fresh).fetchall() == [(0,)]
            assert old.execute(may_sell, ids).fetchall() == []


# --- a whole daemon, in virtual time -------------------------------------------------------------


def day(script: Callable[[Day], Awaitable[Any]], items: int = 20) -> None:
    lived(script, items=items)


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_verifying_ends_after_as_many_reads_as_without_a_jump(by: timedelta) -> None:
    """One unsettled read, one settled read, and the sweep after the absence."""

    async def script(day: Day) -> None:
        day.is_delivering = True
        variant_id = 11
        body = day._body(variant_id, "out_of_stock").replace(b'"2026', b'"2016')
        outcome = await day.services.batch_writer.submit(_parsed(day, body))
        assert outcome == "verifying"
        calls = day.source.calls
        day.host.offset += by
        await asyncio.sleep(0.5)
        await day.heartbeat.beat()
        await day.beat_for(150)
        if day.services.is_resuming:
            calls += 21  # this script has no sweep
        assert day.source.calls - calls <= 3
        reports = day.status_service._query_runner._queries
        (row,) = reports.availability([variant_id])
        assert (row["verifying"], row["sellable"]) == (0, 1)
        assert reports.freshness()["daemon_seen_at"] is not None or by > timedelta(0)

    day(script)


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_a_429_pause_stays_as_long(by: timedelta) -> None:
    """In memory, on disk, and for a daemon that starts during the pause."""

    async def script(day: Day) -> None:
        budget = day.services.rate_limiter
        await budget.throttled(100.0, for_sweep=False)
        await asyncio.sleep(10)
        day.host.offset += by
        await day.services.check_clock()
        assert budget.wait_s(urgent=True) == pytest.approx(90, abs=0.1)
        saved = await _restored(day)
        assert saved.paused_until is not None
        left = saved.paused_until - day.clock.now()
        assert left.total_seconds() == pytest.approx(90, abs=0.1)

    day(script)


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_the_slowdown_after_a_429_stays_as_long(by: timedelta) -> None:
    """In memory, on disk, and for a daemon that starts during the slowdown."""

    async def script(day: Day) -> None:
        await day.services.rate_limiter.throttled(10.0, for_sweep=False)
        await asyncio.sleep(600)
        slowed = day.services.rate_limiter.background_rate
        assert slowed == pytest.approx(3 * 2 ** (1 / 3), rel=0.01)
        day.host.offset += by
        await day.services.check_clock()
        assert day.services.rate_limiter.background_rate == pytest.approx(slowed, rel=0.01)
        await day.restart()
        assert day.services.rate_limiter.background_rate == pytest.approx(slowed, rel=0.01)

    lived(script, items=5, background=15)


@pytest.mark.parametrize("by", [-HOUR, HOUR], ids=str)
def test_the_estimate_of_dreamships_clock_does_not_jump(by: timedelta) -> None:
    """Else each honest delivery would lie in the future, or any timestamp would count."""

    async def script(day: Day) -> None:
        before = day.services.remote_clock.now()
        day.host.offset += by
        await day.services.check_clock()
        assert abs(day.services.remote_clock.now() - before) < SECOND
        assert (
            await day.services.batch_writer.submit(_parsed(day, day._body(11, "low_stock")))
            == "applied"
        )

    day(script)


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_an_unwritable_mirror_is_moved_by_its_first_transaction(by: timedelta) -> None:
    """Memory moves at once, the mirror as soon as its disk accepts a write."""

    async def script(day: Day) -> None:
        await day.services.batch_writer.submit(_parsed(day, day._body(11, "low_stock")))
        await day.heartbeat.beat()
        database = day.services.database

        def refuse() -> None:
            raise MirrorUnavailable("no space is left on the disk")

        sound, database._require_same_files = database._require_same_files, refuse  # type: ignore[method-assign]
        day.host.offset += by
        await asyncio.sleep(1)
        with pytest.raises(MirrorUnavailable):
            await day.services.check_clock()
        assert day.clock.now() == day.host.wall()
        await asyncio.sleep(5)
        database._require_same_files = sound  # type: ignore[method-assign]
        await day.services.batch_writer.submit(_parsed(day, day._body(21, "low_stock")))
        requested = await database.read(
            lambda db: db.execute(
                "SELECT item_id, settle_at FROM refresh_queue ORDER BY item_id"
            ).fetchall()
        )
        now = day.clock.now()
        assert [
            (item_id, round((from_text(at) - now).total_seconds())) for item_id, at in requested
        ] == [
            (1, 54),
            (2, 60),
        ]
        await day.beat_for(120)
        assert day.status_service._query_runner._queries.availability([11])[0]["verifying"] == 0

    day(script)


def test_a_failed_move_fails_one_transaction_only(database: Database) -> None:
    """The next deliveries are accepted after any failure."""

    async def script() -> None:
        jump = jumped(-HOUR)
        with mock.patch("syncd.store.wall_time.follow", side_effect=KeyError("odd")):
            with pytest.raises(KeyError):
                await database.write_first(lambda db: wall_time.follow(db, jump, HOUR))
            await database.write(process_state.trust_clock)

    asyncio.run(script())


def test_webhook_silence_ends_with_a_delivery_after_a_jump_back() -> None:
    """Its start lies in the future then, later than every delivery."""

    async def script(day: Day) -> None:
        changing = asyncio.create_task(day.change_every(60))
        await day.beat_for(3600)
        day.is_delivering = False
        await day.until("silent")
        day.host.offset -= 6 * HOUR
        await day.beat_for(60)
        day.is_delivering = True
        await day.beat_for(300)
        changing.cancel()
        assert (await day.status_service.status()).webhooks.state != "silent"

    day(script)


def test_a_suspended_machine_reports_no_missed_webhook() -> None:
    """The status shows the downtime, and a sweep reads all items."""

    async def script(day: Day) -> None:
        await day.services.batch_writer.submit(_parsed(day, day._body(11, "low_stock")))
        await day.beat_for(120)
        for item in range(1, 6):
            day.source.values[item * 10] = "out_of_stock"  # its delivery is lost
        await asyncio.sleep(7200)  # no beat, no check
        await day.services.check_clock()
        assert day.services.is_resuming
        assert day.services.down is not None
        assert day.services.down[1] - day.services.down[0] > 2 * HOUR - 26 * SECOND
        await day.schedule.resume()
        await day.beat_for(900)
        status = await day.status_service.status()
        assert status.webhooks.state in {"unknown", "healthy"}
        assert status.mirror.sellable < status.mirror.variants
        reasons = " ".join(status.reasons)
        assert "The daemon was down" not in reasons
        assert "no delivery reported" not in reasons

    day(script)


def planned(day: Day, *, complete_at: datetime | None = None) -> Any:
    """Plan the tasks of a day as its scheduler does, and run none of them."""
    scheduler, schedule = day.schedule._scheduler, day.schedule._schedule
    schedule.start(day.clock.now(), complete_at=complete_at, failures=0)
    for task in TASKS:
        trigger = _Planned(schedule, task)
        scheduler.add_job(print, trigger, id=task, next_run_time=schedule.next_at(task))
    scheduler.start(paused=True)
    return scheduler


# --- jobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", JUMPS, ids=str)
def test_scheduled_jobs_move_with_the_clock(by: timedelta) -> None:
    """No job waits longer than its period or runs before its time."""

    async def script(day: Day) -> None:
        now = day.clock.now()
        scheduler = planned(day, complete_at=now - 5 * HOUR)
        day.schedule.follow(Jump(now, now + by, now))
        job = scheduler.get_job("sweep")
        assert job.next_run_time == now + by + HOUR
        # APScheduler may plan a run by the new wall clock before the jump is noticed.
        job.modify(next_run_time=job.trigger.get_next_fire_time(None, now + by))
        day.schedule.follow(Jump(now, now + by, now))
        latest = now + by + 6 * HOUR + LONGEST_JITTER
        assert now + by <= scheduler.get_job("sweep").next_run_time <= latest or by < timedelta(0)
        scheduler.shutdown(wait=False)

    day(script)


def test_a_clock_a_thousand_years_ahead_takes_no_memory() -> None:
    """The scheduler does not enumerate the missed runs."""

    class Scheduler:
        timezone = UTC

    job = Job.__new__(Job)
    schedule = Schedule(SweepPeriods(HOUR, HOUR), lambda: 0.5)
    schedule.start(BEGIN, complete_at=None, failures=0)
    job.trigger, job.next_run_time = _Planned(schedule, "locate"), BEGIN
    assert job._get_run_times(BEGIN.replace(year=3026)) == [BEGIN]


# --- retention -----------------------------------------------------------------------------------


def test_a_clock_ahead_of_dreamship_deletes_nothing() -> None:
    """Retention waits until Dreamship's clock agrees, also after a restart."""

    async def script(day: Day) -> None:
        pruned = []

        def prune(*_: Any, **__: Any) -> int:
            pruned.append(day.clock.now())
            return 0

        planned(day)
        with mock.patch("syncd.store.retention.prune", prune):
            await day.schedule._prune()
            assert len(pruned) == 1
            day.clock.follow(day.schedule.follow)
            day.host.offset += 365 * DAY
            await day.services.check_clock()
            for _ in range(10):
                await day.schedule._prune()
            assert (await _restored(day)).is_clock_suspect
            # What Dreamship says now is that this host is a year ahead.
            await day.sweep()
            await day.schedule._prune()
            assert len(pruned) == 1
            day.host.offset -= 365 * DAY
            await day.services.check_clock()
            await day.schedule._prune()
            assert len(pruned) == 2
            assert not (await _restored(day)).is_clock_suspect
        day.schedule._scheduler.shutdown(wait=False)

    day(script)


def test_an_unconfirmed_clock_is_trusted_after_a_day() -> None:
    """While Dreamship is unreachable; a restart starts the day again."""

    async def script(day: Day) -> None:
        planned(day)
        day.clock.follow(day.schedule.follow)
        day.host.offset += HOUR
        await day.services.check_clock()
        assert not await day.schedule._trusts_clock()
        day.services.remote_clock.offset = timedelta()  # no answer of Dreamship since then
        await asyncio.sleep(23 * 3600)
        assert not await day.schedule._trusts_clock()
        await asyncio.sleep(2 * 3600)
        assert await day.schedule._trusts_clock()
        day.schedule._scheduler.shutdown(wait=False)

    day(script)


async def _restored(day: Day) -> SavedState:
    now = day.clock.now()
    return await day.services.database.read(lambda db: process_state.restore(db, now))


def _parsed(day: Day, body: bytes) -> Any:
    from syncd.core.payload import parse  # noqa: PLC0415

    return parse(body, day.clock.now())
