"""Variants that vanish from the catalogue: removed at the end of a sweep, up to a limit."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import Struct, field, json

from syncd.clock import SteadyClock
from syncd.config import Config, Secret
from syncd.config.settings import Dreamship, Mirror, Reconcile
from syncd.core.jobs import SweepSummary
from syncd.core.model import ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.payload import parse
from syncd.daemon.heartbeat import Heartbeat
from syncd.daemon.outputs import Outputs
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.daemon.status_service import StatusService
from syncd.demo.fake_dreamship import django_timestamp
from syncd.errors import SourceGone, SourceUnreachable
from syncd.webhook.endpoint import WebhookEndpoint

PER_ITEM = 10


class HastyHost:
    """The clocks of a host on which time is twenty times as fast."""

    SPEED = 20
    boot_id = ""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._began_s = time.monotonic()

    def wall(self) -> datetime:
        """See RawClock."""
        return self._began + timedelta(seconds=self.elapsed_s())

    def elapsed_s(self) -> float:
        """See RawClock."""
        return (time.monotonic() - self._began_s) * self.SPEED


class Hasty(SteadyClock):
    """A clock that runs twenty times as fast, so that back-off and settling are short."""

    def __init__(self) -> None:
        super().__init__(HastyHost())

    async def sleep(self, seconds: float) -> None:
        """Sleep by this clock."""
        await asyncio.sleep(seconds / HastyHost.SPEED)


class Shelf(Struct):
    """A source in memory: the variants of each item, and the unreadable items."""

    items: dict[int, list[int]] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)
    down: bool = False
    on_read: Callable[[int], None] = lambda _: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def item(self, item_id: int) -> ItemRead:
        """Read one item."""
        began_at = self.now()
        self.on_read(item_id)
        if self.down or item_id in self.broken:
            raise SourceUnreachable("broken")
        if item_id not in self.items:
            raise SourceGone("gone")
        variants = tuple(
            SourceVariant(v, "in_stock", VariantDetails()) for v in self.items[item_id]
        )
        return ItemRead(item_id, None, variants, began_at, began_at.replace(microsecond=0))

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page of a hundred."""
        del category_id
        if self.down:
            raise SourceUnreachable("down")
        ids = sorted(self.items)
        rows = tuple(SourceItem(one, None, None) for one in ids[(page - 1) * 100 : page * 100])
        return Page(rows, len(ids), len(ids) > page * 100, self.now(), None)


def shelf(items: int) -> Shelf:
    return Shelf({one: [one * 100 + n for n in range(PER_ITEM)] for one in range(1, items + 1)})


