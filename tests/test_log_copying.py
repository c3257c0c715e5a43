"""The log is copied into the database between commits: nobody waits for it with his own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import pytest

from syncd.store.connection import LONG_LOG_PAGES
from syncd.store.rows import put_state
from syncd.store.writer import PAGES_BETWEEN, PAGES_OF_A_COMMIT, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE_BYTES = 4096
# Of each commit: a row fills a page.
ROWS = 40
# The last of so many has it copied.
COMMITS = PAGES_BETWEEN // (ROWS + PAGES_OF_A_COMMIT)
WITHIN_S = 10


class Tasks(Executor):
    """Runs each task only when told to, so that a test sees what is waited for."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.is_closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See Executor."""
        if self.is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_newest(self) -> None:
        """Run the task that came last."""
        future, run = self.waiting.pop()
        future.set_result(run())


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
def writer(tmp_path: Path, tasks: Tasks) -> Iterator[Writer]:
    one = Writer(tmp_path / "availability.db", executor=tasks)
    one.open()
    with contextlib.closing(one):
        yield one


def write(connection: sqlite3.Connection) -> int:
    for number in range(ROWS):
        # Another one each time: SQLite writes no page that stays as it is.
        put_state(connection, f"{number:03}", f"{connection.total_changes:06}" * (PAGE_BYTES // 7))
    return connection.total_changes


async def commit(writer: Writer, tasks: Tasks, times: int) -> None:
    """Commit so often; one task is all that each waits for."""
    for _ in range(times):
        answer = asyncio.create_task(writer.transact(write))
        await asyncio.sleep(0)
        tasks.run_newest()
        async with asyncio.timeout(WITHIN_S):
            await answer


def in_the_database(writer: Writer) -> int:
    """Count the rows that are in the database itself, whatever the log has."""
    copy = writer.path.with_name("copy.db")
    shutil.copy(writer.path, copy)
    with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
            return 0
        return int(database.execute("SELECT count(*) FROM state").fetchone()[0])


def log_pages(writer: Writer) -> int:
    return writer.path.with_name(f"{writer.path.name}-wal").stat().st_size // PAGE_BYTES


def test_it_is_copied_after_the_answer(writer: Writer, tasks: Tasks) -> None:
    asyncio.run(commit(writer, tasks, COMMITS * 3 // 2))
    assert in_the_database(writer) == 0
    assert len(tasks.waiting) == 1
    tasks.run_newest()
    assert in_the_database(writer) == ROWS


def test_it_begins_anew(writer: Writer, tasks: Tasks) -> None:
    for _ in range(10):
        asyncio.run(commit(writer, tasks, COMMITS))
        while tasks.waiting:
            tasks.run_newest()
    assert log_pages(writer) < LONG_LOG_PAGES


def test_it_has_an_end_when_nobody_copies_it(writer: Writer, tasks: Tasks) -> None:
    asyncio.run(commit(writer, tasks, 3 * LONG_LOG_PAGES // ROWS))
    assert LONG_LOG_PAGES <= log_pages(writer) < LONG_LOG_PAGES * 3 // 2


def test_a_commit_that_meets_the_end_is_answered(writer: Writer, tasks: Tasks) -> None:
    """The thread takes no more tasks, and this one is on disk."""

    async def end_meanwhile() -> None:
        answer = asyncio.create_task(writer.transact(write))
        await asyncio.sleep(0)
        tasks.is_closed = True
        tasks.run_newest()
        await answer

    asyncio.run(commit(writer, tasks, COMMITS - 1))
    asyncio.run(end_meanwhile())
