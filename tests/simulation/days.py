"""Whole days of a healthy source in virtual time: the duration of sweeps, and of silence.

`python tests/simulation/days.py` prints the figures of syncd/docs/reconciling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import random
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import structlog

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from msgspec import json
from msgspec.structs import replace

from simulation.clock import Clock, Inline, VirtualLoop
from syncd.clock import SteadyClock
from syncd.config import Config
from syncd.core.fingerprint import fingerprint
from syncd.core.model import ItemRead, Page, SourceItem, SourceVariant, VariantDetails
from syncd.core.payload import parse
from syncd.core.timestamps import to_text
from syncd.daemon.heartbeat import HEARTBEAT_S, Heartbeat
from syncd.daemon.outputs import Outputs
from syncd.daemon.scheduler import Scheduler
from syncd.daemon.services import Services
from syncd.daemon.status_service import StatusService
from syncd.demo.fake_dreamship import Throttle
from syncd.errors import MirrorError, SourceThrottled
from syncd.store import Database
from syncd.webhook.endpoint import WebhookEndpoint

T = TypeVar("T")

PAGE = 100
LATENCY_S = 0.3
TICK_S = 5.0
NAMES = (
    "Mug 11 oz",
    "Unisex Heavy Cotton T-Shirt | Gildan 5000",
    "Canvas, 24x36 inch, 1.25 in deep",
)
HOUR_S = 3600.0


class Shelves:
    """A source without errors, with `items` items of four variants each.

    `rows_predict`: the row of an item changes with the values of its variants.
    """

    def __init__(
        self,
        items: int,
        clock: SteadyClock,
        *,
        rows_have_variants: bool,
        rows_predict: bool = False,
    ) -> None:
        self.values = {item * 10 + n: "in_stock" for item in range(1, items + 1) for n in range(4)}
        # The longest row of a list may lack variants; here that is one item of a hundred.
        self.values |= {item * 10 + 4: "in_stock" for item in range(1, items + 1, PAGE)}
        self.calls = 0
        self._items = items
        self._clock = clock
        self._true = Clock()
        self._rows_have_variants = rows_have_variants
        self._rows_predict = rows_predict
        # Calls of others with the same key, a minute; Dreamship allows 60 for all together.
        self.others_per_minute = 0.0
        self.throttled = 0
        self._chance = random.Random(5)
        self._limit = Throttle(calls=60, window_s=60)
        self._next_other_s = 0.0

    async def item(self, item_id: int) -> ItemRead:
        """Read one item."""
        began_at = self._clock.now()
        self._call()
        source_at = self._true.now()
        await asyncio.sleep(LATENCY_S)
        name = f"{NAMES[item_id % len(NAMES)]} {item_id}"
        return ItemRead(item_id, name, self._variants(item_id), began_at, source_at)

    async def page(self, category_id: int | None, page: int) -> Page:
        """Read one page."""
        del category_id
        began_at = self._clock.now()
        self._call()
        source_at = self._true.now()
        await asyncio.sleep(LATENCY_S)
        ids = range((page - 1) * PAGE + 1, min(page * PAGE, self._items) + 1)
        rows = tuple(
            SourceItem(
                one,
                None,
                self._variants(one) if self._rows_have_variants else None,
                fingerprint=self._fingerprint(one),
            )
            for one in ids
        )
        return Page(rows, self._items, page * PAGE < self._items, began_at, source_at)

    def _call(self) -> None:
        """Count a call; raises SourceThrottled above the limit."""
        now_s = asyncio.get_running_loop().time()
        self.calls += 1
        while self.others_per_minute and self._next_other_s < now_s:
            self._limit.wait_s(self._next_other_s)
            self._next_other_s += 60 * self._chance.expovariate(self.others_per_minute)
        if self._limit.wait_s(now_s) is not None:
            self.throttled += 1
            raise SourceThrottled("throttled", wait_s=20.0)

    def _fingerprint(self, item_id: int) -> int:
        values = [self.values[item_id * 10 + n] for n in range(4)] if self._rows_predict else []
        return fingerprint({"id": item_id, "values": values}) or 0

    def _variants(self, item_id: int) -> tuple[SourceVariant, ...]:
        return tuple(
            SourceVariant(
                item_id * 10 + n,
                self.values[item_id * 10 + n],
                VariantDetails(f"Heather Grey / {size}", "Heather Grey", size),
            )
            for n, size in enumerate(("S", "M", "L", "2XL", "3XL"))
            if item_id * 10 + n in self.values
        )


class Day:
    """One daemon with such a source: the real services, schedule and heartbeat, called by hand.

    APScheduler reads the clock of the host, so `_sweeping` begins the planned sweeps instead.
    """

    def __init__(
        self,
        folder: Path,
        items: int,
        calls_per_minute: int,
        *,
        rows_have_variants: bool = False,
        rows_predict: bool = False,
        background: int = 0,
    ) -> None:
        config = Config()
        self.host = Clock()
        self.clock = SteadyClock(self.host)
        self.source = Shelves(
            items, self.clock, rows_have_variants=rows_have_variants, rows_predict=rows_predict
        )
        self._config = replace(
            config,
            mirror=replace(config.mirror, path=folder / "mirror.db"),
            dreamship=replace(config.dreamship, calls_per_minute=calls_per_minute),
            reconcile=replace(config.reconcile, background_calls_per_minute=background),
        )
        self._chance = random.Random(1)
        self.is_delivering = True
        # The share of deliveries that is lost, and how late the others are.
        self.loses = 0.0
        self.late_s = 0.0

    async def begin(self) -> float:
        """Fill the mirror; return the duration in seconds."""
        await self.open()
        self.plan.start(self.clock.now(), complete_at=None, failures=0)
        # Without beats, the first one after the fill would take the fill for a downtime.
        beating = asyncio.create_task(self._beat())
        took_s = await self.sweep()
        beating.cancel()
        return took_s

    async def restart(self) -> None:
        """Stop the daemon and start it again."""
        await self.end()
        await self.open()
        saved_state = self.services.saved_state
        is_due = self.plan.start(
            self.clock.now(), complete_at=saved_state.complete_at, failures=saved_state.failures
        )
        if is_due:
            await self.services.sweep_manager.request("start")

    async def open(self) -> None:
        """Start the daemon, without a sweep."""
        database = Database(self._config.mirror.path, executor=Inline())
        self.services = await Services.open(
            self._config, clock=self.clock, source=self.source, database=database
        )
        self.schedule = Scheduler(self.services)
        self.webhook = WebhookEndpoint(
            self.services.batch_writer, list, self.clock.now, max_body_bytes=lambda: 1
        )
        outputs = Outputs(self.services.database, self.services.clock, self.services.active)
        self.heartbeat = Heartbeat(self.services, self.schedule, self.webhook, outputs=outputs)
        self.status_service = StatusService(self.services, self.heartbeat, self.webhook)
        self.services.start_reading()
        self.plan = self.schedule._schedule
        self.services.follow_sweeps(lambda summary: self.plan.end_sweep(summary, self.clock.now()))

    async def sweep(self) -> float:
        """Sweep once; return the duration in seconds."""
        sweep_id, _ = await self.services.sweep_manager.request("start")
        # Each look counts all items of the sweep, so few looks are enough for 10,000 items.
        while await self.services.sweep_manager.progress(sweep_id) is not None:  # noqa: ASYNC110
            await asyncio.sleep(HEARTBEAT_S)
        return (await self.services.sweep_manager.wait(sweep_id)).seconds

    async def end(self) -> None:
        """Close the mirror."""
        await self.status_service.close()
        await self.heartbeat.close()
        await self.services.close()

    async def change_every(self, seconds: float) -> None:
        """Change variants, and deliver each change while deliveries arrive."""
        while True:
            await asyncio.sleep(seconds)
            variant_id = self._chance.choice(list(self.source.values))
            value = self._chance.choice(["low_stock", "out_of_stock", "discontinued"])
            self.source.values[variant_id] = value
            if self.is_delivering and self._chance.random() >= self.loses:
                asyncio.get_running_loop().create_task(self._deliver_late(variant_id, value))

    async def _deliver_late(self, variant_id: int, value: str) -> None:
        await asyncio.sleep(self.late_s)
        while True:
            try:
                await self.deliver(variant_id, value)
            except MirrorError:
                await asyncio.sleep(10)  # Dreamship tries again
            else:
                return

    async def differences(self) -> dict[int, tuple[str | None, str]]:
        """Return the variants whose value in the mirror is not that of the source."""
        stored = await self.services.database.read(
            lambda db: dict(db.execute("SELECT variant_id, availability FROM availability"))
        )
        return {
            variant_id: (stored.get(variant_id), value)
            for variant_id, value in self.source.values.items()
            if stored.get(variant_id) != value
        }

    async def deliver(self, variant_id: int, value: str) -> None:
        """Deliver the value of a variant."""
        await self.services.batch_writer.submit(parse(self._body(variant_id, value), self._now()))

    async def until(self, state: str) -> float:
        """Beat until the webhook has this state; return the duration in seconds."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        sweeping = asyncio.create_task(self._sweeping())
        while (await self.status_service.status()).webhooks.state != state:
            await asyncio.sleep(HEARTBEAT_S)
            await self.heartbeat.beat()
        sweeping.cancel()
        return loop.time() - began_s

    async def beat_for(self, seconds: float) -> None:
        """Beat for this time."""
        end_s = asyncio.get_running_loop().time() + seconds
        sweeping = asyncio.create_task(self._sweeping())
        while asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(HEARTBEAT_S)
            await self.heartbeat.beat()
        sweeping.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.heartbeat.beat()

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            next_at = self.plan.next_at("sweep")
            if next_at is not None and next_at <= self.clock.now():
                self.plan.begin("sweep", self.clock.now())
                await self.services.sweep_manager.request("schedule")

    def _now(self) -> datetime:
        return self.clock.now()

    def _body(self, variant_id: int, value: str) -> bytes:
        now = Clock().now()
        event = {
            "uuid": f"{variant_id} {now}",
            "object_id": variant_id,
            "action": "item-variant-availability-updated",
            "timestamp": to_text(now),
        }
        data = {"id": variant_id, "availability": value, "item": variant_id // 10}
        return json.encode({"object": "item_variant", "event": event, "data": data})


def lived(
    script: Callable[[Day], Awaitable[T]],
    *,
    items: int,
    calls_per_minute: int = 45,
    rows_have_variants: bool = False,
    rows_predict: bool = False,
    background: int = 0,
    is_filled: bool = True,
) -> T:
    """Run the script of a day in virtual time, and return its result."""
    folder = Path(tempfile.mkdtemp(prefix="syncd-day-"))

    async def live() -> T:
        day = Day(
            folder,
            items,
            calls_per_minute,
            rows_have_variants=rows_have_variants,
            rows_predict=rows_predict,
            background=background,
        )
        await (day.begin() if is_filled else day.open())
        try:
            return await script(day)
        finally:
            await day.end()

    configured = structlog.get_config()
    structlog.configure(processors=[_mute])
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(live())
    finally:
        structlog.configure(**configured)
        shutil.rmtree(folder)


def _mute(*_: object) -> str:
    raise structlog.DropEvent


async def silence(day: Day, *, after_s: float = 24 * HOUR_S, every_s: float = 60) -> float:
    """Stop deliveries after a while; return the seconds until the status is `silent`."""
    changing = asyncio.create_task(day.change_every(every_s))
    await day.beat_for(after_s)
    day.is_delivering = False
    took_s = await day.until("silent")
    changing.cancel()
    return took_s


def main() -> None:
    """Print the documented figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[20, 300, 1000, 10_000])
    options = parser.parse_args()
    for items in options.items:
        for calls, has_variants in ((45, False), (45, True), (300, False)):
            took_s = lived(
                Day.sweep, items=items, calls_per_minute=calls, rows_have_variants=has_variants
            )
            rows = "with variants" if has_variants else "without"
            print(f"{items:6} items, {calls} calls a minute, rows {rows}: {took_s / 60:.1f} min")
    for background in (0, 15):
        for every_s in (60, 600, 3600):
            script = functools.partial(silence, every_s=every_s)
            took_s = lived(script, items=300, background=background)
            print(
                f"{background} background calls, a change every {every_s / 60:g} min: "
                f"silent {took_s / 60:.0f} min after the last delivery"
            )


if __name__ == "__main__":
    main()
