"""Answers that the mirror could not take: they are held and written again, not asked for again.

A failed write costs what it is about. As long as anything else can be written, one item or page is
put off, and the others are read. While nothing can be written, nothing is asked: the shop's orders
need those calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from syncd.clock import Clock, Jump
from syncd.core.backoff import backoff
from syncd.core.jobs import Job
from syncd.core.plain_text import shortened
from syncd.core.ports import ReadLedger
from syncd.errors import MirrorError
from syncd.sync.complaints import Complaints
from syncd.sync.read_failures import TRIES_PER_SWEEP, named, part_of

log = structlog.get_logger(__name__)

# An older answer is not written: what it says may have changed, and it is asked for again.
YOUNG = timedelta(minutes=1)
# The longest wait between two tries to write an answer, which cost Dreamship nothing; and between
# two calls, while one write after the other fails.
CAP = timedelta(minutes=1)
# Each holds one answer in memory. When so many cannot be written, reading waits for a person.
MAX_HELD = 50
_MAX_FAULT_CHARS = 200


class Keep(Protocol):
    """Writes one answer; raises MirrorError leaves with nothing of it written."""

    def __call__(self, *, rehearses: bool) -> Awaitable[None]:
        """Write it; or `rehearses`: find out whether it could be written, and leave nothing."""
        ...


GiveUp = Callable[[Job, datetime, MirrorError, int], Awaitable[None]]
"""Notes in the mirror that a part is put off until a moment, for a fault, after so many tries."""


class Held(Struct, frozen=True):
    """One answer that could not be written. `keep` None: only a note about it failed."""

    job: Job
    keep: Keep | None
    fault: MirrorError
    answered_at: datetime
    due_at: datetime
    tries: int = 0
    is_young: bool = True


class Unkept:
    """Holds what could not be written, and says what may be asked meanwhile."""

    def __init__(self, ledger: ReadLedger, clock: Clock, give_up: GiveUp) -> None:
        self._ledger = ledger
        self._clock = clock
        self._give_up = give_up
        self._held: dict[Hashable, Held] = {}
        # Parts that failed for the first time since anything was kept.
        self._in_a_row: set[Hashable] = set()
        self._ask_from: datetime | None = None
        self._is_down = False
        self._complaints = Complaints(clock)

    @property
    def items(self) -> set[int]:
        """Items that are not asked for: their answers wait to be written."""
        return {held.job.item_id for held in self._held.values() if held.job.item_id is not None}

    @property
    def has_page(self) -> bool:
        """Whether a page of a list waits to be written."""
        return any(held.job.item_id is None for held in self._held.values())

    @property
    def is_suspicious(self) -> bool:
        """Whether the last write failed: then one call at a time tells whether the next does."""
        return bool(self._in_a_row)

    @property
    def next_at(self) -> datetime | None:
        """When the next held answer is due to be written again."""
        return min((held.due_at for held in self._held.values()), default=None)

    @property
    def stops_reading(self) -> MirrorError | None:
        """Why nothing is asked; None while something may be."""
        if self._is_down or len(self._held) >= MAX_HELD:
            held = max(self._held.values(), key=lambda held: held.tries, default=None)
            return None if held is None else held.fault
        return None

    @property
    def reason(self) -> str | None:
        """A sentence for the status; None while all that is read can be kept."""
        held = list(self._held.values())
        if not held:
            return None
        first, others = held[0], len(held) - 1
        more = f" (nor {others} more)" if others else ""
        fault = shortened(first.fault.message, _MAX_FAULT_CHARS)
        what = f"{_name(first.job)}{more}"
        return f"The mirror cannot take what was read of {what}: {fault}; {first.fault.hint}."

    def asks_from(self, now: datetime) -> datetime | None:
        """Return until when nothing may be asked; None: something may be now."""
        if self.stops_reading is not None:
            return self.next_at
        return self._ask_from if self._ask_from is not None and self._ask_from > now else None

    def kept(self) -> None:
        """Note that an answer was written: the mirror takes what is read."""
        self._in_a_row.clear()
        self._ask_from = None
        self._is_down = False
        if not self._held:
            self._complaints.end("what is read can be kept again")

    async def failed(self, job: Job, fault: MirrorError, keep: Keep | None) -> None:
        """Hold an answer that could not be written, and find out whether anything else can be."""
        part, now = part_of(job), self._clock.now()
        before = self._held.get(part)
        if before is None or self._is_down:
            self._is_down = not await self._takes_a_mark(now)
        held = before or Held(job, keep, fault, answered_at=now, due_at=now)
        tries = held.tries + 1
        due_at = self._clock.now() + _doubled(tries)
        held = replace(held, job=job, keep=keep, fault=fault, due_at=due_at, tries=tries)
        self._held[part] = held
        if before is None:
            self._in_a_row.add(part)
            self._ask_from = now + _doubled(len(self._in_a_row))
        self._complaints.begin("what was read cannot be kept", fault, **named(job), tries=tries)
        if not self._is_down:
            await self._put_off(held)

    async def write_again(self) -> bool:
        """Write the answer that is due first, if one is; return whether one was."""
        now = self._clock.now()
        part = min(self._held, key=lambda part: self._held[part].due_at, default=None)
        if part is None or self._held[part].due_at > now:
            return False
        held = self._held[part]
        rehearses = not held.is_young or now - held.answered_at > YOUNG
        try:
            if held.keep is None:
                await self._ledger.leave_mark(now)
            else:
                await held.keep(rehearses=rehearses)
        except MirrorError as fault:
            await self.failed(held.job, fault, held.keep)
            return True
        except Exception:
            log.exception("a read failed for no known reason", **named(held.job))
        del self._held[part]
        self.kept()
        return True

    def hurry(self) -> None:
        """Write again at once what is held: somebody waits for it, or has mended something."""
        now = self._clock.now()
        for part, held in self._held.items():
            self._held[part] = replace(held, due_at=now)

    def follow(self, jump: Jump) -> None:
        """Move with this host's clock: what was answered by the clock as it was is asked again."""
        for part, held in self._held.items():
            self._held[part] = replace(held, due_at=jump.timer(held.due_at), is_young=False)
        if self._ask_from is not None:
            self._ask_from = jump.timer(self._ask_from)

    async def _takes_a_mark(self, now: datetime) -> bool:
        try:
            await self._ledger.leave_mark(now)
        except MirrorError:
            return False
        return True

    async def _put_off(self, held: Held) -> None:
        """Have sweeps go on without this part, if the damage leaves that much."""
        try:
            await self._give_up(held.job, held.due_at, held.fault, held.tries)
        except MirrorError as fault:
            log.debug("a part could not be put off", **named(held.job), fault=fault.message)


def give_up_after(tries: int) -> int:
    """Return after how many failed tries a sweep goes on without a part; one, if it was enough."""
    return TRIES_PER_SWEEP if tries < TRIES_PER_SWEEP else 1


def _doubled(times: int) -> timedelta:
    """Return one second, doubled for each time after the first one."""
    return backoff(times, 1.0, cap_s=CAP.total_seconds())


def _name(job: Job) -> str:
    return "a page of the list" if job.item_id is None else f"item {job.item_id}"
