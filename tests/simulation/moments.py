"""The status page at the moments of a simulated day, and a real server that shows them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

import uvicorn

from simulation.days import HOUR_S, Day, lived
from syncd.admin import app
from syncd.core.listings import Listing
from syncd.core.payload import parse
from syncd.core.status_document import StatusDocument
from syncd.errors import MirrorUnavailable
from syncd.store import listings

EVIL = "<script>alert(1)</script>\"'&"
ERROR = MirrorUnavailable("no space is left on the disk", hint="free some")
ITEMS = 120


def moments() -> dict[str, str]:
    """Return the page at each moment of a day and a half, by its name."""
    return lived(_script, items=ITEMS, background=5)


async def _script(day: Day) -> dict[str, str]:
    status_service = day.status_service

    async def show(search: str) -> str:
        # The cache uses the time of this host, which stands still in the simulation.
        status_service._day._next_query_s = status_service._counts._next_query_s = 0.0
        return await status_service.page(search)

    shown = {}
    await day.heartbeat.beat()
    shown["new"] = await show("")
    changing = asyncio.create_task(day.change_every(240))
    await day.beat_for(9 * HOUR_S)
    # Deliveries are lost for an hour and a half.
    day.is_delivering = False
    await day.beat_for(1.5 * HOUR_S)
    await day.sweep()
    await day.beat_for(0.5 * HOUR_S)
    day.is_delivering = True
    await day.beat_for(20 * HOUR_S)
    shown["healthy"] = await show("")
    shown["story"] = await show("13")
    shown["found"] = await show("heavy cotton")
    shown["nothing"] = await show(EVIL)
    # For a while the shop has SKUs: one for each variant, more for the first, and a lost one.
    listed = [Listing(f"TEE-{one:04}", one, EVIL) for one in day.source.values]
    listed += [Listing(f"{'LONG-' * 8}{n}", 10, None) for n in range(4)]
    listed += [Listing(EVIL, 999_999, "A design without a variant")]
    await day.services.database.write(lambda db: listings.save(db, listed, day.clock.now()))
    shown["shop"] = await show("")
    shown["skus"] = await show("tee-00")
    shown["lost"] = await show(EVIL)
    await day.services.database.write(lambda db: listings.delete(db, [one.sku for one in listed]))
    sweep_id, _ = await day.services.sweep_manager.request("operator")
    await asyncio.sleep(100)
    day.source.values[10] = "on_demand"
    await day.deliver(10, "on_demand")
    shown["sweeping"] = await show("")
    await day.services.sweep_manager.wait(sweep_id)
    for n in range(3):
        body = b'{"event": {"action": "item-variant-updated", "at": %d}}' % n
        await day.services.batch_writer.submit(parse(body, day.clock.now()))
    shown["quarantined"] = await show("")
    day.is_delivering = False
    await day.until("silent")
    await day.beat_for(2 * HOUR_S)
    shown["silent"] = await show("")
    day.webhook.write_error = ERROR
    shown["failing"] = await show("")
    changing.cancel()
    return shown


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

    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app.application(status, exposition, shown), lifespan="off", log_config=None, ws="none"
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
