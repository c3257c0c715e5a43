"""The heartbeat writes news at once, and otherwise as rarely as the contract allows."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from unittest import mock

import pytest
from simulation.days import Day, lived

from syncd.core.model import Page
from syncd.core.timestamps import from_text
from syncd.daemon.heartbeat import HEARTBEAT_S
from syncd.errors import MirrorUnavailable, SourceUnreachable
from syncd.store.rows import get_state

# The largest age of `freshness.daemon_seen_at` by the contract.
OLDEST_ROW = timedelta(seconds=60)
MINUTES = 10
ITEMS = 3


async def seen_at(day: Day) -> datetime:
    """Return the sign of life in the mirror."""
    text = await day.services.database.read(lambda db: get_state(db, "daemon_seen_at"))
    assert text is not None
    return from_text(text)


async def at_rest(day: Day) -> int:
    """Beat twice; return the number of commits. After that, a beat has no news."""
    await day.heartbeat.beat()
    await day.beat_for(5 * HEARTBEAT_S)
    await day.heartbeat.beat()
    return day.services.database.commits


def test_a_daemon_at_rest_commits_rarely_and_always_looks_alive() -> None:
    """At most every second heartbeat commits, and the row is never a minute old."""

    async def script(day: Day) -> tuple[int, timedelta]:
        before, oldest = await at_rest(day), timedelta(0)
        beating = asyncio.create_task(day.beat_for(MINUTES * 60))
        while not beating.done():
            oldest = max(oldest, day.clock.now() - await seen_at(day))
            await asyncio.sleep(1)
        return day.services.database.commits - before, oldest

    commits, oldest = lived(script, items=ITEMS)
    assert commits <= MINUTES * 60 / (2 * HEARTBEAT_S) + 1
    assert oldest < OLDEST_ROW - timedelta(seconds=5)


def test_an_outage_of_dreamship_commits_rarely() -> None:
    """An attempt that shows only that the outage lasts is written with the next heartbeat."""

    async def script(day: Day) -> tuple[int, int]:
        async def fail(*_: object) -> Page:
            raise SourceUnreachable("no route to host")

        await at_rest(day)
        day.services.fetcher.failures.chance = lambda: 0.5
        with (
            mock.patch.object(day.source, "item", fail),
            mock.patch.object(day.source, "page", fail),
        ):
            await day.beat_for(MINUTES * 60)
            begun = await sweeps_begun(day)
            calls, before = day.services.rate_limiter.calls, day.services.database.commits
            await day.beat_for(MINUTES * 60)
        # Each sweep has a begin and an end.
        sweeps = 2 * (await sweeps_begun(day) - begun)
        assert day.services.rate_limiter.calls > calls
        return day.services.database.commits - before, sweeps

    commits, sweeps = lived(script, items=ITEMS, background=15)
    assert commits <= MINUTES * 60 / (2 * HEARTBEAT_S) + sweeps + 1


async def sweeps_begun(day: Day) -> int:
    """Return how many sweeps have begun."""
    (row,) = await day.services.database.read(
        lambda db: db.execute("SELECT count(*) FROM sweeps").fetchall()
    )
    return int(row[0])


def test_a_late_heartbeat_writes_the_row() -> None:
    """The next one would come too late."""

    async def script(day: Day) -> None:
        await at_rest(day)
        for _ in range(2):  # one of two heartbeats writes the row
            await asyncio.sleep(HEARTBEAT_S)
            await day.heartbeat.beat()
            if day.clock.now() - await seen_at(day) < timedelta(seconds=1):
                break
        await asyncio.sleep(1.4 * HEARTBEAT_S)
        await day.heartbeat.beat()
        assert day.clock.now() - await seen_at(day) < timedelta(seconds=1)

    lived(script, items=ITEMS)


def forge(day: Day) -> None:
    day.webhook.answered["401"] += 1


def set_the_clock(day: Day) -> None:
    day.host.offset += timedelta(hours=1)


def move_dreamships_clock(day: Day) -> None:
    day.services.remote_clock.offset += timedelta(seconds=5)


def fail_a_delivery(day: Day) -> None:
    day.webhook.write_error = MirrorUnavailable("no space is left on the disk", hint="free some")


@pytest.mark.parametrize("news", [forge, set_the_clock, move_dreamships_clock, fail_a_delivery])
def test_news_are_written_by_the_next_heartbeat(news: Callable[[Day], None]) -> None:
    """A count, a jump of a clock, or a write that failed: the row is written at once."""

    async def script(day: Day) -> None:
        await at_rest(day)
        for _ in range(2):  # one of two heartbeats would write without news
            await asyncio.sleep(1)
            news(day)
            await day.heartbeat.beat()
            assert day.clock.now() - await seen_at(day) < timedelta(seconds=1)
        assert day.webhook.write_error is None

    lived(script, items=ITEMS)


@contextlib.contextmanager
def replaced(day: Day) -> Iterator[None]:
    """Let the file of the mirror be another one for a while."""
    database = day.services.database
    sound, database._files = database._files, ((0, 0),)
    yield
    database._files = sound


@contextlib.contextmanager
def locked(day: Day) -> Iterator[None]:
    """Let another program hold the lock of the mirror for a while."""
    database = day.services.database
    assert database._connection is not None
    database._connection.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("unwritable", [replaced, locked])
def test_a_heartbeat_without_news_finds_an_unwritable_mirror(
    unwritable: Callable[[Day], contextlib.AbstractContextManager[None]],
) -> None:
    """The next heartbeat reports the error, and the one after the end of the error ends it."""

    async def script(day: Day) -> None:
        await at_rest(day)
        for _ in range(2):
            with unwritable(day):
                await day.heartbeat.beat()
                assert day.webhook.write_error is not None
            await day.heartbeat.beat()
            assert day.webhook.write_error is None

    lived(script, items=ITEMS)


def test_a_stop_stores_until_when_the_daemon_ran() -> None:
    """Half a minute after a stop, a start does not report that the daemon was down for longer."""

    async def script(day: Day) -> None:
        await at_rest(day)
        await asyncio.sleep(2 * HEARTBEAT_S - 1)
        await day.end()
        await asyncio.sleep(30)
        await day.open()
        assert day.services.down is None

    lived(script, items=ITEMS)
