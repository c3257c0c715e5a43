"""Reads that change nothing: written together, before anything that depends on them.

The tests use a real mirror and a source without faults, in virtual time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from simulation.clock import Clock, Inline, VirtualLoop

from syncd.clock import SteadyClock
from syncd.config import Config, Secret
from syncd.config.settings import Dreamship, Mirror, Reconcile
from syncd.core.model import ItemDetails, ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.daemon.services import Services
from syncd.store import Database, items
from syncd.sync.confirmations import LONGEST_WAIT_S, MOST_WAITING

T = TypeVar("T")

ITEMS = 40
PER_MINUTE = 15


class Source:
    """A source that counts the reads of each item; `value` is that of each variant."""

    def __init__(self, clock: SteadyClock) -> None:
        self.value = "in_stock"
        self.reads: list[int] = []
        self._clock = clock

    async def item(self, item_id: int) -> ItemRead:
        """Read one item."""
        self.reads.append(item_id)
        began_at = self._clock.now()
        await asyncio.sleep(0.1)
        variants = (SourceVariant(item_id * 10, self.value, VariantDetails("a name")),)
        return ItemRead(item_id, f"item {item_id}", variants, began_at, began_at)

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read the one page that there is."""
        del category_id, page
        rows = tuple(SourceItem(one, f"item {one}", None) for one in range(1, ITEMS + 1))
        return Page(rows, ITEMS, has_next=False, began_at=self._clock.now(), source_at=None)


class Disk(Inline):
    """The write thread; it counts the transactions."""

    def __init__(self) -> None:
        self.writes = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        self.writes += getattr(fn, "__name__", "") == "_write"
        return super().submit(fn, *args, **kwargs)


class Process:
    """The services of one process."""

    def __init__(self, path: Path, *, per_minute: int = PER_MINUTE, ran: float = 0.0) -> None:
        host = Clock(timedelta(seconds=ran))
        host.stolen_s = -ran
        self.clock = SteadyClock(host)
        self.source = Source(self.clock)
        self.disk = Disk()
        self.config = Config(
            dreamship=Dreamship(calls_per_minute=per_minute),
            mirror=Mirror(path=path),
            reconcile=Reconcile(background_calls_per_minute=0),
            keys=(Secret("key"),),
        )

    async def start(self) -> Services:
        """Open the mirror, and begin to read."""
        database = Database(self.config.mirror.path, executor=self.disk)
        self.services = await Services.open(
            self.config, clock=self.clock, source=self.source, database=database
        )
        self.services.start_reading()
        return self.services

    def rows(self, sql: str) -> list[Any]:
        """Query the mirror on the connection of the writer."""
        connection = self.services.database._connection
        assert connection is not None
        return connection.execute(sql).fetchall()

    async def sweep(self) -> None:
        """Sweep the catalogue, and wait for the end."""
        sweep_id, _ = await self.services.sweep_manager.request("operator")
        await self.services.sweep_manager.wait(sweep_id)

    async def sweep_end(self) -> None:
        """Wait until the open sweep ends."""
        while self.rows("SELECT 1 FROM sweeps WHERE ended_at IS NULL"):  # noqa: ASYNC110
            await asyncio.sleep(1)


