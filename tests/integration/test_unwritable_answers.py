"""Answers that the mirror cannot store: held, stored later, and not requested again.

The tests run hours of virtual time on a real mirror.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import structlog
from damaged import damage
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from simulation.clock import Clock, Inline, VirtualLoop
from structlog.testing import capture_logs

from syncd.clock import SteadyClock
from syncd.config import Config, Secret
from syncd.config.settings import Dreamship, Mirror, Reconcile
from syncd.core.model import ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.payload import parse
from syncd.daemon.services import Services
from syncd.demo.fake_dreamship import django_timestamp
from syncd.errors import MirrorError, MirrorUnavailable
from syncd.store import Database
from syncd.sync.unwritten_answers import MAX_UNWRITTEN

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    pass

T = TypeVar("T")

# Everything that a read writes: itself, its rehearsal, and that it could not be saved. If only the
# last one can be written, a sweep gives the item up.
SAVED_READS = (
    "Fetcher._save_read and Fetcher._write and Fetcher._rehearse and ReadFailures.postpone_failed"
)
ITEMS, VARIANTS = 60, 8
IN_FLIGHT = 4
HOUR_S = 3600.0
MINUTE_S = 60.0
# How long the daemon that filled a mirror has run.
RESTARTED = timedelta(seconds=610)


class Shelves:
    """A source without faults that counts the reads; every variant has `value`."""

    def __init__(self, clock: SteadyClock, items: int) -> None:
        self.requested: Counter[str] = Counter()
        self.urgent_at: list[float] = []
        self.value = "in_stock"
        self._clock = clock
        self._items = items

    async def item(self, item_id: int) -> ItemRead:
        """Read one item."""
        return await self._answer(
            f"item {item_id}",
            lambda began_at: ItemRead(
                item_id,
                f"item {item_id}",
                tuple(
                    SourceVariant(
                        item_id * 100 + n, self.value, VariantDetails("a name", "a colour")
                    )
                    for n in range(VARIANTS)
                ),
                began_at,
                began_at.replace(microsecond=0),
            ),
        )

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read the one page that there is."""
        del category_id
        rows = tuple(SourceItem(one, None, None) for one in range(1, self._items + 1))
        return await self._answer(
            f"page {page}",
            lambda began_at: Page(
                rows, len(rows), has_next=False, began_at=began_at, source_at=None
            ),
        )

    async def _answer(self, part: str, answer: Callable[[Any], T]) -> T:
        self.requested[part] += 1
        self.urgent_at.append(asyncio.get_running_loop().time())
        began_at = self._clock.now()
        await asyncio.sleep(0.3)
        return answer(began_at)


class Disk(Inline):
    """The write thread; a write fails if `fails` returns true for it."""

    def __init__(self) -> None:
        self.fails: Callable[[str], bool] = lambda _: False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        name = getattr(fn, "__name__", "")
        work = getattr(args[0], "func", args[0]) if args else None
        if name in {"_write", "write"} and self.fails(getattr(work, "__qualname__", "")):
            full: Future[T] = Future()
            full.set_exception(MirrorUnavailable("database or disk is full", hint="free some"))
            return full
        return super().submit(fn, *args, **kwargs)


