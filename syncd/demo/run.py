"""The phases of the demo: fill, deliver, lose, repair, check, compare."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, field

from syncd.control.client import request_status
from syncd.core.model import JsonObject
from syncd.core.status_document import StatusDocument, SweepStatus
from syncd.demo.compare import Comparison, compare
from syncd.demo.daemon_process import DaemonProcess
from syncd.demo.fake_dreamship import (
    Api,
    Catalog,
    Event,
    Faults,
    Network,
    Throttle,
    WebhookSender,
    serving,
)
from syncd.errors import SyncdError

# Dreamship allows 60 calls a minute; the demo allows 60 a second.
THROTTLE = Throttle(calls=60, window_s=1.0)
CALLS_PER_MINUTE = 2400
BACKGROUND_CALLS_PER_MINUTE = 1200
VARIANTS_PER_ITEM = 8
FLIPS_PER_S = 12
POLL_S = 0.25
MAX_WAIT_S = 60.0
_VALUES = ("in_stock", "in_stock", "in_stock", "out_of_stock", "low_stock")


class DemoState(Struct):
    """The state of the demo at one moment, for the output."""

    phase: str = ""
    explanation: str = ""
    elapsed_s: float = 0.0
    items: int = 0
    flipped: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    in_flight: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    comparison: Comparison | None = None
    sweep: SweepStatus | None = None


class Result(Struct, frozen=True):
    """The result of the demo (`syncd demo --json`).

    `repaired`: lost changes that syncd found by itself, within `repaired_s` seconds after the
    outage. `reconcile`: what `reconcile-now` found after that.
    """

    differences: int
    variants: int
    changes: int
    sent: int
    lost: int
    doubled: int
    repaired: int
    repaired_s: float
    reconcile: JsonObject
    seconds: float
    database: str


class Demo:
    """One run in `folder`; `show` gets the state several times a second."""

    def __init__(self, folder: Path, seconds: float, show: Callable[[DemoState], None]) -> None:
        self.state = DemoState()
        self._seconds = seconds
        self._show = show
        self._rng = random.Random()  # noqa: S311 - no secret
        self._key = f"demo_{secrets.token_hex(12)}"
        # The first sweep takes some seconds, but not the whole duration.
        items = round(max(20, min(300, seconds * 5)))
        self._catalogue = Catalog.generate(
            items, VARIANTS_PER_ITEM, seed=self._rng.randrange(2**32), now=_now
        )
        self._daemon = DaemonProcess(folder)
        self._socket = folder / "control.sock"
        self._sender: WebhookSender | None = None
        self._began = time.monotonic()

    async def run(self) -> Result:
        """Run all phases; raises SyncdError if the daemon fails."""
        api = Api(self._catalogue, (self._key,), Faults(throttle=THROTTLE))
        async with serving(api) as base_url:
            self._daemon.configure(
                base_url=base_url,
                key=self._key,
                calls_per_minute=CALLS_PER_MINUTE,
                background_calls_per_minute=BACKGROUND_CALLS_PER_MINUTE,
            )
            self._begin("starting", "a simulated Dreamship on loopback, and a real daemon")
            url = await self._daemon.start()
            watching = asyncio.create_task(self._watch())
            try:
                async with WebhookSender(self._catalogue, url, (self._key,)) as sender:
                    self._sender = sender
                    sender.on_answer = self._count_outcome
                    return await self._run_phases(sender)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await self._daemon.stop()

    async def _run_phases(self, sender: WebhookSender) -> Result:
        self._begin("filling", "an empty mirror: every item is read once, within the call limit")
        await self._until(lambda status: status.sweep.last_result is not None)
        self._begin("delivering", "availability changes; signed deliveries come late and twice")
        sender.network = Network(doubled_share=0.15, delay_s=(0.0, 0.8))
        await self._flip_until(sender, self._seconds * 0.45)
        self._begin("outage", "the network loses every delivery; the shop does not notice yet")
        sender.network = Network(outage=True)
        await self._flip_until(sender, self._seconds * 0.6)
        self._catalogue.remove_variant(self._rng.choice(list(self._catalogue.variants)))
        sender.network = Network()
        self._begin("repairing", "a read found a lost change: everything is read again")
        began_s = time.monotonic()
        await self._until(lambda _: not self._differences())
        repaired_s = round(time.monotonic() - began_s, 1)
        await sender.drain()
        await self._until(lambda status: status.refresh_queue == 0 and not self._differences())
        repaired = self._compare().missed
        self._begin("checking", "syncd reconcile-now, for those who do not want to wait")
        code, reconcile = await self._daemon.command("reconcile-now")
        if code != 0:
            raise SyncdError(f"reconcile-now ended {reconcile.get('result')}", hint="try again")
        self._begin("comparing", "nothing may differ")
        comparison = self._compare()
        self._begin("done", "")
        return Result(
            differences=comparison.differences,
            variants=len(self._catalogue.variants),
            changes=self.state.flipped,
            sent=sender.sent,
            lost=sender.lost,
            doubled=sender.doubled,
            repaired=repaired,
            repaired_s=repaired_s,
            reconcile=reconcile,
            seconds=round(time.monotonic() - self._began, 1),
            database=str(self._daemon.mirror),
        )

    def _begin(self, phase: str, explanation: str) -> None:
        self.state.phase, self.state.explanation = phase, explanation
        self._update()

    def _count_outcome(self, _event: object, _status: int, outcome: str) -> None:
        self.state.outcomes[outcome] += 1

    async def _flip_until(self, sender: WebhookSender, elapsed_s: float) -> None:
        """Change random variants and send their deliveries, until this time."""
        # At least 20 changes, also in a very short demo.
        at_least = self.state.flipped + 20
        while time.monotonic() - self._began < elapsed_s or self.state.flipped < at_least:
            variant = self._rng.choice(list(self._catalogue.variants.values()))
            value = self._rng.choice([other for other in _VALUES if other != variant.availability])
            self._send(sender, self._catalogue.set_availability(variant.variant_id, value))
            if self._rng.random() < 0.01:  # noqa: PLR2004 - rarely
                self._send(sender, self._catalogue.add_variant(variant.item_id))
            self._daemon.check()
            await asyncio.sleep(self._rng.expovariate(FLIPS_PER_S))

    def _send(self, sender: WebhookSender, event: Event) -> None:
        sender.post(event)
        self.state.flipped += 1

    async def _until(self, done: Callable[[StatusDocument], bool]) -> None:
        deadline = time.monotonic() + MAX_WAIT_S
        while time.monotonic() < deadline:
            self._daemon.check()
            if done(await asyncio.to_thread(request_status, self._socket)):
                return
            await asyncio.sleep(POLL_S)
        raise SyncdError(f"{self.state.phase} took longer than {MAX_WAIT_S:g} s")

    async def _watch(self) -> None:
        while True:
            try:
                status = await asyncio.to_thread(request_status, self._socket)
                self.state.sweep = status.sweep if status.sweep.running else None
                self.state.items = status.mirror.items
            except SyncdError:
                pass  # the daemon starts or stops
            if self._daemon.mirror.exists():
                self._compare()
            self._update()
            await asyncio.sleep(POLL_S)

    def _differences(self) -> int:
        return self._compare().differences

    def _compare(self) -> Comparison:
        comparison = compare(self._daemon.mirror, self._catalogue.current_values())
        self.state.comparison = comparison
        return comparison

    def _update(self) -> None:
        state = self.state
        state.elapsed_s = time.monotonic() - self._began
        if self._sender is not None:
            state.sent, state.lost = self._sender.sent, self._sender.lost
            state.doubled, state.in_flight = self._sender.doubled, self._sender.in_flight
        self._show(state)


def _now() -> datetime:
    return datetime.now(UTC)
