"""Many requests to the admin listener delay nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from benchmarks import mirrors

from syncd.admin import app
from syncd.core.status_document import StatusDocument
from syncd.core.timestamps import from_text
from syncd.daemon.cached_queries import QueryRunner
from syncd.errors import Overloaded
from syncd.store import Database, Queries

if TYPE_CHECKING:
    from conftest import Site


def test_searches_at_the_same_time_are_limited() -> None:
    """Further ones get Retry-After; pages, the status and metrics have their own limit."""

    async def scenario() -> None:
        over = asyncio.Event()
        waiting = asyncio.Semaphore(0)

        async def shown(requested: str) -> str:
            if requested:
                waiting.release()
                await over.wait()
            return requested

        async def status() -> StatusDocument:
            return cast("StatusDocument", {})

        async def exposition() -> bytes:
            return b""

        transport = httpx.ASGITransport(
            app.application(status, exposition, shown, lambda error: error.message)
        )
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8788"
        ) as client:
            requesting = [
                asyncio.create_task(client.get("/?q=tee")) for _ in range(app.MAX_CONCURRENT)
            ]
            for _ in requesting:
                await waiting.acquire()
            refused = await client.get("/?q=tee")
            assert refused.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            assert refused.headers["Retry-After"] == str(app.RETRY_AFTER_S)
            for path in ("/", "/status.json", "/metrics"):
                assert (await client.get(path)).status_code == HTTPStatus.OK
            over.set()
            assert [(await one).status_code for one in requesting] == [200] * app.MAX_CONCURRENT
            assert (await client.get("/?q=tee")).status_code == HTTPStatus.OK

    asyncio.run(asyncio.wait_for(scenario(), 10))


def for_ever(reports: Queries) -> Any:
    """Run a query that never ends."""
    with reports._rows() as connection:
        return connection.execute(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
        ).fetchone()


def test_a_slow_query_is_interrupted(database: Database) -> None:
    """The next query is answered."""

    async def scenario() -> None:
        query_runner = QueryRunner(database.path, limit_s=0.1)
        with pytest.raises(Overloaded):
            await query_runner.run(for_ever)
        assert await query_runner.run(lambda reports: reports.newest_seq()) == 0
        await query_runner.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_stopping_interrupts_a_slow_query(database: Database) -> None:
    """The daemon does not wait for its end."""

    async def scenario() -> None:
        query_runner = QueryRunner(database.path)
        requested = asyncio.create_task(query_runner.run(for_ever))
        await asyncio.sleep(0.1)
        await query_runner.close()
        with pytest.raises(Overloaded):
            await requested

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_the_heartbeat_does_not_wait_for_searches(idle: Site) -> None:
    """Shops stop selling when `daemon_seen_at` is too old."""
    idle.mirror.parent.mkdir()
    mirrors.fill(idle.mirror, 100_000)
    # A sign of life every half a second.
    daemon = idle.serve(filled=False, environ={"WATCHDOG_USEC": "1000000"})
    over = threading.Event()
    codes: set[int] = set()

    def search() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not over.is_set():
                codes.add(client.get(f"{daemon.admin_url}/", params={"q": "grey"}).status_code)
                over.wait(0.2)

    threads = [threading.Thread(target=search) for _ in range(48)]
    for thread in threads:
        thread.start()
    try:
        until_s = time.monotonic() + 4.5
        while time.monotonic() < until_s:
            (row,) = idle.rows("SELECT daemon_seen_at FROM freshness")
            assert datetime.now(UTC) - from_text(row["daemon_seen_at"]) < timedelta(seconds=3)
            time.sleep(0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert codes == {200, 503}