class Life:
    """The services of one process from start to end."""

    def __init__(self, path: Path, items: int) -> None:
        host = Clock()
        if path.exists():
            # A restart: the host has run on.
            host = Clock(RESTARTED)
            host.stolen_s = -RESTARTED.total_seconds()
        self.clock = SteadyClock(host)
        self.source = Shelves(self.clock, items)
        self.disk = Disk()
        self.path = path
        self.config = Config(
            dreamship=Dreamship(calls_per_minute=45),
            mirror=Mirror(path=path),
            reconcile=Reconcile(background_calls_per_minute=0),
            keys=(Secret("key"),),
        )

    async def begin(self) -> None:
        """Open the mirror, and begin to read."""
        database = Database(self.path, executor=self.disk)
        self.services = await Services.open(
            self.config, clock=self.clock, source=self.source, database=database
        )
        self.services.start_reading()

    async def deliver(self, variant_id: int, value: str) -> None:
        """Take a delivery, if the mirror can store it."""
        now = self.clock.now()
        body = {
            "object": "item_variant",
            "event": {
                "uuid": f"{variant_id} {value} {now}",
                "object_id": variant_id,
                "action": "item-variant-availability-updated",
                "timestamp": django_timestamp(now + timedelta(seconds=1.5)),
            },
            "data": {"id": variant_id, "availability": value, "item": variant_id // 100},
        }
        with contextlib.suppress(MirrorError):
            await self.services.batch_writer.submit(parse(json.encode(body), now))

    async def sweep(self) -> None:
        """Begin a sweep of the catalogue, if the mirror can store it; do not wait for its end."""
        with contextlib.suppress(MirrorError):
            await self.services.sweep_manager.request("schedule")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the mirror."""
        with contextlib.closing(sqlite3.connect(self.path)) as mirror:
            return mirror.execute(sql).fetchall()


def live(
    path: Path, script: Callable[[Life], Awaitable[T]], items: int = ITEMS
) -> tuple[T, list[Any]]:
    """Run a script in virtual time; return its result and the lines of the log."""

    async def run() -> T:
        life = Life(path, items)
        await life.begin()
        try:
            return await script(life)
        finally:
            await life.services.close()

    structlog.configure(cache_logger_on_first_use=False)
    loop = VirtualLoop()
    try:
        with capture_logs() as lines:
            return loop.run_until_complete(run()), lines
    finally:
        loop.close()


async def fill(life: Life) -> None:
    await life.sweep()
    await asyncio.sleep(5 * MINUTE_S)
    for item_id in (1, 2):
        await life.deliver(item_id * 100, "low_stock")
    await asyncio.sleep(5 * MINUTE_S)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a mirror that has read everything."""
    path = tmp_path_factory.mktemp("full") / "mirror.db"
    live(path, fill)
    with contextlib.closing(sqlite3.connect(path)) as mirror:
        mirror.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def pages(path: Path) -> dict[int, str]:
    """Return the table or index of each page of a mirror."""
    with contextlib.closing(sqlite3.connect(path)) as mirror:
        return dict(mirror.execute("SELECT pageno, name FROM dbstat"))


def tried_of(found: dict[int, str]) -> list[tuple[int, str]]:
    """Return the pages that are damaged in turn, and what is on each.

    The last page of each table or index; in CI the first and a middle one too; all of them with the
    thorough profile. The table of variants, which the test is about, always has three.
    """
    if os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
        return list(found.items())
    of_name: dict[str, list[int]] = {}
    for page, name in found.items():
        of_name.setdefault(name, []).append(page)
    some = {
        name: sorted({of[0], of[len(of) // 2], of[-1]})
        if name == "variants" or os.environ.get("CI") == "true"
        else of[-1:]
        for name, of in of_name.items()
    }
    return [(page, name) for name, of in some.items() for page in of]


def test_a_damaged_page_causes_few_calls_and_log_lines(full: Path, tmp_path: Path) -> None:
    """An hour with a sweep and deliveries, for damaged pages of each table in turn.

    Where only a few items are damaged, the others are read and stored.
    """

    async def an_hour(life: Life) -> Counter[str]:
        life.source.value = "made to order"
        await life.sweep()
        for item_id in range(10, 50, 10):
            await life.deliver(item_id * 100, "low_stock")
        await asyncio.sleep(HOUR_S)
        return life.source.requested

    path = tmp_path / "mirror.db"
    shutil.copy(full, path)
    healthy, _ = live(path, an_hour)
    assert healthy["item 10"] == 2, "the sweep's read, and the settled one"
    opened: Counter[str] = Counter()
    for page, name in tried_of(pages(full)):
        for file in tmp_path.iterdir():
            file.unlink()
        shutil.copy(full, path)
        damage(path, page)
        try:
            requested, lines = live(path, an_hour)
        except MirrorError:
            continue  # it does not start, and says so
        opened[name] += 1
        of_one = requested.most_common(1)
        assert of_one == [] or of_one[0][1] <= 3, f"page {page} of {name}: {of_one}"
        assert requested.total() <= healthy.total() + 3, (
            f"page {page} of {name}: {requested.total()}"
        )
        errors = [line for line in lines if line["log_level"] == "error"]
        assert len(errors) <= 6, f"page {page} of {name}: {[line['event'] for line in errors]}"
    assert opened["variants"] >= 2, "no less damage was tried than that"


def test_a_damaged_page_does_not_stop_other_items(full: Path, tmp_path: Path) -> None:
    """Its items are named, read once, and put last; every other item is read."""
    path = tmp_path / "mirror.db"
    shutil.copy(full, path)
    of_variants = [page for page, name in pages(path).items() if name == "variants"]
    damage(path, of_variants[len(of_variants) // 2])

    def reads(life: Life, item_id: int) -> bool:
        try:
            life.rows(f"SELECT * FROM variants INDEXED BY variants_by_item WHERE item_id={item_id}")  # noqa: S608
        except sqlite3.DatabaseError:
            return False
        return True

    async def script(life: Life) -> tuple[set[int], Counter[str], list[Any], str]:
        # As long as "in_stock": longer rows would move between pages, also to the damaged one.
        life.source.value = "on_order"
        await life.sweep()
        await asyncio.sleep(HOUR_S)
        broken = {item for item in range(1, ITEMS + 1) if not reads(life, item)}
        last = life.rows(
            "SELECT result, items, failed_items, error FROM sweeps ORDER BY sweep_id DESC LIMIT 1"
        )
        return broken, life.source.requested, list(last[0]), str(life.services.worker.reason)

    (broken, requested, (result, items, failed, error), reason), lines = live(path, script)
    assert 0 < len(broken) < 10
    assert (result, items) == ("partial", ITEMS - len(broken))
    assert set(json.decode(failed)) == broken
    assert "the mirror could not store it" in error
    assert {requested[f"item {item}"] for item in range(1, ITEMS + 1)} == {1}
    assert "is damaged" in reason
    assert f"item {min(broken)}" in reason
    output = Counter(line["event"] for line in lines if line["log_level"] == "error")
    assert output == {"an answer cannot be written": 1}


@pytest.mark.parametrize("what", ["everything", "all but calls", "all but calls and marks"])
def test_no_call_is_made_while_nothing_can_be_stored(tmp_path: Path, what: str) -> None:
    """Two hours, from the middle of a sweep: the calls under way end, and no other is made.

    An almost full file system accepts small writes and refuses an answer. If the mirror accepts
    even a large probe, single calls with growing pauses find out whether it accepts answers. They
    stop when so many answers are held that an operator must act.
    """

    def fails(work: str) -> bool:
        is_call = "RateLimiter.spend" in work
        is_mark = work == "mark"
        return (
            what == "everything"
            or not (is_call or is_mark)
            or (is_mark and what != "all but calls and marks")
        )

    async def script(life: Life) -> tuple[int, int, str, float, int]:
        await life.sweep()
        await asyncio.sleep(20)
        life.disk.fails = fails
        before = life.source.requested.total()
        await asyncio.sleep(2 * HOUR_S)
        during = life.source.requested.total() - before
        why = life.services.worker.stuck_by or life.services.worker.reason
        used = life.services.rate_limiter.used_last_minute
        life.disk.fails = lambda _: False
        began_s = asyncio.get_running_loop().time()
        while life.rows("SELECT 1 FROM sweeps WHERE ended_at IS NULL"):  # noqa: ASYNC110
            await asyncio.sleep(1)
        took_s = asyncio.get_running_loop().time() - began_s
        assert life.rows("SELECT result, items FROM sweeps") == [("complete", ITEMS * 2)]
        assert life.rows("SELECT count(*) FROM availability") == [(ITEMS * 2 * VARIANTS,)]
        assert life.services.worker.stuck_by is None
        assert life.services.worker.reason is None
        return during, life.source.requested.most_common(1)[0][1], str(why), took_s, used

    (during, most, why, took_s, used), lines = live(tmp_path / "mirror.db", script, ITEMS * 2)
    # A waiting answer older than a minute is dropped, and its item is read once more.
    assert most <= 2
    assert during <= (IN_FLIGHT if what != "all but calls and marks" else MAX_UNWRITTEN)
    assert used == 0
    assert "disk is full" in why
    assert took_s < 6 * MINUTE_S, "a minute until the next try, and 120 items at 45 a minute"
    output = Counter(line["event"] for line in lines if line["log_level"] == "error")
    assert all(count <= 3 for count in output.values()), output
    ends = [line["event"] for line in lines if line["log_level"] == "info"]
    assert {"answers can be written again", "reading goes on"} & set(ends)


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 900), st.sampled_from([SAVED_READS, "RateLimiter.spend", "mark", ""])
        ),
        max_size=8,
    )
)
def test_no_answer_is_lost_by_temporary_write_faults(
    tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[float, str]]
) -> None:
    """Any writes fail for any time: then all is stored, and no item was read often."""

    async def script(life: Life) -> None:
        await life.sweep()
        for seconds, part in faults:
            life.disk.fails = lambda work, part=part: (  # type: ignore[misc]
                any(name in work for name in part.split(" and "))
            )
            await asyncio.sleep(seconds)
            life.disk.fails = lambda _: False
            await asyncio.sleep(10)
        await life.sweep()
        await asyncio.sleep(15 * MINUTE_S)
        assert life.rows("SELECT count(*) FROM sweeps WHERE ended_at IS NULL") == [(0,)]
        assert life.rows("SELECT count(*) FROM availability") == [(8 * VARIANTS,)]
        # At most once for each period without writes, and once for each sweep.
        assert life.source.requested.most_common(1)[0][1] <= 2 * len(faults) + 3

    live(tmp_path_factory.mktemp("whatever") / "mirror.db", script, 8)
