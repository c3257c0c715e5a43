"""The phases of the demo: fill, deliver, lose, repair, check, compare; or fill and run on."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from syncd.control.client import request_status
from syncd.core.status_document import StatusDocument
from syncd.demo.compare import Comparison, compare
from syncd.demo.daemon_process import DaemonProcess
from syncd.demo.fake_dreamship import (
    Api,
    Catalog,
    Faults,
    Network,
    Throttle,
    WebhookSender,
    serving,
)
from syncd.demo.places import Folders, Ports
from syncd.demo.requests import answering
from syncd.demo.state import DemoState, Place, Result
from syncd.demo.target import DemoTarget, has_everything, line, require
from syncd.demo.traffic import VARIANTS_PER_ITEM, Traffic
from syncd.errors import SyncdError

# Dreamship allows 60 calls a minute; the demo allows 60 a second.
THROTTLE = Throttle(calls=60, window_s=1.0)
CALLS_PER_MINUTE = 2400
BACKGROUND_CALLS_PER_MINUTE = 1200
CHANGES_PER_S = 12.0
# A demo without an end shares its host with the work of a developer: every item is read in 6 s.
ENDLESS_ITEMS = 60
ENDLESS_BACKGROUND_CALLS_PER_MINUTE = 600
ENDLESS_CHANGES_PER_S = 0.5
# The catalogue is always the same, so a shop that is developed with the demo keeps its ids.
_SEED = 1
POLL_S = 0.25
MAX_WAIT_S = 60.0
LIFELIKE = Network(doubled_share=0.15, delay_s=(0.0, 0.8))


class Demo:
    """One run in a folder; `show` gets the state several times a second.

    `seconds`: the approximate duration; 0 runs until it is cancelled. `on_ready` gets the addresses
    as soon as the daemon has them.
    """

    def __init__(
        self,
        folders: Folders,
        seconds: float,
        show: Callable[[DemoState], None],
        *,
        ports: Ports = Ports(),  # noqa: B008 - immutable
        program: str = "syncd",
        on_ready: Callable[[Place], None] = lambda _: None,
        target: DemoTarget | None = None,
    ) -> None:
        self._daemon = DaemonProcess(folders.folder, folders.sockets / "control.sock")
        self._folders = folders
        self._ports = ports
        self._seconds = seconds
        self._show = show
        self._on_ready = on_ready
        self._target = target
        self._rng = random.Random()  # noqa: S311 - no secret
        self._key = f"demo_{secrets.token_hex(12)}"
        # The first sweep takes some seconds, but not the whole duration.
        items = round(max(20, min(300, seconds * 5))) if seconds else ENDLESS_ITEMS
        self._catalogue = Catalog.generate(items, VARIANTS_PER_ITEM, seed=_SEED, now=_now)
        self._api = Api(self._catalogue, (self._key,), Faults(throttle=THROTTLE))
        self._sender: WebhookSender | None = None
        self._watching: asyncio.Task[None] | None = None
        self._traffic = Traffic(self._catalogue, self._rng)
        self._began = time.monotonic()
        self._missed_before = 0
        self.state = DemoState(
            is_endless=not seconds,
            folder=str(folders.folder),
            mirror=str(self._daemon.mirror),
            program=program,
        )

    async def run(self) -> Result:
        """Run all phases; raises SyncdError if the daemon fails, or a port is in use."""
        background = (
            BACKGROUND_CALLS_PER_MINUTE if self._seconds else (ENDLESS_BACKGROUND_CALLS_PER_MINUTE)
        )
        async with serving(self._api, self._ports.dreamship) as base_url:
            self._daemon.configure(
                "" if self._target is None else self._target.section,
                base_url=base_url,
                key=self._key,
                calls_per_minute=CALLS_PER_MINUTE,
                background_calls_per_minute=background,
                webhook_port=self._ports.webhook,
                page_port=self._ports.status_page,
            )
            self._begin("starting", "a simulated Dreamship on loopback, and a real daemon")
            try:
                url, self.state.status_page = await self._daemon.start()
                place = Place(
                    folder=self.state.folder,
                    database=self.state.mirror,
                    config=str(self._daemon.config),
                    status_page=self.state.status_page,
                    webhook=url,
                    dreamship=base_url,
                )
                self._on_ready(place)
                self._watching = asyncio.create_task(self._watch())
                async with (
                    WebhookSender(self._catalogue, url, (self._key,)) as sender,
                    answering(self._folders.sockets, place, self._traffic.flip),
                ):
                    self._sender = self._traffic.sender = sender
                    sender.on_answer = self._count_outcome
                    return await self._run_phases(sender)
            finally:
                await self._stop()

    async def _stop(self) -> None:
        try:
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
        finally:
            await self._daemon.stop()

    async def _run_phases(self, sender: WebhookSender) -> Result:
        self._begin("filling", "an empty mirror: every item is read once, within the call limit")
        await self._until(lambda status: status.sweep.last_result is not None)
        require((await self._status()).publish)
        sender.network = LIFELIKE
        if not self._seconds:
            await self._run_on()
        self._begin("delivering", "availability changes; signed deliveries come late and twice")
        await self._change_until(self._seconds * 0.45)
        await sender.drain()
        await self._lose(sender)
        await self._repair(sender)
        repaired = self._compare().missed
        self._begin("checking", "syncd reconcile-now, for those who do not want to wait")
        code, reconcile = await self._daemon.command("reconcile-now")
        if code != 0:
            raise SyncdError(f"reconcile-now ended {reconcile.get('result')}", hint="try again")
        self.state.checked = int(reconcile["items"])
        self._begin("comparing", "nothing may differ")
        comparison = self._compare()
        target_differences = await self._compare_target()
        self._begin("done", "")
        return Result(
            differences=comparison.differences,
            variants=len(self._catalogue.variants),
            changes=self._traffic.changes,
            sent=sender.sent,
            lost=sender.lost,
            doubled=sender.doubled,
            repaired=repaired,
            repaired_s=round((self.state.repaired_s or 0.0) - (self.state.online_s or 0.0), 1),
            reconcile=reconcile,
            seconds=round(self._elapsed_s, 1),
            database=str(self._daemon.mirror),
            target_differences=target_differences,
        )

    async def _compare_target(self) -> int | None:
        if self._target is None:
            return None
        await self._until(lambda status: has_everything(status.publish))
        values = self._catalogue.current_values()
        return await asyncio.to_thread(self._target.differences, values)

    async def _lose(self, sender: WebhookSender) -> None:
        """Lose the delivery of each change; no variant changes twice, so that the sums are easy."""
        self.state.outage_s, self._missed_before = self._elapsed_s, self._compare().missed
        sender.network = Network(outage=True)
        self._begin("outage", "the network loses every delivery; only reads find the changes")
        unchanged = self._traffic.unchanged()
        removed = self._rng.choice(sorted(unchanged))
        await self._change_until(self._seconds * 0.6, unchanged=unchanged - {removed})
        self._catalogue.remove_variant(removed)
        sender.network = Network()
        self.state.online_s = self._elapsed_s

    async def _repair(self, sender: WebhookSender) -> None:
        self._begin("repairing", "a read found a lost change: everything is read again")
        await self._until(lambda _: not self._differences())
        self.state.repaired_s = self._elapsed_s
        await sender.drain()
        await self._until(lambda status: status.refresh_queue == 0 and not self._differences())

    async def _run_on(self) -> None:
        """Change some variants until this task is cancelled."""
        self._begin("running", "a change every few seconds; deliveries come late and twice")

        def check() -> bool:
            self._check()
            # They are never read, and a demo that runs for days would collect millions.
            self._api.calls.clear()
            return False

        await self._traffic.run(per_s=ENDLESS_CHANGES_PER_S, until=check)

    def _begin(self, phase: str, explanation: str) -> None:
        self.state.phase, self.state.explanation = phase, explanation
        self._update()

    def _count_outcome(self, _event: object, _status: int, outcome: str) -> None:
        self.state.outcomes[outcome] += 1

    async def _change_until(self, elapsed_s: float, *, unchanged: set[int] | None = None) -> None:
        # At least 20 changes, also in a very short demo.
        at_least = self._traffic.changes + 20

        def is_over() -> bool:
            self._check()
            return self._elapsed_s >= elapsed_s and self._traffic.changes >= at_least

        await self._traffic.run(
            per_s=CHANGES_PER_S, until=is_over, unchanged=unchanged, adds=unchanged is None
        )

    async def _until(self, done: Callable[[StatusDocument], bool]) -> None:
        deadline = time.monotonic() + MAX_WAIT_S
        while time.monotonic() < deadline:
            self._check()
            if done(await self._status()):
                return
            await asyncio.sleep(POLL_S)
        target = f"; target: {self.state.target}" if self.state.target else ""
        raise SyncdError(
            f"{self.state.phase} took longer than {MAX_WAIT_S:g} s{target}", hint="try again"
        )

    def _check(self) -> None:
        """Raise the error of the daemon, or of the output, if one has ended."""
        self._daemon.check()
        if self._watching is not None and self._watching.done():
            self._watching.result()

    async def _watch(self) -> None:
        while True:
            try:
                status = await self._status()
                self.state.sweep = status.sweep if status.sweep.running else None
                self.state.items = status.mirror.items
                self.state.target = "" if status.publish is None else line(status.publish)
            except SyncdError:
                pass  # the daemon starts or stops
            if self._daemon.mirror.exists():
                self._compare()
            self._update()
            await asyncio.sleep(POLL_S)

    def _status(self) -> Awaitable[StatusDocument]:
        return asyncio.to_thread(request_status, self._daemon.socket)

    def _differences(self) -> int:
        return self._compare().differences

    def _compare(self) -> Comparison:
        comparison = compare(self._daemon.mirror, self._catalogue.current_values())
        self.state.comparison = comparison
        is_lost = self.state.outage_s is not None and comparison.missed > self._missed_before
        if is_lost and self.state.noticed_s is None:
            self.state.noticed_s = self._elapsed_s
        return comparison

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _update(self) -> None:
        state = self.state
        state.elapsed_s, state.flipped = self._elapsed_s, self._traffic.changes
        if self._sender is not None:
            state.sent, state.lost = self._sender.sent, self._sender.lost
            state.doubled, state.in_flight = self._sender.doubled, self._sender.in_flight
        self._show(state)


def _now() -> datetime:
    return datetime.now(UTC)
