"""Answers that could not be written: they stay in memory and are written later, not read again.

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

# An older answer is not written: it may be outdated, and its part is read again.
LONGEST_DELAY = timedelta(minutes=1)
# The longest wait between two attempts to write an answer, which need no call; and between two
# calls, while each write fails.
CAP = timedelta(minutes=1)
# Answers in memory. If there are so many, all reads wait until the mirror is repaired.
MAX_UNWRITTEN = 50
_MAX_ERROR_CHARS = 200


class WriteAnswer(Protocol):
    """Writes one answer. If it raises a leaf of MirrorError, nothing is written."""

    def __call__(self, *, rehearses: bool) -> Awaitable[None]:
        """Write the answer; `rehearses`: only find out whether it could be written."""
        ...


GiveUp = Callable[[Job, datetime, MirrorError, int], Awaitable[None]]
"""Stores that a part is postponed until a time, because of an error, after so many attempts."""


class UnwrittenAnswer(Struct, frozen=True):
    """One answer that could not be written; `write` None: only its failure was to be stored.

    `is_of_this_clock`: the clock of the host has not jumped since.
    """

    job: Job
    write: WriteAnswer | None
    error: MirrorError
    answered_at: datetime
    due_at: datetime
    attempts: int = 0
    is_of_this_clock: bool = True


class UnwrittenAnswers:
    """Has the answers that could not be written, and says which calls may be made meanwhile."""

    def __init__(self, database: Database, clock: Clock, give_up: GiveUp) -> None:
        self._database = database
        self._clock = clock
        self._give_up = give_up
        self._answers: dict[Hashable, UnwrittenAnswer] = {}
        # Parts that failed for the first time since the last successful write.
        self._in_a_row: set[Hashable] = set()
        self._calls_from: datetime | None = None
        self._is_down = False
        self._complaints = Complaints(clock)

    @property
    def items(self) -> set[int]:
        """Items whose answers wait to be written, so that they are not read."""
        return {
            answer.job.item_id
            for answer in self._answers.values()
            if answer.job.item_id is not None
        }

    @property
    def has_page(self) -> bool:
        """Whether a page of a list waits to be written."""
        return any(answer.job.item_id is None for answer in self._answers.values())

    @property
    def has_any(self) -> bool:
        """Whether an answer waits to be written, or the last write failed."""
        return bool(self._answers) or self.has_failed_write

    @property
    def has_failed_write(self) -> bool:
        """Whether the last write failed; then there is only one call at a time."""
        return bool(self._in_a_row)

    @property
    def next_at(self) -> datetime | None:
        """When the next answer is due to be written."""
        return min((answer.due_at for answer in self._answers.values()), default=None)

    @property
    def stops_reading(self) -> MirrorError | None:
        """The error that stops all calls; None while calls may be made."""
        if self._is_down or len(self._answers) >= MAX_UNWRITTEN:
            answer = max(self._answers.values(), key=lambda answer: answer.attempts, default=None)
            return None if answer is None else answer.error
        return None

    @property
    def reason(self) -> str | None:
        """A sentence for the status; None while every answer can be written."""
        answers = list(self._answers.values())
        if not answers:
            return None
        first, others = answers[0], len(answers) - 1
        more = f" and {others} more" if others else ""
        error = shortened(first.error.message, _MAX_ERROR_CHARS)
        parts = f"{_name(first.job)}{more}"
        return f"The mirror cannot store the answer for {parts}: {error}; {first.error.hint}."

    def calls_from(self, now: datetime) -> datetime | None:
        """Return the time before which no call may be made; None: a call may be made now."""
        if self.stops_reading is not None:
            return self.next_at
        return self._calls_from if self._calls_from is not None and self._calls_from > now else None

    def written(self) -> None:
        """Note that an answer was written."""
        self._in_a_row.clear()
        self._calls_from = None
        self._is_down = False
        if not self._answers:
            self._complaints.end("answers can be written again")

    async def failed(self, job: Job, error: MirrorError, write: WriteAnswer | None) -> None:
        """Remember an answer that could not be written, and find out whether any write succeeds."""
        part, now = part_of(job), self._clock.now()
        before = self._answers.get(part)
        if before is None or self._is_down:
            self._is_down = not await self._can_write(now)
        answer = before or UnwrittenAnswer(job, write, error, answered_at=now, due_at=now)
        attempts = answer.attempts + 1
        due_at = self._clock.now() + _doubled(attempts)
        answer = replace(
            answer, job=job, write=write, error=error, due_at=due_at, attempts=attempts
        )
        self._answers[part] = answer
        if before is None:
            self._in_a_row.add(part)
            self._calls_from = now + _doubled(len(self._in_a_row))
        self._complaints.begin(
            "an answer cannot be written", error, **named(job), attempts=attempts
        )
        if not self._is_down:
            await self._postpone(answer)

    async def retry_due(self) -> bool:
        """Write the answer that is due first; return whether one was due."""
        now = self._clock.now()
        part = min(self._answers, key=lambda part: self._answers[part].due_at, default=None)
        if part is None or self._answers[part].due_at > now:
            return False
        answer = self._answers[part]
        rehearses = not answer.is_of_this_clock or now - answer.answered_at > LONGEST_DELAY
        try:
            if answer.write is None:
                await self._probe(now)
            else:
                await answer.write(rehearses=rehearses)
        except MirrorError as error:
            await self.failed(answer.job, error, answer.write)
            return True
        except Exception:
            log.exception("a read failed for no known reason", **named(answer.job))
        del self._answers[part]
        self.written()
        return True

    def retry_now(self) -> None:
        """Make each answer due now: an operator waits, or the mirror works again."""
        now = self._clock.now()
        for part, answer in self._answers.items():
            self._answers[part] = replace(answer, due_at=now)

    def follow(self, jump: Jump) -> None:
        """Move all times with this host's clock; an answer of the old clock is read again."""
        for part, answer in self._answers.items():
            self._answers[part] = replace(
                answer, due_at=jump.timer(answer.due_at), is_of_this_clock=False
            )
        if self._calls_from is not None:
            self._calls_from = jump.timer(self._calls_from)

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

    async def _postpone(self, answer: UnwrittenAnswer) -> None:
        """Let sweeps go on without this part, if at least that can be written."""
        try:
            await self._give_up(answer.job, answer.due_at, answer.error, answer.attempts)
        except MirrorError as error:
            log.debug("a part could not be postponed", **named(answer.job), error=error.message)


def max_attempts(attempts: int) -> int:
    """Return after how many attempts a sweep gives up a part that failed `attempts` times."""
    return ATTEMPTS_PER_SWEEP if attempts < ATTEMPTS_PER_SWEEP else 1


def _doubled(times: int) -> timedelta:
    """Return one second, doubled each time after the first."""
    return backoff(times, 1.0, cap_s=CAP.total_seconds())


def _name(job: Job) -> str:
    return "a page of the list" if job.item_id is None else f"item {job.item_id}"
