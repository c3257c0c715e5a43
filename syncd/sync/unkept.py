"""Answers that could not be written: they are held in memory and written later, not read again.

A failed write stops only its own part. While anything else can be written, one item or page is
postponed and the others are read. While nothing can be written, no call is made: the shop's orders
need the calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from syncd.clock import Clock
from syncd.core.backoff import backoff
from syncd.core.clock_jump import Jump
from syncd.core.jobs import Job
from syncd.core.plain_text import shortened
from syncd.errors import MirrorError
from syncd.store import Database, probe
from syncd.sync.complaints import Complaints
from syncd.sync.read_failures import ATTEMPTS_PER_SWEEP, named, part_of

log = structlog.get_logger(__name__)

# An older answer is not written: it may be outdated, and the part is read again.
YOUNG = timedelta(minutes=1)
# The longest wait between two attempts to write an answer, which need no call; and between two
# calls, while each write fails.
CAP = timedelta(minutes=1)
# Answers held in memory. If there are so many, all reads wait until the mirror is repaired.
MAX_HELD = 50
_MAX_FAULT_CHARS = 200


class Keep(Protocol):
    """Writes one answer. If it raises a leaf of MirrorError, nothing is written."""

    def __call__(self, *, rehearses: bool) -> Awaitable[None]:
        """Write the answer; `rehearses`: only find out whether it could be written."""
        ...


GiveUp = Callable[[Job, datetime, MirrorError, int], Awaitable[None]]
"""Stores that a part is postponed until a time, because of an error, after so many attempts."""


class Held(Struct, frozen=True):
    """One answer that could not be written; `keep` None: only its failure could not be stored."""

    job: Job
    keep: Keep | None
    fault: MirrorError
    answered_at: datetime
    due_at: datetime
    tries: int = 0
    is_young: bool = True


class Unkept:
    """Holds the answers that could not be written, and says which calls may be made meanwhile."""

    def __init__(self, database: Database, clock: Clock, give_up: GiveUp) -> None:
        self._database = database
        self._clock = clock
        self._give_up = give_up
        self._held: dict[Hashable, Held] = {}
        # Parts that failed for the first time since the last successful write.
        self._in_a_row: set[Hashable] = set()
        self._ask_from: datetime | None = None
        self._is_down = False
        self._complaints = Complaints(clock)

    @property
    def items(self) -> set[int]:
        """Items whose answers wait to be written, so that they are not read."""
        return {held.job.item_id for held in self._held.values() if held.job.item_id is not None}

    @property
    def has_page(self) -> bool:
        """Whether a page of a list waits to be written."""
        return any(held.job.item_id is None for held in self._held.values())

    @property
    def is_suspicious(self) -> bool:
        """Whether the last write failed; then there is only one call at a time."""
        return bool(self._in_a_row)

    @property
    def next_at(self) -> datetime | None:
        """When the next held answer is due to be written."""
        return min((held.due_at for held in self._held.values()), default=None)

    @property
    def stops_reading(self) -> MirrorError | None:
        """The error that stops all calls; None while calls may be made."""
        if self._is_down or len(self._held) >= MAX_HELD:
            held = max(self._held.values(), key=lambda held: held.tries, default=None)
            return None if held is None else held.fault
        return None

    @property
    def reason(self) -> str | None:
        """A sentence for the status; None while every answer can be written."""
        held = list(self._held.values())
        if not held:
            return None
        first, others = held[0], len(held) - 1
        more = f" (nor {others} more)" if others else ""
        fault = shortened(first.fault.message, _MAX_FAULT_CHARS)
        what = f"{_name(first.job)}{more}"
        return f"The mirror cannot take what was read of {what}: {fault}; {first.fault.hint}."

    def asks_from(self, now: datetime) -> datetime | None:
        """Return the time before which no call may be made; None: a call may be made now."""
        if self.stops_reading is not None:
            return self.next_at
        return self._ask_from if self._ask_from is not None and self._ask_from > now else None

    def kept(self) -> None:
        """Note that an answer was written."""
        self._in_a_row.clear()
        self._ask_from = None
        self._is_down = False
        if not self._held:
            self._complaints.end("what is read can be kept again")

    async def failed(self, job: Job, fault: MirrorError, keep: Keep | None) -> None:
        """Hold an answer that could not be written, and find out whether any write succeeds."""
        part, now = part_of(job), self._clock.now()
        before = self._held.get(part)
        if before is None or self._is_down:
            self._is_down = not await self._can_write(now)
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
        """Write the answer that is due first; tell whether one was due."""
        now = self._clock.now()
        part = min(self._held, key=lambda part: self._held[part].due_at, default=None)
        if part is None or self._held[part].due_at > now:
            return False
        held = self._held[part]
        rehearses = not held.is_young or now - held.answered_at > YOUNG
        try:
            if held.keep is None:
                await self._probe(now)
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
        """Make each held answer due now: an operator waits, or the mirror works again."""
        now = self._clock.now()
        for part, held in self._held.items():
            self._held[part] = replace(held, due_at=now)

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock; an answer of the old clock is read again."""
        for part, held in self._held.items():
            self._held[part] = replace(held, due_at=jump.timer(held.due_at), is_young=False)
        if self._ask_from is not None:
            self._ask_from = jump.timer(self._ask_from)

    async def _can_write(self, now: datetime) -> bool:
        try:
            await self._probe(now)
        except MirrorError:
            return False
        return True

    async def _probe(self, now: datetime) -> None:
        """Write some pages of unused text; raises leaves of MirrorError if that fails."""
        for size in (probe.MARK_BYTES, 0):
            await self._database.write(partial(probe.mark, now=now, size=size))

    async def _put_off(self, held: Held) -> None:
        """Let sweeps go on without this part, if at least that can be written."""
        try:
            await self._give_up(held.job, held.due_at, held.fault, held.tries)
        except MirrorError as fault:
            log.debug("a part could not be put off", **named(held.job), error=fault.message)


def max_attempts(tries: int) -> int:
    """Return after how many attempts a sweep gives up a part that failed `tries` times."""
    return ATTEMPTS_PER_SWEEP if tries < ATTEMPTS_PER_SWEEP else 1


def _doubled(times: int) -> timedelta:
    """Return one second, doubled each time after the first."""
    return backoff(times, 1.0, cap_s=CAP.total_seconds())


def _name(job: Job) -> str:
    return "a page of the list" if job.item_id is None else f"item {job.item_id}"