class Running:
    """Running services with a source in memory, and the queries of a shop."""

    def __init__(self, services: Services, path: Path) -> None:
        self.services = services
        self._path = path

    async def sweep(self, *, accept_removals: bool = False) -> SweepSummary:
        """Sweep the catalogue to its end."""
        sweep_manager = self.services.sweep_manager
        sweep_id, _ = await sweep_manager.request("operator", accept_removals=accept_removals)
        return await sweep_manager.wait(sweep_id)

    async def reasons(self) -> list[str]:
        """Return the reasons in the status."""
        services = self.services
        webhook = WebhookEndpoint(
            services.batch_writer, list, services.clock.now, max_body_bytes=lambda: 1
        )
        outputs = Outputs(services.database, services.clock, services.active)
        heartbeat = Heartbeat(services, Scheduler(services), webhook, outputs=outputs)
        status_service = StatusService(services, heartbeat, webhook)
        try:
            output: list[str] = (await status_service.status()).reasons
            return [reason for reason in output if not reason.startswith("No delivery has arrived")]
        finally:
            await status_service.close()
            await heartbeat.close()

    async def deliver(self, variant_id: int, item_id: int, value: str) -> str:
        """Take a delivery with a current timestamp."""
        now = self.services.clock.now()
        at = now + timedelta(seconds=1.9)
        body = json.encode(
            {
                "object": "item_variant",
                "event": {
                    "uuid": f"{variant_id} {value} {at}",
                    "object_id": variant_id,
                    "action": "item-variant-availability-updated",
                    "timestamp": django_timestamp(at),
                },
                "data": {"id": variant_id, "availability": value, "item": item_id},
            }
        )
        return await self.services.batch_writer.submit(parse(body, now))

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Query the mirror as a shop does."""
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def count(self, where: str) -> object:
        """Count variants."""
        return self.query(f"SELECT count(*) FROM availability WHERE {where}")[0][0]  # noqa: S608

    async def until(self, done: Callable[[], object]) -> None:
        """Return when the condition holds; otherwise the time limit of the test ends the wait."""
        while not done():  # noqa: ASYNC110 - what others write to a file sets no event
            await asyncio.sleep(0.01)

    async def until_all_asked(self) -> None:
        """Return when the queue of reads is empty."""
        await self.until(lambda: not self.query("SELECT 1 FROM refresh_queue"))


def run(tmp_path: Path, source: Shelf, script: Callable[[Running], Awaitable[None]]) -> None:
    path = tmp_path / "mirror.db"
    config = Config(
        dreamship=Dreamship(calls_per_minute=6_000),
        mirror=Mirror(path=path),
        reconcile=Reconcile(settle=timedelta(seconds=4)),
        keys=(Secret("key"),),
    )

    async def report() -> None:
        clock = Hasty()
        source.now = clock.now
        async with await Services.open(config, source=source, clock=clock) as services:
            services.start_reading()
            await script(Running(services, path))

    asyncio.run(asyncio.wait_for(report(), 30))


def test_a_sweep_removes_missing_variants_at_its_end(tmp_path: Path) -> None:
    """Of a missing item or a missing variant: the rows stay, unsellable, and the feed has them."""
    source = shelf(10)

    async def script(mirror: Running) -> None:
        assert (await mirror.sweep()).added == 100
        del source.items[3]
        source.items[4].remove(401)
        summary = await mirror.sweep()
        assert (summary.result, summary.removed, summary.changed) == ("complete", 11, 0)
        assert mirror.count("removed = 1 AND sellable = 0 AND verifying = 0") == 11
        assert mirror.count("removed = 0 AND sellable = 1") == 89
        gone = mirror.query("SELECT count(*) FROM changes WHERE availability IS NULL")
        assert gone == [(11,)]

    run(tmp_path, source, script)


def test_missing_variants_are_unsellable_before_the_sweep_ends(tmp_path: Path) -> None:
    """The rest of the catalogue is still being read."""
    source = shelf(10)
    looks: list[object] = []

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        del source.items[1]
        source.broken = {10}  # the sweep has to try it again, and goes on meanwhile
        source.on_read = lambda _: looks.append(
            (mirror.count("verifying = 1 AND sellable = 0"), mirror.count("removed = 1"))
        )
        await mirror.sweep()

    run(tmp_path, source, script)
    assert (10, 0) in looks


def test_removals_past_the_limit_need_an_operator(tmp_path: Path) -> None:
    """A third of the mirror: the sweep reports it, and --accept-removals removes it."""
    source = shelf(30)

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        for item_id in range(1, 11):
            del source.items[item_id]
        for _ in range(2):
            summary = await mirror.sweep()
            assert (summary.result, summary.removed, summary.removals_held) == ("partial", 0, 100)
            assert "100 variants" in summary.error
            assert mirror.count("removed = 1 OR verifying = 1 OR sellable = 0") == 0
            (reason,) = await mirror.reasons()
            assert reason.endswith("; `syncd reconcile-now --accept-removals` removes them.")
        # Their confirmation keeps its age.
        assert (
            mirror.count(
                "item_id <= 10 AND confirmed_at > (SELECT min(confirmed_at) "
                "FROM availability WHERE item_id > 10)"
            )
            == 0
        )
        summary = await mirror.sweep(accept_removals=True)
        assert (summary.result, summary.removed) == ("complete", 100)
        assert mirror.count("removed = 1") == 100
        assert await mirror.reasons() == []
        source.down = True
        assert (await mirror.sweep()).result == "failed"
        assert (await mirror.reasons())[-1].endswith("; `syncd reconcile-now` tries again now.")

    run(tmp_path, source, script)


def test_held_removals_that_are_listed_again_change_nothing(tmp_path: Path) -> None:
    """Only the listing was broken."""
    source = shelf(30)

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        whole = dict(source.items)
        source.items = {one: whole[one] for one in range(21, 31)}
        assert (await mirror.sweep()).removals_held == 200
        source.items = whole
        summary = await mirror.sweep()
        assert (summary.result, summary.removals_held, summary.removed) == ("complete", 0, 0)
        assert mirror.count("sellable = 1 AND removed = 0") == 300
        assert mirror.query("SELECT count(*) FROM changes WHERE availability IS NULL") == [(0,)]

    run(tmp_path, source, script)


def test_a_removed_item_that_is_listed_again_is_sellable(tmp_path: Path) -> None:
    """By the read that finds it."""
    source = shelf(5)

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        stored = source.items.pop(2)
        await mirror.sweep()
        assert mirror.count("removed = 1") == PER_ITEM
        source.items[2] = stored
        summary = await mirror.sweep()
        assert summary.added == PER_ITEM
        assert mirror.count("removed = 0 AND sellable = 1") == 5 * PER_ITEM

    run(tmp_path, source, script)


def test_a_delivery_for_a_removed_variant_is_verified(tmp_path: Path) -> None:
    """However new its timestamp is."""
    source = shelf(5)

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        del source.items[2]
        await mirror.sweep()
        assert await mirror.deliver(201, 2, "in_stock") == "verifying"
        assert mirror.count("variant_id = 201 AND sellable = 1") == 0
        await mirror.until_all_asked()
        assert mirror.count("variant_id = 201 AND removed = 1 AND verifying = 0") == 1

    run(tmp_path, source, script)


def test_a_delivery_during_the_sweep_delays_the_removal(tmp_path: Path) -> None:
    """The variant was missing in a read, then had a delivery: a settled read decides."""
    source = shelf(30)
    output: list[asyncio.Task[str]] = []

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        source.items[1].remove(100)

        def on_read(item_id: int) -> None:
            if item_id == 20 and not output:
                output.append(asyncio.create_task(mirror.deliver(100, 1, "in_stock")))

        source.on_read = on_read
        summary = await mirror.sweep()
        assert summary.removed == 0
        await mirror.until_all_asked()
        assert await output[0] in {"unchanged", "verifying"}
        assert mirror.count("variant_id = 100 AND removed = 1") == 1

    run(tmp_path, source, script)


@pytest.mark.parametrize("ending", ["fails", "is replaced"])
def test_variants_missing_in_an_unfinished_sweep_are_read_again(
    tmp_path: Path, ending: str
) -> None:
    """No variant stays verifying without a read."""
    source = shelf(12)

    async def script(mirror: Running) -> None:
        await mirror.sweep()
        del source.items[1]
        services = mirror.services
        source.broken = set(range(2, 13))
        sweep_id, _ = await services.sweep_manager.request("schedule")
        await mirror.until(lambda: mirror.count("verifying = 1") == PER_ITEM)
        if ending == "fails":
            source.down = True
            assert (
                await services.sweep_manager.wait(sweep_id)
            ).result == "partial"  # item 1 was read
            source.down = False
        source.broken = set()
        if ending == "is replaced":
            await mirror.sweep()
        services.worker.resume()
        await mirror.until(lambda: mirror.count("verifying = 1") == 0)
        assert mirror.count("removed = 1") == PER_ITEM

    run(tmp_path, source, script)
