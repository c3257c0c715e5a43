"""The status page at the moments of a simulated day, and a real server that shows them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import uvicorn
from msgspec.structs import replace

from simulation.days import HOUR_S, Day, lived
from syncd.admin import app, page
from syncd.admin.live import LiveUpdates
from syncd.core.listings import Listing
from syncd.core.payload import parse
from syncd.core.snapshots import DaySummary, DeadListings
from syncd.core.status_document import StatusDocument
from syncd.errors import MirrorUnavailable, SyncdError
from syncd.store.listings import delete, save

EVIL = "<script>alert(1)</script>\"'&"
ERROR = MirrorUnavailable("no space is left on the disk", hint="free some")
ITEMS = 120
AT = "2026-03-02T19:04:35.000000Z"


NAME = "mugs on shop-1.example"


def moments() -> dict[str, str]:
    """Return the page at each moment of a first fill, and of a day and a half, by its name."""
    filling = lived(_filling, items=ITEMS, is_filled=False)
    return filling | lived(_script, items=ITEMS, background=5)


class _Camera:
    """Takes the pages of one daemon."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self.taken: dict[str, str] = {}
        day.status_service.shop_name = NAME

    async def take(self, name: str, search: str = "") -> None:
        # The cache uses the time of this host, which stands still in the simulation.
        service = self._day.status_service
        service._day._next_query_s = service._counts._next_query_s = 0.0
        self.taken[name] = await service.page(search)

    async def take_with(self, name: str, **summary: Any) -> None:
        """Take the page of a day whose summary has other values."""
        last_day = self._day.heartbeat.last_day

        async def changed(*arguments: Any) -> DaySummary:
            return replace(await last_day(*arguments), **summary)

        heartbeat: Any = self._day.heartbeat
        heartbeat.last_day = changed
        await self.take(name)
        heartbeat.last_day = last_day


async def _filling(day: Day) -> dict[str, str]:
    camera = _Camera(day)
    day.plan.start(day.clock.now(), complete_at=None, failures=0)
    await day.services.sweep_manager.request("start")
    await asyncio.sleep(75)
    day.services.down = None  # the script gave no heartbeat meanwhile
    await camera.take("filling")
    return camera.taken


async def _take_troubles(day: Day, camera: _Camera) -> None:
    failures = day.services.fetcher.failures
    failures.refused = "the list of items is answered 401"
    await camera.take("refused")
    failures.refused = None
    day.webhook.forged_since_delivery = 5
    await camera.take("rotated")
    day.webhook.forged_since_delivery = 0
    failures.unreachable = "no answer in 30 s"
    await camera.take("unreachable")
    failures.unreachable = None
    day.services.down = (day.clock.now() - timedelta(hours=3), day.clock.now())
    await camera.take("restarted")
    day.services.down = None
    await camera.take_with("held", last_sweep_result="partial", last_sweep_removals_held=57)


async def _script(day: Day) -> dict[str, str]:
    camera, services = _Camera(day), day.services
    await day.heartbeat.beat()
    services.down = None
    await camera.take("new")
    changing = asyncio.create_task(day.change_every(240))
    await day.beat_for(9 * HOUR_S)
    # Deliveries are lost for an hour and a half.
    day.is_delivering = False
    await day.beat_for(1.5 * HOUR_S)
    await day.sweep()
    await day.beat_for(0.5 * HOUR_S)
    day.is_delivering = True
    await day.beat_for(20 * HOUR_S)
    await camera.take("healthy")
    await camera.take("story", "981")
    await camera.take("found", "heavy cotton")
    await camera.take("nothing", EVIL)
    # For a while the shop has SKUs: one for each variant, more for the first, and a lost one.
    listed = [Listing(f"TEE-{one:04}", one, EVIL) for one in day.source.values]
    listed += [Listing(f"{'LONG-' * 8}{n}", 10, None) for n in range(4)]
    await services.database.write(lambda db: save(db, listed, day.clock.now()))
    await camera.take("shop")
    listed += [Listing(EVIL, 999_999, "A design without a variant")]
    await services.database.write(lambda db: save(db, listed[-1:], day.clock.now()))
    await camera.take("skus", "tee-00")
    await camera.take("lost", EVIL)
    services.listings._dead = DeadListings(1, (EVIL,))
    await camera.take("nowhere")
    services.listings._dead = DeadListings()
    await services.database.write(lambda db: delete(db, [one.sku for one in listed]))
    await _take_troubles(day, camera)
    sweep_id, _ = await services.sweep_manager.request("operator")
    await asyncio.sleep(100)
    day.source.values[10] = "on_demand"
    await day.deliver(10, "on_demand")
    await camera.take("sweeping")
    await services.sweep_manager.wait(sweep_id)
    for n in range(3):
        body = b'{"event": {"action": "item-variant-updated", "at": %d}}' % n
        await services.batch_writer.submit(parse(body, day.clock.now()))
    await camera.take("quarantined")
    day.is_delivering = False
    await day.until("silent")
    await day.beat_for(2 * HOUR_S)
    await camera.take("silent")
    day.webhook.write_error = ERROR
    await camera.take("failing")
    changing.cancel()
    return camera.taken


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def showing(pages: Mapping[str, str]) -> Iterator[str]:
    """Serve these pages at `/?q=NAME` like the daemon, and ERROR otherwise; yields the URL."""

    async def status() -> StatusDocument:
        raise ERROR

    async def exposition() -> bytes:
        return b""

    async def shown(search: str) -> str:
        if search not in pages:
            raise ERROR
        return pages[search].replace('data-every="5"', 'data-every="0.5"')  # tests wait for it

    def failed(error: SyncdError) -> str:
        return page.error(error.message, error.hint, at=AT, name=NAME)

    bound = socket.create_server(("127.0.0.1", 0))
    # Each event is a change: tests replace pages below the script.
    live = LiveUpdates(itertools.count().__next__, lambda: AT, check_s=0.5, at_most_every_s=0.5)
    config = uvicorn.Config(
        app.application(status, exposition, shown, failed, live=live),
        lifespan="off",
        log_config=None,
        ws="none",
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
        bound.close()