def live(
    path: Path,
    story: Callable[[Process], Awaitable[T]],
    *,
    per_minute: int = PER_MINUTE,
    ran: float = 3600.0,
    stops: bool = True,
) -> T:
    """Run a story in virtual time; without `stops` the process ends as after SIGKILL.

    `ran`: the seconds since the first process of the mirror began.
    """
    processes: list[Process] = []

    async def run() -> T:
        process = Process(path, per_minute=per_minute, ran=ran)
        await process.start()
        processes.append(process)
        result = await story(process)
        if stops:
            await process.services.close()
        return result

    structlog.configure(cache_logger_on_first_use=False)
    with structlog.testing.capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        try:
            return runner.run(run())
        finally:
            for process in processes:
                database = process.services.database
                if database._connection is not None:
                    database._connection.close()
                    database._connection = None
                database._lock.release()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return a mirror that has read everything."""
    path = tmp_path / "mirror.db"
    live(path, lambda process: process.sweep(), ran=0)
    return path


def test_unchanged_reads_share_commits(mirror: Path) -> None:
    """A sweep of 40 unchanged items at 15 reads a minute, with its start and its end."""

    async def story(process: Process) -> tuple[int, float]:
        began_s, before = asyncio.get_running_loop().time(), process.disk.writes
        await process.sweep()
        return process.disk.writes - before, asyncio.get_running_loop().time() - began_s

    writes, seconds = live(mirror, story)
    assert writes <= seconds / LONGEST_WAIT_S + 5


def test_the_end_of_a_sweep_does_not_wait_for_a_commit(mirror: Path) -> None:
    """The last reads are written by the transaction that ends the sweep."""

    async def story(process: Process) -> float:
        began_s = asyncio.get_running_loop().time()
        sweep_id, _ = await process.services.sweep_manager.request("operator", items=[7])
        summary = await process.services.sweep_manager.wait(sweep_id)
        assert (summary.result, summary.items, summary.calls) == ("complete", 1, 1)
        return asyncio.get_running_loop().time() - began_s

    assert live(mirror, story) < 2


def test_an_item_is_not_read_again_while_its_read_waits(mirror: Path) -> None:
    """Each item is read once, and the mirror shows each read in time."""

    async def story(process: Process) -> list[int]:
        await process.services.sweep_manager.request("operator")
        last: list[int] = []
        for _ in range(5):
            last = list(process.source.reads)
            await asyncio.sleep(LONGEST_WAIT_S + 0.3)
            open_items = {
                row[0]
                for row in process.rows("SELECT item_id FROM sweep_items WHERE state = 'todo'")
            }
            assert not open_items & set(last)
        return process.source.reads

    reads = live(mirror, story)
    assert len(reads) == len(set(reads))


def test_many_reads_are_written_earlier(mirror: Path) -> None:
    """Without a limit of calls, so many reads are a transaction."""

    async def story(process: Process) -> int:
        before = process.disk.writes
        await process.sweep()
        return process.disk.writes - before

    assert 1 + ITEMS // MOST_WAITING <= live(mirror, story, per_minute=6000) <= 7


def test_a_clean_stop_writes_the_waiting_reads(mirror: Path) -> None:
    """Nothing is read again, and the calls of the last minute are known exactly."""

    async def some(process: Process) -> list[int]:
        await process.services.sweep_manager.request("schedule")
        await asyncio.sleep(70.5)
        return process.source.reads

    async def rest(process: Process) -> tuple[list[int], int]:
        used = process.services.rate_limiter.used_last_minute
        await process.sweep_end()
        return process.source.reads, used

    first = live(mirror, some)
    again, used = live(mirror, rest, ran=3671)
    assert not set(first) & set(again)
    assert 13 <= used <= PER_MINUTE


def test_a_crash_costs_a_few_reads(mirror: Path) -> None:
    """Items whose read waited are read again, and the calls that may be lost count as made."""

    async def some(process: Process) -> list[int]:
        await process.services.sweep_manager.request("schedule")
        await asyncio.sleep(70.5)
        return list(process.source.reads)

    async def rest(process: Process) -> tuple[list[int], int]:
        used = process.services.rate_limiter.used_last_minute
        await process.sweep_end()
        return process.source.reads, used

    first = live(mirror, some, stops=False)
    again, used = live(mirror, rest, ran=3671)
    assert used >= PER_MINUTE - 1, "no call is forgotten"
    assert 1 <= len(set(first) & set(again)) <= 6
    assert set(first) | set(again) == set(range(1, ITEMS + 1))


def test_a_read_that_cannot_be_written_stops_no_other_transaction(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged page fails the read of one item. It is read once more, and then held."""
    save, broken = items.save, {3}

    def broken_save(
        db: sqlite3.Connection, read: ItemRead, details: ItemDetails, *, is_blocked: bool
    ) -> None:
        if read.item_id in broken:
            raise sqlite3.DatabaseError("database disk image is malformed")
        save(db, read, details, is_blocked=is_blocked)

    monkeypatch.setattr(items, "save", broken_save)

    async def story(process: Process) -> tuple[int, list[int]]:
        sweep_id, _ = await process.services.sweep_manager.request("schedule", items=[3, 4])
        await asyncio.sleep(3)
        assert process.services.database.deferred_items == {3}
        await process.services.database.write(lambda db: db.execute("DELETE FROM counts"))
        assert process.services.database.deferred_items == set()
        await asyncio.sleep(8)
        broken.clear()
        summary = await process.services.sweep_manager.wait(sweep_id)
        return summary.items, process.source.reads

    read, reads = live(mirror, story)
    assert read == 2
    assert sorted(reads) == [3, 3, 4]
