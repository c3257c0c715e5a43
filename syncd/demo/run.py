"""The play in five acts: fill, deliver, lose, reconcile, compare."""

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

from syncd.control.client import ask_status
from syncd.core.model import JsonObject
from syncd.core.status_document import StatusDocument, SweepStatus
from syncd.demo.compare import Comparison, compare
from syncd.demo.daemon_process import DaemonProcess
from syncd.demo.fake_dreamship import (
    Api,
    Catalog,
    Event,
    Faults,
    Throttle,
    Way,
    WebhookSender,
    serving,
)
from syncd.errors import SyncdError

# Dreamship's 60 calls, in a window of a second instead of a minute.
THROTTLE = Throttle(calls=60, window_s=1.0)
CALLS_PER_MINUTE = 2400
VARIANTS_PER_ITEM = 8
FLIPS_PER_S = 12
LOOK_S = 0.25
LONGEST_END_S = 60.0
_VALUES = ("in_stock", "in_stock", "in_stock", "out_of_stock", "low_stock")


class Frame(Struct):
    """What there is to see at one moment."""

    act: str = ""
    explanation: str = ""
    elapsed_s: float = 0.0
    items: int = 0
    flipped: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    underway: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    look: Comparison | None = None
    sweep: SweepStatus | None = None


class Result(Struct, frozen=True):
    """How it ended (`syncd demo --json`)."""

    differences: int
    variants: int
    changes: int
    sent: int
    lost: int
    doubled: int
    reconcile: JsonObject
    seconds: float
    database: str


class Play:
    """One run in `folder`, shown frame by frame to `show`."""

    def __init__(self, folder: Path, seconds: float, show: Callable[[Frame], None]) -> None:
        self.frame = Frame()
        self._seconds = seconds
        self._show = show
        self._rng = random.Random()  # noqa: S311 - which variant flips is no secret
        self._key = f"demo_{secrets.token_hex(12)}"
        # Enough to take some seconds, not more of them than there are.
        items = round(max(20, min(300, seconds * 5)))
        self._catalogue = Catalog.made(
            items, VARIANTS_PER_ITEM, seed=self._rng.randrange(2**32), now=_now
        )
        self._daemon = DaemonProcess(folder)
        self._socket = folder / "control.sock"
        self._postman: WebhookSender
        self._began = time.monotonic()

    async def run(self) -> Result:
        """Play it; raises SyncdError when the daemon does not play along."""
        api = Api(self._catalogue, (self._key,), Faults(throttle=THROTTLE))
        async with serving(api) as base_url:
            self._daemon.configure(
                base_url=base_url, key=self._key, calls_per_minute=CALLS_PER_MINUTE
            )
            self._begin("starting", "a simulated Dreamship on loopback, and a real daemon")
            url = await self._daemon.start()
            watching = asyncio.create_task(self._watch())
            try:
                async with WebhookSender(self._catalogue, url, (self._key,)) as postman:
                    self._postman = postman
                    postman.on_receipt = self._receipt
                    return await self._acts()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await self._daemon.stop()

    async def _acts(self) -> Result:
        self._begin("filling", "an empty mirror: every item is read once, within the call limit")
        await self._until(lambda status: status.sweep.last_result is not None)
        self._begin("delivering", "availability changes; signed deliveries come late and twice")
        self._postman.way = Way(doubled_share=0.15, delay_s=(0.0, 1.5))
        await self._flip_until(self._seconds * 0.45)
        self._begin("outage", "the network loses every delivery; the shop does not notice yet")
        self._postman.way = Way(outage=True)
        await self._flip_until(self._seconds * 0.65)
        self._catalogue.remove_variant(self._rng.choice(list(self._catalogue.variants)))
        self._postman.way = Way()
        self._begin("reconciling", "syncd reconcile-now reads the catalogue and repairs the mirror")
        code, reconcile = await self._daemon.command("reconcile-now")
        if code != 0:
            raise SyncdError(f"reconcile-now ended {reconcile.get('result')}", hint="try again")
        self._begin("comparing", "the last deliveries are confirmed; then nothing may differ")
        await self._postman.drain()
        await self._until(lambda status: status.refresh_queue == 0 and not status.sweep.running)
        look = self._look()
        self._begin("done", "")
        return Result(
            differences=look.differences,
            variants=len(self._catalogue.variants),
            changes=self.frame.flipped,
            sent=self._postman.sent,
            lost=self._postman.lost,
            doubled=self._postman.doubled,
            reconcile=reconcile,
            seconds=round(time.monotonic() - self._began, 1),
            database=str(self._daemon.mirror),
        )

    def _begin(self, act: str, explanation: str) -> None:
        self.frame.act, self.frame.explanation = act, explanation
        self._tell()

    def _receipt(self, _event: object, _status: int, outcome: str) -> None:
        self.frame.outcomes[outcome] += 1

    async def _flip_until(self, elapsed_s: float) -> None:
        """Change what is true, at random, and let the postman tell."""
        # However short the play, some must change.
        least = self.frame.flipped + 20
        while time.monotonic() - self._began < elapsed_s or self.frame.flipped < least:
            variant = self._rng.choice(list(self._catalogue.variants.values()))
            value = self._rng.choice([v for v in _VALUES if v != variant.availability])
            self._post(self._catalogue.set_availability(variant.variant_id, value))
            if self._rng.random() < 0.01:  # noqa: PLR2004 - now and then
                self._post(self._catalogue.add_variant(variant.item_id))
            self._daemon.check()
            await asyncio.sleep(self._rng.expovariate(FLIPS_PER_S))

    def _post(self, event: Event) -> None:
        self._postman.post(event)
        self.frame.flipped += 1

    async def _until(self, done: Callable[[StatusDocument], bool]) -> None:
        deadline = time.monotonic() + LONGEST_END_S
        while time.monotonic() < deadline:
            self._daemon.check()
            if done(await asyncio.to_thread(ask_status, self._socket)):
                return
            await asyncio.sleep(LOOK_S)
        raise SyncdError(f"{self.frame.act} took longer than {LONGEST_END_S:g} s")

    async def _watch(self) -> None:
        while True:
            try:
                status = await asyncio.to_thread(ask_status, self._socket)
                self.frame.sweep = status.sweep if status.sweep.running else None
                self.frame.items = status.mirror.items
            except SyncdError:
                pass  # it is starting or stopping
            if self._daemon.mirror.exists():
                self._look()
            self._tell()
            await asyncio.sleep(LOOK_S)

    def _look(self) -> Comparison:
        self.frame.look = compare(self._daemon.mirror, self._catalogue.truth())
        return self.frame.look

    def _tell(self) -> None:
        frame = self.frame
        frame.elapsed_s = time.monotonic() - self._began
        if hasattr(self, "_postman"):
            frame.sent, frame.lost = self._postman.sent, self._postman.lost
            frame.doubled, frame.underway = self._postman.doubled, self._postman.underway
        self._show(frame)


def _now() -> datetime:
    return datetime.now(UTC)
